"""Sorted things cut into runs at the least total cost: which rows go through the model together.

A pass costs a fixed time beside its tokens, and running unlike rows together costs tokens. The
best cut of a sorted list weighs the two exactly, by dynamic programming over where a run begins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# A pass's fixed time in tokens: reading the weights, handing out a cache. On a Pythia-70m shape and
# two cores a pass of n tokens takes about 11 ms + .28 ms n, and from 48 to 128 HellaSwag takes the
# same time within noise. Both terms grow with the parameters, so that their ratio hardly changes.
PASS_TOKENS = 64
# A longer run gains nothing: its fixed time is spread over enough tokens.
LONGEST_RUN = 256

Cost = Callable[[NDArray[np.int64], int], NDArray[np.float64]]


def cheapest_runs(n: int, cost: Cost) -> list[range]:
    """Cut ``range(n)`` into consecutive runs of the least total cost.

    Args:
        n: how many things.
        cost: given the possible beginnings (an ascending array) and an end, the cost of each run
            from there to before the end; infinite where they cannot go together. A run of one
            is always allowed.

    Returns:
        The runs, in order.
    """
    best = np.zeros(n + 1)
    begin = np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        starts = np.arange(max(0, end - LONGEST_RUN), end)
        total = best[starts] + cost(starts, end)
        # the last of equals: shorter runs, less memory
        place = len(total) - 1 - int(np.argmin(total[::-1]))
        best[end], begin[end] = total[place], starts[place]
    runs, end = [], n
    while end > 0:
        runs.append(range(int(begin[end]), end))
        end = int(begin[end])
    return runs[::-1]
