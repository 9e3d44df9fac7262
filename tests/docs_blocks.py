"""Every code block of README and the docs, and how they are read as commands and as output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(
    r"(?:<!-- tested: (?P<by>\S+) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.DOTALL
)
_WORD = re.compile(r"[A-Za-z][A-Za-z_]+")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: the file's name.
        kind: what stands behind the fence; empty for plain text.
        text: the block.
        tested_by: the test that is named right before it.
        printed: the block ``text`` that follows, separated by an empty line alone: what it prints.
    """

    page: str
    kind: str
    text: str
    tested_by: str | None
    printed: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    made = []
    for i, one in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        between = None if after is None else text[one.end() : after.start()].strip()
        printed = after["body"] if after and after["kind"] == "text" and between == "" else None
        made.append(Block(page.name, one["kind"], one["body"], one["by"], printed))
    return made


def commands(text: str) -> list[list[str]]:
    """The lines of a console block as words; comments, prompts and pipes are left out."""
    joined = text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines()]
    parted = [shlex.split(line, comments=True) for line in lines]
    return [words for words in parted if words]


def missing(shown: str, told: str) -> list[str]:
    """Lines of a shown output whose words stand together in no line of what was printed.

    Numbers are not compared: the docs tell those of the full demo.
    """
    lines = [set(_WORD.findall(line)) for line in told.splitlines()]
    return [
        line
        for line in shown.splitlines()
        if line.strip(" .") and not any(set(_WORD.findall(line)) <= there for there in lines)
    ]


def table() -> list[list[str]]:
    """Rows of the tables of metrics, as cells."""
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = [row.strip("|").split(" |") for row in re.findall(r"^\| `.*$", text, re.M)]
    return [[cell.strip() for cell in row] for row in rows if len(row) > 2]


def documented() -> set[str]:
    """Metrics that docs/metrics.md has a row for."""
    return {name for row in table() for name in re.findall(r"`([^`]+)`", row[0])}
