"""One process a device, each a shard of the study; what they tell comes back to this process."""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from isoloss.engine.apart import end_with_parent
from isoloss.engine.local import RunSummary, run
from isoloss.engine.progress import Progress, Silent
from isoloss.engine.shards import Shard
from isoloss.errors import BadRequest, IsolossError, WorkersLost
from isoloss.interrupt import kept_from_children
from isoloss.places import shown
from isoloss.study import Study


def parse_devices(text: str) -> tuple[str, ...]:
    """The devices a list names.

    >>> parse_devices("0-2,5")
    ('cuda:0', 'cuda:1', 'cuda:2', 'cuda:5')
    >>> parse_devices("cpu,cpu")
    ('cpu', 'cpu')
    """
    devices: list[str] = []
    for part in text.replace(" ", "").split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            first = int(match[1])
            devices += [f"cuda:{i}" for i in range(first, int(match[2] or first) + 1)]
        elif re.fullmatch(r"cpu|mps|(cuda|xpu):\d+", part):
            devices.append(part)
        else:
            devices.clear()
            break
    if not devices:
        raise BadRequest(
            "the devices cannot be read.",
            asked=f"--devices {text}",
            nearest="--devices 0-7",
            remedy="list GPU numbers and ranges, such as 0-3,6, or devices, such as cpu,cpu",
        )
    if twice := sorted({d for d in devices if d != "cpu" and devices.count(d) > 1}):
        raise BadRequest(
            f"{twice[0]} is listed twice.",
            asked=f"--devices {text}",
            remedy="name each GPU once: two processes on one take each other's memory",
        )
    return tuple(devices)


def run_on_devices(
    study: Study,
    devices: Sequence[str],
    *,
    out: str | Path,
    only: Collection[str] = (),
    progress: Progress | None = None,
    shard: Shard | None = None,
) -> RunSummary:
    """Measure a study with a process on each device; see :func:`isoloss.run`.

    A process that dies loses nothing: the others take over its checkpoints. The calling script
    needs the usual ``if __name__ == "__main__"`` guard.

    Args:
        study: what to measure.
        devices: of the processes, such as those of :func:`parse_devices`.
        out: the store.
        only: probes to run; none runs all.
        progress: is told what happens in all of them.
        shard: this machine's part, where several measure the study.

    Returns:
        Counts over all processes.

    Raises:
        WorkersLost: none of them ended by itself.
        IsolossError: what stopped the first of them, such as a study that cannot be run.
    """
    started = time.perf_counter()
    told = _Told(progress or Silent(), len(devices))
    part = shard or Shard(index=1, count=1)
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    workers: list[BaseProcess] = []
    readers: dict[Connection, int] = {}
    for i, device in enumerate(devices):
        place = Shard(index=(part.index - 1) * len(devices) + i + 1,
                      count=part.count * len(devices))  # fmt: skip
        order = _Order(study.model_copy(update={"run": study.run.replace(device=device)}),
                       str(out), tuple(only), place)  # fmt: skip
        # a pipe each: a queue's lock would die with the process that holds it
        reader, writer = context.Pipe(duplex=False)
        worker: BaseProcess = context.Process(target=_work, args=(order, writer), name=device)
        with kept_from_children():
            worker.start()
        writer.close()
        workers.append(worker)
        readers[reader] = i
    try:
        told.relay(readers)
    finally:
        told.progress.stop()
        for worker in workers:
            worker.terminate()
            worker.join()
    for error in told.errors:
        raise error
    for i, worker in enumerate(workers):
        if i not in told.summaries:
            told.progress.note(f"the process on {worker.name} ended with status {worker.exitcode};"
                               " the others took over its checkpoints")  # fmt: skip
    if not told.summaries:
        raise WorkersLost(
            "every process that measured the study was killed.",
            asked=", ".join(f"{w.name}: status {w.exitcode}" for w in workers),
            remedy="run again, finished cells are kept; with fewer --devices if memory ran out",
        )
    return told.summary(shown(out), time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is to do."""

    study: Study
    out: str
    only: tuple[str, ...]
    shard: Shard


class _Told:
    """What the workers told: one bar for all of them."""

    def __init__(self, progress: Progress, workers: int) -> None:
        self.progress, self._workers = progress, workers
        self.summaries: dict[int, RunSummary] = {}
        self.errors: list[BaseException] = []
        self._starts: list[dict[str, int]] = []
        self._notes: set[str] = set()

    def relay(self, readers: dict[Connection, int]) -> None:
        """Pass on what comes until every worker has ended."""
        while readers:
            for reader in wait(list(readers)):
                assert isinstance(reader, Connection)
                try:
                    event, words = reader.recv()
                except (EOFError, OSError):  # ended, or killed in the middle of a word
                    del readers[reader]
                else:
                    self._take(readers[reader], event, words)

    def _take(self, place: int, event: str, words: Any) -> None:
        match event:
            case "summary":
                self.summaries[place] = words
            case "error":
                self.errors.append(words)
            case "start":
                self._starts.append(words)
                if len(self._starts) == self._workers:
                    keys = ("cells", "finished")
                    self.progress.start(**{k: sum(s[k] for s in self._starts) for k in keys})
            case "note":
                if words not in self._notes:  # every worker has the same to say of a task
                    self._notes.add(words)
                    self.progress.note(words)
            case "failed":
                self.progress.failed(*words)
            case "checkpoint":
                self.progress.checkpoint(words)
            case "done":
                self.progress.done(words)

    def summary(self, out: str, seconds: float) -> RunSummary:
        parts = self.summaries.values()
        return RunSummary(
            store=out,
            done=sum(part.done for part in parts),
            finished_before=sum(part.finished_before for part in parts),
            failed=sum(part.failed for part in parts),
            flagged=max(part.flagged for part in parts),  # the last one saw all
            seconds=seconds,
        )


class _Channel:
    """Progress that is told to another process."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer

    def start(self, *, cells: int, finished: int) -> None:
        self._writer.send(("start", {"cells": cells, "finished": finished}))

    def checkpoint(self, name: str) -> None:
        self._writer.send(("checkpoint", name))

    def done(self, label: str) -> None:
        self._writer.send(("done", label))

    def failed(self, label: str, reason: str) -> None:
        self._writer.send(("failed", (label, reason)))

    def note(self, text: str) -> None:
        self._writer.send(("note", text))

    def stop(self) -> None:
        """The bar is closed where it was opened."""


def _work(order: _Order, writer: Connection) -> None:
    end_with_parent()
    try:
        summary = run(
            order.study,
            out=order.out,
            only=order.only,
            progress=_Channel(writer),
            shard=order.shard,
        )
        writer.send(("summary", summary))
    except IsolossError as error:
        writer.send(("error", error))
    except KeyboardInterrupt:
        return  # the process that started this one speaks
