"""What a study would run, what it costs, and how small a difference it can show."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoloss.engine.changed import refuse_changed
from isoloss.engine.costs import PricedCell, bill, price_cell
from isoloss.engine.resolve import resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.throughput import Throughput, rough
from isoloss.engine.worklist import Work, worklist
from isoloss.engine.workload import TRACES
from isoloss.errors import BadRequest
from isoloss.store import Store
from isoloss.study import Study

# two-sided 5% level and 80% power: 1.960 + 0.842
_DETECTABLE = 2.802


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One probe on one subject, over all checkpoints.

    Attributes:
        probe: what is measured.
        subject: on what.
        cells: of all checkpoints.
        pending: of them not in the store yet.
        tokens: through the model, padding included and shared contexts once, for the pending
            cells.
        flops: of the matrix products of the pending cells.
        seconds: of the pending cells on one worker, loading not counted.
        memory_bytes: that the largest model needs for it.
        at_least: it stops when it is sure enough: tokens, flops and seconds are of one pass.
        documents: of a task.
        stderr: of an accuracy at its widest, .5 / sqrt(n).
        smallest_difference: between two checkpoints' accuracies, shown with 80% power at the
            two-sided 5% level if their errors were independent; paired by document it is
            smaller.
    """

    probe: str
    subject: str
    cells: int
    pending: int
    tokens: int
    flops: float
    seconds: float
    memory_bytes: int
    at_least: bool
    documents: int | None
    stderr: float | None
    smallest_difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would run.

    Attributes:
        checkpoints: found, readable or not.
        unreadable: names and reasons of those that are broken.
        to_load: checkpoints with pending cells.
        weight_bytes: of those, read from disk or fetched from a hub.
        items: one a probe and subject.
        seconds: from start to end on all workers; None where nothing is pending.
        shortest_seconds: that no order of the checkpoints can beat.
        worker_hours: of all workers together, their starts included.
        throughput: where the times come from.
        workers: processes, each with a device of its own.
        devices_per_worker: GPUs that hold the largest model; 1 where no memory is stated.
        memory_bytes: that the largest cell needs.
        price: of a device for an hour, as given.
        cost: the price of all devices while they work.
        unknown: corpora and tasks that were never fetched, and are not counted.
        to_convert: checkpoints in another format, whose cells are known once they are converted.
    """

    checkpoints: int
    unreadable: tuple[str, ...]
    to_load: int
    weight_bytes: int
    items: tuple[Item, ...]
    seconds: float | None
    shortest_seconds: float | None
    worker_hours: float | None
    throughput: str
    workers: int
    devices_per_worker: int
    memory_bytes: int
    price: float | None
    cost: float | None
    unknown: tuple[str, ...]
    to_convert: int

    def record(self) -> dict[str, Any]:
        """The plan as plain values."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """One row a probe and subject."""
        return [
            {
                "probe": item.probe,
                "subject": item.subject,
                "cells": item.cells,
                "pending": item.pending,
                "tokens": item.tokens,
                "GFLOP": round(item.flops / 1e9, 1),
                "time": f"{'>= ' if item.at_least else ''}{_duration(item.seconds)}",
                "memory": _size(item.memory_bytes),
                "documents": item.documents,
                "stderr": None if item.stderr is None else f"<= {item.stderr:.3f}",
                "shows a difference of": None
                if item.smallest_difference is None
                else f"{item.smallest_difference:.3f}",
            }
            for item in self.items
        ]

    def lines(self) -> list[str]:
        """The rest of the plan in words."""
        pending = sum(item.pending for item in self.items)
        text = [f"{self.checkpoints} checkpoints, {self.to_load} of them to load: "
                f"{self.weight_bytes / 2**20:,.1f} MiB of weights"]  # fmt: skip
        if self.seconds is not None:
            assert self.shortest_seconds is not None and self.worker_hours is not None
            on = f" on {self.workers:,} workers" if self.workers > 1 else ""
            text.append(f"{pending:,} cells pending: about {_duration(self.seconds)}{on}")
            text.append(f"by the figures of {self.throughput}")
            if self.workers > 1 or self.price is not None:
                text.append(
                    f"{self.worker_hours:,.2f} hours of workers together; no order takes less than "
                    f"{_duration(self.shortest_seconds)}"
                )
            text.append(f"the largest cell needs {_size(self.memory_bytes)} of memory")
            if self.devices_per_worker > 1:
                text.append(f"the largest model needs {self.devices_per_worker} devices a worker")
            if self.cost is not None:
                text.append(f"cost: {self.cost:,.2f} at {self.price:g} an hour of a device")
        if any(item.at_least for item in self.items):
            text.append("a time after >= is of one pass: the probe stops when it is sure enough")
        if self.to_convert:
            text.append(f"{self.to_convert} checkpoints would be converted first; their cells, "
                        "and the cost of these, are known then")  # fmt: skip
        text += [f"not counted, and a plan fetches nothing: {line}" for line in self.unknown]
        text += [f"unreadable: {line}" for line in self.unreadable]
        return text


def plan(
    study: Study,
    *,
    out: str | Path,
    only: Collection[str] = (),
    throughput: Throughput | None = None,
    workers: int = 1,
    price: float | None = None,
) -> Plan:
    """Tell what :func:`isoloss.run` would do; no weights are read and nothing is written.

    No data are fetched either: a corpus or a task that was never fetched is named as unknown. Of
    a hub repository only listings, headers, configs and tokenizers are read.

    Args:
        study: what to measure.
        out: the store that may hold some of it already.
        only: probes to run; none runs all.
        throughput: figures of the machine; where None those this one was calibrated to, else
            rough ones.
        workers: processes that share the study, each with a device of its own.
        price: of a device for an hour.

    Returns:
        The plan.

    Raises:
        BadRequest: there is less than one worker, or the price is negative.
        BadStudy: the study cannot be run as it is.
    """
    if workers < 1 or (price is not None and price < 0):
        raise BadRequest(
            "a plan is for one worker or more, at a price of 0 or more.",
            asked=f"workers {workers}, price {price}",
            remedy="isoloss plan STUDY.toml --workers 8 --price 2.50",
        )
    figures = throughput or _figures(study)
    reading = -time.perf_counter()
    subjects = Subjects(study, fetch=False)
    reading += time.perf_counter()
    store = Store(out) if Store.stands_at(out) else None
    points = resolve(study)
    if store is not None:
        points = refuse_changed(store, points)
    works = worklist(study, subjects, points, only)
    finished = store.finished() if store is not None else set()
    reading -= time.perf_counter()
    pending = [
        price_cell(job, work, study, subjects, figures)
        for work in works
        for job in work.pending(finished)
    ]
    reading += time.perf_counter()  # and tokenizing: what a run does once more
    costs = bill(pending, figures, workers=workers, reading=reading)
    loads = [w.resolved.description for w in works if w.pending(finished)]
    return Plan(
        checkpoints=len(points),
        unreadable=tuple(
            f"{w.resolved.checkpoint.name}: {w.error.what}" for w in works if w.error is not None
        ),
        to_load=len(loads),
        weight_bytes=sum(known.bytes for known in loads if known),
        items=tuple(_items(works, pending, subjects)),
        seconds=costs.seconds if pending else None,
        shortest_seconds=costs.shortest_seconds if pending else None,
        worker_hours=costs.worker_hours if pending else None,
        throughput=figures.name,
        workers=workers,
        devices_per_worker=costs.devices_per_worker,
        memory_bytes=costs.memory_bytes,
        price=price,
        cost=price * costs.worker_hours if pending and price is not None else None,
        unknown=tuple(f"{name}: {why}" for name, why in subjects.unknown.items()),
        to_convert=sum(work.unknown for work in works),
    )


def _figures(study: Study) -> Throughput:
    from isoloss.engine.calibration import load_throughput

    return load_throughput(study.run) or rough(study.run.threads)


def _items(works: list[Work], pending: list[PricedCell], subjects: Subjects) -> list[Item]:
    cells: dict[tuple[str, str], int] = {}
    for work in works:
        for job in work.jobs:
            kind = job.cell.probe, job.cell.subject
            cells[kind] = cells.get(kind, 0) + 1
    by_kind: dict[tuple[str, str], list[PricedCell]] = {kind: [] for kind in cells}
    for cell in pending:
        by_kind[cell.job.cell.probe, cell.job.cell.subject].append(cell)
    return [_item(*kind, cells[kind], own, subjects) for kind, own in by_kind.items()]


def _item(
    probe: str, subject: str, cells: int, pending: list[PricedCell], subjects: Subjects
) -> Item:
    task = subjects.tasks.get(subject) if probe == "task_score" else None
    n = len(task.documents) if task else None
    stderr = 0.5 / math.sqrt(n) if n else None
    return Item(
        probe=probe,
        subject=subject,
        cells=cells,
        pending=len(pending),
        tokens=sum(cell.load.tokens for cell in pending),
        flops=sum(cell.flops for cell in pending),
        seconds=sum(cell.seconds for cell in pending),
        memory_bytes=max((cell.memory_bytes for cell in pending), default=0),
        at_least=probe in TRACES,
        documents=n,
        stderr=stderr,
        smallest_difference=_DETECTABLE * math.sqrt(2) * stderr if stderr else None,
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under a second"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
