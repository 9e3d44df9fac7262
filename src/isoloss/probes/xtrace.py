"""XTrace: every vector serves both the sketch and the estimate of what the others leave over."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isoloss.errors import BadRequest
from isoloss.estimate import Estimate
from isoloss.probes.curvature_estimate import Stop, TraceEstimate, check_finite, generator
from isoloss.probes.hutchinson import MatVec, Probes, probe_vector

_FIRST = 8  # vectors before the first look at the error


def xtrace(
    matvec: MatVec,
    dim: int,
    *,
    stop: Stop,
    seed: int,
    probes: Probes = "gaussian",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> TraceEstimate:
    """Estimate ``tr(A)`` of a symmetric ``A``; the number of vectors doubles until precise.

    For every vector the others' range gives a part of the trace exactly and the vector an
    unbiased estimate of the rest. The estimates share vectors: their standard error is that of
    independent ones, as in the paper. Where the range of A is exhausted the value is exact and
    its error 0. Memory: three vectors for each of those used, two products each.

    Args:
        matvec: maps (dim,) to (dim,).
        dim: rows of A.
        stop: when to stop; at least four products are needed.
        seed: of the vectors.
        probes: their distribution.
        dtype: of the vectors.
        device: of the vectors.

    Returns:
        The trace; ``n`` counts the vectors.

    Raises:
        BadRequest: the limit of products allows fewer than two vectors.

    Reference:
        Epperly, Tropp and Webber (2024), XTrace, doi:10.1137/23M1548323, section 2.2.
    """
    most = min(stop.max_products // 2, dim)
    if stop.max_products < 4:
        raise BadRequest(
            "XTrace needs two vectors, and two products of each.",
            asked=f"max_products {stop.max_products}",
            nearest="max_products 4",
            remedy="more products, or method hutchinson",
        )
    state = _State(matvec, dim, dtype=dtype, device=device)
    while True:
        for number in range(len(state.omega), min(max(_FIRST, 2 * len(state.omega)), most)):
            rng = generator(seed, number)
            state.add(probe_vector(dim, probes, rng, dtype=dtype, device=device))
        found = state.estimate()
        if stop.reached(found) or len(state.omega) >= most:
            break
    return TraceEstimate(
        value=found.value,
        stderr=found.stderr,
        n=found.n,
        converged=stop.reached(found),
        products=state.products,
    )


class _State:
    """Vectors, their products, and an orthonormal basis of the products."""

    def __init__(
        self, matvec: MatVec, dim: int, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._matvec = matvec
        self.omega: list[Tensor] = []
        self._own: list[float] = []  # omega_i . A omega_i
        self._basis = torch.empty(0, dim, dtype=dtype, device=device)
        self._images = torch.empty(0, dim, dtype=dtype, device=device)
        self._triangle: list[Tensor] = []  # columns of R
        # a product this far inside the basis is rounding: the range is exhausted
        self._tiny = 100 * torch.finfo(dtype).eps
        self.products = 0

    def add(self, omega: Tensor) -> None:
        """Take one vector's product, and that of the direction it adds to the basis."""
        image = self._matvec(omega)
        self.products += 1
        self._own.append(check_finite(float(torch.dot(omega, image)), probe=len(self.omega)))
        self.omega.append(omega)
        inside = self._basis @ image
        rest = image - self._basis.T @ inside
        # once is not enough: the first pass leaves rounding of the size of the image
        again = self._basis @ rest
        rest = rest - self._basis.T @ again
        size = torch.linalg.vector_norm(rest)
        if float(size) <= self._tiny * float(torch.linalg.vector_norm(image)):
            return
        self._triangle.append(torch.cat([inside + again, size[None]]))
        direction = rest / size
        self._basis = torch.cat([self._basis, direction[None]])
        self._images = torch.cat([self._images, self._matvec(direction)[None]])
        self.products += 1

    def estimate(self) -> Estimate:
        """Mean of the leave-one-out estimates."""
        count, rank = len(self.omega), len(self._basis)
        # d-sized sums end here: what follows is small and done in float64
        inner = (self._basis @ self._images.T).double().cpu()
        inner = (inner + inner.T) / 2
        total = float(inner.trace())
        if rank < count:
            return Estimate(value=total, stderr=0.0, n=count)
        omega = torch.stack(self.omega)
        within = (self._basis @ omega.T).double().cpu()
        crossed = (self._images @ omega.T).double().cpu()
        triangle = torch.zeros(rank, rank, dtype=torch.float64)
        for column, entries in enumerate(self._triangle):
            triangle[: column + 1, column] = entries.double().cpu()
        # column i of the inverse's transpose is orthogonal to all products but the i-th
        alone = torch.linalg.inv(triangle).T
        alone = alone / torch.linalg.vector_norm(alone, dim=0)
        kept = within - alone * (alone * within).sum(0)
        values = total - (alone * (inner @ alone)).sum(0)
        values += torch.tensor(self._own, dtype=torch.float64)
        values += (kept * (inner @ kept)).sum(0) - 2 * (crossed * kept).sum(0)
        spread = float(values.std()) / math.sqrt(count) if count > 1 else None
        return Estimate(value=float(values.mean()), stderr=spread, n=count)
