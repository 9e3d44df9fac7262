"""Whether a store's files are whole, and cells whose files are not taken back.

A finished cell is its files. Where one of them is cut short the cell has to be forgotten, or no run
would ever measure it again: damaged files and those of their cells are moved into ``RUN/damaged``,
which nothing reads, so that nothing is lost either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from isoloss.steps import steps
from isoloss.store import schema
from isoloss.store.broken_parquet import read_any_parquet
from isoloss.store.cell import read_failure
from isoloss.store.files import move
from isoloss.store.store import PARTS, Store

ASIDE = "damaged"
_TABLES = ("checkpoints.parquet", "cells.parquet", "flags.parquet", "index.parquet")
_PARTS = ("items/*/*.parquet", "arrays/*/*.parquet", "token_losses/*/*/*.parquet")
_TOKENS = "tokens.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file that is not what it should be.

    Attributes:
        file: which, relative to the store.
        what: what is wrong with it.
        cells: the cells that have to be measured again for it.
    """

    file: Path
    what: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wholeness:
    """What a look into every file of a store found.

    Attributes:
        files: files read in full.
        damaged: those that are not whole, or do not fit their cell.
        unfinished: files of cells that never ended; a run that died leaves them.
    """

    files: int
    damaged: tuple[Damage, ...]
    unfinished: int


class _Read(NamedTuple):
    frame: pl.DataFrame | None
    fault: str


class _Cell(NamedTuple):
    row: dict[str, Any]
    tokens_scored: int | None
    metrics: frozenset[str]


def examine(store: Store) -> Wholeness:
    """Read every file of a store, one at a time, and hold it against its cell.

    A cell's documents must be as many as its ``docs_n``, its token losses as many as its layout
    has tokens and as its own measurement counts, and no part that the probe writes may be missing.

    Args:
        store: needs no lock; a cell that ends meanwhile may or may not be looked at.

    Returns:
        The damaged files with the cells that hang on them.
    """
    for name in PARTS:
        store.place.part(name)
    look = _Look(store.path)
    for name in _TABLES:
        if (store.path / name).exists():
            look.read(store.path / name)
    look.measurements()
    look.parts()
    look.missing()
    for file in sorted((store.path / "failures").glob("*.json")):
        look.failure(file)
    return Wholeness(files=look.files, damaged=tuple(look.damaged), unfinished=len(look.unfinished))


