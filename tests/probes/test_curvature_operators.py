"""Traces and spectra of operators that are known only by their products."""

import numpy as np
import pytest
import torch

from isoloss.errors import BadRequest, NonFinite
from isoloss.probes.curvature_estimate import Stop
from isoloss.probes.curvature_spectrum import spectral_density
from isoloss.probes.hutchinson import hutch_plus_plus, hutchinson, probe_vector
from isoloss.probes.lanczos import top_eigenvalues
from isoloss.probes.xtrace import xtrace

NEVER = 1e-9  # a relative error that no estimate here reaches


def symmetric(eigenvalues, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))[0]
    return torch.from_numpy(basis * np.asarray(eigenvalues) @ basis.T)


DECAYING = symmetric(10.0 ** -np.linspace(0, 3, 40))
METHODS = {
    "hutchinson": hutchinson,
    "hutch++": lambda *args, **options: hutch_plus_plus(*args, rank=6, **options),
    "xtrace": xtrace,
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def z_scores(method, a, *, max_products, repeats, **options):
    trace = float(a.trace())
    stop = Stop(relative_error=NEVER, max_products=max_products)
    runs = [
        method(a.mv, len(a), stop=stop, seed=seed, **options) for seed in range(repeats)
    ]  # fmt: skip
    return np.array([(r.value - trace) / r.stderr for r in runs])


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_its_error_honest(probes):
    z = z_scores(hutchinson, DECAYING, max_products=50, repeats=300, probes=probes)
    assert abs(z.mean()) < 0.3  # 300 scores: sd .06; t with 49 degrees of freedom, skewed
    assert 0.85 < z.std() < 1.2


@pytest.mark.parametrize("name", ["hutch++", "xtrace"])
def test_sketching_methods_are_unbiased_and_their_errors_honest(name):
    z = z_scores(METHODS[name], DECAYING, max_products=40, repeats=200)
    assert abs(np.median(z)) < 0.3  # the median's sd is .09
    # the leave-one-out estimates share vectors: their error is that of independent ones to a half
    assert (np.abs(z) < 3).mean() > 0.95


def test_sketching_needs_fewer_products_where_few_eigenvalues_carry_the_trace():
    spiked = symmetric(np.r_[[50.0, 40.0, 30.0, 20.0, 10.0], np.full(75, 0.1)])
    stop = Stop(relative_error=0.01, max_products=5000)
    plain = hutchinson(spiked.mv, 80, stop=stop, seed=0)
    sketched = hutch_plus_plus(spiked.mv, 80, rank=6, stop=stop, seed=0)
    assert sketched.converged and sketched.products < plain.products / 10
    found = xtrace(spiked.mv, 80, stop=stop, seed=0)
    assert found.converged and found.products < plain.products / 10


def test_zero_curvature_is_zero_without_error(method):
    found = method(torch.zeros_like, 30, stop=Stop(max_products=60), seed=0)
    assert (found.value, found.stderr, found.converged) == (0.0, 0.0, True)


def test_a_saddle_has_the_negative_trace_it_has(method):
    saddle = symmetric(np.r_[np.linspace(0, 3, 20), np.linspace(-6, 0, 20)])
    found = method(saddle.mv, 40, stop=Stop(relative_error=0.05, max_products=4000), seed=2)
    assert found.converged
    assert abs(found.value + 30) < 3 * found.stderr + 1e-9


def test_a_trace_of_zero_never_reaches_a_relative_error_and_says_so():
    saddle = symmetric(np.r_[np.ones(20), -np.ones(20)])
    found = hutchinson(saddle.mv, 40, stop=Stop(max_products=200), seed=0)
    assert not found.converged and found.products == 200
    absolute = hutchinson(saddle.mv, 40, stop=Stop(absolute_error=1.0, max_products=200), seed=0)
    assert absolute.converged and absolute.stderr <= 1.0


def test_a_diagonal_operator_is_exact_with_signs():
    diagonal = torch.arange(9, dtype=torch.float64)
    found = hutchinson(lambda v: diagonal * v, 9, stop=Stop(), seed=5)
    assert (found.value, found.stderr) == (36.0, 0.0)


def test_xtrace_is_exact_once_the_range_is_exhausted():
    thin = symmetric(np.r_[[3.0, 2.0, 1.0], np.zeros(27)])
    found = xtrace(thin.mv, 30, stop=Stop(relative_error=NEVER), seed=0)
    assert found.value == pytest.approx(6.0, rel=1e-12)
    assert found.converged and found.products < 20


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_probes_have_mean_zero_and_variance_one(kind):
    v = probe_vector(100_003, kind, np.random.default_rng(0))
    assert abs(float(v.mean())) < 4 / 100_003**0.5
    assert abs(float(v.square().mean()) - 1) < 4 * 2**0.5 / 100_003**0.5


def test_a_product_that_is_no_number_names_its_probe(method):
    calls = []

    def broken(v):
        calls.append(1)
        return v * (float("nan") if len(calls) > 3 else 1.0)

    with pytest.raises(NonFinite, match=r"probe \d"):
        method(broken, 10, stop=Stop(relative_error=NEVER, max_products=60), seed=0)


def test_equal_seeds_give_equal_numbers(method):
    stop = Stop(relative_error=NEVER, max_products=40)
    first, again, other = (method(DECAYING.mv, 40, stop=stop, seed=s) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    "wrong",
    [dict(relative_error=None), dict(relative_error=0.0), dict(max_products=0)],
)
def test_a_stop_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadRequest):
        Stop(**wrong)


