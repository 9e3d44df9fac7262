"""Groups drawn at random: the standard error says how far the mean is from the truth."""

import numpy as np
import pytest
import torch

from curvature_models import causal_batches, tiny_model
from isoloss.probes.curvature_batches import read_batches, split
from isoloss.probes.curvature_estimate import Stop
from isoloss.probes.curvature_groups import group_size, overhead_tokens, sample_loss
from isoloss.probes.curvature_sampling import GroupSampler, Tally

NEVER = 1e-9


class Planted:
    """Groups whose mean sums are known, with skewed draws around them."""

    def __init__(self, seed, groups, *, between=0.5, noise=0.5):
        self.rng = np.random.default_rng(seed)
        self.tokens = self.rng.integers(5, 30, size=groups)
        self.sums = self.tokens * self.rng.gamma(1 / between**2, between**2, size=groups)
        self.noise = noise

    @property
    def truth(self):
        return self.sums.sum() / self.tokens.sum()

    def draw(self, group, first, count):
        shape = 1 / self.noise**2
        values = self.sums[group] * self.rng.gamma(shape, 1 / shape, size=count)
        return np.stack([values, 3 * values], axis=1)


def runs(groups, products, *, population, repeats=120, stop=None):
    stop = stop or Stop(relative_error=NEVER, max_products=products)
    for seed in range(repeats):
        planted = Planted(seed, groups)
        found = GroupSampler(
            planted.tokens.tolist(), planted.draw, population=population, seed=seed
        ).until(stop)
        yield planted, found


@pytest.mark.parametrize(
    ("groups", "products"),
    [(200, 60), (200, 300), (30, 60), (20, 130), (2, 40), (1, 40)],
    ids=["few seen", "most seen", "all once", "three passes and a bit", "two groups", "one group"],
)
def test_the_error_covers_the_loss_over_exactly_these_batches(groups, products):
    z = np.array(
        [(f.value - p.truth) / f.stderr for p, f in runs(groups, products, population=False)]
    )
    # 120 skewed scores: the mean's sd is .09, the spread's .065; few degrees of freedom widen it
    assert abs(z.mean()) < 0.35
    assert 0.8 < z.std() < 1.3


def test_the_error_of_a_population_covers_what_the_groups_were_drawn_from():
    z = np.array([(f.value - 1.0) / f.stderr for _, f in runs(40, 120, population=True)])
    assert abs(z.mean()) < 0.35
    assert 0.8 < z.std() < 1.3
    within = [f.stderr for _, f in runs(40, 120, population=False, repeats=20)]
    over = [f.stderr for _, f in runs(40, 120, population=True, repeats=20)]
    assert np.mean(over) > 1.3 * np.mean(within)


def test_stopping_when_the_error_looks_small_hardly_biases_the_value():
    found = list(runs(500, 0, population=False, stop=Stop(relative_error=0.1), repeats=120))
    relative = np.array([f.value / p.truth - 1 for p, f in found])
    assert all(f.converged and f.products < 1000 for _, f in found)
    assert abs(relative.mean()) < 0.03  # a third of the error that was asked for
    assert 0.8 < relative.std() / 0.1 < 1.25


def test_the_companion_is_measured_by_the_same_draws():
    _, found = next(runs(30, 60, population=False))
    assert found.scale_invariant.value == pytest.approx(3 * found.value, rel=1e-12)
    assert found.scale_invariant.stderr == pytest.approx(3 * found.stderr, rel=1e-12)


def test_draws_joined_in_parts_are_those_taken_at_once():
    values = np.random.default_rng(0).gamma(2, size=(9, 2))
    whole, parts = Tally([4, 6], 2), Tally([4, 6], 2)
    whole.add(0, values)
    for part in (values[:1], values[1:6], values[6:]):
        parts.add(0, part)
    for statistic in (0, 1):
        a, b = (t.estimate(statistic, population=False) for t in (whole, parts))
        assert a.value == pytest.approx(b.value, rel=1e-12)
    single = Tally([4], 2)
    single.add(0, values[:1])
    assert single.estimate(0, population=False).stderr is None
    single.add(0, values[1:])
    error = values[:, 0].std(ddof=1) / 3 / 4
    assert single.estimate(0, population=False).stderr == pytest.approx(error, rel=1e-12)


