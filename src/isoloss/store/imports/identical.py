"""Steps of one run with identical results: weights that are the same, told by their scores."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl

from isoloss.store import schema
from isoloss.store.store import Store

KIND = "identical_results"
LEAST = 5
"""Metrics that must agree before two steps count as identical."""

_RUN = ["family", "model", "run"]
_BASELINES = ["chance", "constant_answer", "documents_unknown"]


def identical_results(store: Store) -> list[dict[str, Any]]:
    """Steps of a run whose scores, at least five and all that both have, are the same numbers.

    Checkpoints of equal weights hash are not compared: they share their rows by right. At step 0
    nothing has been learned, and a later step that equals it is an update of size zero (a
    learning rate that starts from zero): only the later one is flagged, it adds no information.
    Elsewhere one of the two was exported from the other's weights and nothing tells which, so
    both are flagged.

    Returns:
        Rows of the table of flags, by run and step; the other step is named in ``detail``.
    """
    rows = (
        store.measurements()
        .filter(
            pl.col("probe") == schema.TASK_PROBE,
            ~pl.col("metric").is_in(_BASELINES),
            pl.col("value").is_not_nan(),
        )
        # extra holds the digest of the source file: no two steps share it
        .with_columns(
            series=pl.struct("subject", "metric", *(s for s in _SETTINGS if s != "subject"))
        )
        .select(*_RUN, "stage", "step", "weights_hash", "series", "value")
        .collect()
    )
    flags: list[dict[str, Any]] = []
    for _, run in rows.group_by(_RUN, maintain_order=True):
        flags.extend(_of_run(run))
    order = [*_RUN, "step"]
    return sorted(flags, key=lambda f: tuple(str(f[k]) if k != "step" else f[k] for k in order))


def flag_identical(store: Store) -> int:
    """Put the flags of :func:`identical_results` in place of older ones of their kind.

    Args:
        store: held for writing.

    Returns:
        Flags put.
    """
    found = identical_results(store)
    others = store.flags().filter(pl.col("kind") != KIND).collect().to_dicts()
    store.put_flags([*others, *found])
    return len(found)


_SETTINGS = [
    "cell_source" if name == "source" else name for name in schema.SETTINGS if name != "extra"
]


def _of_run(run: pl.DataFrame) -> list[dict[str, Any]]:
    points = (
        run.select("stage", "step", "weights_hash", *_RUN)
        .filter(pl.col("step").is_not_null())
        .unique(["stage", "step", "weights_hash"], maintain_order=True)
        .sort("step", maintain_order=True)
        .to_dicts()
    )
    table = run.with_columns(column=pl.col("series").rank("dense") - 1)
    values = np.full((len(points), run["series"].n_unique()), np.nan)
    place = {(p["stage"], p["step"], p["weights_hash"]): i for i, p in enumerate(points)}
    for stage, step, weights, column, value in table.select(
        "stage", "step", "weights_hash", "column", "value"
    ).iter_rows():
        if step is not None:
            values[place[stage, step, weights], column] = value
    known = ~np.isnan(values)
    twins: dict[int, list[int]] = defaultdict(list)
    for i in range(len(points)):
        shared = known[i] & known[i + 1 :]
        differs = shared & (values[i] != values[i + 1 :])
        same = (shared.sum(axis=1) >= LEAST) & ~differs.any(axis=1)
        for j in i + 1 + np.flatnonzero(same):
            if points[i]["weights_hash"] != points[j]["weights_hash"]:
                twins[int(j)].append(i)
                if points[i]["step"] != 0:
                    twins[i].append(int(j))
    return [_flag(points[i], [points[j]["step"] for j in others]) for i, others in twins.items()]


def _flag(point: dict[str, Any], steps: list[int]) -> dict[str, Any]:
    others = ", ".join(str(step) for step in sorted(steps))
    return {
        **{name: point[name] for name in (*_RUN, "stage", "step")},
        "kind": KIND,
        "detail": f"every score equals that of step {others}",
    }
