"""TOML files read into frozen, checked configuration, with errors that name key and line."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from isoloss.errors import BadStudy, nearest_name

T = TypeVar("T", bound="Part")
Location = tuple[str | int, ...]

_BYTES = re.compile(r"([\d_.]+) ?(?:([KMGT])i?)?B?", re.IGNORECASE)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?) ?([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Part(BaseModel):
    """A table of a study or family file; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            names = {field.alias or name for name, field in cls.model_fields.items()}
            for key in data:
                if key not in names:
                    raise PydanticCustomError(
                        "unknown_key",
                        "there is no key '{key}' here",
                        {"key": key, "nearest": nearest_name(str(key), names), "known": names},
                    )
        return data

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(by_alias=True), **changes})


def parse(text: str, *, source: str) -> dict[str, Any]:
    """The content of a TOML text.

    Args:
        text: of a file.
        source: the file's name, for messages.

    Raises:
        BadStudy: it is not TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    # ValueError: also a number of thousands of digits
    except (ValueError, RecursionError) as error:
        raise BadStudy(
            f"{source} is not valid TOML: {str(error) or 'it is nested too deeply'}",
            remedy="mend the line; strings need quotes, [[family]] opens one item of a list",
        ) from error


def check(data: dict[str, Any], kind: type[T], *, text: str, source: str) -> T:
    """Check data read from TOML against a configuration.

    Args:
        data: what the TOML parser gave.
        kind: the configuration it must be.
        text: the file's content, to find lines in.
        source: the file's name, for messages.

    Returns:
        The checked configuration.

    Raises:
        BadStudy: a key or value is wrong; the first fault is named with its line and the
            nearest key.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _explain(error, data, text, source) from error


def read(path: Path) -> str:
    """The text of a TOML file.

    Raises:
        BadStudy: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        folder = path.parent if path.parent.is_dir() else Path()
        near = nearest_name(path.name, [p.name for p in folder.glob("*.toml")])
        raise BadStudy(
            f"cannot read the file {path}: {getattr(error, 'strerror', None) or error}",
            nearest=near,
            remedy="isoloss init STUDY.toml writes a working one",
        ) from error


def _explain(error: ValidationError, data: Any, text: str, source: str) -> BadStudy:
    errors = error.errors()
    # of a union's members the one with a misspelt key is the one that was meant
    first = next((e for e in errors if e["type"] == "unknown_key"), errors[0])
    kind, context = first["type"], first.get("ctx", {})
    location = _in_file(first["loc"], data, missing=kind == "missing")
    nearest = None
    if kind == "unknown_key":
        location = (*location, context["key"])
        known = ", ".join(sorted(context["known"]))
        nearest = context["nearest"] or f"the keys here are {known}"
    elif kind in {"union_tag_invalid", "union_tag_not_found"}:
        # pydantic blames the table; what is wrong is the key that says which kind it is
        location = (*location, context["discriminator"].strip("'"))
        tags = re.findall(r"'([^']*)'", context.get("expected_tags", ""))
        nearest = nearest_name(str(context.get("tag", "")), tags)
    line = line_of(text, location)
    where = f"{source}, line {line}" if line else source
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return BadStudy(
        f"{_path(location) or 'the file'}: {_message(first)}{more}",
        asked=where
        if kind in {"unknown_key", "missing", "union_tag_not_found"}
        else f"{context.get('tag', first['input'])!r}, {where}",
        nearest=nearest,
        remedy="mend that line; isoloss init shows every key with its meaning",
    )


def _message(error: ErrorDetails) -> str:
    match error["type"]:
        case "union_tag_invalid":
            return f"it must be one of {error['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return "it is missing"
        case _:
            return error["msg"].removeprefix("Value error, ")


def _in_file(location: Location, data: Any, *, missing: bool) -> Location:
    """The part of an error's location that the file holds.

    Between keys pydantic names the member of a union that it tried; whatever the data do not
    hold at its place is such a name, but for the last part where that is the missing key.
    """
    kept: list[str | int] = []
    for place, part in enumerate(location):
        held = (
            isinstance(data, dict) and part in data
            or isinstance(data, list) and isinstance(part, int) and part < len(data)
        )  # fmt: skip
        if held:
            data = data[part]
        if held or missing and place == len(location) - 1:
            kept.append(part)
    return tuple(kept)


def _path(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


# on lines without the blanks around them: those would be tried in every way
_HEADER = re.compile(r"(\[\[?)([^\]]+)\]\]?")
_KEY = re.compile(r"""["']?([\w.-]+)["']?\s*=""")


def line_of(text: str, location: Location) -> int | None:
    r"""The line of a TOML text on which a key stands, or the nearest table around it.

    >>> line_of('a = 1\n[[b]]\nc = 2\n[[b]]\nc = 3', ("b", 1, "c"))
    5
    """
    counts: dict[Location, int] = {}
    table: Location = ()
    best, best_length = None, 0
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if header := _HEADER.match(line):
            table = _table(header[2], header[1] == "[[", counts)
            here = table
        elif key := _KEY.match(line):
            here = (*table, *key[1].split("."))
        else:
            continue
        shared = min(len(here), len(location))
        if here[:shared] == location[:shared] and shared > best_length:
            best, best_length = number, shared
    return best


def _table(header: str, is_list: bool, counts: dict[Location, int]) -> Location:
    names = [name.strip().strip("\"'") for name in header.split(".")]
    here: Location = ()
    for depth, name in enumerate(names):
        here = (*here, name)
        if is_list and depth == len(names) - 1:
            counts[here] = counts.get(here, -1) + 1
            # lists inside this item start anew
            for other in [c for c in counts if len(c) > len(here) and c[: len(here)] == here]:
                del counts[other]
        if here in counts:
            here = (*here, counts[here])
    return here


def parse_bytes(text: str) -> int:
    """A size in bytes; units are powers of 1024.

    >>> parse_bytes("1GiB")
    1073741824
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write it like '512MiB' or '1GiB'")
    size = float(match[1]) * 1024 ** _POWERS.get((match[2] or "").upper(), 0)
    if size >= 2**63:
        raise ValueError(f"{text[:40]!r} is more than any machine has")
    return int(size)


def parse_seconds(text: str) -> float:
    """A time, in seconds: a number of them, or one with a unit.

    >>> parse_seconds("1.5m"), parse_seconds("2h")
    (90.0, 7200.0)
    """
    match = _SECONDS.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) < math.inf:
        raise ValueError(f"{text!r} is no time; write it like '30s', '5m' or '2h'")
    return float(match[1]) * _UNITS[match[2]]
