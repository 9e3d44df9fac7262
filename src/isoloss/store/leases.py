"""Claims on checkpoints: files with a lease, for processes that share nothing but a store.

A claim is made by creating ``RUN/leases/CHECKPOINT.json``, which one process alone can, and kept by
touching it. Whoever stops touching it loses it. Nothing that is measured hangs on a claim: where
two processes believe in one, a cell is measured twice and its file written twice, equal and whole.

Ages are differences of times that the folder's own file system gave, or the server of a URL, and of
this process's monotonic clock: what any machine's calendar clock says, or when it is set, does not
matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isoloss.errors import IsolossError
from isoloss.store.claims import Claims, FolderClaims, Stamp

LEASE_SECONDS = 120.0
_RENEWALS = 4  # within one lease: three may be late


@dataclass(slots=True)
class _Seen:
    """A lease of another process, as it was last seen to change."""

    identity: tuple[object, ...]
    at: float  # of the monotonic clock
    changed: bool = False


class Leases:
    """The claims of one process.

    Args:
        place: where they lie; a folder is made where it is not there.
        seconds: a claim that was not renewed for so long is free.
    """

    def __init__(self, place: Path | Claims, *, seconds: float = LEASE_SECONDS) -> None:
        self._claims = FolderClaims(place) if isinstance(place, Path) else place
        self.seconds = seconds
        self._holder = uuid.uuid4().hex
        self._mine: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def claim(self, name: str) -> bool:
        """Claim a checkpoint that is free, or whose holder has gone; False where it is held."""
        text = self._text(name)
        got = self._claims.create(name, text)
        if not got:
            found = self._claims.look(name)
            if found is None:
                got = self._claims.create(name, text)  # released just now
            elif self._gone(name, found):
                got = self._claims.take_over(name, found, text)
        if got:
            self._mine.add(name)
        return got

    def holds(self, name: str) -> bool:
        """Whether a claim of this process still stands."""
        return self.about(name).get("holder") == self._holder

    def release(self, name: str) -> None:
        """Give a claim back, unless another process has taken it over."""
        self._mine.discard(name)
        if self.holds(name):
            self._claims.remove(name)

    def is_held(self, name: str) -> bool:
        """Whether there is a claim whose holder, as far as can be seen, is alive."""
        found = self._claims.look(name)
        return found is not None and not self._gone(name, found)

    def about(self, name: str) -> dict[str, object]:
        """Who holds a claim: host, process, machine; nothing where nobody does."""
        return self._claims.read(name)

    def names(self, prefix: str) -> list[str]:
        """The claims of all processes whose names begin so."""
        return self._claims.names(prefix)

    def shown_alive(self, name: str) -> bool:
        """Whether the holder of a claim that was refused has renewed it since the first refusal."""
        return name in self._seen and self._seen[name].changed

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew this process's claims in the background until the block ends."""
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self.seconds / _RENEWALS):
                for name in list(self._mine):
                    # a server that is away for a moment
                    with contextlib.suppress(OSError, IsolossError):
                        if self.holds(name):
                            self._claims.renew(name, self._text(name))

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def now(self) -> int:
        """The place's own time, in nanoseconds."""
        return self._claims.now()

    def _text(self, name: str) -> str:
        about = {
            "checkpoint": name,
            "holder": self._holder,
            "host": socket.gethostname(),
            "machine": machine(),
            "process": os.getpid(),
            "lease_seconds": self.seconds,
        }
        return json.dumps(about, indent=1)

    def _gone(self, name: str, found: Stamp) -> bool:
        now = time.monotonic()
        seen = self._seen.get(name)
        if seen is None or seen.identity != found.identity:
            self._seen[name] = seen = _Seen(found.identity, now, changed=seen is not None)
        # the second: a server's clock that was set back would make a lease young for long
        if self.now() - found.changed_ns > self.seconds * 1e9 or now - seen.at > self.seconds:
            return True
        about = self.about(name)
        return about.get("machine") == machine() and not is_running(about.get("process"))


def failed_since(store: Path, moment: int) -> set[str]:
    """Names of the cells and checkpoints that failed at or after a time of :meth:`Leases.now`."""
    found = set()
    for file in (store / "failures").glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # succeeded just now
            if file.stat().st_mtime_ns >= moment:
                found.add(file.stem)
    return found


def machine() -> str:
    """What a process number belongs to: a host, or a container that counts its own processes."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def is_running(process: object) -> bool:
    """Whether a process of this machine is there; of an unknown one that is assumed."""
    if not isinstance(process, int):
        return True  # nothing is known: the lease decides
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
