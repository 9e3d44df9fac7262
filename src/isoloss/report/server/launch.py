"""Start the server: an address, a token where others can reach it, and an end on Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from isoloss.errors import BadRequest
from isoloss.report.server.guard import Guard, check_token, is_loopback
from isoloss.report.server.routes import make_app
from isoloss.report.server.runs import Runs

HOST, PORT = "127.0.0.1", 8417
_TRIED = 100  # ports after one that is taken
_PORTS = 65_535
_GRACE_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens.

    Attributes:
        url: to open, without the token.
        token: that everybody must have; None on this machine where none was given.
        is_new: it was made now, and nobody knows it yet.
        is_local: only this machine can reach it.
    """

    url: str
    token: str | None
    is_new: bool
    is_local: bool


def serve(
    runs: Runs,
    *,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    tell: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve runs until an interrupt.

    Args:
        runs: what is served.
        host: an address or a name of this machine; others than this machine alone need a token.
        port: 0 takes a free one.
        token: that everybody must have; None makes one where others can reach the server.
        tell: is given the address before the first request is answered.

    Raises:
        BadRequest: the address cannot be had, or the token can be guessed.
    """
    is_local = is_loopback(host)
    is_new = token is None and not is_local
    word = secrets.token_urlsafe(32) if is_new else None if token is None else check_token(token)
    with contextlib.closing(_listening(host, port)) as listener:
        taken = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        app = Guard(make_app(runs), host=host, port=taken, token=word)
        # the log of requests would hold the token of the first
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )  # fmt: skip
        tell(Address(url=f"http://{shown}:{taken}/", token=word, is_new=is_new, is_local=is_local))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _PORTS:
        raise BadRequest("there is no such port.", asked=f"--port {port}", nearest=f"--port {PORT}",
                         remedy=f"take a number from 1024 to {_PORTS:,}")  # fmt: skip
    try:
        return _bound(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = next((p for p in range(port + 1, port + _TRIED) if _is_free(host, p)), None)
            raise BadRequest(
                "another program listens on this port.",
                asked=f"--host {host} --port {port}",
                nearest=None if free is None else f"--port {free}",
                remedy=f"add --port {free or 0}",
            ) from error
        raise BadRequest(
            f"cannot listen there: {error.strerror or error}.",
            asked=f"--host {host} --port {port}",
            nearest=f"--host {HOST} --port {PORT}",
            remedy="name an address of this machine, and a port from 1024 on",
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port).close()
    except (OSError, OverflowError):
        return False
    return True
