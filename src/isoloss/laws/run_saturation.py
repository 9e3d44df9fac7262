"""Has one training run stopped improving, or is it getting worse? Its turning point, if any.

No form of the loss curve is assumed but that it falls, or falls and then rises. Errors are
first-order autoregressive. In a series of checkpoints they are what a flexible curve leaves. A
log of many steps is averaged in blocks, whose errors are at least as large as the loss typically
moves from one block to the next, and as correlated as steps and blocks show them to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from isoloss.errors import BadData
from isoloss.laws.correlated import (
    Floats,
    Interval,
    RunErrors,
    combination_stderr,
    draw_errors,
)
from isoloss.laws.run_saturation_points import LOG_LENGTH, Points, Series, points_of, read_series
from isoloss.laws.run_saturation_shape import (
    falling_curve,
    shape_of,
    shapes_of,
    turning_curve,
)
from isoloss.shown import Shown

__all__ = ["LOG_LENGTH", "Saturation", "judge", "saturation"]

FEWEST = 10  # blocks or checkpoints after the start
WINDOW = 0.1  # share of the blocks averaged for the end, for the turning point, and before the end


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Saturation(Shown):
    """Whether one run's loss turned, where, and how it ends.

    Attributes:
        verdict: "saturated", "still improving", "flat" or "undetermined".
        reason: in one sentence.
        onset_tokens: where the loss turned; None unless saturated.
        onset_low: the 95% confidence set of the turning point, in tokens; None likewise.
        onset_high: its upper end.
        lowest_loss: mean loss about the turning point, in nats per token.
        final_loss: mean loss at the end.
        rise: ``final_loss`` minus ``lowest_loss``, corrected for the choice of the lowest, with
            its interval.
        change: mean loss of the last tenth minus that of the tenth before, with its interval.
        p_value: of a curve that only falls, against one that turns.
        smallest_p: the smallest the draws can reach.
        errors: of the blocks.
        blocks: number of blocks.
        n: points used.
        left_out: points left out: before the start, unknown, or written again after a restart.
        notes: what the reader should know of the table, in words.
    """

    verdict: str
    reason: str
    onset_tokens: float | None
    onset_low: float | None
    onset_high: float | None
    lowest_loss: float
    final_loss: float
    rise: Interval
    change: Interval
    p_value: float
    smallest_p: float
    errors: RunErrors
    blocks: int
    n: int
    left_out: int
    notes: tuple[str, ...] = ()


def saturation(
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    start: float = 0.1,
    margin: float = 0.01,
    alpha: float = 0.05,
    draws: int = 999,
    seed: int = 0,
) -> Saturation:
    """Did the loss of one run turn and rise for good?

    *saturated*: a curve that falls and then rises explains more than one that only falls
    (p <= ``alpha``, by simulation of runs that fall as this one does and then stay flat), the
    interval of the rise lies above zero and not wholly within ``margin``. *still improving*:
    not so, and the last tenth of training lies surely below the tenth before. *flat*: neither,
    and both the rise and the change are surely within the margin. *undetermined*: all else.
    Steps are cut off at five robust standard deviations within their block, so that a spike of
    a few steps moves nothing. A series of fewer than 384 points is taken as checkpoints: their
    errors may be correlated, so that a turn must be larger to be seen.

    Cost: a quarter of a second of one core for 143,000 steps. False alarms on ends that are flat,
    in simulations: 0% to 2% for 40 checkpoints with correlations of 0 and .5 between neighbours,
    6% at .9; at most 5% for logs of 1,000 to 143,000 steps whose noise is resampled from real
    ones (:mod:`isoloss.laws.saturation_calibration`). Give a log unsmoothed.

    Rows may stand in any order; rows that a restart wrote again replace those of the abandoned
    end, and ``notes`` says so, as it does of a hole in the log and of an end in NaN.

    Args:
        tokens: (n,) tokens seen, in any order.
        loss: (n,) nats per token, held-out or of training.
        start: share of the tokens left out at the beginning.
        margin: a rise within it counts as none, in nats.
        alpha: level of the test; intervals are of 1 - alpha.
        draws: simulated runs.
        seed: of the draws.

    Returns:
        The verdict with the turning point; "undetermined" where fewer than ten blocks or
        checkpoints are left.

    Raises:
        BadRequest: two columns of different lengths.
        BadData: a loss of zero or less, or two losses at one number of tokens which no restart
            explains.
    """
    if (np.asarray(loss) <= 0).any():
        raise BadData(
            "a loss in nats per token is positive",
            asked=f"{int((np.asarray(loss) <= 0).sum())} of {np.size(loss)} losses are zero or "
            "negative",
            remedy="give the loss itself, not its logarithm or its change",
        )
    series = read_series(tokens, loss, start)
    points = points_of(series) if len(series.loss) >= FEWEST else None
    return judge(series, points, margin=margin, alpha=alpha, draws=draws, seed=seed)


def judge(
    series: Series,
    points: Points | None,
    *,
    margin: float,
    alpha: float,
    draws: int,
    seed: int,
    what: str = "the loss",
) -> Saturation:
    """The verdict on points whose errors are known.

    Args:
        series: what was read.
        points: its checkpoints or blocks; None where they are too few.
        margin: a rise within it counts as none.
        alpha: level of the test.
        draws: simulated runs.
        seed: of the draws.
        what: is tested, for the words of the reason.
    """
    if points is None or len(points.loss) < FEWEST:
        return _too_few(series)
    y, errors = points.loss, points.errors
    turn = _turn(y, errors, alpha, draws, np.random.default_rng(seed))
    change = _recent_change(y, errors, alpha)
    verdict, reason = _verdict(turn, change, margin, alpha, what)
    edges = _edges(points.tokens)
    found = verdict == "saturated"
    return Saturation(
        verdict=verdict,
        reason=reason,
        onset_tokens=float(edges[turn.split]) if found else None,
        onset_low=float(edges[turn.first]) if found else None,
        onset_high=float(edges[turn.last]) if found else None,
        lowest_loss=_ends(y, turn.split).low,
        final_loss=_ends(y, turn.split).final,
        rise=turn.rise,
        change=change,
        p_value=turn.p_value,
        smallest_p=1.0 / (draws + 1.0),
        errors=errors,
        blocks=len(y),
        n=len(series.loss),
        left_out=series.left_out,
        notes=series.notes,
    )


class _Turn(NamedTuple):
    split: int  # blocks before the turning point
    first: int  # the confidence set of the same
    last: int
    p_value: float
    rise: Interval


class _Ends(NamedTuple):
    low: float
    final: float


def _edges(tokens: Floats) -> Floats:
    """Tokens at each split: before the first block, between blocks, after the last, (n + 1,)."""
    return np.concatenate([tokens[:1], (tokens[:-1] + tokens[1:]) / 2, tokens[-1:]])


def _ends(y: Floats, split: int) -> _Ends:
    """Mean loss of the window about the turning point and of the last window."""
    width = max(1, round(WINDOW * len(y)))
    first = min(max(split - (width + 1) // 2, 0), len(y) - width)
    return _Ends(float(y[first : first + width].mean()), float(y[-width:].mean()))


def _turn(
    y: Floats, errors: RunErrors, alpha: float, draws: int, rng: np.random.Generator
) -> _Turn:
    """The best turning point, the test that there is one, and the rise after it."""
    shape = shape_of(y)
    curve = turning_curve(y, shape.split)
    # each draw has its own sigma: the one estimated is itself uncertain
    sigma = errors.sigma * np.sqrt(errors.dof / rng.chisquare(errors.dof, size=(draws, 1)))
    noise = sigma * draw_errors((draws, len(y)), errors.rho, rng)
    null = falling_curve(y)
    gains = shapes_of(null + noise).gain
    # a gain of rounding size is none
    floor = 1e-12 * float(((y - y.mean()) ** 2).sum())
    p_value = (1.0 + float((gains >= shape.gain - floor).sum())) / (draws + 1.0)
    ends = _ends(y, shape.split)
    rise, truth = ends.final - ends.low, _rise_of(curve)
    drawn = shapes_of(curve + noise)
    excess = drawn.turning[:, shape.split] - drawn.turning.min(axis=1)
    again = [_ends(row, int(split)) for row, split in zip(curve + noise, drawn.split, strict=True)]
    misses = np.array([end.final - end.low - truth for end in again])
    low, middle, high = np.quantile(misses, [alpha / 2, 0.5, 1 - alpha / 2])
    allowed = shape.turning - shape.turning.min() <= np.quantile(excess, 1 - alpha) + floor
    members = np.flatnonzero(allowed)
    return _Turn(
        split=shape.split,
        first=int(members[0]),
        last=int(members[-1]),
        p_value=p_value,
        rise=Interval(rise - float(middle), rise - float(high), rise - float(low)),
    )


def _rise_of(curve: Floats) -> float:
    """The rise of a curve without noise."""
    ends = _ends(curve, shape_of(curve).split)
    return ends.final - ends.low


def _recent_change(y: Floats, errors: RunErrors, alpha: float) -> Interval:
    """Mean of the last fifth minus that of the fifth before, with its interval."""
    width = max(3, round(WINDOW * len(y)))
    weights = np.zeros((1, len(y)))
    weights[0, -width:] = 1.0 / width
    weights[0, -2 * width : -width] = -1.0 / width
    value = float(weights[0] @ y)
    stderr = combination_stderr(weights, errors, np.array([0, len(y)], dtype=np.int64))[0]
    reach = float(student.ppf(1.0 - alpha / 2, errors.dof) * stderr)
    return Interval(value, value - reach, value + reach)


def _verdict(
    turn: _Turn, change: Interval, margin: float, alpha: float, what: str
) -> tuple[str, str]:
    """The verdict and its reason, the first rule that applies."""
    told = f"{turn.rise.value:+.4f} nats ({turn.rise.low:+.4f} to {turn.rise.high:+.4f})"
    if turn.p_value <= alpha and turn.rise.low > 0 and turn.rise.high > margin:
        return "saturated", f"{what} rises by {told} after its lowest, p = {turn.p_value:.2g}"
    if change.high < 0:
        return "still improving", (
            f"the last tenth of training lies {change.value:+.4f} nats ({change.low:+.4f} to "
            f"{change.high:+.4f}) from the tenth before"
        )
    if turn.rise.inside(margin) and change.inside(margin):
        return "flat", f"the end lies {told} from the lowest loss, within {margin:g} nats"
    return "undetermined", (
        f"the end lies {told} from the lowest loss, and the last tenth of training "
        f"{change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f}) from the tenth before"
    )


def _too_few(points: Series) -> Saturation:
    """What can be said of a handful of checkpoints: nothing."""
    unknown = Interval(float("nan"), float("nan"), float("nan"))
    return Saturation(
        verdict="undetermined",
        reason=f"{len(points.loss)} checkpoints after the start; {FEWEST} are needed",
        onset_tokens=None,
        onset_low=None,
        onset_high=None,
        lowest_loss=float(points.loss.min()) if len(points.loss) else float("nan"),
        final_loss=float(points.loss[-1]) if len(points.loss) else float("nan"),
        rise=unknown,
        change=unknown,
        p_value=float("nan"),
        smallest_p=1.0,
        errors=RunErrors(float("nan"), 0.0, 0.0),
        blocks=len(points.loss),
        n=len(points.loss),
        left_out=points.left_out,
        notes=points.notes,
    )
