"""The loss of any store: where runs turn, the law of their ends, and the next size."""

from dataclasses import replace

import numpy as np
import pytest

from isoloss.store import Store
from isoloss.store.axis import choose
from isoloss.studies.explained.figures import threshold_figure
from isoloss.studies.explained.laws import ask
from isoloss.studies.explained.points import read
from isoloss.studies.forecasts.loss_section import loss_findings
from isoloss.studies.forecasts.loss_turns import loss_turns
from isoloss.studies.forecasts.next_size import FEWEST_TASKS, next_sizes
from report import stores

SIZES = (1000, 2000, 4000, 8000, 16000)
STEPS = range(20, 620, 20)
NOISE = 0.002


def law(params):
    """The loss of a finished run: E = 1.5, A = 40, alpha = 0.4."""
    return 1.5 + 40 / params**0.4


def trained(path, *, turns=()):
    """Five sizes whose losses fall along training to the law; those of ``turns`` rise again."""
    store = Store.create(path)
    rng = np.random.default_rng(0)
    with store.writing():
        for params in SIZES:
            for step in STEPS:
                point = stores.checkpoint(
                    step, model=f"m{params}", params_total=params,
                    schedule_progress=step / STEPS[-1],
                )  # fmt: skip
                store.put_checkpoints([point])
                done = step / STEPS[-1]
                loss = law(params) + 0.8 * (1 - done) ** 2 + rng.normal(0, NOISE)
                # lowest at half of the training
                loss += 4 * max(done - 0.5, 0) ** 2 if params in turns else 0
                stores.put_loss(store, point, float(loss))
                if step == STEPS[-1]:
                    # at these losses the score is a line of the loss
                    score = 0.9 - 0.12 * float(loss)
                    rows = [stores.row("accuracy", score, 0.005), stores.row("chance", 0.25, 0.0)]
                    stores.put(store, point, "task_score", "quiz", rows, num_fewshot=0)
    return store


@pytest.fixture(scope="module")
def falling(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("falling"))


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("turning"), turns={1000})


def axis(store):
    return choose(store, "heldout:loss_nats_per_token")


def test_a_planted_turn_is_found_with_an_interval_around_it(turning):
    found = {one.run: one for one in loss_turns(turning, axis(turning), seed=0)}
    turned = found["m1000"]
    assert turned.verdict == "saturated"
    # 0.8 (1 - u)^2 + 4 (u - 1/2)^2 is lowest at u = 7/12; tokens are 100 a step
    assert turned.law.onset_low < 7 / 12 * 100 * STEPS[-1] < turned.law.onset_high
    assert {one.verdict for run, one in found.items() if run != "m1000"} <= {
        "still improving", "undetermined",
    }  # fmt: skip


def test_a_saturated_run_has_a_figure_and_no_other_has_one(turning, falling):
    figures = [f.id for f in loss_findings(turning, axis(turning)).figures]
    assert figures[0] == "loss-turns-figure"
    found = loss_findings(turning, axis(turning)).figures[0]
    (rule,) = [row for row in found.rows if row.get("layer") == "rule"]
    assert rule["panel"] == "m1000"
    assert {row["panel"] for row in found.rows} == {"m1000"}
    assert "loss-turns-figure" not in [f.id for f in loss_findings(falling, axis(falling)).figures]


def test_the_forecast_of_the_next_size_covers_the_planted_law(falling):
    (one,) = next_sizes(falling, axis(falling), seed=0).found
    assert (one.params, one.tokens) == (32000, 100 * STEPS[-1])
    loss = one.forecasts[0]
    assert loss.low < law(32000) < loss.high
    assert len(loss.ends) == 5
    # the interval is one for a run: it is wider than the noise of a measurement
    assert loss.high - loss.low > NOISE


def test_the_figure_of_the_law_shows_every_end_the_curve_and_the_forecast_as_hollow(falling):
    figure = next(f for f in loss_findings(falling, axis(falling)).figures if "law" in f.id)
    ends = {row["params"] for row in figure.rows if row.get("forecast") is False}
    assert ends == set(SIZES)
    (hollow,) = [row for row in figure.rows if row.get("forecast") is True]
    assert hollow["low"] < hollow["value"] < hollow["high"]
    curve = [row for row in figure.rows if row.get("layer") == "fit"]
    # the law's curve goes through the forecast at the next size
    assert curve[-1]["params"] == pytest.approx(32000)
    assert curve[-1]["value"] == pytest.approx(hollow["value"], rel=1e-9)


def test_a_run_that_turned_is_left_out_of_the_law_and_named(turning):
    found = loss_findings(turning, axis(turning))
    assert any("leaves out m1000" in line for line in found.not_run)
    (row,) = [
        r for r in next(t for t in found.tables if t.id == "forecasts").rows if r[3] == "loss"
    ]
    assert row[-1] == 4


def test_too_few_runs_have_no_law_and_the_reason_stands_there(tmp_path):
    store = stores.trained(tmp_path)
    found = loss_findings(store, axis(store))
    assert [t.id for t in found.tables] == ["loss-turns"]
    assert any("No law of the loss for toy" in line for line in found.not_run)
    assert {row[2] for row in found.tables[0].rows} == {"undetermined"}


def test_the_flagged_checkpoint_is_asked_nowhere(tmp_path):
    store = stores.trained(tmp_path)
    runs = {one.run: one for one in loss_turns(store, axis(store), seed=0)}
    assert (len(runs["small"].loss), len(runs["large"].loss)) == (3, 2)


def test_the_same_seed_gives_the_same_section(falling):
    one, other = (loss_findings(falling, axis(falling), seed=3) for _ in range(2))
    assert one == other
    assert FEWEST_TASKS >= 1


def test_thresholds_are_drawn_only_where_a_verdict_says_so(tmp_path):
    store = stores.trained(tmp_path)
    reading = read(store, axis(store))
    found = [ask(one, thresholds=3, seed=0) for one in reading.abilities]
    assert threshold_figure(found, loss="loss") is None
    piqa = next(one for one in found if len(one.emergence) == 2)
    (first, law), (second, _) = piqa.emergence.items()
    kink = replace(law, verdict="threshold", threshold=2.5, ci=(2.4, 2.6))
    both = {first: kink, second: replace(kink, verdict="smooth")}
    drawn = threshold_figure([replace(piqa, emergence=both)], loss="loss")
    assert [(r["score"], r["threshold"], r["low"], r["high"]) for r in drawn.rows] == [
        (first, 2.5, 2.4, 2.6)
    ]
