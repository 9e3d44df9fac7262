"""Plain tables of numbers, read for one question and filed nowhere.

Every column is asked for by name or as an expression of columns. A row that lacks one of the
numbers asked for is left out and counted; a cell that cannot be what it should be is named by
file, row and line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadData, BadRequest, nearest_name
from isoloss.store.broken_parquet import read_any_parquet
from isoloss.store.expressions import Expression, Floats, evaluate, parse

Bools = NDArray[np.bool_]

_ABSENT = ["", "na", "n/a", "nan", "null", "none", "-"]
_KINDS = ".csv, .tsv, .parquet, .jsonl"


class _Parsed(NamedTuple):
    """A column of numbers, and which cells hold something else."""

    values: Floats
    wrong: Bools


class Limits(NamedTuple):
    """What a column may hold.

    Attributes:
        low: least value.
        high: largest value.
        above: whether ``low`` itself is out.
        remedy: what to do about a value beyond.
    """

    low: float
    high: float
    above: bool
    remedy: str

    @property
    def words(self) -> str:
        """The limits as a sentence has them."""
        if self.high == np.inf:
            return "positive" if self.above else f"at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"

    def hold(self, values: Floats) -> Bools:
        """Which values lie inside."""
        over = values > self.low if self.above else values >= self.low
        return np.asarray(over & (values <= self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTable:
    """Files of equal columns, one below the other.

    Attributes:
        names: of the files.
        frames: their rows.
        headers: lines before the first row of each; -1 where rows are no lines.
    """

    names: tuple[str, ...]
    frames: tuple[pl.DataFrame, ...]
    headers: tuple[int, ...]

    @property
    def columns(self) -> list[str]:
        """Of every file."""
        return self.frames[0].columns

    @property
    def rows(self) -> int:
        """Of all files together."""
        return sum(frame.height for frame in self.frames)

    def where(self, row: int) -> str:
        """A row, counted from 0 through all files, as a person finds it."""
        for name, frame, header in zip(self.names, self.frames, self.headers, strict=True):
            if row < frame.height:
                line = f" (line {row + 1 + header})" if header >= 0 else ""
                return f"row {row + 1}{line} of {name}"
            row -= frame.height
        raise IndexError(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What was asked for, of the rows that hold all of it.

    Attributes:
        values: by role, (n,).
        run: label of each row's training run, (n,); None where no column tells it.
        expressions: by role.
        read: rows of the files.
        unknown: rows left out because something asked for is unknown there.
        notes: what was left out, in words.
    """

    values: Mapping[str, Floats]
    run: NDArray[np.object_] | None
    expressions: Mapping[str, Expression]
    read: int
    unknown: int
    notes: tuple[str, ...]


def read_tables(paths: Sequence[Path]) -> PlainTable:
    """Read CSV, TSV, Parquet or JSON-lines files and put them one below the other.

    Args:
        paths: at least one; their columns are the same, in any order.

    Returns:
        The table, no cell of it read as a number yet.

    Raises:
        BadData: a file cannot be read, has no rows, or has other columns than the first.
    """
    frames = [_read(path) for path in paths]
    first = set(frames[0].columns)
    for path, frame in zip(paths, frames, strict=True):
        if set(frame.columns) != first:
            apart = {
                "only there": set(frame.columns) - first,
                "only in the first": first - set(frame.columns),
            }
            raise BadData(
                f"{path.name} has other columns than {paths[0].name}.",
                asked="; ".join(
                    f"{where}: {', '.join(sorted(x))}" for where, x in apart.items() if x
                ),
                remedy="give files of one kind, or fit each for itself",
            )
    header = {".parquet": -1, ".jsonl": 0, ".ndjson": 0}
    return PlainTable(
        names=tuple(path.name for path in paths),
        frames=tuple(frames),
        headers=tuple(header.get(path.suffix.lower(), 1) for path in paths),
    )


