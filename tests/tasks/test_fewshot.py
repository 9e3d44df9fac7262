import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadRequest
from isoloss.tasks.fewshot import Examples, draw_distinct

QUESTIONS = st.lists(st.sampled_from([f"q{i}" for i in range(8)]), min_size=1, max_size=30)


@given(QUESTIONS, st.integers(0, 5), st.integers(0, 2**32), st.data())
def test_a_document_is_never_its_own_example(questions, shots, seed, data):
    place = data.draw(st.integers(0, len(questions) - 1))
    examples = Examples(questions, shots=shots, seed=seed)
    others = sum(q != questions[place] for q in questions)
    if others < shots:
        with pytest.raises(BadRequest, match="too few"):
            examples.draw(questions[place], place)
        return
    drawn = examples.draw(questions[place], place)
    assert len(drawn) == len(set(drawn)) == shots
    # neither itself nor a repetition of its question, which would tell the answer
    assert all(questions[i] != questions[place] for i in drawn)


def test_a_question_from_another_file_may_draw_any_example():
    examples = Examples(["a", "b"], shots=2, seed=0)
    assert sorted(examples.draw("c", 0)) == [0, 1]


def test_places_and_seeds_vary_the_draw():
    questions = [f"q{i}" for i in range(100)]
    draws = {
        tuple(Examples(questions, shots=3, seed=seed).draw("new", place))
        for seed in range(5)
        for place in range(5)
    }
    assert len(draws) == 25


def test_ordered_draws_are_equally_likely():
    counts = Counter(tuple(draw_distinct(4, 2, random.Random(f"{s}"))) for s in range(12_000))
    assert len(counts) == 12
    # multinomial: mean 1000, sd 30 a cell; 4.5 sd over 12 cells
    assert all(abs(n - 1000) < 136 for n in counts.values())
