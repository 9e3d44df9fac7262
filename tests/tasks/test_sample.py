import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadRequest
from isoloss.tasks.sample import choose, proportional

SUBJECTS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=80)


@given(SUBJECTS, st.integers(1, 100), st.integers(0, 2**32))
def test_a_sample_is_proportional_to_its_strata_and_in_document_order(subjects, limit, seed):
    chosen = choose(subjects, limit=limit, sample="seeded", seed=seed)
    assert len(chosen) == min(limit, len(subjects))
    assert chosen == sorted(set(chosen))
    for subject in set(subjects):
        share = len(chosen) * subjects.count(subject) / len(subjects)
        # largest remainder keeps every stratum within one document of its exact share
        assert abs(sum(subjects[i] == subject for i in chosen) - share) < 1


@given(SUBJECTS, st.integers(1, 100), st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_documents(subjects, limit, seed):
    draws = [choose(subjects, limit=limit, sample="seeded", seed=seed) for _ in range(2)]
    assert draws[0] == draws[1]


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_a_smaller_limit_keeps_a_subset_of_one_stratum(n, seed):
    for limit in range(1, n):
        small = choose([None] * n, limit=limit, sample="seeded", seed=seed)
        large = choose([None] * n, limit=limit + 1, sample="seeded", seed=seed)
        assert set(small) < set(large)


def test_every_document_is_drawn_equally_often():
    drawn = [0] * 20
    for seed in range(2000):
        for place in choose([None] * 20, limit=5, sample="seeded", seed=seed):
            drawn[place] += 1
    # 2000 draws of 5 in 20: mean 500, sd 19.4 a document; 4.5 sd over 20 documents
    assert all(abs(n - 500) < 88 for n in drawn)


def test_two_seeds_draw_different_documents():
    assert choose([None] * 100, limit=10, sample="seeded", seed=0) != choose(
        [None] * 100, limit=10, sample="seeded", seed=1
    )


def test_the_draw_is_the_same_on_every_machine():
    # golden: hashes, so neither the Python nor the numpy version may change it
    chosen = choose(["a"] * 10 + ["b"] * 5, limit=6, sample="seeded", seed=0)
    assert chosen == [3, 4, 7, 8, 11, 13]


@given(SUBJECTS, st.integers(1, 100))
def test_first_takes_the_first_of_every_subject_as_the_harness_does(subjects, limit):
    chosen = choose(subjects, limit=limit, sample="first", seed=7)
    for subject in set(subjects):
        places = [i for i, s in enumerate(subjects) if s == subject]
        assert [i for i in chosen if subjects[i] == subject] == places[:limit]


@given(st.integers(1, 1000), st.floats(0.001, 0.999))
def test_a_limit_below_one_is_a_fraction_rounded_up(n, fraction):
    chosen = choose([None] * n, limit=fraction, sample="seeded", seed=0)
    assert len(chosen) == math.ceil(n * fraction)


@pytest.mark.parametrize("limit", [None, 30, 31, 10_000])
def test_a_limit_beyond_the_task_takes_all(limit):
    assert choose([None] * 30, limit=limit, sample="seeded", seed=0) == list(range(30))


@pytest.mark.parametrize("limit", [0, -1, -0.5])
def test_a_limit_must_be_positive(limit):
    with pytest.raises(BadRequest, match="positive"):
        choose([None] * 3, limit=limit, sample="seeded", seed=0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 500))
def test_largest_remainder_gives_out_exactly_the_total(sizes, total):
    shares = proportional(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
