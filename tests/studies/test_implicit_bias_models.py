"""Interventions on planted models: what is compared, how, and what a claim is told."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from isoloss.estimate import Estimate
from isoloss.store import Cell, Store
from isoloss.studies.claims import judge, load_claims
from isoloss.studies.implicit_bias.contrasts import (
    ADVERSARY,
    CONTINUED,
    SGD_ARM,
    WIDER,
    all_contrasts,
    contrast_evidence,
)
from isoloss.studies.implicit_bias.families import SIZES
from isoloss.studies.implicit_bias.models import LOOKUP, over_seeds, trained_models

SIZE = replace(SIZES["_smoke"], steps=400, early=(100, 200), seeds=3, weights=(0.1, 1.0))
CLAIMS = {claim.id: claim for claim in load_claims("implicit-bias")}
SEED_SHIFTS = (-0.001, 0.0, 0.001)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def number(metric, value, stderr=0.0001):
    return {"metric": metric, "value": value, "stderr": stderr, "n": 100, "unit": None}


def model(store, family, run, width, steps, seed, *, distance, trace, ability=None, progress=1.0):
    weights = f"{family} {run} {steps}"
    row = {"family": family, "model": f"bert-w{width}-d1", "run": run, "seed": seed, "step": steps,
           "schedule_progress": progress, "weights_hash": weights, "source": weights}  # fmt: skip
    cells = {
        ("optimum", family): [number("distance_to_optimum_nats", distance)],
        ("fisher_trace", family): [
            number("fisher_trace", trace), number("fisher_trace_scale_invariant", 10 * trace),
            number("weight_norm", 5.0),
        ],
        ("fingerprint", "weights"): [number("weight_norm", 5.0)],
    }  # fmt: skip
    if ability is not None:
        cells["transfer", "task-3"] = [number("accuracy", ability), number("chance", 0.25)]
        cells["task_score", "other"] = [number("accuracy", 0.123)]
    with store.writing():
        store.put_checkpoints([row])
        for (probe, subject), numbers in cells.items():
            cell = Cell(weights_hash=weights, probe=probe, subject=subject, settings={}, numerics=1)
            store.put_cell(cell, numbers, {})


def planted(store, *, adversary_loss=0.004, sharp_loss=0.2):
    """Models whose every difference is known."""
    for seed, shift in enumerate(SEED_SHIFTS):
        # seeds differ by more than any intervention does: only pairs show it
        level = 0.1 * seed

        def put(family, run, width, steps, distance, trace, ability, *, seed=seed, shift=shift,
                level=level, **more):  # fmt: skip
            model(store, family, f"{run}-seed{seed}", width, steps, seed,
                  distance=0.005 + shift + distance, trace=trace * (1 + level),
                  ability=0.5 + level + ability, **more)  # fmt: skip

        wide, narrow = SIZE.wide, SIZE.narrow
        put("hmm", "wide", wide, 400, 0.0, 20.0, 0.05 + 3 * shift)
        put("hmm", "wide-branch200", wide, 200, 0.004, 30.0, 0.02)
        put("hmm", "wide-branch100", wide, 100, 0.05, 40.0, 0.0)
        put("hmm", "wide", wide, 100, 0.5, 99.0, 0.0, progress=0.25)
        put("hmm", "narrow", narrow, 400, 0.002, 7.0, 0.01)
        put("hmm-widened", "narrow", narrow, 400, 0.002, 40.0, 0.01)
        put("hmm-sgd", "wide", wide, 400, 0.3, 10.0, -0.1)
        put("hmm-adversarial-0.1", "wide", wide, 200, adversary_loss, 60.0, -0.03)
        put("hmm-adversarial-1", "wide", wide, 200, sharp_loss, 200.0, -0.2)


def found(store, lookup=None):
    models = trained_models([store], narrow=SIZE.narrow, wide=SIZE.wide)
    return models, all_contrasts(models, SIZE, lookup or {})


def test_only_ends_of_schedules_count_and_narrow_traces_are_those_of_the_widened_copy(store):
    planted(store)
    models, _ = found(store)
    assert {(m.arm, m.width, m.steps) for m in models} == {
        ("adamw", SIZE.wide, 400), ("adamw", SIZE.wide, 200), ("adamw", SIZE.wide, 100),
        ("adamw", SIZE.narrow, 400), ("sgd", SIZE.wide, 400),
        ("adversarial 0.1", SIZE.wide, 200), ("adversarial 1", SIZE.wide, 200),
    }  # fmt: skip
    narrow = [m.trace.value for m in models if m.width == SIZE.narrow]
    assert narrow == pytest.approx([40.0, 44.0, 48.0])
    # the accuracy is the linear probe's, not a task's
    assert all(m.ability is not None and m.ability.value > 0.2 for m in models)


def test_differences_are_those_of_models_of_one_seed(store):
    planted(store)
    _, contrasts = found(store)
    one = contrasts.chosen["hmm", CONTINUED]
    # 100 steps lie outside the band: the longest span inside it is taken
    assert one.compared == "400 less 200 steps, width 32"
    assert one.trace == pytest.approx(np.log([20 / 30] * 3))
    assert one.companion == pytest.approx(one.trace)
    assert one.ability == pytest.approx([3 - 0.3, 3.0, 3 + 0.3])
    low, high = stats.t.interval(0.95, 2, one.ability.mean(), one.ability.std(ddof=1) / np.sqrt(3))
    interval = over_seeds(one.ability)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert contrasts.chosen["hmm", WIDER].trace == pytest.approx(np.log([0.5] * 3))
    # the probe of the other language was not trained
    assert not any(language == "pcfg" for language, _ in contrasts.chosen)


def test_the_largest_weight_that_keeps_the_loss_is_taken_and_never_by_the_ability(store):
    planted(store)
    _, contrasts = found(store)
    assert contrasts.chosen["hmm", ADVERSARY].compared.startswith("adversarial 0.1 ")
    assert ("hmm", ADVERSARY) not in contrasts.outside


def test_where_no_strength_keeps_the_loss_the_claim_is_undetermined(store):
    planted(store, adversary_loss=0.1)
    _, contrasts = found(store)
    assert ("hmm", ADVERSARY) in contrasts.outside
    evidence = contrast_evidence(contrasts, CLAIMS, seed=0)["hmm-adversary-sharpens"]
    finding = judge(CLAIMS["hmm-adversary-sharpens"], evidence)
    assert finding.verdict == "undetermined"
    assert finding.reason.startswith("The control fails")


def test_planted_effects_are_judged_as_they_were_planted(store):
    planted(store)
    _, contrasts = found(store, {"hmm": 0.4})
    verdicts = {
        name: judge(CLAIMS[name], evidence).verdict
        for name, evidence in contrast_evidence(contrasts, CLAIMS, seed=0).items()
    }
    assert verdicts["hmm-continued-training-flattens"] == "confirmed"
    assert verdicts["hmm-continued-training-transfers"] == "confirmed"
    assert verdicts["hmm-size-flattens"] == "confirmed"
    assert verdicts["hmm-adversary-sharpens"] == "confirmed"
    assert verdicts["hmm-adversary-hurts-transfer"] == "confirmed"
    assert not any(name.startswith("pcfg") for name in verdicts)
    assert contrasts.chosen["hmm", SGD_ARM].equal_loss is False


def test_the_lookup_table_has_an_ability_and_no_trace(store):
    planted(store)
    _, contrasts = found(store, {"hmm": 0.4})
    table = contrasts.chosen["hmm", LOOKUP]
    assert np.isnan(table.trace).all()
    assert table.loss == pytest.approx([-(0.005 + s) for s in SEED_SHIFTS])
    assert table.ability == pytest.approx([40 - 100 * (0.55 + 0.1 * i + 3 * s)
                                           for i, s in enumerate(SEED_SHIFTS)])  # fmt: skip


def test_a_model_whose_trace_or_ability_is_missing_is_not_invented(store):
    model(store, "hmm", "a-seed0", SIZE.wide, 400, 0, distance=0.01, trace=5.0)
    model(store, "hmm", "b-seed0", SIZE.narrow, 400, 0, distance=0.01, trace=5.0)
    models, contrasts = found(store)
    (only,) = models
    assert only.ability is None
    assert contrasts.every == ()


def test_two_seeds_of_a_difference_have_an_interval_and_one_has_none():
    assert np.isfinite(over_seeds(np.array([1.0, 2.0])).low)
    assert np.isnan(over_seeds(np.array([1.0])).low)
    assert over_seeds(np.array([1.0, np.nan])).value == 1.0


def test_estimates_keep_their_own_errors(store):
    planted(store)
    models, _ = found(store)
    assert all(isinstance(m.distance, Estimate) and m.distance.n == 100 for m in models)


def test_of_two_weights_inside_the_band_the_larger_one_is_taken(store):
    planted(store, sharp_loss=0.005)
    _, contrasts = found(store)
    assert contrasts.chosen["hmm", ADVERSARY].compared.startswith("adversarial 1 ")
