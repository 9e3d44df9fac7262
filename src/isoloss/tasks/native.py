"""Scores by lm-eval itself: its filters, its ``process_results``, its aggregation.

``acc``, ``acc_norm`` and ``exact_match`` take this project's names; every other metric keeps
its own after ``lm_eval/``. The first filter of a task gives the plain names, the others are
told by a comma and their name, as lm-eval writes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.estimate import Estimate, mean
from isoloss.tasks.task import Response, Verdict

NAMES = {"acc": "accuracy", "acc_norm": "accuracy_per_char", "exact_match": "exact_match"}
"""lm-eval's metric names in the words of the store."""

_POOLED = ("accuracy", "exact_match")
_JACKKNIFE_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtask:
    """An lm-eval task and its requests.

    Attributes:
        name: lm-eval's name of it.
        task: the lm-eval task object.
        docs: its documents.
        instances: the requests of every document, in the order of ``process_results``.
    """

    name: str
    task: Any
    docs: tuple[Any, ...]
    instances: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    """One metric of one subtask: the values of its scored documents and how they are pooled."""

    places: tuple[int, ...]
    values: tuple[Any, ...]
    aggregate: Callable[[Sequence[Any]], Any]
    is_mean: bool

    def estimate(self) -> Estimate | None:
        """The pooled value; None where it is no number."""
        if self.is_mean:
            return mean(self.values)
        value = _number(self.aggregate, self.values)
        if value is None:
            return None
        stderr = jackknife(lambda kept: _number(self.aggregate, kept), self.values)
        return Estimate(value=value, stderr=stderr, n=len(self.values))


class HarnessScoring:
    """The scorer of a task that came from lm-eval; of several subtasks where it was a group."""

    def __init__(self, subtasks: Sequence[Subtask]) -> None:
        self._subtasks = tuple(subtasks)

    def answer(self, place: int) -> str | None:
        """The right answer of a document, as lm-eval's ``doc_to_target`` gives it."""
        for subtask in self._subtasks:
            if place < len(subtask.docs):
                target = subtask.task.doc_to_target(subtask.docs[place])
                first = target[0] if isinstance(target, list) and target else target
                return str(first)
            place -= len(subtask.docs)
        return None

    def score(self, responses: Sequence[Response]) -> Verdict:
        """Score one response a document; those with an unknown log-likelihood are left out."""
        scored: list[dict[str, _Score]] = []
        matched: list[bool | None] = []
        start = 0
        for subtask in self._subtasks:
            part = responses[start : start + len(subtask.docs)]
            start += len(subtask.docs)
            scores = _score_subtask(subtask, part)
            scored.append(scores)
            matched += _matched(scores, len(part))
        names = dict.fromkeys(name for scores in scored for name in scores)
        estimates: dict[str, Estimate] = {}
        for name in names:
            estimates.update(_pool(name, [s[name] for s in scored if name in s], len(scored) > 1))
        return Verdict(scores=estimates, matched=tuple(matched))


def _score_subtask(subtask: Subtask, responses: Sequence[Response]) -> dict[str, _Score]:
    task = subtask.task
    known = [i for i, r in enumerate(responses) if not any(map(math.isnan, r.loglik))]
    if not known:
        return {}
    for i in known:
        _fill(subtask.instances[i], responses[i])
    # lm-eval's filters see all requests of a task at once, through this list
    task._instances = [instance for i in known for instance in subtask.instances[i]]
    task.apply_filters()
    found: dict[str, list[tuple[int, Any]]] = {}
    metrics: dict[str, str] = {}
    for rank, key in enumerate(subtask.instances[known[0]][0].filtered_resps):
        for i in known:
            results = [instance.filtered_resps[key] for instance in subtask.instances[i]]
            for metric, value in task.process_results(subtask.docs[i], results).items():
                name = metric_name(metric, key if rank else None)
                metrics[name] = metric
                found.setdefault(name, []).append((i, value))
    return {name: _score_of(task, metrics[name], pairs) for name, pairs in found.items()}


