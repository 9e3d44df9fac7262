"""One way to look into a checkpoint, whether its files lie on disk or in a hub."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from isoloss.errors import BadCheckpoint, BadRequest, CheckpointMissing, nearest_name
from isoloss.family import Folder, Hub, Remote, Source
from isoloss.models.digests import sha256_of

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
_CONVERT = (
    "convert them once, on a machine where you trust the file: "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
)


class Files(Protocol):
    """The files of one checkpoint; ``str`` gives where they are, for messages."""

    @property
    def commit(self) -> str | None:
        """The hub commit they belong to, None on disk."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the top folder, by name."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length`` of one file."""

    def digest(self, name: str) -> str:
        """The sha256 of one file, in hexadecimal."""


class LocalFiles:
    """The files of a folder on disk."""

    commit = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the folder, by name."""
        return self._sizes

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {p.name: p.stat().st_size for p in self._folder.iterdir() if p.is_file()}

    def read(self, name: str, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length`` of one file."""
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def digest(self, name: str) -> str:
        """The sha256 of one file, computed at most once while it does not change."""
        return sha256_of(self._folder / name)


def open_files(source: Source) -> Files:
    """The files of a checkpoint, wherever it lies.

    Raises:
        CheckpointMissing: the folder or the revision is not there.
        BadRequest: the checkpoint was imported and has no weights.
    """
    if isinstance(source, Folder):
        if not source.path.is_dir():
            parent = source.path.parent
            names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
            raise CheckpointMissing(
                f"there is no checkpoint folder {source.path}.",
                asked=str(source),
                nearest=nearest_name(source.path.name, names),
                remedy="check the path: it is relative to the study file",
            )
        return LocalFiles(source.path)
    if isinstance(source, Hub):
        from isoloss.models.hub import HubFiles

        return HubFiles(source)
    if isinstance(source, Remote):
        from isoloss.models.remote import RemoteFiles

        return RemoteFiles(source)
    raise BadRequest(
        "an imported checkpoint has numbers and no weights.",
        asked=str(source),
        remedy="name a folder or a hub repository to measure anew",
    )


def read_json(files: Files, name: str) -> dict[str, Any]:
    """A small JSON object among the files.

    Raises:
        BadCheckpoint: it is not valid JSON, or no object.
    """
    text = files.read(name, 0, files.sizes()[name])
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise BadCheckpoint(
            f"{name} of the checkpoint cannot be read: {error}",
            asked=f"{files}/{name}",
            remedy="copy this file from another checkpoint of the same model, or export again",
        ) from error
    return data


def read_config(files: Files) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        BadCheckpoint: there is none, or it is no JSON object.
    """
    if CONFIG not in files.sizes():
        raise BadCheckpoint(
            "the checkpoint has no config.json.",
            asked=str(files),
            nearest=nearest_name(CONFIG, files.sizes()),
            remedy="write it with model.save_pretrained(FOLDER), or copy it from another"
            " checkpoint of the same model",
        )
    return read_json(files, CONFIG)


def weight_names(files: Files) -> tuple[str, ...]:
    """The names of the weight files, sorted: the single one, else those its index names.

    Raises:
        BadCheckpoint: there are none, only pickled ones, or one that the index names is missing.
    """
    present = files.sizes()
    if SINGLE in present:
        return (SINGLE,)
    if INDEX not in present:
        raise _no_weights(files)
    try:
        names = sorted({str(name) for name in read_json(files, INDEX)["weight_map"].values()})
    except (KeyError, AttributeError) as error:
        raise BadCheckpoint(
            f"{INDEX} names no shards.", asked=str(files), remedy="export the checkpoint again"
        ) from error
    for name in names:
        if name not in present:
            have = sum(other in present for other in names)
            raise BadCheckpoint(
                f"the weight file {name} is missing.",
                asked=f"{INDEX} names {len(names)} shards, {have} are there: {files}",
                remedy="copy or download the missing shard; the checkpoint cannot be used"
                " without it",
            )
    return tuple(names)


def _no_weights(files: Files) -> BadCheckpoint:
    pickled = sorted(n for n in files.sizes() if PurePosixPath(n).suffix in _PICKLES)
    other = sorted(n for n in files.sizes() if n.endswith(".safetensors"))
    if pickled:
        return BadCheckpoint(
            "the weights are pickled, and a pickle can run any code: isoloss reads"
            " safetensors alone.",
            asked=f"{files}/{pickled[0]}",
            remedy=_CONVERT,
        )
    return BadCheckpoint(
        f"the checkpoint has no {SINGLE} and no {INDEX}.",
        asked=str(files),
        nearest=other[0] if other else None,
        remedy="rename the file, or export the checkpoint again with model.save_pretrained(FOLDER)",
    )
