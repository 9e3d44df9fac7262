"""Partial correlations among models: oracles, planted truths and traps."""

import math

import numpy as np
import pytest
import statsmodels.api as sm

from isoloss.studies.implicit_bias.correlation import partial_correlation

GROUPS = ["continued"] * 6 + ["size"] * 6 + ["algorithm"] * 6


def models(rng, effect, *, between=0.0):
    size, steps = rng.normal(size=18), rng.normal(size=18)
    shift = between * np.repeat([-1.0, 0.0, 1.0], 6)
    x = size + 0.5 * steps + rng.normal(size=18) + shift
    y = effect * (x - shift) - size + steps + rng.normal(size=18) + shift
    return y, x, np.column_stack([size, steps])


def test_the_value_is_that_of_least_squares_residuals():
    y, x, covariates = models(np.random.default_rng(0), 1.0)
    residuals = [sm.OLS(v, sm.add_constant(covariates)).fit().resid for v in (y, x)]
    found = partial_correlation(y, x, covariates, GROUPS, permutations=99, seed=0)
    assert found.value == pytest.approx(np.corrcoef(*residuals)[0, 1], rel=1e-10)
    assert found.low < found.value < found.high
    assert found.n == 18


def test_a_planted_effect_is_found_and_keeps_its_sign():
    y, x, covariates = models(np.random.default_rng(1), -3.0)
    found = partial_correlation(y, x, covariates, GROUPS, permutations=999, seed=0)
    assert found.high < 0 and found.p_value is not None and found.p_value < 0.01
    assert found.keeps_sign and set(found.without) == set(GROUPS)


def test_without_an_effect_p_is_below_a_twentieth_as_rarely_as_it_should_be():
    rng = np.random.default_rng(2)
    small = sum(
        (partial_correlation(*models(rng, 0.0), GROUPS, permutations=99, seed=s).p_value or 1)
        <= 0.05
        for s in range(200)
    )
    # binomial(200, .05): mean 10, sd 3.1; four of them
    assert small < 10 + 4 * 3.1


def test_a_difference_between_interventions_alone_has_no_small_p():
    rng = np.random.default_rng(3)
    found = [
        partial_correlation(*models(rng, 0.0, between=4.0), GROUPS, permutations=99, seed=s)
        for s in range(40)
    ]
    # across interventions both go together by construction
    assert np.mean([f.value for f in found]) > 0.7
    assert sum((f.p_value or 1) <= 0.05 for f in found) <= 8


def test_fewer_than_twelve_models_are_too_few():
    y, x, covariates = (v[:11] for v in models(np.random.default_rng(0), 1.0))
    found = partial_correlation(y, x, covariates, GROUPS[:11], seed=0)
    assert math.isnan(found.value) and found.p_value is None
    assert found.reason == "too few models: 11 of 12"
    assert not found.keeps_sign


@pytest.mark.parametrize("trap", ["equal abilities", "trace is size"])
def test_where_nothing_is_left_nothing_is_correlated(trap):
    y, x, covariates = models(np.random.default_rng(0), 1.0)
    if trap == "equal abilities":
        y = np.full(18, 0.7)
    else:
        x = 2 * covariates[:, 0] - covariates[:, 1]
    found = partial_correlation(y, x, covariates, GROUPS, permutations=9, seed=0)
    assert math.isnan(found.value) and "nothing to correlate" in found.reason


def test_the_same_seed_gives_the_same_p():
    data = models(np.random.default_rng(0), 0.3)
    one, two = (partial_correlation(*data, GROUPS, permutations=99, seed=1) for _ in range(2))
    assert one == two
