"""Do the curves of all runs fall on one function of x: loss, bits per byte, compute, tokens?

Every run is held against the smooth curve of the other runs, at equal x and only where their
ranges overlap. That a task is "explained" by x is a statement of equivalence, with a margin;
and it is worth saying only where the other axes explain it less well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student

from isoloss.laws.correlated import (
    Floats,
    Interval,
    RunErrors,
    cautious_errors,
    combination_stderr,
    mean_interval,
)
from isoloss.laws.shared_curve_axis import SharedCurve, fit_curve, run_means
from isoloss.laws.shared_curve_permutation import FitTest, SizeTest, fit_test, size_test
from isoloss.laws.shared_curve_points import Points, read_points
from isoloss.shown import Shown

SIGNAL = 3.0  # standard errors that the shared curve must span
CAUTION = 1.0  # standard errors added to the correlation of errors
LEVEL = 0.05  # of the size test and of the intervals that hold x against its controls


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOffset:
    """One run against the curve of the others.

    Attributes:
        run: its label.
        points: how many of its points lie in the overlap.
        offset: mean distance from the others' curve at equal x, in the score's unit, with the
            interval asked for; NaN without overlap.
        far: the same with an interval that holds for all runs at once (Bonferroni).
    """

    run: object
    points: int
    offset: Interval
    far: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlGap:
    """Another axis held against x on the points that lie in the overlap of both.

    Attributes:
        name: of the control.
        scale: "linear" or "log", whichever predicts better.
        error: its mean absolute error on runs left out.
        error_of_x: that of x on the same points.
        gap: ``error - error_of_x``, mean over runs, with its 95% interval over runs.
        left: share of the control's squared error that x leaves, both means over runs.
        spare: ``most_left`` times the control's squared error minus that of x, mean over runs,
            with its 95% interval over runs: above zero where x leaves surely less.
        unexplained: share of the score's variance that the control's curve leaves, in sample.
    """

    name: str
    scale: str
    error: float
    error_of_x: float
    gap: Interval
    left: float
    spare: Interval
    unexplained: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Collapse(Shown):
    """Whether runs share one curve, and how it is known.

    Attributes:
        verdict: "collapses", "differs", "no signal" or "undetermined".
        reason: in one sentence.
        unexplained: share of the score's variance that the shared curve leaves, in sample.
        error: mean absolute error on runs left out, mean over runs, in the score's unit.
        span: range of the shared curve.
        noise: standard error of one score: the median given or that seen within runs, the
            larger of the two.
        offsets: a run each.
        controls: an axis each.
        size: slope of the offsets on log size; None where no sizes were given.
        fit: lack of fit of the shared curve.
        errors: size and correlation of the errors within runs.
        scale: of x, "linear" or "log".
        knots: of the curve.
        spearman: rank correlation of x and score over all points.
        pearson: correlation of the same.
        margin: offsets within it count as none.
        n: points used.
        runs: runs used.
        left_out: points left out: unknown values and exact repetitions.
    """

    verdict: str
    reason: str
    unexplained: float
    error: float
    span: float
    noise: float
    offsets: tuple[RunOffset, ...]
    controls: tuple[ControlGap, ...]
    size: SizeTest | None
    fit: FitTest
    errors: RunErrors
    scale: str
    knots: int
    spearman: float
    pearson: float
    margin: float
    n: int
    runs: int
    left_out: int


def collapse(
    x: ArrayLike,
    score: ArrayLike,
    run: ArrayLike,
    size: ArrayLike | None = None,
    *,
    controls: Mapping[str, ArrayLike] | None = None,
    stderr: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    margin: float = 0.02,
    confidence: float = 0.90,
    most_left: float = 0.5,
    draws: int = 1999,
    seed: int = 0,
) -> Collapse:
    """Do the scores of all runs fall on one smooth function of x?

    *collapses*: every run's offset from the others' curve at equal x has its interval inside
    plus or minus ``margin`` (so that the claim is wrong in at most 5% of families with one run
    beyond it, at the default confidence), and x beats every control at predicting runs left
    out: the 95% intervals over runs say that its error is the smaller one, and that of the
    control's squared error it leaves less than ``most_left``. The second asks for a difference
    that matters, since eight runs show one of a tenth of a point. *differs*: a run's
    interval, widened for the number of runs, lies beyond the margin, or offsets go with size
    (p <= .05) and by more than the margin from the smallest to the largest. *no signal*: the
    shared curve spans less than three standard errors of a score. *undetermined*: all else.

    Errors within a run are taken as first-order autoregressive in the order of the rows, runs
    as independent. Cost: about 0.1 s for 8 runs of 27 points and one control.

    Args:
        x: (n,) the axis, such as loss in nats per token; of any monotone scale.
        score: (n,) a fraction or any other unit.
        run: (n,) labels; rows of a run stand in the order of training.
        size: (n,) such as parameters, the same within a run; None leaves the size test out.
        controls: other axes by name, (n,) each, such as FLOPs.
        stderr: standard error of the scores, one or (n,); None takes it from the scatter
            within runs.
        reference: (n,) whether the point's run helps to draw the curve; None for all. Other
            runs are held against it alone.
        margin: offsets within it count as none, in the score's unit.
        confidence: of the offsets' intervals.
        most_left: x beats a control where it leaves less than this share of its squared error.
        draws: permutations, shifts and resamples.
        seed: of all draws.

    Returns:
        The verdict with everything it rests on.
    """
    points = read_points(x, score, run, size, controls or {}, stderr, reference)
    rng = np.random.default_rng(seed)
    curve = fit_curve(points.x, points.score, points.runs)
    dummies = np.equal(points.runs.code[:, None], np.arange(len(points.runs.names)))
    errors = cautious_errors(
        points.score,
        np.column_stack([curve.basis, dummies]),
        points.runs.bounds,
        standard_errors=CAUTION,
    )
    given = np.nan if points.stderr is None else np.median(points.stderr)
    noise = float(np.fmax(errors.sigma, given))
    if not np.isfinite(errors.sigma) or errors.dof < 1:
        # one point a run: the scatter within runs is unknown, the scores' own error is not
        errors = RunErrors(noise, 0.0, float("inf"))
    offsets = _offsets(points, curve, errors, confidence)
    gaps = tuple(
        _control(name, axis, points, curve, most_left, draws, rng)
        for name, axis in points.controls.items()
    )
    size_result = _size(points, offsets, draws, rng)
    spread = float(((points.score - points.score.mean()) ** 2).sum())
    span = float(np.ptp(curve.fitted))
    level = bool(np.ptp(points.score) == 0.0)
    signal = not (level or span <= SIGNAL * noise)
    verdict, reason = _verdict(offsets, gaps, size_result, signal, margin)
    return Collapse(
        verdict=verdict,
        reason=reason,
        unexplained=_share(points.score - curve.fitted, spread),
        error=_mean_known(run_means(np.abs(curve.missed), points.runs)),
        span=span,
        noise=noise,
        offsets=offsets,
        controls=gaps,
        size=size_result,
        fit=fit_test(points.score, points.x, curve, points.runs, draws=draws, rng=rng),
        errors=errors,
        scale=curve.scale,
        knots=curve.knots,
        spearman=float(spearmanr(points.x, points.score).statistic) if not level else float("nan"),
        pearson=float(pearsonr(points.x, points.score).statistic) if not level else float("nan"),
        margin=margin,
        n=len(points.x),
        runs=len(points.runs.names),
        left_out=points.left_out,
    )


def _offsets(
    points: Points, curve: SharedCurve, errors: RunErrors, confidence: float
) -> tuple[RunOffset, ...]:
    """Each run's mean distance from the others' curve with its intervals."""
    runs = points.runs
    count = len(runs.names)
    means = run_means(curve.missed, runs)
    stderr = combination_stderr(curve.weights, errors, runs.bounds)
    single, joint = (
        float(student.ppf(1.0 - (1.0 - confidence) / share, errors.dof)) for share in (2, 2 * count)
    )
    inside = np.bincount(runs.code[np.isfinite(curve.missed)], minlength=count)
    return tuple(
        RunOffset(
            run=name,
            points=int(inside[i]),
            offset=Interval(
                float(means[i]),
                float(means[i] - single * stderr[i]),
                float(means[i] + single * stderr[i]),
            ),
            far=Interval(
                float(means[i]),
                float(means[i] - joint * stderr[i]),
                float(means[i] + joint * stderr[i]),
            ),
        )
        for i, name in enumerate(runs.names)
    )


def _control(
    name: str,
    axis: Floats,
    points: Points,
    curve: SharedCurve,
    most_left: float,
    draws: int,
    rng: np.random.Generator,
) -> ControlGap:
    """One other axis against x on the points that both can predict."""
    other = fit_curve(axis, points.score, points.runs)
    both = np.where(np.isfinite(curve.missed) & np.isfinite(other.missed), 1.0, np.nan)
    own = run_means(np.abs(curve.missed) * both, points.runs)
    theirs = run_means(np.abs(other.missed) * both, points.runs)
    known = np.isfinite(own)
    gap = mean_interval(theirs[known] - own[known], confidence=1.0 - LEVEL, draws=draws, rng=rng)
    squares = run_means((curve.missed * both) ** 2, points.runs)[known]
    other_squares = run_means((other.missed * both) ** 2, points.runs)[known]
    spare = mean_interval(
        most_left * other_squares - squares, confidence=1.0 - LEVEL, draws=draws, rng=rng
    )
    whole = float(other_squares.sum())
    spread = float(((points.score - points.score.mean()) ** 2).sum())
    return ControlGap(
        name=name,
        scale=other.scale,
        error=_mean_known(theirs),
        error_of_x=_mean_known(own),
        gap=gap,
        left=float(squares.sum()) / whole if whole > 0 else float("nan"),
        spare=spare,
        unexplained=_share(points.score - other.fitted, spread),
    )


def _size(
    points: Points, offsets: tuple[RunOffset, ...], draws: int, rng: np.random.Generator
) -> SizeTest | None:
    """The slope of offsets on log size over the runs that overlap with others."""
    if points.size is None:
        return None
    values = np.array([o.offset.value for o in offsets])
    known = np.isfinite(values)
    if not known.any():
        return None
    # against the curve of the others a run stands runs/(runs - 1) times as far off as
    # against the mean of all
    shrink = (known.sum() - 1.0) / max(float(known.sum()), 1.0)
    return size_test(shrink * values[known], points.size[known], draws=draws, rng=rng)


class _Finding(NamedTuple):
    verdict: str
    reason: str


def _verdict(
    offsets: tuple[RunOffset, ...],
    gaps: tuple[ControlGap, ...],
    size: SizeTest | None,
    signal: bool,
    margin: float,
) -> _Finding:
    """The verdict and its reason, the first rule that applies."""
    if not any(o.points for o in offsets):
        return _Finding("undetermined", "no two runs share a range of x")
    if not signal:
        return _Finding(
            "no signal", f"the shared curve spans less than {SIGNAL:g} standard errors of a score"
        )
    apart = [o for o in offsets if o.far.low > margin or o.far.high < -margin]
    if apart:
        worst = max(apart, key=lambda o: abs(o.offset.value))
        return _Finding(
            "differs",
            f"at equal x run {worst.run} lies {worst.offset.value:+.3g} from the others, beyond "
            f"the margin of {margin:g}",
        )
    if size is not None and size.p_value <= LEVEL and size.reach > margin:
        return _Finding(
            "differs",
            f"offsets at equal x go with size: {size.slope:+.3g} for a tenfold size, p = "
            f"{size.p_value:.2g}",
        )
    open_runs = [o for o in offsets if not o.offset.inside(margin)]
    if open_runs:
        unmet = [o.run for o in open_runs if o.points == 0]
        what = (
            f"runs {', '.join(map(str, unmet))} share no range of x with the others"
            if unmet
            else f"the offset of {len(open_runs)} of {len(offsets)} runs is not known to lie "
            f"within {margin:g}"
        )
        return _Finding("undetermined", what)
    unbeaten = [g for g in gaps if not (g.gap.low > 0.0 and g.spare.low > 0.0)]
    if unbeaten:
        names = ", ".join(g.name for g in unbeaten)
        return _Finding(
            "undetermined",
            f"on runs left out x is not surely better than {names} by a difference that matters",
        )
    names = ", ".join(g.name for g in gaps)
    beside = f", and x beats {names}" if gaps else "; no control was given"
    return _Finding(
        "collapses", f"every run lies within {margin:g} of the others at equal x{beside}"
    )


def _share(residual: Floats, spread: float) -> float:
    return float((residual**2).sum()) / spread if spread > 0 else float("nan")


def _mean_known(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
