import json
from collections import Counter

import pytest

from isoloss.errors import BadData, BadRequest
from isoloss.tasks import TaskSpec, load_task
from shared_data import SHARED, needs_shared

CHOICE = {"query": "2 + 2 =", "choices": ["3", "4"], "gold": 1}


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def load(path, **settings):
    return load_task("toy", TaskSpec(path=path, **settings))


def test_options_are_weighed_after_one_context(tmp_path):
    (document,) = load(write(tmp_path / "t.jsonl", CHOICE)).documents
    assert [(o.context, o.continuation) for o in document.options] == [
        ("2 + 2 =", " 3"),
        ("2 + 2 =", " 4"),
    ]
    assert (document.gold, document.kind) == ((1,), "options")


def test_contexts_are_weighed_by_one_continuation(tmp_path):
    record = {"context_options": ["So Ann", "So Bob"], "continuation": "ran.", "gold": 1}
    (document,) = load(write(tmp_path / "t.jsonl", record)).documents
    assert [(o.context, o.continuation) for o in document.options] == [
        ("So Ann", " ran."),
        ("So Bob", " ran."),
    ]
    assert document.kind == "contexts"


def test_a_continuation_is_one_gold_option(tmp_path):
    record = {"context": "In my palm is a", "continuation": "stone"}
    (document,) = load(write(tmp_path / "t.jsonl", record)).documents
    assert document.options[0].continuation == " stone"
    assert (document.gold, document.kind) == ((0,), "continuation")


def test_an_open_answer_is_generated_and_its_aliases_count(tmp_path):
    record = {"context": "Q: Who?\nA:", "answer": "Ann", "aliases": ["Ann", "Anna"]}
    task = load(write(tmp_path / "t.jsonl", record), until=("\n\n",), max_tokens=5)
    (document,) = task.documents
    assert document.generation.context == "Q: Who?\nA:"
    assert (document.generation.until, document.generation.max_tokens) == (("\n\n",), 5)
    assert (document.answers, task.form) == (("Ann", "Anna"), "open")


def test_a_worked_answer_is_reasoned_to(tmp_path):
    record = {"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"}
    task = load(write(tmp_path / "t.jsonl", record))
    assert (task.form, task.documents[0].answers) == ("cot", ("2",))
    assert task.documents[0].generation.context == "Question: 1 + 1?\nAnswer:"


def test_examples_are_question_delimiter_answer_and_an_empty_line(tmp_path):
    task = load(
        write(tmp_path / "t.jsonl", CHOICE, {"query": "1 + 1 =", "choices": ["2", "3"], "gold": 0}),
        num_fewshot=1,
        delimiter="  ",
    )
    assert task.documents[0].options[0].context == "1 + 1 =  2\n\n2 + 2 ="
    assert task.documents[1].options[0].context == "2 + 2 =  4\n\n1 + 1 ="


def test_an_example_of_partial_evaluation_shows_the_right_context(tmp_path):
    first = {"context_options": ["So Ann", "So Bob"], "continuation": "ran.", "gold": 1}
    second = {"context_options": ["As Cy", "As Di"], "continuation": "sat.", "gold": 0}
    task = load(write(tmp_path / "t.jsonl", first, second), num_fewshot=1)
    contexts = [[o.context for o in d.options] for d in task.documents]
    assert contexts[0] == ["As Cy sat.\n\nSo Ann", "As Cy sat.\n\nSo Bob"]
    assert contexts[1] == ["So Bob ran.\n\nAs Cy", "So Bob ran.\n\nAs Di"]


def test_letters_list_the_choices_and_weigh_their_letters(tmp_path):
    (document,) = load(write(tmp_path / "t.jsonl", CHOICE), form="letters").documents
    assert document.options[0].context == "2 + 2 =\nA. 3\nB. 4\nAnswer:"
    assert [o.continuation for o in document.options] == [" A", " B"]


def test_examples_may_come_from_another_file(tmp_path):
    other = write(tmp_path / "dev.jsonl", {"query": "0 + 0 =", "choices": ["0"], "gold": 0})
    task = load(write(tmp_path / "t.jsonl", CHOICE), num_fewshot=1, fewshot_path=other)
    assert task.documents[0].options[0].context == "0 + 0 = 0\n\n2 + 2 ="


