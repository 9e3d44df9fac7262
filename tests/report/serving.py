"""A real server of stores, in a thread of the test's process or in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from isoloss.report.server.guard import Guard
from isoloss.report.server.routes import make_app
from isoloss.report.server.runs import Runs


@contextmanager
def served(*folders: Path, token: str | None = None, laws: bool = False) -> Iterator[str]:
    """The address of a server on loopback."""
    runs = Runs(folders, laws=laws)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = Guard(make_app(runs), host="127.0.0.1", port=port, token=token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@contextmanager
def command(*words: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """``isoloss serve`` in a process of its own, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "isoloss.cli", "serve", *map(str, words)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(ask, *, seconds: float = 30):
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return answer


def client(address: str, **options: object) -> httpx.Client:
    """A client that trusts no environment."""
    return httpx.Client(base_url=address, timeout=60, trust_env=False, **options)
