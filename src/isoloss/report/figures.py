"""Figures of a store as Altair charts, for notebooks and papers."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from isoloss.errors import BadRequest, Refused, nearest_name
from isoloss.report.axes import XAxis, refusals
from isoloss.report.charts import ability, loss_curve, score_title, x_channel
from isoloss.report.data import Curve, ReportData, figure_frame
from isoloss.report.marks import Look
from isoloss.report.text import shown
from isoloss.store.series import Series, baseline_names

_WIDTH, _HEIGHT = 420, 280


def series_figure(
    data: ReportData, series: Series, *, x: str | None = None, metric: str | None = None
) -> alt.LayerChart:
    """One ability against x; ``.save("figure.svg")`` writes it, as PNG and PDF too.

    Args:
        data: from :func:`isoloss.report.data.collect`.
        series: one of its abilities.
        x: key of an axis; the page's first one where None.
        metric: the score; the series' first one where None.

    Raises:
        BadRequest: there is no such axis or score.
        Refused: both sides come from the same documents.
    """
    axis = _axis(data, x)
    reason = refusals(data.axes, series.subject).get(axis.key)
    if reason is not None:
        others = [a.key for a in data.axes.options if a.known and not a.is_loss]
        raise Refused(
            reason,
            asked=f"x = {axis.key}",
            nearest=", ".join(others) or None,
            remedy="take an axis measured on other documents",
        )
    score = metric or series.metrics[0]
    if score not in series.metrics:
        raise BadRequest(
            f"{series.title} has no score of that name.",
            asked=score,
            nearest=nearest_name(score, series.metrics) or ", ".join(series.metrics),
            remedy="take one of its scores",
        )
    scores = data.abilities.values.filter(pl.col("series") == series.id, pl.col("metric") == score)
    names = [name for name in baseline_names(score) if name in series.baselines]
    chart = ability(
        figure_frame(data, scores, axis, log=axis.starts_log),
        _rules([(name, series.baselines[name]) for name in names]),
        x=x_channel(axis, log=axis.starts_log),
        title=score_title(score, series.units.get(score)),
        look=Look(runs=data.runs, facts=data.facts),
    )
    return _titled(chart, f"{series.title}, {series.detail}" if series.detail else series.title)


def curve_figure(data: ReportData, curve: Curve, *, x: str = "tokens_seen") -> alt.LayerChart:
    """One loss along training.

    Args:
        data: from :func:`isoloss.report.data.collect`.
        curve: one of its curves.
        x: key of an axis.

    Raises:
        BadRequest: there is no such axis.
    """
    axis = _axis(data, x)
    chart = loss_curve(
        figure_frame(data, curve.values, axis, log=axis.starts_log),
        _rules([] if curve.optimum is None else [("optimum", curve.optimum)]),
        x=x_channel(axis, log=axis.starts_log),
        title=curve.axis.short,
        look=Look(runs=data.runs, facts=data.facts),
    )
    return _titled(chart, curve.axis.title)


def _titled(chart: alt.LayerChart, title: str) -> alt.LayerChart:
    heading = shown(title, longest=200)
    titled: alt.LayerChart = chart.properties(width=_WIDTH, height=_HEIGHT, title=heading)
    return titled


def _rules(values: Sequence[tuple[str, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"name": name, "label": name.replace("_", " "), "value": value} for name, value in values],
        schema={"name": pl.String, "label": pl.String, "value": pl.Float64},
    )


def _axis(data: ReportData, key: str | None) -> XAxis:
    known = {axis.key: axis for axis in data.axes.options if axis.known}
    first = data.axes.first
    if first is None or (key or first.key) not in known:
        raise BadRequest(
            "no checkpoint has a place on that axis.",
            asked=key,
            nearest=", ".join(known) or None,
            remedy="take one of these" if known else "record steps, tokens or a loss first",
        )
    return known[key or first.key]
