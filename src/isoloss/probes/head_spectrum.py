"""Singular values of a language-model head, and what they say about its rank.

A head of V tokens and d dimensions is tall, so that its spectrum comes from a d x d Gram matrix.
Squaring costs digits at the small end: values under a guard are computed anew, in float64, and if
need be from the head itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from isoloss.errors import BadData, BadRequest

Floats = NDArray[np.float64]

_BLOCK = 4_096  # rows multiplied at once in float32; their products are summed in float64
SINGLE_GUARD, DOUBLE_GUARD = 0.1, 1e-5
"""Smallest value over the largest that each Gram matrix gives to 1e-5 relative.

The error of a squared value is about 1e-7 of the largest square in float32 blocks, 1e-16 in
float64; that of the value is half of it times (largest / value)^2.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadSpectrum:
    """What the singular values of a head say.

    Attributes:
        values: (d,) falling.
        singular_entropy: KL divergence of the shares of the squared values from uniform, nats: 0
            for a flat spectrum, ln d for a single direction.
        singular_entropy_power1: the same of the values themselves.
        effective_rank: exponential of the entropy of the values' shares.
        top_share: of the first squared value in the sum of squares.
        top_frequency_correlation: of the first left singular vector, an entry a token, with the
            logarithm of the tokens' counts, absolute; None where no counts are given.
    """

    values: Floats
    singular_entropy: float
    singular_entropy_power1: float
    effective_rank: float
    top_share: float
    top_frequency_correlation: float | None


def head_spectrum(weight: Tensor | ArrayLike, counts: ArrayLike | None = None) -> HeadSpectrum:
    """Spectrum of a head.

    Args:
        weight: (vocab, d), tied or not.
        counts: (vocab,) how often each token occurs in a text; tokens that never occur are left
            out of the correlation.

    Raises:
        BadData: the head is not finite, is zero, or has no two dimensions.
        BadRequest: the counts are not one a token.
    """
    values = singular_values(weight)
    correlation = None if counts is None else _frequency_correlation(_matrix(weight), counts)
    return HeadSpectrum(
        values=values,
        singular_entropy=_entropy_gap(values**2),
        singular_entropy_power1=_entropy_gap(values),
        effective_rank=float(len(values) * np.exp(-_entropy_gap(values))),
        top_share=float(values[0] ** 2 / np.sum(values**2)),
        top_frequency_correlation=correlation,
    )


def singular_entropy(weight: Tensor | ArrayLike, power: int = 2) -> float:
    """KL divergence of the normalised singular values from uniform, nats.

    Args:
        weight: (vocab, d).
        power: of the values before they are normalised; 2 matches the published figure, 1 is the
            other reading of the text.

    Raises:
        BadData: the head is not finite, or is zero.
        BadRequest: the power is neither 1 nor 2.

    Reference:
        Godey et al., "Why do small language models underperform?" (2024), section 4.2.

    >>> singular_entropy(np.eye(4)), round(singular_entropy(np.outer(np.ones(4), np.ones(3))), 6)
    (0.0, 1.098612)
    """
    if power not in {1, 2}:
        raise BadRequest(
            "the singular entropy is taken of the values or of their squares.",
            asked=f"power={power}",
            nearest="power=2, as in the published figure",
            remedy="take 1 or 2",
        )
    return _entropy_gap(singular_values(weight) ** power)


def effective_rank(weight: Tensor | ArrayLike) -> float:
    """Exponential of the entropy of the singular values' shares, 1 to d.

    Reference:
        Roy and Vetterli, "The effective rank" (2007).
    """
    values = singular_values(weight)
    return float(len(values) * np.exp(-_entropy_gap(values)))


