"""The fit commands: one of the four laws on a plain table, columns named by options."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from isoloss.cli_fit.options import (
    Files,
    Items,
    Kind,
    Level,
    Loss,
    Run,
    Score,
    Seed,
    Tokens,
    Where,
)
from isoloss.cli_fit.sibling_runs import judge_runs, runs_of
from isoloss.cli_fit.words import (
    emergence_lines,
    loss_law_lines,
    record_of,
    run_lines,
    task_law_lines,
)
from isoloss.cli_group import Group
from isoloss.cli_words import Json, Quiet, one_of
from isoloss.console import Terminal, say
from isoloss.errors import BadRequest, Refused, nearest_name

if TYPE_CHECKING:
    from isoloss.laws import Interval
    from isoloss.store.plain_tables import Limits, Rows

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Fit a law to a plain table whose columns you name."
)

_LONG = 1_000
"""Rows from which the commands save time where it costs next to nothing, and say so."""
_STARTS, _DRAWS, _DRAWS_OF_MANY = 400, 999, 199


@app.command("loss-law")
def fit_loss(
    files: Files,
    params: Annotated[str, typer.Option(metavar="COL", help="Parameters; or an expression.")],
    tokens: Tokens,
    loss: Loss,
    run: Run = None,
    form: Annotated[
        str,
        typer.Option(
            help="chinchilla, overtraining, compute or params.",
            autocompletion=one_of("chinchilla", "overtraining", "compute", "params"),
        ),
    ] = "chinchilla",
    rule: Annotated[str, typer.Option(help="huber, huber_scale, log_squares or squares.")] = (
        "huber"
    ),
    fixed: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A parameter that is given.")
    ] = None,
    schedule_progress: Annotated[
        str | None, typer.Option(metavar="COL", help="Share of the schedule done, 0 to 1.")
    ] = None,
    unfinished: Annotated[
        str, typer.Option(help="Rows before the end of their schedule: 'leave out' or term.")
    ] = "leave out",
    starts: Annotated[
        int | None, typer.Option(help="Of the published grid of 4,500; fewer on long tables.")
    ] = None,
    interval: Kind = "auto",
    level: Level = 0.95,
    where: Where = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit L = E + A / N^alpha + B / D^beta: a loss from parameters and tokens.

    Example:
    - `isoloss fit loss-law runs.csv --params N --tokens "FLOP / (6 * N)" --loss loss --json`
    """
    from isoloss.laws import Rule, fit_loss_law

    _one_of(unfinished, ("leave out", "term"), "--unfinished")
    if starts is not None and starts < 1:
        raise BadRequest("a fit needs a start.", asked=f"--starts {starts}", remedy="--starts 400")
    wanted = {"params": params, "tokens": tokens, "loss": loss}
    if schedule_progress is not None:
        wanted["schedule_progress"] = schedule_progress
    rows = _rows(files, wanted, run=run, where=where)
    n = len(rows.values["loss"])
    notes = list(rows.notes)
    if starts is None and n > _LONG:
        starts = _STARTS
        notes.append(f"{n} rows: {starts} starts, drawn from the published grid (--starts 4500)")
    with _fitting(quiet):
        law = fit_loss_law(
            **rows.values,
            form=cast("Any", form),
            fixed=_numbers_by_name(fixed or []),
            rule=Rule(kind=cast("Any", rule), starts=starts),
            run=rows.run,
            unfinished=cast("Any", unfinished),
            interval=_interval(interval, level),
            seed=seed,
        )
    record = record_of(law, "loss-law", notes)
    _print(record, loss_law_lines, as_json)


