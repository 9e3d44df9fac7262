"""The serve command: the page of runs that go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isoloss.console import say
from isoloss.errors import BadRequest

if TYPE_CHECKING:
    from isoloss.report.server.launch import Address


def serve(
    stores: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Stores, or a folder that holds some.")
    ],
    host: Annotated[str, typer.Option(help="Elsewhere than here a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8417,
    token: Annotated[str | None, typer.Option(help="What everybody must have.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The same out of a file: command lines can be seen.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="SUBJECT:METRIC", help="The axis; needed where several.")
    ] = None,
    no_laws: Annotated[
        bool, typer.Option("--no-laws", help="Draw only: ask no law, fit no curve.")
    ] = False,
) -> None:
    """Serve the page of one run or several while they go on, for this machine alone.

    Ctrl-C ends it. Other machines: --host 0.0.0.0, which asks for a token, or an SSH tunnel.

    Examples:
    - `isoloss serve RUN`
    - `isoloss serve RUN1 RUN2 --port 8000`
    - `isoloss serve runs --host 0.0.0.0 --token-file token.txt`
    """
    from isoloss.report.server.launch import serve as serve_runs
    from isoloss.report.server.runs import Runs

    word = _token(token, token_file)
    runs = Runs(stores, loss=loss, laws=not no_laws)
    serve_runs(runs, host=host, port=port, token=word, tell=_tell(len(runs.all())))
    print("stopped", file=sys.stderr)


def _tell(runs: int) -> Callable[[Address], None]:
    def tell(address: Address) -> None:
        what = "1 run" if runs == 1 else f"{runs} runs"
        say(f"serving {what} at {address.url} (Ctrl-C ends it)")
        sys.stdout.flush()
        if address.is_new:  # shown once, and kept nowhere
            print(f"open {address.url}?token={address.token}", file=sys.stderr, flush=True)
        if not address.is_local:
            print("the connection is not encrypted: prefer an SSH tunnel, or a proxy with TLS",
                  file=sys.stderr, flush=True)  # fmt: skip

    return tell


def _token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise BadRequest("there is one token.", asked="--token with --token-file",
                         remedy="leave out one of them")  # fmt: skip
    if file is None:
        return token
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(
            "the token cannot be read.",
            asked=str(file),
            remedy="python -c 'import secrets; print(secrets.token_urlsafe())' > token.txt",
        ) from error
