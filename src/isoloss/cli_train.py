"""The commands that train: the demo and a family from its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_words import DryRun, Json, Quiet, Verbose
from isoloss.console import Terminal, print_object, print_rows, say

if TYPE_CHECKING:
    from isoloss.pretrain import FamilyConfig, Progress


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the family, the store and the page.")] = (
        Path("demo")
    ),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the main job on a small family trained on the spot, in minutes.

    Example:
    - `isoloss demo --out demo`
    """
    from isoloss.demo import run_demo

    with Terminal(quiet=quiet, verbose=verbose) as terminal:
        page = run_demo(out, terminal, on_training(terminal))
    say(str(page))


def pretrain(
    family: Annotated[
        Path, typer.Argument(metavar="FAMILY.toml", help="What is trained: language, runs, steps.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the family; its name if left out.")
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Runs trained side by side, one thread each.", min=1)
    ] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a controlled family; stopped at any moment, it goes on where it was.

    A run whose steps were raised in the file is made longer. On several GPUs, start it with
    `accelerate launch --multi_gpu --num_processes 8 -m isoloss.cli pretrain family.toml`.

    Examples:
    - `isoloss pretrain family.toml --dry-run`
    - `isoloss pretrain family.toml --out families/hmm`
    """
    from isoloss.pretrain import FamilyConfig, train_family
    from isoloss.pretrain.parallel import is_first

    config = FamilyConfig.load(family)
    folder = out or Path(config.name)
    if dry_run:
        _print_runs(config, folder, as_json)
        return
    with Terminal(quiet=quiet or not is_first()) as terminal:
        record = train_family(
            config, folder, progress=on_training(terminal, last_words=True),
            processes=processes, device=device,
        )  # fmt: skip
    if not is_first():
        return  # several processes trained together: one speaks
    print_object(
        {"family": config.name, "runs": len(record.runs), "out": str(folder)}, as_json,
        f"next: isoloss init {folder} study.toml",
    )  # fmt: skip


def on_training(terminal: Terminal, *, last_words: bool = False) -> Callable[[Progress], None]:
    """What tells a terminal about training.

    Args:
        terminal: shows it.
        last_words: whether a run that has ended gets a line.
    """

    def show(now: Progress) -> None:
        facts = f"{now.loss_nats_per_token:.3f} nats {now.tokens_per_second:,.0f} tokens/s"
        if now.distance is not None:
            facts += f" {now.distance.label}"
        terminal.training(now.run, now.step, now.steps, facts)
        if last_words and now.step == now.steps:
            share = f"waited for data {now.wait_share:.1%} of the time"
            terminal.note(f"{now.run}: {facts}, {share}")

    return show


def _print_runs(config: FamilyConfig, folder: Path, as_json: bool) -> None:
    """What training the family would do."""
    from isoloss.pretrain.checkpoint import RESUME_FILE, saved_step
    from isoloss.studies.recipe_plan import family_runs, told_sums

    runs = family_runs(config, folder=config.folder, name=config.name)
    rows = [
        {"run": run.run, "params": run.params_total, "tokens": run.tokens, "FLOPs": run.flops,
         "checkpoints": run.checkpoints, "steps done": saved_step(folder / run.run / RESUME_FILE)}
        for run in runs
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"family": config.name, "out": str(folder), "runs": rows}))
        return
    print_rows(rows, as_json=False)
    say("\n".join(told_sums(runs, "one CPU core")))
    say(f"nothing was written; next: isoloss pretrain FAMILY.toml --out {folder}")
