"""Density of an operator's eigenvalues by stochastic Lanczos quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from isoloss.errors import BadRequest
from isoloss.probes.curvature_estimate import generator
from isoloss.probes.hutchinson import MatVec, probe_vector
from isoloss.probes.lanczos import band_lanczos

Floats = NDArray[np.float64]

_POINTS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpectralDensity:
    """How an operator's eigenvalues are distributed.

    Attributes:
        nodes: Ritz values of all probes, (nodes,).
        weights: the share of the eigenvalues that each node stands for, (nodes,), of sum 1.
        grid: places at which the density is given, (points,).
        density: share of the eigenvalues in a unit of the grid, smoothed, (points,).
        stderr: of the density, from the spread between probes; NaN of a single one.
        width: standard deviation of the smoothing Gaussian.
        products: products that were taken.
    """

    nodes: Floats
    weights: Floats
    grid: Floats
    density: Floats
    stderr: Floats
    width: float
    products: int

    def mean_of(self, power: int) -> float:
        """Mean over the eigenvalues of a power of them: 1 gives the trace over the rows."""
        return float(self.weights @ self.nodes**power)


def spectral_density(
    matvec: MatVec,
    dim: int,
    *,
    probes: int,
    products_per_probe: int,
    seed: int,
    width: float | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> SpectralDensity:
    """Estimate the density of a symmetric operator's eigenvalues.

    From each random vector a Lanczos process of ``products_per_probe`` steps gives the Gauss
    quadrature of the density as that vector weighs it, exact for polynomials of degree up to
    twice the steps less one. Memory: as many vectors as steps.

    Args:
        matvec: maps (dim,) to (dim,).
        dim: rows of A.
        probes: vectors, at least 1; from 2 on there is a standard error.
        products_per_probe: Lanczos steps, at least 1.
        seed: of the vectors.
        width: of the smoothing Gaussian; None takes a hundredth of the range of the nodes.
        dtype: of the vectors.
        device: of the vectors.

    Returns:
        The density, of integral 1.

    Raises:
        BadRequest: there are no probes or no products.

    Reference:
        Lin, Saad and Yang (2016), Approximating spectral densities of large matrices,
        doi:10.1137/130934283, section 3.2; Ghorbani, Krishnan and Xiao (2019).
    """
    if probes < 1 or products_per_probe < 1:
        raise BadRequest(
            "a density needs a probe and a product.",
            asked=f"probes {probes}, products_per_probe {products_per_probe}",
            remedy="at least 1 of each; 10 probes of 80 products show most spectra",
        )
    nodes, weights = [], []
    for number in range(probes):
        rng = generator(seed, number)
        start = probe_vector(dim, "gaussian", rng, dtype=dtype, device=device)[None]
        # an invariant space ends the process: beyond it the start has no weight
        space = band_lanczos(matvec, start, products_per_probe, seed=seed, refill=False)
        values, vectors = np.linalg.eigh(space.inner)
        nodes.append(values)
        weights.append(vectors[0] ** 2)
    every = np.concatenate(nodes)
    spread = float(np.ptp(every))
    if width is None:
        # all eigenvalues equal: any width shows the one peak
        width = spread / 100 or max(abs(float(every[0])), 1.0) / 100
    grid = np.linspace(every.min() - 4 * width, every.max() + 4 * width, _POINTS)
    curves = np.stack([_smooth(grid, n, w, width) for n, w in zip(nodes, weights, strict=True)])
    error = curves.std(axis=0, ddof=1) / np.sqrt(probes) if probes > 1 else np.full(_POINTS, np.nan)
    return SpectralDensity(
        nodes=every,
        weights=np.concatenate(weights) / probes,
        grid=grid,
        density=curves.mean(axis=0),
        stderr=error,
        width=width,
        products=len(every),
    )


def _smooth(grid: Floats, nodes: Floats, weights: Floats, width: float) -> Floats:
    bells = np.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2)
    density: Floats = bells @ weights / (width * np.sqrt(2 * np.pi))
    return density
