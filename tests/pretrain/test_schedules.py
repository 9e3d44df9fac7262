"""Learning-rate schedules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.pretrain.schedules import make_schedule

names = st.sampled_from(["constant", "linear", "cosine"])


@given(names, st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_rate_stays_between_zero_and_the_peak(name, warmup, final, progress):
    assert 0 <= make_schedule(name, warmup=warmup, final=final)(progress) <= 1 + 1e-12


@given(names, st.floats(0.01, 0.9), st.floats(0, 1))
def test_warm_up_is_a_straight_line_to_the_peak(name, warmup, final):
    schedule = make_schedule(name, warmup=warmup, final=final)
    assert schedule(0.0) == 0
    assert schedule(warmup / 4) == pytest.approx(0.25)
    assert schedule(warmup) == pytest.approx(1)


@pytest.mark.parametrize(("name", "middle", "end"), [("linear", 0.55, 0.1), ("cosine", 0.55, 0.1)])
def test_decay_is_half_way_at_half_the_way_and_ends_at_the_final_fraction(name, middle, end):
    schedule = make_schedule(name, warmup=0.2, final=0.1)
    assert schedule(0.6) == pytest.approx(middle)
    assert schedule(1.0) == pytest.approx(end)


def test_cosine_is_slower_than_linear_at_first():
    linear, cosine = (make_schedule(n, warmup=0, final=0) for n in ("linear", "cosine"))
    assert cosine(0.25) > linear(0.25) > linear(0.75) > cosine(0.75)


def test_constant_never_decays():
    assert make_schedule("constant", warmup=0, final=0)(1.0) == 1
