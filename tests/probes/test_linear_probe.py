"""Many logistic regressions at once, and the linear probe made of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from isoloss.errors import BadData, NonFinite
from isoloss.probes.linear_probe import STRENGTHS, draw_test, linear_probe, log_loss, split
from isoloss.probes.transfer_adamw import ProbeRecipe, adamw_probe
from isoloss.probes.transfer_logistic import Fits, logistic_fits, rotate


def correlated(n: int, d: int, classes: int, seed: int):
    """Features as correlated as those of networks, and labels that follow from them."""
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((d, d)) * np.exp(-np.arange(d) / d * 6)
    x = rng.standard_normal((n, d)) @ axes @ rng.standard_normal((d, d))
    x /= x.std(axis=0)
    scores = x @ rng.standard_normal((d, classes)) * 2 / np.sqrt(d)
    return x, (scores + rng.gumbel(size=(n, classes))).argmax(axis=1)


def fit(x, labels, classes, *, learned=None, ridges) -> tuple[Fits, np.ndarray]:
    """Fits, and the probabilities that they give."""
    rotated = rotate(x)
    learned = np.ones((1, len(x)), dtype=bool) if learned is None else learned
    fits = logistic_fits(rotated, labels, classes, learned=learned, ridges=np.array(ridges))
    return fits, softmax(rotated.logits(x, fits.weight), axis=2)


def by_scikit_learn(x, labels, learned, ridge, classes):
    # one vector of weights for two classes: half the penalty of two opposite ones
    strength = (2 if classes == 2 else 1) / (learned.sum() * ridge)
    peer = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10)
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    return peer.fit(standardised[learned], labels[learned]).predict_proba(standardised)


@pytest.mark.parametrize(("n", "d", "classes"), [(400, 12, 2), (600, 30, 7), (150, 60, 4)])
def test_every_fit_is_the_one_that_scikit_learn_finds(n, d, classes):
    x, labels = correlated(n, d, classes, seed=n)
    learned = np.random.default_rng(1).random((4, n)) < 0.8
    ridges = [1.0, 1e-2, 1e-3, 1e-4]
    fits, probabilities = fit(x, labels, classes, learned=learned, ridges=ridges)
    assert fits.converged.all()
    for got, rows, ridge in zip(probabilities, learned, ridges, strict=True):
        expected = by_scikit_learn(x, labels, rows, ridge, classes)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_more_features_than_documents_are_fitted():
    x, labels = correlated(60, 200, 3, seed=4)
    expected = by_scikit_learn(x, labels, np.ones(60, dtype=bool), 1e-3, 3)
    np.testing.assert_allclose(fit(x, labels, 3, ridges=[1e-3])[1][0], expected, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fits_do_not_depend_on_their_neighbours_or_their_start(seed):
    x, labels = correlated(120, 6, 3, seed=seed)
    learned = np.random.default_rng(seed).random((3, 120)) < 0.9
    ridges = np.array([1e-1, 1e-3, 1e-2])
    fits, every = fit(x, labels, 3, learned=learned, ridges=ridges)
    for i in range(3):
        one = fit(x, labels, 3, learned=learned[[i]], ridges=ridges[[i]])[1][0]
        # both are within 1e-4 of the same optimum
        np.testing.assert_allclose(one, every[i], atol=2e-4)
    rotated = rotate(x)
    again = logistic_fits(
        rotated, labels, 3, learned=learned, ridges=ridges, start=fits.weight.flip(0)
    )
    moved = softmax(rotated.logits(x, again.weight), axis=2)
    np.testing.assert_allclose(moved, every, atol=2e-4)


def test_many_groups_of_fits_are_those_of_one(monkeypatch):
    x, labels = correlated(200, 8, 3, seed=3)
    learned, ridges = np.ones((6, 200), dtype=bool), np.logspace(0, -4, 6)
    whole = fit(x, labels, 3, learned=learned, ridges=ridges)[1]
    monkeypatch.setattr("isoloss.probes.transfer_logistic._GROUP_BYTES", 1)
    parts = fit(x, labels, 3, learned=learned, ridges=ridges)[1]
    np.testing.assert_allclose(parts, whole, atol=2e-4)


def test_equal_and_constant_features_are_no_trouble():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 300)
    one = np.eye(3)[labels] + 0.1 * rng.standard_normal((300, 3))
    x = np.concatenate([one, one, np.full((300, 1), 0.1), np.zeros((300, 1))], axis=1)
    fits, probabilities = fit(x, labels, 3, ridges=[1e-4])
    assert fits.converged.all()
    assert (probabilities[0].argmax(axis=1) == labels).mean() > 0.99


def test_features_that_are_not_numbers_are_named():
    x, _ = correlated(50, 4, 2, seed=0)
    x[3, 1] = np.nan
    with pytest.raises(NonFinite, match="1 of 50"):
        rotate(x)


def test_the_chosen_strength_has_the_lowest_validation_loss_down_to_the_first_rise():
    x, labels = correlated(500, 30, 3, seed=12)
    test = draw_test(labels, seed=0)
    parts = split(labels, test, seeds=3, seed=4)
    (probed,) = linear_probe([x], labels, test, seeds=3, seed=4)
    rotated = rotate(x[~test])
    for seed in range(3):
        losses = []
        for ridge in STRENGTHS:
            one = logistic_fits(
                rotated, labels[~test], 3,
                learned=parts.learned[[seed]][:, ~test], ridges=np.array([ridge]),
            )  # fmt: skip
            held_out = parts.validation[seed]
            losses.append(log_loss(rotated.logits(x[held_out], one.weight)[0], labels[held_out]))
        rise = next((i for i, (a, b) in enumerate(pairwise(losses)) if b >= a), len(losses) - 1)
        assert probed.strength[seed] == STRENGTHS[rise]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=20, max_size=200), st.integers(0, 1000), st.integers(1, 4)
)
def test_parts_are_disjoint_and_no_label_is_held_out_alone(labels, seed, seeds):
    labels = np.array([*labels, 0, 0, 0, 0, 1, 1, 1, 1])
    parts = split(labels, draw_test(labels, seed=seed), seeds=seeds, seed=seed)
    for validation, learned in zip(parts.validation, parts.learned, strict=True):
        assert not (parts.test & validation).any()
        assert (parts.test | validation | learned).all()
        known = np.unique(labels[learned])
        assert np.isin(labels[parts.test], np.unique(labels[~parts.test])).all()
        assert np.isin(labels[validation], known).all()


def test_more_seeds_and_representations_leave_the_first_as_they_were():
    x, labels = correlated(400, 8, 3, seed=5)
    test = draw_test(labels, seed=0)
    (few,) = linear_probe([x], labels, test, seeds=2, seed=7)
    many = linear_probe([x, x[:, :3]], labels, test, seeds=4, seed=7)[0]
    np.testing.assert_array_equal(many.strength[:2], few.strength)
    # answers at a boundary may turn by the rounding of another batch
    assert (many.correct[:2] != few.correct).mean() < 0.01


def test_informative_features_reach_the_accuracy_of_the_law_and_noise_the_constant():
    rng = np.random.default_rng(6)
    labels = rng.choice(3, size=6_000, p=[0.5, 0.3, 0.2])
    x = rng.standard_normal((6_000, 4)) + 1.5 * np.eye(4)[labels]
    test = draw_test(labels, seed=0)
    informed, noise = linear_probe(
        [x, rng.standard_normal((6_000, 4))], labels, test, seeds=3, seed=1
    )
    # the best classifier of Gaussian classes is linear: log prior + 1.5 x_c
    best = (np.log([0.5, 0.3, 0.2]) + 1.5 * x[:, :3]).argmax(axis=1)
    paired = informed.correct.mean(axis=0) - (best == labels)[test]
    assert abs(paired.mean()) < 4 * paired.std() / np.sqrt(test.sum()) + 0.005
    assert abs(noise.by_document().value - 0.5) < 4 * np.sqrt(0.25 / test.sum()) + 0.01


def test_labels_drawn_at_random_get_the_strongest_penalty_or_little_of_the_rest():
    rng = np.random.default_rng(8)
    labels = rng.integers(2, size=400)
    (probed,) = linear_probe(
        [rng.standard_normal((400, 100))], labels, draw_test(labels, seed=0), seeds=5, seed=0
    )
    # the validation loss of an overfitted probe is far above ln 2
    assert probed.strength.min() >= 1e-1


def test_the_mean_over_seeds_has_two_standard_errors():
    x, labels = correlated(300, 5, 3, seed=9)
    (probed,) = linear_probe([x], labels, draw_test(labels, seed=0), seeds=4, seed=0)
    by_document, over_seeds = probed.by_document(), probed.over_seeds()
    assert by_document.value == pytest.approx(over_seeds.value, rel=1e-12)
    assert (by_document.n, over_seeds.n) == (probed.correct.shape[1], 4)
    spread = probed.correct.mean(axis=1).std(ddof=1) / 2
    assert over_seeds.stderr == pytest.approx(spread, rel=1e-12)


def test_the_published_recipe_learns_what_the_exact_one_does():
    rng = np.random.default_rng(10)
    labels = rng.integers(3, size=1_500)
    x = rng.standard_normal((1_500, 6)) + 2 * np.eye(6)[labels]
    test = draw_test(labels, seed=0)
    (exact,) = linear_probe([x], labels, test, seeds=2, seed=0)
    recipe = ProbeRecipe(batch=64)
    one, two = (adamw_probe(x, labels, test, recipe=recipe, seeds=2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.correct, two.correct)
    assert np.isnan(one.strength).all()
    # 562 documents, paired: a handful decided otherwise
    assert abs(one.by_document().value - exact.by_document().value) < 0.02


def test_training_without_steps_of_size_leaves_the_published_probe_at_chance():
    x, labels = correlated(400, 6, 4, seed=11)
    test = draw_test(labels, seed=0)
    probed = adamw_probe(x, labels, test, recipe=ProbeRecipe(lr=0.0), seeds=20, seed=0)
    # 20 random classifiers of 4 classes
    assert abs(probed.over_seeds().value - 0.25) < 0.15


@pytest.mark.parametrize("probe", ["exact", "published"])
@pytest.mark.parametrize(
    ("labels", "test", "told"),
    [
        ([0] * 40, [1, 0] * 20, "one class"),
        ([0, 1] * 19 + [2, 2], [0] * 30 + [1] * 10, "in the test part alone"),
        ([0], [1], "too few"),
        ([0, 1] * 20, [0] * 40, "too few"),
    ],
)
def test_documents_that_cannot_be_learned_from_are_refused(probe, labels, test, told):
    labels, test = np.array(labels), np.array(test, dtype=bool)
    x = np.random.default_rng(0).standard_normal((len(labels), 3))
    with pytest.raises(BadData, match=told):
        if probe == "exact":
            linear_probe([x], labels, test, seed=0)
        else:
            adamw_probe(x, labels, test, seed=0)
