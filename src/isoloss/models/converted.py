"""Checkpoints in other formats, or at URLs, as Hugging Face folders, made when needed.

The folder lies in the cache under its budget; of a checkpoint that was converted it is deleted
after. What it was is remembered beside the cache, with its tokenizer, so that a finished study
converts and fetches nothing again. It is found by the source's files (path, size, mtime, inode; at
a URL name, size and tag), by the command and by the files that the command names.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isoloss.errors import BadCheckpoint, CheckpointMissing
from isoloss.family import Folder, Foreign, Remote
from isoloss.models.cache import CheckpointCache
from isoloss.models.conversion import TOKENIZER, fill, shown
from isoloss.models.digests import sha256_of
from isoloss.models.files import CONFIG, INDEX
from isoloss.models.inspect import Description, Shard, describe
from isoloss.models.remote import RemoteFiles
from isoloss.places import folder_name

_VERSION = 1  # of what is written from a format that is read here
_SMALL = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_OF_TRAINING = {INDEX, "training.json", "trainer_state.json"}


def remembered(source: Foreign | Remote, cache: CheckpointCache) -> Description | None:
    """What a checkpoint was when it was converted or fetched before, as it is now; else None.

    Raises:
        CheckpointMissing: it is not there.
    """
    known = _recall(cache, _key(source))
    return None if known is None else known[0]


def convert(source: Foreign | Remote, cache: CheckpointCache) -> Description:
    """Convert or fetch a checkpoint, unless that is remembered, and tell what it is.

    Raises:
        BadCheckpoint: it cannot be read, or the command failed or wrote no checkpoint.
        CheckpointMissing: it is not there.
        DiskFull: the result is larger than the budget, less what is in use.
    """
    known = remembered(source, cache)
    if known is None:
        with hold_converted(source, cache):
            known = remembered(source, cache)
    assert known is not None
    return known


@contextmanager
def hold_converted(
    source: Foreign | Remote, cache: CheckpointCache, *, weights: bool = True
) -> Iterator[Path]:
    """Have a checkpoint as a Hugging Face folder until the block ends.

    Args:
        source: the checkpoint.
        cache: where the folder lies, and under which budget.
        weights: False for config and tokenizer alone, which are kept.

    Yields:
        The folder.

    Raises:
        BadCheckpoint: see :func:`convert`; or the command gave other weights than before.
        CheckpointMissing: it is not there.
        DiskFull: see :func:`convert`.
    """
    key = _key(source)
    known = _recall(cache, key)
    if known is not None and not weights:
        yield known[1]
        return

    def make(folder: Path) -> None:
        if isinstance(source, Remote):
            RemoteFiles(source).fetch(folder)
        else:
            fill(source, folder)
        now = describe(Folder(path=folder))
        if _key(source) != key:
            raise BadCheckpoint(
                "the checkpoint changed while it was read.",
                asked=str(source),
                remedy="run again when its trainer has written it",
            )
        _remember(cache, key, now, folder)
        if known is not None and known[0].weights_hash != now.weights_hash:
            raise BadCheckpoint(
                "the command gave other weights than when it ran on this checkpoint before.",
                asked=str(source) if isinstance(source, Remote) else shown(source),
                remedy="run again; if it comes back the command is not deterministic: mend that",
            )

    expected = _bytes_of(source) if known is None else known[0].bytes
    with cache.hold_made(_name(key), make, expected_bytes=expected) as folder:
        yield folder


def drop_converted(source: Foreign, cache: CheckpointCache) -> None:
    """Delete the folder made of a checkpoint; what it was stays known."""
    try:
        cache.drop(_name(_key(source)))
    except CheckpointMissing:
        return  # deleted by its trainer; the folder goes when its room is needed


def _bytes_of(source: Foreign | Remote) -> int:
    """What the folder will take, as far as that is known before."""
    if isinstance(source, Foreign):
        return 0
    files = RemoteFiles(source)
    return sum(files.sizes()[name] for name in files.wanted())


def _key(source: Foreign | Remote) -> str:
    if isinstance(source, Remote):
        listed = sorted((n, e.bytes, e.tag) for n, e in RemoteFiles(source).listing.items())
        place = [folder_name(source.url), *listed]
        return hashlib.sha256(json.dumps(place).encode()).hexdigest()
    try:
        if not source.path.exists():
            raise FileNotFoundError(source.path)
        identity = {
            "version": _VERSION,
            "source": _files(source.path),
            "command": source.command,
            "programs": [sha256_of(file) for file in _programs(source)],
            "config": source.config and _files(source.config, {CONFIG}),
            "tokenizer": source.tokenizer and _files(source.tokenizer, TOKENIZER),
            "beside": _files(source.path.parent, {CONFIG, *TOKENIZER}),
        }
    except FileNotFoundError as error:  # perhaps deleted just now
        raise CheckpointMissing(
            f"there is no checkpoint {source.path}.",
            asked=str(source),
            remedy="check the path: it is relative to the study file",
        ) from error
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _programs(source: Foreign) -> Iterator[Path]:
    for word in source.command or ():
        file = (source.started_in or Path()) / word
        if "{" not in word and file.is_file():
            yield file


def _files(place: Path, names: Iterable[str] | None = None) -> list[tuple[str, int, int, int]]:
    """Path, size, mtime in ns and inode of files: a file, some of a folder, or all below it."""
    if place.is_file():
        files = [place]
    elif names is None:
        files = [Path(root) / name for root, _, inside in os.walk(place) for name in inside]
    else:
        files = [place / name for name in names if (place / name).is_file()]
    found = []
    for file in sorted(files):
        stat = file.stat()
        found.append((str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return found


def _name(key: str) -> str:
    return f"converted--{key[:32]}"


def _memory(cache: CheckpointCache) -> Path:
    return cache.folder.with_name("converted")


def _recall(cache: CheckpointCache, key: str) -> tuple[Description, Path] | None:
    """What was remembered, and the folder with config and tokenizer."""
    memory = _memory(cache)
    try:
        data: dict[str, Any] = json.loads((memory / f"{key}.json").read_text(encoding="utf-8"))
        shards = tuple(Shard(**shard) for shard in data["description"].pop("shards"))
        description, small = Description(shards=shards, **data["description"]), data["small"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never made, or not readable: it can be made again
    return (description, memory / small) if (memory / small).is_dir() else None


def _remember(cache: CheckpointCache, key: str, description: Description, folder: Path) -> None:
    memory = _memory(cache)
    memory.mkdir(parents=True, exist_ok=True)
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix in _SMALL and file.name not in _OF_TRAINING and file.is_file()
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    # the checkpoints of a run share one
    small = f"small-{digest.hexdigest()[:32]}"
    if not (memory / small).is_dir():
        part = memory / f"{small}.{os.getpid()}.part"
        part.mkdir(exist_ok=True)
        for file in files:
            shutil.copyfile(file, part / file.name)
        try:
            part.rename(memory / small)
        except OSError:  # another process was first
            shutil.rmtree(part, ignore_errors=True)
    part = memory / f"{key}.{os.getpid()}.part"
    part.write_text(json.dumps({"description": asdict(description), "small": small}))
    part.replace(memory / f"{key}.json")
