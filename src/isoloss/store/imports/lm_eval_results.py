"""Result files of lm-evaluation-harness, old format and today's, into a store."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss import __version__
from isoloss.errors import BadData, BadRequest, nearest_name
from isoloss.steps import steps
from isoloss.store.cell import Finished, Setting
from isoloss.store.files import slug
from isoloss.store.imports import harness_file, harness_samples, names
from isoloss.store.imports.filing import (
    DIGEST,
    ImportReport,
    cell,
    file_cells,
    weights_hash,
)
from isoloss.store.imports.harness_file import ResultFile
from isoloss.store.imports.harness_scores import Score
from isoloss.store.imports.identical import flag_identical
from isoloss.store.schema import TASK_PROBE
from isoloss.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """One task in one setting at one checkpoint, and which file told which number."""

    checkpoint: Mapping[str, Any]
    subject: str
    settings: Mapping[str, Setting]
    told: dict[str, tuple[Score, ResultFile]]

    @property
    def files(self) -> list[ResultFile]:
        return list({file.digest: file for _, file in self.told.values()}.values())

    def finished(self) -> Finished:
        digest = "+".join(sorted(file.digest for file in self.files))
        return Finished(
            cell=cell(self.checkpoint, TASK_PROBE, self.subject, {**self.settings, DIGEST: digest}),
            rows=[score.row() for score, _ in self.told.values()],
            execution={
                "code_version": __version__,
                "measured_at": max(file.measured_at or "" for file in self.files) or None,
            },
        )


def import_lm_eval(
    path: str | Path,
    store: Store,
    *,
    family: str | None = None,
    tokens_per_step: int | None = None,
    rename: Mapping[str, str] | None = None,
) -> ImportReport:
    """File every number of a folder of result files.

    Steps come from the recorded revision, tokens are steps times ``tokens_per_step``, flops
    6 N D. A model keeps its recorded name. All files of one model and revision are one
    checkpoint; settings tell their series apart. A second import of the same files changes
    nothing; a corrected file replaces the numbers of its model, revision, task and settings.

    Args:
        path: a result file, or a folder that is searched with all folders below it.
        store: not held for writing.
        family: of all models; by default the recorded one (:class:`ResultFile`).
        tokens_per_step: known for EleutherAI/pythia; elsewhere unknown by default.
        rename: recorded names of models to the names they get.

    Returns:
        What was added, and how much is unknown.

    Raises:
        BadData: there is no result file, one is broken, or two contradict each other.
        BadRequest: ``rename`` names a model that no file records.
    """
    files, skipped = _read(Path(path))
    if tokens_per_step is not None and not 0 < tokens_per_step < 2**32:
        raise BadRequest(
            "tokens per step must be a positive number below 2^32.",
            asked=str(tokens_per_step),
            remedy="give batch size times sequence length",
        )
    rename = dict(rename or {})
    recorded = {file.model for file in files}
    for old in rename:
        if old not in recorded:
            raise BadRequest(
                f"no file records a model {old!r}.",
                asked=f"rename {old}={rename[old]}",
                nearest=nearest_name(old, recorded) or ", ".join(sorted(recorded)),
                remedy="name a recorded model before the =",
            )
    checkpoints = {file.path: _checkpoint(file, family, tokens_per_step, rename) for file in files}
    found = [(series, series.finished()) for series in _agreed(files, checkpoints)]
    cells = [done for _, done in found]
    rows = {row["weights_hash"]: row for row in checkpoints.values()}
    with store.writing():
        documents = _put_items(store, found)
        filed = file_cells(store, list(rows.values()), cells)
        flagged = flag_identical(store)
    return dataclasses.replace(
        ImportReport.of(filed, list(rows.values())),
        files=len(files),
        skipped=skipped,
        items=documents,
        nominal_params=_nominal(files, rename),
        not_finite=sum(not math.isfinite(row["value"]) for done in cells for row in done.rows),
        flagged=flagged,
    )


def _read(path: Path) -> tuple[list[ResultFile], tuple[str, ...]]:
    paths = sorted(p for p in path.rglob("*.json") if p.is_file()) if path.is_dir() else [path]
    if not path.exists():
        raise BadData(
            f"there is no file or folder {path}.",
            asked=str(path),
            nearest=nearest_name(path.name, [p.name for p in path.parent.glob("*")]),
            remedy="name a result file of lm-evaluation-harness, or a folder of them",
        )
    files, skipped = [], []
    for file in steps("reading result files", paths):
        found = harness_file.read(file)
        if found is None:
            skipped.append(file.name)
        else:
            files.append(found)
    if not files:
        raise BadData(
            f"there is no result file of lm-evaluation-harness in {path}.",
            asked=f"{len(paths)} JSON files read",
            remedy='name a folder of JSON files that hold {"results": {...}, "config": {...}}',
        )
    return files, tuple(skipped)


def _size(file: ResultFile, rename: Mapping[str, str]) -> names.Size:
    renamed = names.size(rename.get(file.model, file.model), is_pythia=file.is_pythia)
    return renamed if renamed.total else names.size(file.model, is_pythia=file.is_pythia)


def _nominal(files: Sequence[ResultFile], rename: Mapping[str, str]) -> tuple[str, ...]:
    nominal = {file.model for file in files if _size(file, rename).is_nominal}
    return tuple(sorted(rename.get(model, model) for model in nominal))


def _checkpoint(
    file: ResultFile, family: str | None, tokens_per_step: int | None, rename: Mapping[str, str]
) -> dict[str, Any]:
    model = rename.get(file.model, file.model)
    family = family or file.family
    place, size = names.place(file.revision), _size(file, rename)
    if tokens_per_step is None and file.is_pythia:
        tokens_per_step = names.PYTHIA_TOKENS_PER_STEP
    tokens = place.tokens
    if place.step is not None and tokens_per_step is not None:
        tokens = place.step * tokens_per_step
    is_priced = size.total is not None and tokens is not None
    return {
        "family": family,
        "model": model,
        "run": model,
        "stage": place.stage,
        "step": place.step,
        "tokens_seen": tokens,
        "params_total": size.total,
        "params_non_embedding": size.non_embedding,
        "flops": 6.0 * (size.total or 0) * (tokens or 0) if is_priced else None,
        "weights_hash": weights_hash(family, model, file.revision),
        # the same for every file of this checkpoint, whatever the shots
        "source": f"import:lm-eval:{model}@{file.revision or '?'}",
        **file.facts,
    }


def _agreed(
    files: Sequence[ResultFile], checkpoints: Mapping[Path, Mapping[str, Any]]
) -> list[_Series]:
    """One series a task and setting: files may repeat or complete each other, never contradict."""
    found: dict[tuple[Any, ...], _Series] = {}
    for file in files:
        checkpoint = checkpoints[file.path]
        for result in file.tasks:
            key = (checkpoint["weights_hash"], result.task, *sorted(result.settings.items()))
            series = found.get(key)
            if series is None:
                series = found[key] = _Series(
                    checkpoint=checkpoint, subject=result.task, settings=result.settings, told={}
                )
            for score in result.scores:
                before, teller = series.told.setdefault(score.metric, (score, file))
                # repr: NaN equals NaN
                if repr(before.value) != repr(score.value):
                    raise _contradiction(before, teller, score, file, series)
    return list(found.values())


def _contradiction(
    one: Score, first: ResultFile, other: Score, second: ResultFile, series: _Series
) -> BadData:
    return BadData(
        f"two files contradict each other on {series.subject} of {first.model} at "
        f"{first.revision or 'an unknown step'}, {series.settings['num_fewshot']}-shot.",
        asked=f"{one.metric} is {one.value} in {first.path} and {other.value} in {second.path}",
        remedy="keep the right one and move the other out of the folder",
    )


def _put_items(store: Store, found: Sequence[tuple[_Series, Finished]]) -> int:
    finished = store.finished()
    beside: dict[Path, dict[str, Path]] = {}
    documents = 0
    for series, done in found:
        for file in series.files:
            if file.path not in beside:
                beside[file.path] = harness_samples.beside(file.path)
            named = beside[file.path]  # the export's names are safe as names of files
            samples = named.get(series.subject) or named.get(slug(series.subject))
            if samples is None or done.cell.id in finished:
                continue
            items = harness_samples.read(samples)
            if items is not None:
                store.put_items(done.cell, items)
                documents += items.height
    return documents