def rows_of(
    table: PlainTable,
    wanted: Mapping[str, str],
    limits: Mapping[str, Limits],
    *,
    run: str | None = None,
    where: str | None = None,
) -> Rows:
    """The numbers asked for, row by row.

    Args:
        table: read by :func:`read_tables`.
        wanted: role, such as ``loss``, to a column or an expression.
        limits: of the roles that have any.
        run: the column, or several between commas, that names the training run.
        where: a condition; other rows are left out.

    Returns:
        Rows on which everything asked for is known.

    Raises:
        BadRequest: an expression cannot be read, or no row is left.
        BadData: a cell is no number, or lies beyond its limits.
    """
    known = table.columns
    asked = {role: parse(text, known, option=f"--{_dashed(role)}") for role, text in wanted.items()}
    cells = _Cells(table)
    chosen, notes = np.ones(table.rows, dtype=bool), []
    if where is not None:
        chosen = _chosen(cells, parse(where, known, option="--where", truth=True))
        notes.append(f"{int((~chosen).sum())} of {table.rows} rows do not meet --where {where}")
    labels = _run_columns(run, known)
    there = {role: cells.are_known(expression, chosen) for role, expression in asked.items()}
    if labels:
        there["run"] = np.all([[t is not None for t in cells.text(x)] for x in labels], axis=0)
    full = np.logical_and.reduce([chosen, *there.values()])
    unknown = int((chosen & ~full).sum())
    if unknown:
        parts = {role: int((chosen & ~known).sum()) for role, known in there.items()}
        told = ", ".join(f"{role}: {count}" for role, count in parts.items() if count)
        notes.append(f"{unknown} of {table.rows} rows lack something and are left out ({told})")
    if not full.any():
        raise BadRequest(
            "no row is left that holds everything asked for.",
            asked="; ".join(notes),
            remedy="name other columns, fill them in, or widen --where",
        )
    kept = np.flatnonzero(full)
    values = {
        role: cells.values(expression, kept, role, limits.get(role))
        for role, expression in asked.items()
    }
    return Rows(
        values=values,
        run=_joined([cells.text(name)[kept] for name in labels]) if labels else None,
        expressions=asked,
        read=table.rows,
        unknown=unknown,
        notes=tuple(notes),
    )


class _Cells:
    """The columns of a table as numbers or text, each parsed once."""

    def __init__(self, table: PlainTable) -> None:
        self._table = table
        self._parsed: dict[str, _Parsed] = {}
        self._texts: dict[str, NDArray[np.object_]] = {}

    def text(self, name: str) -> NDArray[np.object_]:
        """A column as text, (rows,), None where it is empty."""
        if name not in self._texts:
            parts = [_text(frame[name]) for frame in self._table.frames]
            self._texts[name] = np.concatenate([np.array(part, dtype=object) for part in parts])
        return self._texts[name]

    def number(self, name: str) -> _Parsed:
        """A column as numbers, (rows,), NaN where it is empty or holds no number."""
        if name not in self._parsed:
            parts = [_parsed(frame[name]) for frame in self._table.frames]
            self._parsed[name] = _Parsed(
                *(np.concatenate(part) for part in zip(*parts, strict=True))
            )
        return self._parsed[name]

    def evaluated(self, expression: Expression) -> NDArray[Any]:
        """An expression on every row, (rows,)."""
        numbers = {name: self.number(name).values for name in expression.numbers}
        texts = {name: self.text(name) for name in expression.texts}
        return np.broadcast_to(evaluate(expression, numbers, texts), (self._table.rows,))

    def are_known(self, expression: Expression, chosen: Bools) -> Bools:
        """Rows on which every column of an expression holds something, (rows,).

        Raises:
            BadData: a chosen cell of a column of numbers is no number.
        """
        there = np.ones(self._table.rows, dtype=bool)
        for name in expression.numbers:
            bad = np.flatnonzero(self.number(name).wrong & chosen)
            if bad.size:
                more = f" (and {bad.size - 1} more in this column)" if bad.size > 1 else ""
                raise BadData(
                    f"{self.text(name)[bad[0]]!r} is no number.",
                    asked=f"column {name!r}, {self._table.where(int(bad[0]))}{more}",
                    remedy="mend that cell (an unknown number is left empty), or leave the row out "
                    "with --where",
                )
            there &= ~np.isnan(self.number(name).values)
        for name in expression.texts:
            there &= np.array([text is not None for text in self.text(name)])
        return there

    def values(
        self, expression: Expression, kept: NDArray[np.intp], role: str, limits: Limits | None
    ) -> Floats:
        """An expression on the rows kept, within its limits.

        Raises:
            BadData: a value is not finite or lies beyond the limits.
        """
        found = np.asarray(self.evaluated(expression)[kept], dtype=np.float64)
        good = np.isfinite(found)
        what, remedy = "a finite number", "mend that cell, or leave the row out with --where"
        if limits is not None and good.all():
            good, what, remedy = limits.hold(found), limits.words, limits.remedy
        bad = np.flatnonzero(~good)
        if bad.size:
            more = f" ({bad.size} such rows)" if bad.size > 1 else ""
            raise BadData(
                f"{_dashed(role)} must be {what}.",
                asked=f"{found[bad[0]]:g} from {expression.text!r} in "
                f"{self._table.where(int(kept[bad[0]]))}{more}",
                remedy=remedy,
            )
        return found


