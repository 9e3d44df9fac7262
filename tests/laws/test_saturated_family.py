"""Saturated runs of a family: found by their own losses, held against the law of the others."""

import numpy as np
import pytest

from isoloss.errors import BadRequest, Refused
from isoloss.laws.correlated import draw_errors
from isoloss.laws.saturated_family import family_saturation, saturated_runs

# read off Fig. 1 of Godey et al. (2024): total parameters and loss of the final checkpoint
# (2.936e11 tokens), then loss and step of the best one
PYTHIA = {
    "14M": (14_067_712, 4.363, 4.360, 35_000),
    "31M": (30_494_720, 3.994, 3.932, 50_000),
    "70M": (70_426_624, 3.635, 3.584, 50_000),
    "160M": (162_322_944, 3.237, 3.177, 75_000),
    "410M": (405_334_016, 2.832, None, None),
    "1B": (1_011_781_632, 2.675, None, None),
    "1.4B": (1_414_647_808, 2.601, None, None),
    "2.8B": (2_775_208_960, 2.482, None, None),
    "6.9B": (6_857_302_016, 2.396, None, None),
    "12B": (11_846_072_320, 2.330, None, None),
}
FINAL, TOKENS_PER_STEP = 2.936e11, 2_097_152
CHINCHILLA = {"B": 410.7, "beta": 0.28, "E": 1.69}


def published():
    """Columns of the ten models: final checkpoints, and the best ones where they are others."""
    rows = [(m, n, FINAL, final) for m, (n, final, _, _) in PYTHIA.items()]
    rows += [(m, n, s * TOKENS_PER_STEP, best) for m, (n, _, best, s) in PYTHIA.items() if best]
    return [list(column) for column in zip(*rows, strict=True)]


def test_gaps_of_the_saturation_papers_models_come_out_to_the_printed_digits():
    small = list(PYTHIA)[:4]
    found = family_saturation(*published(), saturated=small, fixed=CHINCHILLA, rule="squares")
    assert found.fitted == tuple(list(PYTHIA)[4:])
    assert (round(found.law.A, 3), round(found.law.alpha, 5)) == (119.405, 0.24685)
    assert round(100 * found.mean_final.value, 2) == 8.49
    assert round(100 * found.mean_best.value, 2) == 4.69
    for gap in found.gaps:
        assert gap.final.low < gap.final.value < gap.final.high
        assert gap.best.value < gap.final.value
    # of six models within .5% of their law, the interval of a mean of four is some points wide
    assert 0 < found.mean_final.low and found.mean_final.high < 0.2


def level_family(rho, *, seed, runs=8, points=13, sigma=0.02):
    rng = np.random.default_rng(seed)
    loss = 3.0 + sigma * draw_errors((runs, points), rho, rng)
    tokens = np.tile(np.linspace(3e10, 3e11, points), runs)
    return np.repeat(np.arange(runs), points), tokens, loss.ravel()


@pytest.mark.parametrize(("rho", "most"), [(0.0, 0.01), (0.5, 0.1)])
def test_level_ends_are_seldom_called_saturated(rho, most):
    called = [
        one.verdict == "saturated"
        for seed in range(100)
        for one in saturated_runs(*level_family(rho, seed=seed))
    ]
    # .006 and .075 of 4,800 runs; 800 here have a standard error of .003 and .009
    assert np.mean(called) <= most


def test_a_planted_rise_is_found_and_named():
    run, tokens, loss = level_family(0.0, seed=1)
    loss = loss + np.where(run == 3, 0.3 * np.clip(tokens / 3e11 - 0.5, 0, None), 0.0)
    found = {one.run: one for one in saturated_runs(run, tokens, loss)}
    assert [name for name, one in found.items() if one.verdict == "saturated"] == ["3"]
    # the sd of eleven bends of each of eight runs, by the median: within a fifth
    assert found["3"].noise == pytest.approx(0.02, rel=0.25)
    assert found["3"].best_tokens < 2.2e11


def test_the_start_of_a_run_is_no_rise_and_falling_runs_are_kept():
    tokens = np.geomspace(1e8, 3e11, 30)
    loss = 2 + 400 / tokens**0.28
    (one,) = saturated_runs(["a"] * 30, tokens, loss)
    assert (one.verdict, one.rise) == ("not saturated", 0.0)


def test_a_log_is_judged_by_its_own_test():
    rng = np.random.default_rng(0)
    tokens = np.linspace(1e9, 1e11, 800)
    loss = 3 - tokens / 1e11 + 2 * np.clip(tokens / 1e11 - 0.6, 0, None)
    (one,) = saturated_runs(["a"] * 800, tokens, loss + rng.normal(0, 0.02, 800))
    assert one.verdict == "saturated"
    # where the planted loss turns, within a twentieth of training
    assert one.best_tokens == pytest.approx(6e10, abs=5e9)
    assert np.isnan(one.noise)


def test_two_checkpoints_say_nothing():
    (one,) = saturated_runs(["a", "a"], [1e10, 1e11], [2.0, 3.0])
    assert one.verdict == "undetermined"


def test_order_of_rows_and_unknown_losses_change_nothing():
    run, tokens, loss = level_family(0.0, seed=2)
    mixed = np.random.default_rng(0).permutation(len(run))
    again = {one.run: one for one in saturated_runs(run[mixed], tokens[mixed], loss[mixed])}
    assert all(again[one.run] == one for one in saturated_runs(run, tokens, loss))
    more = (np.append(run, 0), np.append(tokens, 2e11), np.append(loss, np.nan))
    assert saturated_runs(*more) == saturated_runs(run, tokens, loss)


def test_best_checkpoints_without_a_term_of_tokens_are_said_to_look_worse():
    # a table of one budget: the law becomes L(N)
    run = np.repeat([f"m{i}" for i in range(6)], 2)
    params = np.repeat(np.geomspace(1e8, 1e10, 6), 2)
    tokens = np.tile([1.5e11, 3e11], 6)
    loss = 1.9 + 400 / params**0.34 + np.where(tokens < 2e11, 0.05, 0.0)
    loss[0] -= 0.2
    found = family_saturation(run, params, tokens, loss, saturated=["m0"])
    assert found.law.form == "params" and found.fitted == tuple(f"m{i}" for i in range(1, 6))
    assert found.gaps[0].best.value < found.gaps[0].final.value
    assert any("no term of the tokens" in note for note in found.notes)
    none = family_saturation(run, params, tokens, loss, saturated=[])
    assert none.gaps == () and np.isnan(none.mean_final.value)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"saturated": ["m9"]}, BadRequest, "not in the table"),
        ({"saturated": [f"m{i}" for i in range(5)]}, Refused, "every run saturates"),
        ({"params": [1e8, 2e8] * 5}, BadRequest, "two sizes"),
        ({"loss": [1.0]}, BadRequest, "different lengths"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(change, error, what):
    columns = {
        "run": np.repeat([f"m{i}" for i in range(5)], 2),
        "params": np.repeat(np.geomspace(1e8, 1e9, 5), 2),
        "tokens": np.tile([1e10, 2e10], 5),
        "loss": np.linspace(4, 3, 10),
    }
    with pytest.raises(error, match=what) as caught:
        family_saturation(**columns | change)
    assert caught.value.remedy
