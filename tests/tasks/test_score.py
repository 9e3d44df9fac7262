import math

import pytest

from isoloss.scoring.encode import TokenPair
from isoloss.store.schema import ITEMS
from isoloss.tasks import Document, Generation, Prepared, Response, Task, score_task
from isoloss.tasks.metrics import UNITS
from isoloss.tasks.prepared import deal
from isoloss.tasks.task import option

LN2 = math.log(2)


def task(*documents, form="cloze"):
    return Task(name="t", form=form, num_fewshot=0, version="1", documents=documents)


def choices(doc, gold, *texts, subject=None):
    options = tuple(option("Sky is", text, delimiter=" ") for text in texts)
    return Document(doc=doc, subject=subject, options=options, gold=gold)


def free(doc, *answers):
    asked = Generation(context="Who?", until=("\n",), max_tokens=4)
    return Document(doc=doc, generation=asked, answers=answers)


def score(asked, responses, tokens=2):
    pairs = tuple(TokenPair((1,), (2,) * tokens) for d in asked.documents for _ in d.options)
    return score_task(asked, Prepared(pairs=pairs, generations=()), responses)


def weighed(*loglik):
    return Response(loglik=loglik, is_greedy=(False,) * len(loglik))


def estimates(result):
    return {row.metric: row.estimate for row in result.rows}


def test_metrics_are_means_over_documents_with_their_standard_error():
    asked = task(choices("0", (0,), "blue", "red"), choices("1", (1,), "a", "b"))
    got = estimates(score(asked, [weighed(-1.0, -2.0), weighed(-1.0, -2.0)]))
    # hits 1 and 0: mean 1/2, sd sqrt(1/2), over sqrt(2)
    assert got["accuracy"].value == 0.5
    assert got["accuracy"].stderr == pytest.approx(0.5)
    assert got["accuracy"].n == 2
    # margins 1 and -1
    assert got["margin"].value == 0
    # golds of 1 and 2 nats over 2 tokens each
    assert got["gold_nats_per_token"].value == pytest.approx(0.75)
    assert got["chance"].value == 0.5
    assert got["chance"].stderr == 0
    assert "documents_unknown" not in got


def test_unknown_documents_are_left_out_and_counted():
    asked = task(choices("0", (0,), "blue", "red"), choices("1", (1,), "a", "b"))
    got = estimates(score(asked, [weighed(-1.0, -2.0), weighed(math.nan, -2.0)]))
    assert (got["accuracy"].value, got["accuracy"].n) == (1.0, 1)
    assert (got["chance"].n, got["constant_answer"].n) == (1, 1)
    assert got["documents_unknown"].value == 1


def test_all_unknown_is_a_row_without_a_value():
    got = estimates(score(task(choices("0", (0,), "a", "b")), [weighed(math.nan, -2.0)]))
    assert math.isnan(got["accuracy"].value)
    assert got["accuracy"].n == 0


def test_a_continuation_is_matched_by_greedy_decoding():
    asked = task(choices("0", (0,), "stone"), choices("1", (0,), "signs"))
    told = [
        Response(loglik=(-2 * LN2,), is_greedy=(True,)),
        Response(loglik=(-4 * LN2,), is_greedy=(False,)),
    ]
    result = score(asked, told)
    got = estimates(result)
    assert got["exact_match"].value == 0.5
    # 2 and 4 bits over " stone" and " signs", 6 bytes each
    assert got["gold_bits_per_byte"].value == pytest.approx(0.5)
    assert got["correct_prob"].value == pytest.approx((1 / 4 + 1 / 16) / 2)
    assert got["chance"].value == 0
    assert "accuracy" not in got
    assert result.items["matched"].to_list() == [True, False]
    assert result.items["answer"].to_list() == [" stone", " signs"]


def test_a_free_answer_is_matched_by_any_alias():
    asked = task(free("0", "Ann", "Anna"), free("1", "Bob"), form="open")
    result = score(asked, [Response(generated=" the Anna."), Response(generated="Rob")])
    assert estimates(result)["exact_match"].value == 0.5
    assert result.items["generated"].to_list() == [" the Anna.", "Rob"]
    assert result.items["answer"].to_list() == ["Ann", "Bob"]
    assert result.items["matched"].to_list() == [True, False]
    assert result.items["option_loglik"].to_list() == [None, None]


def test_subjects_give_macro_and_micro():
    asked = task(
        *(choices(f"a/{i}", (0,), "x", "y", subject="a") for i in range(3)),
        choices("b/0", (1,), "x", "y", subject="b"),
    )
    got = estimates(score(asked, [weighed(-1.0, -2.0)] * 4))
    # subject a is all right (3 of 3), b all wrong (0 of 1)
    assert got["accuracy_macro"].value == 0.5
    assert got["accuracy_micro"].value == 0.75 == got["accuracy"].value
    # one document of b has no standard error
    assert got["accuracy_macro"].stderr is None
    assert got["accuracy_macro"].n == 4


def test_one_subject_is_no_group():
    asked = task(*(choices(f"a/{i}", (0,), "x", "y", subject="a") for i in range(3)))
    assert "accuracy_macro" not in estimates(score(asked, [weighed(-1.0, -2.0)] * 3))


def test_items_have_the_stores_columns_and_ragged_options():
    asked = task(choices("0", (0, 2), "blue", "red", "green"), choices("1", (1,), "a", "b"))
    items = score(asked, [weighed(-1.0, -2.0, -3.0), weighed(-1.0, -2.0)], tokens=3).items
    assert dict(items.schema) == dict(ITEMS) or items.columns == list(ITEMS)
    assert items["gold"].to_list() == [[0, 2], [1]]
    assert items["option_loglik"].to_list() == [[-1.0, -2.0, -3.0], [-1.0, -2.0]]
    assert items["option_tokens"].to_list() == [[3, 3, 3], [3, 3]]
    assert items["option_chars"].to_list() == [[4, 3, 5], [1, 1]]
    assert items["option_bytes"].to_list() == [[5, 4, 6], [2, 2]]
    assert items["answer"].to_list() == [None, None]
    assert items["matched"].to_list() == [None, None]


def test_documents_of_several_kinds_are_scored_together():
    asked = task(choices("0", (0,), "a", "b"), choices("1", (0,), "stone"), free("2", "Ann"))
    told = [
        weighed(-1.0, -2.0),
        Response(loglik=(-3.0,), is_greedy=(True,)),
        Response(generated="x"),
    ]
    got = estimates(score(asked, told))
    assert (got["accuracy"].n, got["exact_match"].n) == (1, 2)
    assert got["gold_nats_per_token"].n == 2
    assert got["chance"].value == pytest.approx(0.5 / 3)


def test_every_row_has_a_unit():
    asked = task(choices("0", (0,), "a", "b", subject="x"), choices("1", (0,), "stone"))
    told = [weighed(-1.0, math.nan), Response(loglik=(-3.0,), is_greedy=(True,))]
    for row in score(asked, told).rows:
        assert row.unit == UNITS[row.metric]


def test_answers_are_dealt_out_in_order():
    asked = task(choices("0", (0,), "a", "b"), free("1", "Ann"), choices("2", (0,), "c"))
    dealt = deal(
        asked,
        loglik=[-1.0, -2.0, -3.0],
        is_greedy=[True, False, True],
        generated=["Ann"],
    )
    assert [d.loglik for d in dealt] == [(-1.0, -2.0), (), (-3.0,)]
    assert [d.is_greedy for d in dealt] == [(True, False), (), (True,)]
    assert [d.generated for d in dealt] == [None, "Ann", None]
