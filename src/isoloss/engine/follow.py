"""Follow runs that are still training: measure each checkpoint when it is whole, the newest first.

The store is held only while a checkpoint is measured, so that pages, imports and other studies get
at it in between. Checkpoints may be deleted again at any time: what was measured is kept.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from isoloss import config
from isoloss.engine.arrivals import Arrivals, Arrived, Signature
from isoloss.engine.beacon import Lit
from isoloss.engine.changed import refuse_changed
from isoloss.engine.conversions import convert_first
from isoloss.engine.jobs import download_cache
from isoloss.engine.local import Runner, RunSummary, file_facts, file_flags
from isoloss.engine.news import Command, news_of, sentence
from isoloss.engine.progress import Progress, Silent
from isoloss.engine.resolve import Resolved, described, find
from isoloss.engine.subjects import Subjects
from isoloss.engine.worklist import Work, worklist
from isoloss.errors import BadData, BadRequest, DiskFull, IsolossError, StoreBusy
from isoloss.family import Folder, Foreign
from isoloss.places import shown
from isoloss.store import Store
from isoloss.study import Study

EVERY_SECONDS = 60.0


def parse_seconds(text: str) -> float:
    """The time between looks, such as ``60s``, ``5m`` or ``1h``, in seconds.

    >>> parse_seconds("1.5m")
    90.0
    """
    try:
        return config.parse_seconds(text)
    except ValueError as error:
        raise BadRequest(
            "the time between looks cannot be read.",
            asked=f"--every {text}",
            nearest="--every 60s",
            remedy="write a number of seconds, or 30s, 5m, 1h",
        ) from error


def follow_runs(
    study: Study,
    *,
    out: str | Path,
    every: float = EVERY_SECONDS,
    only: Collection[str] = (),
    until: int | None = None,
    on_change: str | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Measure checkpoints as they come; ends at ``until``, or with an interrupt.

    Args:
        study: what to measure; runs that have no checkpoint yet are waited for.
        out: the store.
        every: seconds between looks, and of stillness after which files count as written.
        only: probes to run; none runs all.
        until: ends when every run has come to this step and nothing is left to measure.
        on_change: a command that reads each piece of news as JSON; see :func:`news_of`.
        progress: is told what happens.

    Returns:
        Counts of what was done.

    Raises:
        BadStudy: the study cannot be run as it is.
        DiskFull: a result could not be written; finished cells are kept.
    """
    started = time.perf_counter()
    watcher = Lit(progress or Silent(), study.name)
    command = Command(on_change, watcher) if on_change is not None else None
    follower = _Follower(study, out, only, watcher, every)
    try:
        while True:
            work = follower.next_work()
            if work is not None:
                for record in follower.measure(work):
                    watcher.note(sentence(record))
                    if command is not None:
                        command(record)
            elif until is not None and follower.has_come_to(until):
                break
            else:
                time.sleep(every)
    finally:
        watcher.stop()
        follower.runner.close()
    return RunSummary(
        store=shown(out),
        done=follower.runner.done,
        finished_before=follower.finished_before,
        failed=len(follower.failed),
        flagged=follower.flagged,
        seconds=time.perf_counter() - started,
    )


