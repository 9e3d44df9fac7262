"""How long work takes: one formula, with figures measured on this machine or published for a GPU.

A cell takes a fixed time, a time a request, a time a layer of each pass, a time a score of
attention, the time of its matrix products at a rate, and the time of its bytes at a bandwidth.
The terms are added: what would run side by side is counted twice, what the formula leaves out
makes up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from isoloss.engine.workload import Load, Shape, attended, flops, traffic
from isoloss.errors import BadRequest, nearest_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Figures of a machine.

    Attributes:
        name: what it is and where the figures come from.
        flops_per_second: of matrix products.
        bytes_per_second: through memory.
        layer_seconds: of a layer, once a pass.
        attention_seconds: of one score, before its softmax and after.
        request_seconds: of a question, its answer and its row.
        cell_seconds: to write a cell.
        checkpoint_seconds: to put a checkpoint into a model, beside its bytes.
        disk_bytes_per_second: of weights from where they lie.
        shape_seconds: once a shape: the first load, and the trial of the faster paths.
        start_seconds: once a process: the libraries.
        memory_bytes: of one device; None where nothing is stated.
        factors: of probes other than the scores: measured time over the formula's.
    """

    name: str
    flops_per_second: float
    bytes_per_second: float
    layer_seconds: float
    attention_seconds: float
    request_seconds: float
    cell_seconds: float
    checkpoint_seconds: float
    disk_bytes_per_second: float
    shape_seconds: float
    start_seconds: float
    memory_bytes: int | None = None
    factors: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, load: Load, shape: Shape, dtype: str, probe: str) -> float:
        """Time of one cell.

        Args:
            load: its work.
            shape: of the model.
            dtype: of the weights.
            probe: what is measured.
        """
        work = (
            load.requests * self.request_seconds
            + load.passes * shape.layers * self.layer_seconds
            + attended(load, shape) * self.attention_seconds
            + flops(load, shape) / self.flops_per_second
            + traffic(load, shape, dtype) / self.bytes_per_second
        )
        return self.cell_seconds + self.factors.get(probe, FACTORS.get(probe, 1.0)) * work

    def loading(self, weight_bytes: int) -> float:
        """Time to put a checkpoint of so many bytes into a model."""
        return self.checkpoint_seconds + weight_bytes / self.disk_bytes_per_second


FACTORS: Mapping[str, float] = {"fisher_trace": 3.0, "hessian_trace": 9.0}
"""A backward pass is two forward ones; a Hessian's product is a backward pass of one."""

ONE_CORE = Throughput(
    name="one core of the machine that isoloss is tested on",
    flops_per_second=1.29e11,
    bytes_per_second=2.4e9,
    layer_seconds=6.1e-4,
    attention_seconds=1.5e-9,
    request_seconds=2.2e-5,
    cell_seconds=0.006,
    checkpoint_seconds=0.017,
    disk_bytes_per_second=1.0e9,
    shape_seconds=0.3,
    start_seconds=4.1,
)
"""Measured by :mod:`isoloss.engine.calibration`; scaled where a machine is not calibrated."""


class Gpu(NamedTuple):
    """Published figures of a GPU, dense, at its largest power.

    Attributes:
        half: TFLOP/s in bfloat16 (float16 where there is none), tensor cores.
        single: TFLOP/s in float32, without tensor cores, as torch computes unless told.
        terabytes: a second through its memory.
        gigabytes: of its memory.
    """

    half: float
    single: float
    terabytes: float
    gigabytes: int


GPUS: Mapping[str, Gpu] = {
    "h200": Gpu(989.0, 67.0, 4.8, 141),
    "h100": Gpu(989.0, 67.0, 3.35, 80),
    "a100": Gpu(312.0, 19.5, 2.04, 80),
    "a100-40": Gpu(312.0, 19.5, 1.555, 40),
    "l40s": Gpu(362.0, 91.6, 0.864, 48),
    "l4": Gpu(121.0, 30.3, 0.3, 24),
    "a10": Gpu(125.0, 31.2, 0.6, 24),
    "v100": Gpu(125.0, 15.7, 0.9, 32),
    "t4": Gpu(65.0, 8.1, 0.32, 16),
    "mi300x": Gpu(1307.0, 163.4, 5.3, 192),
    "rtx4090": Gpu(165.0, 82.6, 1.008, 24),
}
"""From the makers' data sheets: SXM modules where there are several."""

FLOPS_SHARE, BANDWIDTH_SHARE = 0.4, 0.6
"""Of the published figures that a pass is assumed to reach."""

_LAYER_SECONDS = 5e-4  # some ten kernels, each started from Python
_DISK = 1e9  # a shared file system, or a hub behind a good line
_START = 20.0  # libraries from a shared file system, and the device's own


def named_gpu(name: str, dtype: str) -> Throughput:
    """Figures of a GPU at the assumed shares of what its maker publishes.

    Args:
        name: such as ``h100``.
        dtype: of the study.

    Raises:
        BadRequest: its figures are not known here, or not for this type.
    """
    known = GPUS.get(name.lower())
    if known is None:
        raise BadRequest(
            f"there are no figures of a GPU named {name}.",
            asked=f"--gpu {name}",
            nearest=nearest_name(name.lower(), GPUS) or ", ".join(GPUS),
            remedy=f"one of {', '.join(GPUS)}; on the machine itself: --calibrate",
        )
    if dtype == "float64":
        raise BadRequest(
            "GPUs differ too much in float64 for a figure to be assumed.",
            asked=f'--gpu {name}, run.dtype = "float64"',
            nearest='run.dtype = "float32"',
            remedy="plan with --set run.dtype=float32, or --calibrate on the machine itself",
        )
    peak = known.single if dtype == "float32" else known.half
    return replace(
        ONE_CORE,
        name=f"{name.upper()}, {100 * FLOPS_SHARE:.0f}% of {peak:g} TFLOP/s and "
        f"{100 * BANDWIDTH_SHARE:.0f}% of {known.terabytes:g} TB/s",
        flops_per_second=FLOPS_SHARE * peak * 1e12,
        bytes_per_second=BANDWIDTH_SHARE * known.terabytes * 1e12,
        layer_seconds=_LAYER_SECONDS,
        attention_seconds=0.0,  # kernels there keep the scores in registers
        disk_bytes_per_second=_DISK,
        start_seconds=_START,
        memory_bytes=known.gigabytes * 10**9,
    )


def rough(threads: int) -> Throughput:
    """The tested machine's figures, scaled by this one's rate of matrix products, in .1 s.

    Args:
        threads: that products use.
    """
    scale = product_rate(threads) / ONE_CORE.flops_per_second
    # threads speed up products; what Python does between them goes on at its pace
    paced = 1.0 if threads > 1 else scale
    return replace(
        ONE_CORE,
        name="another machine, scaled to this one: right within a factor of two or so",
        flops_per_second=ONE_CORE.flops_per_second * scale,
        bytes_per_second=ONE_CORE.bytes_per_second * scale,
        layer_seconds=ONE_CORE.layer_seconds / paced,
        attention_seconds=ONE_CORE.attention_seconds / scale,
        request_seconds=ONE_CORE.request_seconds / paced,
    )


def product_rate(threads: int) -> float:
    """Floating-point operations a second of a float32 matrix product, measured for .1 s."""
    import time

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a = torch.ones(512, 512)
        a @ a  # the first product pays for setting up
        count, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < 0.1:
            a @ a
            count += 1
    finally:
        torch.set_num_threads(before)
    return 2 * 512**3 * count / seconds
