"""Weights and tokenizers as they lie on disk today, held against what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.engine.tokenizers import Tokenizers
from isoloss.errors import IsolossError
from isoloss.family import Folder
from isoloss.models.cache import default_cache
from isoloss.models.inspect import Description, describe
from isoloss.models.tokenizer import vocabulary_size
from isoloss.steps import steps
from isoloss.store import Store
from isoloss.studies.checkup.fault import Fault, point_name

_REMOTE = ("hub:", "import:")
_AGAIN = "run the study again to measure what is there now, or put the old files back"
_OTHER = "put the old weights back, or give the new ones a folder or a run of their own"
_UNUSED, _UNUSED_SHARE = 1024, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What became of the checkpoints of a store.

    Attributes:
        compared: checkpoints whose weights were read again.
        gone: folders that are no longer there; what was measured of them stands.
        elsewhere: checkpoints of hub repositories and imports, which were not looked at.
        folders: where each checkpoint lies, by the digest of its weights; only unchanged ones.
        vocabulary: rows of the embedding, by the digest of the weights.
        faults: what is wrong.
    """

    compared: int
    gone: int
    elsewhere: int
    folders: Mapping[str, Path]
    vocabulary: Mapping[str, int]
    faults: tuple[Fault, ...]


def check_sources(store: Store, base: Path) -> Sources:
    """Read weights and tokenizers of every folder that is still there.

    Weights are hashed once while their size and time do not change, as in every run.

    Args:
        store: tells where checkpoints lay and the digests they had.
        base: the folder that the study's paths are relative to.
    """
    rows = [r for r in store.checkpoints().collect().to_dicts() if r["source"]]
    here = [row for row in rows if not str(row["source"]).startswith(_REMOTE)]
    present = {id(row): base / Path(row["source"]).expanduser() for row in here}
    present = {key: path for key, path in present.items() if path.is_dir()}
    known = {row["weights_hash"]: point_name(row) for row in rows}
    reader = _Reader(store)
    for row in steps("reading weights", here):
        if path := present.get(id(row)):
            reader.read(row, path, known)
    return Sources(
        compared=len(present),
        gone=len(here) - len(present),
        elsewhere=len(rows) - len(here),
        folders=reader.folders,
        vocabulary=reader.vocabulary,
        faults=(*reader.faults, *_mixed_tokenizers(reader.tokenizers)),
    )


class _Reader:
    def __init__(self, store: Store) -> None:
        self.faults: list[Fault] = []
        self.folders: dict[str, Path] = {}
        self.vocabulary: dict[str, int] = {}
        self.tokenizers: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
        self._tokenizers = Tokenizers(default_cache())
        cells = store.cells().filter(pl.col("tokenizer_hash").is_not_null())
        self._measured: dict[str, set[str]] = defaultdict(set)
        for weights, tokenizer in (
            cells.select("weights_hash", "tokenizer_hash").unique().collect().iter_rows()
        ):
            self._measured[weights].add(tokenizer)

    def fault(self, level: Any, kind: str, row: Mapping[str, Any], what: str, remedy: str) -> None:
        where = f"{point_name(row)} ({row['source']})"
        self.faults.append(Fault(level=level, kind=kind, where=where, what=what, remedy=remedy))

    def read(self, row: Mapping[str, Any], path: Path, known: Mapping[str, str]) -> None:
        source = Folder(path=path)
        try:
            described = describe(source)
        except IsolossError as error:
            self.fault("broken", "checkpoint_unreadable", row, error.what, error.remedy)
            return
        recorded, now = row["weights_hash"], described.weights_hash
        if recorded is not None and recorded != now:
            whose = f", those of {known[now]}" if now in known else ""
            self.fault(
                "broken",
                "weights_changed",
                row,
                f"its weights were {recorded[:12]} when they were measured and are "
                f"{now[:12]} now{whose}",
                _OTHER,
            )
        else:
            self.folders[now] = path
        try:
            tokenizer = self._tokenizers.of(source)
        except IsolossError as error:
            self.fault("broken", "tokenizer_unreadable", row, error.what, error.remedy)
            return
        self._check_tokenizer(
            row, described, tokens=vocabulary_size(tokenizer.tokenizer), digest=tokenizer.hash
        )

    def _check_tokenizer(
        self, row: Mapping[str, Any], described: Description, *, tokens: int, digest: str
    ) -> None:
        name = point_name(row)
        self.tokenizers[row["family"], row["run"]].setdefault(digest, []).append(name)
        then = self._measured[described.weights_hash]
        if then and digest not in then:
            self.fault(
                "broken",
                "tokenizer_changed",
                row,
                f"its tokenizer is {digest[:12]} now and was {' or '.join(h[:12] for h in then)} "
                "when it was measured",
                _AGAIN,
            )
        rows = _embedding_rows(described.config)
        if rows is None:
            return
        self.vocabulary[described.weights_hash] = rows
        if tokens > rows:
            self.fault(
                "broken",
                "tokenizer_too_large",
                row,
                f"its tokenizer has {tokens:,} tokens and its embedding {rows:,} rows: it is "
                "that of another model",
                "put the tokenizer the model was trained with into the folder",
            )
        # padding to a multiple of 64 or 128 is usual, a tenth of the vocabulary is not
        elif rows - tokens >= _UNUSED and rows - tokens > _UNUSED_SHARE * rows:
            self.fault(
                "suspicious",
                "tokenizer_small",
                row,
                f"its tokenizer has {tokens:,} tokens and its embedding {rows:,} rows",
                "make sure that this is the tokenizer the model was trained with",
            )


def _embedding_rows(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size")
    return rows if isinstance(rows, int) and rows > 0 else None


def _mixed_tokenizers(
    runs: Mapping[tuple[str, str], Mapping[str, list[str]]],
) -> list[Fault]:
    found = []
    for (family, run), tokenizers in runs.items():
        if len(tokenizers) > 1:
            fewest = min(tokenizers.values(), key=len)
            found.append(
                Fault(
                    level="broken",
                    kind="tokenizers_differ",
                    where=f"{family}/{run}",
                    what=f"{len(tokenizers)} tokenizers stand in the folders of one run; "
                    f"fewest have that of {', '.join(fewest[:3])}",
                    remedy="losses under different tokenizers are not comparable: put the one the "
                    "run was trained with into every folder",
                )
            )
    return found
