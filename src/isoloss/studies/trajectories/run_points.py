"""Losses and scores along every run of the study, as columns side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from isoloss.store.store import Store
from isoloss.studies.emergence.points import Floats, Points, read_points
from isoloss.studies.trajectories.families import HELD_OUT

LOSS = "loss_nats_per_token"
OVERALL = f"{HELD_OUT}:{LOSS}"
COUNT = f"{HELD_OUT}:tokens_scored"
_SIZE = "params_non_embedding"
_KEY = ("family", "run", "step")


class RunCurve(NamedTuple):
    """A column along one run, where it and the overall loss are known.

    Attributes:
        run: its name.
        params: outside the embedding.
        tokens: read so far, rising.
        flops: spent so far.
        loss: overall, nats per token.
        value: of the column.
    """

    run: str
    params: float
    tokens: Floats
    flops: Floats
    loss: Floats
    value: Floats


def study_points(store: Store) -> Points:
    """Every score and loss of the trained checkpoints of a store, with the models' sizes.

    Raises:
        Refused: the store holds no score of a trained checkpoint.
    """
    sizes = store.checkpoints().select(*_KEY, _SIZE).unique(list(_KEY)).collect()
    return Points(read_points(store).frame.join(sizes, on=list(_KEY), how="left"))


def run_curves(points: Points, column: str) -> tuple[RunCurve, ...]:
    """A column along each run, smallest models first.

    Args:
        points: of the study.
        column: ``SUBJECT:METRIC``.
    """
    known = points.known(OVERALL, column, _SIZE)
    frame = known.frame.sort(_SIZE, "run", "tokens_seen", maintain_order=True)
    curves = []
    for run in frame["run"].unique(maintain_order=True):
        own = Points(frame.filter(pl.col("run") == run))
        curves.append(
            RunCurve(
                run=run,
                params=float(own.column(_SIZE)[0]),
                tokens=own.column("tokens_seen"),
                flops=own.column("flops"),
                loss=own.column(OVERALL),
                value=own.column(column),
            )
        )
    return tuple(curves)


class Conditions(NamedTuple):
    """Whether the text family can answer what the study asks.

    Attributes:
        facts: what it has.
        unmet: each condition that it fails, in words.
    """

    facts: Mapping[str, float]
    unmet: tuple[str, ...]


SPAN, OVERLAP, SIZES_ASKED, HELD_ASKED, KEPT_ASKED = 30.0, 0.5, 4, 100_000, 18
"""What the study asks of its family: span of sizes outside the embedding, range of the loss in
nats that all sizes pass through, sizes, held-out tokens, checkpoints of a run."""


def conditions(points: Points) -> Conditions:
    """Hold a text family against what the study asks of it.

    Args:
        points: of the study.
    """
    curves = run_curves(points, OVERALL)
    sizes = sorted({curve.params for curve in curves})
    shared = max(
        0.0,
        min((float(c.loss.max()) for c in curves), default=0.0)
        - max((float(c.loss.min()) for c in curves), default=0.0),
    )
    tokens = points.column(COUNT)
    facts = {
        "sizes": float(len(sizes)),
        "span of sizes": sizes[-1] / sizes[0] if sizes else 0.0,
        "range of the loss that all runs share (nats)": shared,
        "sizes of two seeds": float(sum(_seeds(curves, size) > 1 for size in sizes)),
        "checkpoints of the shortest run": float(min((len(c.loss) for c in curves), default=0)),
        "held-out tokens": float(np.nanmin(tokens, initial=np.inf)) if tokens.size else 0.0,
    }
    asked = (SIZES_ASKED, SPAN, OVERLAP, 1, KEPT_ASKED, HELD_ASKED)
    unmet = tuple(
        f"{name} {value:,.4g}, asked for {least:,g}"
        for (name, value), least in zip(facts.items(), asked, strict=True)
        if not value >= least
    )
    return Conditions(facts, unmet)


def _seeds(curves: tuple[RunCurve, ...], size: float) -> int:
    return sum(curve.params == size for curve in curves)
