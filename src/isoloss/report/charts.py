"""Charts for notebooks and papers: a frame of points in, an Altair chart out."""

from __future__ import annotations

import textwrap
from typing import Any

import altair as alt
import polars as pl

from isoloss.report import marks
from isoloss.report.axes import XAxis
from isoloss.report.marks import Look, Plot
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
    points: pl.DataFrame, rules: pl.DataFrame, *, x: alt.X, title: str, look: Look
) -> alt.LayerChart:
    """Score against x, a line a run, with baselines as rules.

    Flagged checkpoints are crossed out and no line goes through them; those of an unfinished
    schedule are hollow. Bars are one standard error either way.

    Args:
        points: as :func:`isoloss.report.data.figure_frame` gives them.
        rules: ``name``, ``label``, ``value`` of each baseline.
        x: from :func:`x_channel`.
        title: of the y axis.
        look: shared by all figures.
    """
    plot = Plot.of(points, x=x, title=title, look=look)
    return _layered(plot, rules, [marks.lines(plot), marks.bars(plot)])


def loss_curve(
    points: pl.DataFrame, rules: pl.DataFrame, *, x: alt.X, title: str, look: Look
) -> alt.LayerChart:
    """Loss along training with a band of one standard error, and the optimum as a rule.

    Args:
        points: as :func:`isoloss.report.data.figure_frame` gives them.
        rules: the optimum, like a baseline.
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


def wrapped(title: str, width: int) -> list[str]:
    """A title in lines of at most so many characters, where its words allow."""
    return textwrap.wrap(title, width, break_on_hyphens=False) or [""]


def _layered(plot: Plot, rules: pl.DataFrame, layers: list[alt.Chart]) -> alt.LayerChart:
    below = marks.baselines(alt.Chart(rules))
    above = [marks.dots(plot), marks.crosses(plot), marks.targets(plot)]
    # a baseline's dash says what it is, a line's dash which run
    chart: alt.LayerChart = alt.LayerChart(layer=[below, *layers, *above]).resolve_scale(
        strokeDash="independent"
    )
    return chart
