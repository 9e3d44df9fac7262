"""The command line: each command parses, calls the library and prints.

Exit status: 0 done; 1 done but some cells failed, or the disk filled up half-way; 2 the request
itself is wrong, and nothing was written. With ``--json`` standard output holds one JSON value and
nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss import cli_fit, cli_forecast, cli_import, cli_study
from isoloss.cli_import import Json
from isoloss.console import Terminal, TrainingBars, print_object, print_rows, print_table
from isoloss.errors import BadRequest, DiskFull, IsolossError

if TYPE_CHECKING:
    from isoloss.engine.plan import Plan
    from isoloss.pretrain import Progress as TrainingProgress

app = typer.Typer(
    name="isoloss",
    help="What a language model's pre-training loss tells you, and what it hides.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(cli_import.app, name="import")
app.add_typer(cli_fit.app, name="fit")
app.command()(cli_forecast.forecast)
app.command()(cli_study.study)

Quiet = Annotated[bool, typer.Option("--quiet", help="Only errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="A line for every cell.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The store's folder.")]
Loss = Annotated[
    str | None, typer.Option(metavar="SUBJECT:METRIC", help="The loss axis; needed where several.")
]


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
    print_object(summary.record(), as_json, f"store: {folder}; next: isoloss report {folder}")
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
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a controlled family; stopped at any moment, it goes on where it was.

    A run whose steps were raised in the file is made longer.

    Examples: isoloss pretrain family.toml --out families/hmm
    · accelerate launch --multi_gpu --num_processes 8 -m isoloss.cli pretrain family.toml
    """
    from isoloss.pretrain import FamilyConfig, train_family
    from isoloss.pretrain.parallel import is_first

    config = FamilyConfig.load(family)
    folder = out or Path(config.name)
    with TrainingBars(quiet=quiet or not is_first()) as bars:
        record = train_family(
            config, folder, progress=_on_training(bars), processes=processes, device=device
        )
    if not is_first():
        return  # several processes trained together: one speaks
    print_object(
        {"family": config.name, "runs": len(record.runs), "out": str(folder)}, as_json,
        f"next: isoloss init {folder} study.toml",
    )  # fmt: skip


@app.command()
def report(
    store: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    loss: Loss = None,
    no_laws: Annotated[
        bool, typer.Option("--no-laws", help="Draw only: ask no law, fit no curve.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one self-contained page: what the loss explains, what studies found, what failed.

    Example: isoloss report RUN --out report.html
    """
    from isoloss.report import write
    from isoloss.store import Store

    page = out or store / "report.html"
    summary = write(Store(store), page, loss=loss, laws=not no_laws)
    print_object(summary.record(), as_json, None)


@app.command()
def sql(store: RunFolder, statement: Annotated[str, typer.Argument(metavar="SELECT")],
        as_json: Json = False) -> None:  # fmt: skip
    """Query a store: checkpoints, cells, measurements, items, failures, flags.

    Example: isoloss sql RUN "SELECT model, step, value FROM measurements WHERE metric='accuracy'"
    """
    from isoloss.store import Store, query

    rows = query(Store(store), statement).to_dicts()
    print_rows(rows, as_json)


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
    print_rows(found.rows, as_json)
    if found.gaps and not as_json:
        print(f"gaps: {found.gaps}")


@app.command()
def status(store: RunFolder, as_json: Json = False) -> None:
    """Tell how far a run is: cells done and failed, flags, what is unknown.

    Example: isoloss status RUN
    """
    from isoloss.engine.listing import status as status_of
    from isoloss.store import Store

    print_object(status_of(Store(store)), as_json, None)


def _on_training(bars: TrainingBars) -> Callable[[TrainingProgress], None]:
    def show(now: TrainingProgress) -> None:
        facts = f"{now.loss_nats_per_token:.3f} nats {now.tokens_per_second:,.0f} tokens/s"
        if now.distance is not None:
            facts += f" {now.distance.label}"
        bars(now.run, now.step, now.steps, facts)
        if now.step == now.steps:
            bars.note(f"{now.run}: {facts}, waited for data {now.wait_share:.1%} of the time")

    return show


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan.record()))
        return
    print_table(plan.rows())
    print("\n".join(plan.lines()))


if __name__ == "__main__":
    main()
