"""What failed, looks wrong, is unknown or was left out: as tables, all of it counted."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from isoloss.report.data import ReportData
from isoloss.report.sentences import Word
from isoloss.report.text import shown, shown_lines

_MOST_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text.

    Attributes:
        id: its anchor.
        title: its heading.
        columns: their headings.
        rows: their text.
        note: what stands below; empty where nothing needs to be said.
        empty: what stands in place of no rows.
    """

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    empty: str = ""


def trouble_tables(data: ReportData) -> tuple[Table, ...]:
    """Failures, flags, unknown facts and what the figures leave out."""
    return (_failures(data), _flags(data), _unknown(data), _left_out(data))


def _failures(data: ReportData) -> Table:
    rows = data.failures.sort("checkpoint", "probe", "subject").head(_MOST_ROWS)
    return Table(
        id="failures",
        title="Failures",
        columns=("checkpoint", "measuring", "what went wrong", "what to do"),
        rows=tuple(
            (
                shown(row["checkpoint"]),
                shown(f"{row['probe'] or 'the checkpoint'} {row['subject'] or ''}".strip()),
                shown_lines(f"{row['error']}: {row['reason']}"),
                shown_lines(row["remedy"]),
            )
            for row in rows.iter_rows(named=True)
        ),
        note=_more(data.failures, "failures"),
        empty="Nothing failed.",
    )


def _flags(data: ReportData) -> Table:
    rows = data.flags.sort("family", "run", "step").head(_MOST_ROWS)
    return Table(
        id="flags",
        title="Flagged checkpoints",
        columns=("checkpoint", "flag", "why"),
        rows=tuple(
            (
                shown(
                    f"{row['family']}/{row['run']}@{'?' if row['step'] is None else row['step']}"
                ),
                shown(row["kind"]),
                shown_lines(row["detail"] or ""),
            )
            for row in rows.iter_rows(named=True)
        ),
        note=_more(data.flags, "flags")
        or "Crossed out in the figures: no line goes through them, none is called lowest or best.",
        empty="No checkpoint is flagged.",
    )


def _step(step: int | None) -> str:
    return "?" if step is None else str(step)


def _unknown(data: ReportData) -> Table:
    total = data.checkpoints.height
    return Table(
        id="unknown",
        title="Unknown facts",
        columns=("fact", "checkpoints without it"),
        rows=tuple((name, f"{n:,} of {total:,}") for name, n in data.unknown.items())
        + tuple((Word(what), f"{n:,}") for what, n in data.odd.items()),
        note="Unknown stays unknown: nothing is guessed.",
        empty="Every fact is known of every checkpoint.",
    )


def _left_out(data: ReportData) -> Table:
    """Checkpoints without a place on an axis, and those that a logarithm cannot show."""
    total = data.checkpoints.height
    zeros = dict(
        data.axes.positions.filter(pl.col("value") <= 0).group_by("axis").len().iter_rows()
    )
    rows = []
    for axis in data.axes.options:
        if axis.is_derived:
            continue
        why = Word("the value was not measured there" if axis.is_loss else "the value is unknown")
        if axis.known < total:
            rows.append((Word(axis.title), f"{total - axis.known:,} of {total:,}", why))
        if axis.key in zeros:
            why = Word("0 has no place on a logarithmic scale; linear shows it")
            rows.append((Word(axis.title), f"{zeros[axis.key]:,} of {total:,}", why))
    return Table(
        id="left-out",
        title="Left out of figures",
        columns=("axis", "checkpoints left out", "why"),
        rows=tuple(rows),
        empty="Every checkpoint has a place on every axis.",
    )


def _more(frame: pl.DataFrame, table: str) -> str:
    if frame.height <= _MOST_ROWS:
        return ""
    return (
        f"{frame.height - _MOST_ROWS:,} more are in the store: "
        f'isoloss sql RUN "SELECT * FROM {table}"'
    )
