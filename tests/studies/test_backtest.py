"""Back-tests: nothing of a held-out run is read, rivals are what they say, intervals cover."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecast_families import BUDGET, family, loss_of, score_of, store_of
from isoloss.errors import BadRequest, Refused
from isoloss.store import Store
from isoloss.store.imports import import_lm_eval
from isoloss.studies.findings import load, save
from isoloss.studies.forecasts.ability_scores import abilities
from isoloss.studies.forecasts.backtest import backtest, backtest_points, summarise
from isoloss.studies.forecasts.backtest_findings import backtest_findings, backtest_record
from isoloss.studies.forecasts.points import read_each
from isoloss.studies.forecasts.rivals import Target, ladder_loss, ladder_score, rival_scores
from isoloss.studies.forecasts.run_ends import run_ends, with_names
from shared_data import SHARED, needs_shared


def test_nothing_of_the_held_out_run_is_read():
    points = family(0)
    own = pl.col("run") == "m7"
    other = replace(
        points,
        frame=points.frame.with_columns(
            loss=pl.when(own).then(pl.col("loss") + 0.1).otherwise("loss"),
            score=pl.when(own).then(0.1).otherwise("score"),
        ),
    )
    (first,) = backtest_points([points], largest=1, forms=["sigmoid"]).held
    (again,) = backtest_points([other], largest=1, forms=["sigmoid"]).held
    assert first.run == again.run == "m7" and "m7" not in first.fitted
    kept = ("predicted", "low", "high", "loss", "rivals", "fitted", "compute_factor")
    assert all(getattr(first, name) == getattr(again, name) for name in kept)
    assert again.actual == 0.1 and not again.inside


def test_the_largest_runs_are_held_out_one_at_a_time_from_the_largest_down():
    found = backtest_points([family(0)], largest=2, with_rivals=False)
    assert [(one.run, one.form) for one in found.held] == [
        ("m7", "sigmoid"), ("m7", "exponential"), ("m6", "sigmoid"), ("m6", "exponential"),
    ]  # fmt: skip
    assert found.held[0].compute_factor > 1 > found.held[-1].compute_factor
    assert len(found.held[0].fitted) == 7


def test_with_five_runs_nothing_can_be_held_out_and_it_is_said(tmp_path):
    points = family(0, sizes=np.geomspace(1e8, 1e10, 5), checkpoints=4)
    found = backtest_points([points])
    assert found.held == () and len(found.skipped) == 4
    assert found.skipped[0] == "m4: 4 runs remain"
    with pytest.raises(Refused, match="5 others must remain"):
        backtest(store_of(points, tmp_path / "RUN"))


def test_rivals_are_the_last_value_and_a_line_in_log_compute():
    frame = with_names(family(1).frame).filter(pl.col("name") != "m7")
    ends = frame.filter(pl.col("step") == 13)
    target = Target(1.2e10, 1e10, BUDGET)
    got = rival_scores(frame, target, None)
    assert got.last_value == ends.filter(pl.col("name") == "m6")["score"].item()
    x = np.log(6 * ends["params"].to_numpy().astype(float) * ends["tokens"].to_numpy())
    design = np.column_stack([np.ones(7), x])
    start, slope = np.linalg.lstsq(design, ends["score"].to_numpy(), rcond=None)[0]
    assert got.log_compute == pytest.approx(start + slope * np.log(6 * 1.2e10 * BUDGET), abs=1e-9)
    assert got.ladder is None


def test_the_ladder_recovers_its_own_law_from_exact_data():
    # every checkpoint of a run at its final loss: means and moving averages change nothing
    exact = family(2, loss_noise=0.0, noise=0.0)
    final = pl.col("loss").last().over("run")
    frame = with_names(exact.frame).with_columns(
        loss=final, score=1.0 - 0.75 / (1 + np.exp(-4 * (final - 2.6)))
    )
    target = Target(3e10, 3e10 * 0.9, BUDGET)
    loss = ladder_loss(frame, target)
    # a law of 90% of the parameters is the same law with another A
    assert loss == pytest.approx(float(loss_of(3e10, BUDGET)), rel=1e-4)
    # the ideal point lies .00002 off this sigmoid
    assert ladder_score(frame, loss) == pytest.approx(
        1.0 - 0.75 / (1 + np.exp(-4 * (loss - 2.6))), abs=1e-3
    )


@pytest.mark.soak
def test_intervals_cover_what_they_say_on_planted_families():
    held = [
        one
        for seed in range(25)
        for one in backtest_points([family(seed)], forms=["sigmoid"], with_rivals=False).held
    ]
    # 100 forecasts, four of each family: 91 of them when this was written; nominal 90
    assert 0.82 <= summarise(held).coverage <= 0.98


def test_findings_tell_the_numbers_of_the_back_test_and_survive_the_store(tmp_path):
    found = backtest_points([family(3)], largest=2)
    findings = backtest_findings(found, "isoloss forecast RUN --backtest")
    counts = summarise(found.of("sigmoid"))
    assert f"holds {counts.inside} of {counts.pairs}" in findings.answers[0]
    assert f"{100 * counts.mean_absolute_error:.2f} points" in findings.answers[1]
    figure = findings.figures[0]
    drawn = [row for row in figure.rows if row["layer"] == "forecast"]
    assert [row["predicted"] for row in drawn] == [one.predicted for one in found.of("sigmoid")]
    assert all(row["low"] <= row["predicted"] <= row["high"] for row in drawn)
    store = Store.create(tmp_path / "RUN")
    save(findings, store)
    assert load(store)[0].record() == findings.record()
    json.dumps(backtest_record(found), allow_nan=False)


@pytest.fixture(scope="module")
def pythia(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("pythia") / "RUN")
    import_lm_eval(SHARED / "pythia-evals", store)
    return store


@needs_shared
def test_pythia_70m_and_160m_saturate_and_the_larger_sizes_do_not(pythia):
    (points,) = read_each(pythia, [])
    ends, assumed = run_ends(with_names(points.frame), keep_saturated=False)
    out = [end.run.removeprefix("pythia-v1.1-") for end in ends if end.left_out]
    assert out == ["70m", "160m"]
    assert all("saturated" in end.left_out for end in ends if end.left_out)
    assert "schedule of 8 of 8 runs is unknown" in assumed[0]


@needs_shared
def test_the_back_test_on_pythia_gives_the_numbers_of_the_log(pythia):
    tasks = [one.task for one in abilities(pythia, num_fewshot=0) if one.task != "lambada_openai"]
    assert tasks == [
        "arc_challenge", "arc_easy", "logiqa", "mmlu", "piqa", "sciq", "winogrande", "wsc",
    ]  # fmt: skip
    read = read_each(pythia, tasks, num_fewshot=0)
    found = backtest_points(read, forms=["sigmoid"])
    counts = summarise(found.held)
    assert (counts.inside, counts.pairs, found.skipped) == (29, 32, ())
    # points, as printed in LOG.md
    printed = (counts.mean_absolute_error, counts.last_value, counts.log_compute, counts.ladder)
    assert [round(100 * x, 2) for x in printed] == [2.37, 4.57, 2.58, 3.05]
    missed = [(one.ability.task, one.run) for one in found.held if not one.inside]
    assert missed == [
        ("logiqa", "pythia-v1.1-6.9b"),
        ("mmlu", "pythia-v1.1-6.9b"),
        ("wsc", "pythia-v1.1-12b"),
    ]
    assert all(len(one.fitted) == 5 for one in found.held)


@needs_shared
def test_tasks_asked_in_several_ways_must_be_told_apart(pythia):
    with pytest.raises(BadRequest, match="several numbers of examples") as caught:
        backtest(pythia)
    assert caught.value.remedy == "--num-fewshot 0"


def test_the_planted_ability_is_what_the_others_forecast():
    # without noise the forecast is the truth
    (held,) = backtest_points(
        [family(0, loss_noise=0.0, noise=0.0)], largest=1, forms=["sigmoid"]
    ).held
    truth = float(loss_of(held.params, held.tokens))
    assert held.loss == pytest.approx(truth, rel=1e-4)
    assert held.predicted == pytest.approx(float(score_of(truth)), abs=1e-3)
