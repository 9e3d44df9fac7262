"""The study command: a whole study from its recipe, trained, measured and judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_train import on_training
from isoloss.cli_words import SCALES, STUDY_NAMES, DryRun, Json, Quiet, Verbose, one_of
from isoloss.console import Terminal, print_object, print_rows, say
from isoloss.errors import BadRequest, nearest_name

if TYPE_CHECKING:
    from isoloss.studies.recipe import RecipeSummary

SMOKE = "_smoke"
"""A scale for tests alone: seconds, and too small to decide anything."""


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help=", ".join(STUDY_NAMES), autocompletion=one_of(*STUDY_NAMES)
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="tiny: minutes on a laptop; small: hours; paper: files and advice alone.",
            autocompletion=one_of(*SCALES),
        ),
    ] = "tiny",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="RUN", help="Folder of the study, its store; NAME if left out."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Real text by name, such as en=FILE."),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Runs trained side by side, one thread each.", min=1)
    ] = 2,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a study from its recipe: train its families, measure, judge its claims, write the page.

    Stopped at any moment, it goes on where it was.

    Examples:
    - `isoloss study emergence --dry-run`
    - `isoloss study emergence --scale tiny --out emergence`
    - `isoloss study emergence --text en=en.txt --text zh=zh.txt --out emergence`
    """
    from isoloss.studies.recipe import Order, find_recipe, run_recipe
    from isoloss.studies.recipe_plan import plan_recipe

    recipe = find_recipe(name)
    if scale not in (*SCALES, SMOKE):
        raise BadRequest(
            "there is no such scale",
            asked=f"--scale {scale}",
            nearest=nearest_name(scale, SCALES) or ", ".join(SCALES),
            remedy="--scale tiny",
        )
    texts = _texts(text)
    folder = out or Path(name)
    words = [f"--text {key}={file}" for key, file in texts.items()]
    command = " ".join(["isoloss study", name, "--scale", scale, *words, "--out", str(folder)])
    order = Order(scale=scale, texts=texts, command=command)
    if dry_run:
        plan = plan_recipe(recipe, order)
        if as_json:
            print(json.dumps(plan.record()))
            return
        print_rows(plan.rows(), as_json=False)
        say("\n".join(plan.lines()))
        return
    # not above: it takes a second to import, and a wrong word should not
    from isoloss.report import write

    with Terminal(quiet=quiet, verbose=verbose) as terminal:
        summary = run_recipe(
            recipe, order, folder, terminal, write_page=write,
            on_training=on_training(terminal), processes=processes,
        )  # fmt: skip
    _print(summary, as_json)
    raise typer.Exit(1 if summary.failed else 0)


def _texts(given: list[str] | None) -> dict[str, Path]:
    texts = {}
    for word in given or []:
        key, sign, file = word.partition("=")
        if not (key and sign and file):
            raise BadRequest(
                "an option is not understood.", asked=f"--text {word}",
                remedy="write --text NAME=FILE, such as --text en=en.txt",
            )  # fmt: skip
        if not Path(file).exists():
            raise BadRequest(
                "there is no such text.", asked=f"--text {word}",
                remedy="name a UTF-8 file, documents separated by an empty line",
            )  # fmt: skip
        texts[key] = Path(file)
    return texts


def _print(summary: RecipeSummary, as_json: bool) -> None:
    record = asdict(summary)
    if as_json:
        print(json.dumps(record))
        return
    verdicts = record.pop("verdicts")
    then = record.pop("next")
    print_object({k: v for k, v in record.items() if v is not None}, False, None)
    if verdicts:
        print_rows([{"claim": claim, "verdict": v} for claim, v in verdicts.items()], False)
    say(then)
