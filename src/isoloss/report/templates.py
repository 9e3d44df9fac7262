"""What the page draws: charts without rows, light enough to be drawn again in a few milliseconds.

The page's script puts the axis and the colours in, fills the named data sets, and finds the point
that is pointed at by itself: nothing here filters, aggregates or carries a tooltip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from isoloss.report.marks import ALARM, CROSS, MUTED, baselines
from isoloss.report.runs import RunStyle

POINTS, LINES, SPREAD, FLAGGED, PINNED, RULES = (
    "points", "lines", "spread", "flagged", "pinned", "rules",
)  # fmt: skip
"""The data sets of a panel: all checkpoints; those that lines go through; those whose standard
errors are shown; the flagged; the pinned; baselines."""

Y_TITLE = "Y-TITLE"
"""Stands where the page's script puts the title of the score."""

_PARAMETERS = {"xDomain": [1, 2], "yDomain": [0, 1], "pointed": "", "faint": False,
               "dotSize": 36}  # fmt: skip


def panel(runs: Sequence[RunStyle], *, has_band: bool) -> dict[str, Any]:
    """A panel of the page: a line and points a run, baselines, flags, pins.

    Args:
        runs: drawn in this order, with their colours on white.
        has_band: one standard error either way as a band of every run; otherwise as bars of the
            checkpoints in ``spread``.

    Returns:
        Vega-Lite with the parameters ``xDomain``, ``yDomain``, ``pointed`` (a run, drawn strong),
        ``faint`` (whether points stand back behind smoothed lines) and ``dotSize`` (square
        pixels), and named data sets.
    """
    marks = _Marks(runs)
    spread = marks.band() if has_band else marks.bars()
    layers = [baselines(alt.Chart(alt.NamedData(RULES))), spread, marks.lines(), marks.points(),
              marks.crosses(), *marks.pins()]  # fmt: skip
    parameters = [alt.param(name=name, value=value) for name, value in _PARAMETERS.items()]
    chart = alt.LayerChart(layer=layers).resolve_scale(strokeDash="independent")
    spec = as_template(chart.add_params(*parameters).properties(width="container", height=190))
    for layer in spec["layer"]:
        if isinstance(mark := layer.get("mark"), dict) and mark["type"] in {"line", "area"}:
            # rows come in the order of training; Altair knows no word for "as they come"
            layer["encoding"]["order"] = {"value": None}
    return spec


def as_template(chart: Any) -> dict[str, Any]:
    """A chart as the page keeps it: without what every chart says again."""
    spec: dict[str, Any] = chart.to_dict()
    for unused in ("$schema", "config"):
        spec.pop(unused, None)
    return spec


def channel_spec(x: alt.X) -> Mapping[str, Any]:
    """An x channel as it stands in a specification, to be put in place of another."""
    spec = alt.Chart(alt.NamedData(POINTS)).mark_point().encode(x=x).to_dict()
    channel: Mapping[str, Any] = spec["encoding"]["x"]
    return channel


class _Marks:
    """The layers of a panel, which share their channels."""

    def __init__(self, runs: Sequence[RunStyle]) -> None:
        self._runs = runs
        self._x = alt.X("x:Q")
        colours = self._by_run([run.light for run in runs])
        self._colour = alt.Color("run:N", scale=colours, legend=None)
        self._stroke = alt.Stroke("run:N", scale=colours, legend=None)
        self._fill = alt.Fill("run:N", scale=colours, legend=None)

    def _by_run(self, looks: list[Any]) -> alt.Scale:
        return alt.Scale(domain=[run.label for run in self._runs], range=looks)

    def _y(self, field: str) -> alt.Y:
        # the domain is the script's: it stays where it is when a run is pointed at
        scale = alt.Scale(zero=False, nice=True, domain=alt.ExprRef("yDomain"))
        return alt.Y(f"{field}:Q", title=Y_TITLE, scale=scale, axis=alt.Axis(tickCount=5))

    def lines(self) -> alt.Chart:
        # a dash without gaps is drawn dash by dash all the same
        dashes = self._by_run([list(run.dash) if run.dash[1] else [] for run in self._runs])
        chart: alt.Chart = (
            alt.Chart(alt.NamedData(LINES))
            .mark_line(aria=False)
            .encode(
                x=self._x,
                y=self._y("y"),
                color=self._colour,
                strokeDash=alt.StrokeDash("run:N", scale=dashes, legend=None),
                strokeWidth=alt.condition(
                    "datum.run === pointed", alt.value(2.8), alt.value(1.4)
                ),
            )
        )  # fmt: skip
        return chart

    def points(self) -> alt.Chart:
        shapes = self._by_run([run.shape for run in self._runs])
        # either filled or outlined: drawing both takes twice as long
        chart: alt.Chart = (
            alt.Chart(alt.NamedData(POINTS))
            .mark_point(
                size=alt.ExprRef("dotSize"), strokeWidth=1.3, aria=False,
                opacity=alt.ExprRef("faint ? 0.25 : 0.85"),
            )
            .encode(
                x=self._x,
                y=self._y("y"),
                stroke=alt.condition("datum.hollow", self._stroke, alt.value(None)),
                fill=alt.condition("datum.hollow", alt.value(None), self._fill),
                shape=alt.Shape("run:N", scale=shapes, legend=None),
            )
        )  # fmt: skip
        return chart

    def bars(self) -> alt.Chart:
        chart: alt.Chart = (
            alt.Chart(alt.NamedData(SPREAD))
            .mark_rule(strokeWidth=1, opacity=0.9, aria=False)
            .encode(x=self._x, y=self._y("low"), y2="high:Q", color=self._colour)
        )
        return chart

    def band(self) -> alt.Chart:
        chart: alt.Chart = (
            alt.Chart(alt.NamedData(SPREAD))
            .mark_area(opacity=0.22, aria=False)
            .encode(x=self._x, y=self._y("low"), y2="high:Q", color=self._colour)
        )  # fmt: skip
        return chart

    def crosses(self) -> alt.Chart:
        chart: alt.Chart = (
            alt.Chart(alt.NamedData(FLAGGED))
            .mark_point(shape=CROSS, size=60, stroke=ALARM, strokeWidth=1.5, aria=False)
            .encode(x=self._x, y=self._y("y"))
        )
        return chart

    def pins(self) -> list[alt.Chart]:
        base = alt.Chart(alt.NamedData(PINNED)).encode(x=self._x, y=self._y("y"))
        ring = base.mark_point(size=150, strokeWidth=2, stroke=MUTED, filled=False, aria=False)
        number = base.mark_text(dy=-14, fontSize=12, fontWeight="bold", color=MUTED, aria=False)
        return [ring, number.encode(text="pin:N")]