class _Look:
    """One pass over the files of a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.files = root, 0
        self.damaged: list[Damage] = []
        self.unfinished: set[Path] = set()
        self._cells: dict[str, _Cell] = {}
        self._broken: set[str] = set()
        self._with_part: dict[str, set[str]] = {"items": set(), "token_losses": set()}

    def read(self, file: Path, cells: tuple[str, ...] = ()) -> pl.DataFrame | None:
        self.files += 1
        found = _read(file)
        if found.frame is None:
            self.fault(file, found.fault, *cells)
        return found.frame

    def fault(self, file: Path, what: str, *cells: str) -> None:
        self.damaged.append(Damage(file=file.relative_to(self.root), what=what, cells=cells))
        self._broken.update(cells)

    def measurements(self) -> None:
        files = sorted(self.root.glob("measurements/*/*.parquet"))
        for file in steps("reading measurements", files):
            is_batch = file.name.startswith("batch-")
            frame = self.read(file, () if is_batch else (file.stem,))
            if frame is None:
                continue
            other = [n for n, kind in schema.MEASUREMENTS.items() if frame.schema.get(n) != kind]
            if other:
                what = "of another type:" if other[0] in frame.columns else "it lacks the column"
                self.fault(file, f"{what} {other[0]}", *(() if is_batch else (file.stem,)))
            elif is_batch:
                self._batch(frame)
            else:
                self._single(file, frame)

    def _batch(self, frame: pl.DataFrame) -> None:
        rows = schema.conform(frame, schema.CELLS).unique("cell", maintain_order=True)
        self._cells |= {row["cell"]: _Cell(row, None, frozenset()) for row in rows.to_dicts()}

    def _single(self, file: Path, frame: pl.DataFrame) -> None:
        try:
            row = json.loads(pl.read_parquet_metadata(file)[schema.CELL_KEY])
            name = row["cell"]
        except (pl.exceptions.PolarsError, KeyError, ValueError, TypeError):
            self.fault(file, "it does not say which cell it is", file.stem)
            return
        if name != file.stem or set(frame["cell"]) - {name}:
            self.fault(file, f"it holds the numbers of cell {name}", file.stem)
            return
        scored = frame.filter(pl.col("metric") == "tokens_scored")["n"]
        count = int(scored[0]) if len(scored) and scored[0] is not None else None
        self._cells[name] = _Cell(row, count, frozenset(frame["metric"].to_list()))

    def parts(self) -> None:
        for pattern in _PARTS:
            kind = pattern.partition("/")[0]
            for file in steps(f"reading {kind}", sorted(self.root.glob(pattern))):
                if file.name == _TOKENS:
                    continue
                if file.stem not in self._cells:
                    if file.stem not in self._broken:
                        self.unfinished.add(file)
                    continue
                if kind in self._with_part:
                    self._with_part[kind].add(file.stem)
                frame = self.read(file, (file.stem,))
                if frame is not None and (what := self._unlike(kind, file, frame)):
                    self.fault(file, what, file.stem)
        for file in sorted(self.root.glob(f"token_losses/*/*/{_TOKENS}")):
            # one cell of the layout, measured again, writes the file anew
            others = sorted(
                (f for f in file.parent.glob("*.parquet") if f.stem in self._cells),
                key=lambda f: f.stat().st_mtime_ns,
            )
            self.read(file, tuple(f.stem for f in others[-1:]))

    def _unlike(self, kind: str, file: Path, frame: pl.DataFrame) -> str | None:
        cell = self._cells[file.stem]
        if kind == "items":
            wanted = cell.row.get("docs_n") if cell.row.get("source") == "measured" else None
            if wanted is not None and frame.height != wanted:
                return f"it holds {frame.height} documents and its cell has {wanted}"
        if kind == "token_losses":
            if "loss_nats" not in frame.columns:
                return "it lacks the column loss_nats"
            tokens = _height(file.with_name(_TOKENS))
            for wanted, whose in ((cell.tokens_scored, "its cell"), (tokens, "its layout")):
                if wanted is not None and frame.height != wanted:
                    return f"it holds {frame.height} losses and {whose} has {wanted} tokens"
        return None

    def missing(self) -> None:
        """Cells whose probe writes a part that is not there."""
        for name, cell in self._cells.items():
            if cell.row.get("source") != "measured" or name in self._broken:
                continue
            probe = cell.row.get("probe")
            lacks = None
            if probe == schema.TASK_PROBE and name not in self._with_part["items"]:
                lacks = "the results of its documents are missing"
            # an encoder's are pseudo-losses, which are not kept a token
            has_losses = "loss_nats_per_token" in cell.metrics
            if (
                probe == schema.LOSS_PROBE
                and has_losses
                and name not in self._with_part["token_losses"]
            ):
                lacks = "the losses of its tokens are missing"
            if lacks:
                (file,) = self.root.glob(f"measurements/*/{name}.parquet")
                self.fault(file, lacks, name)

    def failure(self, file: Path) -> None:
        self.files += 1
        try:
            read_failure(file)
        except ValueError as error:
            self.fault(file, f"it is no sound JSON: {error}")


def set_aside(store: Store, damaged: Sequence[Damage]) -> int:
    """Move damaged files and all files of their cells into ``RUN/damaged``.

    Args:
        store: not held for writing; it is while files are moved.
        damaged: what :func:`examine` found.

    Returns:
        Cells forgotten, which the next run measures again.

    Raises:
        StoreBusy: a run writes to the store.
    """
    cells = sorted({cell for damage in damaged for cell in damage.cells})
    with store.writing():
        for damage in damaged:
            _move(store.path, store.path / damage.file)
        for cell in cells:
            for file in _files_of(store.path, cell):
                _move(store.path, file)
        # what is left stands in the batch of an import
        store.remove([cell for cell in cells if cell in store.finished()])
    return len(cells)


def _files_of(root: Path, cell: str) -> Iterator[Path]:
    for pattern in ("measurements/*/*.parquet", *_PARTS):
        yield from list(root.glob(pattern.removesuffix("*.parquet") + f"{cell}.parquet"))


def _move(root: Path, file: Path) -> None:
    if file.exists():
        target = root / ASIDE / file.relative_to(root)
        move(file, target)


def _read(file: Path) -> _Read:
    try:
        # whole: a footer alone does not tell that the pages before it can be read
        return _Read(read_any_parquet(file), "")
    except OSError as error:
        return _Read(None, f"cannot read {file.name}: {error}")


def _height(file: Path) -> int | None:
    try:
        return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError):
        return None
