"""Run a study on this machine: load a checkpoint once, measure all of its pending cells, go on."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

import isoloss
from isoloss.corpora.windows import Layout
from isoloss.engine.flags import checkpoint_flags
from isoloss.engine.jobs import Bench, Job, download_cache, memory_budget
from isoloss.engine.prefetch import Prefetch
from isoloss.engine.progress import Progress, Silent
from isoloss.engine.resolve import resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.training_logs import attach_training_logs
from isoloss.engine.worklist import Work, worklist
from isoloss.errors import BadRequest, DiskFull
from isoloss.family import Source
from isoloss.probes.measured import Measured
from isoloss.store import Failure, Store, checkpoint_key
from isoloss.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended.

    Attributes:
        store: the store's folder.
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
    study: Study, *, out: str | Path, only: Collection[str] = (), progress: Progress | None = None
) -> RunSummary:
    """Measure every pending cell of a study.

    A cell is written the moment it ends. A cell or a checkpoint that fails is kept in the store
    with its reason and remedy, and the run goes on; the next run tries it again.

    Args:
        study: what to measure on which family.
        out: the store; made where it does not exist.
        only: probes to run; none runs all.
        progress: is told what happens.

    Returns:
        Counts of what was done.

    Raises:
        BadStudy: the study cannot be run as it is; nothing is written.
        StoreBusy: another run writes to the store.
        DiskFull: a result could not be written; finished cells are kept.
    """
    started = time.perf_counter()
    watcher = progress or Silent()
    subjects = Subjects(study)
    points = resolve(study, tell=lambda name: watcher.checkpoint(f"reading {name}"))
    works = worklist(study, subjects, points, only)
    store = Store.create(out)
    with store.writing():
        store.put_study(study.text)
        store.put_checkpoints([point.row() for point in points if point.description])
    attach_training_logs(store, points)
    with store.writing():
        finished = store.finished()
        pending = sum(len(work.pending(finished)) for work in works)
        total = sum(len(work.jobs) for work in works)
        watcher.start(cells=pending, finished=total - pending)
        for task, source in subjects.sources.items():
            watcher.note(f"{task} was read from {source}")
        try:
            runner = _Runner(store, study, watcher)
            runner.measure_all(works, finished)
        finally:
            watcher.stop()
        flags = checkpoint_flags(store, points)
        store.put_flags(flags)
    return RunSummary(
        store=str(out),
        done=runner.done,
        finished_before=total - pending,
        failed=runner.failed,
        flagged=len({(f["run"], f["step"]) for f in flags}),
        seconds=time.perf_counter() - started,
    )


class _Runner:
    """Measures the cells of one checkpoint after the other."""

    def __init__(self, store: Store, study: Study, progress: Progress) -> None:
        self.store, self.study, self.progress = store, study, progress
        self.done = self.failed = 0
        self._cache = download_cache(study)
        self._prefetch = Prefetch(self._cache)
        self._bench: Bench | None = None
        self._notes: set[str] = set()

    def measure_all(self, works: Sequence[Work], finished: Collection[str]) -> None:
        """Run the pending cells of every checkpoint, reading the next while one computes."""
        for work in works:
            name = work.resolved.checkpoint.name
            self.store.clear_failures([checkpoint_key(name)])
            if work.error is not None:
                self._fail(work.error, name)
        pending = [(work, jobs) for work in works if (jobs := work.pending(finished))]
        for i, (work, jobs) in enumerate(pending):
            following = pending[i + 1][0].resolved.checkpoint.source if pending[i + 1 :] else None
            self._measure(work, jobs, following)

    def _measure(self, work: Work, jobs: list[Job], following: Source | None) -> None:
        name = work.resolved.checkpoint.name
        self.progress.checkpoint(name)
        self._prefetch.wait()
        try:
            bench = self._take(work)
        except Exception as error:  # whatever a broken file raises, the others are measured
            self._bench = None
            self._fail(error, name)
            return
        if following is not None:
            self._prefetch.start(following)
        for job in jobs:
            self._run(job, bench, name)
        for note in bench.notes():
            if note not in self._notes:
                self._notes.add(note)
                self.progress.note(note)

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

    def _run(self, job: Job, bench: Bench, checkpoint: str) -> None:
        label = f"{checkpoint} {job.label}"
        started = time.perf_counter()
        try:
            measured = job.measure(bench)
            self._write(job, measured, time.perf_counter() - started)
        except DiskFull:
            raise
        except Exception as error:  # a cell that fails is a row with its reason
            self._fail(error, checkpoint, job)
        else:
            self.done += 1
            self.progress.done(label)

    def _write(self, job: Job, measured: Measured, seconds: float) -> None:
        cell, store = job.cell, self.store
        if measured.items is not None:
            store.put_items(cell, measured.items)
        if measured.token_losses is not None and job.layout is not None:
            layout = job.layout()
            store.put_tokens(cell.subject, layout.layout_hash, _tokens(layout))
            store.put_token_losses(cell, layout.layout_hash, measured.token_losses)
        if measured.arrays:
            store.put_arrays(cell, measured.arrays)
        rows = [
            {
                "metric": row.metric,
                "value": row.estimate.value,
                "stderr": row.estimate.stderr,
                "n": row.estimate.n,
                "unit": row.unit,
            }
            for row in measured.rows
        ]
        store.put_cell(cell, rows, execution(seconds))

    def _fail(self, error: Exception, checkpoint: str, job: Job | None = None) -> None:
        self.failed += 1
        failure = Failure.of(error, checkpoint, job.cell if job else None)
        self.store.put_failure(failure)
        label = f"{checkpoint} {job.label}" if job else checkpoint
        self.progress.failed(label, failure.reason)


def _tokens(layout: Layout) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "token_id": layout.token_id,
            "document": layout.document,
            "position": layout.position,
            "bytes": layout.bytes,
        }
    )


def execution(seconds: float) -> dict[str, Any]:
    """The columns of a cell that tell of one execution: code, when, how long, how much memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "code_version": isoloss.__version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        # kilobytes on Linux, bytes on macOS; the process's peak so far
        "peak_memory": peak if sys.platform == "darwin" else peak * 1024,
    }


def resolve_device(device: str) -> str:
    """The device that ``auto`` stands for here."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
