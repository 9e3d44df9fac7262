"""Options that several commands share, the names of their groups, and what a shell completes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from isoloss.errors import BadRequest

OUTPUT, WITHOUT_FILE, WHERE, FOLLOW = (
    "Output", "What is measured, without a study file", "Where it runs", "Following a training run",
)  # fmt: skip
"""Groups of options in the help."""

START, MEASURE, ANSWERS, EXCHANGE = "Begin", "Measure and train", "Ask and look", "Exchange"
"""Groups of commands in the help."""

STUDY_NAMES = ("implicit-bias", "emergence", "trajectories", "saturation")
SCALES = ("tiny", "small", "paper")
DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
GPUS = ("h100", "h200", "a100", "l40s")
_TASKS = "task_score"
FORMATS = ("lm-eval", "csv", "parquet", "wandb", "model-card")

Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON value on standard output.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Only errors and the result.", rich_help_panel=OUTPUT),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="A line for every cell.", rich_help_panel=OUTPUT)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Tell what would be done, and write nothing.", rich_help_panel=OUTPUT
    ),
]
_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The store's folder.")]


def quantity(text: str) -> float:
    """A number of parameters or tokens as people write it: 7e9, 7B, 410M, 0.3T.

    Raises:
        BadRequest: it is no number.

    >>> quantity("7B"), quantity("3e11")
    (7000000000.0, 300000000000.0)
    """
    word = text.strip().upper()
    try:
        if (factor := _SUFFIXES.get(word[-1:])) is not None:
            return float(word[:-1]) * factor
        return float(word)
    except ValueError:
        raise BadRequest(
            "a number of parameters or tokens was expected.",
            asked=text,
            nearest="7e9, 7B, 410M, 3e11, 0.3T",
            remedy="write it in one of these ways",
        ) from None


def one_of(*values: str) -> Callable[[str], list[str]]:
    """What completes a value that is one of a few, or of several between commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{value}" for value in values if value.startswith(last)]

    return complete


def probes(incomplete: str) -> list[str]:
    """Probes by name, for ``--only``."""
    from isoloss.study_probes import ProbesSpec

    return [name for name in ProbesSpec.model_fields if name.startswith(incomplete)]


def checkpoints(incomplete: str) -> list[str]:
    """Checkpoints and runs of the store that is named on the line, as ``compare`` takes them."""
    names: dict[str, None] = {}
    for run, step in _rows("checkpoints", "run", "step"):
        names[run] = None
        if step is not None:
            names[f"{run}@{step}"] = None
    return [name for name in names if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """Tasks of the store that is named on the line."""
    found = {subject for probe, subject in _rows("cells", "probe", "subject") if probe == _TASKS}
    return sorted(name for name in found if name.startswith(incomplete))


def _rows(table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of a table of the first store named on the line that is typed.

    Shells hand the line over in the environment; what is not finished of it completes to nothing,
    whatever is wrong.
    """
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    try:
        words = shlex.split(line)
        at = next((word for word in words if (Path(word) / "checkpoints.parquet").is_file()), None)
        if at is None:
            return []
        from isoloss.store import Store

        frame = getattr(Store(at), table)().select(columns).collect()
        return list(frame.iter_rows())
    except Exception:
        return []
