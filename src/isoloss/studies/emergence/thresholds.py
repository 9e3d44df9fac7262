"""Thresholds of the planted abilities under three metrics: real, or made by the metric?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from isoloss.errors import IsolossError
from isoloss.laws.correlated import Interval
from isoloss.laws.emergence_result import Emergence
from isoloss.laws.threshold import emergence
from isoloss.laws.threshold_metrics import TippingPoints, tipping_points
from isoloss.studies.claims import Claim, Evidence
from isoloss.studies.emergence.curves import LOSS
from isoloss.studies.emergence.families import FAMILIES, GRID, LONG
from isoloss.studies.emergence.points import Floats, Points
from isoloss.studies.emergence.tasks import OPTIONS
from isoloss.studies.evidence import from_interval

EXACT, ACCURACY, PROBABILITY, BRIER = (
    "exact_match", "accuracy", "correct_choice_prob", "brier_sum",
)  # fmt: skip
CONTINUOUS = (PROBABILITY, BRIER)
MASTERED = 0.9
LEAST_DELAY = 0.1  # nats per token, the precision that laws ask of a threshold
FEWEST_TO_NARROW = 6  # runs from which the law's interval of the weight is of 90%

Nature = Literal["real", "metric-made", "none", "undetermined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """One ability under the exact match of whole answers and three metrics of single steps.

    Attributes:
        ability: copy, predictable or random_answers.
        exact: of whole answers; None where the ability has none.
        steps: of single steps as a choice; None where the points allow no law.
        runs: training runs behind them.
        nature: ``real`` where both continuous metrics show the threshold; ``metric-made`` where
            neither does and both are known, while exact match shows one or reaches half of its best
            score at a loss lower by 0.1 nats or more than single steps; ``none`` where no metric
            shows one.
        delay: loss of half of the best exact match less that of single steps, nats per token, of
            each run with several checkpoints; empty where the ability has no exact match.
        reason: why there is nothing.
    """

    ability: str
    exact: Emergence | None
    steps: TippingPoints | None
    runs: int
    nature: Nature
    delay: tuple[float, ...] = ()
    reason: str = ""

    def under(self, metric: str) -> Emergence | None:
        """What is known under one metric."""
        if metric == EXACT:
            return self.exact
        return None if self.steps is None else self.steps.by_metric.get(metric)


def find_thresholds(points: Points, ability: str, *, seed: int) -> Thresholds:
    """Look for the threshold of one ability in the long runs and the finished ones of the grid.

    Args:
        points: of the study.
        ability: copy, predictable or random_answers.
        seed: of the resamples of runs.
    """
    used = points.of(LONG, GRID)
    delay = _delays(points, ability)
    choice = ability if ability == "random_answers" else f"{ability}_choice"
    metrics = {m: f"{choice}:{m}" for m in (ACCURACY, *CONTINUOUS)}
    try:
        whole = None if choice == ability else _exact(used, f"{ability}:{EXACT}", seed)
        scored = before_saturation(used.known(LOSS, *metrics.values()), metrics[PROBABILITY])
        steps = tipping_points(
            scored.column(LOSS), {m: scored.column(c) for m, c in metrics.items()}, scored.run,
            options=OPTIONS, n_items=scored.column(f"{choice}:n"), seed=seed,
        )  # fmt: skip
    except (IsolossError, ValueError) as error:
        return Thresholds(
            ability=ability, exact=None, steps=None, runs=used.runs, nature="undetermined",
            reason=str(error).splitlines()[0],
        )  # fmt: skip
    return Thresholds(
        ability=ability, exact=whole, steps=steps, runs=scored.runs,
        nature=_nature(whole, steps, delay), delay=delay,
    )  # fmt: skip


def kink_weight(claim: Claim, found: Thresholds, metric: str) -> Evidence:
    """How much nearer a curve with a kink comes to runs left out than the best without, less 1/2.

    Args:
        claim: in shares.
        found: of the ability.
        metric: under which.
    """
    law = found.under(metric)
    if law is None or law.kink_weight_ci is None or not np.isfinite(law.kink_weight):
        why = found.reason if law is None else law.reason.rstrip(".")
        return Evidence(n=found.runs, note=why)
    low, high = (end - 0.5 for end in law.kink_weight_ci)
    return from_interval(
        claim, Interval(law.kink_weight - 0.5, low, high),
        level=0.90 if found.runs >= FEWEST_TO_NARROW else 0.95, dof=max(found.runs - 1, 1),
        n=found.runs, note=f"the law says: {law.verdict}",
    )  # fmt: skip


def widest_shift(claim: Claim, found: Thresholds) -> Evidence:
    """The two metrics whose thresholds lie farthest apart.

    Args:
        claim: in nats per token.
        found: of the ability.
    """
    if found.steps is None or len(found.steps.shifts) < 3:
        laws = {m: found.under(m) for m in (ACCURACY, *CONTINUOUS)}
        told = ", ".join(f"{m} {law.verdict}" for m, law in laws.items() if law is not None)
        return Evidence(
            n=found.runs, note=f"not all metrics show a threshold: {told or found.reason}"
        )
    known = [s for s in found.steps.shifts if s.ci is not None]
    worst = max(known, key=lambda s: max(abs(end) for end in s.ci or (0.0, 0.0)))
    low, high = worst.ci or (np.nan, np.nan)
    return from_interval(
        claim, Interval(worst.shift, low, high), level=0.95, dof=max(found.runs - 1, 1),
        n=found.runs, note=f"{worst.metrics[1]} less {worst.metrics[0]}",
    )  # fmt: skip


def _exact(points: Points, column: str, seed: int) -> Emergence:
    used = before_saturation(points.known(LOSS, column), column)
    return emergence(
        used.column(LOSS), used.column(column), 0.0, used.run,
        n_items=used.column(column.replace(EXACT, "n")), seed=seed,
    )  # fmt: skip


def before_saturation(points: Points, column: str) -> Points:
    """The points above the loss at which the long runs have all but mastered an ability.

    The hinge of Du et al. rises without end. An ability that is complete soon after its onset is
    a step, which a steep sigmoid foretells as well: only the foot tells a kink. The cut is in the
    loss, the same for all runs: the median over the long runs of where the score first
    reaches nine tenths. Where fewer than half of them reach it, or fewer than six runs would be
    left, all points stay.

    Args:
        points: with finite losses and scores.
        column: the score, at most 1.
    """
    loss, score, is_long = points.column(LOSS), points.column(column), points.is_long
    runs = np.asarray(points.run)
    names = np.unique(runs[is_long])
    reached = [loss[(runs == name) & (score >= MASTERED)] for name in names]
    first = [float(found.max()) for found in reached if found.size]
    if 2 * len(first) < len(names) or not first:
        return points
    kept = Points(points.frame.filter(pl.Series(loss >= np.median(first), dtype=pl.Boolean)))
    return kept if kept.runs >= FEWEST_TO_NARROW else points


def _delays(points: Points, ability: str) -> tuple[float, ...]:
    """How much later in the loss whole answers come than single steps, by run."""
    whole, single = f"{ability}:{EXACT}", f"{ability}_step:{EXACT}"
    used = points.of(*(family for family in FAMILIES if family != GRID)).known(LOSS, whole, single)
    runs, loss = np.asarray(used.run), used.column(LOSS)
    return tuple(
        half_way(loss[own], used.column(whole)[own]) - half_way(loss[own], used.column(single)[own])
        for own in (runs == run for run in dict.fromkeys(runs.tolist()))
        if own.sum() > 1
    )


def half_way(loss: Floats, score: Floats) -> float:
    """The highest loss at which half of the best score is reached, read between checkpoints.

    Args:
        loss: of one run, (points,).
        score: (points,), at least 0.

    Returns:
        Where the score first reaches half on the way to lower losses; the highest loss seen
        where it is there from the start, which makes an onset look later than it was.
    """
    order = np.argsort(-loss)
    loss, best = loss[order], np.maximum.accumulate(score[order])
    at = int(np.argmax(best >= best[-1] / 2))
    if at == 0:
        return float(loss[0])
    share = (best[-1] / 2 - best[at - 1]) / (best[at] - best[at - 1])
    return float(loss[at - 1] + share * (loss[at] - loss[at - 1]))


def _nature(whole: Emergence | None, steps: TippingPoints, delay: tuple[float, ...]) -> Nature:
    verdicts = [steps.by_metric[m].verdict for m in CONTINUOUS]
    counted = [one.verdict for one in (whole, steps.by_metric[ACCURACY]) if one is not None]
    if set(verdicts) == {"threshold"}:
        return "real"
    if set(verdicts) <= {"smooth", "absent", "below_baseline"}:
        shows = whole is not None and whole.verdict == "threshold"
        if shows or (delay and float(np.mean(delay)) <= -LEAST_DELAY):
            return "metric-made"
        if "threshold" not in counted:
            return "none"
    return "undetermined"