def test_examples_of_another_kind_are_refused(tmp_path):
    other = write(tmp_path / "dev.jsonl", {"context": "a", "continuation": "b"})
    with pytest.raises(BadData, match="another kind"):
        load(write(tmp_path / "t.jsonl", CHOICE), num_fewshot=1, fewshot_path=other)


def test_several_golds_and_subjects_are_kept(tmp_path):
    record = {**CHOICE, "gold": [0, 1], "category": "sums"}
    (document,) = load(write(tmp_path / "t.jsonl", record)).documents
    assert (document.gold, document.subject) == ((0, 1), "sums")


def test_a_byte_order_mark_empty_lines_and_windows_line_ends_are_passed_over(tmp_path):
    path = tmp_path / "t.jsonl"
    line = json.dumps(CHOICE).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line)
    assert len(load(path).documents) == 2


def test_line_separators_inside_a_text_do_not_split_it(tmp_path):
    record = {**CHOICE, "query": "a\u2028b\x85c"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    assert load(path).documents[0].options[0].context == "a\u2028b\x85c"


def test_repeated_records_are_kept_and_never_each_others_example(tmp_path):
    path = write(tmp_path / "t.jsonl", CHOICE, CHOICE, {**CHOICE, "query": "3 + 1 ="})
    task = load(path, num_fewshot=1)
    assert len(task.documents) == 3
    assert task.documents[0].options[0].context == "3 + 1 = 4\n\n2 + 2 ="
    with pytest.raises(BadRequest, match="too few"):
        load(path, num_fewshot=2)


def test_a_limit_leaves_prompts_and_names_as_they_were(tmp_path):
    records = [{**CHOICE, "query": f"{i} + 0 ="} for i in range(40)]
    path = write(tmp_path / "t.jsonl", *records)
    whole = {d.doc: d for d in load(path, num_fewshot=3).documents}
    part = load(path, num_fewshot=3, limit=7)
    assert len(part.documents) == 7
    assert all(whole[d.doc] == d for d in part.documents)
    assert part.settings["docs_seed"] == 0
    assert load(path, num_fewshot=3).settings["docs_seed"] is None


BAD_LINES = {
    "empty option list": ({**CHOICE, "choices": []}, "empty list", "choices"),
    "gold too high": ({**CHOICE, "gold": 2}, "gold is no place", "0 to 1"),
    "gold negative": ({**CHOICE, "gold": -1}, "gold is no place", "-1"),
    "gold a truth value": ({**CHOICE, "gold": True}, "gold is no place", "True"),
    "gold a letter": ({**CHOICE, "gold": "B"}, "gold is no place", "'B'"),
    "no gold at all": ({**CHOICE, "gold": []}, "gold is an empty list", "[]"),
    "missing key": ({"query": "q", "choices": ["a"]}, "no 'gold'", "keys"),
    "misspelt key": ({"query": "q", "choices": ["a"], "golds": 0}, "no 'gold'", "golds"),
    "empty option": ({**CHOICE, "choices": ["3", ""]}, "is empty", "choices"),
    "number for text": ({**CHOICE, "query": 5}, "no text", "query = 5"),
    "no object": ([1, 2], "no JSON object", "[1, 2]"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_malformed_record_is_named_by_its_line(tmp_path, case):
    record, what, asked = BAD_LINES[case]
    with pytest.raises(BadData, match=what) as caught:
        load(write(tmp_path / "t.jsonl", CHOICE, record))
    assert "t.jsonl, line 2" in str(caught.value)
    assert asked in str(caught.value)


def test_a_misspelt_key_of_the_first_record_is_recognised(tmp_path):
    with pytest.raises(BadData, match="no 'gold'") as caught:
        load(write(tmp_path / "t.jsonl", {"query": "q", "choices": ["a"], "golds": 0}))
    assert caught.value.nearest == "golds"


def test_invalid_json_and_invalid_utf8_are_named_by_their_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(CHOICE).encode() + b"\n{'query': 1}\n")
    with pytest.raises(BadData, match="not valid JSON") as caught:
        load(path)
    assert "line 2, column 2" in caught.value.asked
    path.write_bytes(json.dumps(CHOICE).encode() + b'\n{"query": "\xff"}\n')
    with pytest.raises(BadData, match="UTF-8") as caught:
        load(path)
    assert "line 2, byte 11: 0xff" in caught.value.asked


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadData, match="no documents"):
        load(path)


def test_a_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path / "hellaswag.jsonl", CHOICE)
    with pytest.raises(BadData) as caught:
        load(tmp_path / "helaswag.jsonl")
    assert caught.value.nearest == "hellaswag.jsonl"


