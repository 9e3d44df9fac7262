"""Does flatness go with ability among models of equal loss, beyond what size and steps explain?

A dozen models of five interventions can show a correlation that is only one between interventions:
so it is partial, it is tested by permuting within interventions, and it has to keep its sign
without each of them in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from isoloss.laws.correlated import orthonormal

Floats = NDArray[np.float64]

FEWEST_MODELS = 12
PERMUTATIONS = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialCorrelation:
    """Correlation of two things given others.

    Attributes:
        value: -1 to 1; NaN where it is not estimated.
        low: of the 95% interval by Fisher's z, models taken as independent.
        high: its upper end.
        n: models.
        p_value: two-sided, that the two go together within interventions, by permuting there;
            None where it is not estimated or nothing varies within.
        smallest_p: that so many permutations can give.
        without: the same correlation without each intervention; NaN where too little is left.
        reason: why it is not estimated; empty where it is.
    """

    value: float
    low: float
    high: float
    n: int
    p_value: float | None
    smallest_p: float
    without: Mapping[str, float]
    reason: str = ""

    @property
    def keeps_sign(self) -> bool:
        """Whether it has the same sign without each intervention in turn."""
        known = [v for v in self.without.values() if math.isfinite(v)]
        return bool(known) and all(v * self.value > 0 for v in known)


def partial_correlation(
    y: ArrayLike,
    x: ArrayLike,
    covariates: ArrayLike,
    groups: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int,
) -> PartialCorrelation:
    """Correlate what covariates leave of two variables.

    Args:
        y: (n,) such as ability.
        x: (n,) such as the log of a trace.
        covariates: (n, k) such as log width and log steps; a constant is added.
        groups: the intervention of each model.
        permutations: of x within groups.
        seed: of the permutations.

    Returns:
        The correlation; with fewer than 12 models, or where the covariates leave nothing to
        correlate, only the reason.

    Reference:
        Freedman and Lane (1983), A nonstochastic interpretation of reported significance levels,
        J. Business and Economic Statistics 1, for the permutation.
    """
    ability, trace = (np.asarray(v, dtype=np.float64) for v in (y, x))
    design = np.column_stack([np.ones(len(ability)), np.asarray(covariates, dtype=np.float64)])
    n = len(ability)
    if n < FEWEST_MODELS:
        return _unknown(n, f"too few models: {n} of {FEWEST_MODELS}")
    value = _correlate(ability, trace, design)
    free = n - orthonormal(design).shape[1] - 2
    if not math.isfinite(value) or free < 2:
        return _unknown(n, "size and steps leave nothing to correlate")
    labels = np.asarray(groups)
    p_value = _within(ability, trace, design, labels, permutations, seed)
    reach = float(norm.ppf(0.975)) / math.sqrt(free - 1)
    centre = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    return PartialCorrelation(
        value=value,
        low=math.tanh(centre - reach),
        high=math.tanh(centre + reach),
        n=n,
        p_value=p_value,
        smallest_p=1.0 if p_value is None else 1 / (1 + permutations),
        without={
            str(name): _correlate(ability[labels != name], trace[labels != name],
                                  design[labels != name])
            for name in dict.fromkeys(groups)
        },
    )  # fmt: skip


def _within(
    y: Floats, x: Floats, design: Floats, labels: NDArray[np.str_], permutations: int, seed: int
) -> float | None:
    """p-value of the correlation within interventions; None where nothing varies there.

    What the covariates and the interventions' means leave of x is exchanged within interventions.
    Without those means their differences, seen through the covariates, would look like an effect
    within.
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(labels.tolist()))
    full = np.column_stack([design, *(labels == name for name in names)])
    seen = _correlate(y, x, full)
    if not math.isfinite(seen):
        return None
    basis = orthonormal(full)
    explained = basis @ (basis.T @ x)
    shuffled = np.repeat(explained[None], permutations, axis=0)
    for name in names:
        rows = np.flatnonzero(labels == name)
        left = np.repeat((x - explained)[None, rows], permutations, axis=0)
        shuffled[:, rows] += rng.permuted(left, axis=1)
    of_x = shuffled - (shuffled @ basis) @ basis.T
    of_y = y - basis @ (basis.T @ y)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = of_x @ of_y / (np.linalg.norm(of_x, axis=1) * np.linalg.norm(of_y))
    # a permutation that leaves nothing of x is as far from 0 as any
    extreme = int((~(np.abs(drawn) < abs(seen) - 1e-12)).sum())
    return (1 + extreme) / (1 + permutations)


def _correlate(y: Floats, x: Floats, design: Floats) -> float:
    if len(y) < 3:
        return math.nan
    basis = orthonormal(design)
    left = [v - basis @ (basis.T @ v) for v in (y, x)]
    sizes = [float(np.linalg.norm(v)) for v in left]
    # what is left of a variable that the covariates explain is rounding
    if any(s <= 1e-9 * float(np.linalg.norm(v)) for s, v in zip(sizes, (y, x), strict=True)):
        return math.nan
    return float(left[0] @ left[1] / (sizes[0] * sizes[1]))


def _unknown(n: int, reason: str) -> PartialCorrelation:
    nan = math.nan
    return PartialCorrelation(
        value=nan, low=nan, high=nan, n=n, p_value=None, smallest_p=1.0, without={}, reason=reason
    )
