"""Tokenizers of a study's checkpoints, each read once however many checkpoints share it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.family import Source
from isoloss.models.cache import CheckpointCache
from isoloss.models.load import local_folder
from isoloss.models.tokenizer import load_tokenizer_of, tokenizer_hash

_SKIPPED = ("config.json", "generation_config.json", "training.json")
_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A tokenizer with its digest."""

    tokenizer: Any
    hash: str


class Tokenizers:
    """Reads tokenizers, once per content.

    Args:
        cache: where a hub repository's small files go.
    """

    def __init__(self, cache: CheckpointCache) -> None:
        self._cache = cache
        self._known: dict[str, Known] = {}

    def of(self, source: Source) -> Known:
        """The tokenizer of a checkpoint.

        Raises:
            BadCheckpoint: there is none, or it cannot be read.
            CheckpointMissing: the folder or revision is not there.
        """
        with local_folder(source, cache=self._cache, weights=False) as folder:
            key = _content(folder)
            if key not in self._known:
                tokenizer = load_tokenizer_of(folder)
                self._known[key] = Known(tokenizer=tokenizer, hash=tokenizer_hash(tokenizer))
        return self._known[key]


def _content(folder: Path) -> str:
    # every small file may bear on the tokenizer, but for those that surely do not
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _SUFFIXES and file.name not in _SKIPPED and "index" not in file.name:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
