"""Checkpoints of a study that look wrong, from their files, sketches and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.engine.resolve import Resolved
from isoloss.models.fingerprint import Facts, flags
from isoloss.store import Store


def checkpoint_flags(store: Store, points: Sequence[Resolved]) -> list[dict[str, Any]]:
    """The table of flags after a run.

    Args:
        store: holds the sketches of checkpoints measured so far.
        points: the study's checkpoints; flags of others that the store knows are kept.

    Returns:
        Rows of the table ``flags``: copies of another step's weights, uploads that mix the
        files of two checkpoints, and checkpoints that do not lie on the way of their run.
    """
    sketches = _sketches(store)
    known = [point for point in points if point.description is not None]
    facts = [
        Facts(
            checkpoint=point.checkpoint.name,
            run=f"{point.checkpoint.run.model.family}/{point.checkpoint.run.name}",
            step=point.checkpoint.step,
            weights_hash=point.description.weights_hash if point.description else None,
            shards=point.description.shards if point.description else (),
            sketch=sketches.get(point.description.weights_hash) if point.description else None,
        )
        for point in known
    ]
    by_name = {point.checkpoint.name: point.row() for point in known}
    rows = [
        {
            **{key: by_name[flag.checkpoint][key] for key in ("family", "model", "run", "stage")},
            "step": by_name[flag.checkpoint]["step"],
            "kind": flag.kind,
            "detail": flag.detail,
        }
        for flag in flags(facts)
    ]
    runs = {(row["family"], row["run"]) for row in by_name.values()}
    others = store.flags().collect().iter_rows(named=True)
    return [row for row in others if (row["family"], row["run"]) not in runs] + rows


def _sketches(store: Store) -> dict[str, NDArray[np.float32]]:
    frame = store.arrays("fingerprint").filter(pl.col("name") == "sketch").collect()
    return {
        row["weights_hash"]: np.array(row["values"], dtype=np.float32)
        for row in frame.iter_rows(named=True)
    }
