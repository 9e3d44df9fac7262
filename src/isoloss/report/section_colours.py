"""What the colours of a figure stand for: runs, other names, or numbers along one ramp."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from isoloss.report.runs import distinct_colours, ramp_colours, ramp_stops
from isoloss.report.section_rows import is_number
from isoloss.report.text import number, shown
from isoloss.studies.findings import Figure, Value

Colours = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """The key of a figure whose colours are numbers in an order.

    Attributes:
        title: what the numbers are.
        ends: the smallest, the middle one along the ramp and the largest, as text.
        light: colours on white from the smallest to the largest.
        dark: colours on black.
    """

    title: str
    ends: tuple[str, str, str]
    light: tuple[str, ...]
    dark: tuple[str, ...]

    @property
    def colours(self) -> tuple[tuple[str, str], ...]:
        """Each colour on white and on black."""
        return tuple(zip(self.light, self.dark, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureColours:
    """Colours of a figure.

    Attributes:
        names: what they stand for, in order; one empty name for one colour.
        light: theirs on white.
        dark: theirs on black.
        ramp: its key, where the names are numbers along a ramp.
    """

    names: tuple[str, ...]
    light: tuple[str, ...]
    dark: tuple[str, ...]
    ramp: Ramp | None = None


def figure_colours(figure: Figure, known: Colours) -> FigureColours:
    """Colours of a figure: runs keep those of the page and its order, other names come as they do.

    Args:
        figure: as data.
        known: colours on white and on black of names that other figures of the page draw too.
    """
    if figure.by is None:
        return _named(("",), {})
    values = [row.get(figure.by) for row in figure.rows]
    if figure.by_scale is not None:
        told = {_float(value): shown(value) for value in values if is_number(value)}
        if told:
            return _ramped(figure, dict(sorted(told.items())))
    names = tuple(dict.fromkeys(shown(value) for value in values if value is not None))
    return _named(names or ("",), known)


def _named(names: tuple[str, ...], known: Colours) -> FigureColours:
    if all(name in known for name in names):
        names = tuple(name for name in known if name in names)
        colours = [known[name] for name in names]
    else:
        colours = [distinct_colours(i, len(names)) for i in range(len(names))]
    return FigureColours(
        names=names, light=tuple(c[0] for c in colours), dark=tuple(c[1] for c in colours)
    )


def _float(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _ramped(figure: Figure, told: Mapping[float, str]) -> FigureColours:
    numbers = list(told)
    positive = [value for value in numbers if value > 0]
    is_log = figure.by_scale == "log" and len(positive) > 1
    # on a logarithmic ramp 0 stands with the smallest
    low, high = (positive if is_log else numbers)[0], numbers[-1]

    def place(value: float) -> float:
        if high == low:
            return 0.5
        if is_log:
            return math.log(max(value, low) / low) / math.log(high / low)
        return (value - low) / (high - low)

    colours = [ramp_colours(place(value)) for value in numbers]
    middle = math.sqrt(low * high) if is_log else (low + high) / 2
    light, dark = ramp_stops()
    ramp = Ramp(
        title=shown(figure.by),
        ends=(number(low), number(float(f"{middle:.2g}")), number(high)),
        light=light,
        dark=dark,
    )
    return FigureColours(
        names=tuple(told.values()),
        light=tuple(c[0] for c in colours),
        dark=tuple(c[1] for c in colours),
        ramp=ramp,
    )
