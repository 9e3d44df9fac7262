"""The oracle is lm-eval's own evaluator, on a model whose answers are hashes of the requests."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from lm_eval import evaluator
from lm_eval.tasks import TaskManager

from isoloss.errors import BadData, BadRequest
from isoloss.scoring.encode import TokenPair
from isoloss.tasks import Prepared, Response, TaskSpec, load_task, score_task
from tasks.harness_yaml import CHOICES, HashedLM, hashed_loglik, hashed_text, write_task

TEXTS = ("18", "The answer is 18", "19")


@pytest.fixture(autouse=True)
def no_environment_report(monkeypatch):
    """The harness spends seconds on a report of installed packages, which no test reads."""
    monkeypatch.setattr(evaluator, "add_env_info", lambda storage: None)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", lambda: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two multiple-choice tasks, a group of them, a continuation, contexts and open answers."""
    path = tmp_path_factory.mktemp("yaml")
    rng = random.Random(0)
    for name, n in (("sums", 23), ("colours", 11)):
        rows = [
            {"query": f"{name} {i}:", "choices": [f"w{i}", "blue one", "xy"], "gold": i % 3}
            for i in range(n)
        ]
        write_task(path, name, write(path / f"{name}.jsonl", rows), **CHOICES)
    (path / "both.yaml").write_text(
        json.dumps(
            {
                "group": "both",
                "task": ["sums", "colours"],
                "aggregate_metric_list": [
                    {"metric": "acc", "weight_by_size": True},
                ],
            }
        )
    )
    rows = [{"context": f"text {i}", "word": f"w{rng.randint(0, 9)}"} for i in range(31)]
    write_task(
        path,
        "words",
        write(path / "words.jsonl", rows),
        output_type="loglikelihood",
        doc_to_text="{{context}}",
        doc_to_target="{{' ' + word}}",
        metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
    )
    rows = [{"a": f"Ann{i}", "b": f"Bob{i}", "end": "ran.", "gold": i % 2} for i in range(9)]
    write_task(
        path,
        "who",
        write(path / "who.jsonl", rows),
        doc_to_text="gold",
        doc_to_choice="{{[a, b]}}",
        doc_to_target="end",
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )
    rows = [{"question": f"{i}?", "answer": rng.choice(["18", "19"])} for i in range(17)]
    strict = [{"function": "regex", "regex_pattern": "^(\\d+)$"}, {"function": "take_first"}]
    free = [{"function": "regex", "regex_pattern": "(\\d+)"}, {"function": "take_first"}]
    write_task(
        path,
        "free",
        write(path / "free.jsonl", rows),
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="answer",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 7, "do_sample": False},
        filter_list=[{"name": "strict", "filter": strict}, {"name": "flexible", "filter": free}],
        metric_list=[{"metric": "exact_match"}],
    )
    return path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ours(folder, name, **settings):
    task = load_task(name, TaskSpec(include_path=folder, **settings))
    return task, score_task(task, prepared(task), answers(task))


def prepared(task):
    pairs = tuple(
        TokenPair((1,), (2,) * len(o.continuation)) for d in task.documents for o in d.options
    )
    return Prepared(pairs=pairs, generations=())


def answers(task):
    responses = []
    for document in task.documents:
        told = [hashed_loglik(o.context, o.continuation) for o in document.options]
        free = document.generation
        responses.append(
            Response(
                loglik=tuple(loglik for loglik, _ in told),
                is_greedy=tuple(greedy for _, greedy in told),
                generated=None if free is None else hashed_text(free.context, TEXTS),
            )
        )
    return responses


def theirs(folder, name, **settings):
    return evaluator.simple_evaluate(
        model=HashedLM(TEXTS),
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **settings,
    )


def values(score):
    return {row.metric: row.estimate.value for row in score.rows}


