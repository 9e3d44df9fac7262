import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.tasks.answers import final_number, matches, normalise


@given(st.text(max_size=40))
def test_normalising_twice_is_normalising_once(text):
    once = normalise(text)
    # lower() is not idempotent on a few characters such as the dotted capital I
    assert normalise(once) == once or once != once.lower()


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        (" The Onion.\n", "onion"),
        ("it's", "Its"),
        ("THE THE", "the the"),
        ("Beyonce\u0301", "Beyonc\u00e9"),
        ("“Thriller”", "thriller"),
        ("new   york", "New York"),
    ],
)
def test_case_punctuation_articles_and_spaces_do_not_decide(generated, answer):
    assert matches(generated, [answer], form="open")


@pytest.mark.parametrize(
    ("generated", "answer"), [("onions", "onion"), ("", "The"), ("the", "an"), ("!", "?")]
)
def test_other_words_are_wrong(generated, answer):
    assert not matches(generated, [answer], form="open")


def test_any_alias_is_right():
    assert matches("Pyaz", ["Onion", "Pyaz"], form="open")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 + 12 = 18.\n#### 18", "18"),
        ("#### 1,234\nQuestion: 5", "1234"),
        ("so it is -3", "-3"),
        ("$18.00", "18"),
        ("no number", None),
        ("####", None),
        ("he has 100", "100"),
    ],
)
def test_reasoning_ends_in_its_last_number(text, number):
    assert final_number(text) == number


def test_reasoning_is_right_by_its_final_number_alone():
    assert matches("It takes 2 / 2 = 1, so 3 bolts.\n#### 3", ["3"], form="cot")
    assert not matches("3 is not it: 4", ["3"], form="cot")
    assert not matches("nothing", ["3"], form="cot")
