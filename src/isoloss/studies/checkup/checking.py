"""All checks of a store, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoloss.errors import BadRequest, IsolossError, StoreBusy
from isoloss.store import Store
from isoloss.store.wholeness import ASIDE, examine, set_aside
from isoloss.studies.checkup.clean_part import CleanScore, TaskOverlap, overlaps, short_note
from isoloss.studies.checkup.fault import Fault, point_name
from isoloss.studies.checkup.losses import (
    PrefixEffect,
    impossible_losses,
    measured_prefixes,
    stored_prefixes,
)
from isoloss.studies.checkup.sources import Sources, check_sources
from isoloss.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What a check of a store found.

    Attributes:
        store: the folder.
        files: files read in full.
        cells_forgotten: cells that the next run measures again, for damaged files.
        checkpoints_compared: whose weights were read again.
        checkpoints_gone: whose folder is no longer there.
        checkpoints_elsewhere: of hub repositories and imports, not looked at.
        faults: what is wrong, broken things first.
        prefixes: corpora read with and without a token before each document.
        overlaps: tasks in the texts given.
        scores: every score on the documents that overlap with none of them.
        notes: what could not be looked at.
    """

    store: str
    files: int
    cells_forgotten: int = 0
    checkpoints_compared: int = 0
    checkpoints_gone: int = 0
    checkpoints_elsewhere: int = 0
    faults: tuple[Fault, ...] = ()
    prefixes: tuple[PrefixEffect, ...] = ()
    overlaps: tuple[TaskOverlap, ...] = ()
    scores: tuple[CleanScore, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether numbers are lost or belong to something else."""
        return any(fault.level == "broken" for fault in self.faults)

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check(
    path: str | Path,
    *,
    study: Path | None = None,
    against: Sequence[Path] = (),
    prefix: bool = False,
) -> Checkup:
    """Check a store: its files, its checkpoints, its tasks.

    Damaged files and those of their cells are moved into ``RUN/damaged``, so that the next run
    measures these cells again; nothing else is written.

    Args:
        path: the store.
        study: whose paths and tasks to use; the store's own by default, whose relative paths are
            tried from the store, the folder around it and the current one.
        against: texts to look for the tasks' documents in.
        prefix: also read each corpus with and without a token before each document.

    Raises:
        BadStore: there is no store, or its table of checkpoints is damaged.
        BadRequest: ``against`` or ``prefix`` without a study.
        BadData: a text or a task cannot be read.
    """
    store = Store(path)
    plan = _study(store, study) if against or prefix else None
    whole = examine(store)
    broken = [
        Fault(
            level="broken", kind="damaged_file", where=str(damage.file), what=damage.what,
            remedy=f"it was moved to {ASIDE}; run the study, or the import, again",
        )
        for damage in whole.damaged
    ]  # fmt: skip
    forgotten, notes = 0, []
    if whole.damaged:
        try:
            forgotten = set_aside(store, whole.damaged)
        except StoreBusy as error:
            # nothing else can be read while the damaged files stand
            return Checkup(
                store=str(store.place), files=whole.files, faults=tuple(broken),
                notes=(f"{error.what} Nothing was moved: check again when it has ended.",),
            )  # fmt: skip
    if whole.unfinished:
        notes.append(f"{whole.unfinished} files of cells that did not end: a run died or goes on")
    sources = check_sources(store, plan.folder if plan else _base(store, study))
    prefixes = stored_prefixes(store)
    faults = [*broken, *_flags(store), *sources.faults]
    faults += impossible_losses(store, sources.vocabulary)
    if plan is not None and prefix:
        for effect, prefixed in measured_prefixes(store, plan, sources.folders):
            prefixes.append(effect)
            if fault := effect.fault(prefixed):
                faults.append(fault)
    clean = overlaps(store, plan, against) if plan is not None and against else None
    found = clean.overlaps if clean else ()
    faults += [fault for one in found if (fault := one.fault())]
    if note := short_note(found):
        notes.append(note)
    return Checkup(
        store=str(store.place),
        files=whole.files,
        cells_forgotten=forgotten,
        checkpoints_compared=sources.compared,
        checkpoints_gone=sources.gone,
        checkpoints_elsewhere=sources.elsewhere,
        faults=tuple(sorted(faults, key=lambda fault: fault.level)),  # broken, suspicious
        prefixes=tuple(prefixes),
        overlaps=found,
        scores=clean.scores if clean else (),
        notes=(*notes, *_unseen(sources)),
    )


def _flags(store: Store) -> list[Fault]:
    return [
        Fault(
            level="suspicious", kind=row["kind"], where=point_name(row), what=row["detail"],
            remedy="laws leave it out; look at how this checkpoint was exported",
        )
        for row in store.flags().collect().iter_rows(named=True)
    ]  # fmt: skip


def _unseen(sources: Sources) -> list[str]:
    unseen = {
        "checkpoints whose folder is not there any more (or not from here: --study)": sources.gone,
        "checkpoints of hub repositories or imports, whose weights were not read":
            sources.elsewhere,
    }  # fmt: skip
    return [f"{count} {what}" for what, count in unseen.items() if count]


def _base(store: Store, study: Path | None) -> Path:
    if study is not None:
        return study.resolve().parent
    folders = [store.path.resolve(), store.path.resolve().parent, Path.cwd()]
    sources = [s for s in store.checkpoints().collect()["source"] if s and ":" not in s]
    for folder in folders:
        if any((folder / source).is_dir() for source in sources):
            return folder
    return folders[0]


def _study(store: Store, study: Path | None) -> Study:
    if study is not None:
        return Study.load(study)
    file = store.path / "study.toml"
    if not file.is_file():
        raise BadRequest(
            "the store does not say which study it holds.",
            asked=str(file),
            remedy="name the study file: --study STUDY.toml",
        )
    try:
        # the store may be anyone's: what its study would run is not run
        text = file.read_text(encoding="utf-8")
        return Study.from_text(text, folder=_base(store, None)).without_code()
    except IsolossError as error:
        error.add_note(f"while reading {file}")
        raise
