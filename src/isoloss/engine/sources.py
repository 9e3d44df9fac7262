"""Where the weights of a checkpoint on disk or at a URL are, as the study says it."""

from __future__ import annotations

import shlex
from pathlib import Path

from isoloss.errors import BadStudy
from isoloss.family import Folder, Foreign, Remote
from isoloss.models.kinds import native_kind
from isoloss.places import shown
from isoloss.study import ModelSpec, Study


def remote_source(spec: ModelSpec, url: str) -> Remote:
    """The source of one checkpoint of a model at a URL.

    Raises:
        BadStudy: it should be converted, or lacks files that lie elsewhere.
    """
    given = [k for k in ("convert", "config", "tokenizer") if getattr(spec, k) is not None]
    if given:
        raise BadStudy(
            "checkpoints at a URL are read in Hugging Face format.",
            asked=f"{given[0]} = {getattr(spec, given[0])!r}, {shown(url)}",
            remedy="put config and tokenizer beside the weights there, or convert the checkpoints"
            " in a folder of this machine",
        )
    return Remote(url=url)


def source_of(study: Study, spec: ModelSpec, path: Path) -> Folder | Foreign:
    """The source of one checkpoint of a model on disk.

    Raises:
        BadStudy: the study asks to run a command, and is a copy that lies in a store.
    """
    if spec.convert is not None and (study.folder / "checkpoints.parquet").exists():
        # a store may come from anyone: looking into it must never start what it names
        raise BadStudy(
            "a study file inside a store does not run commands.",
            asked=f"convert = {spec.convert!r}, {study.folder}",
            remedy="run the study file that the store was made from, or a copy of it in a folder"
            " of your own, once you have read it",
        )
    if not (spec.convert or spec.config or spec.tokenizer or native_kind(path)):
        return Folder(path=path)
    return Foreign(
        path=path,
        command=tuple(shlex.split(spec.convert)) if spec.convert else None,
        started_in=study.folder if spec.convert else None,
        config=study.path(spec.config) if spec.config else None,
        tokenizer=study.path(spec.tokenizer) if spec.tokenizer else None,
    )
