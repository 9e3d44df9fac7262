"""A command on a terminal of its own: what it shows there, answered as a person would."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120


@dataclass(frozen=True)
class Shown:
    """What a command did.

    Attributes:
        status: its exit status.
        screen: all that came to the terminal: questions, bars, errors.
        stdout: its standard output, which is a pipe.
    """

    status: int
    screen: str
    stdout: str


def on_terminal(
    *words: object, cwd: Path, answers: Sequence[str] = (), interrupt_at: str | None = None,
    **environment: str,
) -> Shown:  # fmt: skip
    """Run ``isoloss`` with a terminal as standard input and error.

    Args:
        words: of the command line.
        cwd: where it runs.
        answers: typed one after the other, each once a question stands there.
        interrupt_at: text on the screen at which Ctrl-C is typed.
        environment: added to ours.
    """
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "isoloss.cli", *map(str, words)],
        cwd=cwd, stdin=slave, stderr=slave, stdout=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(2), os.O_RDWR)),  # its controlling terminal
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    ) as process:  # fmt: skip
        os.close(slave)
        screen, left, end = "", list(answers), time.monotonic() + SECONDS
        told = 0
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    screen += os.read(master, 1 << 16).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                break
            fresh = screen[told:]
            if left and fresh.rstrip(" ").endswith(":") and "\n" in fresh:
                told = len(screen)
                os.write(master, (left.pop(0) + "\n").encode())
            if interrupt_at is not None and interrupt_at in screen:
                interrupt_at = None
                os.write(master, b"\x03")  # the terminal makes a signal of it, for all processes
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        out = process.stdout.read().decode()
        status = process.wait(SECONDS)
    os.close(master)
    return Shown(status, screen, out)
