"""Rows of a figure as the page keeps them: short columns under names of our own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isoloss.report.text import count, number, shown
from isoloss.studies.findings import Figure, FigureAxis, Value

LAYER, LABEL, X_LOW, X_HIGH = "layer", "label", "x_low", "x_high"
"""Columns of a figure's rows that mean the same in every figure."""

_TIPS = 12
_LARGE = 1e5  # a count, told in millions or billions
_SHARED = 0.25  # of the whole range of x: panels that all span as much share one

Row = Mapping[str, Value]


def tip_columns(figure: Figure) -> list[str]:
    """Columns told when somebody points at a point, beside those that are drawn."""
    drawn = {figure.x.column, figure.y.column, figure.by, figure.panel, figure.hollow, LAYER, LABEL,
             X_LOW, X_HIGH}  # fmt: skip
    names = dict.fromkeys(key for row in figure.rows for key in row if key not in drawn)
    return list(names)[:_TIPS]


def is_number(value: Value) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_continuous(figure: Figure, axis: FigureAxis) -> bool:
    """Whether an axis has numbers alone; otherwise it has names."""
    values = [row.get(axis.column) for row in figure.rows]
    return all(is_number(v) for v in values if v is not None)


def shared_domain(figure: Figure, groups: Sequence[Sequence[Row]]) -> tuple[float, float] | None:
    """One range of x for all panels, where they span much the same."""
    if len(groups) < 2 or figure.mark == "bars" or not is_continuous(figure, figure.x):
        return None
    spans = []
    for rows in groups:
        values = [row.get(name) for row in rows for name in (figure.x.column, X_LOW, X_HIGH)]
        found = [float(v) for v in values if is_number(v) and not isinstance(v, str | None)]
        found = [v for v in found if v > 0] if figure.x.log else found
        if found:
            spans.append((min(found), max(found)))
    if not spans:
        return None
    low, high = min(a for a, _ in spans), max(b for _, b in spans)

    def width(a: float, b: float) -> float:
        return math.log(b / a) if figure.x.log else b - a

    whole = width(low, high)
    return (low, high) if whole and min(width(*s) for s in spans) >= _SHARED * whole else None


def columns(rows: Sequence[Row], figure: Figure, tips: Sequence[str]) -> dict[str, Any]:
    """Rows as columns under the template's names, the figure's own rules added."""
    lines: list[Row] = [
        {LAYER: "rule", (figure.x if rule.along == "x" else figure.y).column: rule.value,
         LABEL: rule.label}
        for rule in figure.rules
    ]  # fmt: skip
    every = [*lines, *rows]
    source = {"x": figure.x.column, "y": figure.y.column, "low": figure.low, "high": figure.high,
              "hollow": figure.hollow, "layer": LAYER, "label": LABEL, "x_low": X_LOW,
              "x_high": X_HIGH}  # fmt: skip
    table = {
        name: [plain(row.get(column)) for row in every]
        for name, column in source.items()
        if column is not None and any(row.get(column) is not None for row in every)
    }
    table["by"] = [_by(row, figure.by) for row in every]
    middle = _middle(figure, rows)
    table["far"] = [_is_far(row, figure, middle) for row in every]
    for i, column in enumerate(tips):
        table[f"t{i}"] = [_told(row.get(column)) for row in every]
    told: dict[str, Any] = {
        name: values[0] if len(set(values)) == 1 else values for name, values in table.items()
    }
    return told | {"n": len(every)}


def _by(row: Row, by: str | None) -> str | None:
    if by is None:
        return None if row.get(LAYER) == "fit" else ""
    value = row.get(by)
    return None if value is None else shown(value)


def _middle(figure: Figure, rows: Sequence[Row]) -> float:
    found = [row.get(figure.x.column) for row in rows]
    values = [float(v) for v in found if is_number(v) and not isinstance(v, str | None)]
    return (min(values) + max(values)) / 2 if values else 0.0


def _is_far(row: Row, figure: Figure, middle: float) -> bool:
    """Whether an upright rule stands in the right half, so that its label goes to its left."""
    x = row.get(figure.x.column)
    if row.get(LAYER) != "rule" or not is_number(x) or isinstance(x, str | None):
        return False
    return bool((x > middle) != figure.x.reverse)


def plain(value: Value) -> Value:
    """A value as the page keeps it: six digits, text on one line, None where not finite."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return shown(value)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _told(value: Value) -> Value:
    """A value as text for somebody who points at its point."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or value is None:
        return None if value is None else shown(value)
    return count(value) if abs(value) >= _LARGE else number(value)
