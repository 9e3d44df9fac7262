"""The check command: can a store, its checkpoints and its tasks be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_words import Json, Quiet, RunFolder
from isoloss.console import Terminal, plain, print_table

if TYPE_CHECKING:
    from isoloss.studies.checkup.checking import Checkup
    from isoloss.studies.checkup.clean_part import CleanScore


def check(
    store: RunFolder,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A text that may hold the tasks' documents."),
    ] = None,
    bos: Annotated[
        bool, typer.Option("--bos", help="Read each corpus with and without BOS.")
    ] = False,
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY.toml", help="Where its paths start from.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check files, weights, tokenizers, and tasks that stand in a training text.

    Examples:
    - `isoloss check RUN`
    - `isoloss check RUN --against train.jsonl --study study.toml`
    """
    from isoloss.studies.checkup.checking import check as check_store

    with Terminal(quiet=quiet, doing=f"checking {store}"):
        found = check_store(store, study=study, against=against or (), prefix=bos)
    if as_json:
        print(json.dumps(found.record()))
    else:
        _print(found)
    raise typer.Exit(1 if found.is_broken else 0)


def _first_metrics(scores: Sequence[CleanScore]) -> list[CleanScore]:
    """Of each cell the score that the documentation names first; ``--json`` has them all."""
    from isoloss.studies.comparison.documents import SCORES

    first: dict[str, CleanScore] = {}
    for one in sorted(scores, key=lambda score: SCORES.index(score.metric)):
        first.setdefault(f"{one.cell} {one.checkpoint}", one)
    return [one for one in scores if one in first.values()]


def _print(found: Checkup) -> None:
    print(
        f"{found.files} files read, {found.checkpoints_compared} checkpoints compared, "
        f"{len(found.faults)} faults"
    )
    for fault in found.faults:
        print(f"{fault.level}: {plain(fault.where)}: {plain(fault.what)}\n  try: {fault.remedy}")
    if found.cells_forgotten:
        print(f"{found.cells_forgotten} cells are measured again by the next run")
    if found.prefixes:
        print_table(
            [
                {
                    "checkpoint": one.checkpoint, "corpus": one.corpus, "with": one.with_prefix,
                    "without": one.without, "difference": one.difference, "stderr": one.stderr,
                    "from": one.source,
                }
                for one in found.prefixes
            ],
            title="loss with and without a token before each document, nats per token",
        )  # fmt: skip
    if found.scores:
        print_table(
            [
                {
                    "task": one.task, "checkpoint": one.checkpoint, "shots": one.num_fewshot,
                    "metric": one.metric, "all": one.value, "n": one.n, "clean": one.clean,
                    "stderr": one.clean_stderr, "clean n": one.clean_n,
                }
                for one in _first_metrics(found.scores)
            ],
            title="the first score of each task on all documents and on the clean part",
        )  # fmt: skip
    for note in found.notes:
        print(f"note: {plain(note)}")
