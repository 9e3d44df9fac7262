"""Files that are either whole or absent: written under another name, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import polars as pl

from isoloss.errors import BadRequest, BadStore, DiskFull, NotWritable
from isoloss.places import shown, url_of

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# a file system is mounted anew for reading alone when its disk fails
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}


class Copy(Protocol):
    """Keeps another place like a folder of this machine."""

    def put(self, path: Path) -> None:
        """Put a file there that was written here."""

    def remove(self, path: Path) -> None:
        """Remove a file there that was removed here."""


COPIES: dict[Path, Copy] = {}
"""By the folder; empty where every store is a folder of this machine."""


@contextmanager
def told(path: Path, size: int | None = None) -> Iterator[None]:
    """Say what to do where the system refuses to write to ``path``.

    Args:
        path: what is written.
        size: bytes that are to go there.

    Raises:
        DiskFull: there is no room.
        NotWritable: the file system takes nothing any more, or not from this user.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(
                f"no room to write {path.name}.",
                asked=str(path) if size is None else f"{size:,} bytes at {path}",
                remedy="free some space and run the same command again: finished cells are kept",
            ) from error
        if error.errno in _REFUSED:
            raise NotWritable(
                f"cannot write {path.name}: {error.strerror}.",
                asked=str(path),
                remedy="make the folder writable for this user (mount, permissions, disk) and run"
                " the same command again: finished cells are kept",
            ) from error
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a loss of power."""
    if folder.is_dir():
        return
    if url_of(folder) is not None:
        raise BadRequest(
            "this is written into a folder of this machine, and not to a URL.",
            asked=shown(folder),
            remedy="name a folder or a file here; a store at a URL is named with --out",
        )
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, or a crash, sees the old file or the new one.

    Raises:
        DiskFull: there was no room; the temporary file is removed and ``path`` is as it was.
        NotWritable: the file system refused; as far as it lets, the same.
    """
    # process numbers repeat between the machines that share a folder
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:16]}.tmp"
    with told(path, len(data)):
        make_folder(path.parent)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    if copy := _copy_of(path):
        copy.put(path)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    if copy := _copy_of(path):
        copy.remove(path)


def move(source: Path, target: Path) -> None:
    """Move a file to another place of the same store."""
    make_folder(target.parent)
    source.replace(target)
    if copy := _copy_of(target):
        copy.put(target)
        copy.remove(source)


def _copy_of(path: Path) -> Copy | None:
    if not COPIES:
        return None
    return next((copy for root, copy in COPIES.items() if path.is_relative_to(root)), None)


def write_text(path: Path, text: str) -> None:
    """Put a text file, whole, in UTF-8."""
    write_bytes(path, text.encode())


def write_parquet(path: Path, frame: pl.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Put a Parquet file, whole, with key-value metadata in its footer."""
    # through memory: then the only thing that can fail half-way is a plain write
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata=metadata)
    write_bytes(path, buffer.getvalue())


def read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read one Parquet file, or some columns of it.

    Raises:
        BadStore: the file is truncated or no Parquet at all.
    """
    try:
        return pl.read_parquet(path, columns=columns, hive_partitioning=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadStore(
            f"cannot read {path.name}: {str(error).splitlines()[0]}",
            asked=str(path),
            remedy="set it aside with `isoloss check`, or delete this file, and run the study"
            " again: only its cell is measured anew",
        ) from error


def _sync_folder(folder: Path) -> None:
    # without this a rename may be lost with the power though the file's bytes are safe
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def slug(name: str) -> str:
    """A folder name for any subject: readable where it can be, unique always.

    Names made of letters, digits, ``.``, ``_`` and ``-`` stand for themselves; others keep what
    can be kept and get a digest, so that two names never share a folder.

    >>> slug("arc_easy")
    'arc_easy'
    >>> slug("../etc/passwd")
    'etc-passwd-7fef78f5'
    """
    plain = unicodedata.normalize("NFKD", name)
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")[:64]
    if kept and kept == name:
        return name
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
