"""The oracle is lm-eval's evaluator over HFLM in float32, on a really trained model."""

import numpy as np
import pytest
import torch
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from isoloss.probes.task_score import task_score
from isoloss.scoring.scorer import Scorer
from isoloss.tasks import TaskSpec, load_task, prepare
from shared_data import SHARED, needs_shared
from tasks.harness_yaml import CHOICES, write_task

FOUNDRY = "eval-sets/llm-foundry"
FILES = {
    "hellaswag": "eval-sets/hellaswag/hellaswag.jsonl",
    "arc_easy": f"{FOUNDRY}/world_knowledge/arc_easy.jsonl",
    "piqa": f"{FOUNDRY}/commonsense_reasoning/piqa.jsonl",
}
LIMIT = 50
# two best options closer than this may be ranked either way by float32 sums in another order
CLOSE_NATS = 2e-3


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(
        SHARED / "models" / "stories-260k", dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHARED / "models" / "stories-260k")


@pytest.fixture(scope="module")
def scorer(model, tokenizer):
    return Scorer(model, tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml")
    for name, file in FILES.items():
        write_task(path, name, SHARED / file, **CHOICES)
    write_task(
        path,
        "lambada",
        SHARED / FOUNDRY / "language_understanding" / "lambada_openai.jsonl",
        output_type="loglikelihood",
        doc_to_text="{{context}}",
        doc_to_target="{{' ' + continuation}}",
        metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
    )
    write_task(
        path,
        "trivia",
        SHARED / FOUNDRY / "world_knowledge" / "triviaqa_sm_sub.first500.jsonl",
        output_type="generate_until",
        doc_to_text="{{context}}",
        doc_to_target="aliases",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        metric_list=[{"metric": "exact_match", "ignore_case": True}],
    )
    return path


@pytest.fixture(scope="module")
def harness(folder, model, tokenizer):
    """The harness's own results and samples of all tasks, in one run."""
    patch = pytest.MonkeyPatch()
    # seconds spent on a report of installed packages, which no test reads
    patch.setattr(evaluator, "add_env_info", lambda storage: None)
    patch.setattr(evaluator, "get_git_commit_hash", lambda: None)
    results = evaluator.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, dtype="float32", batch_size=8),
        tasks=[*FILES, "lambada", "trivia"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        limit=LIMIT,
        bootstrap_iters=0,
    )
    patch.undo()
    return results


def values(measured):
    return {row.metric: row.estimate.value for row in measured.rows}


def measure(scorer, tokenizer, name, spec):
    task = load_task(name, spec)
    return task, task_score(scorer, task, prepare(task, tokenizer))


@needs_shared
@pytest.mark.parametrize("source", ["jsonl", "lm-eval"])
@pytest.mark.parametrize("name", FILES)
def test_options_and_accuracies_equal_the_harnesss(
    harness, folder, scorer, tokenizer, name, source
):
    where = {"path": SHARED / FILES[name]} if source == "jsonl" else {"include_path": folder}
    _, measured = measure(
        scorer, tokenizer, name, TaskSpec(limit=LIMIT, sample="first", num_fewshot=0, **where)
    )
    samples = sorted(harness["samples"][name], key=lambda sample: sample["doc_id"])
    theirs = [[float(r[0][0]) for r in sample["resps"]] for sample in samples]
    ours = measured.items["option_loglik"].to_list()
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    gap = max(
        abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert gap < 1e-3
    lengths = measured.items["option_chars"].to_list()
    for metric, key, divisors in (
        ("accuracy", "acc", [[1] * len(row) for row in ours]),
        ("accuracy_per_char", "acc_norm", lengths),
    ):
        exempt = sum(is_close(x, d) for x, d in zip(theirs, divisors, strict=True))
        expected = harness["results"][name][f"{key},none"]
        # equal but for documents whose two best options are too close to call
        assert abs(values(measured)[metric] - expected) <= exempt / LIMIT + 1e-12


def is_close(loglik, divisors):
    best = np.sort(np.array(loglik) / np.array(divisors))[-2:]
    return best[1] - best[0] < CLOSE_NATS / min(divisors)


@needs_shared
def test_lambada_equals_the_harnesss(harness, folder, scorer, tokenizer):
    expected = harness["results"]["lambada"]
    for where in (
        {"include_path": folder},
        {"path": SHARED / FOUNDRY / "language_understanding" / "lambada_openai.jsonl"},
    ):
        spec = TaskSpec(limit=LIMIT, sample="first", num_fewshot=0, **where)
        _, measured = measure(scorer, tokenizer, "lambada", spec)
        assert values(measured)["exact_match"] == expected["acc,none"]
        nats = -np.array(measured.items["option_loglik"].to_list())[:, 0]
        # 1e-3 nats of the mean is 1e-3 relative in perplexity
        assert np.exp(nats.mean()) == pytest.approx(expected["perplexity,none"], rel=1e-3)
        if "include_path" in where:
            assert values(measured)["lm_eval/perplexity"] == pytest.approx(
                expected["perplexity,none"], rel=1e-3
            )


@needs_shared
def test_free_answers_equal_the_harnesss(harness, folder, scorer, tokenizer):
    spec = TaskSpec(limit=LIMIT, sample="first", num_fewshot=0, include_path=folder)
    _, measured = measure(scorer, tokenizer, "trivia", spec)
    samples = sorted(harness["samples"]["trivia"], key=lambda sample: sample["doc_id"])
    assert measured.items["generated"].to_list() == [s["resps"][0][0] for s in samples]
    expected = harness["results"]["trivia"]["exact_match,none"]
    assert values(measured)["exact_match"] == expected


@needs_shared
def test_bigbench_is_scored_with_its_own_prompt(scorer, tokenizer):
    path = SHARED / "bigbench" / "json" / "causal_judgement.json"
    task, measured = measure(
        scorer, tokenizer, "causal_judgement", TaskSpec(path=path, num_fewshot=0, limit=20)
    )
    oracle = HFLM(pretrained=scorer.model, tokenizer=tokenizer, dtype="float32", batch_size=8)
    pairs = [(o.context, o.continuation) for d in task.documents for o in d.options]
    theirs = [total for total, _ in oracle.loglikelihood([Asked(args=pair) for pair in pairs])]
    ours = [x for row in measured.items["option_loglik"].to_list() for x in row]
    assert np.abs(np.array(ours) - np.array(theirs)).max() < 1e-3


class Asked:
    """The one attribute of an lm-eval request that HFLM reads."""

    def __init__(self, args):
        self.args = args


@needs_shared
def test_measuring_twice_gives_the_same_bits(scorer, tokenizer):
    task = load_task("piqa", TaskSpec(path=SHARED / FILES["piqa"], limit=10))
    prepared = prepare(task, tokenizer)
    first, second = (task_score(scorer, task, prepared) for _ in range(2))
    assert first.rows == second.rows
    assert first.items.equals(second.items)


@needs_shared
def test_a_text_beyond_the_window_is_unknown_and_counted(scorer, tokenizer, tmp_path):
    path = tmp_path / "t.jsonl"
    long = "once upon a time " * 400
    path.write_text(
        '{"query": "q", "choices": ["cat", "dog"], "gold": 0}\n'
        f'{{"query": "q", "choices": ["cat", "{long}"], "gold": 0}}\n'
    )
    _, measured = measure(scorer, tokenizer, "toy", TaskSpec(path=path))
    found = {row.metric: row.estimate for row in measured.rows}
    assert found["documents_unknown"].value == 1
    assert found["accuracy"].n == 1
