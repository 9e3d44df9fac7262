"""Plans: every query once, nothing over the budget, nothing twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.scoring.encode import TokenPair
from isoloss.scoring.packing import Cost, Policy, make_plan
from isoloss.scoring.window import regime

COST = Cost(per_token=10, per_key=2, per_score=1)
WINDOW = 40

# few tokens and few lengths, so that contexts repeat, nest and are cut to one another
TOKENS = st.lists(st.integers(0, 1), max_size=45).map(tuple)
PAIRS = st.lists(
    st.builds(
        lambda stem, n, tail: TokenPair((*stem[:3], *range(n)), tail),
        TOKENS.filter(bool),
        st.sampled_from([0, 9, 10, 11, 30, 60]),
        TOKENS,
    ),
    max_size=12,
)


def policy(*, share=True, pad=True, share_limit=WINDOW, critical=(), budget=100_000):
    return Policy(share=share, pad=pad, share_limit=share_limit, critical=critical, budget=budget)


def rows_of(plan):
    return [(batch, chunk) for batch in plan.batches for chunk in batch.chunks]


@settings(deadline=None)  # the machine may be busy
@given(
    PAIRS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 500, 3_000, 10**9]),
    st.sampled_from([(), (12,), (12, 25)]),
)
def test_every_token_is_asked_once_at_the_place_that_predicts_it(
    pairs, share, pad, budget, critical
):
    plan = make_plan(
        pairs,
        window=WINDOW,
        policy=policy(share=share, pad=pad, budget=budget, critical=critical),
        cost=COST,
    )
    run = [s for _, chunk in rows_of(plan) for s in chunk.sequences]
    assert sorted(run) == list(range(len(plan.sequences)))
    assert sorted(plan.slots) == list(range(plan.bounds[-1]))

    found = np.full(plan.bounds[-1], -1)
    found[plan.slots] = plan.targets
    inputs = np.repeat(np.arange(len(plan.sequences)), np.diff(plan.starts))
    for r, (context, tail) in zip(plan.distinct, pairs, strict=True):
        assert (r < 0) == (not 0 < len(tail) <= WINDOW)
        if r < 0:
            continue
        span = range(plan.bounds[r], plan.bounds[r + 1])
        assert tuple(found[span]) == tail
        whole = (context + tail)[-(WINDOW + 1) :][:-1]
        for j, slot in enumerate(span):
            (query,) = np.flatnonzero(plan.slots == slot)
            assert plan.sequences[inputs[query]] == whole
            assert plan.positions[query] == len(whole) - len(tail) + j


@settings(deadline=None)  # the machine may be busy
@given(PAIRS, st.sampled_from([(), (12,), (12, 25)]), st.sampled_from([0, 3_000, 10**9]))
def test_shared_prefixes_are_prefixes_and_leave_every_question_to_the_suffix(
    pairs, critical, budget
):
    plan = make_plan(
        pairs, window=WINDOW, policy=policy(critical=critical, budget=budget), cost=COST
    )
    for batch, chunk in rows_of(plan):
        lengths = [len(plan.sequences[s]) for s in chunk.sequences]
        # rows of one pass lie on one side of every length where arithmetic changes
        assert len({regime(length, critical) for length in lengths}) == 1
        if not batch.depth:
            continue
        assert regime(batch.depth, critical) == regime(lengths[0], critical)
        for s, parent in zip(chunk.sequences, chunk.parents, strict=True):
            assert plan.sequences[s][: batch.depth] == batch.prefixes[parent]
            assert plan.positions[plan.starts[s]] >= batch.depth


@settings(deadline=None)  # the machine may be busy
@given(PAIRS, st.sampled_from([2_000, 20_000]))
def test_no_pass_of_several_rows_exceeds_the_budget(pairs, budget):
    plan = make_plan(pairs, window=WINDOW, policy=policy(budget=budget), cost=COST)
    for batch, chunk in rows_of(plan):
        longest = max(len(plan.sequences[s]) for s in chunk.sequences) - batch.depth
        row = COST.row(longest, cached=batch.depth, keeps=batch.depth > 0)
        assert len(chunk.sequences) == 1 or len(chunk.sequences) * row <= budget


@settings(deadline=None)  # the machine may be busy
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_and_repetition_leave_the_passes_as_they_are(pairs, random):
    shuffled = pairs + pairs[:3]
    random.shuffle(shuffled)

    def passes(requests):
        plan = make_plan(requests, window=WINDOW, policy=policy(), cost=COST)
        return [
            [plan.sequences[s] for s in chunk.sequences] for _, chunk in rows_of(plan)
        ], plan.bounds[-1]

    assert passes(shuffled) == passes(pairs)


def test_ten_thousand_equal_requests_are_one_row():
    plan = make_plan(
        [TokenPair((1, 2), (3, 4))] * 10_000, window=WINDOW, policy=policy(), cost=COST
    )
    assert plan.sequences == ((1, 2, 3),)
    assert plan.bounds[-1] == 2


def test_options_of_one_token_are_one_row():
    pairs = [TokenPair((1, 2, 3), (token,)) for token in range(4)]
    assert make_plan(pairs, window=WINDOW, policy=policy(), cost=COST).sequences == ((1, 2, 3),)


def test_a_context_shared_by_options_is_run_once():
    context = tuple(range(20))
    pairs = [TokenPair(context, (7, token)) for token in range(8)]
    (batch,) = make_plan(
        [*pairs, TokenPair(context, (9, 9, 9))], window=WINDOW, policy=policy(), cost=COST
    ).batches
    assert batch.prefixes == (context[:19],)
    # (7, 0) .. (7, 7) ask one input, (9, 9, 9) another
    assert [len(chunk.sequences) for chunk in batch.chunks] == [1, 1]


def test_nothing_is_shared_beyond_the_length_that_was_shown():
    pairs = [TokenPair(tuple(range(20)), (token, token)) for token in range(3)]
    plan = make_plan(pairs, window=WINDOW, policy=policy(share_limit=20), cost=COST)
    assert all(batch.depth == 0 for batch in plan.batches)


def test_truncations_are_counted_for_every_request_asked():
    pairs = [TokenPair(tuple(range(41)), (1,)), TokenPair(tuple(range(40)), (1,))]
    plan = make_plan(pairs * 2, window=WINDOW, policy=policy(), cost=COST)
    assert plan.truncated == 2


@pytest.mark.parametrize("tail", [(), tuple(range(41))])
def test_what_the_harness_refuses_is_left_out_and_the_rest_stands(tail):
    plan = make_plan(
        [TokenPair((1,), tail), TokenPair((1,), (2,))], window=WINDOW, policy=policy(), cost=COST
    )
    assert plan.distinct.tolist() == [-1, 0]
