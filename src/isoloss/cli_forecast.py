"""The forecast command: what a bigger run will lose and score, from a store of smaller ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.cli_words import Json, Quiet, RunFolder, quantity, tasks
from isoloss.console import Terminal, print_table, say
from isoloss.errors import BadRequest

if TYPE_CHECKING:
    from isoloss.store import Store
    from isoloss.studies.forecasts.forecasting import Family


def forecast(
    store: RunFolder,
    params: Annotated[
        float | None,
        typer.Option(parser=quantity, metavar="N", help="Total parameters, such as 7e9 or 7B."),
    ] = None,
    tokens: Annotated[
        float | None,
        typer.Option(parser=quantity, metavar="D", help="Training tokens, such as 3e11."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The score; the loss alone if left out.", autocompletion=tasks),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Such as accuracy_per_char.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Examples in every prompt, where several.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="SUBJECT:METRIC", help="The loss axis, where several.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Needed where there are several.")] = None,
    variant: Annotated[str | None, typer.Option(help="Recipe, where there are several.")] = None,
    reach: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Which N at D, or D at N, gives it.")
    ] = None,
    backtest: Annotated[
        bool, typer.Option("--backtest", help="Hold out the largest runs of the store instead.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the back-test in the store, for the page.")
    ] = False,
    far: Annotated[bool, typer.Option("--far", help="Beyond 30 times the compute too.")] = False,
    keep_saturated: Annotated[
        bool, typer.Option("--keep-saturated", help="Fit runs that got worse too.")
    ] = False,
    level: Annotated[float, typer.Option(help="Coverage of all intervals.")] = 0.9,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forecast the loss and the score of a run that was never trained, with its interval.

    Examples:
    - `isoloss forecast RUN --params 7e9 --tokens 3e11 --task piqa`
    - `isoloss forecast RUN --task piqa --reach 0.8 --tokens 3e11`
    - `isoloss forecast RUN --backtest`
    """
    from isoloss.store import Store
    from isoloss.studies.forecasts.forecasting import Family, forecast_run, reach_score

    _check(params, reach, task, backtest=backtest, keep=keep)
    which = Family(task, metric, num_fewshot, loss, family, variant)
    results, terminal = Store(store), Terminal(quiet=quiet, doing=f"forecasting from {store}")
    if backtest:
        _backtest(results, which, keep_saturated, level, terminal, keep=keep, as_json=as_json)
    elif reach is not None:
        with terminal:
            needed = reach_score(
                results, which, reach, params=params, tokens=tokens, far=far, level=level,
                keep_saturated=keep_saturated,
            )  # fmt: skip
        _print(needed.record(), _reach_lines, as_json)
    else:
        assert params is not None
        with terminal:
            got = forecast_run(
                results, which, params=params, tokens=tokens, far=far, level=level,
                keep_saturated=keep_saturated,
            )  # fmt: skip
        _print(got.record(), _forecast_lines, as_json)


def _check(
    params: float | None, reach: float | None, task: str | None, *, backtest: bool, keep: bool
) -> None:
    if keep and not backtest:
        raise BadRequest("--keep keeps a back-test.", remedy="add --backtest")
    if backtest and (params is not None or reach is not None):
        raise BadRequest(
            "a back-test asks for runs that were trained: it takes no size and no score.",
            asked="--backtest with --params or --reach",
            remedy="leave out one of them",
        )
    if not backtest and params is None and reach is None:
        raise BadRequest(
            "forecast needs the size of a run, or a score to reach.",
            asked=f"--task {task}" if task else "neither --params nor --reach",
            remedy="--params 7e9 --tokens 3e11, --task TASK --reach 0.8, or --backtest",
        )


