"""Learning-rate schedules as functions of progress, 0 at the first step and 1 at the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Schedule = Callable[[float], float]
ScheduleName = Literal["constant", "linear", "cosine"]


def make_schedule(name: ScheduleName, *, warmup: float, final: float) -> Schedule:
    """A function from progress to the fraction of the peak learning rate.

    Rises linearly from 0 to 1 over the warm-up, then stays (constant), falls in a straight
    line (linear) or along half a cosine wave to ``final``.

    Args:
        name: constant, linear or cosine.
        warmup: fraction of the run, 0 to below 1.
        final: fraction of the peak that is left at the end; a constant schedule ignores it.

    Returns:
        The schedule; its argument is taken as 0 to 1.

    >>> cosine = make_schedule("cosine", warmup=0.5, final=0.0)
    >>> [round(cosine(p), 3) for p in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """

    def fraction(progress: float) -> float:
        if progress < warmup:
            return progress / warmup
        done = (progress - warmup) / (1 - warmup)
        if name == "constant":
            return 1.0
        left = 1 - done if name == "linear" else (1 + math.cos(math.pi * done)) / 2
        return final + (1 - final) * left

    return fraction
