"""Losses of sets of texts under every checkpoint of every run, and their trend over sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isoloss.studies.emergence.points import Points
from isoloss.studies.findings import Figure, FigureAxis, FindingsTable, Value
from isoloss.studies.trajectories.run_points import LOSS, run_curves
from isoloss.studies.trajectories.size_trend import SizeTrend, size_trend
from isoloss.studies.trajectories.task_growth import size_label

_NOTE = (
    "Loss of each set at each checkpoint, prompts included. Hollow points are the two runs that "
    "wrote the texts: their likes and dislikes are in the texts by construction."
)


def trends(points: Points, names: Sequence[str], pair: Sequence[str]) -> dict[str, SizeTrend]:
    """The trend over sizes of each set at the end of training.

    Args:
        points: of the text family.
        names: of the sets.
        pair: runs that wrote texts; they are left out for every set, so that all trends are of
            the same runs.
    """
    found = {}
    for name in names:
        curves = run_curves(points, f"{name}:{LOSS}")
        found[name] = size_trend(
            [curve.params for curve in curves],
            [float(curve.value[-1]) for curve in curves],
            [curve.run in pair for curve in curves],
        )
    return found


def trend_table(found: Mapping[str, SizeTrend]) -> FindingsTable:
    """Inverse or normal scaling of each set."""
    rows: list[tuple[Value, ...]] = [
        (name, one.verdict, one.slope, one.low, one.high, one.runs, one.left_out)
        for name, one in found.items()
    ]
    return FindingsTable(
        id="inverse-scaling", title="Do larger models find the texts less likely?",
        columns=("set", "scaling", "nats a token for ten times the size", "low", "high", "runs",
                 "left out"),
        rows=tuple(rows),
        note="Loss at the end of training on the logarithm of the parameters outside the "
        "embedding, a run each, 95% interval. Runs that wrote texts are left out.",
    )  # fmt: skip


def final_table(points: Points, names: Sequence[str], pair: Sequence[str]) -> FindingsTable:
    """Perplexity of every set at the end of every run, as the published tables have it."""
    ends: dict[str, dict[str, float]] = {}
    heads: dict[str, tuple[Value, ...]] = {}
    for name in names:
        for curve in run_curves(points, f"{name}:{LOSS}"):
            heads[curve.run] = (size_label(curve), curve.run, curve.run in pair)
            ends.setdefault(curve.run, {})[name] = float(np.exp(curve.value[-1]))
    rows = tuple((*head, *(ends[run].get(name) for name in names)) for run, head in heads.items())
    return FindingsTable(
        id="set-perplexities", title="Perplexity of the sets at the end of training",
        columns=("size", "run", "wrote texts", *names), rows=rows,
        note="Per token of the models' own tokenizer. A uniform model has the vocabulary's size.",
    )  # fmt: skip


def set_figures(points: Points, names: Sequence[str], pair: Sequence[str]) -> tuple[Figure, ...]:
    """Losses of the sets against the overall loss and against FLOPs.

    Args:
        points: of the text family.
        names: of the sets.
        pair: runs that are drawn hollow.
    """
    rows: list[dict[str, Value]] = [
        {"loss": float(loss), "flops": float(flops), "y": float(value), "who": size_label(curve),
         "panel": name, "run": curve.run, "wrote": curve.run in pair, "layer": "point"}
        for name in names
        for curve in run_curves(points, f"{name}:{LOSS}")
        for loss, flops, value in zip(curve.loss, curve.flops, curve.value, strict=True)
    ]  # fmt: skip
    y = FigureAxis(column="y", title="loss of the set, nats per token")
    return (
        Figure(
            id="sets-loss", title="Sets of texts against the overall loss", note=_NOTE, y=y,
            x=FigureAxis(column="loss", title="held-out loss, nats per token", reverse=True),
            by="who", panel="panel", hollow="wrote", rows=tuple(rows),
        ),
        Figure(
            id="sets-flops", title="Sets of texts against training compute", note=_NOTE, y=y,
            x=FigureAxis(column="flops", title="training FLOPs (6 N D)", log=True),
            by="who", panel="panel", hollow="wrote", rows=tuple(rows),
        ),
    )  # fmt: skip
