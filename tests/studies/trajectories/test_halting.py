"""Halting: planted slopes are covered as often as stated, and the verdicts follow the rule."""

import numpy as np
import pytest

from isoloss.errors import BadData
from isoloss.laws.correlated import draw_errors
from isoloss.studies.trajectories.halting import FEWEST, halts

TOKENS = np.linspace(0.05, 1.0, 24)


def planted(slope, *, sigma=0.002, rho=0.0, seed=0):
    loss = 3.0 - 0.8 * TOKENS**0.5
    noise = sigma * draw_errors((1, len(TOKENS)), rho, np.random.default_rng(seed))[0]
    return loss, 5.0 + slope * (loss - 3.0) + noise


@pytest.mark.parametrize(("slope", "verdict"), [(0.8, "halts"), (-0.8, "leaves")])
def test_the_sign_of_a_clear_slope_is_the_verdict(slope, verdict):
    found = halts(*planted(slope), TOKENS)
    assert found.verdict == verdict
    assert found.low <= slope <= found.high
    # two thirds to the end of 24 even steps from .05 to 1
    assert found.points == int((TOKENS >= 2 / 3).sum())


def test_a_plateau_halts_within_a_margin_and_is_undetermined_without_one():
    loss, flat = planted(0.0)
    assert halts(loss, flat, TOKENS).verdict == "undetermined"
    assert halts(loss, flat, TOKENS, margin=0.3).verdict == "halts"


def test_what_was_long_before_the_end_does_not_count():
    loss, y = planted(-0.8)
    early = TOKENS < 2 / 3
    assert halts(loss, np.where(early, 9.0, y), TOKENS) == halts(loss, y, TOKENS)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_interval_covers_the_planted_slope_about_as_often_as_it_says(rho):
    runs = [halts(*planted(0.3, rho=rho, seed=seed), TOKENS) for seed in range(400)]
    covered = np.mean([run.low <= 0.3 <= run.high for run in runs])
    # 95% with 4 sd of 400 draws below; eight correlated points tell rho poorly: at .8 we allow 85%
    assert covered >= (0.906 if rho < 0.8 else 0.85)


def test_ordinary_least_squares_where_errors_are_independent():
    from scipy.stats import linregress

    loss, y = planted(0.4, seed=3)
    late = TOKENS >= 2 / 3
    # the same sum of eight float64 products
    assert halts(loss, y, TOKENS).slope == pytest.approx(
        linregress(loss[late], y[late]).slope, rel=1e-9
    )


def test_too_few_checkpoints_or_a_loss_that_stands_still_decide_nothing():
    loss, y = planted(0.8)
    few = halts(loss[-(FEWEST - 1) :], y[-(FEWEST - 1) :], TOKENS[-(FEWEST - 1) :])
    assert few.verdict == "undetermined" and "4 checkpoints" in few.reason
    still = halts(np.full_like(loss, 2.0), y, TOKENS)
    assert still.verdict == "undetermined" and "does not move" in still.reason


def test_an_unknown_loss_is_refused_with_what_to_do():
    loss, y = planted(0.8)
    y[3] = np.nan
    with pytest.raises(BadData, match="every checkpoint") as caught:
        halts(loss, y, TOKENS)
    assert "1 values not finite" in str(caught.value)
    with pytest.raises(BadData):
        halts(loss, y[1:], TOKENS)
