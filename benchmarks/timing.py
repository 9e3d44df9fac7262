"""Two ways to the same work, timed in turn, so that a drifting machine drifts for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Medians of two ways, in seconds, and the median of the ratios of neighbouring runs."""

    ours: float
    theirs: float
    ratio: float
    repeats: int


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], *, repeats: int = 3) -> Pair:
    """Run both ways ``repeats`` times, one after the other.

    Args:
        ours: the fast way.
        theirs: the peer.
        repeats: at least 3 for a median that means something.

    Returns:
        Medians and the median ratio theirs / ours.
    """
    seconds: list[tuple[float, float]] = []
    for _ in range(repeats):
        seconds.append((_seconds(ours), _seconds(theirs)))
    return Pair(
        ours=statistics.median(a for a, _ in seconds),
        theirs=statistics.median(b for _, b in seconds),
        ratio=statistics.median(b / a for a, b in seconds),
        repeats=repeats,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def matmul_peak(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a large matrix product, the best of ten."""
    n = 2048
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    a @ b
    return max(2 * n**3 / _seconds(lambda: a @ b) for _ in range(10))
