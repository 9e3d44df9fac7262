"""The next larger run of every family of a store: its loss, and its scores where laws tell them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from isoloss.errors import BadData, BadRequest, Refused
from isoloss.store.axis import Axis, candidates, refuse_circular
from isoloss.store.schema import TASK_PROBE
from isoloss.store.series import read_abilities
from isoloss.store.store import Store
from isoloss.studies.forecasts.chain import Chain, fit_chain, with_task
from isoloss.studies.forecasts.points import Points, read_each, read_points

LEVEL = 0.9
"""Of all intervals."""

MOST_TASKS, FEWEST_TASKS = 8, 2
"""Scores forecast in all, shared by the families, and of each family at least."""

_NAMED = 6
_LEAST_STEP, _LARGEST_STEP = 1.5, 4.0  # in size, from the largest run to the next


class Forecast(NamedTuple):
    """One score of the next size.

    Attributes:
        what: the score, or the loss itself.
        ends: size and measured value of the runs fitted.
        value: forecast.
        low: of its interval.
        high: of its interval.
    """

    what: str
    ends: tuple[tuple[float, float], ...]
    value: float
    low: float
    high: float


class NextSize(NamedTuple):
    """The next larger run of a family.

    Attributes:
        family: its name.
        params: total parameters.
        tokens: seen.
        chain: the law of the loss.
        forecasts: the loss, then the scores.
    """

    family: str
    params: float
    tokens: float
    chain: Chain
    forecasts: tuple[Forecast, ...]


class Sizes(NamedTuple):
    """What could be forecast.

    Attributes:
        found: a family each.
        not_run: what was left out, and why.
    """

    found: list[NextSize]
    not_run: list[str]


def next_sizes(store: Store, axis: Axis, *, seed: int) -> Sizes:
    """The next size of every family whose finished runs allow a law, and why others do not.

    Args:
        store: measured or imported.
        axis: the loss.
        seed: of all draws.
    """
    if axis.name not in {one.name for one in candidates(store)}:
        return Sizes([], ["No law is fitted to an expected loss."])
    found, not_run = [], []
    families = store.checkpoints().select("family").unique().collect()["family"].sort()
    asked = _asked(store, axis)
    most = max(MOST_TASKS // max(len(families), 1), FEWEST_TASKS)
    for family in families:
        try:
            points = read_points(store, loss=axis.name, family=family)
            chain = fit_chain(points, level=LEVEL, quick=True, seed=seed)
            abilities = _abilities(store, axis, family, asked, most)
            found.append(_next_size(family, chain, abilities, seed))
            not_run += _left_out(family, chain)
        except (BadRequest, BadData, Refused) as error:
            not_run.append(f"No law of the loss for {family}: {error.what}")
    return Sizes(found, not_run)


def _left_out(family: str, chain: Chain) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for end in chain.ends:
        if end.left_out is not None:
            reasons.setdefault(end.left_out, []).append(end.run)
    return [
        f"The law of {family} leaves out {', '.join(runs[:_NAMED])}"
        f"{f' and {len(runs) - _NAMED} more' if len(runs) > _NAMED else ''}: {why}"
        for why, runs in reasons.items()
    ]


def _next_size(family: str, chain: Chain, abilities: Sequence[Points], seed: int) -> NextSize:
    sizes = np.unique([end.params or 0.0 for end in chain.fitted])
    step = float(np.clip(sizes[-1] / sizes[-2], _LEAST_STEP, _LARGEST_STEP))
    params = float(f"{sizes[-1] * step:.2g}")
    largest = max(chain.fitted, key=lambda end: end.params or 0.0)
    if chain.line is not None:
        tokens = float(np.exp(chain.line[0] + chain.line[1] * np.log(params)))
    else:
        tokens = chain.budget or float(largest.tokens or math.nan)
    got = chain.predict(params, tokens, seed=seed)
    ends = tuple((end.params or 0.0, end.loss) for end in chain.fitted)
    forecasts = [Forecast("loss", ends, got.loss, got.loss_low, got.loss_high)]
    scores = (_score(points, chain, (params, tokens), seed) for points in abilities)
    forecasts += [one for one in scores if one is not None]
    return NextSize(family, params, tokens, chain, tuple(forecasts))


def _asked(store: Store, axis: Axis) -> dict[int | None, list[str]]:
    """Tasks that are no part of a collection, by the fewest examples each was asked with."""
    points = store.checkpoints().collect().with_row_index("point")
    shots: dict[str, int | None] = {}
    for one in read_abilities(store, points).series:
        if one.probe == TASK_PROBE and one.group is None and not _is_circular(axis, one.subject):
            known = one.settings.get("num_fewshot")
            number = known if isinstance(known, int) else None
            before = shots.setdefault(one.subject, number)
            if number is not None and before is not None:
                shots[one.subject] = min(number, before)
    tasks: dict[int | None, list[str]] = {}
    for task, number in shots.items():
        tasks.setdefault(number, []).append(task)
    return tasks


def _is_circular(axis: Axis, task: str) -> bool:
    try:
        refuse_circular(axis, task)
    except Refused:
        return True
    return False


def _abilities(
    store: Store, axis: Axis, family: str, asked: Mapping[int | None, list[str]], most: int
) -> list[Points]:
    """Points of the first tasks; the store is read once for all that are asked alike."""
    found: list[Points] = []
    for shots, tasks in asked.items():
        wanted = tasks[: most - len(found)]
        if not wanted:
            break
        try:
            found += read_each(store, wanted, num_fewshot=shots, loss=axis.name, family=family)
        except (BadRequest, Refused):
            # one that cannot be read stops all of them: each by itself
            for task in wanted:
                with contextlib.suppress(BadRequest, Refused):
                    found += read_each(
                        store, [task], num_fewshot=shots, loss=axis.name, family=family
                    )
    return found


def _score(points: Points, chain: Chain, at: tuple[float, float], seed: int) -> Forecast | None:
    """The forecast of one task's score; None where the laws tell none."""
    if points.ability is None:
        return None
    try:
        got = with_task(chain, points, seed=seed).predict(*at, seed=seed)
    except (BadRequest, BadData, Refused):
        return None
    if got.score is None or got.low is None or got.high is None:
        return None
    last = (
        points.frame.filter(pl.col("score").is_not_null())
        .sort("tokens")
        .group_by("model", "run", maintain_order=True)
        .last()
        .sort("params")
    )
    known = last.select("params", "score").drop_nulls()
    ends = tuple((float(n), float(y)) for n, y in known.rows())
    name = f"{points.ability.task}: {points.ability.metric}"
    return Forecast(name, ends, got.score, got.low, got.high)
