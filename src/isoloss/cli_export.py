"""The export command: a store's numbers in other programs' formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.cli_words import FORMATS, DryRun, Json, Quiet, RunFolder, one_of
from isoloss.console import Terminal, print_object
from isoloss.errors import BadRequest, nearest_name

if TYPE_CHECKING:
    from isoloss.store import Store
    from isoloss.store.exports import Written


def export(
    store: RunFolder,
    to: Annotated[
        str,
        typer.Option(metavar="FORMAT", help=", ".join(FORMATS), autocompletion=one_of(*FORMATS)),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="RUN/exports/FORMAT if left out.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a store's numbers as lm-eval results, a table, W&B runs or model cards.

    Examples:
    - `isoloss export RUN --to lm-eval --out results`
    - `isoloss export RUN --to csv --dry-run`
    """
    from isoloss.store import Store

    write = _writer(to)
    results = Store(store)
    folder = out or results.path / "exports" / to
    with Terminal(quiet=quiet, doing=f"writing {folder}"):
        if dry_run:
            with TemporaryDirectory(prefix="isoloss-") as elsewhere:
                written = write(results, Path(elsewhere) / "export")
            written = replace(written, out=str(folder))
        else:
            written = write(results, folder)
    if dry_run:
        print_object(asdict(written), as_json, "nothing was written there")
        return
    print_object(asdict(written), as_json, _next(to, written.out))


def _writer(to: str) -> Callable[[Store, Path], Written]:
    from isoloss.store import exports

    writers: dict[str, Callable[[Store, Path], Written]] = {
        "lm-eval": exports.export_lm_eval,
        "csv": exports.export_csv,
        "parquet": exports.export_parquet,
        "wandb": exports.export_wandb,
        "model-card": exports.export_model_card,
    }
    if to not in writers:
        raise BadRequest(
            f"there is no format {to!r} to export to.",
            asked=f"--to {to}",
            nearest=nearest_name(to, FORMATS) or ", ".join(FORMATS),
            remedy="name one of these",
        )
    return writers[to]


def _next(to: str, out: str) -> str | None:
    return {
        "lm-eval": f"next: isoloss import lm-eval {out} --out OTHER",
        "wandb": f"next: wandb sync {out}/wandb/offline-run-*",
    }.get(to)
