"""Files of published data sets as rows: Parquet, JSON, JSON lines, CSV and NLPCC's text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from isoloss.errors import BadData, nearest_name
from isoloss.tasks.jsonl import decode, json_object, read_bytes

_TAGGED = re.compile(r"<(question|triple|answer) id=(\d+)>\s*(.*)")
_SPLIT = re.compile(r"_(test|dev|val)$")


class Row(NamedTuple):
    """One record as published, and where it stands."""

    record: dict[str, Any]
    where: str

    def get(self, *keys: str) -> Any:
        """The value of the first of these keys that the record has.

        Raises:
            BadData: it has none of them.
        """
        for key in keys:
            if key in self.record:
                return self.record[key]
        known = [key for key in self.record if isinstance(key, str)]
        raise BadData(
            f"A record has no {keys[0]!r}.",
            asked=f"{self.where}: keys {', '.join(map(repr, known))}",
            nearest=nearest_name(keys[0], known),
            remedy="give the file as its authors publish it, or name the data set it belongs to",
        )

    def text(self, *keys: str) -> str:
        """The text of the first of these keys that the record has.

        Raises:
            BadData: there is none, it is no text, or it is empty.
        """
        value = self.get(*keys)
        if isinstance(value, str) and value.strip():
            return value
        raise self.fault(f"{keys[0]!r} is no text", value)

    def texts(self, *keys: str) -> tuple[str, ...]:
        """The list of texts of the first of these keys that the record has.

        Raises:
            BadData: there is none, or it is no list of texts.
        """
        value = self.get(*keys)
        if isinstance(value, list) and value and all(isinstance(v, str) and v for v in value):
            return tuple(value)
        raise self.fault(f"{keys[0]!r} is no list of texts", value)

    def place(self, value: Any, names: Sequence[Any]) -> int:
        """Where ``value`` stands among the names of the options.

        Raises:
            BadData: it is none of them.
        """
        if value in names:
            return list(names).index(value)
        raise self.fault(
            "the right answer is none of the options", value, ", ".join(map(repr, names))
        )

    def fault(self, what: str, value: Any, nearest: str | None = None) -> BadData:
        """An error that names this record."""
        return BadData(
            f"{what[0].upper()}{what[1:]}.",
            asked=f"{self.where}: {value!r}",
            nearest=nearest,
            remedy="give the file as its authors publish it",
        )


def read_rows(files: Iterable[Path]) -> list[Row]:
    """The records of some files in their order.

    A CSV without a header is taken as MMLU's: question, choices, answer. The ``subject`` of a
    record that names none is its file's or, for Parquet, its folder's name.

    Raises:
        BadData: a file is missing, empty or not what its name says; the place is named.
    """
    rows: list[Row] = []
    for file in files:
        found = _READERS.get(file.suffix.lower(), _json_rows)(file)
        if not found:
            raise BadData(
                "A data set's file holds no records.", asked=str(file), remedy="fetch it again"
            )
        rows += found
    return rows


def _parquet_rows(file: Path) -> list[Row]:
    import polars as pl

    try:
        frame = pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadData(
            f"A Parquet file cannot be read: {str(error).splitlines()[0]}",
            asked=str(file),
            remedy="correct the path, or fetch the file again",
        ) from error
    return [
        Row({"subject": file.parent.name, **record}, f"{file}, row {number}")
        for number, record in enumerate(frame.iter_rows(named=True))
    ]


def _json_rows(file: Path) -> list[Row]:
    text = decode(read_bytes(file), str(file))
    if _TAGGED.match(text):
        return _tagged_rows(text, file)
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return [
            Row(json_object(line, where), where)
            # split on \n alone: U+2028 and the like may stand inside a JSON string
            for where, line in _numbered(text.split("\n"), file)
        ]
    found = data if isinstance(data, list) else [data]
    return [
        row
        for number, value in enumerate(found)
        for row in _unfolded(value, file, f"{file}, record {number}")
    ]


def _numbered(lines: Iterable[str], file: Path) -> list[tuple[str, str]]:
    return [
        (f"{file}, line {number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _unfolded(value: Any, file: Path, where: str) -> list[Row]:
    """One record, or the questions that a record of TriviaQA, RACE or C3 holds together."""
    if isinstance(value, dict) and isinstance(value.get("Data"), list):
        return [Row(one, f"{where}, question {k}") for k, one in enumerate(value["Data"])]
    if isinstance(value, dict) and isinstance(value.get("questions"), list):
        listed = zip(value["questions"], value["options"], value["answers"], strict=True)
        return [
            Row(
                {
                    "example_id": f"{file.parent.name}{file.stem}",
                    "article": value["article"],
                    "question": question,
                    "options": options,
                    "answer": answer,
                },
                f"{where}, question {k}",
            )
            for k, (question, options, answer) in enumerate(listed)
        ]
    if isinstance(value, list) and len(value) == 3 and isinstance(value[1], list):
        return [
            Row({"context": value[0], **one}, f"{where}, question {k}")
            for k, one in enumerate(value[1])
        ]
    if isinstance(value, dict):
        return [Row(value, where)]
    raise BadData(
        "A record is no JSON object.",
        asked=f"{where}: {str(value)[:60]}",
        remedy="give the file as its authors publish it",
    )


def _csv_rows(file: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(decode(read_bytes(file), str(file)), newline=""))
    subject = _SPLIT.sub("", file.stem)
    header: list[str] | None = None
    rows: list[Row] = []
    for cells in reader:
        where = f"{file}, line {reader.line_num}"
        if not cells:
            continue
        if not rows and header is None and "answer" in cells:
            header = cells
        elif header is not None and "A" in header:
            rows.append(Row({"subject": subject, **dict(zip(header, cells, strict=False))}, where))
        else:
            question, *choices, answer = cells if len(cells) > 2 else ["", ""]
            record = {"question": question, "choices": choices, "answer": answer.strip()}
            rows.append(Row({"subject": subject, **record}, where))
    return rows


def _tagged_rows(text: str, file: Path) -> list[Row]:
    """NLPCC's text: a line each for question, triple and answer, told apart by tags."""
    rows: dict[str, Row] = {}
    for where, line in _numbered(text.split("\n"), file):
        if tagged := _TAGGED.match(line):
            kind, number, value = tagged.groups()
            row = rows.setdefault(number, Row({"id": number}, where))
            row.record[kind] = value.strip()
    return list(rows.values())


_READERS = {".parquet": _parquet_rows, ".csv": _csv_rows}
