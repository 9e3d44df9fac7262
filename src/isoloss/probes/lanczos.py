"""Eigenvalues of a symmetric operator from products: Lanczos with full reorthogonalisation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.errors import BadRequest, NonFinite
from isoloss.probes.curvature_estimate import generator
from isoloss.probes.hutchinson import MatVec, probe_vector

Floats = NDArray[np.float64]

_REPLACEMENTS = 1  # part of a seed


class Krylov(NamedTuple):
    """An orthonormal basis and the operator within it.

    Attributes:
        inner: ``Q' A Q`` over the first vectors, those whose products were taken, float64 (m, m).
        outer: ``P' A Q`` over the vectors P that the products added beyond those, float64 (b, m).
    """

    inner: Floats
    outer: Floats


class Eigenvalues(NamedTuple):
    """The largest eigenvalues.

    Attributes:
        values: from the largest down.
        residuals: for each a true eigenvalue lies within this distance.
        products: products that were taken.
        converged: whether every residual is within the tolerance.
    """

    values: Floats
    residuals: Floats
    products: int
    converged: bool


def band_lanczos(
    matvec: MatVec, start: Tensor, products: int, *, seed: int, refill: bool = True
) -> Krylov:
    """Project an operator on the block Krylov space of some vectors.

    Every new vector is made orthogonal to all before it, twice. Where a product adds nothing the
    space is invariant: ``refill`` puts a random orthogonal vector in its place, by which the
    copies of repeated eigenvalues are found; else the basis ends there. Memory: as many vectors
    as products, and the starting ones.

    Args:
        matvec: maps (dim,) to (dim,).
        start: vectors, (block, dim), independent of each other.
        products: how many to take, at most dim.
        seed: of the refilling vectors.
        refill: go on past invariant spaces.

    Returns:
        The projected operator.

    Raises:
        NonFinite: a product holds NaN or infinity; it is named.

    Reference:
        Ruhe (1979), Implementation aspects of band Lanczos algorithms, doi:10.2307/2006302.
    """
    block, dim = start.shape
    products = min(products, dim)
    basis = torch.zeros(min(products + block, dim), dim, dtype=start.dtype, device=start.device)
    inner = torch.zeros(len(basis), products, dtype=torch.float64)
    tiny, scale, size = 100 * torch.finfo(start.dtype).eps, 0.0, 0
    for vector in start:
        added = _orthogonal(vector, basis[:size])
        basis[size] = added / torch.linalg.vector_norm(added)
        size += 1
    taken = 0
    while taken < min(products, size):
        image = matvec(basis[taken])
        if not bool(torch.isfinite(image).all()):
            raise NonFinite(
                f"product {taken} of the Lanczos process is not a number.",
                asked=f"product {taken} (the first is 0)",
                remedy="leave this checkpoint out if its weights have diverged",
            )
        inner[:size, taken] = (basis[:size] @ image).double().cpu()
        scale = max(scale, float(torch.linalg.vector_norm(image)))
        rest = _orthogonal(image, basis[:size])
        length = float(torch.linalg.vector_norm(rest))
        column, taken = taken, taken + 1
        if size == len(basis):
            continue
        if length > tiny * scale:
            inner[size, column] = length
            basis[size] = rest / length
            size += 1
        elif refill:
            rng = generator(seed, _REPLACEMENTS, taken)
            fresh = probe_vector(dim, "gaussian", rng, dtype=start.dtype, device=start.device)
            fresh = _orthogonal(fresh, basis[:size])
            basis[size] = fresh / torch.linalg.vector_norm(fresh)
            size += 1
    square = inner[:taken, :taken].triu()
    square = square + square.triu(1).T
    return Krylov(square.numpy(), inner[taken:size, :taken].numpy())


def top_eigenvalues(
    matvec: MatVec,
    dim: int,
    *,
    count: int,
    products: int,
    seed: int,
    tolerance: float = 1e-3,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Eigenvalues:
    """The algebraically largest eigenvalues, repeated ones as often as they occur.

    Block Lanczos with as many starting vectors as eigenvalues asked for: a single vector finds
    one copy of a repeated eigenvalue, and a process without reorthogonalisation finds ghosts.

    Args:
        matvec: maps (dim,) to (dim,).
        dim: rows of A.
        count: how many eigenvalues, at most dim.
        products: how many to take, at least ``count``; 10 to 30 for each eigenvalue do.
        seed: of the starting vectors.
        tolerance: on each residual, relative to the largest absolute eigenvalue found.
        dtype: of the vectors.
        device: of the vectors.

    Returns:
        Eigenvalues with the residuals that bound their errors.

    Raises:
        BadRequest: fewer products than eigenvalues, or no eigenvalue is asked for.
    """
    count = min(count, dim)
    if not 1 <= count <= products:
        raise BadRequest(
            "each eigenvalue needs at least one product.",
            asked=f"count {count}, products {products}",
            nearest=f"products {20 * max(count, 1)}",
            remedy="ask for at least one eigenvalue, and give more products",
        )
    start = torch.stack(
        [
            probe_vector(dim, "gaussian", generator(seed, 0, i), dtype=dtype, device=device)
            for i in range(count)
        ]
    )
    space = band_lanczos(matvec, start, products, seed=seed)
    values, vectors = np.linalg.eigh(space.inner)
    top = np.argsort(values)[::-1][:count]
    residuals = np.linalg.norm(space.outer @ vectors[:, top], axis=0)
    largest = float(np.abs(values).max())
    return Eigenvalues(
        values=values[top],
        residuals=residuals,
        products=len(space.inner),
        converged=bool((residuals <= tolerance * largest).all()),
    )


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    # twice is enough (Kahan, Parlett): float32 Ritz values repeat after a single pass
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector
