"""The layers of a figure: lines, points, error bars, bands, crosses and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from isoloss.report.runs import RunStyle

MUTED = "#7f7f7f"  # reads on white and on black: 4:1 and 5:1
ALARM = "#d00000"
CROSS = "M-1,-1L1,1M1,-1L-1,1"
_RULE_DASHES = {
    "chance": [6, 4],
    "constant_answer": [2, 3],
    "bayes_accuracy": [1, 0],
    "optimum": [1, 0],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the figures of one page share.

    Attributes:
        runs: drawn in this order.
        facts: columns told when somebody points at a checkpoint, with their labels.
    """

    runs: tuple[RunStyle, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plot:
    """What the layers of one figure share.

    Attributes:
        base: a chart of the points.
        x: the horizontal axis.
        title: of the vertical axis.
        look: of the page.
        hover: the run that is pointed at.
    """

    base: alt.Chart
    x: alt.X
    title: str
    look: Look
    hover: alt.Parameter

    @classmethod
    def of(cls, points: pl.DataFrame, *, x: alt.X, title: str, look: Look) -> Plot:
        """A figure of these points."""
        hover = alt.selection_point(
            name="hover", on="pointerover", clear="pointerout", fields=["run"], empty=False
        )
        return cls(base=alt.Chart(points), x=x, title=title, look=look, hover=hover)

    @property
    def y(self) -> alt.Y:
        """The values."""
        scale, axis = alt.Scale(zero=False), alt.Axis(tickCount=5)
        return alt.Y("y:Q", title=self.title, scale=scale, axis=axis)

    @property
    def low(self) -> alt.Y:
        """The values less one standard error."""
        return alt.Y("low:Q", title=self.title, scale=alt.Scale(zero=False))

    def by_run(self, looks: list[Any]) -> alt.Scale:
        """A scale that gives each run its look."""
        return alt.Scale(domain=[run.label for run in self.look.runs], range=looks)

    @property
    def colour(self) -> alt.Color:
        """The run, by colour."""
        # the same legend in every layer: one without would take it from all
        legend = alt.Legend(title=None, symbolOpacity=1)
        return alt.Color("run:N", scale=self.colours, legend=legend)

    @property
    def colours(self) -> alt.Scale:
        """The colour of each run, on white."""
        return self.by_run([run.light for run in self.look.runs])


def lines(plot: Plot) -> alt.Chart:
    """A line a run, in the order of training, past flagged checkpoints."""
    dashes = plot.by_run([list(run.dash) for run in plot.look.runs])
    chart: alt.Chart = (
        plot.base.transform_filter("!datum.flagged")
        .mark_line()
        .encode(
            x=plot.x,
            y=plot.y,
            color=plot.colour,
            strokeDash=alt.StrokeDash("run:N", scale=dashes, legend=None),
            strokeWidth=alt.condition(plot.hover, alt.value(2.6), alt.value(1.4)),
            order="order:Q",
        )
    )
    return chart


def dots(plot: Plot) -> alt.Chart:
    """A point a checkpoint, hollow where its schedule was not finished."""
    shapes = plot.by_run([run.shape for run in plot.look.runs])
    fill = alt.Fill("run:N", scale=plot.colours, legend=None)
    chart: alt.Chart = plot.base.mark_point(size=26, strokeWidth=1.2, opacity=0.85).encode(
        x=plot.x,
        y=plot.y,
        color=plot.colour,
        fill=alt.condition("datum.hollow", alt.value("transparent"), fill),
        shape=alt.Shape("run:N", scale=shapes, legend=None),
    )
    return chart


def bars(plot: Plot) -> alt.Chart:
    """One standard error either way, faint where another run is pointed at."""
    chart: alt.Chart = (
        plot.base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1)
        .encode(
            x=plot.x,
            y=plot.low,
            y2="high:Q",
            color=plot.colour,
            opacity=alt.condition(plot.hover, alt.value(0.9), alt.value(0.3)),
        )
    )
    return chart


def band(plot: Plot) -> alt.Chart:
    """One standard error either way, of every run."""
    chart: alt.Chart = (
        plot.base.transform_filter("isValid(datum.low) && !datum.flagged")
        .mark_area(opacity=0.22)
        .encode(
            x=plot.x,
            y=plot.low,
            y2="high:Q",
            color=plot.colour,
            order="order:Q",
        )
    )
    return chart


def crosses(plot: Plot) -> alt.Chart:
    """Flagged checkpoints crossed out."""
    chart: alt.Chart = (
        plot.base.transform_filter("datum.flagged")
        .mark_point(shape=CROSS, size=60, stroke=ALARM, strokeWidth=1.5, tooltip=None)
        .encode(x=plot.x, y=plot.y)
    )
    return chart


def targets(plot: Plot) -> alt.Chart:
    """Unseen discs that are easier to point at than the points, with what is told of them."""
    # not `nearest`: with it Vega-Lite 6.4 writes "undefined" in place of every fact
    told = [
        alt.Tooltip("text:N", title="value"),
        *(alt.Tooltip(f"{name}:N", title=label) for name, label in plot.look.facts.items()),
        alt.Tooltip("flags:N", title="flags"),
    ]
    chart: alt.Chart = (
        plot.base.mark_circle(size=150, opacity=0)
        .encode(x=plot.x, y=plot.y, detail="run:N", tooltip=told)
        .add_params(plot.hover)
    )
    return chart


def baselines(chart: alt.Chart) -> alt.LayerChart:
    """Straight lines with their names, of a chart of ``name``, ``label``, ``value``."""
    base = chart.encode(y="value:Q")
    kinds = alt.Scale(domain=list(_RULE_DASHES), range=list(_RULE_DASHES.values()))
    rule = base.mark_rule(color=MUTED, strokeWidth=1.2).encode(
        strokeDash=alt.StrokeDash("name:N", scale=kinds, legend=None)
    )
    # two rules often lie close together: their names stand at different ends
    is_left = "datum.name == 'constant_answer'"
    text = base.encode(text="label:N")
    left = text.transform_filter(is_left).mark_text(
        align="left", baseline="bottom", dx=2, dy=-1, color=MUTED, fontSize=10
    )
    right = text.transform_filter(f"!({is_left})").mark_text(
        align="right", baseline="bottom", dx=-2, dy=-1, color=MUTED, fontSize=10
    )
    words = [left.encode(x=alt.value(0)), right.encode(x=alt.value("width"))]
    return alt.LayerChart(layer=[rule, *words])