def _chosen(cells: _Cells, condition: Expression) -> Bools:
    """Rows that meet a condition; where a part of it is unknown it is not met."""
    known = cells.are_known(condition, np.ones(1, dtype=bool))
    return np.asarray(cells.evaluated(condition) & known)


def _dashed(role: str) -> str:
    """A role as its option is called."""
    return role.replace("_", "-")


def _run_columns(run: str | None, known: Sequence[str]) -> list[str]:
    """The columns whose texts together name a training run."""
    if run is None:
        return []
    names = [run] if run in known else [name.strip() for name in run.split(",")]
    for name in names:
        if name not in known:
            raise BadRequest(
                f"there is no column {name!r}.",
                asked=f"--run {run!r}",
                nearest=nearest_name(name, known),
                remedy=f"the columns are {', '.join(known)}",
            )
    return names


def _joined(parts: Sequence[NDArray[np.object_]]) -> NDArray[np.object_]:
    """Labels of runs named by one or several columns."""
    return np.array([" / ".join(labels) for labels in zip(*parts, strict=True)], dtype=object)


def _read(path: Path) -> pl.DataFrame:
    kind = path.suffix.lower()
    if not path.is_file():
        names = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadData(
            f"there is no file {path}.",
            nearest=nearest_name(path.name, names),
            remedy=f"name a table: {_KINDS}",
        )
    try:
        if kind == ".parquet":
            frame = read_any_parquet(path)
        elif kind in {".csv", ".tsv"}:
            # as text: what is no number must be named, not guessed around
            separator = "\t" if kind == ".tsv" else ","
            frame = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
        elif kind in {".jsonl", ".ndjson"}:
            frame = _json_lines(path)
        else:
            raise BadData(
                f"{path.name} is no table that can be read here.",
                asked=str(path),
                nearest=_KINDS,
                remedy="save it as CSV, JSON lines or Parquet",
            )
    except (pl.exceptions.PolarsError, OSError, ValueError, RecursionError) as error:
        raise BadData(
            f"cannot read {path.name}: {str(error).splitlines()[0]}",
            asked=str(path),
            remedy="check that every line has as many fields as the header, or is one JSON object",
        ) from error
    if frame.height == 0:
        raise BadData(f"{path.name} has no rows.", asked=str(path), remedy="name another file")
    return frame


def _json_lines(path: Path) -> pl.DataFrame:
    """Objects of one line each, their values as text: loops log nan, which is no JSON, and text."""
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        row = json.loads(line) if line.strip() else {}
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    as_text = {n: [None if row.get(n) is None else str(row[n]) for row in rows] for n in names}
    return pl.DataFrame(as_text, schema=dict.fromkeys(names, pl.String))


def _text(column: pl.Series) -> list[str | None]:
    try:
        text = column.cast(pl.String, strict=False).str.strip_chars()
    except pl.exceptions.PolarsError:  # bytes that are no text, a type no text is made of
        return [None if value is None else str(value) for value in column.to_list()]
    return [value or None for value in text.to_list()]


def _parsed(column: pl.Series) -> _Parsed:
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        column = text.set(text.str.to_lowercase().is_in(_ABSENT), None)
    try:
        numbers = column.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:  # a type no number is made of
        numbers = pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    wrong = (numbers.is_null() & column.is_not_null()).to_numpy()
    return _Parsed(numbers.fill_null(float("nan")).to_numpy(), wrong)
