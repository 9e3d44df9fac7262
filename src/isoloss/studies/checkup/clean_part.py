"""Tasks whose documents also stand in a text, and scores on the documents that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from isoloss.engine.subjects import Subjects, named
from isoloss.errors import BadRequest
from isoloss.estimate import mean
from isoloss.steps import steps
from isoloss.store import Store
from isoloss.store.schema import TASK_PROBE
from isoloss.studies.checkup.fault import Fault, point_name
from isoloss.studies.comparison.documents import SCORES, item_scores
from isoloss.study import Study
from isoloss.study_probes import ProbesSpec, TaskScoreSpec
from isoloss.tasks.overlap import FEWEST_WORDS, document_text, shares, word_runs

MOSTLY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOverlap:
    """A task's documents in one text.

    Attributes:
        task: its name.
        against: the text.
        documents: of the task.
        overlapping: with at least one 13-gram in the text.
        mostly: with at least 80% of their 13-grams in it.
        too_short: of fewer than 8 words, which tell nothing.
        mean_share: share of 13-grams in the text, mean over documents that tell something; None
            where none does.
    """

    task: str
    against: str
    documents: int
    overlapping: int
    mostly: int
    too_short: int
    mean_share: float | None

    def fault(self) -> Fault | None:
        """What is wrong where documents overlap."""
        if not self.overlapping:
            return None
        return Fault(
            level="suspicious",
            kind="overlap",
            where=f"{self.task} in {self.against}",
            what=f"{self.overlapping} of {self.documents} documents share 13 words in a row "
            f"(shorter ones all their words) with the text, {self.mostly} of them at least 80% "
            "of their 13-grams",
            remedy="read the scores on the clean part beside the others",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanScore:
    """One score of one checkpoint on all documents and on those that overlap with no text.

    Attributes:
        task: its name.
        checkpoint: whose score.
        num_fewshot: examples in every prompt.
        cell: as in the store.
        metric: which score.
        value: on all documents that have one.
        n: those documents.
        clean: on those that overlap with no text; None where there are none.
        clean_stderr: of that.
        clean_n: those documents.
    """

    task: str
    checkpoint: str
    num_fewshot: int | None
    cell: str
    metric: str
    value: float
    n: int
    clean: float | None
    clean_stderr: float | None
    clean_n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """What was found, by task and text, and by score."""

    overlaps: tuple[TaskOverlap, ...]
    scores: tuple[CleanScore, ...]


def overlaps(store: Store, study: Study, against: Sequence[Path]) -> Overlaps:
    """Look for a study's tasks in texts, and score every checkpoint without what was found.

    Documents are taken without their examples. A document too short to tell is in neither part.

    Args:
        store: per-document results.
        study: its tasks.
        against: texts, read once each.

    Raises:
        BadRequest: the study has no task.
        BadData: a text or a task cannot be read.
    """
    texts = _texts(study)
    found: list[TaskOverlap] = []
    worst: dict[tuple[str, str], float] = {}
    for file in steps("looking for the tasks' texts", against):
        share = shares(texts, word_runs(file))
        for task in dict.fromkeys(task for task, _ in texts):
            own = [value for (name, _), value in share.items() if name == task]
            found.append(_overlap(task, file, own))
        for key, value in share.items():
            if value is not None:
                worst[key] = max(worst.get(key, 0.0), value)
    scores = [
        score
        for task in dict.fromkeys(task for task, _ in texts)
        for score in _clean_scores(
            store, task, [doc for (name, doc), value in worst.items() if name == task and not value]
        )
    ]
    return Overlaps(overlaps=tuple(found), scores=tuple(scores))


def _texts(study: Study) -> dict[tuple[str, str], str]:
    score = study.probe.task_score
    if score is None or not named(score.task, study.task):
        raise BadRequest(
            "the study asks no task, so that there is nothing to look for in a text.",
            asked="--against",
            remedy="name the study with [task.NAME] and [probe.task_score]: --study STUDY.toml",
        )
    bare = {
        name: spec.model_copy(update={"num_fewshot": 0, "fewshot_path": None})
        for name, spec in study.task.items()
    }
    only = ProbesSpec(task_score=TaskScoreSpec(task=score.task))
    tasks = Subjects(study.model_copy(update={"task": bare, "probe": only})).tasks
    return {
        (name, document.doc): document_text(document)
        for name, task in tasks.items()
        for document in task.documents
    }


def _overlap(task: str, file: Path, own: Sequence[float | None]) -> TaskOverlap:
    told = [value for value in own if value is not None]
    return TaskOverlap(
        task=task,
        against=str(file),
        documents=len(own),
        overlapping=sum(value > 0 for value in told),
        mostly=sum(value >= MOSTLY for value in told),
        too_short=len(own) - len(told),
        mean_share=float(np.mean(told)) if told else None,
    )


def _clean_scores(store: Store, task: str, clean: Sequence[str]) -> list[CleanScore]:
    rows = store.measurements().filter(
        pl.col("probe") == TASK_PROBE,
        pl.col("subject") == task,
        pl.col("metric").is_in(list(SCORES)),
    )
    measured = rows.collect()
    if not measured.height:
        return []
    by_cell: Mapping[str, pl.DataFrame] = {
        str(cell): part for (cell,), part in store.items(task).collect().group_by("cell")
    }
    found = []
    for row in measured.iter_rows(named=True):
        items = by_cell.get(row["cell"])
        if items is None:
            continue
        scores = item_scores(items, row["metric"])
        if not np.isfinite(scores).any():
            continue
        known, is_clean = np.isfinite(scores), items["doc"].is_in(list(clean)).to_numpy()
        part = mean(scores[known & is_clean])
        found.append(
            CleanScore(
                task=task,
                checkpoint=point_name(row),
                num_fewshot=row["num_fewshot"],
                cell=row["cell"],
                metric=row["metric"],
                value=mean(scores[known]).value,
                n=int(known.sum()),
                clean=part.value if part.n else None,
                clean_stderr=part.stderr,
                clean_n=part.n,
            )
        )
    return found


def short_note(found: Sequence[TaskOverlap]) -> str | None:
    """A line on documents that are too short to tell, where there are some."""
    short = {one.task: one.too_short for one in found if one.too_short}
    if not short:
        return None
    told = ", ".join(f"{task} {count}" for task, count in short.items())
    return f"documents of fewer than {FEWEST_WORDS} words are in neither part: {told}"
