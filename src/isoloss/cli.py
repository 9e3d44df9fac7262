"""The command line: each command parses, calls the library and prints.

Exit status: 0 done; 1 done but some cells failed, or the disk filled up half-way; 2 the request
itself is wrong, and nothing was written. With ``--json`` standard output holds one JSON value and
nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from isoloss import (
    __version__,
    cli_check,
    cli_compare,
    cli_export,
    cli_fit,
    cli_forecast,
    cli_import,
    cli_init,
    cli_run,
    cli_serve,
    cli_study,
    cli_train,
)
from isoloss.cli_group import Group, UsageError, usage
from isoloss.cli_words import ANSWERS, EXCHANGE, MEASURE, START, Json, Quiet, RunFolder
from isoloss.console import Terminal, print_object, print_rows, say
from isoloss.errors import BadRequest, BadStore, DiskFull, IsolossError
from isoloss.interrupt import INTERRUPTED, end_at_second
from isoloss.safe_text import redacted

app = typer.Typer(
    name="isoloss",
    cls=Group,
    help="What a language model's pre-training loss tells you, and what it hides.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command(rich_help_panel=START)(cli_train.demo)
app.command(rich_help_panel=START)(cli_init.init)
app.command(rich_help_panel=START)(cli_run.plan)
app.command(rich_help_panel=MEASURE)(cli_run.run)
app.command(rich_help_panel=MEASURE)(cli_train.pretrain)
app.command(rich_help_panel=MEASURE)(cli_study.study)
app.command(rich_help_panel=ANSWERS)(cli_compare.compare)
app.command(rich_help_panel=ANSWERS)(cli_forecast.forecast)
app.add_typer(cli_fit.app, name="fit", rich_help_panel=ANSWERS)
app.command(rich_help_panel=ANSWERS)(cli_serve.serve)
app.command(rich_help_panel=ANSWERS)(cli_check.check)
app.add_typer(cli_import.app, name="import", rich_help_panel=EXCHANGE)
app.command(rich_help_panel=EXCHANGE)(cli_export.export)

Loss = Annotated[
    str | None, typer.Option(metavar="SUBJECT:METRIC", help="The loss axis; needed where several.")
]
_KEPT = {"demo", "pretrain", "run", "study"}
"""Commands that go on where they were stopped."""


def main() -> None:
    """Run the command line; the process ends with its exit status."""
    end_at_second()
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        # typer and rich end the process by themselves where nobody reads any more
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _nobody_reads()
    except BrokenPipeError:
        _nobody_reads()
    except (KeyboardInterrupt, typer.Abort):  # and the end of what is typed
        _interrupted()
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            sys.exit(0)
        _end(usage(error))
    except IsolossError as error:
        _end(error)
    except OSError as error:
        what = f"the system refuses it: {error.strerror or error}"
        asked = None if error.filename is None else str(error.filename)
        _end(BadRequest(what, asked=asked, remedy="check the path, who may use it, and the disk"))
    except BaseException as error:
        # tables are read late, and a panic of Polars is no Exception
        if type(error).__module__ not in {"polars.exceptions", "pyo3_runtime"}:
            raise
        what = f"a table cannot be read: {str(error).splitlines()[0]}"
        _end(BadStore(what, remedy="isoloss check RUN finds the file and puts it aside"))
    else:
        if status == INTERRUPTED:  # what typer makes of an interrupt
            _interrupted()
        sys.exit(status or 0)


def _end(error: IsolossError) -> NoReturn:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1 if isinstance(error, DiskFull) else 2)


def _interrupted() -> NoReturn:
    words = sys.argv[1:]
    command = shlex.join(["isoloss", *words])
    if words and words[0] in _KEPT and "--dry-run" not in words:
        told = f"stopped; what is finished is kept. To go on: {command}"
    else:
        told = f"stopped; to do it again: {command}"
    print(redacted(told), file=sys.stderr)
    sys.exit(INTERRUPTED)


def _nobody_reads() -> NoReturn:
    """End in silence: the reader of the pipe has enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
    sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"isoloss {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Tell it and stop."),
    ] = False,
) -> None:
    """What a language model's pre-training loss tells you, and what it hides.

    Example:
    - `isoloss demo --out demo`
    """


@app.command(rich_help_panel=ANSWERS)
def report(
    store: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="The page to write; RUN/report.html if left out.")
    ] = None,
    loss: Loss = None,
    no_laws: Annotated[
        bool, typer.Option("--no-laws", help="Draw only: ask no law, fit no curve.")
    ] = False,
    language: Annotated[
        str, typer.Option(help="That the page starts in: en or zh; the page switches too.")
    ] = "en",
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write figures for a paper there, and no page."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Of the figures: svg, png, pdf, with commas between.")
    ] = "svg",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained page: what the loss explains, what studies found, what failed.

    Examples:
    - `isoloss report RUN --out report.html`
    - `isoloss report RUN --language zh`
    - `isoloss report RUN --figures figures --format svg,pdf`
    """
    from isoloss.report import write, write_figures
    from isoloss.store import Store

    results = Store(store)
    if figures is not None:
        kinds = [one.strip() for one in formats.split(",")]
        with Terminal(quiet=quiet, doing=f"writing figures to {figures}"):
            drawn = write_figures(results, figures, formats=kinds, loss=loss, laws=not no_laws)
        print_object(drawn.record(), as_json, None)
        return
    page = out or results.path / "report.html"
    with Terminal(quiet=quiet, doing=f"writing {page}"):
        summary = write(results, page, loss=loss, language=language, laws=not no_laws)
    print_object(summary.record(), as_json, None)


@app.command(rich_help_panel=ANSWERS)
def sql(
    store: RunFolder,
    statement: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT statement.")],
    as_json: Json = False,
) -> None:
    """Query a store: checkpoints, cells, measurements, items, failures, flags.

    Examples:
    - `isoloss sql RUN "SELECT model, step, value FROM measurements WHERE metric='accuracy'"`
    - `isoloss sql RUN "SELECT * FROM failures" --json`
    """
    from isoloss.store import Store, query

    rows = query(Store(store), statement).to_dicts()
    print_rows(rows, as_json)


@app.command("ls", rich_help_panel=ANSWERS)
def list_checkpoints(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN|REPO|FOLDER", help="A store, OWNER/NAME, or checkpoints."),
    ],
    revision: Annotated[
        str, typer.Option(help="Pattern of a repository's revisions.")
    ] = "step{step}",
    as_json: Json = False,
) -> None:
    """List the checkpoints of a store, a hub repository or a folder, with sizes and gaps.

    Examples:
    - `isoloss ls RUN`
    - `isoloss ls EleutherAI/pythia-70m --revision step{step}`
    - `isoloss ls runs/7b`
    """
    from isoloss.engine.listing import listing

    found = listing(what, revision=revision)
    print_rows(found.rows, as_json)
    if found.gaps and not as_json:
        say(f"gaps: {found.gaps}")


@app.command(rich_help_panel=ANSWERS)
def status(store: RunFolder, as_json: Json = False) -> None:
    """Tell how far a run is: cells done and failed, flags, what is unknown.

    Example:
    - `isoloss status RUN`
    """
    from isoloss.engine.listing import status as status_of
    from isoloss.store import Store

    print_object(status_of(Store(store)), as_json, None)


if __name__ == "__main__":
    main()
