"""Figures of the token classes, as rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from isoloss.laws.correlated import Floats
from isoloss.studies.findings import Figure, FigureAxis, Rule, Value
from isoloss.studies.trajectories.class_analysis import ClassAnalysis
from isoloss.studies.trajectories.class_curves import EVERY_RUN
from isoloss.studies.trajectories.token_runs import TokenRun

Row = Mapping[str, Value]

TREND_KINDS = ("downward", "upward", "stagnated")
_PERPLEXITY = FigureAxis(column="y", title="perplexity of the tokens (geometric mean)", log=True)


def class_figures(found: ClassAnalysis) -> tuple[Figure, ...]:
    """All figures; those without rows are left out.

    Args:
        found: the analysis.
    """
    made = (_shares(found), *_curves(found), _overlaps(found), *_composition(found))
    return tuple(figure for figure in made if figure.rows)


def _shares(found: ClassAnalysis) -> Figure:
    rows: list[Row] = []
    for row in found.shares:
        for kind in TREND_KINDS:
            share, x = row.paper[kind], 100 * row.start
            common: dict[str, Value] = {"x": x, "panel": kind, "run": row.run}
            rows.append(
                common | {"y": share.value, "low": share.low, "high": share.high, "layer": "point"}
            )
            rows.append(
                common | {"y": row.null.shares[kind], "low": None, "high": None, "layer": "fit"}
            )
    return Figure(
        id="token-shares-by-start",
        title="Shares of classes by the start of the trend",
        note="Xia et al. (2023), fig. 2. Lines: what the same rule finds in driftless series "
        "fitted to the run. A share counts only as far as it is away from its run's line.",
        x=FigureAxis(column="x", title="trend after this share of training, %"),
        y=FigureAxis(column="y", title="share of tokens"),
        by="run", panel="panel", low="low", high="high", rows=tuple(rows),
    )  # fmt: skip


def _curves(found: ClassAnalysis) -> tuple[Figure, ...]:
    runs = {run.name: run for run in found.runs.runs}
    overall = dict(zip(found.runs.names, found.overall.nats, strict=True))
    by_flops, by_loss = [], []
    for curve in found.curves:
        # the smallest run, the largest and all: what the paper shows
        shown = (found.runs.names[0], found.runs.names[-1], EVERY_RUN)
        if curve.kind not in TREND_KINDS or curve.chosen_on not in shown or not curve.tokens:
            continue
        panel = f"{curve.kind} on {curve.chosen_on}"
        compute = _compute(runs[curve.run])
        for i, nats in enumerate(curve.nats):
            row: dict[str, Value] = {
                "y": math.exp(nats), "run": curve.run, "panel": panel, "layer": "point",
                "is_chosen_on": curve.run == curve.chosen_on,
            }  # fmt: skip
            if compute is not None and compute[i] > 0:
                by_flops.append(row | {"x": float(compute[i])})
            by_loss.append(row | {"x": math.exp(overall[curve.run][i])})
    return (
        Figure(
            id="token-curves-flops", title="Perplexity of a class against training compute",
            note="Tokens chosen on one run, evaluated on all. Xia et al. (2023), figs. 3 and 11.",
            mark="lines", x=FigureAxis(column="x", title="training FLOPs (6 N D)", log=True),
            y=_PERPLEXITY, by="run", panel="panel", rows=tuple(by_flops),
        ),
        Figure(
            id="token-curves-perplexity", title="Perplexity of a class against that of all tokens",
            note="One line for all runs is what the claim says; on the run that chose them, tokens "
            "do what they were chosen for, by chance too. Xia et al. (2023), figs. 4 and 12.",
            mark="lines",
            x=FigureAxis(column="x", title="perplexity of all tokens", log=True, reverse=True),
            y=_PERPLEXITY, by="run", panel="panel", rows=tuple(by_loss),
        ),
    )  # fmt: skip


def _compute(run: TokenRun) -> Floats | None:
    flops = np.array(run.flops, dtype=np.float64)
    return flops if np.isfinite(flops).all() else None


def _overlaps(found: ClassAnalysis) -> Figure:
    rows: list[Row] = [
        {"x": f"{one.first} and {one.second}", "y": one.log_odds.value, "low": one.log_odds.low,
         "high": one.log_odds.high, "panel": one.what, "layer": "point",
         "who": "two seeds of one size" if one.seeds else "two sizes"}
        for one in (*found.class_overlaps, *found.fall_overlaps)
        if math.isfinite(one.log_odds.value)
    ]  # fmt: skip
    return Figure(
        id="token-overlaps",
        title="What two runs share beyond word part and frequency",
        note="Log odds ratio within strata, 95% intervals over documents. At 0 two runs share no "
        "more than their strata make them; two seeds of one size are the ceiling.",
        x=FigureAxis(column="x", title="runs"),
        y=FigureAxis(column="y", title="log odds ratio"),
        by="who", panel="panel", low="low", high="high",
        rules=(Rule(along="y", value=0.0, label="no more than strata"),), rows=tuple(rows),
    )  # fmt: skip


def _composition(found: ClassAnalysis) -> tuple[Figure, ...]:
    """Of the largest run that was judged."""
    names = [name for name in found.runs.names if name in found.components]
    figures = []
    for trait in ("frequency decile", "position decile"):
        rows: list[Row] = [
            {"x": int(one.value), "y": one.lift.value, "low": one.lift.low, "high": one.lift.high,
             "kind": one.kind, "layer": "point"}
            for one in (found.components[names[-1]] if names else ())
            if one.trait == trait and one.kind in TREND_KINDS
        ]  # fmt: skip
        figures.append(
            Figure(
                id=f"token-classes-by-{trait.partition(' ')[0]}",
                title=f"Classes by {trait}",
                note=f"Of {names[-1] if names else ''}: share of the class's tokens in this decile "
                "over that of all tokens. 1 is the rarest, or the earliest in the document.",
                mark="lines",
                x=FigureAxis(column="x", title=trait),
                y=FigureAxis(column="y", title="share over that of all tokens"),
                by="kind", low="low", high="high",
                rules=(Rule(along="y", value=1.0, label="like all tokens"),), rows=tuple(rows),
            )
        )  # fmt: skip
    return tuple(figures)
