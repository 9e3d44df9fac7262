"""Flags raised for planted faults, and silence on healthy runs."""

import numpy as np
import pytest
import torch

from isoloss.models.fingerprint import ELEMENTS, Facts, flags, outliers, sketch
from isoloss.models.inspect import Shard
from models import tiny


def facts(step, *, run="r", digests=(), weights=None, sketched=None):
    return Facts(
        checkpoint=f"{run}@{step}",
        run=run,
        step=step,
        weights_hash=weights,
        shards=tuple(Shard(name=f"{i}", bytes=1, digest=d) for i, d in enumerate(digests)),
        sketch=sketched,
    )


# sketches


def test_a_sketch_is_the_norm_and_strided_elements_of_each_tensor_by_name():
    b, a = torch.arange(30.0).reshape(5, 6), torch.tensor([3.0, 4.0])
    got = sketch({"b": b, "a": a, "ids": torch.arange(3)})
    assert got.dtype == np.float32
    first, second = got.reshape(2, 1 + ELEMENTS)
    assert first[0] == 5.0
    assert set(first[1:]) == {3.0, 4.0}
    assert second[0] == pytest.approx(np.linalg.norm(np.arange(30.0)), rel=1e-6)
    assert list(second[1:]) == list(np.arange(0, 30, 2))


def test_equal_models_have_equal_sketches_and_others_do_not():
    one, same, other = (sketch(tiny.make("gpt-neox", seed=s)) for s in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_sketch_hardly_depends_on_the_dtype():
    model = tiny.make("llama-tied")
    full = sketch(model)
    half = sketch(model.to(torch.bfloat16))
    # bfloat16 keeps 8 bits: each element is off by at most 2**-9 of itself
    assert np.allclose(full, half, rtol=2**-8, atol=0)


# equal weights and shared shards


def test_equal_weights_at_two_steps_flag_both_and_name_the_other():
    found = flags([facts(0, weights="x"), facts(1, weights="x"), facts(2, weights="y")])
    assert [(f.checkpoint, f.kind) for f in found] == [
        ("r@0", "equal_weights"),
        ("r@1", "equal_weights"),
    ]
    assert "r@1" in found[0].detail


def test_equal_weights_of_two_runs_are_flagged_and_one_listed_twice_is_not():
    two = flags([facts(5, run="a", weights="x"), facts(5, run="b", weights="x")])
    assert [f.checkpoint for f in two] == ["a@5", "b@5"]
    assert flags([facts(5, weights="x"), facts(5, weights="x"), facts(6), facts(7)]) == []


def test_a_shard_of_another_step_is_flagged():
    found = flags(
        [
            facts(1, digests=["a1", "a2", "a3"]),
            facts(2, digests=["b1", "b2", "b3"]),
            facts(3, digests=["b1", "c2", "c3"]),
        ]
    )
    assert [(f.checkpoint, f.kind) for f in found] == [
        ("r@2", "shared_shard"),
        ("r@3", "shared_shard"),
    ]
    assert found[1].detail == "1 of 3 weight files are those of r@2"


def test_a_checkpoint_of_one_file_shares_nothing_or_everything():
    found = flags([facts(1, digests=["a"], weights="x"), facts(2, digests=["a"], weights="x")])
    assert {f.kind for f in found} == {"equal_weights"}


def test_whole_copies_share_no_part():
    found = flags([facts(1, digests=["a", "b"]), facts(2, digests=["a", "b"])])
    assert found == []


# outliers

TENSORS = 12
LOG_STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000]
EVEN_STEPS = list(range(0, 2000, 100))


def trajectory(steps, *, seed, lr, pull=0.0, drift=1.0):
    """Sketches along a noisy descent: drift to a target, noise, and a pull to 0, scaled by lr."""
    rng = np.random.default_rng(seed)
    size = (TENSORS, 50)
    scale = 10.0 ** rng.uniform(-3, 1, (TENSORS, 1))  # tensors of any size
    target, now = rng.standard_normal(size), rng.standard_normal(size)
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = sketched(now * scale)
        rate = lr(step / max(steps))
        now = now + rate * (drift * 0.02 * (target - now) + rng.standard_normal(size) - pull * now)
    return [found[step] for step in steps]


def sketched(weights):
    return sketch({f"{i:02}": torch.from_numpy(row) for i, row in enumerate(weights)})


def flagged(steps, sketches):
    run = [facts(s, sketched=x) for s, x in zip(steps, sketches, strict=True)]
    return [f.checkpoint for f in outliers(run)]


