"""Curves that fall, and curves that fall and then rise: least squares under an order alone.

No form is assumed: the pool-adjacent-violators algorithm finds the best falling series for
every beginning of a series, and the best rising one for every ending, in linear time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isoloss.laws.correlated import Floats, Ints

_SERIES = 256  # at a time: their sums stay in the processor's cache


class Shape(NamedTuple):
    """Best falling curve, and best falling-then-rising curve for every turning point.

    Attributes:
        falling: sum of squares left by the best falling curve.
        turning: (n + 1,) sum of squares left by a curve that falls over the first s points and
            rises over the others, for s = 0..n; the last entry equals ``falling``.
    """

    falling: float
    turning: Floats

    @property
    def split(self) -> int:
        """Points before the best turn; n where the best curve only falls."""
        # the last of equals: a turn is claimed only where it gains something
        return len(self.turning) - 1 - int(np.argmin(self.turning[::-1]))

    @property
    def gain(self) -> float:
        """Sum of squares that the best turn explains beyond the best falling curve."""
        return self.falling - float(self.turning.min())


def shape_of(y: Floats) -> Shape:
    """Sums of squares left by falling and by turning curves, for a series (n,)."""
    values = y.tolist()
    before = _rising_losses([-v for v in values])
    after = _rising_losses([-v for v in reversed(values)])
    # read backwards, a rise is a fall
    turning = np.array(before) + np.array(after[::-1])
    return Shape(falling=before[-1], turning=turning)


class Shapes(NamedTuple):
    """The same for many series of one length, in this order.

    Attributes:
        split: points before the best turn, (series,).
        gain: sum of squares the best turn explains, (series,).
        turning: (series, n + 1).
    """

    split: Ints
    gain: Floats
    turning: Floats


def shapes_of(rows: Floats) -> Shapes:
    """Shapes of many noisy series (series, n) at once, some ten times as fast as one by one."""
    if (rows == rows[0]).all():
        # without noise many splits are equally good, and rounding must not choose among them
        one = shape_of(rows[0])
        turning = np.broadcast_to(one.turning, (len(rows), len(one.turning)))
    else:
        before, after = _all_rising_losses(-rows), _all_rising_losses(-rows[:, ::-1])
        turning = before + after[:, ::-1]
    split = turning.shape[1] - 1 - np.argmin(turning[:, ::-1], axis=1)
    return Shapes(split=split, gain=turning[:, -1] - turning.min(axis=1), turning=turning)


def falling_curve(y: Floats) -> Floats:
    """The best falling (nowhere rising) curve of a series (n,), by least squares."""
    levels: list[float] = []
    sizes: list[int] = []
    for value in y.tolist():
        level, size = value, 1
        while levels and levels[-1] < level:
            earlier, count = levels.pop(), sizes.pop()
            level = (level * size + earlier * count) / (size + count)
            size += count
        levels.append(level)
        sizes.append(size)
    return np.repeat(np.array(levels, dtype=np.float64), np.array(sizes, dtype=np.int64))


def turning_curve(y: Floats, split: int) -> Floats:
    """The best curve that falls over the first ``split`` points and rises over the others."""
    rising = falling_curve(y[split:][::-1])[::-1]
    return np.concatenate([falling_curve(y[:split]), rising])


class _Pool(NamedTuple):
    level: float
    size: int
    own: float  # sum of squares left within the pool
    upto: float  # and within it and all pools before it


def _rising_losses(values: list[float]) -> list[float]:
    """Sum of squares left by the best rising curve of the first 0, 1, .. n values."""
    pools: list[_Pool] = []
    losses = [0.0]
    for value in values:
        level, size, own = value, 1, 0.0
        while pools and pools[-1].level > level:
            last = pools.pop()
            both = last.size + size
            own += last.own + (level - last.level) ** 2 * last.size * size / both
            level = (last.level * last.size + level * size) / both
            size = both
        upto = own + (pools[-1].upto if pools else 0.0)
        pools.append(_Pool(level, size, own, upto))
        losses.append(upto)
    return losses


def _all_rising_losses(values: Floats) -> Floats:
    """The same of many series (series, n), (series, n + 1).

    The last pool of a prefix begins where the mean of the points from there on is largest; what
    lies before it is the best curve of the points before it.
    """
    if len(values) > _SERIES:
        parts = [values[i : i + _SERIES] for i in range(0, len(values), _SERIES)]
        return np.concatenate([_all_rising_losses(part) for part in parts])
    series, n = values.shape
    centred = values - values.mean(axis=1, keepdims=True)
    start = np.zeros((series, 1))
    sums = np.concatenate([start, np.cumsum(centred, axis=1)], axis=1)
    squares = np.concatenate([start, np.cumsum(centred**2, axis=1)], axis=1)
    losses = np.zeros((series, n + 1))
    each = np.arange(series)
    for i in range(1, n + 1):
        means = (sums[:, i, None] - sums[:, :i]) / np.arange(i, 0, -1)
        first = np.argmax(means, axis=1)
        size = i - first
        own = squares[:, i] - squares[each, first] - (sums[:, i] - sums[each, first]) ** 2 / size
        # a single point leaves nothing, exactly: equally good splits stay equal
        losses[:, i] = losses[each, first] + np.where(size > 1, np.maximum(own, 0.0), 0.0)
    return losses