def _score_of(task: Any, metric: str, pairs: Sequence[tuple[int, Any]]) -> _Score:
    from lm_eval.api.metrics import mean as plain_mean

    aggregate = task.aggregation().get(metric, plain_mean)
    return _Score(
        places=tuple(i for i, _ in pairs),
        values=tuple(value for _, value in pairs),
        aggregate=aggregate,
        is_mean=aggregate is plain_mean,
    )


def metric_name(metric: str, filtered: str | None) -> str:
    """The store's name of an lm-eval metric; ``filtered`` names a filter after the first.

    >>> metric_name("acc", None), metric_name("perplexity", None), metric_name("acc", "strict")
    ('accuracy', 'lm_eval/perplexity', 'lm_eval/acc,strict')
    """
    if filtered is not None:
        return f"lm_eval/{metric},{filtered}"
    return NAMES.get(metric, f"lm_eval/{metric}")


def _fill(instances: Sequence[Any], response: Response) -> None:
    """Put a response where lm-eval looks for its own model's."""
    options = iter(zip(response.loglik, response.is_greedy, strict=True))
    for instance in instances:
        told = response.generated if instance.request_type == "generate_until" else next(options)
        # greedy decoding repeats itself: one answer serves all repeats
        instance.resps = [told] * (instance.repeats or 1)
        instance.filtered_resps = {}


def _matched(scores: dict[str, _Score], documents: int) -> list[bool | None]:
    told: list[bool | None] = [None] * documents
    for name in ("accuracy", "exact_match"):
        if name in scores:
            for place, value in zip(scores[name].places, scores[name].values, strict=True):
                told[place] = bool(value) if value in (0, 1) else None
    return told


def _pool(name: str, scores: Sequence[_Score], is_group: bool) -> dict[str, Estimate]:
    """One metric over the subtasks that have it: documents pooled, or the mean of subtasks."""
    parts = [e for e in (s.estimate() for s in scores) if e is not None]
    if not parts:
        return {}
    if not is_group:
        return {name: parts[0]}
    if not all(score.is_mean for score in scores):
        return {name: macro(parts)}
    micro = mean([value for score in scores for value in score.values])
    if name not in _POOLED:
        return {name: micro}
    return {name: micro, f"{name}_macro": macro(parts), f"{name}_micro": micro}


def macro(parts: Sequence[Estimate]) -> Estimate:
    """Mean of independent subtasks, each of equal weight; n counts all documents.

    >>> macro([Estimate(value=0.0, stderr=0.3, n=5), Estimate(value=1.0, stderr=0.4, n=9)])
    Estimate(value=0.5, stderr=0.25, n=14)
    """
    errors = [part.stderr for part in parts]
    known = [e for e in errors if e is not None]
    stderr = math.sqrt(sum(e**2 for e in known)) / len(parts) if len(known) == len(parts) else None
    value = sum(part.value for part in parts) / len(parts)
    return Estimate(value=value, stderr=stderr, n=sum(part.n for part in parts))


def jackknife(
    aggregate: Callable[[Sequence[Any]], float | None], values: Sequence[Any]
) -> float | None:
    """Standard error of any aggregate, by leaving out one of at most 20 groups at a time.

    Deterministic, where lm-eval resamples; equal to the standard error of the mean when
    ``aggregate`` is the mean and every group one value.

    Returns:
        None for a single value, or where an aggregate of a part is no finite number.

    Reference:
        Efron (1982), The Jackknife, the Bootstrap and Other Resampling Plans, chapter 3.
    """
    groups = min(_JACKKNIFE_GROUPS, len(values))
    if groups < 2:
        return None
    parts = [
        aggregate([v for i, v in enumerate(values) if i % groups != left]) for left in range(groups)
    ]
    if any(part is None or not math.isfinite(part) for part in parts):
        return None
    spread = np.var(np.array(parts, dtype=np.float64))
    return float(np.sqrt((groups - 1) * spread))


def _number(aggregate: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> float | None:
    try:
        value = aggregate(values)
    except OverflowError:  # the perplexity of a model that has learnt nothing
        return math.inf
    return float(value) if isinstance(value, int | float | np.number) else None
