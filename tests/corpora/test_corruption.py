"""Damaged token sequences: how many places, and what stands there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.corpora.corruption import corrupt
from isoloss.errors import BadRequest

ROW = list(range(100, 150))


@given(st.integers(0, 200), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_exactly_the_share_of_places_is_damaged(n, share, seed):
    row, k = list(range(1_000, 1_000 + n)), round(share * n)
    replaced = corrupt(row, share, allowed=[7], seed=seed)
    assert replaced.count(7) == k and len(replaced) == n
    assert len(corrupt(row, share, damage="delete", seed=seed)) == n - k
    inserted = corrupt(row, share, damage="insert", allowed=[7], seed=seed)
    assert inserted.count(7) == k and [t for t in inserted if t != 7] == row
    repeated = corrupt(row, share, damage="repeat", seed=seed)
    assert len(repeated) == n + k and sorted(set(repeated)) == row


def test_a_repeated_token_stands_beside_itself():
    repeated = corrupt(ROW, 0.4, damage="repeat", seed=3)
    assert [t for i, t in enumerate(repeated) if i == 0 or repeated[i - 1] != t] == ROW


def test_replacements_are_uniform_over_the_vocabulary():
    found = corrupt([0] * 50_000, 1.0, vocab=10, seed=1)
    # a binomial of 50,000 draws: 5 standard errors of .1 are .0067
    assert np.bincount(found, minlength=10) / 50_000 == pytest.approx(0.1, abs=0.0067)


def test_one_seed_gives_one_text_and_another_seed_another():
    first = corrupt(ROW, 0.5, vocab=1_000, seed=5)
    assert first == corrupt(ROW, 0.5, vocab=1_000, seed=5)
    assert first != corrupt(ROW, 0.5, vocab=1_000, seed=6)


def test_nothing_to_draw_from_and_unknown_damage_are_errors():
    with pytest.raises(BadRequest, match="there must be tokens to draw"):
        corrupt(ROW, 0.5, seed=0)
    with pytest.raises(BadRequest, match="replace, delete, insert, repeat"):
        corrupt(ROW, 0.5, damage="shuffle", seed=0)
    with pytest.raises(BadRequest, match="share of 0 to 1"):
        corrupt(ROW, 1.5, vocab=9, seed=0)
