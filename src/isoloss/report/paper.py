"""Figures for a paper: each a chart, and beside it what it was made from.

The words beside a figure are its query, the numbers of checkpoints and runs, their seeds, what its
bars mean, and the versions: whatever a reader needs to draw it again.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from isoloss import __version__
from isoloss.errors import BadRequest, nearest_name
from isoloss.report.axes import TIME, refusals
from isoloss.report.data import ReportData, collect
from isoloss.report.figures import curve_figure, series_figure
from isoloss.report.finding_figures import finding_figure
from isoloss.report.methods import curve_query
from isoloss.report.page import findings_of
from isoloss.store.files import write_text
from isoloss.store.store import Store
from isoloss.studies.findings import Findings

FORMATS = ("svg", "png", "pdf")
_ONE_STDERR = "one standard error either way"
_DOTS_AN_INCH = 300
_LONGEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigure:
    """One figure.

    Attributes:
        name: of its files, without an ending; unique.
        title: what it shows.
        chart: to be changed, shown or saved.
        facts: what it was made from, as plain data.
    """

    name: str
    title: str
    chart: Any
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresWritten:
    """What was written.

    Attributes:
        folder: where.
        files: names of all drawings.
        refused: abilities measured on the documents of the loss, which are not drawn against it.
    """

    folder: str
    files: tuple[str, ...]
    refused: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"folder": self.folder, "files": list(self.files), "refused": list(self.refused)}


def paper_figures(
    store: Store, *, loss: str | None = None, x: str | None = None, laws: bool = True, seed: int = 0
) -> list[PaperFigure]:
    """Every ability, every loss curve and every figure of what the laws and studies found.

    Parts of collections (the subjects of MMLU) are left out: ``series_figure`` draws them. So are
    abilities that may not be drawn against the axis.

    Args:
        store: the results.
        loss: ``SUBJECT`` or ``SUBJECT:METRIC`` of the loss axis; None takes the only one.
        x: key of the axis of the abilities, such as ``loss``, ``perplexity`` or ``tokens_seen``;
            the page's first one where None.
        laws: whether the laws are asked, which takes up to a second an ability.
        seed: of the laws' draws.

    Returns:
        The figures in the order of the page.

    Raises:
        BadRequest: there is no such axis.
    """
    data = collect(store, loss=loss)
    found = findings_of(store, data, laws=laws, seed=seed)
    versions = sorted(data.cells["code_version"].drop_nulls().unique())
    shared = {"isoloss": __version__, "measured by": versions, "seed of the laws": seed}
    drawn = [*_abilities(data, x), *_curves(data), *_findings(data, found)]
    names: set[str] = set()
    named = []
    for title, chart, facts in drawn:
        name = stem = _file_name(title)
        for nth in range(2, len(drawn) + 2):
            if name not in names:
                break
            name = f"{stem}-{nth}"
        names.add(name)
        told = {"title": title, **facts, **shared}
        named.append(PaperFigure(name=name, title=title, chart=chart, facts=told))
    return named


def write_figures(
    store: Store,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("svg",),
    loss: str | None = None,
    laws: bool = True,
    seed: int = 0,
) -> FiguresWritten:
    """Write every figure and, beside it, ``NAME.json`` with what it was made from.

    Args:
        store: the results.
        folder: made where it is not there.
        formats: of :data:`FORMATS`; PNG has 300 dots an inch.
        loss: of the loss axis, as for the page.
        laws: whether the laws are asked.
        seed: of the laws' draws.

    Returns:
        What was written.

    Raises:
        BadRequest: a format is not known.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise BadRequest(
                "figures are not written in that format.",
                asked=kind or "nothing",
                nearest=nearest_name(kind, FORMATS) or ", ".join(FORMATS),
                remedy="--format svg,png,pdf or some of them",
            )
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    made = paper_figures(store, loss=loss, laws=laws, seed=seed)
    files = []
    for one in made:
        for kind in formats:
            files.append(f"{one.name}.{kind}")
            one.chart.save(place / files[-1], format=kind, ppi=_DOTS_AN_INCH)
        text = json.dumps(one.facts, indent=2, ensure_ascii=False, default=str)
        write_text(place / f"{one.name}.json", text + "\n")
    data = collect(store, loss=loss)
    return FiguresWritten(folder=str(folder), files=tuple(files), refused=tuple(_refused(data)))


_Drawn = tuple[str, Any, dict[str, Any]]


def _abilities(data: ReportData, x: str | None) -> Iterator[_Drawn]:
    key = x or (data.axes.first.key if data.axes.first else None)
    if key is None:
        return
    for series in data.abilities.series:
        if series.group is not None or key in refusals(data.axes, series.subject):
            continue
        title = f"{series.title}, {series.detail}" if series.detail else series.title
        metric = series.metrics[0]
        own = data.abilities.values.filter(
            pl.col("series") == series.id, pl.col("metric") == metric
        )
        facts = {"query": series.sql, "score": metric, "x": key, **_counted(data, own)}
        chart = series_figure(data, series, x=key, metric=metric)
        yield f"{title}: {metric} against {key}", chart, facts


def _curves(data: ReportData) -> Iterator[_Drawn]:
    known = [axis.key for axis in data.axes.options if axis.known and axis.key in TIME]
    for curve in data.curves if known else ():
        facts = {"query": curve_query(curve), "x": known[0], **_counted(data, curve.values)}
        chart = curve_figure(data, curve, x=known[0])
        yield f"{curve.axis.title} along {known[0]}", chart, facts


def _findings(data: ReportData, found: Sequence[Findings]) -> Iterator[_Drawn]:
    known = {run.label: (run.light, run.dark) for run in data.runs}
    for study in found:
        for figure in study.figures:
            if figure.rows:
                facts = {
                    "study": study.study, "scale": study.scale, "command": study.command,
                    "how to read it": figure.note, "rows": len(figure.rows), **study.facts,
                }  # fmt: skip
                yield f"{study.study}: {figure.title}", finding_figure(figure, known), facts


def _counted(data: ReportData, values: pl.DataFrame) -> dict[str, Any]:
    points = data.checkpoints.filter(pl.col("point").is_in(values["point"].to_list()))
    seeds = points["seed"].unique().sort().to_list()
    return {
        "checkpoints": points.height,
        "runs": points["label"].n_unique(),
        "seeds of the runs": ["unknown" if seed is None else seed for seed in seeds],
        "bars and bands": _ONE_STDERR,
    }


def _refused(data: ReportData) -> list[str]:
    first = data.axes.first
    return [
        series.title if not series.detail else f"{series.title} ({series.detail})"
        for series in data.abilities.series
        if first is not None and first.key in refusals(data.axes, series.subject)
    ]


def _file_name(title: str) -> str:
    """A title as the name of a file anywhere: letters, digits and dashes."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:_LONGEST] or "figure"
