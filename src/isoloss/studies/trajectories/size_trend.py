"""Do larger models find a set of texts less likely? Inverse scaling with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from isoloss.errors import BadData

TrendVerdict = Literal["inverse", "normal", "undetermined"]

FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeTrend:
    """How the final loss of a set of texts changes with size.

    Attributes:
        verdict: ``inverse`` where the interval lies above 0, ``normal`` below.
        slope: nats per token for ten times the parameters; NaN where there is none.
        low: lower end of its interval.
        high: upper end.
        dof: runs - 2.
        runs: judged.
        left_out: runs that took part in writing the texts.
        reason: of the verdict.
    """

    verdict: TrendVerdict
    slope: float
    low: float
    high: float
    dof: int
    runs: int
    left_out: int
    reason: str


def size_trend(
    params: ArrayLike,
    loss: ArrayLike,
    took_part: Sequence[bool],
    *,
    confidence: float = 0.95,
) -> SizeTrend:
    """Least squares of the loss on the logarithm of the size, a run each.

    A model that wrote a text likes or dislikes it by construction: the pair is left out.

    Args:
        params: (runs,) of each model.
        loss: (runs,) of the set at the end of training, nats per token.
        took_part: (runs,) whether the run wrote the texts.
        confidence: of the two-sided interval, Student's t with runs - 2 degrees of freedom.

    Raises:
        BadData: unequal lengths, sizes that are not above 0, or a loss that is not finite.

    Reference:
        Xia et al. (2023), arXiv:2212.09803, section 4, which shows the curves without intervals.
    """
    sizes, y = (np.asarray(v, dtype=np.float64) for v in (params, loss))
    part = np.asarray(took_part, dtype=bool)
    fine = sizes.ndim == 1 and sizes.shape == y.shape == part.shape
    if not fine or not np.isfinite(y).all() or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise BadData(
            "a trend over sizes needs one size and one loss for each run.",
            asked=f"shapes {sizes.shape}, {y.shape}, {part.shape}",
            nearest="three columns of one length, sizes above 0, losses finite",
            remedy="leave out the runs that were not measured",
        )
    x, y = np.log10(sizes[~part]), y[~part]
    left_out = int(part.sum())
    if len(x) < FEWEST or np.ptp(x) == 0:
        why = f"{len(x)} runs of {len(np.unique(x))} sizes that wrote none of the texts"
        nan = float("nan")
        return SizeTrend(
            verdict="undetermined", slope=nan, low=nan, high=nan, dof=max(0, len(x) - 2),
            runs=len(x), left_out=left_out, reason=why,
        )  # fmt: skip
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    residual = y - y.mean() - slope * away
    dof = len(x) - 2
    stderr = float(np.sqrt(residual @ residual / dof / (away @ away)))
    reach = float(student.ppf((1.0 + confidence) / 2.0, dof)) * stderr
    low, high = slope - reach, slope + reach
    verdict: TrendVerdict = "inverse" if low > 0 else "normal" if high < 0 else "undetermined"
    return SizeTrend(
        verdict=verdict, slope=slope, low=low, high=high, dof=dof, runs=len(x), left_out=left_out,
        reason=f"{slope:+.3g} [{low:+.3g}, {high:+.3g}] nats for ten times the size",
    )  # fmt: skip