@pytest.mark.parametrize("num_fewshot", [0, 3])
@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("name", ["sums", "who"])
def test_accuracies_equal_the_harnesss(folder, name, num_fewshot, limit):
    task, score = ours(folder, name, num_fewshot=num_fewshot, limit=limit, sample="first")
    result = theirs(folder, name, num_fewshot=num_fewshot, limit=limit)
    expected = result["results"][name]
    # the same hits over the same documents: equal but for the order of a sum
    assert values(score)["accuracy"] == pytest.approx(expected["acc,none"], rel=1e-12)
    assert values(score)["accuracy_per_char"] == pytest.approx(expected["acc_norm,none"], rel=1e-12)
    sent = [tuple(args) for sample in result["samples"][name] for args in sample["arguments"]]
    assert [(o.context, o.continuation) for d in task.documents for o in d.options] == sent


@pytest.mark.parametrize("name", ["sums", "who"])
def test_our_own_accuracies_are_the_harnesss_without_its_help(folder, name):
    task = replace(load_task(name, TaskSpec(include_path=folder)), native=None)
    alone = values(score_task(task, prepared(task), answers(task)))
    expected = theirs(folder, name)["results"][name]
    assert alone["accuracy"] == pytest.approx(expected["acc,none"], rel=1e-12)
    assert alone["accuracy_per_char"] == pytest.approx(expected["acc_norm,none"], rel=1e-12)


def test_chars_leave_the_delimiter_out_and_bytes_count_it(folder):
    option = load_task("sums", TaskSpec(include_path=folder)).documents[0].options[1]
    assert (option.continuation, option.chars, option.bytes) == (" blue one", 8, 9)


def test_a_continuation_keeps_perplexity_under_its_own_name(folder):
    task, score = ours(folder, "words")
    expected = theirs(folder, "words")["results"]["words"]
    got = values(score)
    assert got["lm_eval/perplexity"] == pytest.approx(expected["perplexity,none"], rel=1e-12)
    assert got["accuracy"] == got["exact_match"] == pytest.approx(expected["acc,none"], rel=1e-12)
    assert task.documents[0].kind == "continuation"
    assert score.items["matched"].mean() == pytest.approx(expected["acc,none"], rel=1e-12)


def test_the_standard_error_of_perplexity_is_near_the_linearised_one(folder):
    task, score = ours(folder, "words")
    found = next(row.estimate for row in score.rows if row.metric == "lm_eval/perplexity")
    nats = np.array([-r.loglik[0] for r in answers(task)])
    linear = found.value * nats.std(ddof=1) / math.sqrt(len(nats))
    # 20 groups of 31 values: the jackknife's own relative sd is 1 / sqrt(2 * 19) = 0.16
    assert found.stderr == pytest.approx(linear, rel=0.5)


def test_filters_are_the_tasks_own(folder):
    task, score = ours(folder, "free")
    expected = theirs(folder, "free")["results"]["free"]
    got = values(score)
    assert got["exact_match"] == pytest.approx(expected["exact_match,strict"], rel=1e-12)
    assert got["lm_eval/exact_match,flexible"] == pytest.approx(
        expected["exact_match,flexible"], rel=1e-12
    )
    assert got["exact_match"] != got["lm_eval/exact_match,flexible"]
    generation = task.documents[0].generation
    assert (generation.until, generation.max_tokens) == (("\n",), 7)
    assert score.items["matched"].mean() == got["exact_match"]
    assert set(score.items["answer"]) == {"18", "19"}


def test_a_group_is_one_task_of_several_subjects(folder):
    task, score = ours(folder, "both", num_fewshot=1)
    result = theirs(folder, "both", num_fewshot=1)["results"]
    parts = [result["sums"]["acc,none"], result["colours"]["acc,none"]]
    got = values(score)
    assert got["accuracy_macro"] == pytest.approx(sum(parts) / 2, rel=1e-12)
    assert got["accuracy_micro"] == pytest.approx(result["both"]["acc,none"], rel=1e-12)
    assert got["accuracy"] == got["accuracy_micro"]
    assert {d.subject for d in task.documents} == {"sums", "colours"}
    assert task.documents[0].doc == "sums/0"


