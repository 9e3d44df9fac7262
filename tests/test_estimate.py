"""Estimates carry an honest standard error, and None where it is unknown."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.estimate import mean, ratio


def test_one_value_has_no_known_standard_error():
    assert mean([3.0]).stderr is None
    assert ratio([3.0], [2.0]).stderr is None


def test_nothing_measured_is_nan_and_not_zero():
    assert math.isnan(mean([]).value)
    assert mean([]).n == 0
    assert math.isnan(ratio([], []).value)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_ratio_over_equal_blocks_is_the_mean(values):
    got, want = ratio(values, np.ones(len(values))), mean(values)
    # sums of at most 30 float64 terms below 100
    assert got.value == pytest.approx(want.value, rel=1e-12, abs=1e-12)
    assert got.stderr == pytest.approx(want.stderr, rel=1e-9, abs=1e-12)


def test_the_standard_error_of_a_ratio_covers_planted_truth():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(400):
        lengths = rng.integers(50, 200, size=40)
        totals = 1.25 * lengths + rng.standard_normal(40) * np.sqrt(lengths)
        got = ratio(totals, lengths)
        z.append((got.value - 1.25) / got.stderr)
    # 400 z-scores of a t with about 39 degrees of freedom: sd 1.03, sd of their mean 0.05
    assert abs(np.mean(z)) < 0.2
    assert 0.92 < np.std(z) < 1.15
