"""Sentences as templates with values put in, so that they can be said in more than one language."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from isoloss.report.sureness import Sureness
from isoloss.report.text import counted, shown

_SLOT = re.compile(r"\{(\w+)\}")
_LONG = 400
MOST = 6
"""Names in a sentence; the rest is counted."""


class Word(str):
    """Words of the page's own: said in the reader's language."""

    __slots__ = ()


class English(str):
    """A sentence that stands in English only, such as a claim."""

    __slots__ = ()


class Code(str):
    """A command to copy."""

    __slots__ = ()


class Piece(NamedTuple):
    """A value as the page shows it; ``kind`` is name, word, english or code."""

    kind: str
    text: str


class Part(NamedTuple):
    """A stretch of a sentence: the template's own words, or the pieces of one slot."""

    slot: str
    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A finding in words, how sure it is, and the part of the page that shows it.

    Attributes:
        template: in English, slots in braces.
        slots: what stands in them; several values become a list.
        anchor: of the figure, table or section.
        sure: the verdict behind it.
        n: units it rests on; None where that says nothing.
        of: what one of them is called.
        interval: its kind; empty where there is none.
        at_least: whether some of what it says rests on more units than ``n``.
    """

    template: str
    slots: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    anchor: str
    sure: Sureness
    n: int | None = None
    of: str = "run"
    interval: str = ""
    at_least: bool = False

    def __post_init__(self) -> None:
        missing = set(_SLOT.findall(self.template)) ^ set(self.slots)
        assert not missing, f"{self.template}: {missing}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The sentence in order."""
        found = []
        for i, text in enumerate(_SLOT.split(self.template)):
            if i % 2:
                value = self.slots[text]
                values = [value] if isinstance(value, str) else value
                found.append(Part(text, "", tuple(_piece(one) for one in values)))
            elif text:
                found.append(Part("", text, ()))
        return tuple(found)

    @property
    def text(self) -> str:
        """In English, as plain text."""
        return "".join(
            part.text or _joined([piece.text for piece in part.pieces]) for part in self.parts
        )

    @property
    def basis(self) -> tuple[str, ...]:
        """How many units it rests on, and its interval's kind."""
        sign = "\u2265" if self.at_least else "="
        told = () if self.n is None else (f"n {sign} {counted(self.n, self.of)}",)
        return (*told, self.interval) if self.interval else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question about the store with its answers."""

    question: str
    sentences: tuple[Sentence, ...]


def listed(names: Sequence[str], *, at_most: int = MOST) -> tuple[str, ...]:
    """Names for a slot, the rest counted.

    >>> listed(["a", "b", "c"], at_most=2)
    ('a', 'b', '1 more')
    """
    if len(names) <= at_most:
        return tuple(names)
    return (*names[:at_most], Word(f"{len(names) - at_most:,} more"))


def _piece(value: str) -> Piece:
    kinds = {Word: "word", English: "english", Code: "code"}
    return Piece(kinds.get(type(value), "name"), shown(value, longest=_LONG))


def _joined(texts: list[str]) -> str:
    # names may hold commas
    return "; ".join(texts)
