"""The drift of SGD along a known manifold: its geometry against dense oracles, then the theorem."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import null_space

from isoloss.errors import BadRequest
from isoloss.estimate import Estimate
from isoloss.studies.implicit_bias.bigram import (
    Parameters,
    excess_loss,
    flow,
    onto_minima,
    random_bigram,
    random_minimum,
    rescaled,
    trace_gradient,
    traces,
)
from isoloss.studies.implicit_bias.drift import Slope, drift_study, limit, simulate


def in_torch(language, words, rank):
    pi, p = (torch.from_numpy(x) for x in (language.stationary, language.transition))

    def loss(flat):
        left = flat[: words * rank].reshape(words, rank)
        logs = torch.log_softmax(left @ flat[words * rank :].reshape(rank, words), dim=1)
        return -(pi[:, None] * p * logs).sum()

    return loss


def dense_hessian(language, parameters):
    words, rank = parameters.left.shape
    loss = in_torch(language, words, rank)
    return torch.autograd.functional.hessian(loss, torch.from_numpy(parameters.flat())).numpy()


@pytest.fixture(scope="module", params=[(3, 3, 0), (4, 4, 1), (3, 5, 2)])
def at_minimum(request):
    words, rank, seed = request.param
    language = random_bigram(words, seed=seed)
    return language, random_minimum(language, rank=rank, seed=seed)


def test_a_minimum_attains_the_language(at_minimum):
    language, minimum = at_minimum
    # a divergence of 1e-14 is a logit of 1e-7 off; Newton leaves less
    assert abs(excess_loss(language, minimum)) < 1e-14


def test_trace_in_closed_form_equals_the_dense_hessian_at_and_off_the_minimum(at_minimum):
    language, minimum = at_minimum
    rng = np.random.default_rng(0)
    for size in (0.0, 0.1, 1.0):
        here = minimum.moved(size * rng.standard_normal(minimum.flat().shape))
        expected = np.trace(dense_hessian(language, here))
        assert float(traces(language, here).trace) == pytest.approx(expected, rel=1e-10)


def test_projected_gradient_is_that_of_the_dense_trace_along_the_null_space(at_minimum):
    language, minimum = at_minimum
    free = null_space(dense_hessian(language, minimum), rcond=1e-9)
    words, rank = minimum.left.shape
    # of U W C, which has words (words - 1) numbers
    assert free.shape[1] == 2 * words * rank - words * (words - 1)

    def dense_trace(flat):
        p = minimum.moved(flat - minimum.flat())
        return np.trace(dense_hessian(language, p))

    step = 1e-4
    slopes = np.array(
        [
            (dense_trace(minimum.flat() + step * v) - dense_trace(minimum.flat() - step * v)) / 2
            for v in free.T
        ]
    )
    found = trace_gradient(language, minimum)
    # central differences: an error of step^2 = 1e-8 times third derivatives near 1
    np.testing.assert_allclose(found.tangent, free @ slopes / step, atol=1e-6)
    assert np.linalg.norm(found.full) > np.linalg.norm(found.tangent)


def test_flow_equals_an_integration_by_scipy(at_minimum):
    language, minimum = at_minimum

    def downhill(_, flat):
        here = minimum.moved(flat - minimum.flat())
        return -trace_gradient(language, here).tangent / 4

    path = solve_ivp(downhill, (0, 2), minimum.flat(), t_eval=[1, 2], rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(flow(language, minimum, [1.0, 2.0]), path.y.T, strict=True):
        # the midpoint rule at steps of .05
        np.testing.assert_allclose(ours.flat(), theirs, atol=2e-4)


def test_flow_lowers_the_trace_at_the_rate_of_the_theorem_and_stays_at_the_optimum(at_minimum):
    language, minimum = at_minimum
    early = flow(language, minimum, [0.01])[0]
    fall = float(traces(language, early).trace - traces(language, minimum).trace) / 0.01
    predicted = -(trace_gradient(language, minimum).tangent ** 2).sum() / 4
    assert fall == pytest.approx(predicted, rel=0.02)  # over a finite time, and the slope flattens
    assert abs(excess_loss(language, early)) < 1e-14


def test_rescaled_factors_keep_function_and_companion_and_change_the_trace(at_minimum):
    language, minimum = at_minimum
    other = rescaled(minimum, 2.0)
    np.testing.assert_allclose(other.left @ other.right, minimum.left @ minimum.right, atol=1e-12)
    before, after = traces(language, minimum), traces(language, other)
    assert float(after.companion) == pytest.approx(float(before.companion), rel=1e-12)
    assert abs(float(after.trace / before.trace) - 1) > 0.1


def test_stacked_models_are_treated_as_they_are_alone():
    language = random_bigram(3, seed=0)
    single = [random_minimum(language, rank=3, seed=s) for s in range(4)]
    noisy = [p.moved(0.1 * np.random.default_rng(9).standard_normal(18)) for p in single]
    stacked = Parameters(*(np.stack(x) for x in zip(*noisy, strict=True)))
    together = onto_minima(language, stacked)
    for i, alone in enumerate(noisy):
        np.testing.assert_allclose(
            together.flat()[i], onto_minima(language, alone).flat(), atol=1e-10
        )
    np.testing.assert_allclose(
        traces(language, stacked).trace, [float(traces(language, p).trace) for p in noisy]
    )


def test_the_simulation_takes_the_steps_of_ordinary_sgd():
    language = random_bigram(3, seed=0)
    start = random_minimum(language, rank=3, seed=0)
    rate, batch, steps = 0.1, 2, 12
    found = simulate(
        language, start, rate=rate, batch=batch, horizon=steps * rate**2 / batch, runs=1, seed=5
    )
    rng = np.random.default_rng(5)
    flat = torch.from_numpy(start.flat())
    expected = in_torch(language, 3, 3)
    for _ in range(steps):
        pairs = (language.stationary[:, None] * language.transition).ravel()
        counts = torch.from_numpy(rng.multinomial(batch, pairs, size=1).reshape(3, 3) / batch)
        flat = flat.detach().requires_grad_(True)
        logs = torch.log_softmax(flat[:9].reshape(3, 3) @ flat[9:].reshape(3, 3), dim=1)
        (gradient,) = torch.autograd.grad(-(counts * logs).sum(), flat)
        flat = flat - rate * gradient
    entropy = float(expected(torch.from_numpy(start.flat())))
    excess = float(expected(flat.detach())) - entropy
    assert found.excess[-1, 0] == pytest.approx(excess, rel=1e-9)
    assert found.times[-1] == pytest.approx(steps * rate**2)


@pytest.fixture(scope="module")
def study():
    return drift_study(words=3, rates=(0.1, 0.05), batches=(1, 4), horizon=3.0, runs=48, seed=1)


def test_measured_slopes_meet_the_predicted_ones_as_the_rate_goes_to_zero(study):
    for found in study.limits:
        measured = found.measured
        assert measured.stderr is not None and measured.stderr < 0.03
        # four standard errors, and what two rates leave of order eta^2
        assert abs(measured.value - found.predicted) < 4 * measured.stderr + 0.01
    by_start = {found.start: found for found in study.limits}
    assert by_start["random"].predicted < -0.05
    assert by_start["flattest"].ratio is None
    # at the flattest minimum nothing drifts
    assert abs(by_start["flattest"].predicted) < 1e-4


def test_rescaling_changes_the_predicted_drift_and_the_measured_one_with_it(study):
    random, again = (found for found in study.limits if found.start != "flattest")
    assert abs(again.predicted / random.predicted - 1) > 0.2
    for found in (random, again):
        assert found.ratio is not None and found.ratio.value == pytest.approx(1, abs=0.1)
    starts = {s.name: s for s in study.starts}
    assert starts["rescaled"].companion == pytest.approx(starts["random"].companion)
    assert starts["flattest"].trace < starts["random"].trace


def test_the_unprojected_gradient_predicts_too_much(study):
    assert study.overprediction > 1.02


def test_the_excess_loss_is_of_the_order_the_theorem_says(study):
    # eta Tr H / (4 B) at a fixed minimum; the trace falls meanwhile
    for slope in study.slopes:
        start = next(s for s in study.starts if s.name == slope.start)
        assert 0 < slope.excess_nats.value < 1.5 * slope.rate * start.trace / (4 * slope.batch)


def test_extrapolation_recovers_a_planted_intercept_as_often_as_its_error_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        slopes = [
            Slope("x", rate, batch, -0.5, Estimate(
                value=-0.5 + (0.3 / batch) * rate + 0.01 * rng.standard_normal(),
                stderr=0.01, n=10), Estimate(value=0, stderr=0, n=1),
                Estimate(value=0, stderr=0, n=1))
            for rate in (0.1, 0.05, 0.025) for batch in (1, 4)
        ]  # fmt: skip
        found = limit(slopes).measured
        inside += abs(found.value + 0.5) < 1.96 * found.stderr
    # binomial, four standard deviations of .011
    assert 0.95 - 0.044 < inside / 400 < 0.95 + 0.044


def test_the_same_seed_gives_the_same_runs():
    language = random_bigram(3, seed=0)
    start = random_minimum(language, rank=3, seed=0)
    one, two, other = (
        simulate(language, start, rate=0.1, batch=1, horizon=1.0, runs=2, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.trace, two.trace)
    assert not np.array_equal(one.trace, other.trace)


def test_too_small_a_rank_is_refused():
    with pytest.raises(BadRequest, match="rank 3"):
        random_minimum(random_bigram(3, seed=0), rank=2, seed=0)
