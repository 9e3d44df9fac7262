"""From parameters and tokens through the loss to a score, with all that is uncertain on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isoloss.errors import BadRequest, Refused
from isoloss.laws.batched_newton import Floats
from isoloss.laws.fit_interval import middle_share
from isoloss.laws.loss_law import LossLaw
from isoloss.laws.task_law import TaskLaw
from isoloss.shown import Shown

FARTHEST = 30.0
"""Factor in compute beyond the largest run fitted up to which a forecast is given."""


class Spread(NamedTuple):
    """Standard deviations of the forecast score from each source alone.

    Attributes:
        loss_parameters: of the loss law.
        loss_scatter: between runs about the loss law.
        task_parameters: of the task law.
        task_scatter: between runs about the task law.
        items: binomial noise of the score itself; 0 where the number of items is infinite.
    """

    loss_parameters: float
    loss_scatter: float
    task_parameters: float
    task_scatter: float
    items: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast(Shown):
    """What one future run will score.

    Attributes:
        score: forecast through both laws, in the task law's unit.
        low: of the interval for one run's measured score.
        high: the same.
        level: coverage aimed at.
        loss: nats per token the score goes through.
        loss_low: of the interval for one run's loss.
        loss_high: the same.
        spread: what each source of uncertainty alone would give.
        compute_factor: 6 N D over the largest of the runs fitted.
        loss_beyond: nats below the lowest loss the task law was fitted on; negative inside.
        runs: training runs behind (loss law, task law).
        notes: what the reader must know, in words.
    """

    score: float
    low: float
    high: float
    level: float
    loss: float
    loss_low: float
    loss_high: float
    spread: Spread
    compute_factor: float
    loss_beyond: float
    runs: tuple[int, int]
    notes: tuple[str, ...]


def forecast(
    loss_law: LossLaw,
    task_law: TaskLaw,
    *,
    params: float,
    tokens: float,
    n_items: int | None = None,
    level: float = 0.90,
    far: bool = False,
    draws: int = 20_000,
    seed: int = 0,
) -> Forecast:
    """Forecast the score of a finished run of ``params`` parameters on ``tokens`` tokens.

    A draw takes parameters of both laws from their samples, adds a run's own deviation to the
    loss (t-distributed, in logs) and to the score, and then the noise of a finite number of
    items. The scatter about the task law is taken to be independent of that about the loss law.

    Args:
        loss_law: fitted with an interval.
        task_law: fitted with an interval, on the same kind of loss.
        params: N as in the loss law's table.
        tokens: D.
        n_items: items of the task; where None, the scatter about the task law already holds
            the noise of its items and none is added.
        level: coverage of the interval.
        far: give forecasts beyond 30 times the largest compute fitted.
        draws: of the chain.
        seed: of the draws.

    Returns:
        The forecast.

    Raises:
        BadRequest: a law without an interval, or numbers that are not positive.
        Refused: too far from what was fitted.
    """
    if not (params > 0 and tokens > 0 and 0 < level < 1):
        raise BadRequest(
            "a forecast needs a size, a number of tokens and a level between 0 and 1",
            asked=f"params={params:g}, tokens={tokens:g}, level={level:g}",
            remedy="give positive numbers",
        )
    if "none" in (loss_law.ci_kind, task_law.ci_kind):
        raise BadRequest(
            "a forecast needs laws that know their uncertainty",
            asked="a law fitted with interval=None",
            remedy="fit both laws with an interval",
        )
    factor = 6 * params * tokens / loss_law.compute_range[1]
    if factor > FARTHEST and not far:
        raise Refused(
            "the run asked for lies too far beyond the runs fitted",
            asked=f"{factor:.3g} times the compute of the largest run",
            nearest=f"{FARTHEST:g} times: 6 N D = {FARTHEST * loss_law.compute_range[1]:.3g}",
            remedy="fit larger runs, or ask for it all the same: far=True (--far)",
        )
    chain = _Chain(loss_law, task_law, params, tokens, n_items, draws, np.random.default_rng(seed))
    scores, losses = chain.run(ALL_SOURCES)
    low, high = middle_share(scores, level)
    loss_low, loss_high = middle_share(losses, level)
    loss = float(loss_law.predict(params, tokens))
    return Forecast(
        score=float(task_law.predict(loss)),
        low=float(low),
        high=float(high),
        level=level,
        loss=loss,
        loss_low=float(loss_low),
        loss_high=float(loss_high),
        spread=Spread(*(chain.spread_of(source) for source in ALL_SOURCES)),
        compute_factor=factor,
        loss_beyond=task_law.loss_range[0] - loss,
        runs=(loss_law.runs, task_law.runs),
        notes=_notes(loss_law, task_law, loss),
    )


ALL_SOURCES = Spread._fields


class _Outcome(NamedTuple):
    score: Floats
    loss: Floats


@dataclass(frozen=True, slots=True)
class _Chain:
    """Draws of a chain in which any of its sources of uncertainty may be held still."""

    loss_law: LossLaw
    task_law: TaskLaw
    params: float
    tokens: float
    n_items: int | None
    draws: int
    rng: np.random.Generator

    def run(self, sources: tuple[str, ...]) -> _Outcome:
        """Scores and losses, (draws,) each, in the unit of the task law."""
        n, rng = self.draws, self.rng
        loss = np.full(n, float(self.loss_law.predict(self.params, self.tokens)))
        if "loss_parameters" in sources:
            possible = self.loss_law.draws(self.params, self.tokens)
            loss = possible[rng.integers(len(possible), size=n)]
        if "loss_scatter" in sources:
            degrees = max(self.loss_law.n - len(self.loss_law.sample_names), 1)
            loss = loss * np.exp(self.loss_law.scatter * rng.standard_t(degrees, size=n))
        score = self._score(loss, "task_parameters" in sources)
        if "task_scatter" in sources:
            degrees = max(self.task_law.n - len(self.task_law.fitted), 1)
            scatter = self.task_law.scatter if self.n_items is None else self.task_law.run_scatter
            score = score + scatter * rng.standard_t(degrees, size=n)
        score = np.clip(score, 0.0, 1.0)
        if "items" in sources and self.n_items is not None:
            score = rng.binomial(self.n_items, score) / self.n_items
        return _Outcome(score=score, loss=loss)

    def spread_of(self, source: str) -> float:
        """Standard deviation of the score from one source alone."""
        if source == "items" and self.n_items is None:
            return 0.0
        return float(self.run((source,)).score.std())

    def _score(self, loss: Floats, parameters: bool) -> Floats:
        """The task law at each draw's loss, with its own draw of the parameters."""
        law = self.task_law
        if not parameters:
            return law.predict(loss)
        return law.paired_draws(loss, self.rng.integers(len(law.sample), size=len(loss)))


