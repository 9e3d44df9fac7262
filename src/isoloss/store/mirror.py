"""A store at a URL: a folder of this machine that is kept like the one there.

Readers fetch what is new when they open the store, and large parts when they are first asked for;
then everything works on the folder. Every file that is written or removed below the folder is put
or removed there at once. What could not be put stays here and is sent when the store is next
opened for writing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from isoloss.errors import IsolossError, NotWritable, StoreBusy
from isoloss.places import cache_folder, folder_name
from isoloss.places.remote import Entry, RemoteFolder
from isoloss.store.claims import RemoteClaims
from isoloss.store.files import COPIES, make_folder
from isoloss.store.leases import LEASE_SECONDS, Leases

TABLES = ("checkpoints.parquet", "flags.parquet", "study.toml")
"""Files that several writers change; those of cells are each one writer's."""

_OWN = {"cells.parquet", "index.parquet"}  # made from the others, in every mirror by itself
_LARGE = {"items", "token_losses", "arrays", "token_classes"}  # fetched when asked for
_NOT_FETCHED = {"leases", "locks", "damaged", "exports", *_LARGE}
_OF_CELLS = ("items", "token_losses", "arrays", "failures", "measurements")
_AT_ONCE = 16  # files in flight
_LOOK_SECONDS = 1.0  # at the tables, while another changes them
_ALONE, _TOGETHER, _TABLES_LOCK = "alone", "together", "tables"


class _Row(NamedTuple):
    """A file as it was when both sides were equal."""

    tag: str
    bytes: int


