"""SGD at a constant rate: a fall of the trace is told apart from growth of the weights."""

from dataclasses import replace

import numpy as np
import pytest

from isoloss.store import Cell, Store
from isoloss.studies.implicit_bias.constant_rate import (
    constant_rate,
    constant_rate_answer,
    constant_rate_table,
)
from isoloss.studies.implicit_bias.families import SIZES, sgd_steps

SIZE = replace(SIZES["_smoke"], steps=800, seeds=3)
FIRST, LAST = 200, 600


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def put(store, seed, step, *, trace, companion, norm, run="wide"):
    weights = f"{run} {seed} {step}"
    row = {"family": "hmm-sgd", "model": "m", "run": f"{run}-seed{seed}", "seed": seed,
           "step": step, "weights_hash": weights, "source": weights}  # fmt: skip
    numbers = {"distance_to_optimum_nats": 0.005, "fisher_trace": trace,
               "fisher_trace_scale_invariant": companion, "weight_norm": norm}  # fmt: skip
    cell = Cell(
        weights_hash=weights, probe="fisher_trace", subject="hmm-sgd", settings={}, numerics=1
    )
    with store.writing():
        store.put_checkpoints([row])
        rows = [{"metric": m, "value": v, "stderr": 0.0, "n": 9, "unit": None}
                for m, v in numbers.items()]  # fmt: skip
        store.put_cell(cell, rows, {})


def run_of(store, *, companion):
    for seed in range(3):
        wobble = 1 + 0.01 * seed
        put(store, seed, FIRST, trace=10.0, companion=100.0, norm=20.0)
        put(store, seed, LAST, trace=5.0 * wobble, companion=companion * wobble, norm=28.0)
        # what lies between, and branches, are no ends of the comparison
        put(store, seed, 400, trace=99.0, companion=1.0, norm=1.0)
        put(store, seed, LAST, trace=99.0, companion=1.0, norm=1.0, run="wide-branch600")
    found = constant_rate([store], SIZE)
    assert found is not None
    return found


def test_kept_steps_hold_the_rate_constant_and_end_before_it_falls():
    steps = sgd_steps(SIZE)
    assert (steps[2], steps[-1]) == (FIRST, LAST)
    assert steps[-1] <= 0.8 * SIZE.steps and list(steps) == sorted(set(steps))


def test_changes_are_those_between_both_steps_of_each_trunk(store):
    found = run_of(store, companion=50.0)
    assert found.trace == pytest.approx(np.log([0.5, 0.505, 0.51]))
    assert found.norm == pytest.approx(np.log([1.4] * 3))
    assert found.loss == pytest.approx([0.0] * 3)
    table = constant_rate_table(found)
    assert table.rows[0][3] == "0.336 [0.336, 0.336]"


def test_a_fall_of_both_traces_is_said_to_be_one(store):
    assert constant_rate_answer(run_of(store, companion=50.0)).endswith(
        "both traces fall, over seeds."
    )


def test_a_fall_without_the_companion_is_said_to_be_growth_of_the_weights(store):
    answer = constant_rate_answer(run_of(store, companion=100.0))
    assert "growth of the weights may be all of it" in answer


def test_without_runs_nothing_is_said(store):
    assert constant_rate([store], SIZE) is None
