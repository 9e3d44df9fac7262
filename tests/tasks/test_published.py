"""Published data sets as tasks: counted, asked, scored."""

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.pre_tokenizers import ByteLevel

import isoloss
from isoloss.errors import BadData, BadRequest
from isoloss.study import Study
from isoloss.tasks import Response, TaskSpec, load_task, prepare, score_task
from isoloss.tasks.published import PUBLISHED
from isoloss.tasks.published_answers import number_matches
from models.tiny import tokenizer
from readme import ROOT
from shared_data import SHARED, needs_shared
from tasks.published_files import GSM8K_ZH, write_all, write_lines

EVALS = SHARED / "eval-sets"


def load(name, path=None, *, expected=3, **settings):
    return load_task(name, TaskSpec(path=path, **settings), published=name, expected=expected)


@pytest.fixture
def written(tmp_path):
    return write_all(tmp_path / "written")


def test_another_number_of_documents_is_an_error_with_both_numbers(written):
    with pytest.raises(BadData, match=r"10,042 documents.* hold 3") as told:
        load("hellaswag", written["hellaswag"], expected=None)
    assert "documents = 3" in str(told.value)
    assert len(load("hellaswag", written["hellaswag"], limit=2).documents) == 2


def test_a_set_that_is_not_on_the_hub_names_where_to_get_it():
    for name in ("nlpcc_kbqa", "gsm8k_zh"):
        with pytest.raises(BadRequest, match="not on the hub") as told:
            load(name)
        assert PUBLISHED[name].origin in str(told.value)


@pytest.mark.parametrize(
    ("name", "file", "settings", "what"),
    [
        ("helaswag", "hellaswag", {}, "no published data set"),
        ("hellaswag@abc", "hellaswag", {}, "a path was given too"),
        ("hellaswag", "hellaswag", {"delimiter": ""}, "delimiter does not apply"),
        ("hellaswag", "hellaswag", {"until": ("\n",)}, "until does not apply"),
        ("hellaswag", "hellaswag", {"form": "cot"}, "cannot be asked in the form cot"),
        ("triviaqa", "triviaqa", {"num_fewshot": 3}, "too few other documents"),
        ("ceval", "ceval", {"num_fewshot": 2}, "accountant has 1 published examples"),
    ],
)
def test_a_setting_that_cannot_apply_is_refused(written, name, file, settings, what):
    with pytest.raises(BadRequest, match=what):
        load(name, written[file], **settings)


def test_a_folder_without_the_sets_files_names_what_it_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadData, match="holds no files of RACE") as told:
        load("race", tmp_path)
    assert "test/*/*.txt" in str(told.value) and "notes.txt" in str(told.value)


def test_documents_without_a_published_set_is_refused(written):
    with pytest.raises(BadRequest, match="none is named"):
        load_task("x", TaskSpec(path=written["hellaswag"]), expected=3)


def test_other_answers_to_the_same_questions_are_another_version(written):
    path, before = written["gsm8k_zh"], load("gsm8k_zh", written["gsm8k_zh"], num_fewshot=0)
    write_lines(path, [GSM8K_ZH[0] | {"answer": "#### 6"}, *GSM8K_ZH[1:]])
    after = load("gsm8k_zh", path, num_fewshot=0)
    assert before.docs_hash == after.docs_hash
    assert before.version != after.version


def test_free_answers_are_scored_by_the_sets_own_rule(written):
    task = load("gsm8k_zh", written["gsm8k_zh"], num_fewshot=1)
    said = ["一共５个。\n#### 5", "答案是二十四元", "十三个月"]
    prepared = prepare(task, tokenizer())
    score = score_task(task, prepared, [Response(generated=text) for text in said])
    values = {row.metric: row.estimate.value for row in score.rows}
    assert values["exact_match"] == pytest.approx(2 / 3)
    assert score.items["matched"].to_list() == [True, True, False]
    assert score.items["answer"].to_list() == ["5", "24", "12"]


@needs_shared
@pytest.mark.parametrize("form", ["letters", "cloze"])
def test_real_mmlu_is_asked_as_the_csv_reader_asks_it(form):
    settings = {"path": EVALS / "mmlu", "form": form, "limit": 100, "num_fewshot": 3}
    ours = load_task("mmlu", TaskSpec(**settings), published="mmlu")  # all 14,042 are counted
    theirs = load_task("mmlu", TaskSpec(**settings))
    assert ours.docs_hash == theirs.docs_hash
    assert ours.fewshot_seed == theirs.fewshot_seed


