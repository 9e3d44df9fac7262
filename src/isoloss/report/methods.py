"""How the numbers were made: the loss axis, every setting, every layout, and the queries."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from isoloss.report.axes import OPTIMUM_PROBE
from isoloss.report.data import Curve, ReportData
from isoloss.report.sentences import Word
from isoloss.report.text import count, shown
from isoloss.report.trouble import Table
from isoloss.store.axis import Axis
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.series import quoted

_HASH = 12
_KINDS = {
    "held-out": "a loss measured on text held out from training",
    "train-log": "the training loss as the run logged it",
    "proxy": "the perplexity of a task's documents, in place of a pre-training loss",
    "exact": "an expectation over a language whose law is known",
}


def method_tables(data: ReportData) -> tuple[Table, ...]:
    """The loss axes, the corpora's layouts and the settings of every series."""
    return (_axes(data), _layouts(data), _series(data), _code(data))


def curve_query(curve: Curve) -> str:
    """The query that gives a loss curve's table."""
    axis = curve.axis.source
    return axis_query(axis) if axis else ""


def axis_query(axis: Axis) -> str:
    """The query that gives the values of a loss axis."""
    conditions = [
        f"probe = {quoted(axis.probe)}",
        f"subject = {quoted(axis.subject)}",
        f"metric = {quoted(axis.metric)}",
    ]
    conditions += [
        f"{name} IS NULL" if value is None else f"{name} = {quoted(value)}"
        for name, value in axis.settings.items()
    ]
    return (
        "SELECT family, model, run, step, tokens_seen, metric, value, stderr, n\n"
        "FROM measurements\nWHERE " + "\n  AND ".join(conditions)
    )


def _axes(data: ReportData) -> Table:
    return Table(
        id="axis",
        title="Loss axes",
        columns=("axis", "kind", "identity", "checkpoints"),
        rows=tuple(
            (
                Word(axis.title),
                Word(f"{axis.source.kind}: {_KINDS[axis.source.kind]}"),
                f"{shown(axis.source.name)}; {_settings(axis.source.settings)}".rstrip("; "),
                f"{axis.known:,}",
            )
            for axis in data.axes.options
            if axis.source is not None and not axis.is_derived
        ),
        note="Points of two identities never share a figure. Losses run from high to low, so that "
        "progress goes to the right."
        + (
            " Perplexity is drawn as its natural logarithm."
            if any(a.source and a.source.kind == "proxy" for a in data.axes.options)
            else ""
        ),
        empty="The store holds no loss: add a [corpus] to the study, or import a training log.",
    )


def _layouts(data: ReportData) -> Table:
    columns = ("subject", "corpus_hash", "context", "stride", "bos", "tokenizer_hash", "docs_n",
               "extra")  # fmt: skip
    cells = data.cells.filter(pl.col("probe").is_in([LOSS_PROBE, OPTIMUM_PROBE]))
    rows = cells.group_by(columns).len().sort(columns, nulls_last=True)
    return Table(
        id="layouts",
        title="Corpora as they were read",
        columns=("corpus", "layout", "cells"),
        rows=tuple(
            (
                shown(row["subject"]),
                _settings({k: row[k] for k in columns[1:]}),
                f"{row['len']:,}",
            )
            for row in rows.iter_rows(named=True)
        ),
        empty="No loss was measured on a corpus.",
    )


def _series(data: ReportData) -> Table:
    documents = dict(data.abilities.values.group_by("series").agg(pl.col("n").max()).iter_rows())
    return Table(
        id="settings",
        title="Settings of every series",
        columns=("series", "setting", "documents", "scores"),
        rows=tuple(
            (
                shown(one.title),
                _settings(one.settings),
                count(documents.get(one.id)),
                ", ".join(map(shown, one.metrics)),
            )
            for one in data.abilities.series
        ),
        note="Two settings of one task are two series; nothing averages over them.",
        empty="No ability was measured.",
    )


def _code(data: ReportData) -> Table:
    columns = ["probe", "source", "dtype", "threads", "code_version"]
    rows = (
        data.cells.group_by(columns)
        .agg(pl.len(), pl.col("seconds").sum())
        .sort(columns, nulls_last=True)
    )
    return Table(
        id="code",
        title="Who measured what",
        columns=("probe", "source", "dtype", "threads", "isoloss", "cells", "seconds"),
        rows=tuple(
            (
                *("unknown" if row[name] is None else shown(row[name]) for name in columns),
                f"{row['len']:,}",
                f"{row['seconds']:.1f}" if row["seconds"] else "unknown",
            )
            for row in rows.iter_rows(named=True)
        ),
        empty="No cell is finished.",
    )


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(
        f"{shown(name)} {shown(value)[:_HASH] if name.endswith('hash') else shown(value)}"
        for name, value in settings.items()
        if value is not None
    )
