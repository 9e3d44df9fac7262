"""Columns of a plain table by their role, every cell checked and named where it is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.errors import BadData, BadRequest, nearest_name
from isoloss.store.broken_parquet import read_any_parquet

_TEXT = {"model", "run", "variant", "stage", "schedule", "task", "metric"}
_COUNTS = {"seed", "step", "tokens", "params", "params_non_embedding", "n", "num_fewshot"}
_NUMBERS = {"lr", "schedule_progress", "loss", "loss_stderr", "value", "stderr"}
ROLES = _TEXT | _COUNTS | _NUMBERS
_ABSENT = ["", "na", "n/a", "nan", "null", "none", "-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of a table, cell by cell.

    Attributes:
        name: the file's name.
        rows: how many.
        columns: role to column.
        by_role: role to cells: text, integers, or finite numbers; None where empty.
        by_column: the same for further columns of numbers.
        header: lines before the first row.
    """

    name: str
    rows: int
    columns: Mapping[str, str]
    by_role: Mapping[str, Sequence[Any]]
    by_column: Mapping[str, Sequence[float | None]]
    header: int

    def get(self, role: str, place: int) -> Any:
        """The cell of a role; None where it is empty or no column has that role."""
        cells = self.by_role.get(role)
        return None if cells is None else cells[place]

    def number(self, column: str, place: int) -> float | None:
        """The cell of a column of numbers."""
        return self.by_column[column][place]

    def row_name(self, place: int) -> str:
        """A row as a person finds it: by its line, the header being the first."""
        return f"row {place + 1}" + (f" (line {place + 1 + self.header})" if self.header else "")

    def where(self, role: str, place: int) -> str:
        """A cell as a person finds it."""
        return f"column {self.columns.get(role, role)!r}, {self.row_name(place)} of {self.name}"


def check_roles(
    columns: Mapping[str, str], scores: Collection[str], losses: Collection[str]
) -> None:
    """Stop at roles that are unknown or do not fit together.

    Raises:
        BadRequest: the role is named with the nearest known one.
    """
    for role in columns:
        if role not in ROLES:
            raise BadRequest(
                f"there is no role {role!r} for a column.",
                asked=f"{role} = {columns[role]!r}",
                nearest=nearest_name(role, ROLES),
                remedy=f"roles are {', '.join(sorted(ROLES))}",
            )
    needs = {"value": ["task", "metric"], "stderr": ["value"], "loss_stderr": ["loss"]}
    missing = [need for role, all_ in needs.items() if role in columns for need in all_]
    for need in ["model", *missing]:
        if need not in columns:
            raise BadRequest(
                f"no column is named for the role {need!r}.",
                asked=", ".join(f"{role} = {name}" for role, name in columns.items()) or None,
                remedy=f"name its column: {need} = COLUMN",
            )
    if "value" not in columns and not scores and not losses:
        raise BadRequest(
            "no column is named that holds a result.",
            asked=", ".join(f"{role} = {name}" for role, name in columns.items()),
            remedy="name columns for task, metric and value; or COLUMN=TASK:METRIC for each "
            "score and COLUMN=SUBJECT:METRIC for each loss",
        )


def read_table(path: Path, columns: Mapping[str, str], numbers: Sequence[str]) -> Table:
    """Read a CSV, TSV or Parquet file.

    Args:
        path: the file.
        columns: role to column, checked by :func:`check_roles`.
        numbers: further columns that hold numbers.

    Raises:
        BadData: the file cannot be read, a column is missing (the nearest is named), or a cell
            is not what its column must hold (row and column are named).
    """
    frame = _read(path)
    for column in [*columns.values(), *numbers]:
        if column not in frame.columns:
            raise BadData(
                f"{path.name} has no column {column!r}.",
                asked=", ".join(f"{r} = {c}" for r, c in columns.items() if c == column) or column,
                nearest=nearest_name(column, frame.columns),
                remedy=f"its columns are {', '.join(frame.columns)}",
            )
    by_role: dict[str, Sequence[Any]] = {}
    by_column: dict[str, Sequence[float | None]] = {}
    table = Table(
        name=path.name,
        rows=frame.height,
        columns=dict(columns),
        by_role=by_role,
        by_column=by_column,
        header=0 if path.suffix.lower() == ".parquet" else 1,
    )
    for role, column in columns.items():
        text = role in _TEXT
        by_role[role] = _text(frame[column]) if text else _parse(frame[column], role, table)
    for column in [*numbers, *([columns["value"]] if "value" in columns else [])]:
        by_column[column] = _parse(frame[column], None, table)
    return table


def _read(path: Path) -> pl.DataFrame:
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            frame = read_any_parquet(path)
        elif kind in {".csv", ".tsv"}:
            # as text: what is no number must be named, not guessed around
            separator = "\t" if kind == ".tsv" else ","
            frame = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
        else:
            raise BadData(
                f"{path.name} is no table that can be read here.",
                asked=str(path),
                nearest=".csv, .tsv, .parquet",
                remedy="save it as CSV or Parquet",
            )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadData(
            f"cannot read {path.name}: {str(error).splitlines()[0]}",
            asked=str(path),
            remedy="check the name, and that every line has as many fields as the header",
        ) from error
    if frame.height == 0:
        raise BadData(f"{path.name} has no rows.", asked=str(path), remedy="name another file")
    return frame


def _text(column: pl.Series) -> list[str | None]:
    try:
        text = column.cast(pl.String, strict=False).str.strip_chars()
    except pl.exceptions.PolarsError:  # bytes that are no text, a type no text is made of
        return [None if value is None else str(value) for value in column.to_list()]
    return [value or None for value in text.to_list()]


def _parse(column: pl.Series, role: str | None, table: Table) -> Sequence[Any]:
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        column = text.set(text.str.to_lowercase().is_in(_ABSENT), None)
    if column.dtype.is_integer() or (role in _COUNTS and column.dtype == pl.String):
        # not through float64: beyond 2^53 it would drop the last digits of a count
        whole = column.cast(pl.Int64, strict=False)
        if whole.null_count() == column.null_count():
            return _counted(whole, role, table)
    try:
        parsed = column.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        parsed = pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    parsed = parsed.fill_nan(None) if column.dtype.is_float() else parsed
    if column.dtype.is_float():
        column = column.fill_nan(None)
    wrong = (parsed.is_null() & column.is_not_null()) | parsed.is_infinite().fill_null(False)
    _refuse(column, wrong, "is no finite number", table)
    if role not in _COUNTS:
        return parsed.to_list()
    _refuse(column, (parsed != parsed.round()).fill_null(False), "is no whole number", table)
    _refuse(column, (parsed.abs() >= 2**63).fill_null(False), "is too large a count", table)
    return _counted(parsed.cast(pl.Int64), role, table)


def _counted(column: pl.Series, role: str | None, table: Table) -> Sequence[int | None]:
    if role in _COUNTS - {"seed"}:
        _refuse(column, (column < 0).fill_null(False), "is a negative count", table)
    return column.to_list()


def _refuse(column: pl.Series, wrong: pl.Series, why: str, table: Table) -> None:
    places = wrong.arg_true()
    if len(places):
        place = int(places[0])
        more = f" (and {len(places) - 1} more in this column)" if len(places) > 1 else ""
        raise BadData(
            f"{column[place]!r} {why}.",
            asked=f"column {column.name!r}, {table.row_name(place)} of {table.name}{more}",
            remedy="mend that cell; an unknown number is left empty",
        )
