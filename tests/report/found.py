"""Findings with every part, one plain and one in which every name is an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isoloss.studies.findings import (
    Figure,
    FigureAxis,
    Finding,
    Findings,
    FindingsTable,
    Reproduced,
    Rule,
    Value,
)
from report.stores import HOSTILE

ROWS: tuple[Mapping[str, Value], ...] = (
    {"x": 1, "y": 1.5, "low": 1.0, "high": 2.0, "who": "a", "toy": "red"},
    {"x": 10, "y": 3.0, "who": "b", "toy": "red", "open": True, "layer": "runs"},
    {"x": 2, "layer": "rule", "x_low": 1.5, "x_high": 4.0, "label": "bend", "toy": "red"},
    {"x": 1, "y": 2.0, "layer": "fit", "toy": "red"},
    {"x": 10, "y": 5.0, "layer": "fit", "toy": "red"},
    {"x": 1, "y": 1.0, "who": "a", "toy": "blue", "x_low": 0.9, "x_high": 1.2},
    {"x": 10, "y": 2.0, "who": "b", "toy": "blue"},
)


def figure(
    *, rows: Sequence[Mapping[str, Value]] = ROWS, panel: str | None = "toy", log: bool = False
) -> Figure:
    """Points with bars, hollow ones, a fitted curve and an upright rule."""
    return Figure(
        id="roll", title="How far toys roll", note="Read it from left to right.",
        x=FigureAxis(column="x", title="weight (kg)", log=log),
        y=FigureAxis(column="y", title="distance (m)"),
        by="who", panel=panel, low="low", high="high", hollow="open", rows=tuple(rows),
    )  # fmt: skip


STUDY = Findings(
    study="toys",
    title="A study of toys",
    scale="tiny",
    command="isoloss study toys --scale tiny",
    answers=("Larger toys roll further.", "Nothing is known of red toys."),
    claims=(
        Finding(
            claim="roll", sentence="Toys roll.", source="Toy et al.", verdict="confirmed",
            statistic="slope of the distance", unit="nats", smallest_effect=0.05, estimate=0.25,
            low=0.1, high=0.4, n=8, p_value=0.004, p_holm=0.012, control="shuffled: 0.01 nats",
            reason="all above",
        ),
        Finding(
            claim="fly", sentence="Toys fly.", source="Toy et al.", verdict="not run",
            statistic="height", unit="", smallest_effect=1.0, reason="not enough toys",
        ),
    ),  # fmt: skip
    reproduced=(Reproduced(what="A", source="Table 1", published=119.405, ours=119.4),
                Reproduced(what="alpha", source="Table 1", published=0.02469, ours=0.0247)),
    tables=(
        FindingsTable(id="t", title="A table of toys", columns=("toy", "metres"),
                      rows=(("red", 1.5), ("blue", None)), note="Blue was lost."),
        FindingsTable(id="long", title="Every toy", columns=("toy", "rolls"),
                      rows=tuple((f"toy {i}", i % 2 == 0) for i in range(60))),
    ),
    figures=(
        figure(),
        Figure(
            id="lines", title="Lines of toys", mark="lines", panel="toy", by="who",
            x=FigureAxis(column="loss", title="loss (nats per token)", log=True, reverse=True),
            y=FigureAxis(column="v", title="gain (points)"),
            rules=(Rule(along="y", value=0.0, label="no effect"),
                   Rule(along="x", value=2.0, label="start")),
            rows=tuple(
                {"loss": float(10 - i), "v": float(i * k - 5), "who": f"run {k}", "toy": toy,
                 "tokens": 10**9 * i}
                for toy in ("red", "blue") for k in range(9) for i in range(9)
            ),
        ),
        Figure(
            id="bars", title="Bars of toys", mark="bars",
            x=FigureAxis(column="claim", title="claim"), y=FigureAxis(column="v", title="share"),
            low="low", high="high",
            rows=({"claim": "roll", "v": 0.5, "low": 0.4, "high": 0.6}, {"claim": "fly", "v": 0.1}),
        ),
        Figure(
            id="curve", title="A curve alone", mark="curve", x=FigureAxis(column="x", title="x"),
            y=FigureAxis(column="y", title="y", log=True),
            rows=tuple({"x": float(i), "y": 2.0**i} for i in range(20)),
        ),
        Figure(
            id="named", title="Runs by name", mark="points", low="low", high="high",
            x=FigureAxis(column="run", title="run"), y=FigureAxis(column="v", title="offset"),
            rows=({"run": "one", "v": 1.0, "low": 0.5, "high": 1.5}, {"run": "two", "v": -1.0}),
        ),
    ),
    facts={"seed": 0, "seconds": 12.5, "exact": True},
    not_run=("Toys that fly: not enough toys.",),
)  # fmt: skip

HOSTILE_STUDY = Findings(
    study="hostile",
    title=HOSTILE,
    scale=HOSTILE,
    command=HOSTILE,
    answers=(HOSTILE,),
    claims=(
        Finding(claim=HOSTILE, sentence=HOSTILE, source=HOSTILE, verdict="undetermined",
                statistic=HOSTILE, unit=HOSTILE, smallest_effect=0.1, estimate=0.2,
                control=HOSTILE, reason=HOSTILE),
    ),
    reproduced=(Reproduced(what=HOSTILE, source=HOSTILE, published=1.0, ours=1.5),),
    tables=(FindingsTable(id=HOSTILE, title=HOSTILE, columns=(HOSTILE,), rows=((HOSTILE,),),
                          note=HOSTILE),),
    figures=(
        Figure(
            id=HOSTILE, title=HOSTILE, note=HOSTILE, by=HOSTILE, panel="datum['x']",
            x=FigureAxis(column="a.b[0]", title=HOSTILE), y=FigureAxis(column="\\y", title=HOSTILE),
            rules=(Rule(along="y", value=1.0, label=HOSTILE),),
            rows=({"a.b[0]": 1.0, "\\y": 2.0, HOSTILE: HOSTILE, "datum['x']": HOSTILE,
                   "toString()": HOSTILE},
                  {"a.b[0]": 2.0, "\\y": 3.0, HOSTILE: "b", "datum['x']": HOSTILE}),
        ),
    ),
    facts={HOSTILE: HOSTILE},
    not_run=(HOSTILE,),
)  # fmt: skip
