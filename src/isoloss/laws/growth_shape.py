"""Does a score grow evenly with size, or break through at some size?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from isoloss.errors import BadData, BadRequest
from isoloss.laws.correlated import Floats


class Growth(NamedTuple):
    """How a score grows from size to size.

    Attributes:
        improvement: largest less smallest score, negative where the largest comes first.
        linearity: improvement over the root mean square of the steps between neighbours.
        breakthroughness: improvement over the root median square of the steps; infinite where
            more than half of the steps are zero.
    """

    improvement: float
    linearity: float
    breakthroughness: float


def growth(score: ArrayLike) -> Growth:
    """Linearity and breakthroughness of a score over sizes.

    Both are largest for one sign of steps: linearity for equal steps, breakthroughness for a
    single large one among many small. They rank tasks; the paper looked at every curve besides.

    Args:
        score: (sizes,) at growing size, three and more.

    Raises:
        BadData: fewer than three scores, or one that is not finite.

    Reference:
        Srivastava et al. (2022), arXiv:2206.04615, as in Xia et al. (2023), appendix D.3, eq. 4,
        whose sign is taken as that of (place of the largest - place of the smallest): as printed
        it is always zero. The steps are those between neighbours, which the text leaves open.

    >>> growth([0.25, 0.5, 0.75, 1.0])
    Growth(improvement=0.75, linearity=3.0, breakthroughness=3.0)
    """
    y = np.asarray(score, dtype=np.float64)
    if y.ndim != 1 or len(y) < 3 or not np.isfinite(y).all():
        raise BadData(
            "the shape of growth needs three finite scores and more.",
            asked=f"shape {y.shape}, {int((~np.isfinite(y)).sum())} not finite",
            nearest="one score a size, by growing size",
            remedy="leave out the sizes that were not scored",
        )
    sign = np.sign(int(y.argmax()) - int(y.argmin()))
    improvement = float(sign * (y.max() - y.min()))
    squares = np.diff(y) ** 2
    if improvement == 0:
        return Growth(0.0, 0.0, 0.0)
    with np.errstate(divide="ignore"):
        linear = improvement / np.sqrt(squares.mean())
        sudden = np.divide(improvement, np.sqrt(np.median(squares)))
    return Growth(improvement, float(linear), float(sudden))


def smoothed(score: ArrayLike, weight: float = 0.5) -> Floats:
    """Exponential moving average along training, as the published curves are drawn.

    Args:
        score: (checkpoints,); NaN is passed over and stays NaN.
        weight: of what came before, 0 (no smoothing) to below 1; .8 for single tasks.

    Raises:
        BadRequest: there is no such weight.

    Reference:
        Xia et al. (2023), appendix D: ``ema = 0.5 * ema + 0.5 * y``.

    >>> smoothed([0.0, 1.0, 1.0]).tolist()
    [0.0, 0.5, 0.75]
    """
    if not 0 <= weight < 1:
        raise BadRequest(
            "there is no such smoothing.",
            asked=f"weight={weight}",
            nearest="0.5",
            remedy="take a weight of 0 to below 1",
        )
    y = np.asarray(score, dtype=np.float64)
    out = np.full(y.shape, np.nan)
    before = np.nan
    for i, value in enumerate(y):
        if np.isfinite(value):
            before = value if np.isnan(before) else weight * before + (1 - weight) * value
            out[i] = before
    return out
