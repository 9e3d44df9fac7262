"""Who may write: one run alone or the shards of one study together, and one table at a time.

The operating system drops a lock when its holder dies. On file systems without locks shards go on
without: their cells are files of their own, and every shard writes the same rows of the tables.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.errors import StoreBusy
from isoloss.store.files import told

if TYPE_CHECKING:
    from isoloss.store.mirror import Mirror

_TAKEN = {errno.EAGAIN, errno.EACCES}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for writing until the block ends or the process dies.

    Raises:
        StoreBusy: another process writes there, which is named; or the file system has no locks.
    """
    with _held(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for writing together with others that do the same.

    Raises:
        StoreBusy: a process that writes there alone; it is named.
    """
    with _held(folder, fcntl.LOCK_SH):
        yield


class TableLock:
    """Makes those who change the tables of a folder wait for one another.

    Args:
        folder: the store's.
        mirror: of a store at a URL, whose tables are then those of the place.
    """

    def __init__(self, folder: Path, mirror: Mirror | None = None) -> None:
        self._folder, self._mirror, self._mine = folder, mirror, False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for the tables and keep them until the block ends; a block inside it is free."""
        with self._held(self._mirror):
            yield

    @contextmanager
    def here(self) -> Iterator[None]:
        """The same for what is made on this machine from the files of cells."""
        with self._held(None):
            yield

    @contextmanager
    def _held(self, mirror: Mirror | None) -> Iterator[None]:
        if self._mine:
            yield
            return
        descriptor = _opened(self._folder / ".tables.lock")
        try:
            with contextlib.suppress(OSError):  # no locks here: see above
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._mine = True
            with contextlib.nullcontext() if mirror is None else mirror.tables():
                yield
        finally:
            self._mine = False
            os.close(descriptor)


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    path = folder / ".lock"
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise StoreBusy(
                    f"another run is writing to {folder}.",
                    asked=_holder(path),
                    remedy="wait for it to end, or give this run a store of its own with --out",
                ) from error
            if kind == fcntl.LOCK_EX:
                raise StoreBusy(
                    f"the file system of {folder} has no locks, so another run may be writing.",
                    asked=str(error),
                    remedy="run with --shard 1/1, which needs none, or choose a local --out",
                ) from error
        with told(path):
            os.ftruncate(descriptor, 0)
            os.write(
                descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            )
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    with told(path):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"held by process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        return "held by a process that has not named itself yet"
