"""Losses of different tokenizers compare by the nats of the whole text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadRequest
from isoloss.store.convert import bits_per_byte, convert_loss, converted_label

LOSSES = st.floats(0.01, 20)
COUNTS = st.integers(1, 10**9)


@given(LOSSES, COUNTS, COUNTS)
def test_conversion_keeps_the_nats_of_the_text(loss, a, b):
    # three float64 operations
    assert convert_loss(loss, a, b) * b == pytest.approx(loss * a, rel=1e-14)


@given(LOSSES, COUNTS, COUNTS, COUNTS)
def test_bits_per_byte_do_not_see_the_tokenizer(loss, a, b, size):
    converted = convert_loss(loss, a, b)
    assert bits_per_byte(converted, b, size) == pytest.approx(
        bits_per_byte(loss, a, size), rel=1e-14
    )


def test_a_uniform_byte_model_has_eight_bits_per_byte():
    assert bits_per_byte(np.log(256), tokens=77, bytes=77) == pytest.approx(8, rel=1e-15)


def test_arrays_convert_by_element_and_scalars_stay_scalars():
    np.testing.assert_array_equal(convert_loss([3.0, 6.0], [1000, 500], 1200), [2.5, 2.5])
    assert isinstance(convert_loss(3.0, 1000, 1200), float)
    assert np.isnan(convert_loss(float("nan"), 1, 2))


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
def test_counts_must_be_positive(bad):
    with pytest.raises(BadRequest, match="tokens_b must be positive"):
        convert_loss([3.0, 4.0], 1, [1, bad])
    with pytest.raises(BadRequest, match="bytes must be positive"):
        bits_per_byte(3.0, 1, bad)


def test_the_label_states_tokenizer_and_assumption():
    label = converted_label("X")
    assert label.startswith("converted: same text, tokens of X; assumes ")
