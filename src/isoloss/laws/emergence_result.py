"""What is known about the emergence of one ability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from isoloss.shown import Shown

Verdict = Literal[
    "threshold", "smooth", "absent", "below_baseline", "answers_constant", "undetermined"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One curve of the contest.

    Attributes:
        name: flat, line, spline, sigmoid, power, hinge, quadratic_hinge or two_thresholds.
        thresholds: losses of its kinks, the higher loss first.
        parameters: fitted, coefficients first; in the sign of the score.
        held_out: log-likelihood of the runs left out, summed, less that of the best curve
            without a threshold; NaN for a single run.
    """

    name: str
    thresholds: tuple[float, ...]
    parameters: tuple[float, ...]
    held_out: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Emergence(Shown):
    """Whether a score starts to rise at a threshold of the loss.

    Attributes:
        verdict: ``threshold``; ``smooth`` (a curve without a kink foretells left-out runs
            better, or no floor is seen); ``absent`` (no score above the constant answers by more
            than the margin); ``below_baseline`` (scores stand below the baseline, so that
            passing it is no threshold); ``answers_constant`` (one answer to all documents);
            ``undetermined``.
        threshold: loss at which the rise starts, nats per token. Where the verdict is
            undetermined or below_baseline it is where a kink would lie if there were one; None
            where the score shows no rise, or rises smoothly.
        ci: its 95% interval over runs; None where the data allow none.
        ci_kind: how the interval was made.
        thresholds: all kinks of the chosen curve with a threshold, the higher loss first.
        exponent: q of the hinge.
        floor: score above the threshold; NaN without a fit.
        rise_per_nat: change of the score per nat just below the threshold (q = 1).
        curve: name of the curve that best foretells left-out runs.
        curve_loss: losses at which that curve is given for a figure.
        curve_score: its scores there.
        kink_weight: share of the curve with a threshold in the mixture, with the best curve
            without, that best foretells left-out runs: near 1 for a kink, near 0 for none.
        kink_weight_ci: its 90% interval over runs, 95% below six runs; None where fewer than two
            runs are held out.
        chance: score of a guess.
        band: lowest and highest score that needs no ability; the floor lies inside.
        constant_share: share of checkpoints that score exactly as one constant answer.
        detection_limit: smallest score at low losses that the design tells from the band; NaN
            for a single run.
        unknown_below: lowest loss seen; nothing is known below it.
        n: points used.
        runs: training runs among them.
        unknown: points left out because of a NaN.
        repeated: points left out as exact repeats within a run.
        candidates: all curves that were compared.
        reason: the verdict in words.
    """

    verdict: Verdict
    threshold: float | None = None
    ci: tuple[float, float] | None = None
    ci_kind: str = "none"
    thresholds: tuple[float, ...] = ()
    exponent: int
    floor: float = float("nan")
    rise_per_nat: float = float("nan")
    curve: str = "none"
    curve_loss: tuple[float, ...] = ()
    curve_score: tuple[float, ...] = ()
    kink_weight: float = float("nan")
    kink_weight_ci: tuple[float, float] | None = None
    chance: float
    band: tuple[float, float]
    constant_share: float
    detection_limit: float = float("nan")
    unknown_below: float
    n: int
    runs: int
    unknown: int
    repeated: int
    candidates: tuple[Candidate, ...] = ()
    reason: str
