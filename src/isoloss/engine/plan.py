"""What a study would run, what it costs, and how small a difference it can show."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoloss.engine.resolve import resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.worklist import Work, worklist
from isoloss.store import Store
from isoloss.study import Study
from isoloss.tasks import Task

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
        tokens: through the model, for the pending cells.
        flops: 2 x parameters x tokens, for the pending cells; an upper bound where contexts
            are shared between options.
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
        seconds: at the arithmetic rate of this machine; None where nothing is pending.
    """

    checkpoints: int
    unreadable: tuple[str, ...]
    to_load: int
    weight_bytes: int
    items: tuple[Item, ...]
    seconds: float | None

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
            text.append(
                f"{pending} cells pending: about {_duration(self.seconds)} of arithmetic at half "
                "the matrix-product rate measured now on this machine, loading not counted"
            )
        text += [f"unreadable: {line}" for line in self.unreadable]
        return text


def plan(study: Study, *, out: str | Path, only: Collection[str] = ()) -> Plan:
    """Tell what :func:`isoloss.run` would do; no weights are read and nothing is written.

    Args:
        study: what to measure.
        out: the store that may hold some of it already.
        only: probes to run; none runs all.

    Returns:
        The plan.

    Raises:
        BadStudy: the study cannot be run as it is.
    """
    subjects = Subjects(study)
    points = resolve(study)
    works = worklist(study, subjects, points, only)
    is_store = (Path(out) / "checkpoints.parquet").exists()
    finished = Store(out).finished() if is_store else set()
    items = _items(works, finished, subjects)
    loads = [w.resolved.description for w in works if w.pending(finished)]
    flops = sum(item.flops for item in items)
    return Plan(
        checkpoints=len(points),
        unreadable=tuple(
            f"{w.resolved.checkpoint.name}: {w.error.what}" for w in works if w.error is not None
        ),
        to_load=len(loads),
        weight_bytes=sum(known.bytes for known in loads if known),
        items=tuple(items),
        seconds=flops / (0.5 * _matmul_rate(study.run.threads)) if flops else None,
    )


def _items(works: list[Work], finished: set[str], subjects: Subjects) -> list[Item]:
    kinds = list(dict.fromkeys((j.cell.probe, j.cell.subject) for w in works for j in w.jobs))
    return [_item(probe, subject, works, finished, subjects) for probe, subject in kinds]


def _item(
    probe: str, subject: str, works: list[Work], finished: set[str], subjects: Subjects
) -> Item:
    def chosen(jobs: Callable[[Work], Any]) -> list[tuple[Work, Any]]:
        kind = (probe, subject)
        return [(w, j) for w in works for j in jobs(w) if (j.cell.probe, j.cell.subject) == kind]

    pending = chosen(lambda work: work.pending(finished))
    task: Task | None = subjects.tasks.get(subject) if probe == "task_score" else None
    n = len(task.documents) if task else None
    stderr = 0.5 / math.sqrt(n) if n else None
    return Item(
        probe=probe,
        subject=subject,
        cells=len(chosen(lambda work: work.jobs)),
        pending=len(pending),
        tokens=sum(job.tokens() for _, job in pending),
        flops=float(sum(2 * _parameters(work) * job.tokens() for work, job in pending)),
        documents=n,
        stderr=stderr,
        smallest_difference=_DETECTABLE * math.sqrt(2) * stderr if stderr else None,
    )


def _parameters(work: Work) -> int:
    known = work.resolved.description
    return known.params_total if known else 0


def _matmul_rate(threads: int) -> float:
    """Floating-point operations a second of a float32 matrix product, measured for .1 s."""
    import time

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a = torch.ones(512, 512)
        a @ a  # the first product pays for setting up
        count, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < 0.1:
            a @ a
            count += 1
    finally:
        torch.set_num_threads(before)
    return 2 * 512**3 * count / seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under a second"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
