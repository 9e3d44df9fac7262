"""Does a model stay with a kind of text, or leave it, over the last part of its training?

Along one run the loss of a set of texts is regressed on the overall loss. Training lowers the
overall loss: a slope of 0 and more says that the set's loss stays or falls with it, a slope below
0 that the model unlearns the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from isoloss.errors import BadData
from isoloss.laws.correlated import Floats, cautious_errors, combination_stderr

HaltVerdict = Literal["halts", "leaves", "undetermined"]

LAST_SHARE = 1 / 3
FEWEST = 5
"""Points that leave three degrees of freedom beside a straight line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """How the loss of a set moves with the overall loss late in one run.

    Attributes:
        verdict: ``halts`` where the interval of the slope lies at or above ``-margin``,
            ``leaves`` where it lies below 0, else ``undetermined``.
        slope: nats of the set for a nat of the overall loss; NaN where there is none.
        low: lower end of its interval.
        high: upper end.
        dof: degrees of freedom of the interval.
        rho: correlation of neighbouring checkpoints' errors that was reckoned with.
        points: checkpoints used.
        reason: of the verdict.
    """

    verdict: HaltVerdict
    slope: float
    low: float
    high: float
    dof: float
    rho: float
    points: int
    reason: str


def halts(
    loss: ArrayLike,
    set_loss: ArrayLike,
    tokens: ArrayLike,
    *,
    last: float = LAST_SHARE,
    margin: float = 0.0,
    confidence: float = 0.95,
) -> Halt:
    """Whether a run stays with a set of texts over the last part of its training.

    Errors of neighbouring checkpoints are correlated (AR(1)); the correlation is taken one of
    its standard errors larger than estimated, since few points tell little of it. The overall
    loss is taken as exact: of a small held-out text its own error pulls the slope towards 0.

    Args:
        loss: (checkpoints,) overall held-out loss in nats per token, in the order of training.
        set_loss: (checkpoints,) loss of the set in nats per token.
        tokens: (checkpoints,) read so far, rising.
        last: share of the training that counts.
        margin: a slope above ``-margin`` is no leaving that matters.
        confidence: of the two-sided interval, Student's t.

    Raises:
        BadData: unequal lengths, a value that is not finite, or tokens that do not rise.

    Reference:
        Xia et al. (2023), arXiv:2212.09803, section 4.3, which reads this off the curves.
    """
    x, y, seen = (np.asarray(v, dtype=np.float64) for v in (loss, set_loss, tokens))
    _check(x, y, seen)
    kept = seen >= (1.0 - last) * seen.max(initial=0.0)
    x, y = x[kept], y[kept]
    if len(x) < FEWEST:
        return _nothing(len(x), f"{len(x)} checkpoints in the last {last:.0%} of training")
    if np.ptp(x) <= 1e-9 * np.abs(x).max():
        return _nothing(len(x), "the overall loss does not move")
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    bounds = np.array([0, len(x)])
    errors = cautious_errors(y, design, bounds, standard_errors=1.0)
    weights = design[:, 1] / (design[:, 1] @ design[:, 1])
    slope = float(weights @ y)
    stderr = float(combination_stderr(weights[None], errors, bounds)[0])
    # the line takes its share of what a correlated series tells: never more than n - 2
    dof = max(1.0, min(errors.dof, len(x) - 2.0))
    reach = float(student.ppf((1.0 + confidence) / 2.0, dof)) * stderr
    low, high = slope - reach, slope + reach
    verdict = _verdict(low, high, margin)
    return Halt(
        verdict=verdict, slope=slope, low=low, high=high, dof=dof, rho=errors.rho, points=len(x),
        reason=f"slope {slope:+.3g} [{low:+.3g}, {high:+.3g}] nats a nat",
    )  # fmt: skip


def _verdict(low: float, high: float, margin: float) -> HaltVerdict:
    if high < 0:
        return "leaves"
    return "halts" if low >= -margin else "undetermined"


def _nothing(points: int, reason: str) -> Halt:
    nan = float("nan")
    return Halt(
        verdict="undetermined", slope=nan, low=nan, high=nan, dof=0.0, rho=nan, points=points,
        reason=reason,
    )  # fmt: skip


def _check(x: Floats, y: Floats, tokens: NDArray[np.float64]) -> None:
    alike = x.ndim == 1 and x.shape == y.shape == tokens.shape
    if alike and all(np.isfinite(v).all() for v in (x, y, tokens)) and (np.diff(tokens) > 0).all():
        return
    unknown = sum(int((~np.isfinite(v)).sum()) for v in (x, y, tokens))
    raise BadData(
        "a run needs both losses at every checkpoint, in the order of training.",
        asked=f"shapes {x.shape}, {y.shape}, {tokens.shape}, {unknown} values not finite",
        nearest="three columns of one length, tokens rising",
        remedy="leave out the checkpoints that were not measured, and sort by tokens",
    )
