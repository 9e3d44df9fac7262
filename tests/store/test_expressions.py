"""Expressions of columns: arithmetic as Python's, and nothing that could be run as code."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.errors import BadRequest
from isoloss.store.expressions import evaluate, parse

COLUMNS = {"N": 7.0, "FLOP": 84.0, "val loss": 2.5, "a-b": 3.0, "a": 10.0, "b": 4.0, "p.q": 0.5}
NUMBERS = {name: np.array([value, value + 1]) for name, value in COLUMNS.items()}
TEXTS = {"model": np.array(["x", "y"], dtype=object)}
KNOWN = [*COLUMNS, "model"]


def value(text, truth=False):
    return evaluate(parse(text, KNOWN, option="--loss", truth=truth), NUMBERS, TEXTS)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("N", 7),
        ("FLOP / (6 * N)", 2),
        ("-N ** 2", -49),
        ("2 ** 3 ** 2 - +1", 511),
        ("a-b", 3),  # the name of a column wins
        ("a - b", 6),
        ("`a-b` * 2", 6),
        ("val loss", 2.5),
        ("`val loss` + `p.q`", 3),
        ("min(N, a, b) + max(N, a)", 14),
        ("log(exp(N)) + sqrt(b) + abs(-a)", 19),
        ("1e3", 1000),
    ],
)
def test_expressions_have_the_values_of_arithmetic(text, first):
    assert np.broadcast_to(value(text), 2)[0] == pytest.approx(first, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("N > 7", [False, True]),
        ("7 <= N < 8 and not b == 9", [True, False]),
        ("model == 'y' or a != 10", [False, True]),
        ("model != 'y'", [True, False]),
    ],
)
def test_conditions_choose_rows(text, kept):
    assert value(text, truth=True).tolist() == kept


numbers = st.integers(1, 9).map(str) | st.sampled_from(["N", "FLOP", "b"])
expressions = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("({0[0]} {0[1]} {0[2]})".format)
        | inner.map("(-{})".format)
        | st.tuples(inner, inner).map("max({0[0]}, {0[1]})".format)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_every_expression_of_the_language_has_pythons_value(text):
    names = {name: np.float64(x) for name, x in COLUMNS.items() if name.isidentifier()}
    with np.errstate(all="ignore"):
        try:
            oracle = float(eval(text, {"max": np.maximum}, names))  # noqa: S307 - the oracle
        except ZeroDivisionError:  # of two integers, where numpy has inf or NaN
            return
    found = float(np.broadcast_to(value(text), 2)[0])
    # integers are exact in Python and rounded once each in float64
    assert found == pytest.approx(oracle, rel=1e-12, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "N.__class__",
        "N[0]",
        "[N for N in b]",
        "f'{N}'",
        "open('x')",
        "log(N, out=b)",
        "log(*N)",
        "N := 3",
        "N if b else a",
        "N @ b",
        "N // b",
        "N & b",
        "'text'",
        "True + N",
        "1j * N",
        "9" * 400,
        "N +",
        "(" * 900,
        "-" * 990 + "N",
        "1" + "+N" * 600,
        "`no such",
        "log()",
        "min(N)",
        "",
        "N > 7",
        "N + (a > b)",
        "\x00",
    ],
)
def test_all_else_is_refused_with_what_may_be_written(text):
    with pytest.raises(BadRequest) as error:
        parse(text, KNOWN, option="--loss")
    assert error.value.remedy


@pytest.mark.parametrize("text", ["N", "N and b", "model > 'x'", "not N", "3"])
def test_conditions_compare(text):
    with pytest.raises(BadRequest):
        value(text, truth=True)


def test_an_unknown_column_is_named_with_the_nearest_and_the_list():
    with pytest.raises(BadRequest) as error:
        parse("FLOPS / 6", KNOWN, option="--tokens")
    assert error.value.nearest == "FLOP"
    assert "val loss, a-b" in error.value.remedy
    assert "--tokens 'FLOPS' in 'FLOPS / 6'" in error.value.asked


def test_the_longest_chain_is_worked_out():
    assert np.broadcast_to(value("1" + "+N" * 249), 2)[0] == 1 + 249 * 7


def test_powers_of_constants_overflow_and_do_not_fill_the_memory():
    assert math.isinf(float(value("9**9**9**9")))


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("N", "N", True),
        ("N", "exp(-N)", True),
        ("N / b", "a / b", False),
        ("a", "a * N + b", True),
        ("N", "3", False),
        ("`a-b`", "a-b", True),
    ],
)
def test_expressions_know_whether_one_is_made_of_the_other(first, second, shared):
    one, two = (parse(text, KNOWN, option="--loss") for text in (first, second))
    assert one.shares_all_columns(two) is two.shares_all_columns(one) is shared