@app.command("task-law")
def fit_task(
    files: Files,
    loss: Loss,
    score: Score,
    form: Annotated[
        str,
        typer.Option(
            help="exponential or sigmoid.", autocompletion=one_of("exponential", "sigmoid")
        ),
    ] = "exponential",
    score_is: Annotated[str, typer.Option(help="accuracy or error.")] = "accuracy",
    run: Run = None,
    n_items: Items = None,
    through: Annotated[str, typer.Option(help="What the loss is, carried along.")] = "loss",
    interval: Kind = "auto",
    level: Level = 0.95,
    where: Where = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a score as a function of a loss: exponential or sigmoid.

    Example:
    - `isoloss fit task-law runs.csv --loss loss --score "acc / 100" --form sigmoid --run model`
    """
    from isoloss.laws import fit_task_law

    wanted = {"loss": loss, "score": score} | ({"n_items": n_items} if n_items else {})
    rows = _rows(files, wanted, run=run, where=where)
    _refuse_a_circle(rows)
    with _fitting(quiet):
        law = fit_task_law(
            rows.values["loss"],
            rows.values["score"],
            cast("Any", form),
            score_is=cast("Any", score_is),
            through=through,
            run=rows.run,
            n_items=rows.values.get("n_items"),
            interval=_interval(interval, level),
            seed=seed,
        )
    _print(record_of(law, "task-law", rows.notes), task_law_lines, as_json)


@app.command("emergence")
def fit_emergence(
    files: Files,
    loss: Loss,
    score: Score,
    run: Annotated[str, typer.Option(metavar="COL", help="Names the training run.")],
    chance: Annotated[
        str | None, typer.Option(metavar="COL|NUMBER", help="Score of a guess: 1/C of C options.")
    ] = None,
    n_items: Items = None,
    constant_answer: Annotated[
        list[float] | None, typer.Option(help="Score of always giving one answer; once for each.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="As the Brier score is.")
    ] = False,
    exponent: Annotated[int, typer.Option(help="Of the hinge, 1 or 2.")] = 1,
    margin: Annotated[
        float, typer.Option(help="So far above constant answers is still absent.")
    ] = 0.02,
    where: Where = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask whether an ability appears at a threshold of the loss, and where.

    Example:
    - `isoloss fit emergence runs.csv --loss loss --score acc --chance 0.25 --run model
      --n-items 1000`
    """
    from isoloss.laws import emergence

    wanted = {"loss": loss, "score": score}
    wanted |= {"chance": chance} if chance else {}
    wanted |= {"n_items": n_items} if n_items else {}
    rows = _rows(files, wanted, run=run, where=where, top_score=2.0 if lower_is_better else 1.0)
    _refuse_a_circle(rows)
    with _fitting(quiet):
        found = emergence(
            rows.values["loss"],
            rows.values["score"],
            rows.values.get("chance"),
            [] if rows.run is None else rows.run,
            n_items=rows.values.get("n_items"),
            constant_answers=constant_answer or None,
            lower_is_better=lower_is_better,
            exponent=exponent,
            margin=margin,
            seed=seed,
        )
    # the rows without a number never reached the law
    record = record_of(found, "emergence", rows.notes) | {"unknown": rows.unknown}
    _print(record, emergence_lines, as_json)


@app.command("saturation")
def fit_saturation(
    files: Files,
    tokens: Tokens,
    loss: Loss,
    run: Run = None,
    start: Annotated[float, typer.Option(help="Share of the tokens left out at first.")] = 0.1,
    margin: Annotated[float, typer.Option(help="Nats within which a rise counts as none.")] = 0.01,
    alpha: Annotated[float, typer.Option(help="Level of the test.")] = 0.05,
    draws: Annotated[
        int | None, typer.Option(help="Simulated runs: 999; 199 where long tables hold many runs.")
    ] = None,
    siblings: Annotated[
        bool,
        typer.Option("--siblings", help="The runs' checkpoints err alike: pool their correlation."),
    ] = False,
    sibling: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Difference the others with it: equal data order."),
    ] = None,
    where: Where = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask whether a run stopped improving or got worse; with --run, each run of the table.

    Example:
    - `isoloss fit saturation log.csv --tokens "step * 2097152" --loss train_loss`
    """
    for name, share in (("--start", start), ("--alpha", alpha)):
        if not 0 <= share < 1 or (name == "--alpha" and share == 0):
            raise BadRequest(
                "a share lies between 0 and 1.",
                asked=f"{name} {share:g}",
                remedy=f"leave {name} out, or give a smaller share",
            )
    rows = _rows(files, {"tokens": tokens, "loss": loss}, run=run, where=where)
    notes, by_run = list(rows.notes), runs_of(rows)
    if draws is None:
        many = len(by_run) > 1 and len(rows.values["loss"]) > _LONG
        draws = _DRAWS_OF_MANY if many else _DRAWS
        if many:
            notes.append(f"{len(by_run)} runs: {draws} simulations of each (--draws {_DRAWS})")
    if draws < 1 / alpha - 1:
        raise BadRequest(
            "so few simulations cannot reach the level of the test.",
            asked=f"--draws {draws}, --alpha {alpha:g}",
            remedy=f"--draws {_DRAWS}",
        )
    options: dict[str, Any] = {"start": start, "margin": margin, "alpha": alpha, "draws": draws,
                               "seed": seed}  # fmt: skip
    with _fitting(quiet):
        law = judge_runs(by_run, siblings=siblings, sibling=sibling, **options)
    if rows.run is None:
        _print(record_of(law[""], "saturation", notes), run_lines, as_json)
        return
    each = []
    for label, result in law.items():
        record = record_of(result, "saturation", ())
        each.append({"run": label, **{name: x for name, x in record.items() if name != "law"}})
    _print({"law": "saturation", "runs": each, "notes": notes}, run_lines, as_json)


def _rows(
    files: list[Path],
    wanted: Mapping[str, str],
    *,
    run: str | None,
    where: str | None,
    top_score: float = 1.0,
) -> Rows:
    """The columns asked for, checked as the laws need them."""
    from isoloss.store.plain_tables import read_tables, rows_of

    return rows_of(read_tables(files), wanted, _limits(top_score), run=run, where=where)


def _limits(top_score: float) -> dict[str, Limits]:
    """What each column may hold, by role."""
    from isoloss.store.plain_tables import Limits

    def positive(remedy: str) -> Limits:
        return Limits(0.0, float("inf"), True, remedy)

    share = "a score is a share of documents: divide percent by 100, as in --score 'acc / 100'"
    counts = "counts are positive: mend that cell, or leave the row out with --where"
    return {
        "params": positive(counts),
        "tokens": Limits(0.0, float("inf"), False, counts),
        "loss": positive("give the loss in nats per token: not its logarithm, not its change"),
        "score": Limits(0.0, top_score, False, share),
        "schedule_progress": Limits(0.0, 1.0, False, "divide the step by those of the schedule"),
        "n_items": Limits(1.0, float("inf"), False, "give the documents behind each score"),
    }


def _refuse_a_circle(rows: Rows) -> None:
    """Refuse a score made of the loss itself.

    Raises:
        Refused: they share all their columns, or hold the same numbers.
    """
    loss, score = rows.expressions["loss"], rows.expressions["score"]
    same = bool((rows.values["loss"] == rows.values["score"]).all())
    if same or loss.shares_all_columns(score):
        raise Refused(
            "the score is the loss itself, or made of it: a law between them says nothing.",
            asked=f"--loss {loss.text!r} --score {score.text!r}",
            remedy="give a score of a task and a loss on other documents",
        )


def _interval(kind: str, level: float) -> Interval | None:
    from isoloss.laws import Interval

    _one_of(kind, ("auto", "bootstrap", "delta", "none"), "--interval")
    if not 0 < level < 1:
        raise BadRequest(
            "a level lies between 0 and 1.", asked=f"--level {level:g}", remedy="--level 0.95"
        )
    return None if kind == "none" else Interval(kind=cast("Any", kind), level=level)


def _one_of(value: str, known: Collection[str], option: str) -> None:
    if value not in known:
        raise BadRequest(
            f"{option} has no such choice.",
            asked=repr(value),
            nearest=nearest_name(value, known),
            remedy=f"choose one of {', '.join(known)}",
        )


def _numbers_by_name(texts: list[str]) -> dict[str, float]:
    """``["alpha=.34", "E=1.7"]``, or both between a comma."""
    numbers = {}
    for text in [part.strip() for whole in texts for part in whole.split(",")]:
        name, _, value = text.partition("=")
        try:
            numbers[name.strip()] = float(value)
        except ValueError:
            raise BadRequest(
                "a fixed parameter is a name and a number.",
                asked=f"--fixed {text!r}",
                remedy="--fixed alpha=0.34 --fixed E=1.69",
            ) from None
    return numbers


@contextmanager
def _fitting(quiet: bool) -> Iterator[None]:
    """Tell that a law is fitted, without the warnings of far starts and wild draws that overflow.

    These are left out, and counted.
    """
    import numpy as np

    with Terminal(quiet=quiet, doing="fitting the law"), np.errstate(all="ignore"):
        yield


def _print(
    record: Mapping[str, Any], lines: Callable[[Mapping[str, Any]], list[str]], as_json: bool
) -> None:
    if as_json:
        print(json.dumps(record))
    else:
        say("\n".join(lines(record)))
