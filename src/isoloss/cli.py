"""The command line: each command parses, calls the library and prints.

Exit status: 0 done; 1 done but some cells failed, or the disk filled up half-way; 2 the request
itself is wrong, and nothing was written. With ``--json`` standard output holds one JSON value and
nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.console import Terminal, TrainingBars, print_table
from isoloss.errors import BadRequest, DiskFull, IsolossError

if TYPE_CHECKING:
    from isoloss.engine.plan import Plan
    from isoloss.pretrain import Progress as TrainingProgress
    from isoloss.store import Store

app = typer.Typer(
    name="isoloss",
    help="What a language model's pre-training loss tells you, and what it hides.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
importing = typer.Typer(no_args_is_help=True, help="Bring somebody else's numbers into a store.")
app.add_typer(importing, name="import")

Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="A line for every cell.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The store's folder.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The store to write into.")]
Loss = Annotated[
    str | None, typer.Option(metavar="SUBJECT:METRIC", help="The loss axis; needed where several.")
]


Family = Annotated[str | None, typer.Option(help="Name of the family.")]
TokensPerStep = Annotated[int | None, typer.Option(help="To know tokens and FLOPs.")]


def main() -> None:
    """Run the command line; the process ends with its exit status."""
    try:
        app()
    except KeyboardInterrupt:
        print("stopped; finished cells are kept, the same command goes on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the pipe has enough: no complaint
        sys.exit(0)
    except IsolossError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, DiskFull) else 2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the family, the store and the page.")] = (
        Path("demo")
    ),
    quiet: Quiet = False,
) -> None:
    """Run the main job on a small family trained on the spot, in minutes.

    Example: isoloss demo --out demo
    """
    from isoloss.demo import run_demo

    with TrainingBars(quiet=quiet) as bars:
        page = run_demo(out, Terminal(quiet=quiet), _on_training(bars))
    print(page)


@app.command()
def init(
    paths: Annotated[
        list[Path], typer.Argument(metavar="[FOLDER] STUDY.toml", help="Checkpoints, new file.")
    ],
) -> None:
    """Write a working, commented study file; a folder of checkpoints becomes its family.

    Example: isoloss init runs/7b study.toml
    """
    from isoloss.engine.template import template

    *folders, file = paths
    if len(folders) > 1 or file.suffix != ".toml":
        raise BadRequest(
            "init takes at most one folder and then the file to write.",
            asked=" ".join(map(str, paths)),
            remedy="isoloss init runs/7b study.toml",
        )
    if file.exists():
        raise BadRequest(
            f"{file} exists already and is not overwritten.",
            remedy=f"choose another name, or remove {file}",
        )
    text = template(folders[0] if folders else None, relative_to=file.parent)
    file.write_text(text, encoding="utf-8")
    print(f"wrote {file}; next: isoloss plan {file}")


@app.command()
def run(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY.toml]")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Without a file: folder, glob or OWNER/NAME.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision, e.g. step{step}.")] = None,
    steps: Annotated[str | None, typer.Option(help="all, log:20, 0..143000:1000, 1,2,4")] = None,
    tasks: Annotated[str | None, typer.Option(help="Names or files, separated by commas.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Examples in every prompt.")] = None,
    limit: Annotated[float | None, typer.Option(help="Documents of every task.")] = None,
    include_path: Annotated[str | None, typer.Option(help="Folder of lm-eval YAML.")] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Text to measure the loss on.")] = None,
    document: Annotated[
        str | None, typer.Option(help="file, line, blank-line or separator:TEXT")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Window of the corpora, tokens.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the file.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these probes.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Tell what would run, and stop.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="The store.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure every checkpoint of a study; stopped at any moment, it goes on where it was.

    Examples: isoloss run study.toml --out RUN
    · isoloss run --model runs/7b --steps log:20 --tasks arc_easy --corpus valid.txt --out RUN
    """
    from isoloss.engine.local import run as run_study
    from isoloss.engine.one_line import OneLine, study_text
    from isoloss.engine.plan import plan as make_plan
    from isoloss.study import Study

    if (study is None) == (not model):
        raise BadRequest(
            "run takes a study file, or --model with --tasks or --corpus.",
            remedy="isoloss run STUDY.toml --out RUN, or isoloss init STUDY.toml first",
        )
    options = OneLine(
        models=model or [], revision=revision, steps=steps, tasks=_names(tasks),
        num_fewshot=num_fewshot, limit=limit, include_path=include_path, corpora=corpus or [],
        document=document, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    if study is None:
        config = Study.from_text(study_text(options), folder=Path.cwd(), overrides=set_ or [])
    elif given := options.given():
        raise BadRequest(
            "with a study file, what is measured stands in the file.",
            asked=", ".join(f"--{name.replace('_', '-')}" for name in given),
            remedy="edit the file, or override one key: --set run.dtype=bfloat16",
        )
    else:
        config = Study.load(study, set_ or [])
    folder = out or Path(config.name)
    if dry_run:
        _print_plan(make_plan(config, out=folder, only=only or ()), as_json)
        return
    terminal = Terminal(quiet=quiet, verbose=verbose)
    summary = run_study(config, out=folder, only=only or (), progress=terminal)
    _print_object(summary.record(), as_json, f"store: {folder}; next: isoloss report {folder}")
    raise typer.Exit(1 if summary.failed else 0)


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml")],
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="The store.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these probes.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what a study would run and what it costs; no weights are read, nothing is written.

    Example: isoloss plan study.toml
    """
    from isoloss.engine.plan import plan as make_plan
    from isoloss.study import Study

    config = Study.load(study)
    _print_plan(make_plan(config, out=out or Path(config.name), only=only or ()), as_json)


@app.command()
def pretrain(
    family: Annotated[Path, typer.Argument(metavar="FAMILY.toml")],
    out: Annotated[Path | None, typer.Option(help="Folder of the family.")] = None,
    processes: Annotated[int, typer.Option(help="Runs trained side by side.")] = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a controlled family on a language whose best loss is known.

    Example: isoloss pretrain family.toml --out families/hmm
    """
    from isoloss.pretrain import FamilyConfig, train_family

    config = FamilyConfig.load(family)
    folder = out or Path(config.name)
    with TrainingBars(quiet=quiet) as bars:
        record = train_family(config, folder, progress=_on_training(bars), processes=processes)
    _print_object(
        {"family": config.name, "runs": len(record.runs), "out": str(folder)}, as_json,
        f'next: a study with [[family]] pretrained = "{folder}"',
    )  # fmt: skip


@importing.command("lm-eval")
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
    _print_object(asdict(done), as_json, f"next: isoloss report {out}")


@importing.command("table")
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
    _print_object(asdict(done), as_json, f"next: isoloss report {out}")


@importing.command("log")
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
    _print_object(asdict(done) | notes, as_json, f"next: isoloss report {out}")


@app.command()
def report(
    store: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    loss: Loss = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained page: how ability follows loss, and what failed.

    Example: isoloss report RUN --out report.html
    """
    from isoloss.report import write
    from isoloss.store import Store

    page = out or store / "report.html"
    summary = write(Store(store), page, loss=loss)
    _print_object(summary.record(), as_json, None)


@app.command()
def sql(store: RunFolder, statement: Annotated[str, typer.Argument(metavar="SELECT")],
        as_json: Json = False) -> None:  # fmt: skip
    """Query a store: checkpoints, cells, measurements, items, failures, flags.

    Example: isoloss sql RUN "SELECT model, step, value FROM measurements WHERE metric='accuracy'"
    """
    from isoloss.store import Store, query

    rows = query(Store(store), statement).to_dicts()
    _print_rows(rows, as_json)


@app.command("ls")
def list_checkpoints(
    what: Annotated[str, typer.Argument(metavar="RUN|REPO|FOLDER")],
    revision: Annotated[str, typer.Option(help="Pattern of the revisions.")] = "step{step}",
    as_json: Json = False,
) -> None:
    """List the checkpoints of a store, a hub repository or a folder, with sizes and gaps.

    Examples: isoloss ls RUN · isoloss ls EleutherAI/pythia-70m · isoloss ls runs/7b
    """
    from isoloss.engine.listing import listing

    found = listing(what, revision=revision)
    _print_rows(found.rows, as_json)
    if found.gaps and not as_json:
        print(f"gaps: {found.gaps}")


@app.command()
def status(store: RunFolder, as_json: Json = False) -> None:
    """Tell how far a run is: cells done and failed, flags, what is unknown.

    Example: isoloss status RUN
    """
    from isoloss.engine.listing import status as status_of
    from isoloss.store import Store

    _print_object(status_of(Store(store)), as_json, None)


def _on_training(bars: TrainingBars) -> Callable[[TrainingProgress], None]:
    def show(now: TrainingProgress) -> None:
        facts = f"{now.loss_nats_per_token:.3f} nats {now.tokens_per_second:,.0f} tokens/s"
        bars(now.run, now.step, now.steps, facts)

    return show


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


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


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan.record()))
        return
    print_table(plan.rows())
    print("\n".join(plan.lines()))


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, default=str))
    else:
        print_table(rows)


def _print_object(record: dict[str, Any], as_json: bool, then: str | None) -> None:
    if as_json:
        print(json.dumps(record, default=str))
        return
    for key, value in record.items():
        print(f"{key.replace('_', ' ')}: {value}")
    if then:
        print(then)


if __name__ == "__main__":
    main()
