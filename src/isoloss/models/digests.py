"""sha256 of weight files, each computed once: a 100 GB family is not read at every start."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from isoloss.places.names import cache_folder as cache_folder

# a file written twice within one tick of the file system's clock keeps its mtime
_SETTLED_NS = 2_000_000_000
_SCHEMA = """CREATE TABLE IF NOT EXISTS digests (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT)"""
# the file itself is at fault: no database, a damaged one, or one with other columns
_BROKEN = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Known digests are found again by (path, size, mtime_ns, inode) in a small database that
    several processes share. A broken or unwritable database costs time, never an error.
    """
    path = path.resolve()
    before = _identity(path)
    known = _recall(path, before)
    if known is not None:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time_ns() - before[1] > _SETTLED_NS
    if settled and _identity(path) == before:
        _remember(path, before, digest)
    return digest


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _recall(path: Path, identity: tuple[int, int, int]) -> str | None:
    rows = _ask(
        "SELECT sha256 FROM digests WHERE path = ? AND (size, mtime_ns, inode) = (?, ?, ?)",
        (str(path), *identity),
    )
    return str(rows[0][0]) if rows else None


def _remember(path: Path, identity: tuple[int, int, int], digest: str) -> None:
    _ask("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (str(path), *identity, digest))


def _ask(query: str, values: tuple[str | int, ...]) -> list[tuple[str]]:
    file = cache_folder() / "digests.sqlite3"
    # OSError and a second sqlite3.Error: locked, full, read-only; this costs time and no more
    with suppress(sqlite3.Error, OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _execute(file, query, values)
        except sqlite3.DatabaseError as error:
            if (error.sqlite_errorcode & 0xFF) in _BROKEN:
                file.unlink(missing_ok=True)
                return _execute(file, query, values)
    return []


def _execute(file: Path, query: str, values: tuple[str | int, ...]) -> list[tuple[str]]:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        database.execute(_SCHEMA)
        return database.execute(query, values).fetchall()