def test_a_form_that_cannot_be_is_refused(tmp_path):
    path = write(tmp_path / "t.jsonl", CHOICE)
    with pytest.raises(BadRequest, match="no form 'cloz'") as caught:
        TaskSpec(path=path, form="cloz")
    assert caught.value.nearest == "cloze"
    with pytest.raises(BadRequest, match="cannot be asked in the form open"):
        load(path, form="open")
    with pytest.raises(BadRequest, match="max_tokens does not apply"):
        load(path, max_tokens=3)
    with pytest.raises(BadRequest, match="include_path does not apply"):
        load(path, include_path=tmp_path)


# documents, kind, options of a document, as counted in the published files
FILES = {
    "eval-sets/hellaswag/hellaswag": (1000, "options", {4}),
    "eval-sets/gsm8k/test": (1319, "generate", {0}),
    "eval-sets/llm-foundry/commonsense_reasoning/openbook_qa": (500, "options", {4}),
    "eval-sets/llm-foundry/commonsense_reasoning/piqa": (1838, "options", {2}),
    "eval-sets/llm-foundry/language_understanding/lambada_openai": (5153, "continuation", {1}),
    "eval-sets/llm-foundry/language_understanding/winograd_wsc": (273, "contexts", {2}),
    "eval-sets/llm-foundry/language_understanding/winogrande": (1267, "contexts", {2}),
    "eval-sets/llm-foundry/world_knowledge/arc_challenge": (1172, "options", {4}),
    "eval-sets/llm-foundry/world_knowledge/arc_easy": (2376, "options", {4}),
    "eval-sets/llm-foundry/world_knowledge/triviaqa_sm_sub.first500": (500, "generate", {0}),
    "bigbench/jsonl/bigbench_conceptual_combinations": (103, "options", {4}),
    "bigbench/jsonl/bigbench_cs_algorithms": (1320, "continuation", {1}),
    "bigbench/jsonl/bigbench_misconceptions": (219, "options", {2}),
    "bigbench/jsonl/bigbench_movie_recommendation": (500, "options", {4}),
    "bigbench/jsonl/bigbench_novel_concepts": (32, "options", {4}),
    "bigbench/jsonl/bigbench_operators": (210, "continuation", {1}),
    "bigbench/jsonl/bigbench_repeat_copy_logic": (32, "continuation", {1}),
    "bigbench/jsonl/bigbench_simple_arithmetic": (60, "continuation", {1}),
    "bigbench/jsonl/bigbench_strange_stories": (174, "options", {2}),
    "bigbench/jsonl/bigbench_strategy_qa": (2289, "options", {2}),
    "bigbench/jsonl/bigbench_understanding_fables": (189, "options", {4}),
}


@needs_shared
def test_no_published_file_is_left_out():
    found = [*SHARED.glob("eval-sets/**/*.jsonl"), *SHARED.glob("bigbench/jsonl/*.jsonl")]
    assert {p.relative_to(SHARED).as_posix().removesuffix(".jsonl") for p in found} == set(FILES)


@needs_shared
@pytest.mark.parametrize("file", FILES)
def test_published_files_load_with_examples(file):
    documents, kind, options = FILES[file]
    path = SHARED / f"{file}.jsonl"
    task = load(path, num_fewshot=2)
    assert len(task.documents) == documents
    assert Counter(d.kind for d in task.documents) == {kind: documents}
    assert {len(d.options) for d in task.documents} == options
    for document in task.documents:
        assert all(0 <= g < len(document.options) for g in document.gold)
        assert bool(document.gold) != bool(document.answers)
    assert len({d.doc for d in task.documents}) == documents
    plain = load(path)
    for shown, bare in zip(task.documents, plain.documents, strict=True):
        asked = context_of(bare)
        assert context_of(shown).endswith(asked)
        # the question stands in its own prompt once: it is not among its examples
        assert context_of(shown).removesuffix(asked).find(asked + " ") == -1
        assert [o.bytes for o in shown.options] == [o.bytes for o in bare.options]


def context_of(document):
    return document.options[0].context if document.options else document.generation.context
