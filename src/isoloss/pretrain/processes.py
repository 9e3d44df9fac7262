"""Runs side by side: each in a process of its own, with one thread."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from isoloss.errors import IsolossError
from isoloss.interrupt import kept_from_children
from isoloss.pretrain.family_file import RunSettings
from isoloss.pretrain.languages import load_material
from isoloss.pretrain.trainer import OnStep, Progress, train_run

REPORT_SECONDS = 0.25


class RunInterrupted(IsolossError):
    """A training process ended before its run did: train again, it goes on."""


def train_side_by_side(
    runs: Sequence[RunSettings],
    out: Path,
    language: Path,
    *,
    report: OnStep,
    processes: int,
    device: str,
) -> None:
    """Train runs, so many at a time.

    Args:
        runs: in the order in which they begin.
        out: the family's folder.
        language: folder of what they read.
        report: told about every run's steps, at most a few times a second each.
        processes: at most so many.
        device: where each of them trains.

    Raises:
        RunInterrupted: a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    channel = context.Queue()
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(processes, len(runs)), context, initializer=_enter,
        initargs=(channel, stop, os.getpid()),
    )  # fmt: skip
    try:
        with kept_from_children():
            futures = [pool.submit(_train_here, run, out, language, device) for run in runs]
        waiting: set[Future[None]] = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            _relay(channel, report)
        for future in futures:  # only now: one run's fault must not stop the others
            future.result()
    except BrokenProcessPool as error:
        raise RunInterrupted(
            "a training process ended before its run",
            asked=str(out),
            remedy="train again: each run goes on from its last checkpoint",
        ) from error
    except KeyboardInterrupt:
        stop.set()  # without it the runs would be trained to their ends
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        _relay(channel, report)  # the last words of processes that have ended


def at_times(report: OnStep) -> OnStep:
    """A report of the last step, and of others a few times a second."""
    last = 0.0

    def on_step(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.step == progress.steps or now - last > REPORT_SECONDS:
            last = now
            report(progress)

    return on_step


def _relay(channel: multiprocessing.Queue[Progress], report: Callable[[Progress], None]) -> None:
    while True:
        try:
            report(channel.get_nowait())
        except queue.Empty:
            return


# what a training process was started with: set once by _enter, read by _train_here
_process: dict[str, Any] = {}


def _enter(channel: multiprocessing.Queue[Progress], stop: Event, parent: int) -> None:
    torch.set_num_threads(1)
    _process.update(channel=channel)
    threading.Thread(target=_die_with, args=(stop, parent), daemon=True).start()


def _die_with(stop: Event, parent: int) -> None:
    """End this process when its parent says so, or is killed: another may resume its run."""
    while os.getppid() == parent and not stop.wait(REPORT_SECONDS):
        pass
    os._exit(1)  # every file is written whole, so that any moment will do


def _train_here(run: RunSettings, out: Path, language: Path, device: str) -> None:
    report = at_times(_process["channel"].put)
    train_run(run, load_material(language), out / run.name, on_step=report, device=device)
