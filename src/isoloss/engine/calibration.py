"""Figures of this machine: a small study of three sizes, run by the engine itself and timed.

What is timed is what will run: the scorer, the store, the loading. The figures are kept in the
user's cache folder, one file for each device, type, number of threads and version of torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.engine.local import resolve_device, run
from isoloss.engine.progress import Silent
from isoloss.engine.resolve import resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.throughput import Throughput, rough
from isoloss.engine.worklist import worklist
from isoloss.engine.workload import Load, Shape, attended, flops, load_of, shape_of, traffic
from isoloss.models.digests import cache_folder
from isoloss.steps import steps
from isoloss.store import Store
from isoloss.store.files import write_text
from isoloss.study import Settings, Study

_FAMILY = """\
name = "calibration"
seed = 0
[language]
kind = "hmm"
vocab = 500
states = 8
length = 255
[train]
objective = "causal"
optimizer = "adamw"
schedule = "constant"
batch = 2
steps = 2
checkpoints = [0, 1, 2]
evaluate = 2
[[grid]]
architecture = "llama"
width = [16, 64, 256]
depth = 4
"""

_STUDY = """\
name = "calibration"
seed = 0
[run]
threads = {threads}
dtype = "{dtype}"
device = "{device}"
[[family]]
pretrained = "family"
[corpus.long]
path = "long.txt"
document = "line"
[corpus.short]
path = "short.txt"
document = "line"
[task.choice]
path = "choice.jsonl"
[probe.token_loss]
[probe.task_score]
[probe.optimum]
sentences = 8
[probe.hidden_state]
sentences = 32
"""

_SENTENCES, _SHORT, _ITEMS = 16, 160, 40
_SHORT_WORDS, _PREFIX = 12, 96
_SCORED = ("token_loss", "task_score")
_WEIGHT = 0.2  # of a prior: it being wrong by half costs as much as a cell wrong by a tenth
_LEAST = 1e-3  # of the longest cell: the least that any term takes there

Floats = NDArray[np.float64]


def load_throughput(spec: Settings) -> Throughput | None:
    """The figures of this machine that were measured before; None where there are none.

    Args:
        spec: device, type and threads of a study.
    """
    try:
        return Throughput(**json.loads(_file(spec).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or of another version
        return None


def calibrate(spec: Settings) -> Throughput:
    """Measure this machine, in some 40 seconds, and keep the figures.

    Args:
        spec: device, type and threads of a study.

    Returns:
        The figures; a plan finds them from now on.
    """
    start = _import_seconds()
    with tempfile.TemporaryDirectory(prefix="isoloss-calibration-") as folder:
        study = _write(Path(folder), spec)
        clock = _Clock()
        run(study, out=Path(folder) / "RUN", progress=clock)
        found = _fit(study, _taken(study, Path(folder) / "RUN", clock), start)
    write_text(_file(spec), json.dumps(asdict(found), indent=2))
    return found


def _file(spec: Settings) -> Path:
    from importlib.metadata import version

    machine = [platform.node(), platform.machine(), version("torch"), version("transformers")]
    kind = [resolve_device(spec.device), spec.dtype, str(spec.threads)]
    digest = hashlib.sha256("\0".join([*machine, *kind]).encode()).hexdigest()[:12]
    return cache_folder() / f"throughput-{'-'.join(kind).replace(':', '')}-{digest}.json"


def _import_seconds() -> float:
    """What a process spends on the libraries before anything else."""
    # a model's class brings along what all of them share
    code = (
        "import isoloss.cli, isoloss.engine.local, isoloss.models.load, isoloss.scoring\n"
        "from transformers import AutoTokenizer, LlamaForCausalLM"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def _write(folder: Path, spec: Settings) -> Study:
    """A family of three sizes that hardly learned anything, and what it is asked."""
    from isoloss.corpora.language import continuation_task, load_language, to_text
    from isoloss.pretrain import FamilyConfig, train_family

    write_text(folder / "family.toml", _FAMILY)
    config = FamilyConfig.load(folder / "family.toml")
    train_family(config, folder / "family", processes=1)
    language = load_language(folder / "family" / "language")
    lines = to_text(language.sample(_SENTENCES + _SHORT, 1))
    write_text(folder / "long.txt", "".join(f"{line}\n" for line in lines[:_SENTENCES]))
    short = (" ".join(line.split()[:_SHORT_WORDS]) for line in lines[_SENTENCES:])
    write_text(folder / "short.txt", "".join(f"{line}\n" for line in short))
    rows = continuation_task(language, _ITEMS, prefix=_PREFIX, seed=2)
    write_text(folder / "choice.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    text = _STUDY.format(threads=spec.threads, dtype=spec.dtype, device=spec.device)
    return Study.from_text(text, folder=folder)


class _Clock(Silent):
    """When each checkpoint was asked for, and when each of its cells was written."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        self.written: dict[str, list[float]] = {}
        self._current = ""

    def checkpoint(self, name: str) -> None:
        """Keep the time."""
        self._current, self.asked[name] = name, time.perf_counter()
        self.written[name] = []

    def done(self, label: str) -> None:
        """Keep the time."""
        self.written[self._current].append(time.perf_counter())


class _Timed(NamedTuple):
    """A cell that was measured: its work, its time, and the time it took to write it."""

    probe: str
    shape: Shape
    load: Load
    seconds: float
    writing: float


