"""Tables of a run as the server answers them: a part at a time, names as on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from isoloss.errors import BadRequest, CheckpointMissing, nearest_name
from isoloss.report.axes import XAxis
from isoloss.report.data import Curve, ReportData, figure_frame
from isoloss.report.figures import series_figure
from isoloss.report.methods import curve_query
from isoloss.report.server import answers
from isoloss.report.text import shown
from isoloss.store.schema import CHECKPOINT_KEY
from isoloss.store.series import Series
from isoloss.store.store import Store
from isoloss.studies.comparison.comparing import compare as compare_checkpoints
from isoloss.studies.comparison.paired import Difference

_ALPHA = 0.05
_MARGIN = 0.01
"""Nats per token: two losses whose paired interval lies within are equal."""

_PRETRAINING = "pretrain"


def checkpoints(data: ReportData, *, offset: int, limit: int) -> answers.Checkpoints:
    """A part of the checkpoints, in the page's order."""
    names = list(answers.Checkpoint.model_fields)
    rows = _rows(data.checkpoints.slice(offset, limit).select(names))
    return answers.Checkpoints(
        total=data.checkpoints.height,
        offset=offset,
        limit=limit,
        rows=[answers.Checkpoint(**row) for row in rows],
    )


def measurements(
    store: Store, data: ReportData, where: Mapping[str, Any], *, offset: int, limit: int
) -> answers.Measurements:
    """A part of the measurements.

    Args:
        store: the run's.
        data: gives checkpoints their names.
        where: columns and the values they must have; None for any.
        offset: rows to skip.
        limit: rows at most.
    """
    names = list(answers.Measurement.model_fields)
    named = data.checkpoints.lazy().select(*CHECKPOINT_KEY, checkpoint="name")
    chosen = [pl.col(name) == value for name, value in where.items() if value is not None]
    found = (
        store.measurements()
        .filter(*chosen)
        .join(named, on=CHECKPOINT_KEY, how="left", nulls_equal=True, maintain_order="left")
        .select(names)
        .collect()
    )
    return answers.Measurements(
        total=found.height,
        offset=offset,
        limit=limit,
        rows=[answers.Measurement(**row) for row in _rows(found.slice(offset, limit))],
    )


def failures(store: Store, *, offset: int, limit: int) -> answers.Failures:
    """A part of the failures, the latest first."""
    found = store.failures().collect().sort("failed_at", descending=True)
    texts = [name for name in found.columns if name not in {"probe", "subject"}]
    rows = found.slice(offset, limit).with_columns(pl.col(texts).fill_null(""))
    return answers.Failures(
        total=found.height,
        offset=offset,
        limit=limit,
        rows=[answers.Failure(**row) for row in rows.iter_rows(named=True)],
    )


def compare(store: Store, data: ReportData, a: str, b: str) -> answers.Comparison:
    """Two checkpoints on every task and corpus that both were measured on.

    Args:
        store: the run's.
        data: the page, whose names are known.
        a: as on the page, or as ``isoloss compare`` takes it.
        b: the same.

    Raises:
        IsolossError: there is no such checkpoint, or the two share nothing.
    """
    found = compare_checkpoints(store, _asked(data, a), _asked(data, b))
    rows = [
        _compared(one.task, one.setting, one.metric, one.difference, p=one.p_holm)
        for one in found.tasks
    ]
    for text in found.corpora:
        both = (("loss_nats_per_token", text.nats_per_token), ("bits_per_byte", text.bits_per_byte))
        for metric, loss in both:
            if loss is not None:
                margin = _MARGIN if metric == "loss_nats_per_token" else None
                row = _compared(text.corpus, text.reading, metric, loss, margin=margin)
                rows.append(row)
    return answers.Comparison(a=a, b=b, level=found.level, rows=rows, notes=list(found.notes))


def figures(data: ReportData) -> answers.Figures:
    """The figures of measurements that the page has."""
    series = [
        answers.FigureName(
            id=f"series-{one.id}", title=shown(one.title), detail=one.detail,
            metrics=list(one.metrics), sql=one.sql,
        )
        for one in data.abilities.series
    ]  # fmt: skip
    curves = [
        answers.FigureName(
            id=f"curve-{i}", title=shown(one.axis.title, longest=200), detail="",
            metrics=["loss"], sql=curve_query(one),
        )
        for i, one in enumerate(data.curves)
    ]  # fmt: skip
    axes = {axis.key: axis.title for axis in data.axes.options if axis.known}
    return answers.Figures(figures=[*series, *curves], axes=axes)


