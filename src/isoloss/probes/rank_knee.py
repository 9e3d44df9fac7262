"""The rank at which a curve of loss against rank reaches its floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DRAWS = 999


class Knee(NamedTuple):
    """Where the loss starts to suffer.

    Attributes:
        rank: below it the loss lies more than the margin above that of the largest rank; None
            where the smallest rank already lies within.
        low: the 95% interval by bootstrap over blocks, paired between ranks; None where the end
            lies below the smallest rank.
        high: its upper end; None likewise.
        margin: nats.
    """

    rank: float | None
    low: float | None
    high: float | None
    margin: float


def knee_rank(
    ranks: Sequence[int],
    losses: Floats,
    block: NDArray[np.int64],
    *,
    margin: float,
    seed: int,
) -> Knee:
    """The rank whose mean loss is the margin above the largest rank's, between the ranks given.

    Interpolated in log rank. The blocks are resampled for all ranks at once, since the same tokens
    were scored: what remains is how the ranks differ. Heads trained anew are another source of
    scatter, which this interval leaves out.

    Args:
        ranks: rising.
        losses: (ranks, n) nats of the same tokens.
        block: (n,) independent block of each token.
        margin: nats.
        seed: of the resampling.

    >>> curve = np.repeat([[3.0], [2.2], [2.0]], 4, axis=1)
    >>> round(knee_rank([8, 32, 128], curve, np.arange(4), margin=0.1, seed=0).rank, 6)
    64.0
    """
    names, which = np.unique(block, return_inverse=True)
    sums = np.stack([np.bincount(which, row, len(names)) for row in losses])
    sizes = np.bincount(which, minlength=len(names)).astype(np.float64)
    logs = np.log2(np.asarray(ranks, dtype=np.float64))
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_DRAWS
    )
    found = [_crossing(logs, sums @ w / (sizes @ w), margin) for w in draws]
    value = _crossing(logs, sums.sum(axis=1) / sizes.sum(), margin)
    # an order statistic, since a draw may lie below the smallest rank, at minus infinity
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return Knee(_rank(value), _rank(float(low)), _rank(float(high)), margin)


def _crossing(logs: Floats, curve: Floats, margin: float) -> float:
    """Log rank of the last crossing of the margin, from the large end; -inf where there is none."""
    excess = curve - curve[-1] - margin
    above = np.flatnonzero(excess > 0)
    if not len(above):
        return -np.inf
    i = int(above[-1])
    share = excess[i] / (excess[i] - excess[i + 1])
    return float(logs[i] + share * (logs[i + 1] - logs[i]))


def _rank(log: float) -> float | None:
    return None if np.isneginf(log) else float(2.0**log)