class _Taken(NamedTuple):
    """A checkpoint that was put into a model, its fingerprint taken and written."""

    shape: Shape
    bytes: int
    seconds: float
    cells: list[_Timed]


def _taken(study: Study, out: Path, clock: _Clock) -> list[_Taken]:
    cells = Store(out).cells().collect()
    known = dict(zip(cells["cell"], cells["seconds"], strict=True))
    subjects = Subjects(study)
    found = []
    for work in steps("timing models", worklist(study, subjects, resolve(study))):
        description, name = work.resolved.description, work.resolved.checkpoint.name
        assert description is not None
        shape, times = shape_of(description), clock.written[name]
        timed = [
            _Timed(
                probe=job.cell.probe,
                shape=shape,
                load=load_of(job, work, shape, subjects),
                seconds=known[job.cell.id],
                writing=after - before - known[job.cell.id],
            )
            # the fingerprint is the first of every checkpoint, and counts as loading it
            for job, before, after in zip(work.jobs[1:], times[:-1], times[1:], strict=True)
        ]
        found.append(_Taken(shape, description.bytes, times[0] - clock.asked[name], timed))
    return found


def _fit(study: Study, taken: Sequence[_Taken], start: float) -> Throughput:
    shapes = list(dict.fromkeys(one.shape for one in taken))
    first = [next(one for one in taken if one.shape == shape) for shape in shapes]
    later = [one for one in taken if one not in first]
    cells = [cell for one in later for cell in one.cells]
    dtype = study.run.dtype
    fixed, request, layer, score, flop, byte = _scores(
        [c for c in cells if c.probe in _SCORED], dtype, rough(study.run.threads)
    )
    threads = "1 thread" if study.run.threads == 1 else f"{study.run.threads} threads"
    checkpoint, weight_byte = _line([one.bytes for one in later], [one.seconds for one in later])
    found = Throughput(
        name=f"this machine, {threads}, {dtype}, calibrated",
        flops_per_second=1 / flop,
        bytes_per_second=1 / byte,
        layer_seconds=layer,
        attention_seconds=score,
        request_seconds=request,
        cell_seconds=fixed + float(np.median([cell.writing for cell in cells])),
        checkpoint_seconds=checkpoint,
        disk_bytes_per_second=1 / weight_byte,
        # the first shape also pays for what a process does once
        shape_seconds=float(np.mean([_excess(one, later) for one in first[1:]])),
        start_seconds=start,
    )
    return replace(found, factors=_factors(found, cells, dtype))


def _scores(cells: Sequence[_Timed], dtype: str, before: Throughput) -> list[float]:
    """Seconds of a cell, a request, a layer's pass, an attention score, an operation, a byte."""
    work = np.array(
        [
            (1, c.load.requests, c.load.passes * c.shape.layers, attended(c.load, c.shape),
             flops(c.load, c.shape), traffic(c.load, c.shape, dtype))
            for c in cells
        ],
        dtype=np.float64,
    )  # fmt: skip
    # a few cells tell the sum of the terms better than each of them: what they leave open is
    # taken from the other machine
    prior = np.array(
        [before.cell_seconds, before.request_seconds, before.layer_seconds,
         before.attention_seconds, 1 / before.flops_per_second, 1 / before.bytes_per_second]
    )  # fmt: skip
    return _not_negative(work, np.array([cell.seconds for cell in cells]), prior)


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Seconds of a checkpoint and of a byte of its weights."""
    work = np.stack([np.ones(len(sizes)), np.array(sizes, dtype=np.float64)], axis=1)
    return _not_negative(work, np.array(seconds))


def _not_negative(work: Floats, seconds: Floats, prior: Floats | None = None) -> list[float]:
    """Coefficients, none negative, of the least squares of relative errors.

    Args:
        work: (n, terms).
        seconds: (n,).
        prior: (terms,) positive; each counts as an observation of itself, with little weight.
    """
    from scipy.optimize import nnls

    scale = work.max(axis=0)
    rows, ones = work / scale / seconds[:, None], np.ones(len(seconds))
    if prior is not None:
        rows = np.vstack([rows, _WEIGHT * np.diag(1 / (prior * scale))])
        ones = np.append(ones, np.full(len(prior), _WEIGHT))
    found, _ = nnls(rows, ones)
    # a term that another one covers is taken to be fast, not free: larger models may need it
    least = _LEAST * float(seconds.max())
    return [max(float(x), least) / float(s) for x, s in zip(found, scale, strict=True)]


def _excess(first: _Taken, later: Sequence[_Taken]) -> float:
    """What the first checkpoint of a shape takes beyond another one of it."""
    others = [one for one in later if one.shape == first.shape]

    def total(one: _Taken) -> float:
        return one.seconds + sum(cell.seconds for cell in one.cells)

    return max(total(first) - float(np.mean([total(one) for one in others])), 0.0)


def _factors(found: Throughput, cells: Sequence[_Timed], dtype: str) -> dict[str, float]:
    """Measured time over the formula's, of probes that are no scores."""
    plain = replace(found, cell_seconds=0.0, factors=dict.fromkeys((c.probe for c in cells), 1.0))
    ratios: dict[str, list[float]] = {}
    for cell in cells:
        if cell.probe not in _SCORED:
            expected = plain.seconds(cell.load, cell.shape, dtype, cell.probe)
            ratios.setdefault(cell.probe, []).append(cell.seconds / expected)
    return {probe: float(np.median(values)) for probe, values in ratios.items()}
