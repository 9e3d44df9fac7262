"""From a study's families to checkpoints: where each lies, what is known of it, what is broken.

A family that names nothing is the study's fault and raises; a single broken checkpoint is kept
with its error, so that the others are measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from isoloss.engine.sources import remote_source, source_of
from isoloss.errors import BadStudy, CheckpointMissing, IsolossError
from isoloss.family import Checkpoint, Folder, Foreign, Hub, Model, Remote, Run, Source
from isoloss.models.cache import default_cache
from isoloss.models.converted import remembered
from isoloss.models.folders import FACT_FILES, FolderFacts, find_folders, read_facts
from isoloss.models.hub import list_revisions
from isoloss.models.inspect import Description, describe
from isoloss.models.parameters import training_flops
from isoloss.models.remote import find_remote, read_remote_facts
from isoloss.models.revisions import Revision, choose_revisions, select_steps
from isoloss.places import shown, url_of
from isoloss.pretrain.families import FamilyRecord, RunRecord, read_family
from isoloss.pretrain.log import log_of
from isoloss.pretrain.objectives import Objective
from isoloss.study import CheckpointSpec, FamilySpec, ModelSpec, Study
from isoloss.study_probes import Steps

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A checkpoint of a study, found.

    Attributes:
        checkpoint: which one.
        where: its source as the study writes it, the same on every machine.
        description: what its files say; None where they are broken, or not yet converted or
            fetched.
        error: why it cannot be measured.
        language: folder of the language it was trained on, where isoloss trained it; None for
            real text, whose probabilities are unknown.
        objective: what it was trained to predict, where isoloss trained it.
        train_log: the run's training log, where the study names one or isoloss trained it.
    """

    checkpoint: Checkpoint
    where: str
    description: Description | None = None
    error: IsolossError | None = None
    language: Path | None = None
    objective: Objective | None = None
    train_log: Path | None = None

    def row(self) -> dict[str, Any]:
        """The checkpoint as a row of the store."""
        point, run, known = self.checkpoint, self.checkpoint.run, self.description
        params = known.params_total if known else None
        return {
            "family": run.model.family,
            "model": run.model.name,
            "run": run.name,
            "seed": run.seed,
            "variant": run.variant,
            "stage": point.stage,
            "parent": point.parent,
            "step": point.step,
            "tokens_seen": point.tokens_seen,
            "params_total": params,
            "params_non_embedding": known.params_non_embedding if known else None,
            "flops": training_flops(params, point.tokens_seen),
            "lr": point.lr,
            "schedule": run.schedule,
            "schedule_progress": point.schedule_progress,
            "weights_hash": known.weights_hash if known else None,
            "source": self.where,
            "commit": known.commit if known else None,
        }


def resolve(study: Study, tell: Callable[[str], None] = lambda text: None) -> list[Resolved]:
    """Find and describe every checkpoint of a study.

    Args:
        study: its families.
        tell: receives the name of each checkpoint whose files are being read.

    Returns:
        The checkpoints by family, run and step.

    Raises:
        BadStudy: a family or a pattern is wrong, or a probe asks for a language that none has.
        CheckpointMissing: a folder, revision or listed step is not there.
    """
    found = []
    for point in find(study):
        tell(point.checkpoint.name)
        found.append(described(point))
    _check_languages(study, found)
    return found


def find(study: Study, *, so_far: bool = False) -> Iterator[Resolved]:
    """Find every checkpoint of a study, without a look into its files.

    Args:
        study: its families.
        so_far: of runs that are still going: a run without a checkpoint has none yet, and a listed
            step that is not there is to come.

    Yields:
        The checkpoints by family, run and step, not yet :func:`described`.

    Raises:
        BadStudy: a family or a pattern is wrong.
        CheckpointMissing: a folder, revision or listed step is not there.
    """
    for family in study.family:
        for part in _parts(study, family, so_far):
            try:
                yield from list(part)
            except CheckpointMissing:
                if not so_far:
                    raise


def described(point: Resolved) -> Resolved:
    """A checkpoint with what its files say, or with why they cannot be read.

    One in another format, or at a URL, that was not converted or fetched yet has neither.
    """
    source = point.checkpoint.source
    try:
        if isinstance(source, Foreign | Remote):
            return replace(point, description=remembered(source, default_cache()))
        return replace(point, description=describe(source))
    except IsolossError as error:
        return replace(point, error=error)


def _parts(study: Study, spec: FamilySpec, so_far: bool) -> Iterator[Iterator[Resolved]]:
    """The checkpoints of a family, each run's by themselves."""
    if spec.pretrained is not None:
        folder = study.path(spec.pretrained)
        record = read_family(folder)
        language = _language(folder, record)
        for trained in record.runs:
            yield _pretrained(study, spec.name or record.name, folder, trained, language)
        return
    assert spec.name is not None
    for model in spec.model:
        yield _model(study, spec.name, model, so_far)


def _model(study: Study, family: str, spec: ModelSpec, so_far: bool) -> Iterator[Resolved]:
    log = study.path(spec.train_log) if spec.train_log else None
    for point in _model_points(study, family, spec, so_far):
        yield replace(point, train_log=log)


