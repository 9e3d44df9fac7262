"""How well a family's forecasts would have held: its largest runs held out, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isoloss.errors import BadRequest, IsolossError, Refused
from isoloss.laws.task_curves import TaskForm
from isoloss.store.axis import Axis, choose
from isoloss.store.store import Store
from isoloss.studies.forecasts.ability_scores import abilities
from isoloss.studies.forecasts.chain import DRAWS, fit_chain
from isoloss.studies.forecasts.hold_out import Held, HoldOut
from isoloss.studies.forecasts.points import Points, read_each
from isoloss.studies.forecasts.rivals import RivalScores
from isoloss.studies.forecasts.run_ends import run_ends, with_names

LARGEST = 4
FEWEST_REMAINING = 5
"""Runs that must be left to fit: with fewer, an interval says next to nothing."""

FORMS: tuple[TaskForm, ...] = ("sigmoid", "exponential")
"""The first one counts; the others are shown beside it."""


class Summary(NamedTuple):
    """How often and how far off, over some held-out pairs.

    Attributes:
        pairs: of a run and an ability.
        inside: of them within their interval.
        mean_absolute_error: of the forecasts.
        last_value: mean absolute error of that rival, over the pairs where it has a forecast;
            NaN where it has none.
        log_compute: likewise.
        ladder: likewise.
    """

    pairs: int
    inside: int
    mean_absolute_error: float
    last_value: float
    log_compute: float
    ladder: float

    @property
    def coverage(self) -> float:
        """Share of the pairs within their interval."""
        return self.inside / self.pairs if self.pairs else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """Every held-out forecast of a family.

    Attributes:
        held: by ability, run and form.
        level: the intervals aim at.
        axis: the loss.
        skipped: what was not held out or not forecast, and why.
        notes: what was left out of the points.
    """

    held: tuple[Held, ...]
    level: float
    axis: Axis
    skipped: tuple[str, ...]
    notes: tuple[str, ...]

    def of(self, form: TaskForm) -> tuple[Held, ...]:
        """The forecasts of one form of the task law."""
        return tuple(one for one in self.held if one.form == form)


def summarise(held: Sequence[Held]) -> Summary:
    """Coverage and mean absolute errors."""
    rivals = {
        name: [
            abs(value - one.actual)
            for one in held
            if one.rivals is not None and (value := getattr(one.rivals, name)) is not None
        ]
        for name in RivalScores._fields
    }
    return Summary(
        pairs=len(held),
        inside=sum(one.inside for one in held),
        mean_absolute_error=_mean([abs(one.error) for one in held]),
        **{name: _mean(errors) for name, errors in rivals.items()},
    )


def backtest(
    store: Store,
    *,
    largest: int = LARGEST,
    tasks: Sequence[str] | None = None,
    metric: str | None = None,
    num_fewshot: int | None = None,
    loss: str | None = None,
    family: str | None = None,
    variant: str | None = None,
    keep_saturated: bool = False,
    level: float = 0.9,
    seed: int = 0,
) -> Backtest:
    """Hold out each of the largest runs in turn and forecast its scores from all others.

    Which runs are saturated is judged anew each time, on the runs that remain.

    Args:
        store: the results of any family.
        largest: how many runs are held out, by compute.
        tasks: subjects; None takes every task with a score between 0 and 1, parts of MMLU and
            the task of the loss axis left out.
        metric: of the scores; None takes each task's first.
        num_fewshot: needed where tasks were asked with several numbers of examples.
        loss: the axis; needed where there are several.
        family: needed where the store has several.
        variant: needed where the family has several.
        keep_saturated: fit runs that got worse before their end too.
        level: of the intervals.
        seed: of their draws.

    Returns:
        Every pair of run and ability under both forms of the task law.

    Raises:
        BadRequest: something named is not there, or several could be meant.
        Refused: fewer than five runs remain when one is held out.
    """
    axis = choose(store, loss)
    if tasks is None:
        tasks = _tasks(store, axis, num_fewshot)
    read = read_each(
        store, tasks, metric=metric, num_fewshot=num_fewshot, loss=loss, family=family,
        variant=variant,
    )  # fmt: skip
    result = backtest_points(
        read, largest=largest, keep_saturated=keep_saturated, level=level, seed=seed
    )
    if not result.held:
        raise Refused(
            f"no run can be held out: {FEWEST_REMAINING} others must remain to fit.",
            asked="; ".join(result.skipped) or "no finished run",
            remedy="add finished runs of other sizes",
        )
    return result


def backtest_points(
    read: Sequence[Points],
    *,
    largest: int = LARGEST,
    keep_saturated: bool = False,
    level: float = 0.9,
    seed: int = 0,
    forms: Sequence[TaskForm] = FORMS,
    with_rivals: bool = True,
    draws: int = DRAWS,
) -> Backtest:
    """The back-test of abilities that were read together; see :func:`backtest`.

    Args:
        read: of one family, with equal checkpoints and losses.
        largest: how many runs are held out.
        keep_saturated: fit saturated runs too.
        level: of the intervals.
        seed: of their draws.
        forms: of the task law.
        with_rivals: forecast by other means too.
        draws: behind each interval.
    """
    frame = with_names(read[0].frame)
    ends, _ = run_ends(frame, keep_saturated=True)
    finished = sorted((e for e in ends if e.left_out is None), key=lambda e: e.compute)
    held: list[Held] = []
    skipped: list[str] = []
    for end in finished[::-1][:largest]:
        try:
            chain = fit_chain(
                read[0], with_ability=False, hold_out=[end.run], keep_saturated=keep_saturated,
                level=level, quick=True, seed=seed,
            )  # fmt: skip
        except IsolossError as error:
            skipped.append(f"{end.run}: {error.what}")
            continue
        if len(chain.fitted) < FEWEST_REMAINING:
            skipped.append(f"{end.run}: {len(chain.fitted)} runs remain")
            continue
        out = HoldOut(end=end, chain=chain, with_rivals=with_rivals, draws=draws, seed=seed)
        held += out.forecasts(read, forms, skipped)
    order = {id(points.ability): i for i, points in enumerate(read)}
    return Backtest(
        held=tuple(sorted(held, key=lambda one: order[id(one.ability)])),
        level=level,
        axis=read[0].axis,
        skipped=tuple(skipped),
        notes=tuple(dict.fromkeys(note for points in read for note in points.notes)),
    )


def _tasks(store: Store, axis: Axis, num_fewshot: int | None) -> list[str]:
    """Every task that may be forecast from the axis, each asked in one number of shots."""
    known = [one for one in abilities(store, num_fewshot=num_fewshot) if one.task != axis.subject]
    if not known:
        raise BadRequest(
            "the store has no score between 0 and 1 that could be forecast.",
            asked=None if num_fewshot is None else f"--num-fewshot {num_fewshot}",
            remedy="measure tasks (isoloss run --tasks), or import results",
        )
    names = [one.task for one in known]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        shots = sorted({one.num_fewshot for one in known if one.num_fewshot is not None})
        raise BadRequest(
            "tasks were asked with several numbers of examples: each is a series of its own.",
            asked=", ".join(repeated),
            nearest=", ".join(map(str, shots)),
            remedy=f"--num-fewshot {shots[0]}",
        )
    return names


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
