"""From numbers of runs to the evidence that a claim is judged by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from isoloss.laws.correlated import Interval, mean_interval
from isoloss.studies.claims import Claim, Evidence

Floats = NDArray[np.float64]

DRAWS = 1999
_HALVINGS = 12
_LEVEL, _EQUIVALENCE_LEVEL = 0.95, 0.90  # two one-sided tests of 5% are one interval of 90%


def over_runs(claim: Claim, values: ArrayLike, *, seed: int, draws: int = DRAWS) -> Evidence:
    """Evidence from one number a run: their mean with its interval over runs.

    The p-value is what the interval leaves out when it just reaches 0, or for a claim of
    ``none`` when it just reaches the smallest effect: it never contradicts the interval.

    Args:
        claim: which says whether an effect or its absence is claimed.
        values: (runs,); NaN is left out.
        seed: of the resamples.
        draws: resamples, from six runs on.

    Returns:
        The evidence; without interval below two runs.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if x.size < 2:
        return Evidence(
            estimate=float(x.mean()) if x.size else None,
            n=int(x.size),
            note=f"{x.size} runs allow no interval",
        )
    level = _level(claim)

    def interval(confidence: float) -> Interval:
        rng = np.random.default_rng(seed)
        return mean_interval(x, confidence=confidence, draws=draws, rng=rng)

    def tail(value: float) -> float:
        inside, outside = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            found = interval(middle)
            if found.low <= value <= found.high:
                outside = middle
            else:
                inside = middle
        return max(1.0 - outside, 1.0 / (draws + 1))

    found = interval(level)
    return Evidence(
        estimate=found.value, low=found.low, high=found.high, level=level, n=int(x.size),
        p_value=_p_value(claim, found.value, tail),
    )  # fmt: skip


def from_interval(
    claim: Claim, found: Interval, *, level: float, dof: float, n: int, note: str = ""
) -> Evidence:
    """Evidence from an estimate whose symmetric interval is Student's t.

    Args:
        claim: which says whether an effect or its absence is claimed.
        found: the estimate with its interval, in the claim's unit.
        level: of the interval.
        dof: its degrees of freedom.
        n: units of replication.
        note: what else is to be known.
    """
    if not np.isfinite([found.value, found.low, found.high]).all():
        return Evidence(n=n, note=note or "nothing could be compared")
    half = (found.high - found.low) / 2
    stderr = half / float(student.ppf((1 + level) / 2, dof))

    def tail(value: float) -> float:
        if stderr == 0:
            return 1.0 if value == found.value else 0.0
        return float(2 * student.sf(abs(found.value - value) / stderr, dof))

    wanted = _level(claim)
    half = stderr * float(student.ppf((1 + wanted) / 2, dof))
    return Evidence(
        estimate=found.value, low=found.value - half, high=found.value + half, level=wanted, n=n,
        p_value=_p_value(claim, found.value, tail), note=note,
    )  # fmt: skip


def _level(claim: Claim) -> float:
    return _EQUIVALENCE_LEVEL if claim.direction == "none" else _LEVEL


def _p_value(claim: Claim, estimate: float, tail: Callable[[float], float]) -> float:
    """The p-value of the decision that the estimate points to."""
    size = claim.smallest_effect
    if claim.direction != "none":
        return tail(0.0)
    if abs(estimate) <= size:
        return max(tail(size), tail(-size)) / 2
    return tail(size if estimate > 0 else -size) / 2
