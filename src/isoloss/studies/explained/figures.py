"""Small multiples of ability against loss, with the shared curve and its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isoloss.studies.explained.laws import Explained, score_errors
from isoloss.studies.explained.points import Scores
from isoloss.studies.findings import Figure, FigureAxis, Value

MOST_POINTS, MOST_PANELS = 6000, 36
"""Beyond these a page would be slow: points are thinned evenly, further panels left out."""

_WIDE = 5.0

Row = Mapping[str, Value]


def ability_figure(found: Sequence[Explained], *, loss: str) -> Figure:
    """Ability against loss, a panel each.

    Rows of the layer ``fit`` are the shared curve, those of the layer ``rule`` the score of a
    guess and the threshold with its interval in ``x_low`` and ``x_high``. Points read off a
    table carry one standard error either way, in ``low`` and ``high``, ``x_low`` and ``x_high``.

    Args:
        found: an ability each, in the order of drawing.
        loss: what stands at the axis.

    Returns:
        The figure as tidy rows.
    """
    drawn = found[:MOST_PANELS]
    most = max(1, MOST_POINTS // max(1, len(drawn)))
    rows = [row for one in drawn for row in _panel(one, most)]
    is_read = any(one.ability.main.is_read for one in drawn)
    has_later = any(one.ability.main.is_later.any() for one in drawn)
    parts = [
        "Grey: the curve shared by all runs. Upright line: the loss at which the ability appears, "
        "with its 95% interval, where a threshold was found. Dashed: the score of a guess.",
    ]
    if has_later:
        parts.append("Hollow: stages after pre-training, which no curve was fitted to.")
    if is_read:
        parts.append("Bars: one standard error of reading, either way.")
    if len(found) > len(drawn):
        parts.append(f"The first {len(drawn)} of {len(found)} abilities.")
    if any(len(one.ability.main.loss) > most for one in drawn):
        parts.append(f"At most {most} checkpoints a panel are drawn; the fits used all of them.")
    return Figure(
        id="ability-vs-loss",
        title="Ability against loss, and the curve that the runs share",
        note=" ".join(parts),
        mark="points",
        x=FigureAxis(column="loss", title=loss, reverse=True, log=_is_wide(drawn)),
        y=FigureAxis(column="score", title="score"),
        by="run",
        panel="ability",
        low="low",
        high="high",
        hollow="later stage",
        rows=tuple(rows),
    )


def _is_wide(found: Sequence[Explained]) -> bool:
    """Whether the losses reach so far, as from the first step on, that the last would crowd."""
    losses = np.concatenate([one.ability.main.loss for one in found])
    return bool(losses.min() > 0 and losses.max() > _WIDE * losses.min())


def panel_title(one: Explained) -> str:
    """Name of an ability's panel: what was asked, and the score that is drawn."""
    return f"{one.ability.title}: {one.ability.main.metric}"


def _panel(one: Explained, most: int) -> list[Row]:
    scores, panel = one.ability.main, panel_title(one)
    rows: list[Row] = [
        {"ability": panel, "layer": "fit", "loss": float(x), "score": float(y)}
        for x, y in zip(one.curve.loss, one.curve.score, strict=True)
    ]
    if one.ability.chance is not None:
        rows.append(
            {"ability": panel, "layer": "rule", "score": one.ability.chance, "label": "guess"}
        )
    law = one.main
    if law is not None and law.verdict == "threshold" and law.threshold is not None:
        low, high = law.ci or (None, None)
        rows.append(
            {"ability": panel, "layer": "rule", "loss": law.threshold, "x_low": low,
             "x_high": high, "label": f"threshold {law.threshold:.3g}"}
        )  # fmt: skip
    return [*rows, *_points(scores, one, panel, most)]


def _points(scores: Scores, one: Explained, panel: str, most: int) -> list[Row]:
    later, errors = scores.is_later, score_errors(scores, one.curve)
    own = np.where(np.isfinite(scores.stderr), scores.stderr, 0.0) if scores.is_read else None
    count = len(scores.loss)
    kept = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    rows: list[Row] = []
    for i in kept:
        score, loss = float(scores.score[i]), float(scores.loss[i])
        row: dict[str, Value] = {
            "ability": panel, "run": str(scores.run[i]), "loss": loss, "score": score,
            "later stage": bool(later[i]), "stage": str(scores.stage[i]),
        }  # fmt: skip
        for name, values in scores.budgets.items():
            row[name] = float(values[i]) if np.isfinite(values[i]) else None
        if own is not None and own[i] > 0:
            row |= {"low": score - float(own[i]), "high": score + float(own[i])}
        if scores.loss_stderr[i] > 0:
            reach = float(scores.loss_stderr[i])
            row |= {"x_low": loss - reach, "x_high": loss + reach}
        if np.isfinite(errors[i]):
            row["standard error"] = float(errors[i])
        rows.append(row)
    return rows


def threshold_figure(found: Sequence[Explained], *, loss: str) -> Figure | None:
    """Where a threshold stands under each score, with its interval.

    Args:
        found: an ability each.
        loss: what stands at the axis.

    Returns:
        The figure; None where no ability with a threshold was asked under several scores.
    """
    rows: list[Row] = []
    for one in found:
        places = [
            (metric, law.threshold, law.ci or (None, None))
            for metric, law in one.emergence.items()
            if law.verdict == "threshold" and law.threshold is not None
        ]
        if len(one.emergence) > 1:
            rows += [
                {"ability": one.ability.title, "score": metric, "threshold": at, "low": ci[0],
                 "high": ci[1]}
                for metric, at, ci in places
            ]  # fmt: skip
    if not rows:
        return None
    return Figure(
        id="thresholds-by-score",
        title="Thresholds under each score",
        note="Only where the verdict is a threshold, with its 95% interval. One that the ability "
        "has stands at the same loss under every score; one that a score made stands under that "
        "score alone.",
        x=FigureAxis(column="score", title="score"),
        y=FigureAxis(column="threshold", title=loss, reverse=True),
        panel="ability",
        low="low",
        high="high",
        rows=tuple(rows),
    )
