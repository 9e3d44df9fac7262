import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.estimate import Estimate, mean
from isoloss.tasks.native import jackknife, macro


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    # up to 20 values every group is one value, where the two are the same number
    assert jackknife(lambda kept: float(np.mean(kept)), values) == pytest.approx(
        mean(values).stderr, rel=1e-6, abs=1e-9
    )


def test_the_jackknife_is_honest_for_a_perplexity():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(300):
        nats = rng.normal(2.0, 0.5, 200)
        stderr = jackknife(lambda kept: math.exp(float(np.mean(kept))), nats.tolist())
        z.append((math.exp(nats.mean()) - math.exp(2.0)) / stderr)
    # Student t with 19 degrees of freedom has sd 1.057; 300 draws: sd of the sd 0.045, 4 sd
    assert 0.87 < np.std(z) < 1.25


@pytest.mark.parametrize("values", [[], [1.0]])
def test_the_jackknife_of_one_value_is_unknown(values):
    assert jackknife(sum, values) is None


def test_the_jackknife_is_unknown_where_a_part_has_no_value():
    assert jackknife(lambda kept: None, [1.0, 2.0]) is None
    assert jackknife(lambda kept: math.inf, [1.0, 2.0]) is None


def test_macro_weighs_subtasks_equally():
    parts = [Estimate(value=1.0, stderr=0.3, n=90), Estimate(value=0.0, stderr=0.4, n=10)]
    # (1 + 0) / 2; sqrt(0.09 + 0.16) / 2
    assert macro(parts) == Estimate(value=0.5, stderr=0.25, n=100)
    single = Estimate(value=0.0, stderr=None, n=1)
    assert macro([parts[0], single]).stderr is None
