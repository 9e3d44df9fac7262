"""Run a study on this machine: load a checkpoint once, measure all of its pending cells, go on."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.engine.beacon import Lit
from isoloss.engine.changed import refuse_changed
from isoloss.engine.conversions import convert_first, drop, is_unknown, made_how
from isoloss.engine.flags import checkpoint_flags
from isoloss.engine.jobs import Bench, Job, download_cache, memory_budget
from isoloss.engine.prefetch import Prefetch
from isoloss.engine.progress import Progress, Silent
from isoloss.engine.resolve import Resolved, described, resolve
from isoloss.engine.results import put_results
from isoloss.engine.schedule import longest_first
from isoloss.engine.shards import Shard, measure_shard
from isoloss.engine.subjects import Subjects
from isoloss.engine.training_logs import attach_training_logs
from isoloss.engine.worklist import Work, worklist
from isoloss.errors import BadRequest, DiskFull, NotWritable, OutOfMemory
from isoloss.family import Source
from isoloss.places import shown
from isoloss.probes.measured import Measured
from isoloss.shown import Shown
from isoloss.store import Failure, Store, checkpoint_key
from isoloss.study import Study

if TYPE_CHECKING:
    from isoloss.engine.apart import Apart
    from isoloss.engine.ray_worker import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary(Shown):
    """How a run ended.

    Attributes:
        store: the store's folder, or its URL.
        done: cells measured now.
        finished_before: cells that stood in the store already.
        failed: cells that could not be measured, and checkpoints that could not be read.
        flagged: checkpoints that look wrong.
        seconds: wall-clock time.
    """

    store: str
    done: int
    finished_before: int
    failed: int
    flagged: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}


def run(
    study: Study,
    *,
    out: str | Path,
    only: Collection[str] = (),
    progress: Progress | None = None,
    shard: Shard | None = None,
    hands: Hands | None = None,
) -> RunSummary:
    """Measure every pending cell of a study.

    A cell is written the moment it ends. A cell or a checkpoint that fails is kept in the store
    with its reason and remedy, and the run goes on; the next run tries it again.

    Args:
        study: what to measure on which family.
        out: the store; made where it does not exist.
        only: probes to run; none runs all.
        progress: is told what happens.
        shard: the part of the checkpoints that this process begins with, where several measure
            one study; None measures all, alone.
        hands: measures the checkpoints, beside others that do, instead of this process.

    Returns:
        Counts of what was done.

    Raises:
        BadStudy: the study cannot be run as it is; nothing is written.
        StoreBusy: another run writes to the store.
        DiskFull: a result could not be written; finished cells are kept.
    """
    started = time.perf_counter()
    watcher = Lit(progress or Silent(), study.name)
    subjects = Subjects(study)
    points = resolve(study, tell=lambda name: watcher.checkpoint(f"reading {name}"))
    if any(is_unknown(point) for point in points):
        worklist(study, subjects, [], only)  # a study that cannot be run converts nothing
        points = convert_first(points, download_cache(study), watcher.checkpoint)
    if Store.stands_at(out):
        points = refuse_changed(Store(out), points)
    works = worklist(study, subjects, points, only)
    if shard is not None:
        works = longest_first(works)
    mine = works if shard is None else shard.own(works)
    store = Store.create(out)
    with store.writing(together=not (shard is None and hands is None)):
        file_facts(store, study, points)
        finished = store.finished()
        pending = sum(len(work.pending(finished)) for work in mine)
        total = sum(len(work.jobs) for work in mine)
        watcher.start(cells=pending, finished=total - pending)
        for task, source in subjects.sources.items():
            watcher.note(f"{task} was read from {source}")
        runner = Runner(store, study, watcher)
        cells = [job.cell.id for work in works for job in work.jobs]
        watcher.begin(store.path, cells=len(cells), finished=len(finished.intersection(cells)),
                      in_store=len(finished))  # fmt: skip
        try:
            if hands is not None:
                hands(runner, works)
            elif shard is None:
                runner.measure_all(works, finished)
            else:
                measure_shard(runner, works, shard)
        finally:
            watcher.stop()
            runner.close()
        if any(is_unknown(point) for point in points):  # known by now
            points = [described(point) if is_unknown(point) else point for point in points]
            file_facts(store, study, points)
        flagged = file_flags(store, points)
    return RunSummary(
        store=shown(out),
        done=runner.done,
        finished_before=total - pending,
        failed=runner.failed,
        flagged=flagged,
        seconds=time.perf_counter() - started,
    )


Hands = Callable[["Runner", Sequence[Work]], None]
"""Measures checkpoints of which a runner's store has not all cells, and counts in the runner."""


