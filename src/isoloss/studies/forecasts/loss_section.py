"""The loss itself, as a section of any store's page: where it turns, its law, the next size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from isoloss.store.axis import Axis
from isoloss.store.store import Store
from isoloss.studies.findings import Figure, FigureAxis, Findings, FindingsTable, Value
from isoloss.studies.forecasts.loss_turns import (
    MOST_RUNS,
    LossTurn,
    loss_turns,
    turn_figure,
    turn_table,
)
from isoloss.studies.forecasts.next_size import LEVEL, Forecast, NextSize, next_sizes

STUDY = "loss-laws"
TITLE = "The loss along training, its law, and the next size"
FORECASTS = "forecasts"

Row = dict[str, Value]


def loss_findings(store: Store, axis: Axis, *, seed: int = 0) -> Findings | None:
    """Verdict on every run's loss, the law of each family and its next size.

    Args:
        store: measured or imported.
        axis: the loss.
        seed: of all draws.

    Returns:
        The section; None where no run has a loss at a known number of tokens.
    """
    turns = loss_turns(store, axis, seed=seed)
    if not turns:
        return None
    found, not_run = next_sizes(store, axis, seed=seed)
    if len(turns) == MOST_RUNS:
        not_run.append(f"Whether a run has stopped improving was asked of the first {MOST_RUNS}.")
    figures = [turn_figure(turns, axis), *(_law_figure(one, axis) for one in found)]
    figures += [_forecast_figure(one) for one in found if len(one.forecasts) > 1]
    tables = (turn_table(turns, axis), _law_table(found, axis), _forecast_table(found))
    return Findings(
        study=STUDY,
        title=TITLE,
        command=f"isoloss report RUN --loss {axis.name}",
        answers=tuple(_answers(turns, found)),
        tables=tuple(table for table in tables if table.rows),
        figures=tuple(figure for figure in figures if figure is not None),
        facts={"loss axis": axis.label, "seed": seed, "level of forecasts": LEVEL},
        not_run=tuple(not_run),
    )


def _answers(turns: Sequence[LossTurn], found: Sequence[NextSize]) -> Iterable[str]:
    counts: dict[str, int] = {}
    for one in turns:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    told = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
    yield f"Of {len(turns)} runs: {told}."
    for size in found:
        loss = size.forecasts[0]
        yield (
            f"{size.family}: a run of {size.params:.3g} parameters on {size.tokens:.3g} tokens "
            f"would end at {loss.value:.4g} [{loss.low:.4g}, {loss.high:.4g}] ({LEVEL:.0%} "
            "interval for one run)."
        )


def _law_figure(one: NextSize, axis: Axis) -> Figure:
    """Ends of runs, the law through them, and the next size with its interval."""
    chain, loss = one.chain, one.forecasts[0]
    sizes = np.geomspace(min(n for n, _ in loss.ends), one.params, 40)
    rows: list[Row] = []
    if chain.line is not None:
        tokens = np.exp(chain.line[0] + chain.line[1] * np.log(sizes))
    else:
        tokens = np.full_like(sizes, one.tokens)
    rows += [
        {"params": float(n), "value": float(y), "layer": "fit"}
        for n, y in zip(sizes, chain.loss_law.predict(sizes, tokens), strict=True)
    ]
    rows += _points_and_next(loss, one.params, {end.params: end.run for end in chain.fitted})
    return Figure(
        id=f"loss-law-{one.family}",
        title=f"{one.family}: the law of the loss and the next size",
        note=f"Grey: the law at {one.tokens:.3g} tokens"
        f"{' or along the budgets of the sizes' if chain.line is not None else ''}. Hollow: not "
        f"trained, forecast with the {LEVEL:.0%} interval for one run.",
        x=FigureAxis(column="params", title="parameters", log=True),
        y=FigureAxis(column="value", title=axis.label),
        low="low",
        high="high",
        hollow="forecast",
        rows=tuple(rows),
    )


def _forecast_figure(one: NextSize) -> Figure:
    rows: list[Row] = []
    for got in one.forecasts[1:]:
        rows += [row | {"panel": got.what} for row in _points_and_next(got, one.params, {})]
    return Figure(
        id=f"next-size-{one.family}",
        title=f"{one.family}: scores of the next size",
        note=f"Hollow: forecast through the laws of loss and task, with the {LEVEL:.0%} interval "
        f"for one run's measured score, at {one.params:.3g} parameters and {one.tokens:.3g} "
        "tokens. isoloss forecast tells how such forecasts did on runs held out.",
        x=FigureAxis(column="params", title="parameters", log=True),
        y=FigureAxis(column="value", title="score at the last checkpoint"),
        panel="panel",
        low="low",
        high="high",
        hollow="forecast",
        rows=tuple(rows),
    )


def _points_and_next(got: Forecast, params: float, names: dict[float | None, str]) -> list[Row]:
    rows: list[Row] = [
        {"params": n, "value": y, "forecast": False, "run": names.get(n)} for n, y in got.ends
    ]
    rows.append({"params": params, "value": got.value, "low": got.low, "high": got.high,
                 "forecast": True, "run": "next size"})  # fmt: skip
    return rows


def _law_table(found: Sequence[NextSize], axis: Axis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = []
    for one in found:
        law = one.chain.loss_law
        for name in ("E", "A", "alpha", "B", "beta"):
            value, ci = getattr(law, name), law.ci.get(name)
            if value is not None and name not in law.fixed:
                ends = f"{ci[0]:.4g} to {ci[1]:.4g}" if ci else None
                rows.append((one.family, law.form, name, float(value), ends, law.n, law.ci_kind))
    return FindingsTable(
        id="loss-law",
        title="The law of the loss",
        columns=("family", "form", "parameter", "value", f"{LEVEL:.0%} interval", "runs",
                 "interval's kind"),
        rows=tuple(rows),
        note=f"L = E + A / N^alpha + B / D^beta of finished runs, {axis.unit}; the form params has "
        "no data term, the form compute one term in N D. Without an interval: left open by the "
        "data. Runs are left out of the law by a quicker rule than that of the table above "
        "(laws/saturated_family.py), which rather leaves out too many.",
    )  # fmt: skip


def _forecast_table(found: Sequence[NextSize]) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (one.family, one.params, one.tokens, got.what, got.value,
         f"{got.low:.4g} to {got.high:.4g}", len(one.chain.fitted))
        for one in found
        for got in one.forecasts
    ]  # fmt: skip
    return FindingsTable(
        id=FORECASTS,
        title="What the next size would lose and score",
        columns=("family", "parameters", "tokens", "what", "forecast", f"{LEVEL:.0%} interval",
                 "runs"),
        rows=tuple(rows),
        note="isoloss forecast RUN asks for any other size, and tells how such forecasts did on "
        "runs held out.",
    )  # fmt: skip
