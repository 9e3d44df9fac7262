"""Cells measured in a process of their own: it is ended when it hangs, and replaced when it dies.

A call into a library that never returns can be stopped in no other way. The process keeps its
model from one checkpoint to the next; what it measures goes straight into the store.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple

import isoloss
from isoloss.engine.ray_hands import DEATHS
from isoloss.engine.ray_worker import Answer, Assignment, Worker
from isoloss.engine.worklist import Work
from isoloss.errors import CellFatal, WorkersLost
from isoloss.family import Source
from isoloss.interrupt import kept_from_children
from isoloss.study import Study

if TYPE_CHECKING:
    from isoloss.engine.jobs import Job
    from isoloss.engine.local import Runner

_LOOKS = 100  # within the time limit
_STARTS = 3  # processes that die before they begin
# what takes seconds to import, once for all processes that follow one another
_PRELOADED = ["isoloss.engine.apart", "isoloss.engine.local", "isoloss.models.load"]


class _Process(NamedTuple):
    process: BaseProcess
    orders: Connection


class _Lost(Exception):
    """The process hung, and was ended, or died by itself."""

    def __init__(self, why: str, *, overdue: bool) -> None:
        super().__init__(why)
        self.overdue = overdue


class Apart:
    """Measures cells of one checkpoint after the other in another process.

    Args:
        study: what is measured.
        out: address of the store, which this process holds for writing.
        seconds: after which a cell, or loading a checkpoint, counts as hanging.
    """

    def __init__(self, study: Study, out: str, seconds: float) -> None:
        self._study, self._out, self.seconds = study, out, seconds
        self._at: _Process | None = None

    def measure(
        self,
        runner: Runner,
        work: Work,
        jobs: Sequence[Job],
        following: Source | None,
        wanted: Callable[[Job], bool],
    ) -> None:
        """Measure cells of a checkpoint, as :meth:`isoloss.engine.local.Runner.measure` does.

        A cell whose process died is measured again; one that ended several, or took too long, is
        kept as a failure, and the others are measured.

        Raises:
            WorkersLost: processes die before they begin.
            IsolossError: something stops the whole run, such as a full disk.
        """
        name, before = work.resolved.checkpoint.name, runner.failed
        left, deaths, loaded = deque(jobs), Counter[str](), False
        assert work.beside is not None
        while left:
            job = left[0] if loaded else None
            try:
                if job is None:
                    cells = tuple(job.cell.id for job in left)
                    assignment = Assignment(resolved=work.resolved, beside=work.beside, cells=cells,
                                            never=frozenset(), following=following)  # fmt: skip
                    if not runner.hear(self._ask("take", assignment)).cells:
                        return  # it cannot be loaded, which stands in the store
                    loaded = True
                    continue
                if wanted(job):
                    answer = runner.hear(self._ask("measure", job.cell.id))
                    if not answer.failures:
                        runner.count(name, job)
            except _Lost as lost:
                loaded = False
                key = job.cell.id if job else ""
                deaths[key] += 1
                if not lost.overdue and deaths[key] < DEATHS:
                    what = job.label if job else "loading"
                    runner.progress.note(f"{name} {what}: {lost}; it is done again")
                    continue
                runner.fail(self._fatal(lost), name, job)
                if job is None:
                    return
            left.popleft()
        if loaded and runner.failed == before:
            with suppress(_Lost):  # all cells are there
                runner.hear(self._ask("leave"))

    def close(self) -> None:
        """End the process."""
        if self._at is not None:
            self._at.process.kill()  # every file is written whole, so that any moment will do
            self._at.process.join()
            self._at.orders.close()
            self._at = None

    def _fatal(self, lost: _Lost) -> CellFatal:
        if lost.overdue:
            return CellFatal(
                f"it was not done after {self.seconds:g} s, and was stopped.",
                asked=f"run.cell_timeout = {self._study.run.cell_timeout!r}",
                remedy="raise run.cell_timeout, or measure less: fewer tokens, or a limit on the"
                " task; the next run tries it again",
            )
        return CellFatal(
            f"{DEATHS} processes died of it.",
            asked=str(lost),
            remedy="if memory ran out lower run.memory_budget; the next run tries it again",
        )

    def _ask(self, what: str, *words: Any) -> Answer:
        at = self._at or self._start()
        return self._answer(at, what, *words, seconds=self.seconds)

    def _answer(self, at: _Process, what: str, *words: Any, seconds: float | None) -> Answer:
        try:
            at.orders.send((what, words))
            # looks are counted, and not the time: this process may have been suspended as well
            looks = 0
            while not at.orders.poll(None if seconds is None else seconds / _LOOKS):
                looks += 1
                if looks >= _LOOKS:
                    self.close()
                    raise _Lost("its process did not answer", overdue=True)
            answer: Answer = at.orders.recv()
        except (EOFError, OSError):
            at.process.join()
            status = at.process.exitcode
            self.close()
            raise _Lost(f"its process ended with status {status}", overdue=False) from None
        if answer.stop is not None:
            raise answer.stop
        return answer

    def _start(self) -> _Process:
        context = multiprocessing.get_context("forkserver")  # a fork would inherit torch's threads
        context.set_forkserver_preload(_PRELOADED)
        for _ in range(_STARTS):
            orders, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(self._study, self._out, theirs), daemon=True
            )
            with kept_from_children():
                process.start()
            theirs.close()
            self._at = _Process(process, orders)
            try:
                self._answer(self._at, "start", seconds=None)
            except _Lost as lost:
                why = str(lost)
            else:
                return self._at
        raise WorkersLost(
            "the processes that measure cells die before they begin.",
            asked=why,
            remedy='a script that calls isoloss.run needs its `if __name__ == "__main__"`; without'
            " run.cell_timeout no process is needed",
        )


def end_with_parent() -> None:
    """End this process when the one that started it is gone: nobody would hear of it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)  # every file is written whole, so that any moment will do

    threading.Thread(target=wait, daemon=True).start()


def _serve(study: Study, out: str, orders: Connection) -> None:
    """Do what is ordered until nobody is there to order."""
    end_with_parent()
    worker = Worker(study, out, (), isoloss.__version__)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            what, words = orders.recv()
            orders.send(getattr(worker, what)(*words))
