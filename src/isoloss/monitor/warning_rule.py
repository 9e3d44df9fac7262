"""When a live run is warned about: its states turned one way, and its loss no longer falls.

The rule is stated in :class:`WarningRule`. It says what goes together in the published runs, not
what causes what: a warning is a reason to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoloss.errors import BadRequest

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRule:
    """A run is warned about where both hold.

    1. Anisotropy has a change point: of all splits of the last ``memory`` looks with at least
       ``side`` looks on each side, the one that leaves the least squared error has a mean after
       it ``surely`` standard errors above the mean before, and every one of the last ``side``
       looks lies at least ``jump`` above that mean: one odd look is no change. The error of a look
       is told by how the changes from one look to the next scatter.
    2. The loss is not falling: its mean over the last ``side`` looks is not lower, by two standard
       errors, than over the ``side`` looks before the change point.

    A warning comes ``side`` looks after the change at the earliest. A jump while the loss falls
    slower than its noise shows is warned about, too: give losses of many steps a look.

    Attributes:
        jump: of the mean cosine.
        surely: standard errors.
        side: looks.
        memory: looks.
    """

    jump: float = 0.1
    surely: float = 5.0
    side: int = 4
    memory: int = 100

    def __post_init__(self) -> None:
        if self.side < 2 or self.memory < 2 * self.side:
            raise BadRequest(
                "the rule needs looks on both sides of a change.",
                asked=f"side {self.side}, memory {self.memory}",
                nearest=f"side 2 and more, memory at least {2 * max(self.side, 2)}",
                remedy="raise memory or lower side",
            )


class Change(NamedTuple):
    """Where a series rose.

    Attributes:
        look: the first look after the change.
        before: mean of the looks before.
        after: mean of those since.
        z: their difference in standard errors.
    """

    look: int
    before: float
    after: float
    z: float


class Saturating(NamedTuple):
    """Why a run is warned about.

    Attributes:
        step: of the first look after the change.
        reason: in one sentence, with the numbers.
    """

    step: int
    reason: str


def saturating(
    steps: Sequence[int], anisotropy: ArrayLike, loss: ArrayLike, rule: WarningRule | None = None
) -> Saturating | None:
    """Apply the rule to the looks so far.

    Args:
        steps: of the looks, rising.
        anisotropy: (n,) of the last layer.
        loss: (n,) nats per token; looks without one are NaN.
        rule: see :class:`WarningRule`.

    Returns:
        The reason; None where the rule does not hold or there are too few looks.
    """
    how = rule or WarningRule()
    a = np.asarray(anisotropy, dtype=np.float64)[-how.memory :]
    y = np.asarray(loss, dtype=np.float64)[-how.memory :]
    numbers = steps[-how.memory :]
    known = np.isfinite(a) & np.isfinite(y)
    a, y, numbers = a[known], y[known], [s for s, k in zip(numbers, known, strict=True) if k]
    change = upward_change(a, how.side)
    if change is None or change.z < how.surely:
        return None
    if a[-how.side :].min() - change.before < how.jump:
        return None
    before = float(y[change.look - how.side : change.look].mean())
    now = float(y[-how.side :].mean())
    stderr = _noise(y) * float(np.sqrt(2 / how.side))
    if now - before <= -2 * stderr:
        return None
    step = numbers[change.look]
    return Saturating(
        step,
        f"anisotropy of the last layer rose from {change.before:.3f} to {change.after:.3f} at step "
        f"{step} ({change.z:.0f} standard errors), and the loss is not falling: {now:.4f} now, "
        f"{before:.4f} before the rise (difference {now - before:+.4f}, standard error "
        f"{stderr:.4f})",
    )


def upward_change(values: Floats, side: int) -> Change | None:
    """The best single change of mean that goes up, with ``side`` values on each side.

    >>> upward_change(np.array([0.1, 0.1, 0.1, 0.9, 0.9, 0.9]), 2).look
    3
    """
    n = len(values)
    if n < 2 * side:
        return None
    sums = np.cumsum(values)
    first = np.arange(side, n - side + 1)
    before = sums[first - 1] / first
    after = (sums[-1] - sums[first - 1]) / (n - first)
    gain = (after - before) ** 2 * first * (n - first)
    best = int(np.argmax(np.where(after > before, gain, -np.inf)))
    k = int(first[best])
    rise = float(after[best] - before[best])
    if rise <= 0:
        return None
    # a series that only takes two values has no noise to speak of
    stderr = max(_noise(values) * float(np.sqrt(1 / k + 1 / (n - k))), 1e-12)
    return Change(k, float(before[best]), float(after[best]), rise / stderr)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastBand:
    """A predicted band of the loss, linear between the steps it was computed at.

    Attributes:
        steps: (n,) rising.
        low: (n,) nats per token.
        high: (n,) nats per token.

    >>> ForecastBand(steps=[0, 100], low=[3.0, 2.0], high=[3.4, 2.2])(50)
    (2.5, 2.8)
    """

    steps: ArrayLike
    low: ArrayLike
    high: ArrayLike

    def __post_init__(self) -> None:
        steps, low, high = (np.asarray(x, dtype=np.float64) for x in self._parts)
        rising = steps.ndim == 1 and len(steps) > 0 and bool((np.diff(steps) > 0).all())
        if not rising or low.shape != steps.shape or high.shape != steps.shape:
            raise BadRequest(
                "a band is a low and a high loss at each of its rising steps.",
                asked=f"shapes {steps.shape}, {low.shape}, {high.shape}",
                remedy="give three lists of one length, steps in order and none twice",
            )
        if not (low <= high).all():
            raise BadRequest(
                "the band's low end lies above its high end.",
                asked=f"{int((low > high).sum())} of {len(steps)} steps",
                remedy="exchange low and high",
            )

    def __call__(self, step: int) -> tuple[float, float]:
        """Low and high at a step; NaN outside the steps of the band, where nothing is alarming."""
        steps, low, high = (np.asarray(x, dtype=np.float64) for x in self._parts)
        if not steps[0] <= step <= steps[-1]:
            return (float("nan"), float("nan"))
        return (float(np.interp(step, steps, low)), float(np.interp(step, steps, high)))

    @property
    def _parts(self) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
        return self.steps, self.low, self.high


def _noise(values: Floats) -> float:
    """Standard deviation of a look, from the changes between neighbours: a trend adds nothing."""
    changes = np.diff(values)
    if not len(changes):
        return 0.0
    return 1.4826 * float(np.median(np.abs(changes - np.median(changes)))) / float(np.sqrt(2.0))
