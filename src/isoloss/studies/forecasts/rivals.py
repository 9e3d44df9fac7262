"""What a forecast has to beat: the last value, a line in log compute, and the model ladder."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.special import expit

from isoloss.errors import IsolossError
from isoloss.laws.loss_law import fit_loss_law
from isoloss.studies.forecasts.run_ends import SAME_TOKENS

Floats = NDArray[np.float64]
LAST, WINDOW, FIRST_SHARE = 5, 5, 0.1


class RivalScores(NamedTuple):
    """Forecasts of one run's score by simpler or published means; None where one has none.

    Attributes:
        last_value: the score of the run of the largest compute.
        log_compute: a line in log compute through the final scores.
        ladder: the defaults of Bhagia et al.
    """

    last_value: float | None
    log_compute: float | None
    ladder: float | None


class Target(NamedTuple):
    """The run asked for."""

    params: float
    params_non_embedding: float | None
    tokens: float


def rival_scores(frame: pl.DataFrame, target: Target, ladder_loss: float | None) -> RivalScores:
    """Forecasts from the same runs that the laws are fitted on.

    Args:
        frame: points of the runs that may be used, with ``name``.
        target: the run whose final score is forecast.
        ladder_loss: from :func:`ladder_loss`.
    """
    ends = (
        frame.sort("tokens", nulls_last=False)
        .group_by("name", maintain_order=True)
        .last()
        .drop_nulls(["score", "params", "tokens"])
        .with_columns(compute=6.0 * pl.col("params") * pl.col("tokens"))
        .sort("compute")
    )
    if ends.is_empty():
        return RivalScores(None, None, None)
    line = None
    if ends["compute"].n_unique() > 1:
        slope, start = np.polyfit(np.log(ends["compute"].to_numpy()), ends["score"].to_numpy(), 1)
        line = float(np.clip(start + slope * np.log(6 * target.params * target.tokens), 0, 1))
    ladder = None if ladder_loss is None else ladder_score(frame, ladder_loss)
    return RivalScores(float(ends["score"][-1]), line, ladder)


def ladder_loss(frame: pl.DataFrame, target: Target) -> float | None:
    """Step 1 of a model ladder: the loss of a run from the means of others' last checkpoints.

    Non-embedding parameters, the mean of each run's last five checkpoints, Huber's 1e-3 of log
    residuals. Our loss is a corpus's or a proxy's where theirs is the gold answer's bits per
    byte.

    Args:
        frame: points of the runs used, with ``name``.
        target: the run whose loss is forecast.

    Returns:
        The loss, None where the runs are too few or a size is unknown.

    Reference:
        Bhagia et al. (2024), arXiv:2412.04403, Eq. 1, and its released code.
    """
    runs = _by_run(frame)
    sizes = [run["params_non_embedding"][-1] for run in runs]
    if target.params_non_embedding is None or None in sizes:
        return None
    tokens = np.array([run["tokens"][-1] for run in runs], dtype=np.float64)
    if np.ptp(np.log([*tokens, target.tokens])) < SAME_TOKENS:
        tokens = np.full(len(runs), target.tokens)
    means = [float(np.mean(run["loss"][-LAST:].to_numpy())) for run in runs]
    try:
        law = fit_loss_law(sizes, tokens, means, interval=None)
    except IsolossError:
        return None
    return float(law.predict(target.params_non_embedding, target.tokens))


def ladder_score(frame: pl.DataFrame, loss: float) -> float | None:
    """Step 2 of a model ladder: the score at a loss.

    The sigmoid is scipy's, from the published start and bounds, through all checkpoints less
    the first tenth of each run's number, smoothed by a moving average of five, with the ideal
    point (0, 1).

    Args:
        frame: points of the runs used, with ``name``.
        loss: from :func:`ladder_loss`.

    Returns:
        The score, None where the fit does not end.

    Reference:
        Bhagia et al. (2024), arXiv:2412.04403, Eq. 2, and its released code.
    """
    try:
        theta = _sigmoid(_by_run(frame))
    except RuntimeError:
        return None
    return float(_curve(np.asarray(loss), *theta))


def _by_run(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return [rows.sort("tokens") for _, rows in frame.group_by("name", maintain_order=True)]


def _sigmoid(runs: list[pl.DataFrame]) -> Floats:
    """The parameters (a, L0, k, b) through smoothed checkpoints and the ideal point."""
    loss, score = [np.zeros(1)], [np.ones(1)]
    for run in runs:
        known = run.drop_nulls(["loss", "score"])
        late = known[int(np.ceil(FIRST_SHARE * known.height)) :]
        if late.height:
            window = np.ones(min(WINDOW, late.height)) / min(WINDOW, late.height)
            loss.append(np.convolve(late["loss"].to_numpy(), window, mode="valid"))
            score.append(np.convolve(late["score"].to_numpy(), window, mode="valid"))
    x, y = np.concatenate(loss), np.concatenate(score)
    start = [y.min() - 1.0, 0.9, 3.0, y.max()]
    bounds = ([-1.0, 0.0, 0.0, 0.0], [0.0, np.inf, np.inf, 1.0])
    theta, _ = curve_fit(_curve, x, y, p0=start, bounds=bounds)
    return np.asarray(theta)


def _curve(loss: Floats, a: float, turn: float, steep: float, b: float) -> Floats:
    return np.asarray(a * expit(steep * (loss - turn)) + b)
