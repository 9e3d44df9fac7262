"""How far a run is, kept in its store while it goes on, so that others can see it from there.

``RUN/progress/PROCESS.json`` is put whole by each process that measures, every few seconds and by
a thread of its own: no cell waits for it, and a run whose disk refuses it goes on. It goes when the
run ends; that of a process which was killed stays until the next run.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from isoloss.engine.progress import Progress
from isoloss.safe_text import message
from isoloss.store.files import slug
from isoloss.store.leases import is_running, machine

FOLDER = "progress"
EVERY_SECONDS = 3.0
SILENT_SECONDS = 30.0
"""A process of another machine that tells nothing for so long counts as gone."""

_RECENT = 30  # cells whose times make the rate
_RECENT_SECONDS = 600.0
_LONGEST = 1 << 16  # bytes of a file that is one of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """What one process tells about its run.

    Attributes:
        process: its number.
        host: its machine's name.
        machine: what its number belongs to.
        study: the study's name.
        seconds: since it began.
        cells: of the whole study, as far as they are known.
        finished: of these, in the store when it began.
        in_store: cells in the store when it began, those of other studies among them.
        done: cells that it measured.
        failed: cells and checkpoints that it could not.
        cells_per_minute: over the last cells; None before two are done.
        checkpoint: that it measures; None before the first.
        checkpoint_seconds: for how long.
        note: what it told last.
    """

    process: int
    host: str
    machine: str
    study: str
    seconds: float
    cells: int
    finished: int
    in_store: int
    done: int
    failed: int
    cells_per_minute: float | None
    checkpoint: str | None
    checkpoint_seconds: float | None
    note: str | None


class Lit:
    """Progress that is passed on, and kept in a store from :meth:`begin` to :meth:`stop`.

    Args:
        progress: is told everything.
        study: the study's name.
        every: seconds between two looks.
    """

    def __init__(self, progress: Progress, study: str, *, every: float = EVERY_SECONDS) -> None:
        self._progress, self._study, self._every = progress, study, every
        self._cells = self._finished = self._in_store = self._done = self._failed = 0
        self._checkpoint: tuple[str, float] | None = None
        self._note: str | None = None
        self._ends: deque[float] = deque(maxlen=_RECENT)
        self._began = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, store: Path, *, cells: int, finished: int, in_store: int) -> None:
        """Keep from now on how far it is.

        Args:
            store: the store's folder.
            cells: of the whole study, also those of other processes.
            finished: of these, in the store already.
            in_store: all cells in the store.
        """
        self._cells, self._finished, self._in_store = cells, finished, in_store
        if self._thread is None:
            self._began = time.monotonic()
            self._ends.append(self._began)
            self._thread = threading.Thread(target=self._keep, args=(store,), daemon=True)
            self._thread.start()

    def start(self, *, cells: int, finished: int) -> None:
        """Pass on."""
        self._progress.start(cells=cells, finished=finished)

    def checkpoint(self, name: str) -> None:
        """Note which checkpoint is measured."""
        self._checkpoint = name, time.monotonic()
        self._progress.checkpoint(name)

    def done(self, label: str) -> None:
        """Count."""
        self._done += 1
        self._ends.append(time.monotonic())
        self._progress.done(label)

    def failed(self, label: str, reason: str) -> None:
        """Count."""
        self._failed += 1
        self._progress.failed(label, reason)

    def note(self, text: str) -> None:
        """Note."""
        self._note = text
        self._progress.note(text)

    def stop(self) -> None:
        """End, and leave nothing in the store."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._progress.stop()

    def _keep(self, store: Path) -> None:
        folder = store / FOLDER
        name = f"{slug(socket.gethostname())}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file, temporary = folder / f"{name}.json", folder / f".{name}.tmp"
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            for path, told in _read(folder):  # of runs that were killed
                if told.machine == machine() and not is_running(told.process):
                    path.unlink(missing_ok=True)
        while True:
            # no flush: after a loss of power nothing of it is true any more
            with contextlib.suppress(OSError):
                temporary.write_text(json.dumps(asdict(self._now())), encoding="utf-8")
                temporary.replace(file)
            if self._stop.wait(self._every):
                break
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            folder.rmdir()  # not where others still measure

    def _now(self) -> Beacon:
        now, at = time.monotonic(), self._checkpoint
        return Beacon(
            process=os.getpid(),
            host=socket.gethostname(),
            machine=machine(),
            study=message(self._study),
            seconds=round(now - self._began, 1),
            cells=self._cells,
            finished=self._finished,
            in_store=self._in_store,
            done=self._done,
            failed=self._failed,
            cells_per_minute=self._rate(now),
            checkpoint=None if at is None else message(at[0]),
            checkpoint_seconds=None if at is None else round(now - at[1], 1),
            note=None if self._note is None else message(self._note),
        )

    def _rate(self, now: float) -> float | None:
        ends = [end for end in list(self._ends) if now - end <= _RECENT_SECONDS]
        if len(ends) < 2:
            return None
        # a cell that takes longer than those before slows the rate while it goes on
        cells, seconds = len(ends) - 1, max(ends[-1] - ends[0], (now - ends[0]) / 2)
        return round(60.0 * cells / seconds, 3) if seconds > 0 else None


class Watch:
    """Reads the beacons of a store, and tells which processes are still there.

    Ages are taken by this process's own monotonic clock from when it saw a file change: what the
    calendar clocks of two machines say does not matter.

    Args:
        store: the store's folder.
    """

    def __init__(self, store: Path) -> None:
        self._folder = store / FOLDER
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self) -> list[tuple[Beacon, bool]]:
        """Every process that told something, and whether it is still there."""
        now, found = time.monotonic(), []
        for path, told in _read(self._folder):
            with contextlib.suppress(OSError):  # it ended just now
                changed = path.stat().st_mtime_ns
                if self._seen.get(path.name, (0, 0.0))[0] != changed:
                    self._seen[path.name] = changed, now
                silent = now - self._seen[path.name][1]
                if told.machine == machine():
                    found.append((told, is_running(told.process)))
                else:
                    found.append((told, silent <= SILENT_SECONDS))
        return found


def _read(folder: Path) -> Iterator[tuple[Path, Beacon]]:
    """The files that are beacons; a store may be anyone's, and may hold anything."""
    for path in sorted(folder.glob("*.json")):
        try:
            with path.open("rb") as file:
                row = json.loads(file.read(_LONGEST))
            yield path, _beacon(row)
        except (OSError, ValueError, TypeError, RecursionError):
            continue


def _beacon(row: dict[str, Any]) -> Beacon:
    told = Beacon(**{field.name: row[field.name] for field in fields(Beacon) if field.name in row})
    counts = (told.process, told.cells, told.finished, told.in_store, told.done, told.failed)
    numbers = (told.seconds, told.cells_per_minute or 0, told.checkpoint_seconds or 0)
    texts = (told.host, told.machine, told.study, told.checkpoint or "", told.note or "")
    kinds = ((counts, int), (numbers, int | float), (texts, str))
    if not all(isinstance(value, kind) for values, kind in kinds for value in values):
        raise ValueError("a field is of another kind")
    if min(*counts, *numbers) < 0 or max(*counts, *numbers) > 2**53:
        raise ValueError("a count is no count")
    return told
