"""Ctrl-C: once, and work ends in order and keeps what is done; twice, and it ends at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status of what Ctrl-C ended, as shells have it."""


def end_at_second() -> None:
    """Let a second Ctrl-C end this process and those it started, whatever they are doing.

    For a program of its own, from its main thread.
    """
    signal.signal(signal.SIGINT, _first)


def _first(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(number: int, frame: FrameType | None) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(INTERRUPTED)  # every file is written whole, so that any moment will do


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Keep Ctrl-C from the processes started inside the block: who started them ends them.

    A terminal sends it to all of them, and each would print how it was stopped. It reaches this
    process when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
