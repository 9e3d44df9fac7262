"""Findings as sections of the page: answers, claims, reproduced numbers, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoloss.report.coloured import ColouredPart, coloured_data, coloured_part
from isoloss.report.runs import RunStyle
from isoloss.report.section_charts import Drawing, draw
from isoloss.report.section_colours import Ramp
from isoloss.report.text import number, shown, shown_lines
from isoloss.report.trouble import Table
from isoloss.studies.explained.findings import STUDY as EXPLAINED
from isoloss.studies.findings import Figure, Finding, Findings, Value

_LONG = 2000
_DASH = "\u2013"
_MOST_ROWS = 400
_SHORT_TABLE = 24  # rows; a longer table opens when somebody asks for it
_KEY = 24  # names in the key of a figure
_EMPTY = "There is nothing to draw: no such value was found."


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a colour of a figure stands for."""

    name: str
    light: str
    dark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One of a figure's small multiples; ``index`` is that of its rows in the page's data."""

    index: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FigurePart:
    """A figure's place in the page."""

    id: str
    title: str
    note: str
    key: tuple[Key, ...]
    ramp: Ramp | None
    more: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One study as the page shows it.

    Attributes:
        id: its anchor.
        title: its heading.
        scale: of the study; empty where it has none.
        answers: the findings in sentences.
        claims: a row each.
        reproduced: a row each.
        tables: short ones first shown, long ones folded.
        figures: in order.
        coloured: texts whose pieces are coloured.
        facts: name and value.
        not_run: what was left out, and why.
        command: what makes the same again.
    """

    id: str
    title: str
    scale: str
    answers: tuple[str, ...]
    claims: Table
    reproduced: Table
    tables: tuple[tuple[Table, bool], ...]
    figures: tuple[FigurePart, ...]
    coloured: tuple[ColouredPart, ...]
    facts: tuple[tuple[str, str], ...]
    not_run: tuple[str, ...]
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """All studies of a page.

    Attributes:
        parts: a study each.
        found: as they were given.
        places: anchor of a study's figure or table by the study's name and its own id; that of
            its claims under ``claims``, that of the study under an empty id.
        specs: template and colours of every figure, for the page's data.
        panels: figure and rows of every panel, for the page's data.
        coloured: pieces, classes and curves of every coloured text, for the page's data.
    """

    parts: tuple[Section, ...]
    found: tuple[Findings, ...]
    places: Mapping[tuple[str, str], str]
    specs: tuple[Mapping[str, Any], ...]
    panels: tuple[Mapping[str, Any], ...]
    coloured: tuple[Mapping[str, Any], ...]


def sections(found: Sequence[Findings], runs: Sequence[RunStyle]) -> Sections:
    """Make findings ready for the page.

    Args:
        found: of all studies, in the order of the page.
        runs: whose colours stay the same in every figure.

    Returns:
        Their sections, and the data of their figures.
    """
    known = {run.label: (run.light, run.dark) for run in runs}
    parts: list[Section] = []
    places: dict[tuple[str, str], str] = {}
    specs: list[Mapping[str, Any]] = []
    panels: list[Mapping[str, Any]] = []
    coloured: list[Mapping[str, Any]] = []
    for nth, one in enumerate(found):
        anchor = EXPLAINED if one.study == EXPLAINED else f"study-{nth}"
        figures = []
        for place, figure in enumerate(one.figures):
            drawing = draw(figure, known)
            first = len(panels)
            figures.append(_figure(f"{anchor}-figure-{place}", figure, drawing, first))
            panels += [{"figure": len(specs), "rows": rows} for _, rows in drawing.panels]
            colours = drawing.colours
            specs.append({"spec": drawing.spec, "light": colours.light, "dark": colours.dark})
        texts = []
        for place, text in enumerate(one.coloured):
            texts.append(coloured_part(f"{anchor}-text-{place}", len(coloured), text))
            coloured.append(coloured_data(text, runs))
        parts.append(_section(anchor, one, tuple(figures), tuple(texts)))
        places |= _places(one, parts[-1])
    return Sections(
        parts=tuple(parts), found=tuple(found), places=places, specs=tuple(specs),
        panels=tuple(panels), coloured=tuple(coloured),
    )  # fmt: skip


def _places(one: Findings, part: Section) -> dict[tuple[str, str], str]:
    """Anchors of a study; a figure goes before a table of the same id."""
    tables = {table.id: drawn.id for table, (drawn, _) in zip(one.tables, part.tables, strict=True)}
    figures = {figure.id: drawn.id for figure, drawn in zip(one.figures, part.figures, strict=True)}
    every = {"": part.id, "claims": part.claims.id} | tables | figures
    return {(one.study, name): anchor for name, anchor in every.items()}


def _section(
    anchor: str,
    one: Findings,
    figures: tuple[FigurePart, ...],
    coloured: tuple[ColouredPart, ...],
) -> Section:
    tables = [
        _table(anchor, f"table-{i}", t.title, t.columns, t.rows, t.note)
        for i, t in enumerate(one.tables)
    ]
    return Section(
        id=anchor,
        title=shown(one.title, longest=200),
        scale=shown(one.scale) if one.scale else "",
        answers=_lines(one.answers),
        claims=_claims(anchor, one.claims),
        reproduced=_table(
            anchor, "reproduced", "Published numbers beside ours",
            ("what", "source", "published", "ours", "difference"),
            [(r.what, r.source, r.published, r.ours, r.difference) for r in one.reproduced],
        ),
        tables=tuple((table, len(table.rows) > _SHORT_TABLE) for table in tables),
        figures=figures,
        coloured=coloured,
        facts=tuple((shown(name), _cell(value)) for name, value in one.facts.items()),
        not_run=_lines(one.not_run),
        command=shown(one.command, longest=_LONG) if one.command else "",
    )  # fmt: skip


def _figure(anchor: str, figure: Figure, drawing: Drawing, first: int) -> FigurePart:
    colours = drawing.colours
    is_keyed = figure.by is not None and colours.ramp is None
    every = [
        Key(name=name, light=light, dark=dark)
        for name, light, dark in zip(colours.names, colours.light, colours.dark, strict=True)
    ]
    notes = (figure.note, "" if drawing.panels else _EMPTY)
    note = " ".join(part for part in notes if part)
    return FigurePart(
        id=anchor,
        title=shown(figure.title, longest=200),
        note=shown(note, longest=_LONG) if note else "",
        key=tuple(every[:_KEY]) if is_keyed else (),
        ramp=colours.ramp,
        more=max(0, len(every) - _KEY) if is_keyed else 0,
        panels=tuple(
            Panel(index=first + i, title=title) for i, (title, _) in enumerate(drawing.panels)
        ),
    )


def _claims(anchor: str, claims: Sequence[Finding]) -> Table:
    columns = (
        "claim", "verdict", "estimate", "interval", "n", "smallest effect", "p", "p (Holm)",
        "control", "why",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = [
        (
            f"{one.sentence} ({one.source})",
            one.verdict,
            _with_unit(one.estimate, one.unit),
            _interval(one),
            one.n,
            _with_unit(one.smallest_effect, one.unit),
            one.p_value,
            one.p_holm,
            one.control,
            f"{one.statistic}. {one.reason}",
        )
        for one in claims
    ]
    return _table(anchor, "claims", "Claims beside their evidence", columns, rows)


def _with_unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{_digits(value)} {unit}".strip()


def _interval(one: Finding) -> str | None:
    if one.low is None or one.high is None:
        return None
    return f"{_digits(one.low)} to {_digits(one.high)} ({one.level:.0%})"


def _digits(value: float) -> str:
    return f"{value:.4g}"


def _table(
    anchor: str,
    name: str,
    title: str,
    columns: Iterable[str],
    rows: Sequence[Sequence[Value]],
    note: str = "",
) -> Table:
    cut = f" The first {_MOST_ROWS} of {len(rows)} rows." if len(rows) > _MOST_ROWS else ""
    return Table(
        id=f"{anchor}-{name}",
        title=shown(title, longest=200),
        columns=tuple(shown(column) for column in columns),
        rows=tuple(tuple(_cell(value) for value in row) for row in rows[:_MOST_ROWS]),
        note=shown(f"{note}{cut}", longest=_LONG) if note or cut else "",
        empty="Nothing to tell.",
    )


def _cell(value: Value) -> str:
    """A value as text; what is unknown is a dash, so that what is known stands out."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return shown_lines(value) or _DASH
    if isinstance(value, int):
        return f"{value:,}"
    return number(float(f"{value:.4g}"))


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(shown(text, longest=_LONG) for text in texts)
