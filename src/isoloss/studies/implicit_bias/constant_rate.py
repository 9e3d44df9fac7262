"""SGD at a constant rate after the loss has converged: does the trace fall, or do weights grow?

In networks with normalisation layers the trace falls by mere growth of scale-invariant weights. The
scale-invariant companion does not: a fall of the first without the second is growth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.store.store import Store
from isoloss.studies.findings import FindingsTable, Value
from isoloss.studies.flatness.loss_pairs import DISTANCE
from isoloss.studies.flatness.traced import COMPANION, WEIGHT_NORM
from isoloss.studies.implicit_bias.families import SGD, Size, sgd_steps
from isoloss.studies.implicit_bias.figures import with_interval
from isoloss.studies.implicit_bias.models import TRACE, over_seeds

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantRate:
    """Changes along SGD of a constant rate, one a seed.

    Attributes:
        first: steps done where the comparison begins.
        last: steps done where it ends.
        loss: nats, float64 (seeds,).
        trace: natural logs, as are the following.
        companion: scale-invariant trace.
        norm: of all weights.
    """

    first: int
    last: int
    loss: Floats
    trace: Floats
    companion: Floats
    norm: Floats


def constant_rate(stores: Sequence[Store], size: Size) -> ConstantRate | None:
    """What a converged model becomes under SGD of a constant rate; None without such runs."""
    rows = pl.concat(
        [s.measurements().filter(pl.col("family") == SGD).collect() for s in stores]
    ).filter(~pl.col("run").str.contains("-branch"))
    steps = sgd_steps(size)
    first, last = steps[2], steps[-1]

    def of(metric: str, step: int) -> dict[int, float]:
        found = rows.filter(metric=metric, step=step).unique("seed", keep="first")
        return dict(found.select("seed", "value").iter_rows())

    def change(metric: str, *, log: bool) -> Floats:
        one, other = of(metric, first), of(metric, last)
        seeds = sorted(one.keys() & other.keys())
        pairs = [(one[seed], other[seed]) for seed in seeds]
        return _array(math.log(b / a) if log else b - a for a, b in pairs)

    loss = change(DISTANCE, log=False)
    if not len(loss):
        return None
    return ConstantRate(
        first=first,
        last=last,
        loss=loss,
        trace=change(TRACE, log=True),
        companion=change(TRACE + COMPANION, log=True),
        norm=change(WEIGHT_NORM, log=True),
    )


def constant_rate_table(found: ConstantRate) -> FindingsTable:
    """What SGD of a constant rate does to a converged model."""
    numbers = (found.loss, found.trace, found.companion, found.norm)
    rows: tuple[tuple[Value, ...], ...] = (
        tuple(
            with_interval(over_seeds(x), digits)
            for x, digits in zip(numbers, (4, 2, 2, 3), strict=True)
        ),
    )
    return FindingsTable(
        id="constant-rate",
        title=f"SGD at a constant rate: step {found.last:,} less step {found.first:,}",
        columns=("loss (nats)", "ln Fisher trace", "ln scale-invariant trace", "ln weight norm"),
        rows=rows,
        note="Mean with 95% interval over seeds, wide models on the hmm.",
    )


def constant_rate_answer(steady: ConstantRate) -> str:
    """A fall of the trace that the scale-invariant one does not share is growth of the weights."""
    trace, companion, norm = (over_seeds(x) for x in (steady.trace, steady.companion, steady.norm))
    factors = (
        f"From step {steady.first:,} to {steady.last:,} of SGD at a constant rate the Fisher trace "
        f"changes by a factor of {math.exp(trace.value):.2f}, the scale-invariant one by "
        f"{math.exp(companion.value):.2f} and the weight norm by {math.exp(norm.value):.3f}"
    )
    if trace.high < 0 and companion.high < 0:
        return f"{factors}: both traces fall, over seeds."
    if trace.high < 0:
        return (
            f"{factors}: the scale-invariant trace does not surely fall, so that growth of the "
            "weights may be all of it."
        )
    return f"{factors}: no fall of the trace is sure over seeds."


def _array(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=np.float64)
