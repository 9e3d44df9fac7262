"""Errors people can act on: what is wrong, the value, the nearest thing that works, what to do.

There is one class per remedy, so that a caller can tell "edit the study" from "free the disk"
without reading the text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from isoloss.safe_text import message


class IsolossError(Exception):
    """Base of every error a user or a file can cause.

    Its text is shown and kept: secrets and marks that cannot be seen are taken out of it.

    Args:
        what: what is wrong, as one sentence.
        asked: the value received and where it came from.
        nearest: the nearest thing that works, where there is one.
        remedy: the next command or edit.
    """

    def __init__(
        self, what: str, *, asked: str | None = None, nearest: str | None = None, remedy: str
    ) -> None:
        self.what, self.remedy = message(what), message(remedy)
        self.asked = None if asked is None else message(asked)
        self.nearest = None if nearest is None else message(nearest)
        super().__init__(self.what)

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (("asked", self.asked), ("nearest", self.nearest), ("try", self.remedy)):
            if text:
                lines.append(f"  {label + ':':<9}{text}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling of exceptions
        return _rebuild, (type(self), self.what, self.asked, self.nearest, self.remedy)


def _rebuild(
    kind: type[IsolossError], what: str, asked: str | None, nearest: str | None, remedy: str
) -> IsolossError:
    return kind(what, asked=asked, nearest=nearest, remedy=remedy)


class BadStudy(IsolossError):
    """The study or family file is wrong: edit it."""


class BadRequest(IsolossError):
    """A command or a call was given arguments that cannot be: call it otherwise."""


class CheckpointMissing(IsolossError):
    """A step, revision or folder is not there: choose another."""


class BadCheckpoint(IsolossError):
    """Weights, config or tokenizer are broken or do not fit together: export them again."""


class BadData(IsolossError):
    """A corpus, a task or a table cannot be read as what it claims to be: mend the file."""


class StoreBusy(IsolossError):
    """Another run writes to the store: wait for it or choose another folder."""


class BadStore(IsolossError):
    """The store is damaged or was written by a newer version: check it or upgrade."""


class DiskFull(IsolossError):
    """A file could not be written for want of space: free some and run again."""


class NotWritable(IsolossError):
    """A file system refuses to write: make the folder writable again and run again."""


class OutOfMemory(IsolossError):
    """A cell needs more memory than there is: give it less to do at once, or more memory."""


class CellFatal(IsolossError):
    """A cell ends the process that measures it, or never ends: give it more room, or less to do."""


class WorkersLost(IsolossError):
    """Every process that measured was killed: run again, finished cells are kept."""


class NonFinite(IsolossError):
    """A computation met NaN or infinity where a number is needed."""


class Refused(IsolossError):
    """The comparison asked for would mislead: ask a question the data can answer."""


class Untrusted(IsolossError):
    """A file would run code of its own: leave it out, or allow it by name."""


class DependencyMissing(IsolossError):
    """An optional package is not installed: install the extra."""


def of_reading(error: BaseException) -> IsolossError:
    """An error met while a store was read, as one that people can act on."""
    if isinstance(error, IsolossError):
        return error
    first = (str(error).splitlines() or [""])[0]
    return BadStore(
        f"the store cannot be read: {first or type(error).__name__}",
        asked=type(error).__name__,
        remedy="try again; if it stays, isoloss check RUN finds the file and puts it aside",
    )


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None where nothing is alike.

    >>> nearest_name("num_fewshots", ["limit", "num_fewshot"])
    'num_fewshot'
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
