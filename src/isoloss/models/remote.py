"""Checkpoints in folders at URLs: found, looked into, and fetched whole.

What a checkpoint is, its digests among it, is known once it has been fetched; until then it has
the sizes and tags that its place lists, by which one that was written anew is told apart.
"""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from isoloss.errors import BadCheckpoint, CheckpointMissing, nearest_name
from isoloss.family import Remote
from isoloss.models.files import weight_names
from isoloss.models.folders import FACT_FILES, FolderFacts, parse_facts, step_in_name
from isoloss.places import shown
from isoloss.places.remote import Entry, RemoteFolder

_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_CHUNK_BYTES = 8 << 20


class RemoteFacts(NamedTuple):
    """A checkpoint at a URL with what its name and its ``training.json`` say."""

    url: str
    facts: FolderFacts
    listed: bool
    """Whether a trainer's file, and not only its name, said so."""


class RemoteFiles:
    """The files of a folder at a URL; see ``files.Files``."""

    commit = None

    def __init__(self, source: Remote) -> None:
        self._source, self._folder = source, RemoteFolder(source.url)

    def __str__(self) -> str:
        return str(self._source)

    @cached_property
    def listing(self) -> dict[str, Entry]:
        """The files of the top folder, by name."""
        found = self._folder.listing(deep=False)
        if not found:
            above, _, name = self._source.url.rpartition("/")
            raise missing(self._source.url, RemoteFolder(above).folders(), name)
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the folder, by name."""
        return {name: entry.bytes for name, entry in self.listing.items()}

    def read(self, name: str, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length`` of one file."""
        return self._folder.read(name, start, length) if length > 0 else b""

    def digest(self, name: str) -> str:
        """The sha256 of one file, all of which is read."""
        digest, size = hashlib.sha256(), self.listing[name].bytes
        for start in range(0, size, _CHUNK_BYTES):
            digest.update(self.read(name, start, _CHUNK_BYTES))
        return digest.hexdigest()

    def fetch(self, folder: Path) -> None:
        """Fill a folder with config, tokenizer and weights.

        Raises:
            BadCheckpoint: it has no weights that are read, or it changed meanwhile.
            PlaceUnreachable: the connection failed time and again.
        """
        try:
            for name in self.wanted():
                self._folder.fetch(name, self.listing[name], folder / name)
        except FileNotFoundError as error:
            raise BadCheckpoint(
                "the checkpoint changed while it was fetched.",
                asked=f"{self}: {error}",
                remedy="run again when its trainer has written it",
            ) from error

    def wanted(self) -> list[str]:
        """Names of the files that a model is read from."""
        small = {name for name in self.listing if PurePosixPath(name).suffix in _SMALL}
        return sorted(small | set(weight_names(self)))


def find_remote(pattern: str) -> list[RemoteFacts]:
    """The folders that a URL with ``*`` matches, by step.

    Args:
        pattern: such as ``s3://bucket/run/step-*``; hidden folders do not match.

    Raises:
        CheckpointMissing: no folder matches; those that are there are named.
        BadCheckpoint: a trainer's file about one is not what a trainer writes.
        PlaceUnreachable: the place does not answer.
    """
    fixed, rest = pattern, list[str]()
    while any(mark in fixed for mark in "*?["):
        fixed, _, last = fixed.rpartition("/")
        rest.insert(0, last)
    place = RemoteFolder(fixed)
    found = [""]
    for part in rest:
        inside = [(below, name) for below in found for name in place.folders(below)]
        found = [f"{below}/{name}".strip("/") for below, name in inside if fnmatchcase(name, part)]
        if not found:
            raise missing(pattern, [name for _, name in inside], part)
    facts = [read_remote_facts(f"{fixed}/{below}".rstrip("/")) for below in found]
    return sorted(facts, key=lambda one: (-1 if (s := one.facts.step) is None else s, one.url))


def read_remote_facts(url: str) -> RemoteFacts:
    """What is known of one folder; see :func:`isoloss.models.folders.read_facts`."""
    name = Path(url.rpartition("/")[2])
    place = RemoteFolder(url)
    for file in FACT_FILES:
        try:
            text = place.read(file).decode("utf-8", errors="replace")
        except FileNotFoundError:
            continue
        return RemoteFacts(url, parse_facts(name, file, text, shown(f"{url}/{file}")), listed=True)
    return RemoteFacts(url, FolderFacts(path=name, step=step_in_name(name.name)), listed=False)


def missing(url: str, there: list[str], name: str) -> CheckpointMissing:
    """The error of a folder that is not there."""
    names = sorted(set(there))
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return CheckpointMissing(
        f"there is no checkpoint at {shown(url)}.",
        asked=shown(url),
        nearest=nearest_name(name, names) or listed or None,
        remedy="check the address; * stands for any text of one name",
    )
