"""Charts: a frame of points in, an Altair chart out.

The page uses the same charts without their rows: :func:`template` leaves named data sets in their
place, which the page fills for whatever x and score are chosen.
"""

from __future__ import annotations

import textwrap
from typing import Any

import altair as alt
import polars as pl

from isoloss.report import marks
from isoloss.report.axes import XAxis
from isoloss.report.marks import POINTS, Look, Plot
from isoloss.report.text import shown
from isoloss.store.series import LOWER_IS_BETTER

_WRAP = 46
_TEXTS = {
    "plain": "format(datum.value, '~g')",
    "power": "format(datum.value, '.0e')",
    # billions are B to people who train models, not G
    "si": "replace(format(datum.value, '~s'), 'G', 'B')",
}
_DECADE = "floor(log(datum.value) / LN10 + 1e-6)"
_MANTISSA = f"round(datum.value / pow(10, {_DECADE}))"
_SPAN = "abs(log(domain('x')[1] / domain('x')[0]) / LN10)"
# a logarithmic axis names its decades; a short one 2 and 5 too; one below a decade every tick
_SHOWN = f"({_MANTISSA} == 1 || {_SPAN} < 1 || ({_SPAN} < 3 && indexof([2, 5], {_MANTISSA}) >= 0))"


def ability(
    points: pl.DataFrame | None, rules: pl.DataFrame | None, *, x: alt.X, title: str, look: Look
) -> alt.LayerChart:
    """Score against x, a line a run, with baselines as rules.

    Flagged checkpoints are crossed out and no line goes through them; those of an unfinished
    schedule are hollow. Standard errors are shown for the run that is pointed at.

    Args:
        points: as :func:`isoloss.report.data.figure_frame` gives them; None for a template.
        rules: ``name``, ``label``, ``value`` of each baseline; None for a template.
        x: from :func:`x_channel`.
        title: of the y axis.
        look: shared by all figures.
    """
    plot = Plot.of(points, x=x, title=title, look=look)
    return _layered(plot, rules, [marks.lines(plot), marks.bars(plot)])


def loss_curve(
    points: pl.DataFrame | None, rules: pl.DataFrame | None, *, x: alt.X, title: str, look: Look
) -> alt.LayerChart:
    """Loss along training with a band of one standard error, and the optimum as a rule.

    Args:
        points: as :func:`isoloss.report.data.figure_frame` gives them; None for a template.
        rules: the optimum, like a baseline; None for a template.
        x: from :func:`x_channel`.
        title: of the y axis.
        look: shared by all figures.
    """
    plot = Plot.of(points, x=x, title=title, look=look)
    return _layered(plot, rules, [marks.band(plot), marks.lines(plot)])


def x_channel(axis: XAxis, *, log: bool) -> alt.X:
    """The x of a figure. A loss falls from left to right, so that progress goes right."""
    title = wrapped(axis.title, _WRAP)
    if axis.is_loss:
        title = [*title, "reversed: lower is to the right"]
    scale: dict[str, Any] = {"reverse": axis.is_loss, "nice": False, "padding": 8}
    scale |= {"type": "log"} if log else {"type": "linear", "zero": False}
    ticks: dict[str, Any] = {"tickCount": 5, "labelOverlap": "greedy", "labelSeparation": 8}
    text = _TEXTS[axis.numbers]
    if log:
        faint = {"condition": {"test": f"{_MANTISSA} == 1", "value": 0.6}, "value": 0.15}
        ticks |= {"gridOpacity": faint, "tickOpacity": faint}
        text = f"{_SHOWN} ? {text} : ''"
    if log or axis.numbers != "plain":
        ticks["labelExpr"] = text
    return alt.X("x:Q", title=title, scale=alt.Scale(**scale), axis=alt.Axis(**ticks))


def score_title(metric: str, unit: str | None) -> str:
    """What stands at a y axis: metric, unit, and which way is better where it is not up."""
    direction = "lower is better" if metric in LOWER_IS_BETTER else ""
    parts = [part for part in (unit, direction) if part]
    name = shown(metric)
    return f"{name} ({', '.join(parts)})" if parts else name


def channel_spec(x: alt.X) -> dict[str, Any]:
    """An x channel as it stands in a specification, to be put in place of another."""
    spec = alt.Chart(alt.NamedData(POINTS)).mark_point().encode(x=x).to_dict()
    channel: dict[str, Any] = spec["encoding"]["x"]
    return channel


def template(chart: alt.LayerChart) -> dict[str, Any]:
    """A chart as the page keeps it: as wide as its place, its data to be filled in."""
    spec: dict[str, Any] = chart.properties(width="container", height=190).to_dict()
    for unused in ("$schema", "config"):
        spec.pop(unused, None)
    return spec


def wrapped(title: str, width: int) -> list[str]:
    """A title in lines of at most so many characters, where its words allow."""
    return textwrap.wrap(title, width, break_on_hyphens=False) or [""]


def _layered(plot: Plot, rules: pl.DataFrame | None, layers: list[alt.Chart]) -> alt.LayerChart:
    below, above = marks.rules(rules), [marks.dots(plot), marks.crosses(plot), marks.targets(plot)]
    # a baseline's dash says what it is, a line's dash which run
    chart: alt.LayerChart = alt.LayerChart(layer=[below, *layers, *above]).resolve_scale(
        strokeDash="independent"
    )
    return chart
