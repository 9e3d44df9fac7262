"""The two laws of a forecast, fitted to a family's points, and what they say of a future run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadRequest, Refused
from isoloss.laws.fit_interval import ENOUGH_RUNS_HUBER, Interval, middle_share
from isoloss.laws.forecast_chain import FARTHEST, Spread, forecast
from isoloss.laws.loss_law import LossLaw, fit_loss_law
from isoloss.laws.power_fit import Objective, Rule
from isoloss.laws.task_curves import TaskForm
from isoloss.laws.task_law import TaskLaw, fit_task_law
from isoloss.studies.forecasts.points import Points
from isoloss.studies.forecasts.run_ends import (
    SAME_TOKENS,
    RunEnd,
    after_start,
    run_ends,
    shape_of,
    with_names,
)

DRAWS = 20_000
STARTS, QUICK_STARTS, QUICK_DRAWS = 500, 200, 1_000
"""About half of all starts reach the lowest objective of a usual table."""
Floats = NDArray[np.float64]


class Prediction(NamedTuple):
    """What one future run will lose, and score where there is a task law.

    Attributes:
        score: through both laws; None without a task law, as are its ends and ``spread``.
        low: of the interval for one run's measured score.
        high: the same.
        loss: of the law.
        loss_low: of the interval for one run's loss.
        loss_high: the same.
        compute_factor: 6 N D over the largest of the runs fitted.
        loss_beyond: below the lowest loss fitted; negative inside.
        spread: of the score from each source alone.
        notes: what the reader must know.
    """

    score: float | None
    low: float | None
    high: float | None
    loss: float
    loss_low: float
    loss_high: float
    compute_factor: float
    loss_beyond: float
    spread: Spread | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Fitted laws of a family and what they were fitted on.

    Attributes:
        ends: every run's end, fitted or not.
        loss_law: size and tokens to loss.
        task_law: loss to score; None where no task was named.
        budget: the one number of tokens at which the law holds; None where tokens vary.
        line: intercept and slope of log tokens on log size, where the law is one of compute.
        level: of all intervals.
        notes: what was assumed, in words.
    """

    ends: tuple[RunEnd, ...]
    loss_law: LossLaw
    task_law: TaskLaw | None
    budget: float | None
    line: tuple[float, float] | None
    level: float
    notes: tuple[str, ...]

    @property
    def fitted(self) -> tuple[RunEnd, ...]:
        """The runs behind the loss law."""
        return tuple(end for end in self.ends if end.left_out is None)

    def tokens_for(self, params: float, tokens: float | None) -> float:
        """The tokens a forecast is for, checked against what the law can tell.

        Raises:
            BadRequest: no tokens, where the law needs them.
            Refused: tokens at which this law says nothing.
        """
        if self.budget is not None:
            if tokens is not None and abs(np.log(tokens / self.budget)) > SAME_TOKENS:
                raise Refused(
                    "all finished runs saw the same tokens: the law holds there alone.",
                    asked=f"--tokens {tokens:g}",
                    nearest=f"{self.budget:g}",
                    remedy="ask at these tokens, or add runs whose schedules ended at others",
                )
            return self.budget
        if tokens is None:
            raise BadRequest(
                "the finished runs saw different numbers of tokens: which is asked for?",
                asked="no --tokens",
                nearest=f"{self._nearest_tokens(params):.3g}, as the run of the nearest size",
                remedy="--tokens D",
            )
        if self.line is not None:
            usual = float(np.exp(self.line[0] + self.line[1] * np.log(params)))
            if abs(np.log(tokens / usual)) > np.log(2):
                raise Refused(
                    "every size has one budget: the law holds along their line alone.",
                    asked=f"{params:g} parameters on {tokens:g} tokens",
                    nearest=f"{usual:.3g} tokens at this size",
                    remedy="ask within a factor of two of it, or add runs of other lengths",
                )
        return tokens

    def predict(
        self,
        params: float,
        tokens: float | None,
        *,
        far: bool = False,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Prediction:
        """Loss and score of a finished run of ``params`` parameters on ``tokens`` tokens.

        Args:
            params: total parameters.
            tokens: None takes the family's one budget.
            far: answer beyond 30 times the largest compute fitted.
            draws: behind the interval.
            seed: of the draws.

        Returns:
            The prediction with its interval.

        Raises:
            BadRequest: numbers that are not positive, or tokens are needed.
            Refused: too far, or where the law says nothing.
        """
        if not params > 0 or (tokens is not None and not tokens > 0):
            raise BadRequest(
                "a forecast needs a positive size and positive tokens.",
                asked=f"--params {params:g} --tokens {tokens}",
                remedy="such as --params 7e9 --tokens 3e11",
            )
        tokens = self.tokens_for(params, tokens)
        if self.task_law is None:
            return self._loss_alone(params, tokens, far, draws, seed)
        got = forecast(
            self.loss_law, self.task_law, params=params, tokens=tokens, level=self.level,
            far=far, draws=draws, seed=seed,
        )  # fmt: skip
        return Prediction(
            score=got.score, low=got.low, high=got.high, loss=got.loss, loss_low=got.loss_low,
            loss_high=got.loss_high, compute_factor=got.compute_factor,
            loss_beyond=got.loss_beyond, spread=got.spread,
            # what the laws leave open stands among the notes of the chain
            notes=tuple(note for note in got.notes if "leaves open" not in note),
        )  # fmt: skip

    def _loss_alone(
        self, params: float, tokens: float, far: bool, draws: int, seed: int
    ) -> Prediction:
        law = self.loss_law
        factor = 6 * params * tokens / law.compute_range[1]
        if factor > FARTHEST and not far:
            raise Refused(
                "the run asked for lies too far beyond the runs fitted.",
                asked=f"{factor:.3g} times the compute of the largest run",
                nearest=f"{FARTHEST:g} times",
                remedy="fit larger runs, or ask for it all the same: --far",
            )
        rng = np.random.default_rng(seed)
        possible = law.draws(params, tokens)
        degrees = max(law.n - len(law.sample_names), 1)
        own = law.scatter * rng.standard_t(degrees, size=draws)
        drawn = possible[rng.integers(len(possible), size=draws)] * np.exp(own)
        low, high = middle_share(drawn, self.level)
        loss = float(law.predict(params, tokens))
        return Prediction(
            score=None, low=None, high=None, loss=loss, loss_low=float(low),
            loss_high=float(high), compute_factor=factor, loss_beyond=law.loss_range[0] - loss,
            spread=None, notes=(),
        )  # fmt: skip

    def _nearest_tokens(self, params: float) -> float:
        known = [(e.params, e.tokens) for e in self.fitted]
        return min(known, key=lambda end: abs(np.log(params / (end[0] or 1))))[1] or float("nan")


def fit_chain(
    points: Points,
    *,
    with_ability: bool = True,
    hold_out: Collection[str] = (),
    keep_saturated: bool = False,
    form: TaskForm = "sigmoid",
    level: float = 0.9,
    quick: bool = False,
    seed: int = 0,
) -> Chain:
    """Fit the loss law to the ends of finished runs, and the task law to their checkpoints.

    Below eight runs the loss law is a fit of least squares of log residuals, from eight on
    Huber's. The task law is fitted to checkpoints after the first tenth of each run's tokens.

    Args:
        points: of one family.
        with_ability: fit the task law too, where the points have an ability.
        hold_out: names of runs of which nothing is read.
        keep_saturated: fit runs that got worse before their end too.
        form: of the task law.
        level: of the intervals.
        quick: fewer starts and resamples of the loss law, where it is fitted many times.
        seed: of the starts and of the intervals' draws.

    Returns:
        Both laws.

    Raises:
        Refused: too few finished runs or sizes are left.
    """
    frame = with_names(points.frame).filter(~pl.col("name").is_in(list(hold_out)))
    ends, assumed = run_ends(frame, keep_saturated=keep_saturated)
    fitted = [end for end in ends if end.left_out is None]
    shape = shape_of(fitted, ends)
    kind: Objective = "huber" if len(fitted) >= ENOUGH_RUNS_HUBER else "log_squares"
    law = fit_loss_law(
        _numbers(end.params for end in fitted),
        _numbers(shape.budget or end.tokens for end in fitted),
        _numbers(end.loss for end in fitted),
        form=shape.form,
        rule=Rule(kind=kind, starts=QUICK_STARTS if quick else STARTS),
        run=[end.run for end in fitted],
        interval=Interval(
            level=level, draws=QUICK_DRAWS if quick and shape.budget is None else None
        ),
        seed=seed,
    )
    chain = Chain(
        ends=ends,
        loss_law=law,
        task_law=None,
        budget=shape.budget,
        line=shape.line,
        level=level,
        notes=tuple(dict.fromkeys((*shape.notes, *assumed, *_told("loss law", law.notes)))),
    )
    if not with_ability or points.ability is None:
        return chain
    return with_task(chain, points, form=form, seed=seed)


def with_task(chain: Chain, points: Points, *, form: TaskForm = "sigmoid", seed: int = 0) -> Chain:
    """The chain with the task law of an ability, fitted to checkpoints of the same runs.

    Args:
        chain: its loss law is kept.
        points: of the same family, with an ability.
        form: of the task law.
        seed: of its draws.

    Raises:
        Refused: too few checkpoints of these runs have a score.
    """
    assert points.ability is not None
    rows = after_start(with_names(points.frame)).filter(
        pl.col("name").is_in([end.run for end in chain.fitted]), pl.col("score").is_not_null()
    )
    task = fit_task_law(
        rows["loss"].to_numpy(),
        rows["score"].to_numpy(),
        form,
        through=points.axis.name,
        run=rows["name"].to_numpy(),
        interval=Interval(level=chain.level),
        seed=seed,
    )
    return replace(chain, task_law=task, notes=(*chain.notes, *_told("task law", task.notes)))


def _told(law: str, notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{law}: {note}" for note in notes)


def _numbers(values: Iterable[float | None]) -> Floats:
    """As float64; unknown is NaN."""
    return np.array(list(values), dtype=np.float64)
