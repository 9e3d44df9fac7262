"""The import commands: somebody else's numbers into a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.console import print_object
from isoloss.errors import BadRequest, IsolossError

if TYPE_CHECKING:
    from isoloss.store import Store

app = typer.Typer(no_args_is_help=True, help="Bring somebody else's numbers into a store.")

Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The store to write into.")]
Family = Annotated[str | None, typer.Option(help="Name of the family.")]
TokensPerStep = Annotated[int | None, typer.Option(help="To know tokens and FLOPs.")]


@app.command("lm-eval")
def import_lm_eval(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Result files or their folder.")],
    out: Out,
    family: Family = None,
    tokens_per_step: TokensPerStep = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import result files of lm-evaluation-harness, old and new.

    Example: isoloss import lm-eval results --out RUN
    """
    from isoloss.store.imports import import_lm_eval as read

    names = _pairs(rename, "--rename OLD=NEW")
    with _store_for_import(out) as store:
        done = read(source, store, family=family, tokens_per_step=tokens_per_step, rename=names)
    print_object(asdict(done), as_json, f"next: isoloss report {out}")


@app.command("table")
def import_table(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV or Parquet.")],
    out: Out,
    family: Annotated[str, typer.Option(help="Name of the family.")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help="model, run, seed, step, tokens, params, task..."),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=TASK:METRIC", help="A column of scores.")
    ] = None,
    loss: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=SUBJECT:METRIC", help="A loss axis.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import a plain table whose columns you name.

    Example: isoloss import table scores.csv --family mine --column model=name --column step=step
    --score arc=arc_easy:accuracy --loss val=wikitext:loss_nats_per_token --out RUN
    """
    from isoloss.store.imports import import_table as read

    with _store_for_import(out) as store:
        done = read(
            source,
            store,
            family=family,
            columns=_pairs(column, "--column ROLE=COLUMN"),
            scores=_targets(score, "--score COLUMN=TASK:METRIC"),
            losses=_targets(loss, "--loss COLUMN=SUBJECT:METRIC"),
        )
    print_object(asdict(done), as_json, f"next: isoloss report {out}")


@app.command("log")
def import_log(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Log file or its folder.")],
    out: Out,
    family: Annotated[str, typer.Option(help="Name of the family.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    run: Annotated[str | None, typer.Option(help="Name of the run; the model's if left out.")] = (
        None
    ),
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=COLUMN", help="step, tokens_seen, loss, lr, where unusual."),
    ] = None,
    tokens_per_step: TokensPerStep = None,
    as_json: Json = False,
) -> None:
    """Import a training log: CSV, JSON lines, trainer_state.json, TensorBoard events, Parquet.

    Example: isoloss import log runs/7b/log.csv --family mine --model 7b --out RUN
    """
    from isoloss.store.imports import put_training_log, read_training_log

    names = _pairs(column, "--column ROLE=COLUMN")
    unknown = set(names) - {"step", "tokens_seen", "loss", "lr"}
    if unknown:
        raise BadRequest(
            "a training log has no such column role.",
            asked=", ".join(sorted(unknown)),
            nearest="step, tokens_seen, loss, lr",
            remedy="--column loss=COLUMN",
        )
    log = read_training_log(source, **names)
    with _store_for_import(out) as store:
        done = put_training_log(
            store,
            log.frame,
            family=family,
            model=model,
            run=run,
            tokens_per_step=tokens_per_step,
        )
    notes = {"notes": list(log.notes)} if log.notes else {}
    print_object(asdict(done) | notes, as_json, f"next: isoloss report {out}")


@contextmanager
def _store_for_import(out: Path) -> Iterator[Store]:
    """The store to import into; a new one is taken back where the import is refused."""
    from isoloss.store import Store

    is_new = not out.exists()
    try:
        yield Store.create(out)
    except IsolossError:
        if is_new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _pairs(texts: list[str] | None, usage: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or []]
    for (name, sign, value), text in zip(pairs, texts or [], strict=True):
        if not (name and sign and value):
            raise BadRequest("an option is not understood.", asked=text, remedy=f"write {usage}")
    return {name: value for name, _, value in pairs}


def _targets(texts: list[str] | None, usage: str) -> dict[str, tuple[str, str]]:
    targets = {}
    for column, target in _pairs(texts, usage).items():
        subject, _, metric = target.rpartition(":")
        if not subject or not metric:
            raise BadRequest(
                "an option is not understood.", asked=f"{column}={target}", remedy=f"write {usage}"
            )
        targets[column] = (subject, metric)
    return targets
