"""Where claims lie: in a folder that processes share, or at a URL."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import NamedTuple, Protocol

from isoloss.places.remote import RemoteFolder
from isoloss.store.files import make_folder, slug, told


class Stamp(NamedTuple):
    """A claim as it was seen.

    Attributes:
        identity: another one whenever the claim was renewed or made anew.
        changed_ns: when that was, by the clock of the place.
    """

    identity: tuple[object, ...]
    changed_ns: int


class Claims(Protocol):
    """A place of claims; every method names one."""

    def create(self, name: str, text: str) -> bool:
        """Make a claim that is not there; False where it is."""

    def look(self, name: str) -> Stamp | None:
        """What can be seen of a claim; None where there is none."""

    def read(self, name: str) -> dict[str, object]:
        """What a claim says; nothing where it is gone, or created and not yet written."""

    def take_over(self, name: str, seen: Stamp, text: str) -> bool:
        """Put a claim in the place of one that was given up; False where another was faster."""

    def renew(self, name: str, text: str) -> None:
        """Show that the holder is alive."""

    def remove(self, name: str) -> None:
        """Remove a claim, if it is there."""

    def names(self, prefix: str) -> list[str]:
        """The claims whose names begin so."""

    def now(self) -> int:
        """The time in nanoseconds by the clock of the place."""


class FolderClaims:
    """Claims as files of a folder: of all that create one, one alone can.

    Args:
        folder: made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._mark = folder, uuid.uuid4().hex
        with told(folder):
            make_folder(folder)

    def create(self, name: str, text: str) -> bool:
        """See :class:`Claims`."""
        path = self._path(name)
        with told(path):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                return False
            try:
                os.write(descriptor, text.encode())
            except OSError:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        return True

    def look(self, name: str) -> Stamp | None:
        """See :class:`Claims`."""
        try:
            return _stamp(self._path(name))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> dict[str, object]:
        """See :class:`Claims`."""
        try:
            return _object(self._path(name).read_text())
        except OSError:
            return {}

    def take_over(self, name: str, seen: Stamp, text: str) -> bool:
        """See :class:`Claims`."""
        # of all that see it expired one alone can move it away
        path = self._path(name)
        aside = self._folder / f".{path.name}.{self._mark}"
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False
        if _stamp(aside) != seen:  # renewed in between: put it back
            if not path.exists():
                aside.rename(path)
            return False
        aside.unlink()
        return self.create(name, text)

    def renew(self, name: str, text: str) -> None:
        """See :class:`Claims`."""
        os.utime(self._path(name))

    def remove(self, name: str) -> None:
        """See :class:`Claims`."""
        with told(self._path(name)):
            self._path(name).unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """See :class:`Claims`."""
        return [file.stem for file in sorted(self._folder.glob(f"{prefix}*.json"))]

    def now(self) -> int:
        """See :class:`Claims`."""
        clock = self._folder / f".clock-{self._mark}"
        with told(clock):
            try:
                clock.touch()
                return clock.stat().st_mtime_ns
            finally:
                clock.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{slug(name)}.json"


class RemoteClaims:
    """Claims as files at a URL, made by requests that hold only if nobody else's did before.

    Args:
        remote: the place.
        folder: in it.
    """

    def __init__(self, remote: RemoteFolder, folder: str) -> None:
        self._remote, self._folder, self._mark = remote, folder, uuid.uuid4().hex

    def create(self, name: str, text: str) -> bool:
        """See :class:`Claims`."""
        return self._remote.create(self._at(name), text.encode())

    def look(self, name: str) -> Stamp | None:
        """See :class:`Claims`."""
        entry = self._remote.entry(self._at(name))
        changed = self._remote.changed_ns(self._at(name)) if entry else None
        return None if entry is None or changed is None else Stamp((entry.tag, changed), changed)

    def read(self, name: str) -> dict[str, object]:
        """See :class:`Claims`."""
        try:
            return _object(self._remote.read(self._at(name)).decode(errors="replace"))
        except FileNotFoundError:
            return {}

    def take_over(self, name: str, seen: Stamp, text: str) -> bool:
        """See :class:`Claims`."""
        return self._remote.replace(self._at(name), text.encode(), str(seen.identity[0]))

    def renew(self, name: str, text: str) -> None:
        """See :class:`Claims`."""
        # by another text: the etag of an object store is of the bytes
        self._remote.put(self._at(name), f"{text}\n{uuid.uuid4().hex}".encode())

    def remove(self, name: str) -> None:
        """See :class:`Claims`."""
        self._remote.remove(self._at(name))

    def names(self, prefix: str) -> list[str]:
        """See :class:`Claims`."""
        found = self._remote.listing(self._folder)
        stems = [name.rpartition("/")[2].removesuffix(".json") for name in found]
        return [stem for stem in stems if stem.startswith(prefix)]

    def now(self) -> int:
        """See :class:`Claims`."""
        clock = f"{self._folder}/.clock-{self._mark}"
        self._remote.put(clock, self._mark.encode())
        try:
            changed = self._remote.changed_ns(clock)
        finally:
            self._remote.remove(clock)
        assert changed is not None
        return changed

    def _at(self, name: str) -> str:
        return f"{self._folder}/{slug(name)}.json"


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp((found.st_ino, found.st_mtime_ns), found.st_mtime_ns)


def _object(text: str) -> dict[str, object]:
    try:
        about, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
