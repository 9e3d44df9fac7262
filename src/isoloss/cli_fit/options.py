"""Options that several fit commands share: columns of the table, and how a law is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isoloss.cli_words import one_of

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="CSV, TSV, Parquet or JSON lines; stacked.")
]
Loss = Annotated[str, typer.Option(metavar="COL", help="Nats per token; or an expression.")]
Score = Annotated[str, typer.Option(metavar="COL", help="A share, 0 to 1; or an expression.")]
Tokens = Annotated[str, typer.Option(metavar="COL", help="Tokens seen; or an expression.")]
Run = Annotated[
    str | None,
    typer.Option(metavar="COL", help="Names the training run; several columns between commas."),
]
Where = Annotated[
    str | None, typer.Option(metavar="EXPR", help="Only rows that meet it: 'step >= 1000'.")
]
Items = Annotated[str | None, typer.Option(metavar="COL|INT", help="Documents behind each score.")]
Seed = Annotated[int, typer.Option(help="Of the draws: the same seed gives the same digits.")]
Kind = Annotated[
    str,
    typer.Option(
        "--interval",
        help="auto, bootstrap, delta or none.",
        autocompletion=one_of("auto", "bootstrap", "delta", "none"),
    ),
]
Level = Annotated[float, typer.Option(help="Coverage the intervals aim at.")]
