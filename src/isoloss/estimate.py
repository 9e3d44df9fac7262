"""A measured number and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isoloss.shown import Shown, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Shown):
    """What every measurement returns.

    Attributes:
        value: the estimate; NaN where nothing could be scored.
        stderr: one standard error in the same unit; None where it is unknown (one block only).
        n: independent units behind the value (documents, items, probe vectors).
    """

    value: float
    stderr: float | None
    n: int

    def shown_facts(self) -> list[tuple[str, object]]:
        """The value with its error, on one line."""
        return [("value", told(self))]


def mean(values: ArrayLike) -> Estimate:
    """Mean of independent values with its standard error (n - 1 in the denominator).

    >>> mean([0.0, 1.0, 1.0, 0.0])
    Estimate(value=0.5, stderr=0.28867513459481287, n=4)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return Estimate(value=float("nan"), stderr=None, n=0)
    stderr = float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else None
    return Estimate(value=float(x.mean()), stderr=stderr, n=int(x.size))


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Ratio of sums over independent blocks, such as nats per token over documents.

    The standard error is the linearised (delta-method) one: the spread of
    ``numerator - ratio * denominator`` between blocks over the total denominator. It is
    None for a single block, and its bias is of order 1/n.

    Args:
        numerators: one sum a block.
        denominators: one count a block, of the same length, with a positive total.

    Returns:
        The ratio in units of numerator per denominator, with n the number of blocks.

    Reference:
        Cochran, Sampling Techniques (1977), eq. 6.13.

    >>> ratio([2.0, 4.0], [1, 2])
    Estimate(value=2.0, stderr=0.0, n=2)
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    n, total = top.size, float(bottom.sum())
    if n == 0 or total == 0:
        return Estimate(value=float("nan"), stderr=None, n=0)
    value = float(top.sum()) / total
    if n == 1:
        return Estimate(value=value, stderr=None, n=1)
    residual = top - value * bottom
    return Estimate(
        value=value, stderr=float(np.sqrt(n / (n - 1) * (residual**2).sum()) / total), n=n
    )
