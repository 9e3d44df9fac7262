"""What two checkpoints score on the same documents of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from isoloss.errors import BadRequest, Refused, nearest_name
from isoloss.estimate import Estimate
from isoloss.steps import steps
from isoloss.store.store import Store
from isoloss.studies.comparison.chosen import Chosen
from isoloss.studies.comparison.documents import SCORES, shared_scores
from isoloss.studies.comparison.paired import (
    Difference,
    difference_of,
    holm_corrected,
    paired_difference,
)
from isoloss.studies.comparison.settings import Way, shared_ways, with_settings

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDifference:
    """One task under one setting.

    Attributes:
        task: its subject in the store.
        metric: the score.
        setting: how it was asked, in words.
        num_fewshot: examples in the prompt; None where unknown.
        difference: b less a.
        p_holm: the p-value corrected for the number of tasks compared.
        notes: what was left out.
    """

    task: str
    metric: str
    setting: str
    num_fewshot: int | None
    difference: Difference
    p_holm: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDifferences:
    """All tasks of two checkpoints.

    Attributes:
        found: one entry a task and setting.
        skipped: why a task that both have was not compared, in words.
    """

    found: tuple[TaskDifference, ...]
    skipped: tuple[str, ...]


def task_differences(
    store: Store,
    a: Chosen,
    b: Chosen,
    *,
    tasks: Sequence[str] = (),
    metric: str | None = None,
    num_fewshot: int | None = None,
    level: float = 0.95,
) -> TaskDifferences:
    """Compare two checkpoints on every task, paired by document.

    Without the answers to single documents, as in most imported results, the difference is that
    of two means as if of different documents: its interval is too wide, and ``paired`` says so.

    Args:
        store: the results.
        a: the first checkpoint.
        b: the second.
        tasks: names; all that both have where there are none.
        metric: None takes the first of :data:`SCORES` that both have.
        num_fewshot: only tasks asked with so many examples.
        level: of the intervals.

    Returns:
        A task asked in several ways by both is one entry a way.

    Raises:
        BadRequest: a task or a metric that one of the two does not have.
        Refused: a named task was asked in different ways, or no document is shared.
    """
    rows = {one: with_settings(store, one.weights, num_fewshot) for one in (a, b)}
    names = {one: set(rows[one]["subject"]) for one in (a, b)}
    for task in tasks:
        for one in (a, b):
            if task not in names[one]:
                raise _no_task(task, one, names[one])
    found: list[TaskDifference] = []
    skipped: list[str] = []
    for task in steps("comparing", list(dict.fromkeys(tasks)) or sorted(names[a] & names[b])):
        try:
            own = [rows[one].filter(pl.col("subject") == task) for one in (a, b)]
            for way in shared_ways(task, own, [a.name, b.name], metric, SCORES):
                found.append(_difference(store, task, way, own, (a, b), level))
        except (BadRequest, Refused) as error:
            if tasks:
                raise
            skipped.append(f"{task}: {error.what.rstrip('.')} ({error.asked})")
    corrected = holm_corrected([one.difference.p_value for one in found])
    return TaskDifferences(
        found=tuple(replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)),
        skipped=tuple(skipped),
    )


def _difference(
    store: Store,
    task: str,
    way: Way,
    parts: Sequence[pl.DataFrame],
    names: tuple[Chosen, Chosen],
    level: float,
) -> TaskDifference:
    metric = way.metric
    chosen = [pl.col("setting") == way.key, pl.col("metric") == metric]
    # a checkpoint that was measured and imported may have two rows: the latest
    rows = [part.filter(*chosen).row(-1, named=True) for part in parts]
    cells = [str(row["cell"]) for row in rows]
    shots = rows[0]["num_fewshot"]
    notes = []
    if set(cells) <= store.cells_with_items(task):
        got = shared_scores(store, task, cells, metric)
        if not got.documents:
            raise Refused(
                f"{names[0].name} and {names[1].name} share no document of {task}.",
                asked=f"{got.unlike} documents of one name ask different things, "
                f"{got.unscored} have no known {metric}",
                remedy="measure both with the same limit and seed: isoloss run STUDY.toml",
            )
        found = paired_difference(got.scores[0], got.scores[1], level=level)
        notes = _left_out(got.unlike, got.unscored, found.n, rows)
        means = [row["value"] for row in rows]
        whole = not notes
        if whole and any(
            isinstance(x, float) and not math.isclose(x, y, abs_tol=_ROUNDING)
            for x, y in zip(means, (found.a, found.b), strict=True)
        ):
            notes.append(
                f"the task's own scorer gives {means[0]} and {means[1]}: it is not the mean of "
                "the documents' scores compared here"
            )
    else:
        found = _of_means(rows, level)
        notes = ["no answers to single documents are kept: the interval is that of two samples of "
                 "documents, too wide"]  # fmt: skip
    return TaskDifference(
        task=task,
        metric=metric,
        setting=way.told,
        num_fewshot=shots if isinstance(shots, int) else None,
        difference=found,
        notes=tuple(notes),
    )


def _left_out(
    unlike: int, unscored: int, n: int, rows: Sequence[Mapping[str, object]]
) -> list[str]:
    notes = []
    if unlike:
        notes.append(f"{unlike} documents of one name ask different things and are left out")
    if unscored:
        notes.append(f"{unscored} documents without a known score are left out")
    more = max(_estimate(row).n for row in rows) - n
    if more > unlike + unscored:
        notes.append(f"{more - unlike - unscored} documents stand at one checkpoint alone")
    return notes


def _of_means(rows: Sequence[Mapping[str, object]], level: float) -> Difference:
    a, b = (_estimate(row) for row in rows)
    stderr = None if a.stderr is None or b.stderr is None else math.hypot(a.stderr, b.stderr)
    both = Estimate(value=b.value - a.value, stderr=stderr, n=min(a.n, b.n))
    return difference_of(both, a.value, b.value, level=level, paired=False)


def _estimate(row: Mapping[str, object]) -> Estimate:
    value, stderr, n = row["value"], row["stderr"], row["n"]
    return Estimate(
        value=value if isinstance(value, float) else math.nan,
        stderr=stderr if isinstance(stderr, float) else None,
        n=n if isinstance(n, int) else 0,
    )


def _no_task(task: str, one: Chosen, known: set[str]) -> BadRequest:
    return BadRequest(
        f"{one.name} has no scores of this task.",
        asked=task,
        nearest=nearest_name(task, known) or ", ".join(sorted(known)[:12]) or None,
        remedy="--task with one of these, or measure it: isoloss run --tasks",
    )
