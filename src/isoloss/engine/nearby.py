"""What lies about that a study could measure: checkpoints, texts, tasks, found by their names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isoloss.engine.template import Text, is_family
from isoloss.errors import BadData, BadRequest
from isoloss.models.folders import step_in_name

_DEPTH, _FOLDERS = 3, 2_000  # where somebody starts in a home folder, a look must not take minutes
_NO_TEXT = ("license", "licence", "readme", "requirements", "merges", "vocab", "changelog")
_HELD_OUT = ("valid", "heldout", "held-out", "held_out", "test", "dev")
_LOOKED_AT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """What was found, the likeliest first.

    Attributes:
        checkpoints: folders of checkpoints, and families that ``isoloss pretrain`` wrote.
        texts: plain texts.
        tasks: files of questions with options.
    """

    checkpoints: tuple[Path, ...]
    texts: tuple[Path, ...]
    tasks: tuple[Path, ...]


def look_around(folder: Path) -> Nearby:
    """Look for what could be measured, not deep and not long."""
    checkpoints: list[Path] = []
    texts: list[Path] = []
    tasks: list[Path] = []
    inside: set[Path] = set()
    for here, folders, files in _walk(folder):
        if here in inside or any(parent in inside for parent in here.parents):
            continue
        if is_family(here):
            checkpoints.append(here)
            inside.add(here)
            continue
        if holds_checkpoints(here, folders):
            checkpoints.append(here)
            inside.update(here / name for name in folders)
        for name in files:
            low = name.lower()
            if low.endswith((".txt", ".text")) and not low.startswith(_NO_TEXT):
                texts.append(here / name)
            elif low.endswith(".jsonl") and is_task(here / name):
                tasks.append(here / name)
    # a family says most; then a run with its steps; held-out texts before others
    checkpoints.sort(key=lambda path: (not is_family(path), len(path.parts), str(path)))
    texts.sort(key=lambda path: (not path.name.lower().startswith(_HELD_OUT), len(path.parts)))
    return Nearby(checkpoints=tuple(checkpoints), texts=tuple(texts), tasks=tuple(tasks))


def holds_checkpoints(folder: Path, folders: list[str]) -> bool:
    """Whether the folder's subfolders are checkpoints in Hugging Face format."""
    steps = [name for name in folders if step_in_name(name) is not None]
    return any((folder / name / "config.json").is_file() for name in steps)


def is_task(file: Path) -> bool:
    """Whether the first row of a JSONL file is a question with options."""
    try:
        with file.open(encoding="utf-8") as lines:
            row = json.loads(lines.readline(_LOOKED_AT))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "choices" in row


def text_of(path: Path) -> Text:
    """A text with the rule that seems to part its documents.

    Args:
        path: a file of UTF-8 text, or a folder of them.

    Raises:
        BadData: it is not there, is empty, or is no text.
        BadRequest: it is a table of rows.
    """
    if path.is_dir():
        return Text(path=path, document="file")
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
        # the last character may be cut in two
        words = start.decode("utf-8", errors="strict" if len(start) < _LOOKED_AT else "ignore")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(
            f"{path} is no text: {getattr(error, 'strerror', None) or 'not valid UTF-8'}.",
            asked=str(path),
            remedy="name a UTF-8 text file, or a folder of them",
        ) from error
    if not words.strip():
        raise BadData(f"{path} is empty.", asked=str(path), remedy="name another text")
    if path.suffix in {".jsonl", ".ndjson"}:
        row = words.partition("\n")[0]
        if '"text"' not in row:
            raise BadRequest(
                f"the rows of {path} have no text.",
                asked=row[:80],
                remedy="name a plain text, or write text_key = NAME into the study afterwards",
            )
        return Text(path=path, document="file")
    rule = "blank-line" if "\n\n" in words.replace("\r\n", "\n") else "line"
    return Text(path=path, document=rule)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for seen, (here, folders, files) in enumerate(os.walk(folder)):
        if seen >= _FOLDERS:
            return
        at = Path(here)
        deep = len(at.relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        known = list(folders)
        if deep >= _DEPTH:
            folders.clear()
        yield at, known, sorted(files)
