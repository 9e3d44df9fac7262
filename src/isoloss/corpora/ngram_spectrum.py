"""The dimension of n-gram data: singular values of an n-gram model, and what a rank leaves out.

Up to 20,000 types the Gram matrix is decomposed whole. Beyond, its largest eigenvalues come from a
block Davidson iteration: the matrix is nearly diagonal (most contexts have one continuation), so
that the block of the heaviest types starts close, and residuals over the diagonal lead the rest of
the way. The residuals are part of the result; the sum of all squares is exact either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from isoloss.corpora.ngrams import NgramGram
from isoloss.errors import BadRequest

Floats = NDArray[np.float64]

MOST_TYPES = 20_000
_START, _ROUNDS = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NgramSpectrum:
    """Singular values of an n-gram model.

    Attributes:
        values: (k,) falling; all of them where ``complete``.
        residuals: (k,) largest error of each squared value; zeros where decomposed whole.
        total: sum of all squared singular values, exact.
        types: columns: tokens that occur as a continuation.
        contexts: rows.
        complete: whether ``values`` are all there are.
    """

    values: Floats
    residuals: Floats
    total: float
    types: int
    contexts: int
    complete: bool

    def w_error(self, dimension: ArrayLike) -> Floats:
        """Relative Frobenius error of the best model of so many dimensions.

        Args:
            dimension: one or several; NaN is given beyond the values that are known.

        Reference:
            Godey et al. (2024), section 5.1.
        """
        at = np.asarray(dimension, dtype=np.int64)
        kept = np.concatenate([[0.0], np.cumsum(self.values**2)])
        known = np.minimum(at, len(kept) - 1)
        left = np.maximum(self.total - kept[known], 0.0)
        error: Floats = np.sqrt(left / self.total)
        beyond = (at > len(self.values)) & (not self.complete)
        return np.where(beyond, np.nan, error)

    @property
    def halves_at(self) -> int | None:
        """Smallest dimension whose W-error is at most one half; None where it is not reached."""
        errors = self.w_error(np.arange(len(self.values) + 1))
        reached = np.flatnonzero(errors <= 0.5)
        return int(reached[0]) if len(reached) else None


def ngram_spectrum(gram: NgramGram, *, top: int | None = None) -> NgramSpectrum:
    """Singular values of an n-gram model.

    Args:
        gram: of its rows.
        top: how many; None takes all, which needs at most 20,000 types.

    Raises:
        BadRequest: all values of more types are asked for, or none, or more than there are.
    """
    types = gram.matrix.shape[0]
    if top is None and types > MOST_TYPES:
        gigabytes = 8 * types**2 / 2**30
        raise BadRequest(
            "so many types do not fit one dense matrix.",
            asked=f"all singular values of {types:,} types: {gigabytes:.0f} GiB and more",
            nearest=f"top=2000, or a corpus of at most {MOST_TYPES:,} types",
            remedy="give top=, the number of the largest values",
        )
    if top is not None and not 0 < top <= types:
        raise BadRequest(
            "there are not so many singular values.",
            asked=f"top={top}",
            nearest=f"1 to {types:,}",
            remedy="take one of these",
        )
    whole = types <= MOST_TYPES and (top is None or top * _START >= types)
    if whole:
        squares = linalg.eigvalsh(gram.matrix.toarray(), overwrite_a=True)[::-1]
        found = _Found(np.maximum(squares, 0.0)[:top], np.zeros(min(top or types, types)))
    else:
        found = _largest(gram, top or types)
    return NgramSpectrum(
        values=np.sqrt(found.squares),
        residuals=found.residuals,
        total=gram.total,
        types=types,
        contexts=gram.contexts,
        complete=len(found.squares) == types,
    )


class _Found(NamedTuple):
    squares: Floats
    residuals: Floats


def _largest(gram: NgramGram, top: int) -> _Found:
    """Largest eigenvalues with their residuals, by block Davidson."""
    matrix, diagonal = gram.matrix, gram.matrix.diagonal()
    extra = top + max(16, top // 20)  # a few more, so that the last ones converge too
    heavy = np.sort(np.argsort(-diagonal, kind="stable")[: min(_START * extra, len(diagonal))])
    block = matrix[heavy][:, heavy].toarray()
    size = len(heavy)
    values, vectors = linalg.eigh(
        block, overwrite_a=True, subset_by_index=(max(0, size - extra), size - 1)
    )
    basis = np.zeros((len(diagonal), len(values)))
    basis[heavy] = vectors
    squares, residuals = values[::-1], np.full(len(values), np.inf)
    basis = basis[:, ::-1]
    for _ in range(_ROUNDS):
        image = matrix @ basis
        left = image - basis * squares
        residuals = np.sqrt(np.einsum("ij,ij->j", left, left))
        if residuals[:top].max() <= 1e-6 * squares[0]:
            break
        gap = diagonal[:, None] - squares
        step = left / np.where(np.abs(gap) < 1e-3 * squares, 1e-3 * squares, gap)
        wide = linalg.qr(np.hstack([basis, step]), mode="economic", overwrite_a=True)[0]
        small = wide.T @ (matrix @ wide)
        size = small.shape[0]
        values, vectors = linalg.eigh(
            (small + small.T) / 2, subset_by_index=(size - len(squares), size - 1)
        )
        squares, basis = values[::-1], wide @ vectors[:, ::-1]
    return _Found(np.maximum(squares[:top], 0.0), residuals[:top])