class Mirror:
    """The folder here and the one there.

    Args:
        url: of the store.

    Attributes:
        root: the folder of this machine.
        remote: the one there.
    """

    def __init__(self, url: str) -> None:
        self.remote = RemoteFolder(url)
        self.root = cache_folder() / "stores" / folder_name(url)
        make_folder(self.root)
        self._memory = _Memory(self.root.with_name(f"{self.root.name}.sqlite3"))
        self._locks = Leases(RemoteClaims(self.remote, "locks"))
        self._sent = False
        COPIES[self.root] = self

    def __str__(self) -> str:
        return self.remote.name

    # ---- from there to here

    def pull(self) -> int:
        """Fetch what is new there, but for the large parts; the number of files fetched."""
        known = self._memory.rows()  # before the listing: what is put meanwhile is not in it
        listed = {
            name: entry
            for name, entry in self.remote.listing(deep=False).items()
            if name not in _OWN and not name.endswith(".html")
        }
        for folder in self.remote.folders():
            if folder not in _NOT_FETCHED:
                listed |= self.remote.listing(folder)
        return self._take(
            listed, {n: r for n, r in known.items() if n.split("/")[0] not in _NOT_FETCHED}
        )

    def pull_tables(self) -> None:
        """Fetch the tables, also where their place says that they are as they were.

        Times of change in whole seconds do not tell two tables of one second apart.
        """
        listed = self.remote.listing(deep=False)
        self._take({name: entry for name, entry in listed.items() if name in TABLES}, {})

    def pull_part(self, below: str, only: Collection[str] | None = None) -> None:
        """Fetch a large part, or the files of it that belong to some cells."""
        known = {
            name: row for name, row in self._memory.rows().items() if name.startswith(f"{below}/")
        }
        listed = self.remote.listing(below)
        if only is not None:
            listed = {name: entry for name, entry in listed.items() if Path(name).stem in only}
            known = {name: row for name, row in known.items() if name in listed}
        self._take(listed, known)

    def _take(self, listed: Mapping[str, Entry], known: Mapping[str, _Row]) -> int:
        """Make the folder here hold what was listed, and drop what was removed there."""
        wanted = {
            name: entry
            for name, entry in listed.items()
            if name not in known
            or known[name] != (entry.tag, entry.bytes)
            or not (self.root / name).exists()
        }
        for name in known.keys() - listed.keys():
            (self.root / name).unlink(missing_ok=True)
        self._memory.forget(known.keys() - listed.keys())
        for folder in {(self.root / name).parent for name in wanted}:
            make_folder(folder)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            got = list(pool.map(self._fetch, wanted.items()))
        self._memory.keep({name: row for name, row in got if row is not None})
        return sum(row is not None for _, row in got)

    def _fetch(self, item: tuple[str, Entry]) -> tuple[str, _Row | None]:
        name, entry = item
        try:
            self.remote.fetch(name, entry, self.root / name)
        except FileNotFoundError:
            return name, None  # removed or changed just now: the next look sees it
        if name.startswith("failures/"):  # when it failed counts, by the clock there
            self._set_time(name)
        return name, _Row(entry.tag, entry.bytes)

    def _set_time(self, name: str) -> None:
        changed = self.remote.changed_ns(name)
        if changed is not None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.root / name, ns=(changed, changed))

    # ---- from here to there

    def put(self, path: Path) -> None:
        """Put a file that was written below the folder.

        Raises:
            NotWritable: it cannot be put; it stays here and is sent later.
        """
        name = self._name(path)
        if name in _OWN:
            return
        try:
            self._put(name)
        except NotWritable:
            self._sent = False
            raise
        if name.startswith("failures/"):
            self._set_time(name)

    def put_cells(self) -> None:
        """Put the table of cells for whoever reads the place with other programs."""
        self.remote.put("cells.parquet", (self.root / "cells.parquet").read_bytes())

    def remove(self, path: Path) -> None:
        """Remove a file that was removed below the folder."""
        name = self._name(path)
        if name not in _OWN:
            self._memory.forget([name])
            self.remote.remove(name)

    def push(self) -> int:
        """Send the files of cells that an earlier run could not; the number of files."""
        if self._sent:
            return 0
        known = self._memory.rows()
        left = []
        for folder in _OF_CELLS:
            for file in sorted((self.root / folder).rglob("*")):
                name = self._name(file)
                if name not in known and not file.name.startswith(".") and file.is_file():
                    left.append(name)
        for name in left:  # those that finish a cell come last
            self._put(name)
        self._sent = True
        return len(left)

    def _put(self, name: str) -> None:
        data = (self.root / name).read_bytes()
        self.remote.put(name, data)
        entry = self.remote.entry(name)
        if entry is not None and entry.bytes == len(data):
            self._memory.keep({name: _Row(entry.tag, entry.bytes)})

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # ---- who may write

    def leases(self) -> Leases:
        """Claims on checkpoints, which lie there."""
        return Leases(RemoteClaims(self.remote, "leases"))

    @contextmanager
    def held(self, *, together: bool) -> Iterator[None]:
        """Hold the place for writing, alone or with others that do so together.

        Where the protocol cannot create a file exclusively nobody is kept from writing.

        Raises:
            StoreBusy: another process holds it otherwise; it is named.
        """
        if not self.remote.claims:
            yield
            return
        locks = self._locks
        mine = f"{_TOGETHER}-{uuid.uuid4().hex}" if together else _ALONE
        if not locks.claim(mine):
            raise self._busy(_ALONE)
        try:
            # each shows itself first and looks then: of two at least one sees the other
            others = [_ALONE] if together else locks.names(_TOGETHER)
            for other in others:
                if locks.is_held(other):
                    raise self._busy(other)
            with locks.renewing():
                yield
        finally:
            with contextlib.suppress(IsolossError):  # then it ends by itself
                locks.release(mine)

    @contextmanager
    def tables(self) -> Iterator[None]:
        """Wait until nobody else changes the tables, with those there fetched."""
        if not self.remote.claims:
            self.pull_tables()
            yield
            return
        while not self._locks.claim(_TABLES_LOCK):
            time.sleep(_LOOK_SECONDS)
        try:
            self.pull_tables()
            yield
        finally:
            with contextlib.suppress(IsolossError):
                self._locks.release(_TABLES_LOCK)

    def _busy(self, name: str) -> StoreBusy:
        about = self._locks.about(name)
        holder = f"process {about.get('process')} on {about.get('host')}" if about else "another"
        return StoreBusy(
            f"another run is writing to {self.remote}.",
            asked=f"held by {holder}",
            remedy=f"wait for it to end (a process that died holds it {LEASE_SECONDS:g} s more), or"
            " give this run a store of its own with --out",
        )


_OPEN: dict[tuple[int, str], Mirror] = {}
_OPENING = threading.Lock()


def mirror_of(url: str) -> Mirror:
    """The mirror of a store, one for all of a process."""
    key = (os.getpid(), f"{cache_folder()} {url}")
    with _OPENING:
        if key not in _OPEN:
            _OPEN[key] = Mirror(url)
        return _OPEN[key]


class _Memory:
    """Which files were equal here and there, in a small database that processes share."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, tag TEXT, bytes INTEGER)"
            )

    def rows(self) -> dict[str, _Row]:
        with self._open() as database:
            found = database.execute("SELECT name, tag, bytes FROM files").fetchall()
        return {name: _Row(tag, size) for name, tag, size in found}

    def keep(self, rows: Mapping[str, _Row]) -> None:
        with self._open() as database:
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
                [(name, *row) for name, row in rows.items()],
            )

    def forget(self, names: Iterable[str]) -> None:
        with self._open() as database:
            database.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=60)) as database, database:
            yield database
