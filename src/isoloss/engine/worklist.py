"""The cells of a study, checkpoint by checkpoint, before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from isoloss.engine.jobs import Context, Job, download_cache, jobs_of
from isoloss.engine.resolve import Resolved
from isoloss.engine.subjects import Subjects, shared_window
from isoloss.engine.tokenizers import Tokenizers
from isoloss.engine.traces import TRACES
from isoloss.errors import BadCheckpoint, BadRequest, BadStudy, IsolossError, nearest_name
from isoloss.study import ProbesSpec, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One checkpoint and all of its cells.

    Attributes:
        resolved: the checkpoint.
        jobs: its cells; none where it cannot be read.
        tokenizer: its tokenizer.
        error: why it cannot be read.
    """

    resolved: Resolved
    jobs: tuple[Job, ...] = ()
    tokenizer: Any = None
    error: IsolossError | None = None

    def pending(self, finished: Collection[str]) -> list[Job]:
        """The cells that are not in the store yet."""
        return [job for job in self.jobs if job.cell.id not in finished]


def worklist(
    study: Study, subjects: Subjects, points: list[Resolved], only: Collection[str] = ()
) -> list[Work]:
    """Lay out every cell of a study.

    Two checkpoints of equal weights share their cells: the second one has none of its own.

    Args:
        study: what to measure.
        subjects: its corpora and tasks.
        points: its checkpoints.
        only: probes to keep; none keeps all.

    Returns:
        One entry a checkpoint, in order.

    Raises:
        BadRequest: ``only`` names no probe.
        BadStudy: there is nothing to measure, or an option cannot apply to a model.
    """
    _check_only(only)
    _check_probes(study)
    window = shared_window([p.description.config for p in points if p.description])
    tokenizers = Tokenizers(download_cache(study))
    seen: set[str] = set()
    works = []
    for point in points:
        if point.description is None:
            works.append(Work(resolved=point, error=point.error))
            continue
        try:
            known = tokenizers.of(point.checkpoint.source)
            steps = list(_steps_beside(points, point))
            context = Context(
                study=study,
                subjects=subjects,
                resolved=point,
                description=point.description,
                tokenizer=known.tokenizer,
                tokenizer_hash=known.hash,
                window=window,
                steps=steps,
            )
            jobs = jobs_of(context)
        except BadCheckpoint as error:
            works.append(Work(resolved=point, error=error))
            continue
        own = [j for j in jobs if j.cell.id not in seen and (not only or j.cell.probe in only)]
        seen.update(job.cell.id for job in own)
        works.append(Work(resolved=point, jobs=tuple(own), tokenizer=known.tokenizer))
    return works


def _steps_beside(points: list[Resolved], point: Resolved) -> Iterator[int]:
    for other in points:
        step = other.checkpoint.step
        if other.checkpoint.run == point.checkpoint.run and step is not None:
            yield step


def _check_only(only: Collection[str]) -> None:
    known = ProbesSpec.model_fields
    for name in only:
        if name not in known:
            raise BadRequest(
                f"there is no probe {name}.",
                asked=f"--only {name}",
                nearest=nearest_name(name, known) or ", ".join(known),
                remedy="name probes of the study",
            )


def _check_probes(study: Study) -> None:
    probe = study.probe
    if not any(getattr(probe, name) for name in ProbesSpec.model_fields):
        raise BadStudy(
            "the study measures nothing.",
            asked="no [probe.NAME] in the file",
            nearest=", ".join(ProbesSpec.model_fields),
            remedy="add [probe.token_loss] and [probe.task_score]",
        )
    languages = [f for f in study.family if f.pretrained is not None]
    if (probe.optimum or probe.hidden_state) and not languages:
        raise BadStudy(
            "optimum and hidden_state need a family that isoloss trained, whose language is known.",
            asked="no [[family]] with pretrained in the file",
            remedy="drop these probes, or train a family: isoloss pretrain FAMILY.toml",
        )
    needs = {"token_loss": (study.corpus, "corpus"), "task_score": (study.task, "task")}
    if not languages:
        needs |= {name: (study.corpus, "corpus") for name in TRACES}
    for name, (subjects, kind) in needs.items():
        if getattr(probe, name) and not subjects:
            raise BadStudy(
                f"probe.{name} has nothing to look at.",
                asked=f"no [{kind}.NAME] in the file",
                remedy=f"add a [{kind}.NAME], or drop the probe",
            )
