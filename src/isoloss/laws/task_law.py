"""The score of a task from a loss: the corpus's, or the gold answers' bits per byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from isoloss.laws.batched_newton import Floats, minimise
from isoloss.laws.curve_fits import Curve, CurveFits
from isoloss.laws.fit_interval import (
    BY_DEFAULT,
    Interval,
    degrees_of_freedom,
    middle_share,
    resample_runs,
    sandwich,
    t_draws,
)
from isoloss.laws.task_curves import NAMES, TaskCurve, TaskForm
from isoloss.laws.task_table import TaskRows, task_rows
from isoloss.shown import Shown

_THIN, _FINALISTS = 500, 5


class ScoreInterval(NamedTuple):
    """A predicted score: the curve itself, without the scatter of runs and items."""

    score: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TaskLaw(Shown):
    """Score as a function of loss, and how well it is known.

    Attributes:
        form: "exponential", ``1 - epsilon + k exp(-gamma L)``, or "sigmoid",
            ``b - a / (1 + exp(-k (L - L0)))``; both give an accuracy.
        parameters: by name.
        score_is: "accuracy" or "error"; ``predict`` answers in the same.
        through: what the loss is: "loss" or "gold_bits_per_byte".
        objective: sum of squared residuals.
        n: rows fitted.
        runs: training runs among them.
        ci: interval of each parameter; None where the data leave it open.
        ci_kind: "bootstrap", "delta" or "none".
        level: coverage the intervals aim at.
        unidentified: parameters the data cannot tell.
        notes: what was left out or could not be told, in words.
        scatter: standard deviation of a row about the curve, items' noise included.
        run_scatter: the part of it that the number of items does not explain; equal to
            ``scatter`` where that number is unknown.
        loss_range: losses fitted, least and most.
        fitted: inner parameters at the fit, (p,).
        sample: inner parameters under resampling, (draws, p).
        curve: the family of curves, with its units.
    """

    form: TaskForm
    parameters: Mapping[str, float]
    score_is: Literal["accuracy", "error"]
    through: str
    objective: float
    n: int
    runs: int
    ci: Mapping[str, tuple[float, float] | None]
    ci_kind: str
    level: float
    unidentified: tuple[str, ...]
    notes: tuple[str, ...]
    scatter: float
    run_scatter: float
    loss_range: tuple[float, float]
    fitted: Floats = field(repr=False)
    sample: Floats = field(repr=False)
    curve: TaskCurve = field(repr=False)

    def predict(self, loss: ArrayLike) -> Floats:
        """Score at a loss, (...) as given."""
        return np.asarray(self._scores(self.fitted[None], loss)[0])

    def draws(self, loss: ArrayLike) -> Floats:
        """Score under every draw of the parameters, (draws, ...).

        Draws of a first-order interval move the score to first order, as its variance does.
        """
        if self.ci_kind != "delta":
            return self._scores(self.sample, loss)
        at = np.asarray(loss, dtype=np.float64)
        slopes = self._slopes(at.ravel())
        moved = (self.sample - self.fitted) @ slopes.T
        return np.asarray(self.predict(at) + moved.reshape(-1, *at.shape))

    def paired_draws(self, loss: Floats, index: NDArray[np.intp]) -> Floats:
        """Score at each loss under its own draw of the parameters, (n,)."""
        theta = self.sample[index]
        if self.ci_kind == "delta":
            moved = ((theta - self.fitted) * self._slopes(loss)).sum(axis=1)
            return np.asarray(self.predict(loss) + moved)
        out = np.empty(len(loss))
        # a block of draws against its own losses: only the diagonal is wanted
        block = 256
        for i in range(0, len(loss), block):
            part = self._scores(theta[i : i + block], loss[i : i + block])
            out[i : i + block] = np.diagonal(part)
        return out

    def interval(self, loss: ArrayLike) -> ScoreInterval:
        """The curve with the interval its parameters give it; new runs scatter more."""
        low, high = middle_share(self.draws(loss), self.level)
        return ScoreInterval(score=self.predict(loss), low=low, high=high)

    def loss_at(self, score: float) -> float:
        """Loss at which the curve reaches a score; NaN where it never does."""
        target = score if self.score_is == "accuracy" else 1 - score
        return float(self.curve.loss_at(self.fitted[None], target)[0])

    def _slopes(self, loss: Floats) -> Floats:
        """Derivatives of the score by the inner parameters at the fit, (n, p)."""
        slopes = self.curve.curve(self.fitted[None], loss).jacobian[0]
        return np.asarray(slopes if self.score_is == "accuracy" else -slopes)

    def _scores(self, theta: Floats, loss: ArrayLike) -> Floats:
        at = np.asarray(loss, dtype=np.float64)
        value = self.curve.curve(theta, at.ravel()).value.reshape(-1, *at.shape)
        return np.asarray(value if self.score_is == "accuracy" else 1 - value)


def fit_task_law(
    loss: ArrayLike,
    score: ArrayLike,
    form: TaskForm = "exponential",
    *,
    score_is: Literal["accuracy", "error"] = "accuracy",
    through: str = "loss",
    run: ArrayLike | None = None,
    n_items: ArrayLike | None = None,
    interval: Interval | None = BY_DEFAULT,
    seed: int = 0,
) -> TaskLaw:
    """Fit the score of a task, or the mean score of several, as a function of a loss.

    Least squares from a grid of starts. Checkpoints of one run are correlated: name the run, so
    that whole runs are resampled.

    Args:
        loss: nats per token of a corpus, or bits per byte of the gold answers, (n,).
        score: between 0 and 1, (n,).
        form: "exponential" (Gadre et al., Eq. 5) or "sigmoid" (Bhagia et al., step 2).
        score_is: "accuracy", or "error" = 1 - accuracy.
        through: name of the loss, carried along.
        run: label of the training run of each row; None where every row is a run of its own.
        n_items: items behind each score; splits the scatter into items' noise and runs'.
        interval: kind, level and number of draws; None for none.
        seed: of the draws; the same call gives the same bits.

    Returns:
        The law.

    Raises:
        BadRequest: an unknown form, or columns of unequal length.
        BadData: a score outside 0 to 1, or an infinite loss.
        Refused: fewer rows than parameters, or one loss only.

    Reference:
        Gadre et al. (2024), arXiv:2403.08540, Eq. 5; Bhagia et al. (2024), arXiv:2412.04403,
        Eq. 2, whose a is minus ours.

    >>> import numpy as np
    >>> x = np.linspace(2.5, 5, 9)
    >>> law = fit_task_law(x, 1 - (0.85 - 2.1 * np.exp(-0.76 * x)), interval=None)
    >>> {name: round(value, 6) for name, value in law.parameters.items()}
    {'epsilon': 0.85, 'k': 2.1, 'gamma': 0.76}
    """
    rows = task_rows(loss, score, form=form, score_is=score_is, run=run, n_items=n_items)
    curve = TaskCurve(
        form=form, middle=float(rows.loss.mean()), spread=max(float(rows.loss.std()), 1e-12)
    )
    theta = _best(curve, rows.loss, rows.accuracy)
    residual = rows.accuracy - curve.curve(theta[None], rows.loss).value[0]
    degrees = max(len(residual) - len(theta), 1)
    variance = float(residual @ residual) / degrees
    names = NAMES[form]
    open_ones = _unidentified(curve, rows, theta, variance)
    notes = list(rows.notes)
    if open_ones:
        notes.append(f"the data leave open: {', '.join(open_ones)}; no interval is given for them")
    sample, kind = theta[None], "none"
    if interval is not None:
        kind = interval.resolved(len(rows.loss), rows.runs, huber=False)
        draw = _resampled if kind == "bootstrap" else _first_order
        sample = draw(curve, rows, theta, interval, seed)
    return TaskLaw(
        form=form,
        parameters=dict(zip(names, curve.named(theta).tolist(), strict=True)),
        score_is=score_is,
        through=through,
        objective=float(residual @ residual),
        n=len(residual),
        runs=rows.runs,
        ci={} if interval is None else _intervals(curve, sample, interval, open_ones),
        ci_kind=kind,
        level=interval.level if interval else float("nan"),
        unidentified=open_ones,
        notes=tuple(notes),
        scatter=float(np.sqrt(variance)),
        run_scatter=_run_scatter(rows, variance),
        loss_range=(float(rows.loss.min()), float(rows.loss.max())),
        fitted=theta,
        sample=sample,
        curve=curve,
    )


def _best(curve: TaskCurve, loss: Floats, accuracy: Floats) -> Floats:
    """Inner parameters of least squares, (p,); a long table is thinned for the starts."""
    thin = np.argsort(loss, kind="stable")[:: max(1, len(loss) // _THIN)]
    theta = curve.starts(loss[thin], accuracy[thin])
    for some in (thin, np.arange(len(loss))):
        problems = CurveFits(curve=_over(curve, loss[some]), target=accuracy[some])
        fits = minimise(problems, theta)
        theta = fits.theta[np.argsort(fits.objective, kind="stable")[:_FINALISTS]]
    return np.asarray(theta[0])


def _over(curve: TaskCurve, loss: Floats) -> Callable[[Floats], Curve]:
    """The curve at given losses, as a function of its parameters."""
    return lambda theta: curve.curve(theta, loss)


def _intervals(
    curve: TaskCurve, sample: Floats, interval: Interval, open_ones: tuple[str, ...]
) -> dict[str, tuple[float, float] | None]:
    """Percentiles of the draws by parameter; None where the data leave it open."""
    low, high = middle_share(curve.named(sample), interval.level)
    return {
        name: None if name in open_ones else (float(low[i]), float(high[i]))
        for i, name in enumerate(NAMES[curve.form])
    }


def _resampled(
    curve: TaskCurve, rows: TaskRows, theta: Floats, asked: Interval, seed: int
) -> Floats:
    """Inner parameters when whole runs are drawn with replacement, (draws, p)."""
    weights = resample_runs(rows.run, asked.draws_for(len(rows.loss)), seed)
    problems = CurveFits(curve=_over(curve, rows.loss), target=rows.accuracy, weights=weights)
    fits = minimise(problems, np.repeat(theta[None], len(weights), axis=0))
    good = fits.theta[fits.converged & np.isfinite(fits.theta).all(axis=1)]
    return good if len(good) else theta[None]


def _first_order(
    curve: TaskCurve, rows: TaskRows, theta: Floats, asked: Interval, seed: int
) -> Floats:
    """Draws from the t distribution of the first-order (sandwich) variance, (draws, p)."""
    here = curve.curve(theta[None], rows.loss)
    jacobian, residual = here.jacobian[0], rows.accuracy - here.value[0]
    return t_draws(
        theta,
        sandwich(jacobian, residual, rows.run),
        degrees_of_freedom(len(residual), rows.runs, len(theta)),
        draws=asked.draws_for(len(residual)),
        seed=seed,
    )


def _unidentified(
    curve: TaskCurve, rows: TaskRows, theta: Floats, variance: float
) -> tuple[str, ...]:
    """Parameters whose profile is flat out to a border: no slope at all, or no curvature."""
    n, p = len(rows.loss), len(theta)
    rise = float(stdtrit(max(n - p, 1), 0.975)) ** 2 * variance
    residual = rows.accuracy - curve.curve(theta[None], rows.loss).value[0]
    bar = float(residual @ residual) + max(rise, n * 1e-14)
    y, x = rows.accuracy, rows.loss - rows.loss.mean()
    flat = float(((y - y.mean()) ** 2).sum())
    line = flat - float(x @ y) ** 2 / float(x @ x)
    if curve.form == "exponential":
        # without a slope only the level is known; a straight line has no asymptote
        return ("k", "gamma") if flat <= bar else NAMES[curve.form] if line <= bar else ()
    if flat <= bar:
        return ("a", "L0", "k")
    return NAMES[curve.form] if line <= bar else ()


def _run_scatter(rows: TaskRows, variance: float) -> float:
    """Standard deviation between runs: what binomial noise of the items leaves."""
    if rows.items is None:
        return float(np.sqrt(variance))
    noise = float((rows.accuracy * (1 - rows.accuracy) / rows.items).mean())
    return float(np.sqrt(max(variance - noise, 0.0)))
