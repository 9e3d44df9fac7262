"""One writer at a time: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isoloss.errors import StoreBusy


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for writing until the block ends or the process dies.

    Raises:
        StoreBusy: another process writes there; it is named.
    """
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreBusy(
                f"another run is writing to {folder}.",
                asked=_holder(path),
                remedy="wait for it to end, or give this run a store of its own with --out",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(
            descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        )
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"held by process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        return "held by a process that has not named itself yet"
