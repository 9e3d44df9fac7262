"""A figure of a finding as one Altair chart: its panels side by side, with a legend."""

from __future__ import annotations

from typing import Any

import altair as alt

from isoloss.report.section_charts import ROWS, draw
from isoloss.report.section_colours import Colours
from isoloss.report.text import shown
from isoloss.studies.findings import Figure

_WIDTH, _HEIGHT, _ACROSS = 260, 180, 3
_NAMES = 24  # that a legend has room for


def finding_figure(figure: Figure, known: Colours) -> Any:
    """The figure with all its panels; ``.save("figure.pdf")`` writes it.

    Args:
        figure: as data.
        known: colours of names that other figures draw too.

    Returns:
        An Altair chart: of one panel, or of several in rows of three.
    """
    drawing = draw(figure, known)
    names = [name for name in drawing.colours.names if name]
    legend = None
    if figure.by is not None and 1 < len(names) <= _NAMES:
        legend = {"title": shown(figure.by), "symbolOpacity": 1}
    panels = []
    for title, columns in drawing.panels:
        panel = _with_legend(drawing.spec, legend)
        panel |= {"width": _WIDTH, "height": _HEIGHT, "title": title or shown(figure.title)}
        panel["datasets"] = {ROWS: _rows(columns)}
        panels.append(panel)
    if len(panels) == 1:
        return alt.LayerChart.from_dict(panels[0], validate=False)
    # each panel has rows of its own under the same name
    for nth, panel in enumerate(panels):
        panel["datasets"] = {f"{ROWS}{nth}": panel["datasets"][ROWS]}
        _rename(panel, f"{ROWS}{nth}")
    whole = {
        "concat": [{k: v for k, v in panel.items() if k != "datasets"} for panel in panels],
        "columns": _ACROSS,
        "title": shown(figure.title),
        "datasets": {name: rows for panel in panels for name, rows in panel["datasets"].items()},
        "resolve": {"scale": {"color": "shared", "fill": "shared"}},
    }
    # made by Altair a moment ago: to check it all again takes seconds
    return alt.ConcatChart.from_dict(whole, validate=False)


def _with_legend(spec: dict[str, Any], legend: dict[str, Any] | None) -> dict[str, Any]:
    """A copy, in which colours of lines and points name themselves."""

    def copied(part: Any, name: str = "") -> Any:
        if isinstance(part, dict):
            own = {key: copied(value, key) for key, value in part.items()}
            if name == "color" and legend is not None and "scale" in own:
                own["legend"] = legend
            return own
        return [copied(one) for one in part] if isinstance(part, list) else part

    return dict(copied(spec))


def _rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns of a panel as rows; a column of one value stands for as many."""
    count = columns["n"]
    lists = {
        name: value if isinstance(value, list) else [value] * count
        for name, value in columns.items()
        if name != "n"
    }
    return [{"i": i, **{name: value[i] for name, value in lists.items()}} for i in range(count)]


def _rename(part: Any, name: str) -> None:
    if isinstance(part, dict):
        if part.get("data") == {"name": ROWS}:
            part["data"] = {"name": name}
        for value in part.values():
            _rename(value, name)
    elif isinstance(part, list):
        for value in part:
            _rename(value, name)
