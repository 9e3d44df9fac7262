"""Runs of several sizes on one grid: as many checkpoints of each, at equal perplexity.

Sizes learn at different speed. What they know is compared where their loss over the whole corpus
is the same; how well the checkpoints at hand allow that is part of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import Refused
from isoloss.laws.correlated import Floats
from isoloss.store.token_series import TokenSeries

Ints = NDArray[np.int64]

LEAST_APART = 0.5  # of the way between two checkpoints
FEWEST_POINTS = 5  # a line through four points is a trend only where it is nearly straight


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The checkpoints of each run that stand for common losses.

    Attributes:
        targets_nats: (points,) falling.
        picks: of each run, (points,) rising numbers of its checkpoints.
        gaps_nats: of each run, (points,) its loss less the target.
    """

    targets_nats: Floats
    picks: tuple[Ints, ...]
    gaps_nats: tuple[Floats, ...]

    @property
    def worst_gap_nats(self) -> float:
        """Largest mismatch of any run at any point."""
        return max(float(np.abs(gap).max()) for gap in self.gaps_nats)

    @property
    def mean_gap_nats(self) -> float:
        """Mean size of the mismatch."""
        return float(np.mean(np.abs(np.concatenate(self.gaps_nats))))

    def of(self, series: TokenSeries, run: int) -> TokenSeries:
        """A run's losses at its checkpoints of the grid alone.

        Args:
            series: of that run.
            run: its number.
        """
        chosen = [int(i) for i in self.picks[run]]
        return replace(
            series,
            steps=tuple(series.steps[i] for i in chosen),
            files=tuple(series.files[i] for i in chosen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """From one perplexity to another, in every run.

    Attributes:
        high_nats: loss at the beginning.
        low_nats: loss at the end.
        begin: of each run, where it passes the beginning, counted in checkpoints; 2.5 is halfway
            in loss between the third and the fourth.
        end: of each run, where it passes the end; -1 where that is less than half a checkpoint
            later, so that the checkpoints cannot tell this fall from its neighbours.
        widest_bracket_nats: largest difference of loss between the two checkpoints that a place
            lies between.
    """

    high_nats: float
    low_nats: float
    begin: tuple[float, ...]
    end: tuple[float, ...]
    widest_bracket_nats: float

    @property
    def name(self) -> str:
        """Both perplexities."""
        return f"perplexity {np.exp(self.high_nats):.4g} to {np.exp(self.low_nats):.4g}"


class LossRange(NamedTuple):
    """Lowest and highest loss that every run passes, in nats per token."""

    low: float
    high: float


def common_range(
    nats: Sequence[Floats], names: Sequence[str], *, ceiling_nats: float = np.inf
) -> LossRange:
    """Losses that every run passes.

    Args:
        nats: loss at each checkpoint of each run, (checkpoints,).
        names: of the runs.
        ceiling_nats: losses above are left out, such as those of models that know no more than how
            frequent each token is.

    Raises:
        Refused: two runs have no loss in common, and both are named; or a run never gets below
            the ceiling.
    """
    lows = [float(loss.min()) for loss in nats]
    highs = [float(loss.max()) for loss in nats]
    late, early = int(np.argmax(lows)), int(np.argmin(highs))
    if lows[late] >= ceiling_nats:
        raise Refused(
            f"run {names[late]} never knows more than how frequent tokens are.",
            asked=f"it ends at {lows[late]:.4g} nats, frequencies alone give {ceiling_nats:.4g}",
            remedy="train it longer, or leave it out",
        )
    if lows[late] >= highs[early]:
        raise Refused(
            f"runs {names[late]} and {names[early]} have no loss in common.",
            asked=f"{names[late]} ends at {lows[late]:.4g} nats, "
            f"{names[early]} begins at {highs[early]:.4g}",
            remedy="measure earlier checkpoints of the larger run, or train the smaller one longer",
        )
    return LossRange(lows[late], min(highs[early], ceiling_nats))


def equal_grid(
    nats: Sequence[Floats], names: Sequence[str], *, ceiling_nats: float = np.inf,
    fewest: int = FEWEST_POINTS,
) -> Grid:  # fmt: skip
    """As many checkpoints of every run, at equal loss.

    The targets are the losses of the run that has fewest checkpoints in the common range. Of each
    other run those checkpoints are taken, each once and in order, whose losses are nearest to the
    targets in the sum of squares.

    Args:
        nats: loss at each checkpoint of each run, (checkpoints,).
        names: of the runs.
        ceiling_nats: losses above are left out.
        fewest: points that the grid must have.

    Raises:
        Refused: no common range, or too few checkpoints of a run in it.
    """
    low, high = common_range(nats, names, ceiling_nats=ceiling_nats)
    inside = [np.flatnonzero((loss >= low) & (loss <= high)) for loss in nats]
    short = int(np.argmin([len(own) for own in inside]))
    if len(inside[short]) < fewest:
        raise Refused(
            f"run {names[short]} has too few checkpoints in the losses that all runs pass.",
            asked=f"{len(inside[short])} between {low:.4g} and {high:.4g} nats",
            nearest=f"{fewest} at least",
            remedy="measure more checkpoints of it, or leave the run out",
        )
    own = nats[short][inside[short]]
    # a loss that rises for a while has no order: the lowest so far stands for it
    targets = np.minimum.accumulate(own)
    picks = tuple(
        inside[short] if i == short else nearest_in_order(loss, targets)
        for i, loss in enumerate(nats)
    )
    gaps = tuple(loss[pick] - targets for loss, pick in zip(nats, picks, strict=True))
    return Grid(targets_nats=targets, picks=picks, gaps_nats=gaps)


def nearest_in_order(nats: Floats, targets: Floats) -> Ints:
    """Rising numbers of the checkpoints whose losses are nearest to the targets, each used once.

    The smallest sum of squared differences of all such choices, by dynamic programming.

    Args:
        nats: (checkpoints,) at least as many as targets.
        targets: (points,) falling.
    """
    points, checkpoints = len(targets), len(nats)
    cost = (targets[:, None] - nats[None, :]) ** 2
    best = np.full((points + 1, checkpoints + 1), np.inf)
    best[0] = 0.0
    for p in range(1, points + 1):
        for c in range(p, checkpoints + 1):
            best[p, c] = min(best[p, c - 1], best[p - 1, c - 1] + cost[p - 1, c - 1])
    chosen = np.empty(points, dtype=np.int64)
    c = checkpoints
    for p in range(points, 0, -1):
        while best[p, c] == best[p, c - 1]:
            c -= 1
        chosen[p - 1] = c - 1
        c -= 1
    return chosen


def falls(
    nats: Sequence[Floats], names: Sequence[str], *, ceiling_nats: float = np.inf, pairs: int = 3
) -> tuple[Fall, ...]:
    """Pairs of perplexities one after another that cut the common range evenly in nats.

    Args:
        nats: loss at each checkpoint of each run, (checkpoints,).
        names: of the runs.
        ceiling_nats: losses above are left out.
        pairs: how many.

    Raises:
        Refused: two runs have no loss in common.
    """
    low, high = common_range(nats, names, ceiling_nats=ceiling_nats)
    levels = np.linspace(high, low, pairs + 1)
    places = [np.array([passes(loss, level) for level in levels]) for loss in nats]
    found = []
    for k, (begin, end) in enumerate(pairwise(levels)):
        ends = tuple(
            float(own[k + 1]) if own[k + 1] - own[k] >= LEAST_APART else -1.0 for own in places
        )
        brackets = [
            abs(loss[int(own[at])] - loss[int(np.ceil(own[at]))])
            for loss, own in zip(nats, places, strict=True)
            for at in (k, k + 1)
        ]
        found.append(
            Fall(
                high_nats=float(begin),
                low_nats=float(end),
                begin=tuple(float(own[k]) for own in places),
                end=ends,
                widest_bracket_nats=float(max(brackets)),
            )
        )
    return tuple(found)


def passes(nats: Floats, level: float) -> float:
    """Where a run first comes down to a loss, counted in checkpoints and linear between two.

    Args:
        nats: (checkpoints,) loss, the lowest of which is not above the level.
        level: the loss.
    """
    after = int(np.argmax(nats <= level))
    # the level may be the lowest loss itself, but for the last digit
    if nats[after] > level:
        return float(np.argmin(nats))
    if after == 0:
        return 0.0
    before = nats[after - 1]
    return after - 1 + float((before - level) / (before - nats[after]))
