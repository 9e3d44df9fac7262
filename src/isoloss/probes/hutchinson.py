"""Trace of a symmetric operator from matrix-vector products alone, one vector at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import BadRequest
from isoloss.probes.curvature_estimate import Stop, TraceEstimate, generator, until_precise

MatVec = Callable[[Tensor], Tensor]
Probes = Literal["rademacher", "gaussian"]

_SKETCH, _REST = 0, 1  # parts of a seed


def probe_vector(
    dim: int,
    kind: Probes,
    rng: np.random.Generator,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A random vector whose entries are independent, of mean 0 and variance 1.

    Args:
        dim: its length.
        kind: signs, or standard normal numbers.
        rng: drawn on the CPU, so that every device gets the same vector.
        dtype: of the vector.
        device: where it is put.

    Returns:
        (dim,).

    Raises:
        BadRequest: there are no such probes.
    """
    if kind == "rademacher":
        # one byte holds eight signs: drawing numbers would cost as much as a small product
        bits = np.unpackbits(rng.integers(0, 256, size=-(-dim // 8), dtype=np.uint8), count=dim)
        return torch.from_numpy(bits).to(device).to(dtype).mul_(2).sub_(1)
    if kind == "gaussian":
        return torch.from_numpy(rng.standard_normal(dim)).to(device=device, dtype=dtype)
    raise BadRequest(
        "there are no such probes.",
        asked=f"probes={kind!r}",
        nearest="rademacher, gaussian",
        remedy='probes="rademacher": its variance is never the larger one',
    )


def hutchinson(
    matvec: MatVec,
    dim: int,
    *,
    stop: Stop,
    seed: int,
    probes: Probes = "rademacher",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> TraceEstimate:
    """Estimate ``tr(A)`` of a symmetric ``A`` known only through ``v -> A v``.

    Unbiased for any symmetric A, definite or not. With signs the variance of one probe is twice
    the sum of squares off the diagonal, with normal numbers twice that of all entries; a diagonal
    A is exact with signs. Memory: two vectors.

    Args:
        matvec: maps (dim,) to (dim,).
        dim: rows of A.
        stop: when to stop.
        seed: of the probes: equal seeds use equal vectors.
        probes: their distribution.
        dtype: of the vectors.
        device: of the vectors.

    Returns:
        The trace; ``n`` counts the probes.

    Reference:
        Hutchinson (1989), doi:10.1080/03610918908812806.

    >>> hutchinson(lambda v: 2 * v, 5, stop=Stop(), seed=0).value
    10.0
    """

    def draw(number: int) -> float:
        v = probe_vector(dim, probes, generator(seed, _REST, number), dtype=dtype, device=device)
        return float(torch.dot(v, matvec(v)))

    return until_precise(draw, stop)


def hutch_plus_plus(
    matvec: MatVec,
    dim: int,
    *,
    rank: int,
    stop: Stop,
    seed: int,
    probes: Probes = "rademacher",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> TraceEstimate:
    """Hutchinson's estimate of what a sketch of the range leaves over: Hutch++.

    ``rank`` products sketch the range, ``rank`` more give the trace inside it exactly, and probes
    estimate the rest, one product each. Given the sketch the rest is unbiased, and its spread is
    the whole error. It pays where few eigenvalues carry most of the sum of squares. Memory:
    ``rank`` + 2 vectors.

    Args:
        matvec: maps (dim,) to (dim,).
        dim: rows of A.
        rank: of the sketch, at most dim.
        stop: when to stop; the sketch's products count.
        seed: of the sketch and the probes.
        probes: their distribution.
        dtype: of the vectors.
        device: of the vectors.

    Returns:
        The trace; ``n`` counts the probes of the rest.

    Raises:
        BadRequest: the limit of products leaves none for the rest.

    Reference:
        Meyer, Musco, Musco and Woodruff (2021), Hutch++, algorithm 1.
    """
    rank = min(rank, dim)
    if rank < 1 or stop.max_products <= 2 * rank:
        raise BadRequest(
            "the sketch takes all products, and its error stays unknown.",
            asked=f"rank {rank}, max_products {stop.max_products}",
            nearest=f"max_products {2 * max(rank, 1) + 16}",
            remedy="a smaller rank, at least 1, or more products",
        )

    def vector(part: int, number: int) -> Tensor:
        rng = generator(seed, part, number)
        return probe_vector(dim, probes, rng, dtype=dtype, device=device)

    sketch = torch.stack([matvec(vector(_SKETCH, i)) for i in range(rank)], dim=1)
    basis = torch.linalg.qr(sketch).Q
    inside = sum(float(torch.dot(q, matvec(q.contiguous()))) for q in basis.T)

    def draw(number: int) -> float:
        v = vector(_REST, number)
        v = v - basis @ (basis.T @ v)
        return float(torch.dot(v, matvec(v)))

    return until_precise(draw, stop, spent=2 * rank, shift=inside)