def file_facts(store: Store, study: Study, points: Sequence[Resolved]) -> None:
    """Put into a store, held for writing, what is known before anything is measured."""
    with store.tables():
        store.put_study(study.text)
        store.put_checkpoints(
            [point.row() for point in points if point.description and point.error is None]
        )
        attach_training_logs(store, points)


def file_flags(store: Store, points: Sequence[Resolved]) -> int:
    """Put the flags into a store that is held for writing; the number of checkpoints flagged."""
    store.place.refresh()
    with store.tables():  # of several shards the last to come here sees the cells of all
        flags = checkpoint_flags(store, points)
        store.put_flags(flags)
    return len({(flag["run"], flag["step"]) for flag in flags})


class Runner:
    """Measures the cells of one checkpoint after the other.

    Args:
        store: held for writing while anything is measured.
        study: what is measured.
        progress: is told what happens.

    Attributes:
        done: cells measured.
        failed: cells that could not be, and checkpoints that could not be read.
    """

    def __init__(self, store: Store, study: Study, progress: Progress) -> None:
        self.store, self.study, self.progress = store, study, progress
        self.done = self.failed = 0
        self._cache = download_cache(study)
        self._prefetch = Prefetch(self._cache)
        self._bench: Bench | None = None
        self._notes: set[str] = set()
        self._apart: Apart | None = None

    def close(self) -> None:
        """End what was started for the cells."""
        if self._apart is not None:
            self._apart.close()
            self._apart = None

    def measure_all(self, works: Sequence[Work], finished: Collection[str]) -> None:
        """Run the pending cells of every checkpoint, reading the next while one computes."""
        for work in works:
            if not work.unknown:
                self.admit(work)
        left = [work for work in works if work.is_left(finished)]
        for i, work in enumerate(left):
            following = left[i + 1].resolved.checkpoint.source if left[i + 1 :] else None
            known = self.admit(work) if work.unknown else work
            if known.error is None:
                self.measure(known, known.pending(finished), following)

    def admit(self, work: Work) -> Work:
        """Forget why a checkpoint could not be read before; keep why it cannot be now.

        Returns:
            The checkpoint with its cells: one that was unknown is converted and filed.
        """
        name = work.resolved.checkpoint.name
        self.store.clear_failures([checkpoint_key(name)])
        if work.lay_out is not None:
            self.progress.checkpoint(made_how(work.resolved))
            work = _held_against(self.store, work.lay_out())
            if work.resolved.description is not None:
                self.store.put_checkpoints([work.resolved.row()])
        if work.error is not None:
            self.fail(work.error, name)
        return work

    def measure(
        self,
        work: Work,
        jobs: Sequence[Job],
        following: Source | None = None,
        *,
        wanted: Callable[[Job], bool] = lambda job: True,
    ) -> None:
        """Load a checkpoint and measure cells of it.

        Args:
            work: the checkpoint.
            jobs: its cells.
            following: the checkpoint to read meanwhile.
            wanted: asked before each cell.
        """
        if not jobs:  # so it turned out when it was converted
            self.leave(work, None, failed=False)
            return
        failed, seconds = self.failed, self.study.run.cell_seconds
        if seconds is not None:
            # costs a second to import, and is rarely needed
            from isoloss.engine.apart import Apart

            self.progress.checkpoint(work.resolved.checkpoint.name)
            self._apart = self._apart or Apart(self.study, self.store.place.address, seconds)
            self._apart.measure(self, work, jobs, following, wanted)
            self.leave(work, None, failed=self.failed > failed)
            return
        bench = self.load(work, following)
        if bench is None:
            return
        for job in jobs:
            if wanted(job):
                self.run_cell(job, bench, work.resolved.checkpoint.name)
        self.leave(work, bench, failed=self.failed > failed)

    def load(self, work: Work, following: Source | None = None) -> Bench | None:
        """Load a checkpoint, and begin to read the one that follows.

        Returns:
            The model to measure; None where it cannot be loaded, which is kept as a failure.
        """
        name = work.resolved.checkpoint.name
        self.progress.checkpoint(name)
        self._prefetch.wait()
        try:
            bench = self._take(work)
        except Exception as error:  # whatever a broken file raises, the others are measured
            self._bench = None
            self.fail(error, name)
            return None
        if following is not None:
            self._prefetch.start(following)
        return bench

    def leave(self, work: Work, bench: Bench | None, *, failed: bool) -> None:
        """Be done with a checkpoint: what it was converted into goes, unless a cell failed."""
        if not failed:
            drop(work.resolved.checkpoint.source, self._cache)
        for note in bench.notes() if bench is not None else ():
            self._tell(note)

    def _take(self, work: Work) -> Bench:
        """The checkpoint on the bench: copied into the model there, or loaded anew."""
        # torch takes a second to import: a finished study does without
        import torch

        from isoloss.models.load import load

        run, source = self.study.run, work.resolved.checkpoint.source
        torch.set_num_threads(run.threads)
        if self._bench is not None:
            try:
                self._bench.take(source, work.tokenizer, cache=self._cache)
            except BadRequest:  # another shape
                self._bench = None
                gc.collect()  # two models at once would double the peak
            else:
                return self._bench
        loaded = load(source, dtype=run.dtype, device=resolve_device(run.device), cache=self._cache)
        self._bench = Bench(loaded, memory_budget=memory_budget(self.study))
        return self._bench

    def run_cell(self, job: Job, bench: Bench, checkpoint: str) -> None:
        """Measure a cell of the loaded checkpoint and put it into the store.

        Raises:
            DiskFull: there was no room for it.
            NotWritable: the store takes nothing any more; any other error is kept as a failure.
        """
        started = time.perf_counter()
        try:
            measured = self._measured(job, bench)
            put_results(self.store, job, measured, time.perf_counter() - started)
        except (DiskFull, NotWritable):
            raise
        except Exception as error:  # a cell that fails is a row with its reason
            self.fail(error, checkpoint, job)
        else:
            self.count(checkpoint, job)

    def count(self, checkpoint: str, job: Job) -> None:
        """Count a cell that was measured."""
        self.done += 1
        self.progress.done(f"{checkpoint} {job.label}")

    def hear(self, answer: Answer) -> Answer:
        """Pass on what another process tells, whose failures stand in the store already."""
        self.failed += len(answer.failures)
        for label, reason in answer.failures:
            self.progress.failed(label, reason)
        for note in answer.notes:
            self._tell(note)
        return answer

    def _measured(self, job: Job, bench: Bench) -> Measured:
        """Measure; where memory runs out, once more with passes half as large."""
        from isoloss.scoring.scorer import is_out_of_memory

        try:
            return job.measure(bench)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # not before here: the error held what the pass had made
        bench.halve()
        self._tell("memory ran out: passes are half as large from now on")
        try:
            return job.measure(bench)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            line = str(error).partition("\n")[0]
            raise OutOfMemory(
                f"memory ran out, also with passes half as large: {line}",
                asked=f"run.memory_budget = {self.study.run.memory_budget!r}",
                remedy="lower run.memory_budget, measure fewer tokens at once, or use a device"
                " with more memory; the next run tries it again",
            ) from error

    def fail(self, error: Exception, checkpoint: str, job: Job | None = None) -> None:
        """Keep why a cell, or all of a checkpoint, could not be measured."""
        self.failed += 1
        failure = Failure.of(error, checkpoint, job.cell if job else None)
        self.store.put_failure(failure)
        label = f"{checkpoint} {job.label}" if job else checkpoint
        self.progress.failed(label, failure.reason)

    def _tell(self, note: str) -> None:
        if note not in self._notes:
            self._notes.add(note)
            self.progress.note(note)


def _held_against(store: Store, work: Work) -> Work:
    """A checkpoint that is known only now, refused where other weights were measured as it."""
    (point,) = refuse_changed(store, [work.resolved])
    if point is work.resolved:
        return work
    return replace(work, resolved=point, jobs=(), error=point.error)


def resolve_device(device: str) -> str:
    """The device that ``auto`` stands for here."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
