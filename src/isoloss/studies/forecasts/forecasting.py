"""What a run that was never trained will lose and score, answered from a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isoloss.errors import BadRequest, Refused
from isoloss.laws.forecast_chain import FARTHEST
from isoloss.laws.forecast_chain import reach as reach_by_laws
from isoloss.laws.task_curves import TaskForm
from isoloss.steps import steps
from isoloss.store.axis import Axis
from isoloss.store.store import Store
from isoloss.studies.forecasts.ability_scores import Ability
from isoloss.studies.forecasts.backtest import FORMS, Backtest, backtest_points
from isoloss.studies.forecasts.chain import Chain, Prediction, fit_chain
from isoloss.studies.forecasts.points import Points, read_points

OWN_LARGEST, OWN_OF_FULL_LAW = 4, 2
"""Runs held out beside a forecast: a law of size and tokens takes a second to fit, L(N) a fifth of
one, and the answer should come within five. :func:`backtest` holds out four of any family."""

_FEW_DRAWS = 4_000
"""Where many intervals are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    """The answer, and all that is needed to judge it.

    Attributes:
        params: asked for.
        tokens: asked for, or the family's one budget.
        ability: the score; None where the loss alone was asked for.
        axis: the loss.
        prediction: loss and score with their intervals.
        chain: the fitted laws and the runs behind them.
        backtest: the same forecast of the largest runs, each from the others; None where it was
            not asked for.
        notes: what was left out and assumed, in words.
    """

    params: float
    tokens: float
    ability: Ability | None
    axis: Axis
    prediction: Prediction
    chain: Chain
    backtest: Backtest | None
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        got = self.prediction
        return {
            **_asked(self.ability, self.axis),
            "params": self.params,
            "tokens": self.tokens,
            "level": self.chain.level,
            "score": got.score,
            "low": got.low,
            "high": got.high,
            "loss": got.loss,
            "loss_low": got.loss_low,
            "loss_high": got.loss_high,
            "compute_factor": got.compute_factor,
            "loss_beyond": got.loss_beyond,
            "spread": None if got.spread is None else got.spread._asdict(),
            **_fitted(self.chain),
            "backtest": None if self.backtest is None else _held(self.backtest),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReach:
    """What it takes to reach a score.

    Attributes:
        score: to be reached.
        ability: whose score it is.
        axis: the loss.
        loss: at which the task law gives the score; None where it never does.
        params: needed, or as given; None where no size is enough.
        tokens: needed, or as given; None where no number is enough.
        earliest: the asked-for number at which the upper end of a forecast's interval reaches
            the score; None where none within 30 times the compute fitted does.
        safe: the same for the lower end.
        compute_factor: 6 N D over the largest of the runs fitted; None likewise.
        chain: the fitted laws and the runs behind them.
        notes: what was left out and assumed, in words.
    """

    score: float
    ability: Ability
    axis: Axis
    loss: float | None
    params: float | None
    tokens: float | None
    earliest: float | None
    safe: float | None
    compute_factor: float | None
    chain: Chain
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        names = ("score", "loss", "params", "tokens", "earliest", "safe", "compute_factor")
        return {
            **_asked(self.ability, self.axis),
            **{name: getattr(self, name) for name in names},
            "level": self.chain.level,
            **_fitted(self.chain),
            "notes": list(self.notes),
        }


class Family(NamedTuple):
    """Which points of a store are meant; see :func:`read_points`."""

    task: str | None = None
    metric: str | None = None
    num_fewshot: int | None = None
    loss: str | None = None
    family: str | None = None
    variant: str | None = None

    def read(self, store: Store) -> Points:
        """The points."""
        return read_points(store, **self._asdict())


def forecast_run(
    store: Store,
    which: Family,
    *,
    params: float,
    tokens: float | None = None,
    far: bool = False,
    keep_saturated: bool = False,
    level: float = 0.9,
    form: TaskForm = FORMS[0],
    with_backtest: bool = True,
    seed: int = 0,
) -> RunForecast:
    """Forecast the loss of a finished run, and its score where a task is named.

    Args:
        store: results of smaller runs of the family.
        which: family, task and loss.
        params: total parameters of the run.
        tokens: it will see; None takes the family's one budget.
        far: answer beyond 30 times the largest compute fitted.
        keep_saturated: fit runs that got worse before their end too.
        level: of the intervals.
        form: of the task law.
        with_backtest: forecast the largest runs of the store from the others too.
        seed: of all draws; the same call gives the same bits.

    Returns:
        The forecast.

    Raises:
        BadRequest: something named is not there, or several could be meant.
        Refused: too few finished runs, or too far from them.
    """
    _check_level(level)
    points = which.read(store)
    chain = fit_chain(points, keep_saturated=keep_saturated, form=form, level=level, seed=seed)
    got = chain.predict(params, tokens, far=far, seed=seed)
    held = None
    if with_backtest:
        largest = OWN_OF_FULL_LAW if chain.budget is None else OWN_LARGEST
        held = backtest_points(
            [points], largest=largest, keep_saturated=keep_saturated, level=level, seed=seed,
            forms=[form], with_rivals=False, draws=_FEW_DRAWS,
        )  # fmt: skip
    return RunForecast(
        params=params,
        tokens=chain.tokens_for(params, tokens),
        ability=points.ability,
        axis=points.axis,
        prediction=got,
        chain=chain,
        backtest=held,
        notes=(*points.notes, *chain.notes, *got.notes),
    )


def reach_score(
    store: Store,
    which: Family,
    score: float,
    *,
    params: float | None = None,
    tokens: float | None = None,
    far: bool = False,
    keep_saturated: bool = False,
    level: float = 0.9,
    form: TaskForm = FORMS[0],
    seed: int = 0,
) -> RunReach:
    """The size needed for a score at given tokens, or the tokens at a given size.

    Args:
        store: results of smaller runs of the family.
        which: family, task and loss.
        score: to be reached.
        params: given where tokens are asked for.
        tokens: given where a size is asked for; may be left out where all runs saw the same.
        far: answer beyond 30 times the largest compute fitted.
        keep_saturated: fit runs that got worse before their end too.
        level: of the interval.
        form: of the task law.
        seed: of all draws.

    Returns:
        What it takes.

    Raises:
        BadRequest: no task, a score outside 0 to 1, or both or neither of size and tokens.
        Refused: the law cannot tell, or only too far from the runs fitted.
    """
    _check_level(level)
    if which.task is None or not 0 < score < 1:
        raise BadRequest(
            "--reach needs a task and a score between 0 and 1.",
            asked=f"--task {which.task} --reach {score:g}",
            remedy="--task TASK --reach 0.7 --tokens 3e11",
        )
    points = which.read(store)
    chain = fit_chain(points, keep_saturated=keep_saturated, form=form, level=level, seed=seed)
    if params is None and chain.budget is not None:
        tokens = chain.tokens_for(1.0, tokens)
    found = _inverse(chain, score, params, tokens)
    factor = found.compute_factor
    if factor is not None and factor > FARTHEST and not far:
        raise Refused(
            "the run needed lies too far beyond the runs fitted.",
            asked=f"{score:g} on {which.task}: {factor:.3g} times the largest compute",
            nearest=f"{FARTHEST:g} times",
            remedy="fit larger runs, or ask for it all the same: --far",
        )
    ends = _ends(chain, score, params, tokens, seed)
    assert points.ability is not None
    return RunReach(
        score=score,
        ability=points.ability,
        axis=points.axis,
        loss=found.loss,
        params=found.params,
        tokens=found.tokens,
        earliest=ends.earliest,
        safe=ends.safe,
        compute_factor=factor,
        chain=chain,
        notes=(*points.notes, *chain.notes),
    )


class _Inverse(NamedTuple):
    loss: float | None
    params: float | None
    tokens: float | None
    compute_factor: float | None


def _inverse(chain: Chain, score: float, params: float | None, tokens: float | None) -> _Inverse:
    """Both laws turned round; None where the score is never reached."""
    law, task = chain.loss_law, chain.task_law
    assert task is not None
    if chain.line is not None:
        raise Refused(
            "every size has one budget: size and tokens cannot be traded for one another.",
            asked=f"what it takes for {score:g}",
            nearest="the score of one run: --params N --tokens D",
            remedy="add runs of the same sizes whose schedules ended at other tokens",
        )
    if law.form != "params":
        got = reach_by_laws(law, task, score, params=params, tokens=tokens)
        return _Inverse(*(float(x) if np.isfinite(x) else None for x in got))
    if params is not None:
        raise Refused(
            "all finished runs saw the same tokens: what more of them gives is not known.",
            asked=f"the tokens for {score:g} at {params:g} parameters",
            nearest=f"the size at {chain.budget:g} tokens",
            remedy="leave out --params, or add runs whose schedules ended at other tokens",
        )
    assert tokens is not None
    loss = task.loss_at(score)
    rest = loss - law.E
    if not rest > 0:
        return _Inverse(float(loss) if np.isfinite(loss) else None, None, tokens, None)
    size = float((law.A / rest) ** (1 / law.alpha))
    return _Inverse(loss, size, tokens, 6 * size * tokens / law.compute_range[1])


class _Ends(NamedTuple):
    earliest: float | None
    safe: float | None


_GRID, _LEAST = 24, 1e-3
"""Points of the search for an interval's ends, over log size or log tokens."""


def _ends(
    chain: Chain, score: float, params: float | None, tokens: float | None, seed: int
) -> _Ends:
    """Where the upper and the lower end of forecasts first reach the score."""
    most = FARTHEST * chain.loss_law.compute_range[1] / 6
    most /= params if params is not None else tokens or 1.0
    grid = np.geomspace(_LEAST * most, most * (1 - 1e-9), _GRID)

    def at(x: float) -> Prediction:
        size, seen = (x, tokens) if params is None else (params, x)
        return chain.predict(size, seen, draws=_FEW_DRAWS, seed=seed)

    got = [at(float(x)) for x in steps("forecasting", grid)]
    return _Ends(
        earliest=_crossing(grid, [float(p.high or 0) for p in got], score),
        safe=_crossing(grid, [float(p.low or 0) for p in got], score),
    )


def _crossing(grid: np.ndarray[Any, Any], values: list[float], score: float) -> float | None:
    """The first x at which the values reach a score, linear in log x; None where none does."""
    above = np.array(values) >= score
    if not above.any() or above[0]:
        return None
    i = int(above.argmax())
    part = (score - values[i - 1]) / (values[i] - values[i - 1])
    return float(grid[i - 1] * (grid[i] / grid[i - 1]) ** part)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise BadRequest(
            "a level lies between 0 and 1.",
            asked=f"--level {level:g}",
            nearest=f"{level / 100:g}" if 1 < level < 100 else "0.9",
            remedy="--level 0.9",
        )


def _asked(ability: Ability | None, axis: Axis) -> dict[str, Any]:
    return {
        "task": ability.task if ability else None,
        "metric": ability.metric if ability else None,
        "num_fewshot": ability.num_fewshot if ability else None,
        "loss_axis": axis.name,
        "loss_label": axis.label,
    }


def _fitted(chain: Chain) -> dict[str, Any]:
    law, task = chain.loss_law, chain.task_law
    names = ("form", "E", "A", "alpha", "B", "beta", "scatter", "n", "runs", "ci_kind")
    laws = {name: getattr(law, name) for name in names} | {"unidentified": list(law.unidentified)}
    told = None
    if task is not None:
        told = {"form": task.form, **task.parameters, "scatter": task.scatter, "n": task.n,
                "runs": task.runs, "unidentified": list(task.unidentified)}  # fmt: skip
    return {
        "fitted": [end.run for end in chain.fitted],
        "left_out": [{"run": e.run, "why": e.left_out} for e in chain.ends if e.left_out],
        "loss_law": laws,
        "task_law": told,
    }


def _held(found: Backtest) -> dict[str, Any]:
    rows = [
        {"run": one.run, "predicted": one.predicted, "low": one.low, "high": one.high,
         "actual": one.actual, "inside": one.inside, "compute_factor": one.compute_factor}
        for one in found.held
    ]  # fmt: skip
    return {
        "inside": sum(one.inside for one in found.held),
        "of": len(rows),
        "held_out": rows,
        "skipped": list(found.skipped),
    }
