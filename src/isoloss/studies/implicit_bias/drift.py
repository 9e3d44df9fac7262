"""Does SGD drift as the theorem says? Simulated runs beside the exact prediction.

Every step of every simulated run draws the counts of its B pairs of words from the language, which
is all that the gradient needs: a batch of any size costs the same. Traces are taken at the minimum
nearest by, so that the fluctuation around the minima, of size sqrt(eta), stays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.estimate import Estimate, mean
from isoloss.studies.implicit_bias.bigram import (
    Bigram,
    Parameters,
    excess_loss,
    flow,
    onto_minima,
    random_bigram,
    random_minimum,
    rescaled,
    softmax,
    trace_gradient,
    traces,
)

Floats = NDArray[np.float64]

RECORDS = 12
BURN_IN = 3  # records before the slope: the fluctuation has to reach its size first
FLATTEST_AT = 60.0  # t / B after which the flow has all but stopped
NO_SLOPE = 1e-4  # of t / B: a prediction that is zero but for where the flow was cut off


class Drift(NamedTuple):
    """Traces along simulated runs of one rate and batch size.

    Attributes:
        times: t = eta^2 k of each record, float64 (records,).
        trace: of each run, at the nearest minimum, float64 (records, runs).
        companion: likewise.
        excess: nats above the entropy, where the run is, float64 (records, runs).
    """

    times: Floats
    trace: Floats
    companion: Floats
    excess: Floats


class Slope(NamedTuple):
    """Predicted and measured fall of the trace, each times B: per unit of t / B.

    Attributes:
        start: which minimum: "random", "rescaled" or "flattest".
        rate: eta.
        batch: B.
        predicted: slope of Tr H over the records, by the theorem's flow.
        measured: the same slope of the runs, standard error over them.
        companion: measured slope of the scale-invariant companion.
        excess_nats: mean loss above the entropy at the records.
    """

    start: str
    rate: float
    batch: int
    predicted: float
    measured: Estimate
    companion: Estimate
    excess_nats: Estimate


class Limit(NamedTuple):
    """Measured slopes extrapolated to rate 0.

    Attributes:
        start: which minimum.
        predicted: slope of Tr H.
        measured: the slope at rate 0, its standard error from those of the slopes.
        ratio: measured over predicted; None where the prediction is zero.
    """

    start: str
    predicted: float
    measured: Estimate
    ratio: Estimate | None


class DriftStudy(NamedTuple):
    """Everything the simulation found.

    Attributes:
        slopes: one a start, rate and batch size.
        limits: one a start.
        path: every record, for the figure.
        overprediction: squared norm of the unprojected gradient over that of the projected one
            at the random minimum.
        starts: trace, companion and weight norm of each start.
    """

    slopes: tuple[Slope, ...]
    limits: tuple[Limit, ...]
    path: tuple[PathPoint, ...]
    overprediction: float
    starts: tuple[Start, ...]


class PathPoint(NamedTuple):
    """One record: the trace that the flow has, and the mean over runs."""

    start: str
    rate: float
    batch: int
    time_per_batch: float
    predicted: float
    measured: Estimate


class Start(NamedTuple):
    """A minimum from which runs start."""

    name: str
    trace: float
    companion: float
    weight_norm: float
    excess_nats: float


def simulate(
    language: Bigram,
    start: Parameters,
    *,
    rate: float,
    batch: int,
    horizon: float,
    runs: int,
    seed: int | Sequence[int],
) -> Drift:
    """SGD of a constant rate from a minimum, with fresh pairs at every step.

    Args:
        language: what is learned.
        start: where all runs begin.
        rate: eta.
        batch: B, pairs in a step.
        horizon: the last t / B.
        runs: simulated side by side.
        seed: of the pairs.

    Returns:
        Records at equal distances.
    """
    rng = np.random.default_rng(seed)
    words = len(language.stationary)
    pairs = (language.stationary[:, None] * language.transition).ravel()
    left, right = (np.repeat(x[None], runs, axis=0) for x in start)
    steps = round(horizon * batch / rate**2)
    due = np.linspace(0, steps, RECORDS + 1).round().astype(int)[1:]
    recorded: list[tuple[Floats, Floats, Floats]] = []
    for step in range(1, steps + 1):
        counts = rng.multinomial(batch, pairs, size=runs).reshape(runs, words, words)
        wrong = (counts.sum(axis=2, keepdims=True) * softmax(left @ right) - counts) / batch
        left, right = (
            left - rate * wrong @ right.swapaxes(1, 2),
            right - rate * left.swapaxes(1, 2) @ wrong,
        )
        if step == due[len(recorded)]:
            here = Parameters(left, right)
            recorded.append(
                (*traces(language, onto_minima(language, here)), excess_loss(language, here))
            )
    trace, companion, excess = (np.stack(column) for column in zip(*recorded, strict=True))
    return Drift(times=due * rate**2, trace=trace, companion=companion, excess=excess)


def drift_study(
    *,
    words: int = 4,
    rates: Sequence[float] = (0.1, 0.05, 0.025),
    batches: Sequence[int] = (1, 4),
    horizon: float = 4.0,
    runs: int = 128,
    factor: float = 1.5,
    seed: int,
) -> DriftStudy:
    """Measured slopes beside predicted ones from three minima of one language.

    The minima: a random one; the same function with rescaled factors, which has another trace and
    so another drift; and the end of the flow, where the prediction is zero.

    Args:
        words: of the bigram language, and rank of the factors.
        rates: eta, at least two.
        batches: B.
        horizon: of t / B.
        runs: for every rate and batch size.
        factor: of the rescaled start.
        seed: of language, start and runs.
    """
    language = random_bigram(words, seed=seed)
    random = random_minimum(language, rank=words, seed=seed)
    starts = {
        "random": random,
        "rescaled": rescaled(random, factor),
        "flattest": flow(language, random, [FLATTEST_AT])[0],
    }
    times = np.linspace(0.0, horizon, RECORDS + 1)[1:].tolist()
    slopes: list[Slope] = []
    path: list[PathPoint] = []
    for place, (name, start) in enumerate(starts.items()):
        predicted = np.array([traces(language, p).trace for p in flow(language, start, times)])
        for batch in batches:
            for number, rate in enumerate(rates):
                found = simulate(
                    language, start, rate=rate, batch=batch, horizon=horizon, runs=runs,
                    seed=[seed, place, batch, number],
                )  # fmt: skip
                slopes.append(_slope(name, rate, batch, predicted, found))
                path += [
                    PathPoint(name, rate, batch, time, float(p), mean(t))
                    for time, p, t in zip(times, predicted, found.trace, strict=True)
                ]
    gradient = trace_gradient(language, random)
    return DriftStudy(
        slopes=tuple(slopes),
        limits=tuple(limit([s for s in slopes if s.start == name]) for name in starts),
        path=tuple(path),
        overprediction=float((gradient.full**2).sum() / (gradient.tangent**2).sum()),
        starts=tuple(_start(language, name, start) for name, start in starts.items()),
    )


def limit(slopes: Sequence[Slope]) -> Limit:
    """Slopes of one start at rate 0: a line in the rate for every batch size, one intercept.

    Weighted by the standard errors; what is left of order eta^2 is not in its standard error.

    Args:
        slopes: of one start; at least two rates a batch size.
    """
    batches = sorted({s.batch for s in slopes})
    design = np.array([[1.0, *(s.rate * (s.batch == b) for b in batches)] for s in slopes])
    value = np.array([s.measured.value for s in slopes])
    error = np.array([s.measured.stderr for s in slopes], dtype=np.float64)
    covariance = np.linalg.inv(design.T @ (design / error[:, None] ** 2))
    intercept = (covariance @ design.T @ (value / error**2))[0]
    stderr = float(np.sqrt(covariance[0, 0]))
    n = sum(s.measured.n for s in slopes)
    predicted = slopes[0].predicted
    ratio = None
    if abs(predicted) > NO_SLOPE:
        ratio = Estimate(value=float(intercept / predicted), stderr=stderr / abs(predicted), n=n)
    measured = Estimate(value=float(intercept), stderr=stderr, n=n)
    return Limit(start=slopes[0].start, predicted=predicted, measured=measured, ratio=ratio)


def _slope(start: str, rate: float, batch: int, predicted: Floats, found: Drift) -> Slope:
    used = slice(BURN_IN, None)
    time = found.times[used] / batch
    weights = (time - time.mean()) / ((time - time.mean()) ** 2).sum()
    return Slope(
        start=start,
        rate=rate,
        batch=batch,
        predicted=float(weights @ predicted[used]),
        measured=mean(weights @ found.trace[used]),
        companion=mean(weights @ found.companion[used]),
        excess_nats=mean(found.excess[used].mean(axis=0)),
    )


def _start(language: Bigram, name: str, start: Parameters) -> Start:
    found = traces(language, start)
    return Start(
        name=name,
        trace=float(found.trace),
        companion=float(found.companion),
        weight_norm=float(np.linalg.norm(start.flat())),
        excess_nats=float(excess_loss(language, start)),
    )
