"""What is done otherwise for long tables leads to the same results."""

import time

import numpy as np
import pytest

from isoloss.laws import Rule, fit_loss_law
from isoloss.laws.run_saturation_shape import shape_of, shapes_of


@pytest.mark.parametrize("n", [1, 2, 13, 80])
def test_many_series_at_once_have_the_shapes_of_each_alone(n):
    rows = np.random.default_rng(n).normal(size=(300, n)) + np.abs(np.linspace(-1, 2, n))
    many = shapes_of(rows)
    for i, row in enumerate(rows):
        one = shape_of(row)
        assert many.split[i] == one.split
        # differences of sums of at most 80 squares below 30
        assert np.allclose(many.turning[i], one.turning, rtol=0, atol=1e-11)
        assert many.gain[i] == pytest.approx(one.gain, abs=1e-11)


def test_series_without_noise_have_exactly_the_shape_of_one():
    row = np.array([3.0, 2.0, 2.0, 1.0, 1.5, 1.5])
    one, many = shape_of(row), shapes_of(np.tile(row, (3, 1)))
    assert many.split.tolist() == [one.split] * 3
    assert (many.turning == one.turning).all()


def planted(rows):
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 10, rows), 10 ** rng.uniform(9, 12, rows)
    loss = (1.7 + 400 / n**0.34 + 410 / d**0.28) * np.exp(rng.normal(0, 0.01, rows))
    return n, d, loss


def test_few_starts_on_a_long_table_end_where_all_do():
    table = planted(3_000)
    few, all_ = (
        fit_loss_law(*table, rule=Rule(starts=starts), interval=None) for starts in (400, None)
    )
    # the objective is flat at its minimum: both ends agree to the tolerance of the descent
    assert few.objective == pytest.approx(all_.objective, rel=1e-6)
    assert few.alpha == pytest.approx(all_.alpha, rel=1e-3)
    assert few.unidentified == all_.unidentified == ()


def test_parameters_that_a_long_table_leaves_open_are_named_in_seconds():
    n, _, loss = planted(10_000)
    before = time.process_time()
    law = fit_loss_law(n, 20 * n, loss, rule=Rule(starts=400))
    assert {"A", "B", "alpha", "beta"} <= set(law.unidentified)
    assert all(law.ci[name] is None for name in law.unidentified)
    assert time.process_time() - before < 5  # of the processor, not of the clock