class _Follower:
    """The state of a followed study between two looks."""

    def __init__(
        self, study: Study, out: str | Path, only: Collection[str], progress: Lit, every: float
    ) -> None:
        self._study, self._only, self._progress, self._every = study, only, progress, every
        self._subjects = Subjects(study)
        worklist(study, self._subjects, [], only)  # refused before anything is written
        self._store = Store.create(out)
        self.runner = Runner(self._store, study, progress)
        self.finished_before = len(self._store.finished())
        self.flagged = 0
        # the files of each checkpoint that failed: it is tried again when they are others
        self.failed: dict[str, Signature] = {}
        self._arrivals = Arrivals(every)
        self._looked: float | None = None
        self._ready: list[Arrived] = []
        self._found: list[Resolved] = []
        self._known: dict[tuple[str, Signature], Resolved] = {}
        self._works: list[Work] = []
        self._told: set[str] = set()

    def next_work(self) -> Work | None:
        """The newest checkpoint that is ready and not measured."""
        if self._looked is None or time.monotonic() - self._looked >= self._every:
            self._look()
        finished = self._store.finished()
        arrived = {a.point.where: a for a in self._ready}
        left = []
        for work in self._works:
            where = work.resolved.where
            if where not in arrived or self.failed.get(where) == arrived[where].signature:
                continue
            if work.error is not None or work.is_left(finished):
                left.append(work)
            elif where in self.failed:  # other files, and their cells are known
                self._forget(work.resolved)
        return max(left, key=lambda work: arrived[work.resolved.where].order, default=None)

    def measure(self, work: Work) -> list[dict[str, Any]]:
        """Measure a checkpoint; the news that it makes."""
        where, store = work.resolved.where, self._store
        signature = next(a.signature for a in self._ready if a.point.where == where)
        before = self.runner.failed
        self.failed.pop(where, None)
        try:
            with store.writing():
                self._file_facts()
                work = self._admit(work, signature)
                if work.error is None:
                    self.runner.measure(work, work.pending(store.finished()))
                self.flagged = file_flags(store, self._points())
        except StoreBusy as error:
            self._progress.note(f"waiting: {error.what} {error.asked or ''}")
            time.sleep(self._every)
            return []
        if self.runner.failed > before:
            if self._is_deleted(work.resolved):
                self._forget(work.resolved)
            else:
                self.failed[where] = signature
        return news_of(store, work.resolved.row()) if work.error is None else []

    def _admit(self, work: Work, signature: Signature) -> Work:
        """Admit a checkpoint, and keep what was found out about it by converting it."""
        known = self.runner.admit(work)
        if known is not work:
            self._works = [known if other is work else other for other in self._works]
            self._known[work.resolved.where, signature] = known.resolved
            self._file_facts()
        return known

    def has_come_to(self, step: int) -> bool:
        """Whether every run has a checkpoint at the step or later, and none is being written."""
        runs: dict[Any, int] = {}
        for point in self._found:
            run = point.checkpoint.run
            runs[run] = max(runs.get(run, -1), point.checkpoint.step or 0)
        return bool(runs) and not self._arrivals.waiting and min(runs.values()) >= step

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            found = list(find(self._study, so_far=True))
            ready = self._arrivals.look(found)
            works = self._lay_out(ready)
        except DiskFull:
            raise
        except IsolossError as error:
            if not self._works:
                raise  # the study itself is at fault
            self._tell(f"this look failed, the next will try again: {error}")
            return
        for point in self._found:
            if self._is_deleted(point):
                self._note_deleted(point)
        for name in self._arrivals.waiting:
            self._tell(f"{name} is still being written")
        if not found:
            self._tell("no checkpoint yet")
        self._found, self._ready, self._works = found, ready, works
        self._light()

    def _lay_out(self, ready: list[Arrived]) -> list[Work]:
        if [(a.point, a.signature) for a in ready] == [
            (a.point, a.signature) for a in self._ready
        ] and self._works:
            return self._works
        known = {}
        for point, signature, _ in ready:
            key = (point.where, signature)
            known[key] = self._known.get(key) or described(point)
        if not known:
            return []
        points = convert_first(list(known.values()), download_cache(self._study))
        points = refuse_changed(self._store, points)
        self._known = dict(zip(known, points, strict=True))
        return worklist(self._study, self._subjects, points, self._only)

    def _light(self) -> None:
        """Tell others how many cells there are so far."""
        cells = [job.cell.id for work in self._works for job in work.jobs]
        finished = self._store.finished()
        self._progress.begin(self._store.path, cells=len(cells), in_store=len(finished),
                             finished=len(finished.intersection(cells)))  # fmt: skip

    def _points(self) -> list[Resolved]:
        return list(self._known.values())

    def _file_facts(self) -> None:
        try:
            file_facts(self._store, self._study, self._points())
        except BadData as error:  # a log whose last line is being written
            self._tell(f"the training log was not read: {error.what}")

    def _note_deleted(self, point: Resolved) -> None:
        name = point.checkpoint.name
        rows = self._store.measurements().filter(
            pl.col("family") == point.checkpoint.run.model.family,
            pl.col("run") == point.checkpoint.run.name,
            pl.col("source").eq_missing(pl.lit(point.where)),
        ).select(pl.len()).collect().item()  # fmt: skip
        kept = "what was measured of it is kept" if rows else "nothing of it had been measured"
        self._tell(f"{name} was deleted; {kept}")
        self._forget(point)

    def _forget(self, point: Resolved) -> None:
        """Drop failures of a checkpoint that is gone, or whose cells are all there."""
        self.failed.pop(point.where, None)
        name = point.checkpoint.name
        failures = self._store.failures().filter(pl.col("checkpoint") == name).collect()
        with contextlib.suppress(StoreBusy), self._store.writing():
            self._store.clear_failures(failures["cell"].to_list())

    def _is_deleted(self, point: Resolved) -> bool:
        source = point.checkpoint.source
        return isinstance(source, Folder | Foreign) and not source.path.exists()

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._progress.note(text)