def test_lanczos_finds_the_largest_eigenvalues_of_a_dense_oracle():
    values = np.r_[[9.0, 7.0, 4.0], np.linspace(-8, 2, 97)]
    found = top_eigenvalues(symmetric(values).mv, 100, count=3, products=75, seed=0)
    assert found.converged
    assert (np.abs(found.values - [9, 7, 4]) <= found.residuals + 1e-12).all()


def test_repeated_eigenvalues_come_as_often_as_they_occur():
    values = np.r_[[5.0, 5.0, 5.0, 2.0], np.linspace(0, 1, 60)]
    found = top_eigenvalues(symmetric(values).mv, 64, count=4, products=64, seed=0)
    assert found.values == pytest.approx([5, 5, 5, 2], abs=1e-9)
    identity = top_eigenvalues(lambda v: v.clone(), 20, count=3, products=9, seed=0)
    assert identity.values == pytest.approx([1, 1, 1], abs=1e-12)


def test_no_ghosts_in_float32_after_many_products():
    # without reorthogonalisation the outlier appears again and again
    values = np.r_[[1000.0], np.linspace(0, 1, 199)]
    a = symmetric(values).float()
    found = top_eigenvalues(a.mv, 200, count=2, products=120, seed=0, dtype=torch.float32)
    assert found.values[0] == pytest.approx(1000, rel=1e-4)
    assert found.values[1] == pytest.approx(1.0, abs=0.02)


def test_the_spectral_density_has_the_moments_of_the_matrix():
    values = np.r_[np.full(50, 0.0), np.linspace(1, 3, 50)]
    a = symmetric(values)
    found = spectral_density(a.mv, 100, probes=40, products_per_probe=20, seed=0)
    # 40 probes of a normal vector: the mean's sd is sqrt(2 |A|^2 / 40) / 100 = .035
    assert found.mean_of(1) == pytest.approx(values.mean(), abs=0.15)
    assert found.weights.sum() == pytest.approx(1.0, rel=1e-12)
    step = found.grid[1] - found.grid[0]
    assert found.density.sum() * step == pytest.approx(1.0, abs=0.01)
    near_zero = found.weights[np.abs(found.nodes) < 0.05].sum()
    assert near_zero == pytest.approx(0.5, abs=0.08)
    assert np.isfinite(found.stderr).all()


def test_one_probe_has_an_unknown_error_and_a_constant_spectrum_one_peak():
    found = spectral_density(lambda v: 2 * v, 10, probes=1, products_per_probe=5, seed=0)
    assert found.nodes == pytest.approx([2.0]) and found.products == 1
    assert np.isnan(found.stderr).all()


def test_a_spectrum_of_nothing_is_refused():
    with pytest.raises(BadRequest, match="product"):
        top_eigenvalues(DECAYING.mv, 40, count=5, products=3, seed=0)
    with pytest.raises(BadRequest, match="probe"):
        spectral_density(DECAYING.mv, 40, probes=0, products_per_probe=3, seed=0)
    with pytest.raises(BadRequest, match="sketch"):
        hutch_plus_plus(DECAYING.mv, 40, rank=6, stop=Stop(max_products=8), seed=0)
    with pytest.raises(BadRequest, match="two vectors"):
        xtrace(DECAYING.mv, 40, stop=Stop(max_products=3), seed=0)
    with pytest.raises(BadRequest, match="probes"):
        hutchinson(DECAYING.mv, 40, stop=Stop(), seed=0, probes="uniform")
