"""Files that are either whole or absent: written under another name, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import unicodedata
from pathlib import Path

import polars as pl

from isoloss.errors import BadStore, DiskFull

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, or a crash, sees the old file or the new one.

    Raises:
        DiskFull: there was no room; the temporary file is removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in _NO_SPACE:
            raise DiskFull(
                f"no room to write {path.name}.",
                asked=f"{len(data):,} bytes at {path}",
                remedy="free some space and run the same command again: finished cells are kept",
            ) from error
        raise


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
            remedy="delete this file and run the study again: only its cell is measured anew",
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
