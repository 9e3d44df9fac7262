"""One run of a family held out: forecast from all others and held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from isoloss.errors import IsolossError
from isoloss.laws.task_curves import TaskForm
from isoloss.steps import steps
from isoloss.studies.forecasts.ability_scores import Ability
from isoloss.studies.forecasts.chain import DRAWS, Chain, with_task
from isoloss.studies.forecasts.points import Points
from isoloss.studies.forecasts.rivals import RivalScores, Target, ladder_loss, rival_scores
from isoloss.studies.forecasts.run_ends import RunEnd, with_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One run forecast from the others, and what it came to.

    Attributes:
        run: that was held out.
        params: its size.
        tokens: its budget.
        ability: the score; None where the loss alone was forecast.
        form: of the task law; None likewise.
        predicted: score, or the loss where there is no ability.
        low: of the interval.
        high: the same.
        actual: as measured.
        loss: forecast on the way.
        loss_actual: as measured.
        compute_factor: of the run over the largest that was fitted; above 1 an extrapolation.
        fitted: names of the runs fitted.
        rivals: other forecasts from the same runs; None where there is no ability.
    """

    run: str
    params: float
    tokens: float
    ability: Ability | None
    form: TaskForm | None
    predicted: float
    low: float
    high: float
    actual: float
    loss: float
    loss_actual: float
    compute_factor: float
    fitted: tuple[str, ...]
    rivals: RivalScores | None

    @property
    def inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= self.actual <= self.high

    @property
    def error(self) -> float:
        """Predicted less measured."""
        return self.predicted - self.actual


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOut:
    """One run and the loss law of the others, which serves every ability.

    Attributes:
        end: of the run that is held out; its size and tokens are known.
        chain: of the others, without a task law.
        with_rivals: forecast by other means too.
        draws: behind each interval.
        seed: of all draws.
    """

    end: RunEnd
    chain: Chain
    with_rivals: bool = True
    draws: int = DRAWS
    seed: int

    def forecasts(
        self, read: Sequence[Points], forms: Sequence[TaskForm], skipped: list[str]
    ) -> Iterator[Held]:
        """The run's loss, or its score on every ability under every form of the task law.

        Args:
            read: points of the family, with or without an ability.
            forms: of the task law.
            skipped: what could not be forecast is added, with the reason.
        """
        step_one = None
        if self.with_rivals:
            step_one = ladder_loss(self._others(with_names(read[0].frame)), self._target())
        for points in steps(f"forecasting {self.end.run}", read):
            if points.ability is None:
                yield from self._try(self.chain, points, None, self.end.loss, None, skipped)
                continue
            frame = with_names(points.frame)
            actual = _final_score(frame, self.end.run)
            if actual is None:
                skipped.append(f"{self.end.run}: no score of {points.ability.task} at its end")
                continue
            rivals = None
            if self.with_rivals:
                rivals = rival_scores(self._others(frame), self._target(), step_one)
            for form in forms:
                yield from self._try(self.chain, points, form, actual, rivals, skipped)

    def _try(
        self,
        chain: Chain,
        points: Points,
        form: TaskForm | None,
        actual: float,
        rivals: RivalScores | None,
        skipped: list[str],
    ) -> Iterator[Held]:
        try:
            whole = chain
            if form is not None:
                whole = with_task(chain, points, form=form, seed=self.seed)
            yield self._held(whole, points.ability, form, actual, rivals)
        except IsolossError as error:
            task = points.ability.task if points.ability else "loss"
            skipped.append(f"{self.end.run}, {task}: {error.what}")

    def _held(
        self,
        chain: Chain,
        ability: Ability | None,
        form: TaskForm | None,
        actual: float,
        rivals: RivalScores | None,
    ) -> Held:
        target = self._target()
        got = chain.predict(
            target.params, target.tokens, far=True, draws=self.draws, seed=self.seed
        )
        if got.score is None or got.low is None or got.high is None:
            predicted, low, high = got.loss, got.loss_low, got.loss_high
        else:
            predicted, low, high = got.score, got.low, got.high
        return Held(
            run=self.end.run,
            params=target.params,
            tokens=target.tokens,
            ability=ability,
            form=form,
            predicted=predicted,
            low=low,
            high=high,
            actual=actual,
            loss=got.loss,
            loss_actual=self.end.loss,
            compute_factor=got.compute_factor,
            fitted=tuple(one.run for one in chain.fitted),
            rivals=rivals,
        )

    def _target(self) -> Target:
        assert self.end.params is not None and self.end.tokens is not None
        return Target(self.end.params, self.end.params_non_embedding, self.end.tokens)

    def _others(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("name").is_in([one.run for one in self.chain.fitted]))


def _final_score(frame: pl.DataFrame, run: str) -> float | None:
    last = frame.filter(pl.col("name") == run).sort("tokens", nulls_last=False)["score"].tail(1)
    return None if last.is_empty() or last[0] is None else float(last[0])
