"""The import commands: somebody else's numbers into a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_group import Group
from isoloss.cli_words import DryRun, Json, Quiet
from isoloss.console import Terminal, print_object
from isoloss.errors import BadRequest, IsolossError
from isoloss.places import shown, url_of

if TYPE_CHECKING:
    from isoloss.store import Store

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Bring somebody else's numbers into a store."
)

Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The store to write into.")]
Family = Annotated[str | None, typer.Option(help="Name of the family.")]
TokensPerStep = Annotated[
    int | None, typer.Option(help="Training tokens of a step, to know tokens and FLOPs.")
]


@app.command("lm-eval")
def import_lm_eval(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Result files or their folder.")],
    out: Out,
    family: Family = None,
    tokens_per_step: TokensPerStep = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a model.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import result files of lm-evaluation-harness, old and new.

    Examples:
    - `isoloss import lm-eval results --out RUN`
    - `isoloss import lm-eval results --tokens-per-step 2097152 --dry-run --out RUN`
    """
    from isoloss.store.imports import import_lm_eval as read

    names = _pairs(rename, "--rename OLD=NEW")
    with _doing(quiet), _store_for_import(out, dry_run) as store:
        done = read(source, store, family=family, tokens_per_step=tokens_per_step, rename=names)
    print_object(asdict(done), as_json, _next(out, dry_run))


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
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a plain table whose columns you name.

    Example:
    - `isoloss import table scores.csv --family mine --column model=name --column step=step
      --score arc=arc_easy:accuracy --loss val=wikitext:loss_nats_per_token --out RUN`
    """
    from isoloss.store.imports import import_table as read

    with _doing(quiet), _store_for_import(out, dry_run) as store:
        done = read(
            source,
            store,
            family=family,
            columns=_pairs(column, "--column ROLE=COLUMN"),
            scores=_targets(score, "--score COLUMN=TASK:METRIC"),
            losses=_targets(loss, "--loss COLUMN=SUBJECT:METRIC"),
        )
    print_object(asdict(done), as_json, _next(out, dry_run))


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
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a training log: CSV, JSON lines, trainer_state.json, TensorBoard events, Parquet.

    Example:
    - `isoloss import log runs/7b/log.csv --family mine --model 7b --out RUN`
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
    with _doing(quiet), _store_for_import(out, dry_run) as store:
        log = read_training_log(source, **names)
        done = put_training_log(
            store,
            log.frame,
            family=family,
            model=model,
            run=run,
            tokens_per_step=tokens_per_step,
        )
    notes = {"notes": list(log.notes)} if log.notes else {}
    print_object(asdict(done) | notes, as_json, _next(out, dry_run))


def _doing(quiet: bool) -> Terminal:
    return Terminal(quiet=quiet, doing="reading the files")


def _next(out: Path, dry_run: bool) -> str:
    if dry_run:
        return "nothing was written; the same without --dry-run imports it"
    return f"next: isoloss report {shown(out)}"


@contextmanager
def _store_for_import(out: Path, dry_run: bool) -> Iterator[Store]:
    """The store to import into; a new one is taken back where the import is refused.

    Without anything to be written it is a copy that is thrown away: what an import would do
    depends on what is there.
    """
    from isoloss.store import Store

    if dry_run:
        with TemporaryDirectory(prefix="isoloss-") as folder:
            copy = Path(folder) / "store"
            if Store.stands_at(out):
                # what weighs most no import looks at
                heavy = shutil.ignore_patterns("token_losses", "arrays")
                shutil.copytree(Store(out).path, copy, ignore=heavy)
            yield Store.create(copy)
        return
    is_new = url_of(out) is None and not out.exists()
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
