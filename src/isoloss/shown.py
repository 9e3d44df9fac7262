"""How results look in a notebook and at a prompt: short, numbers with their errors, text as text.

The one place for it: a class that inherits :class:`Shown` gets a table in notebooks, of its fields
unless it says otherwise, and with ``@dataclass(repr=False)`` a line at the prompt.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sized
from dataclasses import fields, is_dataclass
from typing import Any

from isoloss.safe_text import visible

_ON_A_LINE, _LISTED, _LETTERS = 8, 6, 200


class Shown:
    """Shown as a line and as a table of its facts."""

    __slots__ = ()

    def shown_facts(self) -> Iterable[tuple[str, object]]:
        """Names and values, in order; a dataclass's fields, less those without a ``repr``."""
        assert is_dataclass(self)
        return [(one.name, getattr(self, one.name)) for one in fields(self) if one.repr]

    def __repr__(self) -> str:
        rows = list(_rows(self))
        told = [f"{name}={text}" for name, text in rows[:_ON_A_LINE]]
        more = ["..."] if len(rows) > _ON_A_LINE else []
        return f"{type(self).__name__}({', '.join(told + more)})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name.replace("_", " "))}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in _rows(self)
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def told(value: object, ci: object = None) -> str:
    """A value in a few words.

    Args:
        value: any.
        ci: its interval, where it has one of its own.

    >>> told(0.123456), told(1.5, (1.0, 2.0)), told([1.0] * 9), told(float("nan"))
    ('0.1235', '1.5 [1, 2]', '9 values', 'unknown')
    """
    if isinstance(ci, tuple) and len(ci) == 2:
        return f"{told(value)} [{told(ci[0])}, {told(ci[1])}]"
    match value:
        case None:
            return "-"
        case bool() | str():
            text = visible(value)
            return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."
        case int():
            return f"{value:,}"
        case float():
            return "unknown" if math.isnan(value) else f"{value:.4g}"
    if hasattr(value, "value") and hasattr(value, "stderr") and hasattr(value, "n"):
        error = "" if value.stderr is None else f" ± {told(value.stderr)}"
        return f"{told(value.value)}{error} (n = {told(value.n)})"
    if {"value", "low", "high"} <= set(getattr(value, "_fields", ())):
        low_high: Any = value
        return told(low_high.value, (low_high.low, low_high.high))
    if hasattr(value, "shape"):
        return f"array {tuple(value.shape)}"
    if isinstance(value, Mapping) and len(value) <= _LISTED:
        return visible(", ".join(f"{name}: {told(one)}" for name, one in value.items())) or "-"
    if isinstance(value, Sized) and isinstance(value, Iterable):
        if len(value) > _LISTED or any(is_dataclass(one) for one in value):
            return f"{len(value)} values"
        return visible(", ".join(map(told, value))) or "-"
    return type(value).__name__ if is_dataclass(value) else visible(value)[:_LETTERS]


def _rows(one: Shown) -> Iterable[tuple[str, str]]:
    """Facts in words; what has an interval in ``ci`` stands beside it."""
    ci = getattr(one, "ci", None)
    by_name = ci if isinstance(ci, Mapping) else {}
    for name, value in one.shown_facts():
        if name == "ci" and by_name:
            continue
        if isinstance(value, Mapping) and value and value.keys() <= by_name.keys():
            yield from ((str(key), told(inner, by_name[key])) for key, inner in value.items())
        else:
            yield name, told(value, by_name.get(name))
