"""Values made from a store in the background: again when it has changed, and not too often."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from isoloss.errors import IsolossError, of_reading

T = TypeVar("T")

_PATIENCE_SECONDS = 1.5
_SETTLED_NS = 2_000_000_000  # coarser than the clock of any file system
_TABLES = ("checkpoints.parquet", "flags.parquet")


class Held(NamedTuple, Generic[T]):
    """What there is at the moment.

    Attributes:
        value: as it was made last; None before the first time.
        stamp: of the store that it was made from.
        problem: why it could not be made anew.
        is_busy: it is being made.
    """

    value: T | None
    stamp: Hashable
    problem: IsolossError | None
    is_busy: bool


class Fresh(Generic[T]):
    """A value that is made when somebody asks and the store is another than before.

    Whoever asks gets what there is: only the very first has to wait. A store that is damaged, or
    half-written, keeps the last value and tells the problem.

    Args:
        make: makes it, in a thread of its own.
        rest: seconds to rest after making it.
        share: times what making took, to rest at least so long.
    """

    def __init__(self, make: Callable[[], T], *, rest: float, share: float) -> None:
        self._make, self._rest, self._share = make, rest, share
        self._lock, self._first = threading.Lock(), threading.Event()
        self._made = threading.Condition(self._lock)
        self._value: T | None = None
        self._stamp: Hashable = None
        self._tried: Hashable = None
        self._problem: IsolossError | None = None
        self._busy, self._not_before = False, float("-inf")

    def now(self, stamp: Hashable) -> Held[T]:
        """What there is; it is made anew where the store is not that of ``stamp``."""
        with self._lock:
            is_stale = stamp != self._tried or self._problem is not None
            if is_stale and not self._busy and time.monotonic() >= self._not_before:
                self._busy, self._tried = True, stamp
                threading.Thread(target=self._work, args=(stamp,), daemon=True).start()
            return Held(self._value, self._stamp, self._problem, self._busy)

    def peek(self) -> T | None:
        """What there is; nothing is made."""
        with self._lock:
            return self._value

    def wait(self, stamp: Hashable, *, patience: float = _PATIENCE_SECONDS) -> T:
        """What there is, and before the first time what it becomes.

        Args:
            stamp: of the store as it is.
            patience: seconds to wait for a newer one that is being made.

        Raises:
            IsolossError: it could not be made, and never before either.
        """
        held = self.now(stamp)
        if held.value is None:
            self._first.wait()
        elif held.is_busy:
            with self._made:
                self._made.wait_for(lambda: not self._busy, patience)
        held = self.now(stamp)
        if held.value is None:
            assert held.problem is not None
            raise held.problem
        return held.value

    def _work(self, stamp: Hashable) -> None:
        began, value, problem = time.monotonic(), None, None
        try:
            value = self._make()
        except BaseException as error:  # a thread that died would never be asked again
            problem = of_reading(error)
        took = time.monotonic() - began
        with self._lock:
            if problem is None:
                self._value, self._stamp = value, stamp
            self._problem, self._busy = problem, False
            self._not_before = time.monotonic() + max(self._rest, self._share * took)
            self._made.notify_all()
        self._first.set()


def stamp_of(store: Path) -> str:
    """Changes whenever something in a store does that a page shows.

    What changed in the last moments may change again within one tick of the file system's clock:
    it gives another stamp when it has settled.
    """
    seen = [(str(path), *_told(path)) for path in _watched(store)]
    latest = max((changed for _, changed, _ in seen), default=0)
    is_settled = latest < time.time_ns() - _SETTLED_NS
    return hashlib.sha256(repr((seen, is_settled)).encode()).hexdigest()[:16]


def _watched(store: Path) -> Iterator[Path]:
    yield from (store / name for name in (*_TABLES, "failures", "findings", "measurements"))
    for folder in ("measurements", "findings"):
        try:
            with os.scandir(store / folder) as entries:
                yield from sorted(Path(entry.path) for entry in entries)
        except OSError:
            continue  # not there


def _told(path: Path) -> tuple[int, int]:
    try:
        told = path.stat()
    except OSError:
        return 0, 0
    return told.st_mtime_ns, told.st_size