def pilot(variance_left, variance_token, overhead):
    """The choice for draws of which group size and relative variance are linked as planted."""
    read = read_batches(tiny_model(), causal_batches((48,)))

    def make_draw(groups):
        def draw(group, first, count):
            m = groups[group].tokens
            rng = np.random.default_rng([group, first, len(groups)])
            spread = np.sqrt(variance_left + variance_token / m)
            # signs of equal number: the planted variance without sampling error
            signs = np.resize([1.0, -1.0], count) * np.sqrt((count - 1) / count)
            return np.outer(m * (1 + spread * signs), [1, 1]) + 0 * rng.random()

        return draw

    return group_size(read, make_draw, trim=True, overhead=overhead, seed=0)


def test_the_group_is_as_large_as_variance_and_price_say():
    # sentences of 6 tokens; sqrt(overhead * b / a) tokens are best
    found = pilot(0.02, 1.2, 60)
    assert found.variance_left == pytest.approx(0.02, rel=0.1)
    assert found.variance_token == pytest.approx(1.2, rel=0.1)
    assert found.rows == pytest.approx(np.sqrt(60 * 1.2 / 0.02) / 6, rel=0.15)
    # tokens that add nothing: one sentence; a gradient that says all: as many as can be shared
    assert pilot(0.5, 0.0, 60).rows == 1
    assert pilot(0.0, 3.0, 60).rows == 41


def test_groups_are_cut_within_batches_and_lose_padding():
    read = read_batches(tiny_model(), causal_batches((5, 3)))
    groups = split(read, 2, trim=True)
    assert [len(g) for g in groups] == [2, 2, 1, 2, 1]
    assert sum(g.tokens for g in groups) == sum(r.tokens for r in read)
    first = split(read, 1, trim=True)[0]
    assert first.labels.shape == (1, 2) == first.inputs["input_ids"].shape


def test_a_call_costs_fewer_tokens_the_larger_the_model():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    prices = [overhead_tokens(n, cpu) for n in (10**5, 10**7, 10**9)]
    assert prices == sorted(prices, reverse=True)
    assert overhead_tokens(10**7, gpu) > overhead_tokens(10**7, cpu)


@pytest.mark.parametrize("overhead", [1, 30], ids=["the pilot moves it", "the pilot leaves it"])
def test_a_pilot_changes_the_groups_and_neither_the_target_nor_the_limit(overhead):
    read = read_batches(tiny_model(), causal_batches((60,)))
    sizes = []

    def make_draw(groups):
        sizes.append(max(len(g) for g in groups))

        def draw(group, first, count):
            m = groups[group].tokens
            rng = np.random.default_rng([group, first, len(groups)])
            shape = 1 / (0.1 + 40 / m)
            return np.outer(m * rng.gamma(shape, 1 / shape, size=count), [1, 1])

        return draw

    def estimate(**stop):
        return sample_loss(
            read, make_draw, rows=None, trim=True, overhead=overhead, stop=Stop(**stop),
            population=False, seed=0,
        )  # fmt: skip

    found = estimate(relative_error=0.02)
    assert found.converged and abs(found.value - 1) < 3 * found.stderr
    # trial, the pilot's small and large groups, and then those that it chose
    assert len(sizes) >= 3 and sizes[1] == 1
    limited = estimate(relative_error=NEVER, max_products=700)
    assert limited.products == 700 and not limited.converged
    # too few to be worth a pilot: one size from beginning to end
    sizes.clear()
    assert estimate(relative_error=NEVER, max_products=200).products == 200
    assert len(sizes) == 1
