"""What the laws said about every ability of a store, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isoloss.laws.shared_curve import RunOffset
from isoloss.studies.explained.laws import Explained
from isoloss.studies.findings import FindingsTable, Value

POINTS = 100.0  # percentage points in a score of 1
_MOST_OFFSETS = 400


def tables(found: Sequence[Explained]) -> tuple[FindingsTable, ...]:
    """Correlations and verdicts, controls, offsets, thresholds, noise, later stages.

    Args:
        found: an ability each.

    Returns:
        The tables that have rows.
    """
    built = (_shared(found), _thresholds(found), _controls(found), _offsets(found), _noise(found),
             _shifts(found))  # fmt: skip
    return tuple(table for table in built if table.rows)


def largest_offset(one: Explained) -> RunOffset | None:
    """The run that lies farthest from the others at equal loss."""
    known = (
        [o for o in one.collapse.offsets if math.isfinite(o.offset.value)] if one.collapse else []
    )
    return max(known, key=lambda o: abs(o.offset.value)) if known else None


def _shared(found: Sequence[Explained]) -> FindingsTable:
    rows: list[tuple[Value, ...]] = []
    for one in found:
        main, law, worst = one.ability.main, one.collapse, largest_offset(one)
        rows.append(
            (
                one.ability.title,
                main.metric,
                law.n if law else len(main.loss),
                law.runs if law else main.runs,
                one.spearman,
                one.pearson,
                one.verdict,
                None if worst is None else f"{worst.offset.value * POINTS:+.2f}",
                _between(worst.offset.low, worst.offset.high, POINTS) if worst else None,
                law.error * POINTS if law else None,
                law.reason if law else one.no_collapse,
            )
        )
    return FindingsTable(
        id="correlation",
        title="Ability and loss: correlation, and whether the runs share one curve",
        columns=(
            "ability", "score", "points", "runs", "Spearman", "Pearson", "one curve?",
            "largest offset (points)", "90% interval", "error on runs left out (points)", "why",
        ),
        rows=tuple(rows),
        note="Correlations are negative where lower loss goes with a higher score. An offset is "
        "a run's mean distance, at equal loss, from the curve of the other runs; the error is the "
        "mean distance of a left-out run's scores from that curve. A high correlation alone says "
        "little: anything that falls with training correlates with anything that rises.",
    )  # fmt: skip


def _thresholds(found: Sequence[Explained]) -> FindingsTable:
    rows: list[tuple[Value, ...]] = []
    for one in found:
        for metric, law in one.emergence.items():
            is_found = law.verdict == "threshold"
            rows.append(
                (
                    one.ability.title,
                    metric,
                    law.verdict.replace("_", " "),
                    law.threshold if is_found else None,
                    _between(*law.ci) if is_found and law.ci else None,
                    law.chance,
                    law.detection_limit,
                    one.tipping.replace("_", " ") if one.tipping else None,
                    law.unknown_below,
                    law.reason,
                )
            )
        for metric, why in one.no_emergence.items():
            rows.append((one.ability.title, metric, "not asked", *[None] * 6, why))
    return FindingsTable(
        id="thresholds",
        title="Is there a loss at which the ability appears?",
        columns=(
            "ability", "score", "verdict", "threshold (loss)", "95% interval", "guess",
            "smallest score told from guessing", "same place under all scores?",
            "nothing known below loss", "why",
        ),
        rows=tuple(rows),
        note="A threshold is named only where a kink foretells runs left out better than the best "
        "smooth curve. Scores of one ability stand below each other: a threshold that the metric "
        "made is gone under the right answer's probability or the Brier score.",
    )  # fmt: skip


def _controls(found: Sequence[Explained]) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (
            one.ability.title,
            gap.name,
            gap.error_of_x * POINTS,
            gap.error * POINTS,
            gap.gap.value * POINTS,
            _between(gap.gap.low, gap.gap.high, POINTS),
            gap.left,
        )
        for one in found
        if one.collapse
        for gap in one.collapse.controls
    ]
    return FindingsTable(
        id="controls",
        title="The loss against FLOPs, tokens and parameters, on runs left out",
        columns=(
            "ability", "control", "error by loss (points)", "error by control (points)",
            "difference (points)", "95% interval", "share of squared error left",
        ),
        rows=tuple(rows),
        note="The loss beats a control where the interval lies above 0 and it leaves surely less "
        "than half of the control's squared error.",
    )  # fmt: skip


def _offsets(found: Sequence[Explained]) -> FindingsTable:
    known = [
        (one.ability.title, law_run)
        for one in found
        if one.collapse
        for law_run in one.collapse.offsets
    ]
    rows: list[tuple[Value, ...]] = [
        (title, str(o.run), o.points, o.offset.value * POINTS,
         _between(o.offset.low, o.offset.high, POINTS))
        for title, o in known[:_MOST_OFFSETS]
    ]  # fmt: skip
    cut = f" The first {_MOST_OFFSETS} of {len(known)}." if len(known) > _MOST_OFFSETS else ""
    return FindingsTable(
        id="offsets",
        title="Every run against the curve of the others, at equal loss",
        columns=("ability", "run", "points in overlap", "offset (points)", "90% interval"),
        rows=tuple(rows),
        note=f"Errors within a run are taken as autoregressive, runs as independent.{cut}",
    )


def _noise(found: Sequence[Explained]) -> FindingsTable:
    known = [(one.ability.title, m, n) for one in found for m, n in one.noise.items() if n.runs]
    known.sort(key=lambda row: -row[2].ratio if math.isfinite(row[2].ratio) else 1.0)
    rows: list[tuple[Value, ...]] = [
        (title, metric, n.signal, n.noise, _between(n.noise_low, n.noise_high), n.ratio, n.runs,
         n.checkpoints)
        for title, metric, n in known
    ]  # fmt: skip
    return FindingsTable(
        id="noise",
        title="Signal and noise over the last five checkpoints of each run",
        columns=(
            "ability", "score", "signal", "noise", "95% interval", "signal / noise", "runs",
            "checkpoints",
        ),
        rows=tuple(rows),
        note="Relative to the mean score. Signal: the largest difference between two runs; noise: "
        "the standard deviation from checkpoint to checkpoint (Heineman et al. 2025, "
        "arXiv:2508.13144). A trend over the last checkpoints counts as noise.",
    )  # fmt: skip


def _shifts(found: Sequence[Explained]) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (one.ability.title, s.run, s.stage, s.points, s.shift.value * POINTS,
         _between(s.shift.low, s.shift.high, POINTS))
        for one in found
        for s in one.shifts
    ]  # fmt: skip
    return FindingsTable(
        id="later-stages",
        title="Later stages against the curve of pre-training",
        columns=("ability", "run", "stage", "points", "shift (points)", "90% interval"),
        rows=tuple(rows),
        note="At equal loss. Unknown where the losses lie outside those of pre-training. "
        "Checkpoints of these stages enter no fit.",
    )


def _between(low: float, high: float, unit: float = 1.0) -> str | None:
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    digits = 4 if unit == 1.0 else 3  # losses to a thousandth of a nat, points to a hundredth
    return f"{low * unit:.{digits}g} to {high * unit:.{digits}g}"