def _backtest(
    store: Store, which: Family, keep_saturated: bool, level: float, terminal: Terminal,
    *, keep: bool, as_json: bool,
) -> None:  # fmt: skip
    from isoloss.studies.findings import save
    from isoloss.studies.forecasts.backtest import backtest
    from isoloss.studies.forecasts.backtest_findings import backtest_findings, backtest_record

    options = {k: v for k, v in which._asdict().items() if k != "task"}
    tasks = None if which.task is None else [which.task]
    with terminal:
        found = backtest(store, tasks=tasks, keep_saturated=keep_saturated, level=level, **options)
    given = {**options, "task": which.task}
    words = "".join(
        f" --{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None
    )
    findings = backtest_findings(found, f"isoloss forecast RUN --backtest{words}")
    if keep:
        with store.writing():
            save(findings, store)
    if as_json:
        print(json.dumps(_plain(backtest_record(found))))
        return
    say("\n".join(findings.answers))
    for table in findings.tables:
        print()
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        print_table(rows, title=table.title)
    for line in (*found.notes, *found.skipped):
        say(f"note: {line}")


def _forecast_lines(record: Mapping[str, Any]) -> Sequence[str]:
    level = f"{record['level']:.0%} for one run"
    lines = []
    if record["task"] is not None:
        lines.append(
            f"{_ability(record)}: {record['score']:.4f} "
            f"[{record['low']:.4f}, {record['high']:.4f}] ({level})"
        )
    lines.append(
        f"loss: {record['loss']:.4f} [{record['loss_low']:.4f}, {record['loss_high']:.4f}] "
        f"({level}), {record['loss_label']}"
    )
    beyond = record["loss_beyond"]
    side = "below the lowest loss fitted" if beyond > 0 else "above the lowest loss fitted"
    lines.append(
        f"asked: {_number(record['params'])} parameters, {_number(record['tokens'])} tokens: "
        f"{record['compute_factor']:.3g} times the largest compute fitted, "
        f"{abs(beyond):.3g} {side}"
    )
    lines += _shared_lines(record)
    if held := record["backtest"]:
        lines.append(f"back-test: {held['inside']} of {held['of']} inside their interval")
        lines += [
            f"  {one['run']}: {one['predicted']:.4f} [{one['low']:.4f}, {one['high']:.4f}], "
            f"measured {one['actual']:.4f}{'' if one['inside'] else ' (outside)'}"
            for one in held["held_out"]
        ]
        lines += [f"  not held out: {why}" for why in held["skipped"]]
    return lines


def _reach_lines(record: Mapping[str, Any]) -> Sequence[str]:
    lines = [f"{_ability(record)} of {record['score']:g}"]
    for name in ("params", "tokens"):
        lines.append(f"{name}: {_number(record[name])}")
    ends = {"earliest": "reaches it from", "safe": "lies above it from"}
    told = [f"{words} {_number(record[name])}" for name, words in ends.items() if record[name]]
    lines.append(
        f"the {record['level']:.0%} interval of a forecast "
        + (" on, and ".join(told) + " on" if told else "reaches it nowhere")
    )
    if not record["safe"]:
        lines.append("no run within 30 times the compute fitted is sure to reach it")
    if record["compute_factor"] is not None:
        lines.append(f"{record['compute_factor']:.3g} times the largest compute fitted")
    return lines + list(_shared_lines(record))


def _shared_lines(record: Mapping[str, Any]) -> Sequence[str]:
    lines = [f"fitted on: {', '.join(record['fitted'])}"]
    lines += [f"left out: {one['run']}, {one['why']}" for one in record["left_out"]]
    return lines + [f"note: {note}" for note in record["notes"]]


def _ability(record: Mapping[str, Any]) -> str:
    shots = "" if record["num_fewshot"] is None else f", {record['num_fewshot']}-shot"
    return f"{record['task']} ({record['metric']}{shots})"


def _print(record: Mapping[str, Any], lines: Any, as_json: bool) -> None:
    record = _plain(record)
    if as_json:
        print(json.dumps(record))
    else:
        say("\n".join(lines(record)))


def _number(value: float | None) -> str:
    return "none found" if value is None else f"{value:.4g}"


def _plain(value: Any) -> Any:
    """For JSON: NaN and infinity are unknown."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
