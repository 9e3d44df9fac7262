"""The commands that measure: run, alone or with others, once or as training goes on; and plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_words import (
    DEVICES,
    DTYPES,
    FOLLOW,
    GPUS,
    WHERE,
    WITHOUT_FILE,
    DryRun,
    Json,
    Quiet,
    Verbose,
    one_of,
    probes,
)
from isoloss.console import Terminal, print_object, print_table, say
from isoloss.errors import BadRequest

if TYPE_CHECKING:
    from isoloss.engine.local import RunSummary
    from isoloss.engine.one_line import OneLine
    from isoloss.engine.plan import Plan
    from isoloss.study import Study

Only = Annotated[
    list[str] | None,
    typer.Option(help="Only these probes; all of the file if left out.", autocompletion=probes),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN", help="The store; the study's name if left out."),
]


def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="What to measure; or --model.")
    ] = None,
    out: Out = None,
    only: Only = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the file."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder, glob or OWNER/NAME of a hub.", rich_help_panel=WITHOUT_FILE),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Hub revision, e.g. step{step}.", rich_help_panel=WITHOUT_FILE),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="all, log:20, last:3, 0..143000:1000, 1,2,4; all if left out.",
            rich_help_panel=WITHOUT_FILE,
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="lm-eval names or files, separated by commas.", rich_help_panel=WITHOUT_FILE
        ),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            help="Examples in every prompt; the task's own number if left out.",
            rich_help_panel=WITHOUT_FILE,
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help="Documents of every task, a share below 1; all if left out.",
            rich_help_panel=WITHOUT_FILE,
        ),
    ] = None,
    include_path: Annotated[
        str | None, typer.Option(help="Folder of lm-eval YAML.", rich_help_panel=WITHOUT_FILE)
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Text to measure the loss on.", rich_help_panel=WITHOUT_FILE),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            help="What ends a document of it: file, line, blank-line, separator:TEXT.",
            rich_help_panel=WITHOUT_FILE,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens of a window; the model's, at most 2048, if left out.",
            rich_help_panel=WITHOUT_FILE,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 if left out.",
            rich_help_panel=WITHOUT_FILE,
            autocompletion=one_of(*DTYPES),
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto if left out; cpu, cuda, cuda:1.",
            rich_help_panel=WITHOUT_FILE,
            autocompletion=one_of(*DEVICES),
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N|auto", help="Begin with this part; others share it.", rich_help_panel=WHERE
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="0-7", help="One process a GPU; or cpu,cpu.", rich_help_panel=WHERE),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="What the cells run on.",
            rich_help_panel=WHERE,
            autocompletion=one_of("local", "ray"),
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|auto", help="Of the Ray cluster.", rich_help_panel=WHERE),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Measure checkpoints as training writes them.", rich_help_panel=FOLLOW
        ),
    ] = False,
    every: Annotated[
        str, typer.Option(help="Between looks: 60s, 5m, 1h.", rich_help_panel=FOLLOW)
    ] = "60s",
    follow_until: Annotated[
        int | None,
        typer.Option(
            metavar="STEP", help="End when every run has come so far.", rich_help_panel=FOLLOW
        ),
    ] = None,
    on_change: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Gets each piece of news as JSON.", rich_help_panel=FOLLOW
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure every checkpoint of a study; stopped at any moment, it goes on where it was.

    Examples:
    - `isoloss run study.toml --out RUN`
    - `isoloss run study.toml --out RUN --only token_loss --set run.dtype=bfloat16`
    - `isoloss run --model runs/7b --steps log:20 --tasks arc_easy --corpus valid.txt`
    - `isoloss run study.toml --out RUN --shard auto --devices 0-7`
    - `isoloss run study.toml --out RUN --engine ray --address auto`
    - `isoloss run study.toml --out RUN --follow --on-change "python notify.py"`
    """
    from isoloss.engine.one_line import OneLine

    options = OneLine(
        models=model or [], revision=revision, steps=steps, tasks=_names(tasks),
        num_fewshot=num_fewshot, limit=limit, include_path=include_path, corpora=corpus or [],
        document=document, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    config = _study(study, options, set_ or [])
    folder, wanted = out or Path(config.name), only or []
    if not follow and (follow_until is not None or on_change is not None or every != "60s"):
        raise BadRequest(
            "--every, --follow-until and --on-change say how to follow.", remedy="add --follow"
        )
    if follow and (shard or devices):
        raise BadRequest(
            "one process follows a run.",
            asked="--follow with --shard or --devices",
            remedy="measure what is there with --shard or --devices first, then --follow",
        )
    _check_engine(engine, address, alone=not (shard or devices or follow))
    if dry_run:
        from isoloss.engine.plan import plan as make_plan

        _print_plan(make_plan(config, out=folder, only=wanted), as_json)
        return
    with Terminal(quiet=quiet, verbose=verbose, doing="reading the study") as terminal:
        if follow:
            summary = _follow(config, folder, wanted, terminal, every, follow_until, on_change)
        else:
            summary = _once(config, folder, wanted, terminal, shard, devices, engine, address)
    done = summary.store
    then = f"status {done} (what failed, and what to do)" if summary.failed else f"report {done}"
    print_object(summary.record(), as_json, f"store: {done}; next: isoloss {then}")
    raise typer.Exit(1 if summary.failed else 0)


def plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to measure.")],
    out: Out = None,
    only: Only = None,
    workers: Annotated[
        int,
        typer.Option(metavar="N", help="Processes, each with a device of its own."),
    ] = 1,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Times of an h100, a100, l40s, ...; of this machine, roughly, if left out.",
            autocompletion=one_of(*GPUS),
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Of a device for an hour, in any currency.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time this machine first, in some 40 s.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what a study would run and what it costs; nothing is fetched, nothing is run.

    Examples:
    - `isoloss plan study.toml --calibrate`
    - `isoloss plan study.toml --gpu h100 --workers 8 --price 2.50`
    """
    from isoloss.engine.plan import plan as make_plan
    from isoloss.study import Study

    config = Study.load(study)
    if gpu is not None and calibrate:
        raise BadRequest(
            "times are those of this machine or those of a GPU by name.",
            asked=f"--gpu {gpu} with --calibrate",
            remedy="leave out one of them",
        )
    figures = None
    if gpu is not None:
        from isoloss.engine.throughput import named_gpu

        figures = named_gpu(gpu, config.run.dtype)
    elif calibrate:
        from isoloss.engine.calibration import calibrate as time_machine

        with Terminal(quiet=quiet, doing="timing this machine"):
            figures = time_machine(config.run)
    folder = out or Path(config.name)
    with Terminal(quiet=quiet, doing="counting cells"):
        made = make_plan(
            config, out=folder, only=only or (), throughput=figures, workers=workers, price=price
        )
    _print_plan(made, as_json)


def _study(file: Path | None, options: OneLine, overrides: list[str]) -> Study:
    from isoloss.engine.one_line import study_text
    from isoloss.study import Study

    if (file is None) == (not options.models):
        raise BadRequest(
            "run takes a study file, or --model with --tasks or --corpus.",
            remedy="isoloss run STUDY.toml --out RUN, or isoloss init STUDY.toml first",
        )
    if file is None:
        return Study.from_text(study_text(options), folder=Path.cwd(), overrides=overrides)
    if given := options.given():
        raise BadRequest(
            "with a study file, what is measured stands in the file.",
            asked=", ".join(f"--{name.replace('_', '-')}" for name in given),
            remedy="edit the file, or override one key: --set run.dtype=bfloat16",
        )
    return Study.load(file, overrides)


def _check_engine(engine: str, address: str | None, *, alone: bool) -> None:
    if engine not in {"local", "ray"}:
        raise BadRequest(
            "there is no such engine.", asked=f"--engine {engine}", remedy="take local or ray"
        )
    if engine == "local" and address is not None:
        raise BadRequest("--address is that of a Ray cluster.", remedy="add --engine ray")
    if engine == "ray" and not alone:
        raise BadRequest(
            "Ray shares the work out by itself.",
            asked="--engine ray with --shard, --devices or --follow",
            remedy="drop these, or drop --engine ray",
        )


def _once(
    study: Study,
    out: Path,
    only: list[str],
    terminal: Terminal,
    shard: str | None,
    devices: str | None,
    engine: str,
    address: str | None,
) -> RunSummary:
    if engine == "ray":
        from isoloss.engine.ray_engine import run_on_ray

        return run_on_ray(study, out=out, address=address, only=only, progress=terminal)
    from isoloss.engine.local import run as run_study
    from isoloss.engine.shards import Shard

    part = Shard.parse(shard) if shard else None
    if devices is None:
        return run_study(study, out=out, only=only, progress=terminal, shard=part)
    from isoloss.engine.workers import parse_devices, run_on_devices

    names = parse_devices(devices)
    return run_on_devices(study, names, out=out, only=only, progress=terminal, shard=part)


def _follow(
    study: Study,
    out: Path,
    only: list[str],
    terminal: Terminal,
    every: str,
    until: int | None,
    on_change: str | None,
) -> RunSummary:
    from isoloss.engine.follow import follow_runs, parse_seconds

    seconds = parse_seconds(every)
    terminal.note(f"following {study.name}: a look every {seconds:g} s; Ctrl-C ends it")
    return follow_runs(
        study, out=out, every=seconds, only=only, until=until, on_change=on_change,
        progress=terminal,
    )  # fmt: skip


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan.record()))
        return
    print_table(plan.rows())
    say("\n".join(plan.lines()))