def w_error(values: ArrayLike, rank: int | ArrayLike) -> Any:
    """Relative Frobenius error of the best approximation of a rank.

    Args:
        values: (d,) all singular values, falling.
        rank: one or several, 0 to d.

    Returns:
        ``sqrt(sum of squares beyond the rank / sum of squares)``, a number or an array.

    Reference:
        Godey et al. (2024), section 5.1; Eckart and Young (1936).

    >>> w_error([4.0, 3.0], 1)
    0.6
    """
    squares = np.asarray(values, dtype=np.float64) ** 2
    # summed from the small end, where they are lost beside the large ones
    tails = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
    found = np.sqrt(tails[np.asarray(rank)] / tails[0])
    return float(found) if np.ndim(found) == 0 else found


def singular_values(weight: Tensor | ArrayLike) -> Floats:
    """All singular values, float64, falling, min(vocab, d) of them.

    Each is within 1e-5 relative of a float64 decomposition's, down to rounding of the head itself
    (1e-14 of the largest).

    Args:
        weight: (vocab, d); tall heads are the fast case.

    Raises:
        BadData: the head is not finite, is zero, or has no two dimensions.
    """
    matrix = _matrix(weight)
    rows, columns = matrix.shape
    if rows < columns:
        matrix = matrix.T
    if min(rows, columns) * 4 > max(rows, columns):  # squaring saves nothing
        return _falling(torch.linalg.svdvals(matrix.double()))
    for double, guard in ((False, SINGLE_GUARD), (True, DOUBLE_GUARD)):
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(_gram(matrix, double=double)), 0.0))[::-1]
        if values[-1] >= guard * values[0]:
            return np.ascontiguousarray(values)
    return _falling(torch.linalg.svdvals(matrix.double()))


def _gram(matrix: Tensor, *, double: bool) -> Floats:
    """matrix^T matrix in float64, (d, d)."""
    total = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64, device=matrix.device)
    for low in range(0, matrix.shape[0], _BLOCK):
        block = matrix[low : low + _BLOCK]
        block = block.double() if double else block.float()
        total += block.T @ block
    gram: Floats = total.cpu().numpy()
    return gram


def _falling(values: Tensor) -> Floats:
    found: Floats = values.cpu().numpy()
    return found


def _matrix(weight: Tensor | ArrayLike) -> Tensor:
    matrix = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(np.asarray(weight))
    if matrix.ndim != 2 or min(matrix.shape) < 1:
        raise BadData(
            "a head is a matrix, an entry for each token and dimension.",
            asked=f"shape {tuple(matrix.shape)}",
            nearest="(vocab, d)",
            remedy="give model.get_output_embeddings().weight",
        )
    if not bool(torch.isfinite(matrix).all()):
        rows = int((~torch.isfinite(matrix)).any(dim=1).sum())
        raise BadData(
            "the head holds NaN or infinity.",
            asked=f"{rows} of {matrix.shape[0]:,} tokens",
            remedy="this checkpoint is broken: isoloss check RUN, and take the one before it",
        )
    if not bool(matrix.any()):
        raise BadData(
            "the head is zero throughout.",
            asked=f"shape {tuple(matrix.shape)}",
            remedy="check that the checkpoint holds its head's weights",
        )
    return matrix


def _entropy_gap(sizes: Floats) -> float:
    """KL divergence of the shares of non-negative sizes from uniform, nats."""
    shares = sizes / sizes.sum()
    shares = shares[shares > 0]
    return float(max(0.0, np.log(len(sizes)) + np.sum(shares * np.log(shares))))


def _frequency_correlation(matrix: Tensor, counts: ArrayLike) -> float:
    seen = np.asarray(counts, dtype=np.float64)
    if seen.shape != (matrix.shape[0],):
        raise BadRequest(
            "token counts are one number a token.",
            asked=f"shape {seen.shape} for {matrix.shape[0]:,} tokens",
            remedy="count the tokens of a text with minlength = vocab",
        )
    vector = np.linalg.eigh(_gram(matrix, double=True))[1][:, -1]
    first = (matrix.double().cpu() @ torch.from_numpy(vector)).numpy()
    occurs = seen > 0
    if occurs.sum() < 3:
        return float("nan")
    return float(abs(np.corrcoef(first[occurs], np.log(seen[occurs]))[0, 1]))