def _notes(loss_law: LossLaw, task_law: TaskLaw, loss: float) -> tuple[str, ...]:
    notes = []
    if loss < task_law.loss_range[0]:
        notes.append(
            f"no score was fitted below a loss of {task_law.loss_range[0]:.4g}; "
            "an ability that appears below it is not foreseen"
        )
    for law, name in ((loss_law, "loss law"), (task_law, "task law")):
        if law.unidentified:
            notes.append(f"the {name} leaves open: {', '.join(law.unidentified)}")
    return tuple(notes)


class Reach(NamedTuple):
    """What it takes to reach a score.

    Attributes:
        loss: nats per token at which the task law gives the score; NaN where it never does.
        params: at the tokens given, or as given.
        tokens: at the parameters given, or as given; inf where no number is enough.
        compute_factor: 6 N D over the largest of the runs fitted.
    """

    loss: float
    params: float
    tokens: float
    compute_factor: float


def reach(
    loss_law: LossLaw,
    task_law: TaskLaw,
    score: float,
    *,
    params: float | None = None,
    tokens: float | None = None,
) -> Reach:
    """Size needed for a score at given tokens, or tokens at a given size.

    Args:
        loss_law: of the form "chinchilla" or "overtraining".
        task_law: on the same kind of loss.
        score: to be reached, in the task law's unit.
        params: N, where tokens are asked for.
        tokens: D, where a size is asked for.

    Returns:
        The inverse of both laws; inf where the loss needed lies below what the law can give.

    Raises:
        BadRequest: both or neither of ``params`` and ``tokens``.
        Refused: the loss law has no term of the tokens.
    """
    if (params is None) == (tokens is None):
        raise BadRequest(
            "give either the size or the tokens",
            asked=f"params={params}, tokens={tokens}",
            remedy="leave out the one that is asked for",
        )
    if loss_law.B is None or loss_law.beta is None:
        raise Refused(
            "this law has no terms of size and tokens apart",
            asked=f"a law of the form {loss_law.form!r}",
            remedy="fit with form='chinchilla'",
        )
    loss = task_law.loss_at(score)
    size = (loss_law.A, loss_law.alpha)
    data = (loss_law.B, loss_law.beta)
    if tokens is not None:
        params = _inverse(loss - loss_law.E - data[0] * tokens ** -data[1], *size)
    else:
        assert params is not None
        tokens = _inverse(loss - loss_law.E - size[0] * params ** -size[1], *data)
    return Reach(
        loss=loss,
        params=params,
        tokens=tokens,
        compute_factor=6 * params * tokens / loss_law.compute_range[1],
    )


def _inverse(rest: float, scale: float, exponent: float) -> float:
    """The x with ``scale / x^exponent = rest``; inf where nothing is left for it."""
    if np.isnan(rest):
        return float("nan")
    return float((scale / rest) ** (1 / exponent)) if rest > 0 else float("inf")
