"""A trace as a mean over groups of sequences, each measured by a few random draws.

The curvature of a loss over many sequences is the mean of its sequences' own. An independent
probe for each group costs what one probe for all groups costs, and averages as many independent
values as there are groups. Groups come in random order, so that the mean can stop before it has
seen all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadRequest
from isoloss.estimate import Estimate, ratio
from isoloss.probes.curvature_estimate import (
    FEWEST_DRAWS,
    Stop,
    TraceEstimate,
    check_finite,
    generator,
)

Floats = NDArray[np.float64]

Draw = Callable[[int, int, int], Floats]
"""Of a group: given its index, the number of the first draw and how many, (draws, statistics)
sums over the group's tokens, the trace first, then its scale-invariant companion."""

_ORDER = 7  # part of a seed
FEWEST_GROUPS = 16
_FEW = 2  # draws share a forward pass; two tell their own spread


class Tally:
    """Draws by group, and the mean a token with its standard error.

    Args:
        tokens: asked tokens of each group.
        statistics: numbers in a draw.
    """

    def __init__(self, tokens: Sequence[int], statistics: int) -> None:
        self.tokens = np.asarray(tokens, dtype=np.float64)
        shape = (len(self.tokens), statistics)
        self._means, self._squares = np.zeros(shape), np.zeros(shape)
        self._counts = np.zeros(len(self.tokens), dtype=np.int64)

    @property
    def draws(self) -> int:
        """Draws so far."""
        return int(self._counts.sum())

    @property
    def seen(self) -> int:
        """Groups with a draw."""
        return int(np.count_nonzero(self._counts))

    def add(self, group: int, values: Floats) -> None:
        """Take draws of a group, (draws, statistics)."""
        before, more = int(self._counts[group]), len(values)
        count, mean = before + more, values.mean(axis=0)
        step = mean - self._means[group]
        # sums of squares about the mean, joined (Chan, Golub and LeVeque 1983)
        self._squares[group] += ((values - mean) ** 2).sum(0) + step**2 * before * more / count
        self._means[group] += step * more / count
        self._counts[group] = count

    def estimate(self, statistic: int, *, population: bool) -> Estimate:
        """Mean a token.

        For exactly these groups the error is that of the draws, and, until all groups were seen,
        that of which were: two-stage sampling (Cochran 1977, eq. 10.15). For the population that
        the groups were drawn from it is the spread between groups, which holds the draws' own.

        Args:
            statistic: which one.
            population: whether the groups stand for a population.

        Returns:
            Value and standard error; ``n`` counts the draws, of a population the groups.
        """
        seen = self._counts > 0
        mean, tokens = self._means[seen, statistic], self.tokens[seen]
        between = ratio(mean, tokens)
        if population or not seen.any():
            return Estimate(value=between.value, stderr=between.stderr, n=self.seen)
        share = float(tokens.sum() / self.tokens.sum())
        counts = self._counts[seen]
        # a group's squared standard error; unknown of a single draw
        errors = self._squares[seen, statistic] / np.where(
            counts > 1, (counts - 1) * counts, np.nan
        )
        within = float(errors.sum()) / float(tokens.sum()) ** 2
        if self.seen == len(self.tokens):
            square = within
        elif between.stderr is None:
            square = math.nan
        else:
            square = (1 - share) * between.stderr**2 + share * within
        stderr = None if math.isnan(square) else math.sqrt(square)
        return Estimate(value=between.value, stderr=stderr, n=self.draws)


class GroupSampler:
    """Visits groups in random order; can be told to go on.

    Every pass takes the groups in a new order; a pass that is not finished counts as far as it
    went.

    Args:
        tokens: asked tokens of each group.
        draw: measures a group.
        population: add the spread between groups to the error.
        seed: of the order.

    Raises:
        BadRequest: one group cannot stand for a population.
    """

    def __init__(self, tokens: Sequence[int], draw: Draw, *, population: bool, seed: int) -> None:
        if population and len(tokens) < 2:
            raise BadRequest(
                "one sequence says nothing about the spread between sequences.",
                asked="population=True, one group of sequences",
                remedy="give more batches or rows, or population=False for the loss over exactly "
                "these",
            )
        self._tokens, self._draw, self._population, self._seed = tokens, draw, population, seed
        self._tally, self._visits, self._spent = Tally(tokens, 2), 0, 0
        # one pass over few groups gives as many draws as must come before the first stop
        self._each = max(_FEW, -(-FEWEST_DRAWS // len(tokens)))

    def until(self, stop: Stop) -> TraceEstimate:
        """Draw until the trace a token is known well enough.

        At least 32 draws and 16 groups, or all of them, come before the first stop.

        Args:
            stop: when to stop; its limit counts from the sampler's beginning.

        Returns:
            The trace of the mean over tokens, and its scale-invariant companion.

        Raises:
            NonFinite: a draw is NaN or infinite; its probe is named.
        """
        tally, fewest = self._tally, min(FEWEST_GROUPS, len(self._tokens))
        found = tally.estimate(0, population=self._population)
        while tally.draws < stop.max_products:
            if tally.draws >= FEWEST_DRAWS and tally.seen >= fewest and stop.reached(found):
                break
            self._visit(stop.max_products - tally.draws)
            found = tally.estimate(0, population=self._population)
        return TraceEstimate(
            value=found.value,
            stderr=found.stderr,
            n=found.n,
            converged=stop.reached(found),
            products=tally.draws,
            tokens_per_product=self._spent / tally.draws,
            scale_invariant=tally.estimate(1, population=self._population),
        )

    def _visit(self, most: int) -> None:
        turn, place = divmod(self._visits, len(self._tokens))
        if place == 0:
            self._order = generator(self._seed, _ORDER, turn).permutation(len(self._tokens))
        group, first = int(self._order[place]), self._tally.draws
        values = self._draw(group, first, min(self._each, most))
        for number, value in enumerate(values[:, 0], start=first):
            check_finite(float(value), probe=number)
        self._tally.add(group, values)
        self._spent += self._tokens[group] * len(values)
        self._visits += 1
