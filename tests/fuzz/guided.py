"""A fuzzer that keeps every input which takes a new way through the readers.

Lines of isoloss that follow one another are the ways; Python itself tells them, so that nothing
has to be installed. Run it for as long as you like::

    PYTHONPATH=tests python -m fuzz.guided --seconds 3600 --out build/fuzz
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import isoloss
from fuzz.mutate import mutated
from fuzz.readers import READERS, Reader, attempt

SECONDS, BYTES = 10, 1 << 30
"""What one input may take; seconds of this process, and six times as many of the clock."""

_PACKAGE = str(Path(isoloss.__file__).parent)


class Hang(BaseException):
    """An input took longer than :data:`SECONDS`; no reader catches this."""


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one reader."""

    reader: str
    inputs: int = 0
    read: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    ways: int = 0
    kept: int = 0
    faults: list[str] = field(default_factory=list)


def fuzz(name: str, *, seconds: float, seed: int, out: Path) -> Tally:
    """Try inputs on one reader until the time is over.

    Args:
        name: of :data:`fuzz.readers.READERS`.
        seconds: how long.
        seed: of the variants; how many are tried depends on the machine.
        out: receives inputs that raise what they must not, hang or take too much memory.
    """
    reader, rng, tally = READERS[name], Random(f"{name}/{seed}"), Tally(reader=name)
    kept, known, seen = reader.seeds(), set[Any](), set[str]()
    with tempfile.TemporaryDirectory() as folder:
        for data in kept:  # a valid file is read
            said = attempt(reader, data, Path(folder))
            assert said is None, (name, said)
        base, end = _peak(), time.monotonic() + seconds
        while time.monotonic() < end:
            data = mutated(rng.choice(kept), rng)
            _saved(out, name, 0, data)  # what ends the process leaves it behind
            ways: set[Any] = set()
            fault, said = _tried(reader, data, Path(folder), ways)
            tally.inputs += 1
            if fault is None and _peak() - base > BYTES:
                fault, base = "more than 1 GB of memory", _peak()
            if fault is not None:
                if fault not in seen:
                    seen.add(fault)
                    tally.faults.append(f"{fault} ({_saved(out, name, len(seen), data)})")
                continue
            if said is None:
                tally.read += 1
            else:
                tally.refused[said] = tally.refused.get(said, 0) + 1
            if not ways <= known:
                known |= ways
                kept.append(data)
    _file(out, name, 0).unlink(missing_ok=True)
    tally.ways, tally.kept = len(known), len(kept)
    return tally


def _apart(sink: Connection, name: str, *, seconds: float, seed: int, out: Path) -> None:
    sink.send(fuzz(name, seconds=seconds, seed=seed, out=out))


def fuzz_apart(name: str, *, seconds: float, seed: int, out: Path) -> Tally:
    """The same in a process of its own, which an input may end; another seed goes on from there."""
    context, end = multiprocessing.get_context("spawn"), time.monotonic() + seconds
    ended: list[str] = []
    while True:
        source, sink = context.Pipe(duplex=False)
        left = max(end - time.monotonic(), 1.0)
        child = context.Process(
            target=_apart, args=(sink, name),
            kwargs={"seconds": left, "seed": seed + len(ended), "out": out},
        )  # fmt: skip
        child.start()
        sink.close()
        try:
            tally: Tally = source.recv()
        except EOFError:
            child.join()
            last = _file(out, name, 0).rename(_file(out, name, 900 + len(ended)))
            ended.append(f"the process ended with {child.exitcode} ({last})")
            continue
        child.join()
        tally.faults += ended
        return tally


def _tried(
    reader: Reader, data: bytes, folder: Path, ways: set[Any]
) -> tuple[str | None, str | None]:
    """What is wrong, if anything, and the error of ours, if one was raised."""
    try:
        with _limited(), _traced(ways):
            return None, attempt(reader, data, folder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Polars is no Exception
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if f.filename.startswith(_PACKAGE)]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        return f"{type(error).__name__} at {place}", None


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    # the clock alone would call a busy machine a hang, the process's time would miss one that waits
    limits = (
        (signal.ITIMER_PROF, signal.SIGPROF, SECONDS),
        (signal.ITIMER_REAL, signal.SIGALRM, 6 * SECONDS),
    )
    before = {number: signal.signal(number, stop) for _, number, _ in limits}
    try:
        for timer, _, seconds in limits:
            signal.setitimer(timer, seconds)
        yield
    finally:
        for timer, number, _ in limits:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextmanager
def _traced(ways: set[Any]) -> Iterator[None]:
    def enter(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        code, last = frame.f_code, 0

        def line(frame: FrameType, event: str, _: object) -> Any:
            nonlocal last
            ways.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _file(out: Path, name: str, number: int) -> Path:
    return out / f"{name}-{number}"


def _saved(out: Path, name: str, number: int, data: bytes) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    file = _file(out, name, number)
    file.write_bytes(data)
    return file


def main() -> int:
    """Fuzz some readers or all of them, one after the other; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--reader", action="append", choices=sorted(READERS))
    given = parser.parse_args()
    names, faults = given.reader or list(READERS), 0
    for name in names:
        tally = fuzz_apart(name, seconds=given.seconds / len(names), seed=given.seed, out=given.out)
        print(json.dumps(asdict(tally)), flush=True)
        faults += len(tally.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
