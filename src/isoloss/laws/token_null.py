"""Series without a drift whose neighbours are alike: what a line through them does by chance.

The model is a first-order autoregression in the order of the checkpoints, one correlation for all
tokens. A line through such a series has a larger variance than through independent points, and its
residuals a smaller one; both follow exactly from the correlation and the places of the points.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from isoloss.laws.correlated import Floats
from isoloss.laws.token_lines import Lines

LARGEST_RHO = 0.995  # a random walk of a few hundred points cannot be told from it
_GRID = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, LARGEST_RHO])
_SERIES, _SEED = 2_000, 20_230_709


@dataclass(frozen=True, slots=True, eq=False)
class SlopeTest:
    """How a slope through n points is judged.

    Attributes:
        slope_variance: variance of the slope for a unit variance of one point's error.
        residual_size: expected sum of squares of the residuals for a unit variance.
        dof: degrees of freedom of that sum (Satterthwaite).
    """

    slope_variance: float
    residual_size: float
    dof: float

    def p_values(self, lines: Lines) -> Floats:
        """Two-sided p-value of no slope for each line, (tokens,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            stderr = np.sqrt(lines.rss / self.residual_size * self.slope_variance)
            p_value = 2.0 * stdtr(self.dof, -np.abs(lines.slope) / stderr)
        # a constant series has neither slope nor error
        return np.where(np.isnan(p_value), 1.0, p_value)


def slope_test(x: Floats, rho: float, places: NDArray[np.int64] | None = None) -> SlopeTest:
    """The test for points at ``x`` whose errors have correlation ``rho`` between neighbours.

    With ``rho`` 0 it is Student's, n - 2 degrees of freedom.

    Args:
        x: (n,) the regressor.
        rho: of two checkpoints one after another.
        places: (n,) number of each point's checkpoint, where some in between are missing.
    """
    n = len(x)
    centred = x - x.mean()
    square = float(centred @ centred)
    if rho == 0.0:
        return SlopeTest(1.0 / square, float(n - 2), float(n - 2))
    correlation = correlations(np.arange(n) if places is None else places, rho)
    weights = centred / square
    left = residual_maker(x) @ correlation
    size = float(np.trace(left))
    return SlopeTest(
        slope_variance=float(weights @ correlation @ weights),
        residual_size=size,
        dof=size**2 / float(np.trace(left @ left)),
    )


def correlations(places: NDArray[np.int64], rho: float) -> Floats:
    """(n, n) correlations of an autoregression at the checkpoints so numbered."""
    table: Floats = rho ** np.abs(places[:, None] - places[None, :]).astype(np.float64)
    return table


def residual_maker(x: Floats) -> Floats:
    """(n, n) what takes a series to its residuals from a line in ``x``."""
    n = len(x)
    centred = x - x.mean()
    maker: Floats = np.eye(n) - 1.0 / n - np.outer(centred, centred) / (centred @ centred)
    return maker


def lag_ratios(residual: Floats, rss: Floats) -> Floats:
    """Products of neighbours over the sum of squares, of each token whose residuals are not 0."""
    product = np.einsum("ij,ij->j", residual[1:], residual[:-1])
    varies: NDArray[np.bool_] = rss > 1e-24 * residual.shape[0]
    ratios: Floats = product[varies] / rss[varies]
    return ratios


def rho_of(mean_lag_ratio: float, x: Floats) -> float:
    """Correlation at which lines through driftless series leave, on average, that lag-1 ratio.

    Residuals are less correlated than errors; by how much is simulated for these very points, so
    that the answer has no bias for short series. It is held to 0 and more.
    """
    expected = _expected_ratios(tuple(x.tolist()))
    return float(np.interp(mean_lag_ratio, expected, _GRID))


@functools.lru_cache(maxsize=8)
def _expected_ratios(x: tuple[float, ...]) -> Floats:
    maker = residual_maker(np.array(x))
    found = []
    for rho in _GRID:
        residual = maker @ simulated(len(x), float(rho), _SERIES, _SEED)
        found.append(lag_ratios(residual, np.einsum("ij,ij->j", residual, residual)).mean())
    return np.maximum.accumulate(found)


def simulated(n: int, rho: float, series: int, seed: int) -> Floats:
    """Driftless stationary series of unit variance, (n, series)."""
    noise = np.random.default_rng([seed, n]).standard_normal((n, series))
    for i in range(1, n):
        noise[i] = rho * noise[i - 1] + np.sqrt(1.0 - rho**2) * noise[i]
    return noise
