"""A back-test as findings: its answers, tables and the figure of predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from isoloss.studies.findings import Figure, FigureAxis, Findings, FindingsTable, Value
from isoloss.studies.forecasts.backtest import FORMS, Backtest, summarise
from isoloss.studies.forecasts.hold_out import Held

RIVALS = {
    "mean_absolute_error": "both laws",
    "last_value": "last value",
    "log_compute": "line in log compute",
    "ladder": "model ladder's defaults",
}
_EQUAL = "as predicted"


def backtest_findings(found: Backtest, command: str) -> Findings:
    """What a back-test of scores found.

    Args:
        found: with at least one ability.
        command: that makes the same again.
    """
    held = found.of(FORMS[0])
    return Findings(
        study="forecast-backtest",
        title="Would forecasts of the largest runs have held?",
        command=command,
        answers=tuple(_answers(found, held)),
        tables=(_rivals(found), _pairs(held)),
        figures=(_figure(held, found.level),),
        facts={
            "loss": found.axis.label,
            "level": found.level,
            "runs held out": ", ".join(dict.fromkeys(one.run for one in held)),
            "form of the task law": FORMS[0],
        },
        not_run=found.skipped,
    )


def backtest_record(found: Backtest) -> dict[str, Any]:
    """As one JSON object: a summary of each form of the task law, and every pair."""
    summaries = {}
    for form in FORMS:
        got = summarise(found.of(form))
        summaries[form] = got._asdict() | {"coverage": got.coverage}
    return {
        "level": found.level,
        "loss_axis": found.axis.name,
        "counts": FORMS[0],
        "summary": summaries,
        "held_out": [
            {
                **{name: value for name, value in asdict(one).items() if name != "ability"},
                "rivals": one.rivals._asdict() if one.rivals else None,
                "inside": one.inside,
                "task": one.ability.task if one.ability else None,
                "metric": one.ability.metric if one.ability else None,
                "num_fewshot": one.ability.num_fewshot if one.ability else None,
            }
            for one in found.held
        ],
        "skipped": list(found.skipped),
        "notes": list(found.notes),
    }


def _answers(found: Backtest, held: Sequence[Held]) -> list[str]:
    got = summarise(held)
    rivals = ", ".join(
        f"{name} {100 * getattr(got, key):.2f}" for key, name in list(RIVALS.items())[1:]
    )
    told = [
        f"The {found.level:.0%} interval holds {got.inside} of {got.pairs} held-out scores "
        f"({got.coverage:.0%}).",
        f"Forecasts are {100 * got.mean_absolute_error:.2f} points off on average; {rivals}.",
    ]
    beyond = [one for one in held if one.compute_factor > 1]
    if beyond:
        far = summarise(beyond)
        most = max(one.compute_factor for one in beyond)
        told.append(
            f"Only {far.pairs} of them lie beyond the runs fitted (up to {most:.3g} times the "
            f"compute): {far.inside} inside, {100 * far.mean_absolute_error:.2f} points off."
        )
    missed = [f"{_name(one)} of {one.run}" for one in held if not one.inside]
    if missed:
        told.append(f"Outside their interval: {', '.join(missed)}.")
    return told


def _rivals(found: Backtest) -> FindingsTable:
    """Mean absolute errors by form and, under the form that counts, by run held out."""
    groups = [(f"all, {form}", found.of(form)) for form in FORMS]
    held = found.of(FORMS[0])
    for run in dict.fromkeys(one.run for one in held):
        groups.append((run, tuple(one for one in held if one.run == run)))
    rows: list[tuple[Value, ...]] = []
    for name, members in groups:
        if members:
            got = summarise(members)
            errors = [round(100 * getattr(got, key), 2) for key in RIVALS]
            rows.append((name, got.inside, got.pairs, *errors))
    return FindingsTable(
        id="backtest-rivals",
        title="Mean absolute error in points, beside simpler forecasts",
        columns=("held out", "inside", "of", *RIVALS.values()),
        rows=tuple(rows),
        note="Every forecast is made from the same runs; saturated ones are left out.",
    )


def _pairs(held: Sequence[Held]) -> FindingsTable:
    return FindingsTable(
        id="backtest-pairs",
        title="Every forecast",
        columns=("task", "run", "predicted", "low", "high", "measured", "inside", "compute"),
        rows=tuple(
            (
                _name(one),
                one.run,
                *(round(x, 4) for x in (one.predicted, one.low, one.high, one.actual)),
                one.inside,
                round(one.compute_factor, 2),
            )
            for one in held
        ),
        note="compute: 6 N D of the run over the largest that was fitted.",
    )


def _figure(held: Sequence[Held], level: float) -> Figure:
    rows: list[dict[str, Value]] = [
        {
            "measured": one.actual,
            "predicted": one.predicted,
            "low": one.low,
            "high": one.high,
            "run": one.run,
            "task": _name(one),
            "missed": not one.inside,
            "layer": "forecast",
        }
        for one in held
    ]
    ends = [one.actual for one in held]
    rows += [
        {"measured": x, "predicted": x, "low": None, "high": None, "run": _EQUAL,
         "task": None, "missed": False, "layer": "fit"}
        for x in (min(ends), max(ends))
    ]  # fmt: skip
    return Figure(
        id="backtest-predicted",
        title="Predicted against measured",
        note=f"Bars are {level:.0%} intervals for one run's measured score; on the line a "
        "forecast is exact, and hollow points lie outside their interval.",
        x=FigureAxis(column="measured", title="measured score"),
        y=FigureAxis(column="predicted", title="score predicted from the other runs"),
        by="run",
        low="low",
        high="high",
        hollow="missed",
        rows=tuple(rows),
    )


def _name(one: Held) -> str:
    return one.ability.task if one.ability else "loss"
