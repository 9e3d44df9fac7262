"""How small a p-value must be so that few of all discoveries are false."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isoloss.laws.correlated import Floats

_BINS, _DECADES = 1 << 16, 40.0


def largest_p(p_values: ArrayLike, level: float) -> float:
    """Largest p-value that is a discovery; -1 where none is.

    Holds the expected share of false ones among the discoveries at ``level``, for independent and
    for positively dependent tests. NaN counts as no test.

    Reference:
        Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57, 289.

    >>> largest_p([0.001, 0.02, 0.03, 0.9], level=0.05)
    0.03
    """
    known = np.asarray(p_values, dtype=np.float64)
    known = np.sort(known[~np.isnan(known)])
    passes = np.flatnonzero(known <= level * np.arange(1, len(known) + 1) / max(len(known), 1))
    return float(known[passes[-1]]) if len(passes) else -1.0


class PValueCounts:
    """The same for more p-values than memory holds, from their counts in narrow bins.

    Bins are 1.4 thousandths of a factor wide. The answer is the upper end of a bin, never above
    the exact one's bin: at most that much is lost, and nothing is called that should not be.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, dtype=np.int64)

    def add(self, p_values: Floats) -> None:
        """Count some p-values; NaN is left out."""
        known = p_values[~np.isnan(p_values)]
        with np.errstate(divide="ignore"):
            place = -np.log10(known) * (_BINS / _DECADES)
        index = np.minimum(place, _BINS).astype(np.int64)
        self._counts += np.bincount(index, minlength=_BINS + 1)

    def largest_p(self, level: float) -> float:
        """Largest p-value that is a discovery; -1 where none is."""
        total = int(self._counts.sum())
        # from the smallest p-values on: so many are at most the upper end of each bin
        at_most = np.cumsum(self._counts[::-1])[::-1]
        upper = 10.0 ** (-np.arange(_BINS + 1) * (_DECADES / _BINS))
        passes = np.flatnonzero((upper <= level * at_most / max(total, 1)) & (self._counts > 0))
        return float(upper[passes[0]]) if len(passes) else -1.0