@needs_shared
def test_real_gsm8k_shows_eight_other_problems():
    task = load_task("gsm8k", TaskSpec(path=EVALS / "gsm8k", limit=50), published="gsm8k")
    for document in task.documents:
        asked = document.generation.context.split("Question: ")[1:]
        assert len(asked) == 9 and len(set(asked)) == 9
        assert all("\n#### " in text for text in asked[:-1])
        assert asked[-1].endswith("\nAnswer:")


def save_byte_model(folder):
    """A random model of bytes, so that Chinese texts differ."""
    # a gap that opens a story leaves no context but the beginning of the text
    vocabulary = {c: k for k, c in enumerate(["<s>", *sorted(ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    tokenizer.save_pretrained(folder)
    config = hf.LlamaConfig(vocab_size=257, hidden_size=16, intermediate_size=32,
                            num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # wide, so that what it writes depends on the question
    model.save_pretrained(folder)


STUDY = """
name = "abilities"
[run]
threads = 1
[[family]]
name = "random"
[[family.model]]
name = "tiny"
checkpoints = [{{ path = "model", step = 1, tokens = 100 }}]
[task.gsm8k_zh]
published = "gsm8k_zh"
path = "{gsm8k_zh}"
documents = 3
num_fewshot = 1
max_tokens = 8
[task.story]
published = "clozet"
path = "{clozet}"
documents = {n}
[probe.task_score]
"""


def test_two_sets_are_scored_end_to_end(tmp_path, written):
    save_byte_model(tmp_path / "model")
    text = STUDY.format(**written, n=3)
    out = tmp_path / "run"
    summary = isoloss.run(Study.from_text(text, folder=tmp_path), out=out)
    assert (summary.done, summary.failed) == (3, 0)  # the fingerprint is the third
    store = isoloss.Store(out)
    rows = store.measurements().collect()
    scores = {(r["subject"], r["metric"]): r["value"] for r in rows.iter_rows(named=True)}
    items = store.items("gsm8k_zh").collect()
    right = [number_matches(r["generated"], [r["answer"]]) for r in items.iter_rows(named=True)]
    assert scores["gsm8k_zh", "exact_match"] == sum(right) / 3
    assert scores["gsm8k_zh", "chance"] == PUBLISHED["gsm8k_zh"].chance
    assert len(set(items["generated"].to_list())) > 1
    # brute force over the stored log-likelihoods
    stories = store.items("story").collect()
    best = [max(range(2), key=row["option_loglik"].__getitem__) in row["gold"]
            for row in stories.iter_rows(named=True)]  # fmt: skip
    assert scores["story", "accuracy"] == sum(best) / 3
    assert scores["story", "chance"] == PUBLISHED["clozet"].chance
    assert isoloss.run(Study.from_text(text, folder=tmp_path), out=out).done == 0
    with pytest.raises(BadData, match="hold 3") as told:
        isoloss.run(Study.from_text(STUDY.format(**written, n=4), folder=tmp_path), out=out)
    assert told.value.__notes__ == ["while reading [task.story]"]


def test_the_table_of_the_documentation_is_the_table_of_definitions():
    lines = (ROOT / "docs/abilities.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines
            if line.startswith("| `")]  # fmt: skip
    asked = {row[0].strip("`"): row[1:] for row in rows if len(row) == 8}
    lies = {row[0].strip("`"): row[1:] for row in rows if len(row) == 3}
    assert list(asked) == list(lies) == list(PUBLISHED)
    for name, d in PUBLISHED.items():
        title, language, split, documents, form, shots, score = asked[name]
        assert (title, language, split) == (d.title, d.language, d.split)
        assert (documents, form, shots) == (f"{d.documents:,}", d.form, str(d.num_fewshot))
        assert score == f"{d.metric}, {d.chance:g}"
        hub = (
            "not there"
            if d.hub is None
            else f"{d.hub.repo} @ {d.hub.revision}: "
            + ", ".join(f"`{pattern}`" for pattern in d.hub.files + d.hub.examples)
        )
        assert lies[name][0] == hub


def test_the_example_study_names_every_set_of_the_hub():
    study = Study.load(ROOT / "examples/emergence-abilities.toml")
    named = [task.published for task in study.task.values()]
    assert named == [name for name, definition in PUBLISHED.items() if definition.hub]
