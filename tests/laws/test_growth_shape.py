"""Linearity and breakthroughness against the formula in plain words, and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadData, BadRequest
from isoloss.laws.growth_shape import growth, smoothed

scores = st.lists(st.floats(0, 1), min_size=3, max_size=12)


@given(scores)
def test_it_is_the_formula(y):
    found = growth(y)
    best, worst = y.index(max(y)), y.index(min(y))
    size = max(y) - min(y)
    improvement = size if best > worst else -size
    steps = [(b - a) ** 2 for a, b in zip(y, y[1:], strict=False)]
    assert found.improvement == improvement
    if improvement == 0:
        assert found == (0, 0, 0)
        return
    mean = np.sqrt(sum(steps) / len(steps))
    assert found.linearity == pytest.approx(improvement / mean, rel=1e-12)
    middle = np.sqrt(np.median(steps))
    if middle > 0:
        assert found.breakthroughness == pytest.approx(improvement / middle, rel=1e-12)
    else:
        assert np.isinf(found.breakthroughness)


@given(scores)
def test_a_score_turned_round_falls_as_far_as_it_rose(y):
    there, back = growth(y), growth(y[::-1])
    if len({*y}) == len(y):  # ties move the places of best and worst
        assert back.improvement == -there.improvement
        assert back.linearity == pytest.approx(-there.linearity, rel=1e-12)


def test_one_large_step_is_a_breakthrough_and_equal_steps_are_linear():
    even, sudden = [0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.21, 0.22, 0.23, 0.6]
    assert growth(even).linearity > growth(sudden).linearity
    assert growth(sudden).breakthroughness > 9 * growth(even).breakthroughness


def test_smoothing_is_the_published_average_and_passes_over_gaps():
    y = [0.3, 0.5, np.nan, 0.1]
    assert smoothed(y, 0.8)[[0, 1, 3]] == pytest.approx([0.3, 0.34, 0.292], rel=1e-12)
    assert np.isnan(smoothed(y)[2])
    assert smoothed([np.nan, 0.4]).tolist()[1] == 0.4
    assert smoothed([0.1, 0.9], 0.0).tolist() == [0.1, 0.9]


def test_errors_say_what_is_missing():
    with pytest.raises(BadData, match=r"shape \(2,\)"):
        growth([0.1, 0.2])
    with pytest.raises(BadData, match="1 not finite"):
        growth([0.1, np.nan, 0.2])
    with pytest.raises(BadRequest, match=r"weight=1\.0"):
        smoothed([0.1], 1.0)
