"""Is each token still being learned, already learned, being forgotten, or both in turn?

The rule of the paper, token by token and in closed form: a least-squares line through the token's
perplexities, and where it has no slope, whether both ends lie near the average. Beside it a test
that knows that neighbouring checkpoints are alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoloss.errors import BadRequest
from isoloss.laws.correlated import Floats
from isoloss.laws.false_discovery import largest_p
from isoloss.laws.token_lines import Block, block_of_perplexities
from isoloss.laws.token_rule import FEWEST, KINDS, Judge, Judged, TrendRule, pooled_rho
from isoloss.shown import Shown

CHUNK = 1 << 11  # tokens at a time: 2 MB for each array of 150 checkpoints, which stays in cache
_TOKENS_FOR_RHO = 1 << 17
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TokenTrends(Shown):
    """The class of every token.

    Attributes:
        kind: (tokens,) "downward", "upward", "stagnated", "double descent" or "unclassified".
        slope: (tokens,) change of perplexity for one checkpoint (or one unit of ``along``), in
            units of the perplexity at the start; NaN with fewer than four known perplexities.
        p_value: (tokens,) two-sided, of no slope; NaN likewise.
        start: index of the first checkpoint used.
        unknown: tokens whose slope is NaN.
        rho: correlation of neighbouring checkpoints that the test reckons with; 0 where errors
            are taken as independent.
        largest_p: a slope is called a trend up to this p-value; -1 where none is.
        turn_sign: (tokens,) 1 falls then rises, -1 rises then falls, 0 does not turn.
        turn: (tokens,) checkpoint of the turn; -1 where there is none.
        turn_low: (tokens,) first checkpoint of its 95% interval; -1 likewise.
        turn_high: (tokens,) last one.
    """

    kind: NDArray[np.str_]
    slope: Floats
    p_value: Floats
    start: int
    unknown: int
    rho: float
    largest_p: float
    turn_sign: NDArray[np.int8]
    turn: NDArray[np.int64]
    turn_low: NDArray[np.int64]
    turn_high: NDArray[np.int64]

    def shares(self) -> dict[str, float]:
        """Share of all tokens in each class; they sum to one."""
        return {kind: float((self.kind == kind).mean()) for kind in KINDS}


def token_trends(
    perplexity: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    start: float = 0.1,
    alpha: float = 0.05,
    band: float = 0.05,
    along: ArrayLike | None = None,
    rule: TrendRule | None = None,
) -> TokenTrends:
    """Class of each token from its perplexity at every checkpoint.

    From checkpoint j on, the line ``PPL_i / PPL_j = a + b (i - j)`` is fitted. Upward (being
    forgotten): b > 0 with p < ``alpha``. Downward (being learned): b < 0 likewise. Stagnated
    (learned): neither, and the first and the last perplexity lie within 1 +- ``band`` times the
    geometric mean. All others are unclassified.

    The paper's rule takes checkpoints as independent: of driftless series with correlation .5
    between neighbours it calls a quarter a trend, of random walks four fifths. ``rule`` names
    others: ``TrendRule(trend="robust", false_discovery=True, turns=True)`` reckons with the
    correlation, with the number of tokens, and looks for tokens that turn.

    Cost: a million tokens of 150 checkpoints in some seconds, and about 100 MB beside the input,
    which may be a memory map.

    Args:
        perplexity: (tokens, checkpoints) positive; NaN or infinity is unknown. Where the
            perplexity at the start is unknown, the first known one takes its place.
        steps: (checkpoints,) rising; j is the checkpoint whose step is nearest to ``start`` of
            the last one. None leaves out ``start`` of the checkpoints, rounded down.
        start: share of training after which trends are looked for, 0 to below 1.
        alpha: level of the slope's test.
        band: half width of the stagnation band.
        along: (checkpoints,) what the line runs along in place of the checkpoint's number: the
            logarithm of the step, tokens, or the loss; strictly monotone from j on.
        rule: how trends are told; the paper's where None.

    Returns:
        A class, a slope and a p-value for each token.

    Raises:
        BadRequest: shapes that do not fit, or fewer than four checkpoints after the start.
        BadData: a perplexity is zero or negative.

    Reference:
        Xia et al., "Training Trajectories of Language Models Across Scales" (2023), eq. 1.

    >>> found = token_trends([[9, 8, 7, 6, 5.1], [2, 2.01, 2, 1.99, 2]], start=0)
    >>> [str(kind) for kind in found.kind], round(float(found.slope[0]), 3)
    (['downward', 'stagnated'], -0.109)
    """
    table: NDArray[Any] = np.asarray(perplexity)
    chosen = rule or TrendRule()
    first = first_checkpoint(table.shape, steps, start)
    x = regressor(along, table.shape[1])[first:]
    rho = 0.0
    if chosen.trend == "robust":
        rho = pooled_rho(_blocks(table, first, sample=_TOKENS_FOR_RHO), x)
    band_first = int(start * table.shape[1]) if chosen.trend == "released" else None
    judge = Judge(x=x, rho=rho, alpha=alpha, band=band, rule=chosen)
    found = _judged(judge, table, first, band_first)
    limit = alpha
    if chosen.false_discovery:
        limit = largest_p(found.p_value, alpha)
    kinds = np.array(KINDS)[found.codes(limit, strict=not chosen.false_discovery)]
    moved = np.where(found.turn >= 0, first, 0)
    return TokenTrends(
        kind=kinds,
        slope=found.slope,
        p_value=found.p_value,
        start=first,
        unknown=int(np.isnan(found.slope).sum()),
        rho=rho,
        largest_p=limit,
        turn_sign=found.turn_sign,
        turn=found.turn + moved,
        turn_low=found.turn_low + moved,
        turn_high=found.turn_high + moved,
    )


def first_checkpoint(shape: tuple[int, ...], steps: ArrayLike | None, start: float) -> int:
    """Index of the checkpoint from which trends are looked for.

    Args:
        shape: (tokens, checkpoints).
        steps: of the checkpoints, where known.
        start: share of training.

    Raises:
        BadRequest: no table, steps that do not rise, or fewer than four checkpoints are left.
    """
    if len(shape) != 2 or not 0 <= start < 1:
        raise BadRequest(
            "token trends need a table of perplexities and a start between 0 and 1",
            asked=f"an array of shape {shape}, start = {start}",
            remedy="give (tokens, checkpoints) and a share of training such as 0.1",
        )
    count = shape[1]
    first = int(start * count)
    if steps is not None:
        at = np.asarray(steps, dtype=np.float64)
        if at.shape != (count,) or not (np.diff(at) > 0).all():
            raise BadRequest(
                "steps are not one rising number a checkpoint",
                asked=f"shape {at.shape} for {count} checkpoints",
                remedy="sort the checkpoints by step and give each step once",
            )
        first = int(np.argmin(np.abs(at - start * at[-1])))
    if count - first < FEWEST:
        raise BadRequest(
            "too few checkpoints for a trend",
            asked=f"{count} checkpoints, {count - first} of them after the start",
            nearest=f"{FEWEST} after the start",
            remedy="give more checkpoints, or an earlier start",
        )
    return first


def regressor(along: ArrayLike | None, checkpoints: int) -> Floats:
    """What the lines run along, (checkpoints,): the checkpoint's number where nothing is named.

    Raises:
        BadRequest: not one finite number a checkpoint, or not strictly monotone.
    """
    if along is None:
        return np.arange(checkpoints, dtype=np.float64)
    x = np.asarray(along, dtype=np.float64)
    steps = np.diff(x) if x.shape == (checkpoints,) else np.array([0.0])
    if not (np.isfinite(steps).all() and ((steps > 0).all() or (steps < 0).all())):
        raise BadRequest(
            "what trends run along must rise or fall from checkpoint to checkpoint",
            asked=f"shape {x.shape} for {checkpoints} checkpoints",
            nearest="the checkpoint's number, which always rises",
            remedy="leave out checkpoints of equal value, or smooth the loss first",
        )
    return x


def _judged(judge: Judge, table: NDArray[Any], first: int, band_first: int | None) -> Judged:
    def one(low: int) -> Judged:
        block = _block(table, low, first)
        ends = None if band_first is None else _block(table, low, band_first)
        return judge.judge(block, ends)

    with ThreadPoolExecutor(_THREADS) as threads:
        return Judged.joined(list(threads.map(one, range(0, table.shape[0], CHUNK))))


def _block(table: NDArray[Any], low: int, first: int) -> Block:
    part = np.ascontiguousarray(table[low : low + CHUNK, first:].T, dtype=np.float64)
    return block_of_perplexities(part, low)


def _blocks(table: NDArray[Any], first: int, *, sample: int) -> Iterator[Block]:
    """Evenly spread blocks of about ``sample`` tokens in all."""
    starts = range(0, table.shape[0], CHUNK)
    every = max(1, len(starts) * CHUNK // sample)
    for low in starts[::every]:
        yield _block(table, low, first)