def figure(data: ReportData, name: str, *, x: str | None, metric: str | None) -> answers.FigureData:
    """The points of one figure.

    Args:
        data: the page.
        name: as :func:`figures` lists it.
        x: key of an axis; the page's first one where None, for a curve the first along training.
        metric: the series' first one where None.

    Raises:
        CheckpointMissing: there is no such figure.
        BadRequest: there is no such axis or score.
        Refused: both sides come from the same documents.
    """
    known: dict[str, Series | Curve] = {f"series-{s.id}": s for s in data.abilities.series}
    known |= {f"curve-{i}": curve for i, curve in enumerate(data.curves)}
    one = known.get(name)
    if one is None:
        raise CheckpointMissing(
            "the page has no figure of this name.",
            asked=name,
            nearest=nearest_name(name, known) or ", ".join(list(known)[:6]) or None,
            remedy="GET figures lists them",
        )
    if isinstance(one, Curve):
        axis = _axis(data, x or "tokens_seen")
        return _points(data, name, one.values, axis, "loss", None)
    axis, score = _axis(data, x), metric or one.metrics[0]
    series_figure(data, one, x=axis.key, metric=score)  # refuses what the page refuses
    values = data.abilities.values.filter(pl.col("series") == one.id, pl.col("metric") == score)
    return _points(data, name, values, axis, score, one.units.get(score))


def _points(
    data: ReportData, name: str, values: pl.DataFrame, axis: XAxis, metric: str, unit: str | None
) -> answers.FigureData:
    frame = figure_frame(data, values, axis).select(
        "x", "run", "y", is_flagged="flagged", is_unfinished="hollow", point="order",
        stderr=pl.col("y") - pl.col("low"),
    )  # fmt: skip
    names = data.checkpoints["name"]
    rows = [
        answers.FigurePoint(checkpoint=names[int(row.pop("point"))], **row) for row in _rows(frame)
    ]
    return answers.FigureData(id=name, x=axis.title, metric=metric, unit=unit, rows=rows)


def _axis(data: ReportData, key: str | None) -> XAxis:
    known = {axis.key: axis for axis in data.axes.options if axis.known}
    wanted = key or (data.axes.first.key if data.axes.first else "")
    if wanted not in known:
        raise BadRequest(
            "no checkpoint has a place on that axis.",
            asked=wanted or None,
            nearest=", ".join(known) or None,
            remedy="take one of these" if known else "record steps, tokens or a loss first",
        )
    return known[wanted]


def _asked(data: ReportData, name: str) -> str:
    """A checkpoint's name on the page as the comparison takes it."""
    found = data.checkpoints.filter(pl.col("name") == name)
    if found.is_empty() or found["step"][0] is None:
        return name
    row = found.row(0, named=True)
    later = "" if row["stage"] in (None, _PRETRAINING) else f"{row['stage']}:"
    return f"{row['family'] or ''}/{row['run'] or row['model']}@{later}{row['step']}"


def _compared(
    task: str,
    setting: str,
    metric: str,
    found: Difference,
    *,
    p: float | None = None,
    margin: float | None = None,
) -> answers.Compared:
    low, high = found.low, found.high
    verdict = "undetermined"
    if low is not None and high is not None:
        if margin is not None and -margin < low and high < margin:
            verdict = "equal"
        elif (low > 0 or high < 0) and (p is None or p < _ALPHA):
            verdict = "b is higher" if found.difference > 0 else "a is higher"
    return answers.Compared(
        **_finite({"a": found.a, "b": found.b, "difference": found.difference,
                   "low": low, "high": high, "p": p}),
        task=task, setting=setting, metric=metric, n=found.n, paired=found.paired, verdict=verdict,
    )  # fmt: skip


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [_finite(row) for row in frame.iter_rows(named=True)]


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and (value != value or abs(value) == float("inf"))
        else value
        for key, value in row.items()
    }  # fmt: skip
