"""What a person at a terminal sees: progress on standard error, tables, colour there alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from isoloss.safe_text import visible
from isoloss.steps import watched

LINE_SECONDS = 30.0
_CELLS, _RUN = "cells of a run", "training "
"""Keys of bars; those of steps are what they are called."""


def plain(text: object) -> str:
    r"""Text that cannot move the cursor, colour the terminal or end the line.

    >>> plain("a\x1b[31mb")
    'a�[31mb'
    """
    return escape(visible(text))


def say(text: str) -> None:
    """Print lines on standard output; names in them cannot reach the terminal."""
    print(visible(text, lines=True))


class Terminal:
    """What a command does, told on standard error: bars on a terminal, elsewhere a line at times.

    It is the ``progress`` of a run, is told about training, and draws the ``steps`` of everything
    else inside its block.

    Args:
        quiet: only failures are shown.
        verbose: every cell gets a line.
        doing: what is done as long as nothing else is told.
        every: seconds between lines where there are no bars.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        doing: str = "",
        every: float = LINE_SECONDS,
    ) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet, self._verbose, self._every = quiet, verbose, every
        draws = sys.stderr.isatty() and self._console.is_interactive and not quiet
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Done(),
            TextColumn("{task.fields[facts]}"),
            _Left(),
            console=self._console,
            disable=not draws,
            transient=True,
            redirect_stdout=False,  # results are no part of the picture
        )
        self._draws, self._doing = draws, doing
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._steps: AbstractContextManager[None] | None = None
        self._at, self._done, self._cells = "", 0, 0

    def __enter__(self) -> Terminal:
        """Begin to watch what is done inside the block."""
        self._steps = watched(self._step)
        self._steps.__enter__()
        if self._doing:
            self._move(self._doing, self._doing, 0, 0)
        return self

    def __exit__(self, *error: Any) -> None:
        """Take the bars away."""
        if self._steps is not None:
            self._steps.__exit__(*error)
        self._bars.stop()

    def start(self, *, cells: int, finished: int) -> None:
        """Open the bar of the cells."""
        self.note(f"{cells} cells to measure, {finished} already in the store")
        began, self._doing = self._doing, ""
        self._remove(began)
        self._remove(_CELLS)
        self._done, self._cells = 0, cells
        self._move(_CELLS, "measuring", 0, cells)

    def checkpoint(self, name: str) -> None:
        """Name the checkpoint at the bar."""
        self._at = name
        self._move(_CELLS, name, self._done, self._cells)

    def done(self, label: str) -> None:
        """Advance the bar."""
        self._advance()
        if self._verbose:
            self._console.print(f"  done    {plain(label)}")

    def failed(self, label: str, reason: str) -> None:
        """Name the failed cell, always."""
        self._advance()
        self._console.print(f"  [red]failed[/red]  {plain(label)}: {plain(reason.splitlines()[0])}")

    def training(self, run: str, step: int, steps: int, facts: str) -> None:
        """Move the bar of a run that is trained."""
        if step == steps:
            self._remove(f"{_RUN}{run}")
        else:
            self._move(f"{_RUN}{run}", run, step, steps, facts)

    def note(self, text: str) -> None:
        """A line unless quiet."""
        if not self._quiet:
            self._console.print(plain(text))

    def stop(self) -> None:
        """Close the bar of the cells."""
        self._remove(_CELLS)
        self._at, self._done, self._cells = "", 0, 0

    def _step(self, what: str, done: int, of: int) -> None:
        if done == of:
            self._remove(what)
        else:
            self._move(what, what, done, of)

    def _advance(self) -> None:
        self._done += 1
        self._move(_CELLS, self._at or "measuring", self._done, self._cells)

    def _move(self, key: str, what: str, done: int, of: int, facts: str = "") -> None:
        """Set a bar, which is made when it is first heard of, or say it in a line."""
        if key != self._doing and self._doing in self._tasks:
            self._bars.remove_task(self._tasks.pop(self._doing))
        if key not in self._tasks:
            self._begun[key] = time.monotonic()
            self._tasks[key] = self._bars.add_task(plain(what), total=of or None, facts="")
            self._bars.start()
        self._bars.update(self._tasks[key], description=plain(what), completed=done, facts=facts)
        now = time.monotonic()
        if self._draws or self._quiet or now - self._last_line < self._every:
            return
        self._last_line = now
        self._console.print(plain(_line(what, done, of, now - self._begun[key])))

    def _remove(self, key: str) -> None:
        if key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))
            if self._doing and not self._tasks:
                self._move(self._doing, self._doing, 0, 0)


class _Done(MofNCompleteColumn):
    """How many are done of how many, where that is known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    """The time that is left, or has passed where nobody knows how much there is to do."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(duration(task.elapsed or 0.0))
        left = task.time_remaining
        return Text("" if left is None else f"{duration(left)} left")


def _line(what: str, done: int, of: int, seconds: float) -> str:
    """Where work stands, in words.

    >>> _line("asking the laws", 10, 40, 20.0), _line("a@10", 0, 0, 5.0)
    ('asking the laws: 10 of 40, about 1 min left', 'a@10')
    """
    if not of:
        return what
    left = f", about {duration(seconds * (of - done) / done)} left" if done else ""
    return f"{what}: {done:,} of {of:,}{left}"


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(40), duration(150), duration(7 * 3600)
    ('40 s', '2 min', '7.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def print_table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Print rows of equal keys as a table on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)  # programs read pipes: no wrapping there
    table = Table(title=title and plain(title), box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns = list(rows[0]) if rows else []
    for column in columns:
        numeric = all(isinstance(row[column], int | float | None) for row in rows)
        table.add_column(plain(column), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    console.print(table)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as a JSON list and nothing else."""
    if as_json:
        print(json.dumps(rows, default=str))
    else:
        print_table(rows)


def print_object(record: Mapping[str, Any], as_json: bool, then: str | None) -> None:
    """Print a record line by line with what to do next, or as a JSON object and nothing else."""
    if as_json:
        print(json.dumps(record, default=str))
        return
    for key, value in record.items():
        name = key.replace("_", " ")
        if isinstance(value, list | tuple):  # sentences and names: one a line, not a Python list
            print(f"{name}:" if value else f"{name}: none")
            for one in value:
                print(f"  {visible(one)}")
        else:
            print(f"{visible(name)}: {visible(value)}")
    if then:
        say(then)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(value)
