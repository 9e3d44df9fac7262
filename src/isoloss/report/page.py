"""The page: one HTML file that needs nothing else, whatever the names in the store are."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from isoloss import __version__
from isoloss.report.answer import opening
from isoloss.report.data import ReportData, collect
from isoloss.report.languages import check_language, dictionaries
from isoloss.report.methods import curve_query, method_tables
from isoloss.report.pack import pack, to_json
from isoloss.report.section import Sections
from isoloss.report.section import sections as make_sections
from isoloss.report.sentences import Word
from isoloss.report.sureness import RULES
from isoloss.report.text import number, shown
from isoloss.report.trouble import trouble_tables
from isoloss.report.words import Best, best_scores, distance_text
from isoloss.shown import Shown
from isoloss.store.files import write_text
from isoloss.store.series import Series
from isoloss.store.store import Store
from isoloss.studies.explained.findings import STUDY as EXPLAINED
from isoloss.studies.explained.findings import explain
from isoloss.studies.findings import Findings, load
from isoloss.studies.flatness.equal_loss import flatness_findings
from isoloss.studies.forecasts.loss_section import loss_findings
from isoloss.studies.saturation.best_final import best_final_findings
from isoloss.studies.saturation.layers import layer_findings
from isoloss.studies.trajectories.bigbench_section import bigbench_findings

SCRIPTS = (
    "rows.js", "language.js", "charts.js", "pointing.js", "pins.js", "downloads.js", "controls.js",
    "coloured.js",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReportSummary(Shown):
    """What a page holds.

    Attributes:
        page: where it was written.
        bytes: its size.
        checkpoints: in the store.
        cells: finished ones.
        series: abilities under one setting each; the page has a panel for each.
        loss_axis: what stands on the axis of loss; None where the store holds no loss.
        kind: held-out, train-log, proxy or exact.
        refused: series that are not drawn against the loss.
        failures: cells and checkpoints that failed.
        flagged: checkpoints that look wrong.
        studies: whose findings the page shows.
        answers: what the laws say, in sentences.
    """

    page: str
    bytes: int
    checkpoints: int
    cells: int
    series: int
    loss_axis: str | None
    kind: str | None
    refused: tuple[str, ...]
    failures: int
    flagged: int
    studies: tuple[str, ...]
    answers: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        record = asdict(self)
        return record | {name: list(record[name]) for name in ("refused", "studies", "answers")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """A place for a figure."""

    index: int
    title: str
    detail: str
    sql: str


def write(
    store: Store,
    out: str | Path,
    *,
    loss: str | None = None,
    language: str = "en",
    laws: bool = True,
    seed: int = 0,
) -> ReportSummary:
    """Write the page of a store.

    Args:
        store: the results.
        out: the HTML file; replaced whole.
        loss: ``SUBJECT`` or ``SUBJECT:METRIC`` of the loss axis; None takes the one that the
            study names, or else the only one there is.
        language: of the page's fixed words.
        laws: whether the laws are asked about every ability, which takes up to a second each.
        seed: of the laws' draws.

    Returns:
        What the page holds.

    Raises:
        BadRequest: no loss axis has that name, several could be meant, or the language is none
            the page knows.
    """
    check_language(language)
    data = collect(store, loss=loss)
    found = findings_of(store, data, laws=laws, seed=seed)
    told = make_sections(found, data.runs)
    packed = packed_page(data, told)
    html = render(data, packed, told, language=language)
    write_text(Path(out), html)
    axis = data.axes.loss
    refused = [
        series.title if not series.detail else f"{series.title} ({series.detail})"
        for series, told in zip(data.abilities.series, packed["series"], strict=True)
        if axis is not None and axis.key in told["refused"]
    ]
    return ReportSummary(
        page=str(out),
        bytes=len(html.encode()),
        checkpoints=data.checkpoints.height,
        cells=data.cells.height,
        series=len(data.abilities.series),
        loss_axis=axis.title if axis else None,
        kind=axis.source.kind if axis and axis.source else None,
        refused=tuple(refused),
        failures=data.failures.height,
        flagged=int(data.checkpoints["is_flagged"].sum()),
        studies=tuple(one.study for one in found),
        answers=found[0].answers if laws else (),
    )


def findings_of(store: Store, data: ReportData, *, laws: bool, seed: int) -> list[Findings]:
    """What the laws say about this axis, and what every study of the store found."""
    axis = data.axes.loss.source if data.axes.loss else None
    asked = [explain(store, loss=axis, seed=seed)] if laws else []
    flat = flatness_findings(store) if laws else None
    layers = layer_findings(store)
    asked += [one for one in (flat, layers) if one is not None]
    ends = best_final_findings(store, seed=seed) if laws else None
    asked += [ends] if ends is not None else []
    losses = loss_findings(store, axis, seed=seed) if laws and axis is not None else None
    asked += [losses] if losses is not None else []
    tasks = bigbench_findings(store, loss=axis) if laws else None
    asked += [tasks] if tasks is not None else []
    return [*asked, *(one for one in load(store) if one.study != EXPLAINED)]


def packed_page(data: ReportData, told: Sections) -> dict[str, Any]:
    """What all figures of a page are drawn from, those of the findings among them."""
    return {
        **pack(data), "figures": told.specs, "panels": told.panels, "coloured": told.coloured,
    }  # fmt: skip


def render(
    data: ReportData,
    packed: Mapping[str, Any],
    told: Sections,
    *,
    live: bool = False,
    language: str = "en",
) -> str:
    """The page as HTML.

    Args:
        data: of a store.
        packed: from :func:`packed_page` of the same data.
        told: what studies found.
        live: whether a server stands behind the page, which it asks for what is new.
        language: that the page starts in.
    """
    best = best_scores(data)
    groups = _grouped(data.abilities.series)
    return (
        _environment()
        .get_template("page.html")
        .render(
            version=__version__,
            families=sorted({shown(run.family) for run in data.runs}),
            measured=_measured(data),
            opening=opening(data, best, told),
            rules=RULES,
            language=language,
            words=Markup(to_json(dictionaries())),
            studies=told.parts,
            axes=data.axes,
            runs=data.runs,
            models=list(dict.fromkeys((shown(r.family), shown(r.model)) for r in data.runs)),
            metrics=_metrics(data),
            main=groups.pop(None, []),
            groups=groups,
            curves=[
                _Panel(
                    index=i, title=shown(c.axis.title, longest=200), detail="", sql=curve_query(c)
                )
                for i, c in enumerate(data.curves)
            ],
            best=[_best_row(one) for one in best if not one.series.group],
            best_grouped=[_best_row(one) for one in best if one.series.group],
            trouble=trouble_tables(data),
            methods=method_tables(data),
            data=Markup(to_json(packed)),
            style=Markup(_asset("page.css")),
            bundle=Markup(_bundle()),
            scripts=[Markup(_asset(name)) for name in _scripts(live=live)],
            live=live,
        )
    )


def _measured(data: ReportData) -> list[tuple[str, str, str]]:
    """Name, count and members of everything that was measured."""
    checkpoints = data.checkpoints
    families, models = (sorted({getattr(r, k) for r in data.runs}) for k in ("family", "model"))
    counted: list[tuple[str, int, Iterable[str]]] = [
        ("families", len(families), families),
        ("models", len({(r.family, r.model) for r in data.runs}), models),
        ("runs", len(data.runs), [r.label for r in data.runs]),
        ("checkpoints", checkpoints.height, []),
        ("corpora", len(data.corpora), data.corpora),
        ("tasks", len(data.tasks), data.tasks),
        ("cells", data.cells.height, []),
    ]
    return [
        (name if n != 1 else _singular(name), f"{n:,}", ", ".join(map(shown, names)))
        for name, n, names in counted
    ]


def _singular(name: str) -> str:
    irregular = {"families": "family", "corpora": "corpus"}
    return irregular.get(name, name.removesuffix("s"))


def _metrics(data: ReportData) -> list[tuple[str, str, int]]:
    """Every score, its name as shown and how many series have it, most shared first."""
    counts: dict[str, int] = {}
    for series in data.abilities.series:
        for metric in series.metrics:
            counts[metric] = counts.get(metric, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [(metric, shown(metric), n) for metric, n in ordered]


def _grouped(series: Sequence[Series]) -> dict[str | None, list[_Panel]]:
    groups: dict[str | None, list[_Panel]] = {}
    for one in series:
        panel = _Panel(index=one.id, title=shown(one.title), detail=one.detail, sql=one.sql)
        groups.setdefault(one.group, []).append(panel)
    return groups


def _best_row(best: Best) -> dict[str, str]:
    known = best.baseline is not None
    return {
        "series": shown(best.series.title),
        "detail": best.series.detail,
        "metric": best.metric,
        "score": best.score,
        "baseline": f"{number(best.baseline)} ({best.baseline_name})" if known else "unknown",
        "distance": distance_text(best.stderrs),
        "verdict": best.verdict,
        "checkpoint": best.checkpoint,
    }


def template(name: str) -> jinja2.Template:
    """A template of this room; what is put into it is text."""
    return _environment().get_template(name)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["word"] = lambda value: isinstance(value, Word)
    return environment


def _scripts(*, live: bool) -> tuple[str, ...]:
    """In their order; what a server says is known before the controls draw."""
    place = SCRIPTS.index("controls.js")
    return (*SCRIPTS[:place], "live.js", *SCRIPTS[place:]) if live else SCRIPTS


def _asset(name: str) -> str:
    return (importlib.resources.files("isoloss.report") / "assets" / name).read_text("utf-8")


@functools.cache
def _bundle() -> str:
    """What of Vega and Vega-Lite the page calls, in one script that cannot end its own element."""
    import altair
    import vl_convert

    # Altair names the release of Vega-Lite that its schema is of, which vl-convert holds
    place, lite = "https://cdn.jsdelivr.net/npm", altair.SCHEMA_VERSION.removeprefix("v")
    vega = vl_convert.get_vega_version()
    script: str = vl_convert.javascript_bundle(
        f"import {{View, parse, logger, Error}} from '{place}/vega@{vega}/+esm';"
        f"import {{compile}} from '{place}/vega-lite@{lite}/+esm';"
        "window.vega = {View, parse, logger, Error}; window.vegaLite = {compile};"
    )
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