HEALTHY = {
    "constant rate, even steps": (EVEN_STEPS, lambda t: 0.02, 0.0),
    "rate falling to zero, even steps": (EVEN_STEPS, lambda t: 0.02 * (1 - t), 0.0),
    "cosine, log-spaced steps": (LOG_STEPS, lambda t: 0.01 * (1 + np.cos(np.pi * t)), 0.0),
    "constant rate, log-spaced steps": (LOG_STEPS, lambda t: 0.02, 0.0),
    "noise about a fixed point": (EVEN_STEPS, lambda t: 0.1, 1.0),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_runs_raise_no_flag(kind):
    steps, lr, pull = HEALTHY[kind]
    alarms = [flagged(steps, trajectory(steps, seed=s, lr=lr, pull=pull)) for s in range(20)]
    assert sum(map(len, alarms)) == 0


@pytest.mark.parametrize("kind", HEALTHY)
def test_three_checkpoints_of_a_healthy_run_raise_no_flag_either(kind):
    steps, lr, pull = HEALTHY[kind]
    for seed in range(5):  # with three the run has no other detours to compare with
        sketches = trajectory(steps, seed=seed, lr=lr, pull=pull)
        assert not any(flagged([0, 1, 2], sketches[i : i + 3]) for i in range(len(steps) - 2))


@pytest.mark.parametrize("kind", HEALTHY)
@pytest.mark.parametrize("place", [1, 5, 8])
def test_weights_of_another_run_are_flagged_and_their_neighbours_are_not(kind, place):
    steps, lr, pull = HEALTHY[kind]
    for seed in range(5):
        sketches = trajectory(steps, seed=seed, lr=lr, pull=pull)
        stranger = trajectory(steps, seed=1000 + seed, lr=lr, pull=pull)[place]
        # about a fixed point another run is as near as the next checkpoint: only scale shows
        sketches[place] = 30 * sketches[place] if pull else stranger
        assert flagged(steps, sketches) == [f"r@{steps[place]}"]


def test_a_checkpoint_in_the_wrong_place_of_a_steady_run_is_flagged():
    steps = EVEN_STEPS
    sketches = trajectory(steps, seed=0, lr=lambda t: 0.02, drift=3.0)
    sketches[15] = sketches[2]
    assert flagged(steps, sketches) == ["r@1500"]


def test_a_run_of_equal_or_few_checkpoints_is_not_judged():
    still = np.ones(1 + ELEMENTS, dtype=np.float32)
    assert flagged([0, 1, 2, 3], [still] * 4) == []
    assert flagged([0, 1], [still, 9 * still]) == []
    assert flagged([0, 1, 2], [still, 9 * still, still]) == ["r@1"]


def test_the_order_given_does_not_matter_and_unknown_sketches_are_left_out():
    sketches = trajectory(EVEN_STEPS, seed=3, lr=lambda t: 0.02)
    sketches[7] = -sketches[7]
    run = [facts(s, sketched=x) for s, x in zip(EVEN_STEPS, sketches, strict=True)]
    shuffled = [run[i] for i in np.random.default_rng(0).permutation(len(run))]
    assert [f.checkpoint for f in outliers([*shuffled, facts(750)])] == ["r@700"]


def train(seed, steps):
    """Sketches of a small language model really trained on one repeated text, at the steps."""
    model = tiny.make("gpt-neox", seed=seed).train()
    rng = np.random.default_rng(seed)
    # a chain of words that can be learned: each is followed by one of three
    chain = rng.integers(2, tiny.VOCAB, (tiny.VOCAB, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps))
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = sketch(model)
        ids = np.empty((8, 12), dtype=np.int64)
        ids[:, 0] = rng.integers(2, tiny.VOCAB, 8)
        for i in range(1, 12):
            ids[:, i] = chain[ids[:, i - 1], rng.integers(0, 3, 8)]
        batch = torch.from_numpy(ids)
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("steps", [[0, 1, 2, 4, 8, 16, 32, 64, 128, 256], range(0, 257, 16)])
def test_a_real_training_run_raises_no_flag_until_a_stranger_is_put_into_it(steps):
    run, other = train(0, set(steps)), train(1, set(steps))
    assert flagged(list(run), list(run.values())) == []
    middle = list(run)[2]
    run[middle] = other[middle]
    assert flagged(list(run), list(run.values())) == [f"r@{middle}"]
