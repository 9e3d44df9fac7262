"""Which checkpoints of a run that is still going are whole, and which are being written.

Nothing here reads a clock but the process's own monotonic one: files are compared with what they
were at an earlier look, so that a machine whose clock is set back loses no checkpoint.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from isoloss.engine.resolve import Resolved
from isoloss.errors import IsolossError
from isoloss.family import Folder, Foreign, Remote, Source
from isoloss.models.files import CONFIG, Files, LocalFiles, weight_names
from isoloss.models.headers import read_header
from isoloss.models.remote import RemoteFiles

MARKERS = ("training.json", "trainer_state.json")
"""Files that a trainer writes last."""

PATIENCE = 5
"""Looks without a change after which a checkpoint whose files are not whole counts as broken."""

_OTHER_FORMATS = {".bin", ".ckpt", ".distcp", ".pt", ".pth"}

Signature = tuple[tuple[str, int, int], ...]


class Arrived(NamedTuple):
    """A checkpoint that may be read.

    Attributes:
        point: which one.
        signature: names, sizes and times of its files; empty for a hub's.
        order: in which look it came, and at which step; the newest is the largest.
    """

    point: Resolved
    signature: Signature
    order: tuple[int, int]


@dataclass(slots=True)
class _Seen:
    signature: Signature
    since: float
    whole: bool
    arrived: int | None = None  # the look


class Arrivals:
    """Remembers looks.

    Args:
        settle: seconds after which unchanged files are no longer being written.

    Attributes:
        waiting: names of the checkpoints that were not ready at the last look.
    """

    def __init__(self, settle: float) -> None:
        self._settle, self._looks = settle, 0
        self._seen: dict[Source, _Seen] = {}
        self.waiting: list[str] = []

    def look(self, points: Iterable[Resolved]) -> list[Arrived]:
        """The checkpoints that are ready, in the order given."""
        self._looks += 1
        ready, self.waiting = [], []
        for point in points:
            source, step = point.checkpoint.source, point.checkpoint.step or 0
            if not isinstance(source, Folder | Foreign | Remote):  # of a hub: there or not
                ready.append(Arrived(point, (), (0, step)))
                continue
            seen = self._at(source)
            if seen is not None and self._is_ready(seen):
                seen.arrived = seen.arrived or self._looks
                ready.append(Arrived(point, seen.signature, (seen.arrived, step)))
            else:
                self.waiting.append(point.checkpoint.name)
        return ready

    def _at(self, source: Folder | Foreign | Remote) -> _Seen | None:
        if isinstance(source, Remote):
            files = RemoteFiles(source)
            signature, look = _signature_there(files), partial(_has_all, files)
        else:
            signature, look = _signature(source.path), partial(is_whole, source.path)
        if not signature:
            self._seen.pop(source, None)
            return None
        seen = self._seen.get(source)
        if seen is None or seen.signature != signature:
            seen = _Seen(signature, time.monotonic(), look())
            self._seen[source] = seen
        return seen

    def _is_ready(self, seen: _Seen) -> bool:
        unchanged = time.monotonic() - seen.since
        if not seen.whole:
            return unchanged >= PATIENCE * self._settle
        return _is_marked(seen.signature) or unchanged >= self._settle


def is_whole(folder: Path) -> bool:
    """Whether every weight file is as long as its header says; unknown formats count as whole."""
    files = LocalFiles(folder)
    if folder.is_file():
        return True
    try:
        names = files.sizes()
        if not any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
            suffixes = {path.suffix for path in folder.rglob("*")}
            if ".distcp" in suffixes:  # the file that names the others is written last
                return any(folder.rglob(".metadata"))
            return bool(suffixes & _OTHER_FORMATS)
    except OSError:  # deleted just now
        return False
    return _has_all(files)


def _has_all(files: Files) -> bool:
    try:
        for name in weight_names(files):
            read_header(files, name)
        return CONFIG in files.sizes()
    except (IsolossError, OSError):  # half written, or deleted just now
        return False


def _is_marked(signature: Signature) -> bool:
    times = {name: written for name, _, written in signature}
    return any(times.get(name, -1) >= max(times.values()) for name in MARKERS)


def _signature_there(files: RemoteFiles) -> Signature:
    try:
        listed = sorted(files.listing.items())
    except IsolossError:  # deleted, or its place is away for a moment
        return ()
    # no file counts as written last: in which order they are sent is the sender's affair
    return tuple(
        (name, entry.bytes, -1 if name in MARKERS else zlib.crc32(entry.tag.encode()))
        for name, entry in listed
    )


def _signature(folder: Path) -> Signature:
    try:
        inside = [folder] if folder.is_file() else folder.rglob("*")
        files = sorted(path for path in inside if path.is_file())
        stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    except OSError:  # deleted while it was looked at
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
