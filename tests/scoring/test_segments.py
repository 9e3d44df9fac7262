"""Runs of the least cost: as cheap as the cheapest of all cuts, and never over a limit."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isoloss.scoring.segments import cheapest_runs


def padded(lengths, most):
    """Rows padded to the first of a run, with a fixed cost a run and a limit on its rows."""
    sizes = np.array(lengths)

    def cost(starts, end):
        count = end - starts
        return np.where(count > most, np.inf, 5.0 + count * sizes[starts])

    return cost


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=9).map(lambda x: sorted(x, reverse=True)),
    st.integers(1, 9),
)
def test_no_other_cut_costs_less(lengths, most):
    n, cost = len(lengths), padded(lengths, most)
    found = cheapest_runs(n, cost)
    assert [i for run in found for i in run] == list(range(n))
    assert all(len(run) <= most for run in found)

    def total(runs):
        return sum(float(cost(np.array([run.start]), run.stop)[0]) for run in runs)

    cuts = (
        [range(a, b) for a, b in itertools.pairwise((0, *inner, n))]
        for k in range(n)
        for inner in itertools.combinations(range(1, n), k)
    )
    assert total(found) == min(total(runs) for runs in cuts)


def test_nothing_is_cut_into_nothing():
    assert cheapest_runs(0, padded([], 1)) == []
