"""Forecasts from a store: which runs the laws use, what they answer, and when they refuse."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecast_families import BUDGET, SIZES, family, loss_of, score_of, store_of
from isoloss.errors import BadData, BadRequest, Refused
from isoloss.studies.forecasts.chain import fit_chain
from isoloss.studies.forecasts.forecasting import Family, forecast_run, reach_score

GRID = {
    # seven runs: below eight the law is fitted by least squares, which is quick
    "sizes": [1e8, 1e8, 5e8, 5e8, 4e9, 4e9, 1e9],
    "budgets": [2e10, 3e11, 2e10, 3e11, 2e10, 3e11, 8e10],
    "checkpoints": 5,
    "loss_noise": 0.001,
}
QUIZ = Family(task="quiz")


@pytest.fixture(scope="module")
def one_budget(tmp_path_factory):
    return store_of(family(1, checkpoints=8), tmp_path_factory.mktemp("budget") / "RUN")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return store_of(family(2, **GRID), tmp_path_factory.mktemp("grid") / "RUN")


def changed(points, **columns):
    return replace(points, frame=points.frame.with_columns(**columns))


def test_at_one_budget_the_law_is_of_size_alone_and_covers_the_planted_truth(one_budget):
    got = forecast_run(one_budget, QUIZ, params=3e10)
    assert got.chain.loss_law.form == "params"
    assert got.tokens == pytest.approx(BUDGET, rel=1e-9)
    truth = float(loss_of(3e10, BUDGET))
    assert got.prediction.loss_low < truth < got.prediction.loss_high
    assert got.prediction.low < score_of(truth) < got.prediction.high
    assert got.prediction.compute_factor == pytest.approx(3e10 / SIZES.max())
    assert got.prediction.loss_beyond > 0
    assert any("L(N) at that budget" in note for note in got.notes)
    assert any("schedule of 8 of 8 runs is unknown" in note for note in got.notes)
    assert [one.run for one in got.backtest.held] == ["m7", "m6", "m5", "m4"]


def test_with_several_budgets_the_full_law_answers_at_any(grid):
    got = forecast_run(grid, QUIZ, params=8e9, tokens=6e11, with_backtest=False)
    assert got.chain.loss_law.form == "chinchilla"
    truth = float(loss_of(8e9, 6e11))
    # runs scatter by .1% about the law, of which two rows are to spare
    assert got.prediction.loss == pytest.approx(truth, rel=0.02)
    assert got.prediction.loss_low < truth < got.prediction.loss_high
    with pytest.raises(BadRequest, match="which is asked for") as caught:
        forecast_run(grid, QUIZ, params=4e9, with_backtest=False)
    assert caught.value.remedy == "--tokens D"


def test_one_budget_a_size_gives_a_law_of_compute_along_their_line():
    sizes = np.geomspace(1e8, 4e9, 6)
    chain = fit_chain(family(3, sizes=sizes, budgets=20 * sizes, checkpoints=4))
    assert (chain.loss_law.form, chain.budget) == ("compute", None)
    # 20 tokens a parameter: a slope of one, but for whole tokens
    assert chain.line == pytest.approx((np.log(20), 1.0), abs=1e-6)
    got = chain.predict(1e10, 2e11)
    assert got.loss_low < loss_of(1e10, 2e11) < got.loss_high
    with pytest.raises(Refused, match="along their line") as caught:
        chain.predict(1e10, 1e12)
    assert caught.value.nearest.startswith("2e+11 tokens")


def test_without_a_task_the_loss_alone_is_forecast(one_budget):
    got = forecast_run(one_budget, Family(), params=2e10)
    assert got.prediction.score is None and got.chain.task_law is None
    assert got.prediction.loss_low < loss_of(2e10, BUDGET) < got.prediction.loss_high
    assert all(one.ability is None and one.rivals is None for one in got.backtest.held)


def test_a_run_that_got_worse_is_left_out_unless_it_is_kept():
    points = family(4, rises=[0])
    chain = fit_chain(points)
    assert [end.run for end in chain.ends if end.left_out] == ["m0"]
    assert "saturated" in chain.ends[0].left_out
    assert len(fit_chain(points, keep_saturated=True).fitted) == 8


def test_unfinished_schedules_are_left_out_and_named():
    points = family(5)
    half = changed(
        points,
        schedule_progress=pl.when(pl.col("run") == "m7").then(0.5).otherwise(1.0),
    )
    chain = fit_chain(half)
    assert [end.run for end in chain.ends if end.left_out] == ["m7"]
    assert "unfinished" in chain.ends[-1].left_out
    assert not any("schedule" in note and "unknown" in note for note in chain.notes)
    with pytest.raises(Refused, match="needs 4 finished runs") as caught:
        fit_chain(changed(points, schedule_progress=pl.lit(0.5)))
    assert "m0: its schedule is unfinished (50% done" in caught.value.asked


def test_what_is_needed_for_a_score_scores_it(one_budget, grid):
    at_budget = reach_score(one_budget, QUIZ, 0.83)
    back = forecast_run(one_budget, QUIZ, params=at_budget.params, with_backtest=False)
    # the same two curves, turned round
    assert back.prediction.score == pytest.approx(0.83, abs=1e-6)
    assert at_budget.earliest < at_budget.params
    assert at_budget.safe is None or at_budget.safe > at_budget.params
    size = reach_score(grid, QUIZ, 0.78, tokens=3e11)
    tokens = reach_score(grid, QUIZ, 0.78, params=size.params)
    assert tokens.tokens == pytest.approx(3e11, rel=1e-6)
    assert size.safe > size.params > size.earliest


def test_beyond_thirty_times_the_compute_only_far_answers(one_budget):
    far = 31 * SIZES.max()
    for which in (QUIZ, Family()):
        with pytest.raises(Refused, match="too far beyond") as caught:
            forecast_run(one_budget, which, params=far, with_backtest=False)
        assert "--far" in caught.value.remedy
        got = forecast_run(one_budget, which, params=far, far=True, with_backtest=False)
        assert got.prediction.compute_factor == pytest.approx(31, rel=1e-6)


def test_a_score_that_no_size_reaches_is_unknown_and_not_a_number(one_budget):
    got = reach_score(one_budget, QUIZ, 0.99)
    assert (got.params, got.compute_factor, got.safe) == (None, None, None)
    json.dumps(got.record(), allow_nan=False)


def test_same_seed_same_bits_and_the_record_is_plain_json(one_budget):
    first, again = (forecast_run(one_budget, QUIZ, params=2e10).record() for _ in range(2))
    assert first == again
    plain = json.loads(json.dumps(first, allow_nan=False))
    assert plain["fitted"] == [f"m{i}" for i in range(8)]
    assert plain["backtest"]["of"] == 4


@pytest.mark.parametrize(
    ("asked", "error", "what"),
    [
        ({"params": 2e10, "tokens": 1e12}, Refused, "holds there alone"),
        ({"params": -1.0}, BadRequest, "positive size"),
        ({"params": 2e10, "level": 90.0}, BadRequest, "level lies between"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_can(one_budget, asked, error, what):
    with pytest.raises(error, match=what) as caught:
        forecast_run(one_budget, QUIZ, with_backtest=False, **asked)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("asked", "error", "what"),
    [
        ({"score": 1.2}, BadRequest, "between 0 and 1"),
        ({"score": 0.8, "params": 1e10}, Refused, "what more of them gives is not known"),
        ({"score": 0.8, "tokens": 1e12}, Refused, "holds there alone"),
    ],
)
def test_a_reach_that_cannot_be_answered_says_what_can(one_budget, asked, error, what):
    with pytest.raises(error, match=what):
        reach_score(one_budget, QUIZ, **asked)


@pytest.mark.parametrize(
    ("points", "error", "what"),
    [
        (family(0, sizes=[1e8]), Refused, "needs 4 finished runs of 3 sizes"),
        (family(0, sizes=[1e8] * 6), Refused, "needs 4 finished runs of 3 sizes"),
        (family(0, checkpoints=1), None, ""),
        (changed(family(0), loss=pl.lit(2.0)), Refused, "all losses are equal"),
        (changed(family(0), loss=pl.col("loss") - 5), BadData, "must be positive"),
        (changed(family(0), score=pl.col("score") * 100), BadData, "between 0 and 1"),
        (changed(family(0), params=pl.lit(None, pl.Int64)), Refused, "needs 4 finished runs"),
    ],
)
def test_families_no_law_can_be_fitted_to_are_refused_with_a_remedy(points, error, what):
    if error is None:
        assert len(fit_chain(points).fitted) == 8  # one checkpoint a run is enough
        return
    with pytest.raises(error, match=what) as caught:
        fit_chain(points)
    assert caught.value.remedy
