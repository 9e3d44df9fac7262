"""A folder at a URL: listed, read and written in whole files, over connections that break.

What a reader sees is whole: an object store shows a file when all of it has come, and elsewhere a
file is written under another name and moved. Names that begin with a dot, and those that would
lead out of the folder, are not seen.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from isoloss.errors import IsolossError, NotWritable
from isoloss.places.names import protocol_of, shown
from isoloss.places.protocols import (
    CREATE,
    EXCLUSIVE,
    OBJECTS,
    fresh,
    is_final,
    is_taken,
    kind,
    line,
    wanted_options,
)

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long a place that has answered before is asked again."""

_FIRST_PATIENCE_SECONDS = 10.0  # a wrong address should be told soon
_FIRST_WAIT_SECONDS = 0.25
_CHUNK_BYTES = 8 << 20
_PART = ".part"


class PlaceUnreachable(IsolossError):
    """A place does not answer, or lets nobody in: check the network, the address, the login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as its folder lists it.

    Attributes:
        bytes: its size.
        tag: changes when the file does: the etag where there is one, else size and time.
    """

    bytes: int
    tag: str


class RemoteFolder:
    """The files below a URL.

    Logins and options come from where the protocol's library looks for them, and from
    ``FSSPEC_PROTOCOL`` in the environment.

    Args:
        url: of the folder; see :func:`isoloss.places.url_of`.

    Raises:
        DependencyMissing: the package of the protocol is not installed.
        BadRequest: there is no such protocol.
    """

    def __init__(self, url: str) -> None:
        self.url, self.name = url, shown(url)
        self._protocol = protocol_of(url)
        self._kind = kind(url, self._protocol)
        self._fs: Any = None
        self._root = ""
        self._lock = threading.Lock()
        self._reached = False
        self._folders: set[str] = set()

    def __str__(self) -> str:
        return self.name

    @property
    def claims(self) -> bool:
        """Whether of several that create one file exactly one can."""
        return self._protocol in CREATE | EXCLUSIVE

    # ---- reading

    def listing(self, below: str = "", *, deep: bool = True) -> dict[str, Entry]:
        """The files of the folder, or of one in it, by their names relative to this one.

        Args:
            below: the folder in it; one that is not there has no files.
            deep: also those of its folders.

        Raises:
            PlaceUnreachable: it does not answer; a part of a listing is never given for all.
        """
        found = self._asking(lambda fs: dict(self._list(fs, self._at(below), deep)), below)
        return {name: entry for name, entry in sorted(found.items()) if _is_safe(name)}

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders in the folder, or in one in it."""

        def look(fs: Any) -> list[str]:
            try:
                inside = fs.ls(self._at(below), detail=True)
            except FileNotFoundError:
                return []
            return [PurePosixPath(one["name"]).name for one in inside if one["type"] == "directory"]

        return sorted(name for name in set(self._asking(look, below)) if _is_safe(name))

    def entry(self, name: str) -> Entry | None:
        """What the folder says of a file; None where it is not there."""

        def look(fs: Any) -> Entry | None:
            try:
                told = fs.info(self._at(name), **fresh(self._protocol))
            except FileNotFoundError:
                return None
            return None if told["type"] == "directory" else _entry(told)

        return self._asking(look, name)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file, or some of them.

        Raises:
            FileNotFoundError: it is not there.
            PlaceUnreachable: the connection fails time and again.
        """
        end = None if length is None else start + length
        return self._asking(lambda fs: self._range(fs, name, start, end), name)

    def fetch(
        self, name: str, entry: Entry, target: Path, progress: Callable[[int], None] | None = None
    ) -> None:
        """Copy a file here; it appears under its name when whole, and goes on where it broke.

        Args:
            name: of the file.
            entry: as it was listed.
            target: where to put it.
            progress: called with the bytes so far.

        Raises:
            FileNotFoundError: it is gone, or another file now stands under its name.
            PlaceUnreachable: the connection fails time and again.
        """
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:16]}{_PART}")
        try:
            with part.open("wb") as out:
                while (done := out.tell()) < entry.bytes:
                    # a small one in one piece: then it is of one file
                    one = entry.bytes <= _CHUNK_BYTES
                    data = self.read(name) if one else self.read(name, done, _CHUNK_BYTES)
                    if not data:
                        break
                    out.write(data)
                    if progress is not None:
                        progress(out.tell())
                size = out.tell()
            # of several pieces each could be of another file
            if size != entry.bytes or size > _CHUNK_BYTES and self.entry(name) != entry:
                raise FileNotFoundError(f"{name} changed while it was read")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def changed_ns(self, name: str) -> int | None:
        """When a file changed by the place's own clock, in ns since 1970; None without a file."""

        def look(fs: Any) -> int | None:
            try:
                return int(fs.modified(self._at(name)).timestamp() * 1e9)
            except FileNotFoundError:
                return None

        return self._asking(look, name)

    # ---- writing

    def put(self, name: str, data: bytes) -> None:
        """Put a file whole: a reader sees the old one or the new one.

        Raises:
            NotWritable: the place refuses, or the connection fails time and again.
        """

        def write(fs: Any) -> None:
            path = self._at(name)
            if self._protocol in OBJECTS:
                fs.pipe_file(path, data)
                return
            self._make_folder(fs, name)
            temporary = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex[:16]}.tmp"
            fs.pipe_file(temporary, data)
            fs.mv(temporary, path)

        self._writing(write, name)

    def create(self, name: str, data: bytes) -> bool:
        """Create a file that is not there; False where it is.

        Raises:
            NotWritable: the place refuses, or the connection fails time and again.
        """
        assert self.claims

        def write(fs: Any) -> bool:
            path = self._at(name)
            try:
                if self._protocol in CREATE:
                    fs.pipe_file(path, data, mode="create")
                    return True
                self._make_folder(fs, name)
                with fs.open(path, "xb") as file:
                    file.write(data)
                return True
            except Exception as error:
                if not is_taken(error):
                    raise
                try:  # a first try may have come through though its answer was lost
                    return bytes(fs.cat_file(path)) == data
                except FileNotFoundError:
                    raise error from None  # another fault, or released just now: once more

        return self._writing(write, name)

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Put a file in the place of one that is as it was listed; False where it is not.

        On S3 of several that do so one alone can; elsewhere of several within one moment the last.
        """

        def write(fs: Any) -> bool:
            bucket, key, _ = fs.split_path(self._at(name))
            try:
                fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=f'"{tag}"')
            except Exception as error:
                if isinstance(error, FileNotFoundError) or is_taken(error):
                    return False
                raise
            return True

        if self._protocol in {"s3", "s3a"}:
            return self._writing(write, name)
        entry = self.entry(name)
        if entry is None or entry.tag != tag:
            return False
        self.remove(name)
        return self.create(name, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

        def write(fs: Any) -> None:
            try:
                fs.rm_file(self._at(name))
            except FileNotFoundError:
                return

        self._writing(write, name)

    # ---- inside

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _list(self, fs: Any, path: str, deep: bool) -> Iterator[tuple[str, Entry]]:
        try:
            if deep and self._protocol in OBJECTS:  # one request a thousand files
                inside = list(fs.find(path, detail=True).values())
            else:
                inside = fs.ls(path, detail=True)
        except FileNotFoundError:
            return
        for told in inside:
            name = told["name"]
            relative = name.strip("/").removeprefix(self._root.strip("/")).strip("/")
            if told["type"] == "directory":
                # by hand: the library's own walk leaves out what it cannot list
                if deep and self._protocol not in OBJECTS and _is_safe(relative):
                    yield from self._list(fs, name.rstrip("/"), deep)
            elif relative:
                yield relative, _entry(told)

    def _range(self, fs: Any, name: str, start: int, end: int | None) -> bytes:
        path = self._at(name)
        if start == 0 and end is None:
            return bytes(fs.cat_file(path))
        if self._protocol not in {"sftp", "ssh"}:
            return bytes(fs.cat_file(path, start=start, end=end))
        with fs.open(path, "rb") as file:  # whose cat_file knows no range
            file.seek(start)
            return bytes(file.read(-1 if end is None else end - start))

    def _make_folder(self, fs: Any, name: str) -> None:
        folder = self._at(name).rpartition("/")[0]
        if folder not in self._folders:
            fs.makedirs(folder, exist_ok=True)
            self._folders.add(folder)

    def _writing(self, write: Callable[[Any], T], name: str) -> T:
        try:
            return self._asking(write, name)
        except (PlaceUnreachable, PermissionError, NotADirectoryError, FileNotFoundError) as error:
            what = error.what if isinstance(error, IsolossError) else line(error)
            raise NotWritable(
                f"cannot write {PurePosixPath(name).name} to {self.name}: {what}",
                asked=f"{self.name}/{name}",
                remedy="check the network, the address and that the login may write there, and run"
                " the same command again: finished cells are kept, and those that are only on this"
                " machine are sent first",
            ) from error

    def _asking(self, ask: Callable[[Any], T], name: str) -> T:
        """Ask until there is an answer; a connection that broke is made anew."""
        started, wait = time.monotonic(), _FIRST_WAIT_SECONDS
        while True:
            try:
                answer = ask(self._connected())
                self._reached = True
                return answer
            except Exception as error:  # every protocol's library has errors of its own
                if isinstance(error, FileNotFoundError | IsolossError):
                    raise
                patience = PATIENCE_SECONDS if self._reached else _FIRST_PATIENCE_SECONDS
                if is_final(error) or time.monotonic() - started + wait > patience:
                    self._reached = False  # what is asked next does not wait as long
                    raise self._unreachable(error, name) from error
            with self._lock:
                self._fs = None
            time.sleep(wait)
            wait = min(2 * wait, PATIENCE_SECONDS / 4)

    def _unreachable(self, error: Exception, name: str) -> PlaceUnreachable:
        return PlaceUnreachable(
            f"{self._protocol}:// does not answer as it should: {line(error)}",
            asked=f"{self.name}/{name}" if name else self.name,
            remedy="check the address, the login (as its other programs take it: AWS_PROFILE,"
            " ~/.ssh/config, ...) and the network, then run the same command again",
        )

    def _connected(self) -> Any:
        with self._lock:
            if self._fs is None:
                options = {
                    **self._kind._get_kwargs_from_urls(self.url),
                    "skip_instance_cache": True,  # a broken connection is never taken up again
                    **wanted_options(self._protocol),
                }
                self._fs = self._kind(**options)
                if hasattr(self._fs, "retries"):  # counted here, over connections made anew
                    self._fs.retries = 1
                self._root = str(self._kind._strip_protocol(self.url)).rstrip("/")
                self._folders.clear()
            return self._fs


def _entry(told: dict[str, Any]) -> Entry:
    size = int(told.get("size") or 0)
    tag = told.get("ETag") or told.get("etag") or told.get("blob_id")
    if not tag:
        changed = next((told[k] for k in ("mtime", "updated", "created") if told.get(k)), "")
        tag = f"{size}-{changed}-{told.get('ino', '')}"
    return Entry(bytes=size, tag=str(tag).strip('"'))


def _is_safe(name: str) -> bool:
    parts = name.split("/")
    return "\\" not in name and "\0" not in name and all(p and not p.startswith(".") for p in parts)
