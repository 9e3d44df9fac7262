"""Double descent of single tokens: a perplexity that falls and then rises, or the reverse.

A line with one kink is fitted to every token, the kink at each checkpoint in turn. A token turns
where the two slopes at its best kink have opposite signs and both are larger than chance makes any
slope at any kink: the critical value is simulated for the very points, with their correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher

from isoloss.laws.correlated import Floats
from isoloss.laws.token_null import correlations, residual_maker, simulated

EDGE = 2  # checkpoints on either side of a kink besides its own: a slope of two points is no slope
_SERIES, _SEED = 4_000, 20_230_711


class Turns(NamedTuple):
    """Kinks of some tokens, (tokens,) each.

    Attributes:
        sign: 1 falls then rises, -1 rises then falls, 0 does not turn.
        at: checkpoint of the kink; -1 where it does not turn.
        low: first checkpoint of the 95% interval of the kink; -1 likewise.
        high: last one.
    """

    sign: NDArray[np.int8]
    at: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KinkTest:
    """Kinked lines through n points, all kinks at once.

    Attributes:
        knots: (kinks,) checkpoints at which a line may bend.
        hinges: (kinks, n) the bend of each, orthogonal to every line, of unit length.
        bend: (kinks,) change of slope for a unit along the hinge.
        left: (kinks,) part of a bend that its left slope takes up.
        left_size: (kinks,) standard error of the left slope over the root of the residual sum.
        right_size: of the right slope.
        critical: both slopes over their standard errors must be larger.
        wide: rise of the residual sum, relative, that bounds the kink's interval.
    """

    knots: NDArray[np.int64]
    hinges: Floats
    bend: Floats
    left: Floats
    left_size: Floats
    right_size: Floats
    critical: float
    wide: float

    def turns(self, slope: Floats, rss: Floats, residual: Floats) -> Turns:
        """Judge tokens by their lines.

        Args:
            slope: (tokens,) of the straight lines.
            rss: (tokens,) their residual sums of squares.
            residual: (n, tokens) their residuals.
        """
        along = self.hinges @ residual
        gain = along**2
        best = gain.argmax(axis=0)
        tokens = np.arange(len(slope))
        left_rise, right_rise = self._rises(slope, rss, along[best, tokens], best)
        turned = (np.sign(left_rise) * np.sign(right_rise) < 0) & (
            np.minimum(np.abs(left_rise), np.abs(right_rise)) > self.critical
        )
        sign = np.where(turned, np.sign(right_rise), 0).astype(np.int8)
        left = rss - gain[best, tokens]
        inside = rss[turned] - gain[:, turned] <= (1.0 + self.wide) * left[turned]
        at, low, high = (np.full(len(slope), -1, dtype=np.int64) for _ in range(3))
        at[turned] = self.knots[best[turned]]
        low[turned] = self.knots[inside.argmax(axis=0)]
        high[turned] = self.knots[len(self.knots) - 1 - inside[::-1].argmax(axis=0)]
        return Turns(sign, at, low, high)

    def _rises(
        self, slope: Floats, rss: Floats, along: Floats, best: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Slopes left and right of each token's best kink over their standard errors."""
        change = along * self.bend[best]
        before = slope - change * self.left[best]
        spread = np.sqrt(np.maximum(rss - along**2, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            left = before / (spread * self.left_size[best])
            right = (before + change) / (spread * self.right_size[best])
        # an exact line: neither slope nor error
        return np.nan_to_num(left, posinf=np.inf, neginf=-np.inf), np.nan_to_num(
            right, posinf=np.inf, neginf=-np.inf
        )


def kink_test(x: Floats, rho: float, alpha: float) -> KinkTest | None:
    """The test for points at ``x``; None where they are too few for two slopes.

    Args:
        x: (n,) the regressor, strictly monotone.
        rho: correlation of neighbours' errors.
        alpha: chance that a driftless series has a slope beyond the critical value at any kink.
    """
    n = len(x)
    knots = np.arange(EDGE, n - EDGE)
    if len(knots) < 1 or n < 2 * EDGE + 2:
        return None
    maker = residual_maker(x)
    centred = (x - x.mean()) / ((x - x.mean()) @ (x - x.mean()))
    # to the right of a kink, seen in the order of the points: x may fall, as a loss does
    raw = np.where(np.arange(n)[None, :] > knots[:, None], x[None, :] - x[knots][:, None], 0.0)
    bent = raw @ maker
    length = np.sqrt(np.einsum("ij,ij->i", bent, bent))
    hinges = bent / length[:, None]
    correlation = correlations(np.arange(n), rho)
    before = centred[None, :] - (raw @ centred / length)[:, None] * hinges
    after = before + hinges / length[:, None]
    leftover = np.trace(maker @ correlation) - np.einsum(
        "ij,jk,ik->i", hinges, maker @ correlation @ maker, hinges
    )

    def size(weights: Floats) -> Floats:
        variance = np.einsum("ij,jk,ik->i", weights, correlation, weights)
        sizes: Floats = np.sqrt(variance / leftover)
        return sizes

    test = KinkTest(
        knots=knots,
        hinges=hinges,
        bend=1.0 / length,
        left=raw @ centred,
        left_size=size(before),
        right_size=size(after),
        critical=0.0,
        wide=float(fisher.isf(0.05, 1, max(n - 3, 1))) / max(n - 3, 1),
    )
    return KinkTest(
        **{name: getattr(test, name) for name in KinkTest.__slots__ if name != "critical"},
        critical=_critical(test, x, rho, alpha),
    )


def _critical(test: KinkTest, x: Floats, rho: float, alpha: float) -> float:
    """What the larger slope at the best kink of a driftless series seldom reaches."""
    noise = simulated(len(x), rho, _SERIES, _SEED)
    residual = residual_maker(x) @ noise
    centred = x - x.mean()
    slope = centred @ noise / (centred @ centred)
    rss = np.einsum("ij,ij->j", residual, residual)
    along = test.hinges @ residual
    best = (along**2).argmax(axis=0)
    left, right = test._rises(slope, rss, along[best, np.arange(_SERIES)], best)
    return float(np.quantile(np.maximum(np.abs(left), np.abs(right)), 1.0 - alpha))
