"""Figures of the emergence study, as rows: ability against loss and FLOPs, and the thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isoloss.errors import BadRequest
from isoloss.studies.emergence.curves import ABILITIES, LOSS, axis_errors
from isoloss.studies.emergence.families import FAMILIES, GRID, LONG
from isoloss.studies.emergence.points import Points
from isoloss.studies.emergence.thresholds import (
    ACCURACY,
    BRIER,
    EXACT,
    PROBABILITY,
    Thresholds,
)
from isoloss.studies.findings import Figure, FigureAxis, Rule, Value

RANDOM = "random_answers:accuracy"
_NAMES = {
    "copy_choice:correct_choice_prob": "copy, single steps by probability",
    "predictable_choice:correct_choice_prob": "predictable words, single steps by probability",
    "copy:exact_match": "copy, whole answers",
    "predictable:exact_match": "predictable words, whole answers",
    RANDOM: "answers drawn at random",
}
_WHO = {
    LONG: "long runs",
    GRID: "finished runs",
    "architecture": "other architecture",
    "optimizer": "other optimizer",
    "corpus": "other mixture",
}
Row = Mapping[str, Value]


def figures(points: Points, thresholds: Mapping[str, Thresholds]) -> tuple[Figure, ...]:
    """All figures of the study.

    Args:
        points: of the store.
        thresholds: of each ability.
    """
    return (
        _against(points, LOSS, "ability-loss", "Ability against loss",
                 FigureAxis(column="x", title="held-out loss, nats per token", reverse=True),
                 "One curve for all points is what the claim says. Lines are the curve of the "
                 "long runs. A steep curve turns a small difference of the loss into a large one "
                 "of ability."),
        _against(points, "flops", "ability-flops", "Ability against training compute",
                 FigureAxis(column="x", title="training FLOPs (6 N D)", log=True),
                 "The negative control: what the loss explains, compute alone does not."),
        _threshold_figure(thresholds),
    )  # fmt: skip


def _against(points: Points, axis: str, name: str, title: str, x: FigureAxis, note: str) -> Figure:
    rows: list[Row] = []
    for ability, label in _NAMES.items():
        used = points.of(*FAMILIES).known(axis, ability)
        families = used.frame["family"].to_list()
        for family, run, at, score in zip(
            families, used.run, used.column(axis), used.column(ability), strict=True
        ):
            rows.append(
                {"x": float(at), "y": float(score), "who": _WHO[family], "panel": label,
                 "run": run, "layer": "point", "is_unfinished": family != GRID}
            )  # fmt: skip
        rows += _curve(points, axis, ability, label)
    return Figure(
        id=name, title=title, note=note, x=x,
        y=FigureAxis(column="y", title="fraction right, or probability"),
        by="who", panel="panel", hollow="is_unfinished", rows=tuple(rows),
    )  # fmt: skip


def _curve(points: Points, axis: str, ability: str, label: str) -> list[Row]:
    if ability not in ABILITIES:
        return []
    try:
        found = axis_errors(points.of(LONG), axis, ability)
    except BadRequest:
        return []
    order = np.argsort(found.axis)
    return [
        {"x": float(found.axis[i]), "y": float(found.curve.fitted[i]), "who": _WHO[LONG],
         "panel": label, "run": "curve of the long runs", "layer": "fit", "is_unfinished": False}
        for i in order
    ]  # fmt: skip


def _threshold_figure(thresholds: Mapping[str, Thresholds]) -> Figure:
    rows: list[Row] = []
    lowest = []
    for found in thresholds.values():
        for metric in (EXACT, ACCURACY, PROBABILITY, BRIER):
            law = found.under(metric)
            if law is None:
                continue
            lowest.append(law.unknown_below)
            if law.verdict == "threshold" and law.threshold is not None:
                low, high = law.ci or (None, None)
                rows.append(
                    {"x": metric, "y": law.threshold, "low": low, "high": high,
                     "panel": found.ability, "layer": "point"}
                )  # fmt: skip
    rules = (Rule(along="y", value=min(lowest), label="nothing is known below"),) if lowest else ()
    return Figure(
        id="thresholds-by-metric",
        title="Thresholds under each metric",
        note="Only where the law's verdict is a threshold. One that is real stands at the same "
        "loss under every metric; one that a metric made stands under exact match alone.",
        x=FigureAxis(column="x", title="metric"),
        y=FigureAxis(column="y", title="threshold, nats per token", reverse=True),
        panel="panel", low="low", high="high", rules=rules, rows=tuple(rows),
    )  # fmt: skip
