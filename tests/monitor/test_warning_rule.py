"""The warning's rule on planted runs: it speaks when both signs are there, and else it does not."""

import re

import numpy as np
import pytest

from isoloss.errors import BadRequest
from isoloss.monitor import ForecastBand, WarningRule
from isoloss.monitor.warning_rule import saturating, upward_change

STEPS = list(range(100, 6_100, 100))


def run_of(seed, *, jump_at=None, turn_at=None, noise=0.01):
    """60 looks: anisotropy .2, to .8 at a look; a falling loss, that stops falling at a look."""
    rng = np.random.default_rng(seed)
    looks = np.arange(60)
    anisotropy = 0.2 + 0.01 * rng.standard_normal(60)
    if jump_at is not None:
        anisotropy[jump_at:] += 0.6
    falling = 3.0 + 2.0 * (looks + 1.0) ** -0.5 - 0.01 * looks
    if turn_at is not None:
        falling[turn_at:] = falling[turn_at] + 0.01 * (looks[turn_at:] - turn_at)
    return anisotropy, falling + noise * rng.standard_normal(60)


def first_warning(anisotropy, loss, rule=None):
    for k in range(1, 61):
        found = saturating(STEPS[:k], anisotropy[:k], loss[:k], rule)
        if found:
            return k, found
    return None


@pytest.mark.parametrize("seed", range(10))
def test_a_jump_with_a_turn_is_warned_about_at_its_own_step_soon_after(seed):
    k, found = first_warning(*run_of(seed, jump_at=30, turn_at=28))
    assert found.step == STEPS[30]
    assert 34 <= k <= 40
    assert re.search(r"rose from 0\.(19|20)\d to 0\.(79|80).*not falling", found.reason)


def test_neither_sign_alone_is_warned_about():
    # 40 runs of 60 looks each: a warning in none
    for seed in range(20):
        assert first_warning(*run_of(seed, jump_at=30)) is None
        assert first_warning(*run_of(seed, turn_at=28)) is None
    assert first_warning(*run_of(0)) is None


def test_looks_without_a_loss_or_a_finite_state_are_passed_over():
    anisotropy, loss = run_of(1, jump_at=30, turn_at=28)
    whole = first_warning(anisotropy, loss)
    loss[5], anisotropy[7] = np.nan, np.nan
    assert first_warning(anisotropy, loss)[1].step == whole[1].step


def test_the_change_is_the_split_of_least_squared_error():
    values = np.random.default_rng(0).standard_normal(30)
    values[17:] += 3
    by_hand = min(range(4, 27), key=lambda k: values[:k].var() * k + values[k:].var() * (30 - k))
    found = upward_change(values, 4)
    assert found.look == by_hand
    assert found.after - found.before == pytest.approx(
        values[by_hand:].mean() - values[:by_hand].mean()
    )
    assert upward_change(-values, 4) is None or upward_change(-values, 4).z < 5
    assert upward_change(values[:7], 4) is None


def test_a_band_is_linear_between_its_steps_and_silent_outside():
    band = ForecastBand(steps=[100, 200], low=[3.0, 2.0], high=[3.5, 2.5])
    assert band(150) == (2.5, 3.0)
    assert all(np.isnan(band(99))) and all(np.isnan(band(201)))
    with pytest.raises(BadRequest, match="exchange"):
        ForecastBand(steps=[1], low=[2.0], high=[1.0])
    with pytest.raises(BadRequest, match="none twice"):
        ForecastBand(steps=[1, 1], low=[1.0, 1.0], high=[2.0, 2.0])


def test_a_rule_without_looks_on_both_sides_is_refused():
    with pytest.raises(BadRequest, match="memory at least 8"):
        WarningRule(side=4, memory=6)
