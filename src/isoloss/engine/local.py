"""Run a study on this machine: load a checkpoint once, measure all of its pending cells, go on."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

import isoloss
from isoloss.corpora.windows import Layout
from isoloss.engine.flags import checkpoint_flags
from isoloss.engine.jobs import Bench, Job, download_cache, memory_budget
from isoloss.engine.progress import Progress, Silent
from isoloss.engine.resolve import Resolved, resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.training_logs import attach_training_logs
from isoloss.engine.worklist import Work, worklist
from isoloss.errors import DiskFull
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
        try:
            runner = _Runner(store, study, watcher)
            for work in works:
                runner.measure(work, finished)
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
        self._notes: set[str] = set()

    def measure(self, work: Work, finished: Collection[str]) -> None:
        """Run the pending cells of a checkpoint."""
        name = work.resolved.checkpoint.name
        self.store.clear_failures([checkpoint_key(name)])
        if work.error is not None:
            self._fail(work.error, name)
            return
        jobs = work.pending(finished)
        if not jobs:
            return
        self.progress.checkpoint(name)
        try:
            bench = self._load(work.resolved)
        except Exception as error:  # whatever a broken file raises, the others are measured
            self._fail(error, name)
            return
        for job in jobs:
            self._run(job, bench, name)
        for note in bench.notes():
            if note not in self._notes:
                self._notes.add(note)
                self.progress.note(note)
        del bench
        gc.collect()  # two models at once would double the peak

    def _load(self, resolved: Resolved) -> Bench:
        # torch takes a second to import: a finished study does without
        import torch

        from isoloss.models.load import load

        run = self.study.run
        torch.set_num_threads(run.threads)
        loaded = load(
            resolved.checkpoint.source,
            dtype=run.dtype,
            device=resolve_device(run.device),
            cache=download_cache(self.study),
        )
        return Bench(loaded, memory_budget=memory_budget(self.study))

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
