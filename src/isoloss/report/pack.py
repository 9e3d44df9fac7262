"""The data of a page as compact JSON: packed columns, every list of points once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from isoloss.report.axes import TIME, refusals
from isoloss.report.charts import score_title, x_channel
from isoloss.report.data import ReportData
from isoloss.report.pack_columns import packed, packed_places
from isoloss.report.templates import channel_spec, panel
from isoloss.report.text import shown
from isoloss.store.series import Series, baseline_names


def pack(data: ReportData) -> dict[str, Any]:
    """Everything the page's figures are drawn from.

    Returns:
        ``axes``, ``runs``, ``checkpoints`` (columns), ``pointSets`` (lists of checkpoints that
        series refer to by index), ``series``, ``curves`` and ``specs`` (Vega-Lite templates).
        Values keep six digits, standard errors four.
    """
    sets: dict[tuple[int, ...], int] = {}
    first = data.axes.first
    values: dict[tuple[int, str], pl.DataFrame] = {
        (int(key[0]), str(key[1])): frame
        for key, frame in data.abilities.values.partition_by(
            "series", "metric", as_dict=True, maintain_order=True
        ).items()
    }
    series = [_series(data, one, values, sets) for one in data.abilities.series]
    curves = [_curve(data, i, sets) for i in range(len(data.curves))]
    return {
        "first": first.key if first else None,
        "time": [axis.key for axis in data.axes.options if axis.key in TIME and axis.known],
        "axes": [
            {
                "key": axis.key,
                "title": axis.title,
                "startsLog": axis.starts_log,
                "linear": channel_spec(x_channel(axis, log=False)),
                "log": channel_spec(x_channel(axis, log=True)),
            }
            for axis in data.axes.options
        ],
        "runs": _runs(data),
        "checkpoints": _checkpoints(data),
        "pointSets": [packed_places(points) for points in sets],
        "series": series,
        "curves": curves,
        "specs": _specs(data),
    }


def to_json(packed: Mapping[str, Any]) -> str:
    """JSON that can stand inside a ``<script>`` element, whatever the names in it are."""
    text = json.dumps(packed, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _runs(data: ReportData) -> list[dict[str, Any]]:
    """Every run: how it is called, how it is drawn, and the name that commands know it by."""
    names = [run.run for run in data.runs]
    return [
        {
            "label": run.label,
            "family": shown(run.family),
            "model": shown(run.model),
            "asked": shown(run.run if names.count(run.run) == 1 else f"{run.family}/{run.run}"),
            "light": run.light,
            "dark": run.dark,
        }
        for run in data.runs
    ]


def _checkpoints(data: ReportData) -> dict[str, Any]:
    points = data.checkpoints
    labels = [run.label for run in data.runs]
    positions: dict[str, list[float | None]] = {
        axis.key: [None] * points.height for axis in data.axes.options if axis.known
    }
    for point, key, value in data.axes.positions.select("point", "axis", "value").rows():
        positions[key][point] = _rounded(value)
    return {
        "run": [labels.index(label) for label in points["label"]],
        # the name of a checkpoint is RUN@PLACE
        "place": [name.rpartition("@")[2] for name in points["name"]],
        "flags": points["flags"].to_list(),
        "hollow": [int(hollow) for hollow in points["is_unfinished"]],
        "x": positions,
        "facts": {name: points[name].to_list() for name in data.facts},
        "told": dict(data.facts),
    }


def _series(
    data: ReportData,
    series: Series,
    values: Mapping[tuple[int, str], pl.DataFrame],
    sets: dict[tuple[int, ...], int],
) -> dict[str, Any]:
    return {
        "metrics": {
            metric: {
                **_columns(values[series.id, metric], sets),
                "title": score_title(metric, series.units.get(metric)),
                "rules": [
                    {"name": name, "label": name.replace("_", " "), "value": _rounded(value)}
                    for name, value in series.baselines.items()
                    if name in baseline_names(metric)
                ],
            }
            for metric in series.metrics
        },
        "refused": refusals(data.axes, series.subject),
    }


def _curve(data: ReportData, nth: int, sets: dict[tuple[int, ...], int]) -> dict[str, Any]:
    curve = data.curves[nth]
    rules = []
    if curve.optimum is not None:
        rules = [{"name": "optimum", "label": "optimum", "value": _rounded(curve.optimum)}]
    told = {**_columns(curve.values, sets), "title": curve.axis.short, "rules": rules}
    return {"metrics": {"loss": told}, "refused": {}}


def _columns(values: pl.DataFrame, sets: dict[tuple[int, ...], int]) -> dict[str, Any]:
    values = values.sort("point")
    points = tuple(values["point"].to_list())
    columns = {
        "points": sets.setdefault(points, len(sets)),
        "value": packed([_rounded(v) for v in values["value"]], digits=6),
        "stderr": packed([_rounded(v, digits=4) for v in values["stderr"]], digits=4),
    }
    if "n" in values.columns:
        columns["n"] = packed(values["n"].to_list(), digits=7)
    return columns


def _rounded(value: float | None, *, digits: int = 6) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _specs(data: ReportData) -> dict[str, Any]:
    if data.axes.first is None:
        return {}
    return {
        "ability": panel(data.runs, has_band=False),
        "curve": panel(data.runs, has_band=True),
    }
