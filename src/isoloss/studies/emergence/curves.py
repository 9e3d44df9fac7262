"""Do other runs lie on the curve of the long ones, and what foretells ability best?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoloss.errors import BadRequest
from isoloss.laws.correlated import Interval
from isoloss.laws.shared_curve import Collapse, RunOffset, collapse
from isoloss.laws.shared_curve_axis import SharedCurve, fit_curve, run_means
from isoloss.laws.shared_curve_points import read_points
from isoloss.studies.claims import Claim, Evidence
from isoloss.studies.emergence.families import LONG
from isoloss.studies.emergence.points import Floats, Points
from isoloss.studies.evidence import from_interval, over_runs

LOSS = "heldout:loss_nats_per_token"
PLAIN_LOSS = "plain:loss_nats_per_token"
"""Of the sentences without any task, so that learning a task does not lower it by itself."""

ABILITIES = ("copy_choice:correct_choice_prob", "predictable_choice:correct_choice_prob")
"""The planted abilities as the probability of the right one of four single steps: the metric of
least noise."""

SMOOTH = ABILITIES[1:]
"""Abilities whose offsets are claims: where the copy sets in its curve is so steep that a
difference of 0.01 nats is one of many points."""

_LEVEL, _POINTS = 0.90, 100.0
_FEW = 19  # of draws where only offsets are asked for, which need none


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs of a family held against the curve of the long runs, for one ability.

    Attributes:
        ability: ``SUBJECT:METRIC``.
        family: whose runs.
        axis: the loss that is equal.
        found: the law's result; None where the points allow none.
        offsets: of the family's own runs, in points; those without overlap are left out.
        reason: why there is no result.
    """

    ability: str
    family: str
    axis: str
    found: Collapse | None
    offsets: tuple[RunOffset, ...]
    reason: str = ""


def compare(points: Points, family: str, ability: str, axis: str = LOSS) -> Comparison:
    """Hold the runs of a family against the long runs at equal loss.

    Args:
        points: of the study.
        family: its name; ``long`` holds every long run against the others.
        ability: ``SUBJECT:METRIC``, a fraction.
        axis: the loss that is equal.
    """
    used = points.of(LONG, family).known(axis, ability)
    size = used.column("params_total") if family == LONG else None
    try:
        found = collapse(
            used.column(axis), used.column(ability), used.run, size,
            reference=used.is_long, confidence=_LEVEL, draws=_FEW, seed=0,
        )  # fmt: skip
    except BadRequest as error:
        return Comparison(
            ability=ability, family=family, axis=axis, found=None, offsets=(), reason=error.what
        )
    own = tuple(
        replace(one, offset=_in_points(one.offset), far=_in_points(one.far))
        for one in found.offsets
        if str(one.run).startswith(f"{family}/") and one.points
    )
    reason = "" if own else "no run shares a range of the loss with the long ones"
    return Comparison(
        ability=ability, family=family, axis=axis, found=found, offsets=own, reason=reason
    )


def worst_offset(claim: Claim, comparisons: Sequence[Comparison]) -> Evidence:
    """The run and ability that lie farthest from the curve: all are inside where it is.

    A run that lies wholly beyond the margin by an interval wide enough for all runs at once
    decides alone; else it is the run whose interval reaches farthest.

    Args:
        claim: in points.
        comparisons: of one family, an ability each.
    """
    margin = claim.smallest_effect
    table = [(c, o, c.found) for c in comparisons if c.found is not None for o in c.offsets]
    if not table:
        return Evidence(note=_reasons(comparisons))
    beyond = [row for row in table if row[1].far.low > margin or row[1].far.high < -margin]
    if beyond:
        comparison, run, found = max(beyond, key=lambda row: abs(row[1].offset.value))
    else:
        comparison, run, found = max(table, key=lambda row: _reach(row[1].offset))
    tested = len(comparison.offsets) if beyond else 1
    evidence = from_interval(
        claim, run.offset, level=_LEVEL, dof=found.errors.dof, n=found.runs,
        note=f"run {run.run}, {_task(comparison.ability)}",
    )  # fmt: skip
    if not beyond:
        return evidence
    # the interval that holds for all runs at once, and a p-value that counts them
    p_value = None if evidence.p_value is None else min(1.0, tested * evidence.p_value)
    return replace(evidence, low=run.far.low, high=run.far.high, p_value=p_value)


def mean_offset(claim: Claim, comparisons: Sequence[Comparison], *, seed: int) -> Evidence:
    """The mean offset of many runs, of the ability where its interval reaches farthest.

    Args:
        claim: in points.
        comparisons: of one family, an ability each.
        seed: of the resamples of runs.
    """
    found = [
        replace(
            over_runs(claim, [o.offset.value for o in c.offsets], seed=seed),
            note=f"{_task(c.ability)}, {len(c.offsets)} runs that overlap with the long ones",
        )
        for c in comparisons
    ]
    known = [e for e in found if e.low is not None and e.high is not None]
    if not known:
        return Evidence(note=_reasons(comparisons))
    return max(known, key=lambda e: max(abs(e.low or 0.0), abs(e.high or 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisErrors:
    """How well an axis foretells an ability on runs left out.

    Attributes:
        by_run: mean absolute error of each run in points, by its label; NaN without overlap.
        curve: through all runs.
        order: of the curve's points, such that the axis rises.
        axis: (n,) where the curve is drawn, in the curve's own order.
    """

    by_run: dict[object, float]
    curve: SharedCurve
    axis: Floats


def axis_errors(points: Points, axis: str, ability: str) -> AxisErrors:
    """Foretell an ability of each run from the others on one axis.

    Args:
        points: all runs to compare.
        axis: a column, such as the loss.
        ability: ``SUBJECT:METRIC``, a fraction.
    """
    used = points.known(axis, ability)
    table = read_points(used.column(axis), used.column(ability), used.run, None, {}, None, None)
    curve = fit_curve(table.x, table.score, table.runs)
    means = _POINTS * run_means(np.abs(curve.missed), table.runs)
    named = dict(zip(table.runs.names, map(float, means), strict=True))
    return AxisErrors(by_run=named, curve=curve, axis=table.x)


def error_gap(
    claim: Claim, points: Points, other: str, axis: str, abilities: Sequence[str], *, seed: int
) -> Evidence:
    """How much worse another axis foretells than this one: mean over runs, abilities averaged.

    Args:
        claim: in points.
        points: all runs to compare.
        other: a column.
        axis: the column it is held against.
        abilities: to average.
        seed: of the resamples of runs.
    """
    gaps: dict[object, list[float]] = {}
    try:
        for ability in abilities:
            theirs, own = (axis_errors(points, name, ability).by_run for name in (other, axis))
            for run, error in own.items():
                gaps.setdefault(run, []).append(theirs.get(run, np.nan) - error)
    except BadRequest as error:
        return Evidence(note=error.what)
    return over_runs(claim, [float(np.mean(run)) for run in gaps.values()], seed=seed)


def _in_points(interval: Interval) -> Interval:
    return Interval(*(_POINTS * v for v in (interval.value, interval.low, interval.high)))


def _reach(interval: Interval) -> float:
    return float(np.nanmax(np.abs([interval.low, interval.high, interval.value])))


def _task(ability: str) -> str:
    return ability.partition(":")[0].removesuffix("_choice")


def _reasons(comparisons: Sequence[Comparison]) -> str:
    return "; ".join(dict.fromkeys(c.reason for c in comparisons if c.reason)) or "no run overlaps"
