"""Checkpoints of equal loss: planted losses and traces, and what may be said of them."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from isoloss.estimate import Estimate
from isoloss.store import Cell, Store
from isoloss.studies.flatness.equal_loss import (
    ALONE,
    OTHER_OPTIMIZER,
    OTHER_RUN,
    OTHER_SIZE,
    equal_loss,
    flatness_findings,
    rank,
)
from isoloss.studies.flatness.loss_pairs import Losses, interval, read_losses
from isoloss.studies.flatness.traced import Candidate, traced

DOCUMENTS, TOKENS = 40, 25


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def number(metric, value, stderr=0.0, n=64):
    return {"metric": metric, "value": value, "stderr": stderr, "n": n, "unit": None}


def put(store, weights, probe, subject, numbers, **settings):
    cell = Cell(weights_hash=weights, probe=probe, subject=subject, settings=settings, numerics=1)
    with store.writing():
        store.put_cell(cell, numbers, {})
    return cell


def checkpoint(store, weights, *, run="a", model="m", step=1, lr=0.1, family="f"):
    row = {"family": family, "model": model, "run": run, "step": step, "lr": lr,
           "weights_hash": weights, "source": f"{run}/{step}"}  # fmt: skip
    with store.writing():
        store.put_checkpoints([row])
    put(store, weights, "fingerprint", "weights", [number("weight_norm", 10.0 + step)])


def trace(store, weights, value, stderr=0.5, companion=100.0, **settings):
    rows = [number("fisher_trace", value, stderr)]
    rows.append(number("fisher_trace_scale_invariant", companion, 2.0))
    put(store, weights, "fisher_trace", "text", rows, **settings)


def corpus(store, weights, losses, *, document=None, context=8):
    """Per-token losses of a corpus, (tokens,) nats."""
    frame = pl.DataFrame(
        {
            "token_id": [0] * len(losses),
            "document": np.repeat(np.arange(DOCUMENTS), TOKENS) if document is None else document,
            "position": [0] * len(losses),
            "bytes": [1] * len(losses),
        }
    )
    cell = Cell(weights_hash=weights, probe="token_loss", subject="text",
                settings={"context": context}, numerics=1)  # fmt: skip
    with store.writing():
        store.put_tokens("text", "layout", frame)
        store.put_token_losses(cell, "layout", losses)
        store.put_cell(cell, [number("loss_nats_per_token", float(np.mean(losses)), 0.5)], {})


def optimum(store, weights, distance, stderr=0.001, family="f"):
    rows = [number("loss_nats_per_token", 2 + distance, 0.05, 500)]
    rows.append(number("distance_to_optimum_nats", distance, stderr, 500))
    put(store, weights, "optimum", family, rows)


def noisy(seed=0):
    rng = np.random.default_rng(seed)
    # texts differ by a nat, which drowns unpaired differences
    by_document = np.repeat(rng.normal(3, 1, DOCUMENTS), TOKENS)
    return rng, (by_document + rng.normal(0, 1, DOCUMENTS * TOKENS)).astype(np.float32)


def candidate(value, stderr=0.1, *, run="a", model="m", step=1):
    return Candidate(
        family="f", model=model, run=run, step=step, weights_hash=f"{run}{step}", lr=None,
        trace=Estimate(value=value, stderr=stderr, n=64), companion=None, weight_norm=None,
    )  # fmt: skip


def test_differences_are_paired_by_document(store):
    rng, losses = noisy()
    other = losses + 0.004 + rng.normal(0, 0.02, len(losses)).astype(np.float32)
    for step, (weights, values) in enumerate({"w1": losses, "w2": other}.items()):
        checkpoint(store, weights, step=step)
        corpus(store, weights, values)
    found = read_losses(store, "f")
    assert found is not None and found.paired
    gap = found.difference("w2", "w1")
    # documents of equal length: the paired t interval of their means
    means = (other.astype(float) - losses).reshape(DOCUMENTS, TOKENS).mean(axis=1)
    low, high = stats.t.interval(
        0.95, DOCUMENTS - 1, means.mean(), means.std(ddof=1) / math.sqrt(DOCUMENTS)
    )
    assert (gap.low, gap.high) == pytest.approx((low, high), rel=1e-6)
    assert gap.inside(0.01)
    # unpaired the spread of the texts would hide everything
    assert not interval(Estimate(value=0.004, stderr=0.2, n=DOCUMENTS)).low > -0.01


def test_the_paired_interval_covers_the_planted_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    unknown = dict.fromkeys("ab", Estimate(value=3.0, stderr=None, n=0))
    inside = 0
    for _ in range(400):
        tokens = rng.integers(10, 40, DOCUMENTS).astype(float)
        base = rng.normal(3, 1, DOCUMENTS)
        shift = rng.normal(0.005, 0.01, DOCUMENTS)
        sums = {"a": tokens * base, "b": tokens * (base + shift)}
        gap = Losses(subject="text", values=unknown, sums=sums, tokens=tokens).difference("b", "a")
        inside += gap.low <= 0.005 <= gap.high
    # binomial, four standard deviations of .011
    assert abs(inside / 400 - 0.95) < 0.044


def test_the_windows_of_a_single_document_are_the_blocks(store):
    _, losses = noisy()
    losses = losses[:64]
    for step, (weights, values) in enumerate({"w1": losses, "w2": losses + 1}.items()):
        checkpoint(store, weights, step=step)
        corpus(store, weights, values, document=np.zeros(64, dtype=int))
    found = read_losses(store, "f")
    assert found is not None and found.tokens is not None
    assert found.tokens.tolist() == [8.0] * 8
    assert found.difference("w2", "w1").value == pytest.approx(1, abs=1e-6)


def test_losses_on_the_familys_language_are_compared_above_its_optimum(store):
    for step, distance in enumerate((0.004, 0.006)):
        checkpoint(store, f"w{step}", step=step)
        optimum(store, f"w{step}", distance)
    found = read_losses(store, "f")
    assert found is not None and not found.paired
    gap = found.difference("w1", "w0")
    half = stats.t.ppf(0.975, 499) * 0.001 * math.sqrt(2)
    assert (gap.low, gap.high) == pytest.approx((0.002 - half, 0.002 + half))


def family_of_three(store):
    for step, (distance, value, stderr) in enumerate(
        [(0.005, 50.0, 0.5), (0.004, 70.0, 0.5), (0.100, 20.0, 0.5)]
    ):
        checkpoint(store, f"w{step}", step=step + 1)
        optimum(store, f"w{step}", distance)
        trace(store, f"w{step}", value, stderr)


def test_only_checkpoints_inside_the_band_share_a_group_and_the_flattest_is_first(store):
    family_of_three(store)
    (group,) = equal_loss(store)
    assert [row.candidate.step for row in group.rows] == [2, 1]
    assert group.rows[0].difference.value == 0.0
    assert [row.rank for row in group.rows] == [2, 1]
    assert [row.candidate.weight_norm for row in group.rows] == [12.0, 11.0]
    assert equal_loss(store, band_nats=0.001) == ()
    (all_of_them,) = equal_loss(store, band_nats=0.2)
    assert len(all_of_them.rows) == 3


def test_the_rest_forms_groups_of_its_own(store):
    for step, distance in enumerate((0.0, 0.001, 0.5, 0.501)):
        checkpoint(store, f"w{step}", step=step + 1)
        optimum(store, f"w{step}", distance)
        trace(store, f"w{step}", 5.0)
    first, second = equal_loss(store)
    assert [row.candidate.step for row in first.rows] == [1, 2]
    assert [row.candidate.step for row in second.rows] == [3, 4]
    # only the first pair is at the optimum, and only there is a Fisher trace the Hessian's
    assert "optimum" in first.label
    assert second.label == "Fisher trace" and "Hessian" not in flatness_findings(store).tables[
        1
    ].note.replace("Hessian's at", "")


def test_traces_that_are_not_surely_different_share_a_rank():
    one, two, three = candidate(10.0), candidate(10.1, step=2), candidate(12.0, step=3)
    assert [r.rank for r in rank([one, two, three], {})] == [1, 1, 3]


@pytest.mark.parametrize(
    ("other", "optimizers", "reason"),
    [
        (candidate(5.0, run="b", model="wide"), {"a": "adamw", "b": "adamw"}, OTHER_SIZE),
        (candidate(5.0, run="b"), {}, OTHER_RUN),
        (candidate(5.0, run="b"), {"a": "adamw"}, OTHER_RUN),
        (candidate(5.0, run="b"), {"a": "adamw", "b": "sgd"}, OTHER_OPTIMIZER),
    ],
)
def test_across_sizes_and_optimizers_there_is_no_rank_but_a_reason(other, optimizers, reason):
    for found in rank([candidate(10.0), other], optimizers):
        assert found.rank is None
        assert found.reason == reason


def test_runs_of_one_model_and_optimizer_are_ranked():
    ranks = rank([candidate(10.0), candidate(5.0, run="b")], {"a": "sgd", "b": "sgd"})
    assert [r.rank for r in ranks] == [2, 1]
    assert rank([candidate(1.0)], {})[0].reason == ALONE


def test_a_branch_is_ranked_with_the_run_it_leaves():
    ranks = rank([candidate(10.0), candidate(5.0, run="a-branch600")], {})
    assert [r.rank for r in ranks] == [2, 1]


def test_untrained_checkpoints_and_other_families_languages_are_left_out(store):
    family_of_three(store)
    checkpoint(store, "w9", step=0, run="b")
    checkpoint(store, "w9", step=0, run="c", family="g")
    checkpoint(store, "w1", step=5, run="c", family="g")  # the same weights in another family
    trace(store, "w9", 1.0)
    rows = [number("fisher_trace", 3.0)]
    put(store, "w1", "fisher_trace", "g", rows)
    series = traced(store)
    # the trace on g's own language is no second series of f
    assert {key for key in series if key[0] == "f"} == {("f", "fisher_trace", "text")}
    assert [c.step for c in series["f", "fisher_trace", "text"]] == [1, 2, 3]
    assert ("g", "fisher_trace", "g") in series


def test_two_settings_of_a_trace_are_not_mixed(store):
    family_of_three(store)
    trace(store, "w0", 1.0, context=512)
    (series,) = traced(store).values()
    assert [c.trace.value for c in series] == [50.0, 70.0, 20.0]


def test_a_store_without_a_trace_has_no_section(store):
    checkpoint(store, "w0")
    optimum(store, "w0", 0.01)
    assert flatness_findings(store) is None


def test_no_sentence_recommends_a_checkpoint_by_its_trace(store):
    family_of_three(store)
    found = flatness_findings(store)
    text = " ".join(found.answers)
    assert "does not follow from a trace" in text
    assert not any(word in text for word in ("recommend", "better", "best", "choose"))
    (table,) = found.tables
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert len(set(table.columns)) == len(table.columns)
    assert table.columns[3] == "Fisher trace (the Hessian's at the optimum)"


def test_traces_without_equal_losses_are_not_compared(store):
    for step, distance in enumerate((0.0, 0.5)):
        checkpoint(store, f"w{step}", step=step)
        optimum(store, f"w{step}", distance)
        trace(store, f"w{step}", 5.0)
    found = flatness_findings(store)
    assert found.tables == ()
    assert "No two checkpoints" in found.answers[0]


def test_a_trace_without_a_standard_error_has_no_interval_and_hides_nothing(store):
    family_of_three(store)
    trace(store, "w0", 50.0, stderr=None)
    (table,) = flatness_findings(store).tables
    assert table.rows[1][3] == 50.0 and table.rows[1][4] is None


def test_abilities_are_drawn_against_the_trace_where_both_were_measured(store):
    family_of_three(store)
    assert flatness_findings(store).figures == ()
    (group,) = equal_loss(store)
    hashes = [row.candidate.weights_hash for row in group.rows]
    for i, weights in enumerate(hashes):
        put(store, weights, "task_score", "quiz", [number("accuracy", 0.5 + 0.1 * i, 0.02)])
    found = flatness_findings(store)
    (figure,) = found.figures
    drawn = {(row["trace"], row["score"], row["low"]) for row in figure.rows}
    assert drawn == {
        (row.candidate.trace.value, 0.5 + 0.1 * i, 0.5 + 0.1 * i - 0.02)
        for i, row in enumerate(group.rows)
    }
    assert "no law judges it" in found.answers[-1] and "no law judges" in figure.note.lower()
