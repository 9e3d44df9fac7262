"""Flat and sharp solutions of equal loss, counted: traces, and transfer against 1 - 2^-n."""

import numpy as np
import pytest

from isoloss.pretrain.dyck_model import smallest_trace
from isoloss.studies.implicit_bias.dyck import dyck_study


@pytest.fixture(scope="module")
def study():
    return dyck_study(lengths=(6, 8), draws=200, features=10, seed=0)


def test_random_features_are_sharper_at_equal_loss_for_every_seed(study):
    for ratio in study.ratios:
        assert ratio.loss_gap_nats < 1e-15
        assert ratio.flat == pytest.approx(smallest_trace(ratio.length))
        assert 1 < ratio.least <= ratio.typical
        assert ratio.log_ratio.n == 10


def test_flat_features_solve_the_task_as_often_as_the_theorem_promises(study):
    beyond = study.beyond_promise("flat")
    # binomial: the variance is that of 18 independent shares of 200 draws
    assert beyond.stderr == pytest.approx(
        np.sqrt(2 * sum(2.0**-n * (1 - 2.0**-n) for n in range(2, 11)) / 200) / 18
    )
    assert abs(beyond.value) < 4 * beyond.stderr
    missed = [t for t in study.transfer if t.solution == "flat" and not t.keeps_promise]
    # one-sided 97.5% intervals: more than 3 of 18 below would have a chance of .001
    assert len(missed) <= 3


def test_random_features_do_not(study):
    assert study.beyond_promise("random features").value < -0.5
    for examples in (2, 10):
        advantage = study.advantage(examples)
        assert advantage.value - 4 * advantage.stderr > 0.1


def test_intervals_contain_their_share_and_n_is_counted(study):
    for found in study.transfer:
        assert found.low <= found.share <= found.high
        assert found.error.n == found.draws == 200
        assert found.promised == 1 - 2.0**-found.examples


def test_the_same_seed_gives_the_same_counts():
    one, two = (dyck_study(lengths=(6,), examples=(2,), draws=20, features=2, seed=3)
                for _ in range(2))  # fmt: skip
    assert one == two
