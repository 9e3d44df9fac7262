"""Shares of token classes by run and by the share of training after which trends are looked for.

Beside each share of the paper's rule stands what the rule finds where there is nothing to find:
driftless series as alike from checkpoint to checkpoint, and as noisy, as this run's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadRequest
from isoloss.laws.correlated import Interval
from isoloss.laws.odds_ratio import block_weights
from isoloss.laws.token_lines import block_of_losses
from isoloss.laws.token_null import lag_ratios, residual_maker, rho_of, simulated, slope_test
from isoloss.laws.token_rule import FEWEST, KINDS, Judge, TrendRule, pooled_rho
from isoloss.laws.token_trend import first_checkpoint, regressor
from isoloss.store.token_series import TokenSeries
from isoloss.studies.trajectories.token_classes import in_order, judged_losses
from isoloss.studies.trajectories.token_runs import Losses, stretch

Codes = NDArray[np.int8]

STARTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
DRAWS = 499
_SAMPLES, _SAMPLE_TOKENS = 8, 1 << 13
_NULL_SERIES, _NULL_SEED = 20_000, 20_230_713


@dataclass(frozen=True, slots=True, kw_only=True)
class StartClasses:
    """Classes of all tokens of a run from one start on.

    Attributes:
        start: share of training.
        checkpoints: used.
        codes: (tokens,) index into KINDS.
    """

    start: float
    checkpoints: int
    codes: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftlessNull:
    """What the rule finds in driftless series fitted to a run.

    Attributes:
        rho: correlation of neighbouring checkpoints, one for all tokens.
        sigma_nats: median over tokens of the spread about a token's own line.
        shares: of each class among such series.
    """

    rho: float
    sigma_nats: float
    shares: dict[str, float]

    @property
    def false_trends(self) -> float:
        """Share called downward or upward."""
        return self.shares["downward"] + self.shares["upward"]


def classes_by_start(
    series: TokenSeries,
    *,
    starts: Sequence[float] = STARTS,
    rule: TrendRule | None = None,
    alpha: float = 0.05,
    band: float = 0.05,
) -> tuple[StartClasses, ...]:
    """Classify every token of a run from several starts on, in one reading.

    The same classes as ``classify_tokens`` gives for each start. One byte a token and start is
    held. Starts that leave fewer than three checkpoints are left out.

    Args:
        series: of the run.
        starts: shares of training.
        rule: how trends are told; the paper's where None. Without false-discovery control, whose
            level depends on all tokens at once.
        alpha: level.
        band: half width of the stagnation band.

    Raises:
        BadRequest: false-discovery control was asked for, or no start leaves three checkpoints.
    """
    chosen = rule or TrendRule()
    if chosen.false_discovery:
        raise BadRequest(
            "several starts at once are judged without false-discovery control",
            asked="false_discovery = True",
            nearest="classify_tokens, one start at a time",
            remedy="leave it out, or classify each start by itself",
        )
    sample = _sample(series) if chosen.trend == "robust" else None
    judges = _judges(series, starts, chosen, alpha, band, sample)
    length = stretch(len(series.steps))

    def one(low: int) -> list[Codes]:
        losses = series.losses(low, min(low + length, series.tokens))
        return [
            judged_losses(judge, losses, first, ends).codes(alpha, strict=True)
            for _, first, ends, judge in judges
        ]

    codes = np.empty((len(judges), series.tokens), dtype=np.int8)
    low = 0
    for parts in in_order(one, range(0, series.tokens, length)):
        for row, part in zip(codes, parts, strict=True):
            row[low : low + len(part)] = part
        low += len(parts[0])
    return tuple(
        StartClasses(start=start, checkpoints=len(series.steps) - first, codes=row)
        for (start, first, _, _), row in zip(judges, codes, strict=True)
    )


def class_shares(
    codes: Codes, block: NDArray[np.integer], *, seed: int, draws: int = DRAWS
) -> dict[str, Interval]:
    """Share of tokens in each class, with a 95% interval over resampled documents.

    Args:
        codes: (tokens,) index into KINDS.
        block: (tokens,) number of each token's document.
        seed: of the resamples.
        draws: resamples.

    Returns:
        Shares of all tokens, percentile intervals; ends are NaN for a single document.
    """
    blocks, kinds = int(block.max()) + 1, len(KINDS)
    place = block.astype(np.int64) * kinds + codes
    counts = np.bincount(place, minlength=blocks * kinds).reshape(blocks, kinds).astype(np.float64)
    share = counts.sum(axis=0) / counts.sum()
    if blocks < 2:
        return {
            kind: Interval(float(v), np.nan, np.nan) for kind, v in zip(KINDS, share, strict=True)
        }
    drawn = block_weights(blocks, draws=draws, rng=np.random.default_rng(seed)) @ counts
    drawn /= drawn.sum(axis=1, keepdims=True)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        kind: Interval(float(share[i]), float(low[i]), float(high[i]))
        for i, kind in enumerate(KINDS)
    }


def driftless_nulls(
    series: TokenSeries, *, starts: Sequence[float] = STARTS, rule: TrendRule | None = None,
    alpha: float = 0.05, band: float = 0.05,
) -> tuple[DriftlessNull, ...]:  # fmt: skip
    """What a rule finds in driftless first-order autoregressions fitted to a run's tokens.

    A line is taken from each token's losses; the correlation is pooled over what is left and freed
    of its bias, the spreads are the tokens' own. A curve left in the losses counts as correlation,
    so that the rate errs on the high side for tokens that still learn.

    Args:
        series: of the run; some tokens, evenly spread, are read.
        starts: shares of training after which trends are looked for.
        rule: the paper's where None.
        alpha: level.
        band: half width of the stagnation band.

    Returns:
        One for each start that leaves three checkpoints, as ``classes_by_start`` has them.

    Raises:
        BadRequest: no start leaves three checkpoints.
    """
    sample = _sample(series)
    judges = _judges(series, starts, rule or TrendRule(), alpha, band, sample)
    return tuple(_null(sample, first, ends, judge, alpha) for _, first, ends, judge in judges)


def _null(
    sample: Losses, first: int, ends: int | None, judge: Judge, alpha: float
) -> DriftlessNull:
    losses = sample[first:].astype(np.float64)
    residual = residual_maker(judge.x) @ losses[:, np.isfinite(losses).all(axis=0)]
    rss = np.einsum("ij,ij->j", residual, residual)
    if not len(rss):
        return DriftlessNull(rho=np.nan, sigma_nats=np.nan, shares=dict.fromkeys(KINDS, np.nan))
    ratios = lag_ratios(residual, rss)
    rho = rho_of(float(ratios.mean()), judge.x) if len(ratios) else 0.0
    sigma = np.sqrt(rss / slope_test(judge.x, rho).residual_size)
    rng = np.random.default_rng(_NULL_SEED)
    drawn = simulated(len(sample), rho, _NULL_SERIES, _NULL_SEED) * rng.choice(sigma, _NULL_SERIES)
    tail = None if ends is None else block_of_losses(drawn[ends:])
    codes = judge.judge(block_of_losses(drawn[first:]), tail).codes(alpha, strict=True)
    counts = np.bincount(codes, minlength=len(KINDS)) / _NULL_SERIES
    return DriftlessNull(
        rho=rho,
        sigma_nats=float(np.median(sigma)),
        shares=dict(zip(KINDS, counts.tolist(), strict=True)),
    )


def _judges(
    series: TokenSeries, starts: Sequence[float], rule: TrendRule, alpha: float, band: float,
    sample: Losses | None,
) -> list[tuple[float, int, int | None, Judge]]:  # fmt: skip
    """Start, its first checkpoint, that of stagnation where it is another one, and the rule."""
    checkpoints = len(series.steps)
    found = []
    for start in starts:
        try:
            first = first_checkpoint((series.tokens, checkpoints), series.steps, start)
        except BadRequest:
            if len(starts) == 1:
                raise
            continue
        x = regressor(None, checkpoints)[first:]
        rho = 0.0
        if rule.trend == "robust" and sample is not None:
            rho = pooled_rho([block_of_losses(sample[first:])], x)
        ends = int(start * checkpoints) if rule.trend == "released" else None
        found.append((start, first, ends, Judge(x=x, rho=rho, alpha=alpha, band=band, rule=rule)))
    if not found:
        raise BadRequest(
            "too few checkpoints for a trend",
            asked=f"{checkpoints} checkpoints of {series.run}, none of the starts leaves {FEWEST}",
            remedy="measure more checkpoints, or name an earlier start",
        )
    return found


def _sample(series: TokenSeries) -> Losses:
    """Losses of evenly spread stretches of tokens, (checkpoints, tokens); of all where few."""
    every = max(series.tokens // _SAMPLES, _SAMPLE_TOKENS)
    parts = [
        series.losses(low, min(low + _SAMPLE_TOKENS, series.tokens))
        for low in range(0, series.tokens, every)
    ]
    return np.concatenate(parts, axis=1)
