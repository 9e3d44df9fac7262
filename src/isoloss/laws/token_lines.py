"""Least-squares lines through the perplexities of many tokens, in closed form.

A block holds its checkpoints as rows, so that every sum runs along memory and over all tokens of
the block at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadData
from isoloss.laws.correlated import Floats


class Block(NamedTuple):
    """Perplexities of some tokens.

    Attributes:
        ratio: (checkpoints, tokens) over the first known one of the token; 0 where unknown.
        known: (checkpoints, tokens); None where all are.
        first: (tokens,) first known perplexity over the geometric mean of the known ones.
        last: (tokens,) last known perplexity over that mean.
        geometric_mean: (tokens,) of the known perplexities.
    """

    ratio: Floats
    known: NDArray[np.bool_] | None
    first: Floats
    last: Floats
    geometric_mean: Floats

    @property
    def points(self) -> Floats:
        """Known checkpoints of each token, (tokens,)."""
        checkpoints, tokens = self.ratio.shape
        if self.known is None:
            return np.full(tokens, float(checkpoints))
        points: Floats = self.known.sum(axis=0).astype(np.float64)
        return points


class Lines(NamedTuple):
    """A line through each token's ratios.

    Attributes:
        slope: (tokens,) for one unit of x; NaN where x does not vary over the known points.
        square: (tokens,) sum of squares of x about its mean.
        rss: (tokens,) sum of squares of the residuals.
        residual: (checkpoints, tokens); 0 where unknown.
        points: (tokens,) known ones.
    """

    slope: Floats
    square: Floats
    rss: Floats
    residual: Floats
    points: Floats


def block_of_losses(losses: NDArray[np.floating]) -> Block:
    """A block from losses in nats, (checkpoints, tokens); NaN and infinity are unknown."""
    nats = np.asarray(losses, dtype=np.float64)
    if np.isfinite(nats).all():
        mean = nats.mean(axis=0)
        first, last = np.exp(nats[0] - mean), np.exp(nats[-1] - mean)
        return Block(np.exp(nats - nats[0]), None, first, last, np.exp(mean))
    known = np.isfinite(nats)
    filled = np.where(known, nats, 0.0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = filled.sum(axis=0) / count
    head, tail = _ends(filled, known)
    ratio = np.where(known, np.exp(filled - head), 0.0)
    return Block(ratio, known, np.exp(head - mean), np.exp(tail - mean), np.exp(mean))


def block_of_perplexities(values: NDArray[np.floating], offset: int) -> Block:
    """A block from perplexities, (checkpoints, tokens); NaN and infinity are unknown.

    Args:
        values: of these tokens.
        offset: number of the first token, for the error.

    Raises:
        BadData: a perplexity is zero or negative.
    """
    table = np.asarray(values, dtype=np.float64)
    known = np.isfinite(table)
    if (table[known] <= 0).any():
        tokens = np.flatnonzero((known & (table <= 0)).any(axis=0))
        raise BadData(
            "a perplexity is positive",
            asked=f"token {offset + int(tokens[0])} has one of zero or less",
            remedy="give exp(loss in nats), not the loss or a probability",
        )
    if known.all():
        mean = np.exp(np.log(table).mean(axis=0))
        return Block(table / table[0], None, table[0] / mean, table[-1] / mean, mean)
    filled = np.where(known, table, 1.0)
    mean = np.exp(np.log(filled).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    head, tail = _ends(filled, known)
    return Block(np.where(known, table / head, 0.0), known, head / mean, tail / mean, mean)


def lines_through(block: Block, x: Floats) -> Lines:
    """The line of each token.

    Args:
        block: of tokens.
        x: (checkpoints,) the regressor.
    """
    if block.known is None:
        return _whole(block.ratio, x)
    whole = block.known.all(axis=0)
    # tokens without gaps get the same bits whatever stands beside them
    parts = [
        (np.flatnonzero(whole), _whole(block.ratio.compress(whole, axis=1), x)),
        (np.flatnonzero(~whole), _gappy(block.ratio[:, ~whole], block.known[:, ~whole], x)),
    ]
    columns = range(len(Lines._fields))
    return Lines(*(_merged([(at, lines[i]) for at, lines in parts]) for i in columns))


def _whole(ratio: Floats, x: Floats) -> Lines:
    checkpoints, tokens = ratio.shape
    centred = x - x.mean()
    square = float(centred @ centred)
    residual = ratio - ratio.mean(axis=0)
    # not BLAS, whose sums depend on how many tokens stand side by side
    slope = np.einsum("i,ij->j", centred, residual) / square
    residual -= centred[:, None] * slope
    rss = np.einsum("ij,ij->j", residual, residual)
    return Lines(slope, np.full(tokens, square), rss, residual, np.full(tokens, float(checkpoints)))


def _gappy(ratio: Floats, known: NDArray[np.bool_], x: Floats) -> Lines:
    count = known.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(known, x[:, None] - (x @ known) / count, 0.0)
        residual = np.where(known, ratio - ratio.sum(axis=0) / count, 0.0)
        squares = np.einsum("ij,ij->j", own, own)
        slope = np.einsum("ij,ij->j", own, residual) / np.where(squares > 0, squares, np.nan)
        residual = np.where(known, residual - own * slope, 0.0)
    rss = np.einsum("ij,ij->j", residual, residual)
    return Lines(slope, squares, rss, residual, count)


def _merged(parts: list[tuple[NDArray[np.int64], Floats]]) -> Floats:
    """Columns of several groups of tokens in the tokens' order."""
    tokens = sum(len(at) for at, _ in parts)
    merged = np.empty((*parts[0][1].shape[:-1], tokens))
    for at, values in parts:
        merged[..., at] = values
    return merged


def _ends(filled: Floats, known: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """First and last known value of each token."""
    tokens = np.arange(filled.shape[1])
    begin = known.argmax(axis=0)
    end = known.shape[0] - 1 - known[::-1].argmax(axis=0)
    return filled[begin, tokens], filled[end, tokens]