def test_the_first_of_a_group_are_the_first_of_every_subtask(folder):
    task, score = ours(folder, "both", limit=4, sample="first")
    assert len(task.documents) == 8
    result = theirs(folder, "both", limit=4)["results"]
    assert values(score)["accuracy_micro"] == pytest.approx(result["both"]["acc,none"], rel=1e-12)


def test_a_seeded_sample_keeps_names_and_sends_the_harnesss_requests(folder):
    whole = {d.doc: d for d in load_task("both", TaskSpec(include_path=folder)).documents}
    part = load_task("both", TaskSpec(include_path=folder, limit=10))
    assert len(part.documents) == 10
    assert all(whole[d.doc] == d for d in part.documents)
    # 34 documents, 23 of sums: 6.76 and 3.24 of ten
    assert sum(d.subject == "sums" for d in part.documents) == 7


def test_an_unknown_log_likelihood_leaves_one_document_out_of_lm_evals_scores(folder):
    task = load_task("sums", TaskSpec(include_path=folder))
    told = answers(task)
    told[0] = Response(loglik=(math.nan, -1.0, -2.0), is_greedy=(False, False, False))
    score = score_task(task, prepared(task), told)
    found = {row.metric: row.estimate for row in score.rows}
    assert found["accuracy"].n == 22
    assert found["documents_unknown"].value == 1


def test_scoring_twice_gives_the_same(folder):
    task = load_task("free", TaskSpec(include_path=folder))
    first, second = (score_task(task, prepared(task), answers(task)) for _ in range(2))
    assert first.rows == second.rows
    assert first.items.equals(second.items)


def test_an_unknown_task_names_its_neighbour(folder):
    with pytest.raises(BadRequest, match="no task 'sum'") as caught:
        load_task("sum", TaskSpec(include_path=folder))
    assert caught.value.nearest == "sums"


def test_settings_that_lm_eval_fixes_are_refused(folder):
    with pytest.raises(BadRequest, match="form does not apply"):
        load_task("sums", TaskSpec(include_path=folder, form="cloze"))


def test_an_include_path_must_be_a_folder(tmp_path):
    with pytest.raises(BadRequest, match="no folder"):
        load_task("sums", TaskSpec(include_path=tmp_path / "absent"))


def test_a_yaml_file_may_be_named_itself(folder):
    task = load_task("mine", TaskSpec(path=folder / "sums.yaml"))
    assert (task.name, len(task.documents)) == ("mine", 23)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"output_type": "loglikelihood_rolling", "metric_list": []}, "perplexity of whole texts"),
        ({"unsafe_code": True}, "runs code"),
        (
            {
                "output_type": "generate_until",
                "generation_kwargs": {"do_sample": True, "temperature": 0.7, "until": []},
                "doc_to_choice": None,
                "doc_to_target": "{{query}}",
                "metric_list": [{"metric": "exact_match"}],
            },
            "sampled answers",
        ),
    ],
)
def test_what_a_text_model_cannot_be_asked_is_refused(tmp_path, settings, what):
    rows = [{"query": "q", "choices": ["a", "b"], "gold": 0}]
    write_task(tmp_path, "bad", write(tmp_path / "bad.jsonl", rows), **{**CHOICES, **settings})
    with pytest.raises(BadRequest, match=what):
        load_task("bad", TaskSpec(include_path=tmp_path))


def test_a_gold_out_of_range_and_a_broken_template_are_named(tmp_path):
    good = {"query": "q", "choices": ["a", "b"], "gold": 0}
    data = write(tmp_path / "bad.jsonl", [good, {**good, "gold": 2}])
    write_task(tmp_path, "bad", data, **CHOICES)
    with pytest.raises(BadData, match="no place") as caught:
        load_task("bad", TaskSpec(include_path=tmp_path))
    assert "document 1: 2 with 2 options" in caught.value.asked
    write_task(tmp_path, "broken", data, **{**CHOICES, "doc_to_choice": "absent"})
    with pytest.raises(BadData, match="cannot load"):
        load_task("broken", TaskSpec(include_path=tmp_path))


def test_loading_prints_nothing(folder, capfd):
    load_task("sums", TaskSpec(include_path=folder, num_fewshot=1))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
