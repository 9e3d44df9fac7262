"""How many tokens should go into one product? By measured variance and the price of a product.

Of a group of m tokens the relative variance of one draw is a + b / m: b falls with every token,
a is left even of infinitely many, since one gradient or vector is one draw however long the text.
A product costs c + m tokens' work, c being what a call costs before its first token. The error
after a given time goes with (c + m) (a + b / m), which is least at m = sqrt(c b / a). With m = c it
is at most twice the least, whatever a and b: that is where sampling begins, and a pilot measures
a and b only where many draws are still to come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from isoloss.probes.curvature_batches import Rows, split
from isoloss.probes.curvature_estimate import Stop, TraceEstimate, generator
from isoloss.probes.curvature_sampling import FEWEST_GROUPS, Draw, GroupSampler, Tally

# what a call costs before its first token, in seconds and in arithmetic that the time would do.
# Constants, not clock readings: a group's size decides which draws are made, and equal seeds
# must give equal numbers
_CALL_SECONDS = 5e-3
_OPERATIONS_PER_SECOND = {"cpu": 5e10, "cuda": 5e13}
_OPERATIONS_PER_WEIGHT = 6
_PASSES_OVER_WEIGHTS = 16  # tokens' worth of zeroing, reading and writing every parameter

_PILOT = 8  # part of a seed
_SMALL_GROUPS, _LARGE_GROUPS = 6, 3
_DRAWS = 4
_PILOT_PRODUCTS = (_SMALL_GROUPS + _LARGE_GROUPS) * _DRAWS
_TRIAL = 64  # draws before a pilot is thought of
_WORTH_A_PILOT = 4 * _TRIAL  # draws to come

MakeDraw = Callable[[Sequence[Rows]], Draw]


class GroupSize(NamedTuple):
    """What a pilot found.

    Attributes:
        rows: sequences that should go into one product.
        tokens: asked tokens in these, on average.
        variance_left: a, the relative variance of a draw from infinitely many tokens.
        variance_token: b, what a single token adds.
        overhead_tokens: c, the tokens that a call costs before its first one.
    """

    rows: int
    tokens: float
    variance_left: float
    variance_token: float
    overhead_tokens: float


def overhead_tokens(parameters: int, device: torch.device) -> float:
    """Tokens' worth of time that a forward and backward pass takes before its first token."""
    speed = _OPERATIONS_PER_SECOND.get(device.type, _OPERATIONS_PER_SECOND["cpu"])
    return _PASSES_OVER_WEIGHTS + _CALL_SECONDS * speed / (_OPERATIONS_PER_WEIGHT * parameters)


def sample_loss(
    batches: Sequence[Rows],
    make_draw: MakeDraw,
    *,
    rows: int | None,
    trim: bool,
    overhead: float,
    stop: Stop,
    population: bool,
    seed: int,
) -> TraceEstimate:
    """Estimate a trace over batches, in groups of a fitting size.

    Args:
        batches: as read.
        make_draw: gives the draw of a list of groups.
        rows: sequences in a group; None chooses.
        trim: as of :func:`isoloss.probes.curvature_batches.split`.
        overhead: c, in tokens.
        stop: when to stop; the products of a trial and a pilot count.
        population: the error holds the spread between sequences.
        seed: of all draws.

    Returns:
        The trace.
    """
    begin = rows or _balanced(batches, overhead)
    sampler = _sampler(batches, make_draw, begin, trim=trim, population=population, seed=seed)
    if rows is not None:
        return sampler.until(stop)
    trial = sampler.until(replace(stop, max_products=min(_TRIAL, stop.max_products)))
    still = stop.max_products - trial.products - _PILOT_PRODUCTS
    if trial.converged or min(still, _to_come(trial, stop)) < _WORTH_A_PILOT:
        return sampler.until(stop)
    best = group_size(batches, make_draw, trim=trim, overhead=overhead, seed=seed).rows
    if best == begin:
        spent, limit = _PILOT_PRODUCTS, stop.max_products - _PILOT_PRODUCTS
    else:
        spent, limit = _PILOT_PRODUCTS + trial.products, still
        sampler = _sampler(batches, make_draw, best, trim=trim, population=population, seed=seed)
    found = sampler.until(replace(stop, max_products=limit))
    return replace(found, products=found.products + spent)


def _sampler(
    batches: Sequence[Rows],
    make_draw: MakeDraw,
    rows: int,
    *,
    trim: bool,
    population: bool,
    seed: int,
) -> GroupSampler:
    groups = split(batches, rows, trim=trim)
    tokens = [group.tokens for group in groups]
    return GroupSampler(tokens, make_draw(groups), population=population, seed=seed)


def _balanced(batches: Sequence[Rows], overhead: float) -> int:
    """Rows of as many tokens as a call costs, and no more than leave a few groups."""
    rows = sum(len(batch) for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    return max(1, min(round(overhead * rows / tokens), rows // FEWEST_GROUPS))


def _to_come(trial: TraceEstimate, stop: Stop) -> float:
    """Draws that the error of a trial says are still needed."""
    if trial.stderr is None:
        return 0.0
    wanted = max((stop.relative_error or 0.0) * abs(trial.value), stop.absolute_error or 0.0)
    return trial.products * ((trial.stderr / wanted) ** 2 - 1) if wanted > 0 else math.inf


def group_size(
    batches: Sequence[Rows], make_draw: MakeDraw, *, trim: bool, overhead: float, seed: int
) -> GroupSize:
    """Measure the variance of draws from small and from large groups, and choose between them.

    Takes a few dozen draws, which are not used again. The choice is a function of the seed.

    Args:
        batches: as read.
        make_draw: gives the draw of a list of groups.
        trim: as of :func:`isoloss.probes.curvature_batches.split`.
        overhead: c, in tokens.
        seed: of the groups and of their draws.

    Returns:
        The size, at least one row and at most the longest batch.
    """
    rows = sum(len(batch) for batch in batches)
    each = sum(batch.tokens for batch in batches) / rows
    # beyond four times the price of a call there is little left to share
    most = min(max(len(batch) for batch in batches), max(2, math.ceil(4 * overhead / each)))
    if most == 1:
        return GroupSize(1, each, math.nan, math.nan, overhead)
    small = _variance(split(batches, 1, trim=trim), make_draw, _SMALL_GROUPS, seed)
    large = _variance(split(batches, most, trim=trim), make_draw, _LARGE_GROUPS, seed)
    per_token = max(0.0, (small - large) / (1 / each - 1 / (most * each)))
    left = max(0.0, small - per_token / each)
    best = math.sqrt(overhead * per_token / left) / each if left > 0 else most
    chosen = int(np.clip(round(best), 1, most))
    return GroupSize(chosen, chosen * each, left, per_token, overhead)


def _variance(groups: Sequence[Rows], make_draw: MakeDraw, visits: int, seed: int) -> float:
    """Relative variance of one draw, pooled over groups: the spread within them."""
    order = generator(seed, _PILOT, len(groups)).permutation(len(groups))[:visits]
    chosen = [groups[i] for i in order]
    draw = make_draw(chosen)
    tally, squares = Tally([g.tokens for g in chosen], 2), []
    for index in range(len(chosen)):
        values = draw(index, index * _DRAWS, _DRAWS)
        tally.add(index, values)
        squares.append(float(values[:, 0].var(ddof=1)))
    mean = tally.estimate(0, population=False).value
    scale = float(np.mean([(mean * g.tokens) ** 2 for g in chosen]))
    return float(np.mean(squares)) / scale if scale > 0 else 0.0