def _model_points(study: Study, family: str, spec: ModelSpec, so_far: bool) -> Iterator[Resolved]:
    run = Run(
        model=Model(family=family, name=spec.name),
        name=spec.run or spec.name,
        seed=spec.seed,
        variant=spec.variant,
        schedule=spec.schedule,
    )
    if spec.hub is not None:
        listed = list_revisions(spec.hub, spec.revision)
        chosen = _there(spec.steps, [r.step for r in listed]) if so_far else spec.steps
        revisions = choose_revisions(listed, chosen, what=f"model '{spec.name}'")
        several = len({r.trajectory for r in revisions if r.seed is not None or r.variant}) > 1
        for revision in revisions:
            yield _of_revision(revision, _run_of(run, revision, several), spec)
    elif isinstance(spec.checkpoints, str):
        places = _places(study, spec, spec.checkpoints)
        steps = [f.step for _, f in places if f.step is not None]
        chosen = _there(spec.steps, steps) if so_far else spec.steps
        wanted = set(select_steps(chosen, steps, f"model '{spec.name}'")) if steps else set[int]()
        for url, facts in places:
            if facts.step is None and spec.steps == "all" or facts.step in wanted:
                given = CheckpointSpec(path=url or str(facts.path))
                yield _of_place(study, url, facts, run, spec, given)
    else:
        for checkpoint in spec.checkpoints or []:
            url = url_of(checkpoint.path)
            if url is not None:
                told = read_remote_facts(url)
                facts, known = told.facts, told.listed
            else:
                facts = read_facts(study.path(checkpoint.path))
                known = any((facts.path / name).exists() for name in FACT_FILES)
            if not known:
                # the study lists each folder by hand: a number in its name need not be a step
                facts = replace(facts, step=None)
            yield _of_place(study, url, facts, run, spec, checkpoint)


def _places(study: Study, spec: ModelSpec, pattern: str) -> list[tuple[str | None, FolderFacts]]:
    """What a pattern matches, by step: the URL, or None for a folder, and its facts."""
    if url := url_of(pattern):
        return [(one.url, one.facts) for one in find_remote(url)]
    return [(None, f) for f in find_folders(study.path(pattern), files=spec.convert is not None)]


def _of_place(
    study: Study,
    url: str | None,
    facts: FolderFacts,
    run: Run,
    spec: ModelSpec,
    given: CheckpointSpec,
) -> Resolved:
    step = _first(given.step, facts.step)
    checkpoint = Checkpoint(
        run=run,
        source=remote_source(spec, url) if url else source_of(study, spec, facts.path),
        step=step,
        tokens_seen=_first(given.tokens, facts.tokens_seen, _tokens(step, spec)),
        stage=given.stage or spec.stage,
        parent=given.parent or spec.parent,
        lr=_first(given.lr, facts.lr),
        schedule_progress=_first(given.schedule_progress, facts.schedule_progress),
    )
    where = shown(url) if url else _relative(facts.path, study.folder)
    return Resolved(checkpoint=checkpoint, where=where)


def _of_revision(revision: Revision, run: Run, spec: ModelSpec) -> Resolved:
    assert spec.hub is not None
    source = Hub(repo=spec.hub, revision=revision.name, commit=revision.commit)
    checkpoint = Checkpoint(
        run=run,
        source=source,
        step=revision.step,
        tokens_seen=_first(revision.tokens_seen, _tokens(revision.step, spec)),
        stage=revision.stage or spec.stage,
        parent=spec.parent,
    )
    return Resolved(checkpoint=checkpoint, where=str(source))


def _run_of(run: Run, revision: Revision, several: bool) -> Run:
    parts = [run.name] if not several else [run.name, revision.variant, _seed(revision.seed)]
    return replace(
        run,
        name="-".join(part for part in parts if part),
        seed=_first(revision.seed, run.seed),
        variant=revision.variant or run.variant,
    )


def _there(steps: Steps, known: Sequence[int | None]) -> Steps:
    return steps if isinstance(steps, str) else [step for step in steps if step in known]


def _pretrained(
    study: Study, family: str, folder: Path, trained: RunRecord, language: Path | None
) -> Iterator[Resolved]:
    run = Run(
        model=Model(family=family, name=trained.model),
        name=trained.name,
        seed=trained.seed,
        variant=trained.settings.get("variant"),
        schedule=trained.schedule,
    )
    for facts in find_folders(folder / trained.name / "step-*"):
        source: Source = Folder(path=facts.path)
        checkpoint = Checkpoint(
            run=run,
            source=source,
            step=facts.step,
            tokens_seen=facts.tokens_seen,
            stage="pretrain",
            lr=facts.lr,
            schedule_progress=facts.schedule_progress,
        )
        yield Resolved(
            checkpoint=checkpoint,
            where=_relative(facts.path, study.folder),
            language=language,
            objective=trained.settings["train"]["objective"],
            train_log=log_of(folder / trained.name),
        )


def _language(folder: Path, record: FamilyRecord) -> Path | None:
    """Folder of a family's language, where its probabilities are known."""
    language = folder / record.language
    try:
        about = json.loads((language / "language.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return language  # a probe that asks for it says what is wrong
    return None if isinstance(about, dict) and about.get("kind") == "text" else language


def _check_languages(study: Study, found: list[Resolved]) -> None:
    """Refuse probes of a language where there is none but real text."""
    asked = [name for name in ("optimum", "hidden_state") if getattr(study.probe, name)]
    trained = [point for point in found if point.objective is not None]
    if asked and trained and all(point.language is None for point in trained):
        raise BadStudy(
            "the families were trained on real text, whose probabilities are unknown.",
            asked=f"[probe.{asked[0]}]",
            nearest="[probe.token_loss] on a held-out text",
            remedy="drop the probe, or train a family on a language: hmm, pcfg, dyck or lm",
        )


def _tokens(step: int | None, spec: ModelSpec) -> int | None:
    if step is None or spec.tokens_per_step is None:
        return None
    return step * spec.tokens_per_step


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _seed(seed: int | None) -> str | None:
    return None if seed is None else f"seed{seed}"


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
