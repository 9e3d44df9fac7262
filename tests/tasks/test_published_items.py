"""The readers: three written items of each set in its published format, and all real rows."""

import json
from collections import Counter
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from isoloss.errors import BadData
from isoloss.tasks import TaskSpec, load_task
from isoloss.tasks.jsonl import read_items
from isoloss.tasks.published import PUBLISHED
from isoloss.tasks.published_ceval import SUBJECTS
from isoloss.tasks.published_rows import Row, read_rows
from shared_data import SHARED, needs_shared
from tasks.published_files import HELLASWAG, WINOGRANDE, write_all, write_lines

EVALS = SHARED / "eval-sets"
UNDERSTANDING = EVALS / "llm-foundry/language_understanding"
HARNESS = Path(find_spec("lm_eval").origin).parent / "tasks"


def items_of(name, *files):
    return PUBLISHED[name].read(read_rows(files))


def harness_module(path):
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(name, path, **settings):
    settings = {"num_fewshot": 0} | settings
    return load_task(name, TaskSpec(path=path, **settings), published=name, expected=3).documents


@pytest.fixture
def written(tmp_path):
    return write_all(tmp_path)


def test_every_definition_reads_its_three_written_items(written):
    for name, path in written.items():
        # three candidates of one pronoun are one document
        assert len(asked(name, path)) == (1 if name == "cluewsc" else 3), name
    assert set(PUBLISHED) - set(written) == {"mmlu", "gsm8k"}  # real items in full


def test_triviaqa_takes_the_authors_aliases(written):
    first, second, _ = items_of("triviaqa", written["triviaqa"])
    assert first.answers == ("Jane Austen", "Austen, Jane", "jane austen", "austen jane")
    assert second.answers == ("CO2", "Carbon-dioxide", "carbonic acid gas")
    document = asked("triviaqa", written["triviaqa"], num_fewshot=1)[0]
    opening, _, question = document.generation.context.rpartition("\n\n")
    assert question == "Question: Who wrote Emma?\nAnswer:"
    assert opening in (
        "Question: Which gas do plants take in?\nAnswer: CO2",
        "Question: How many legs has a spider?\nAnswer: 8",
    )


def test_hellaswag_is_cleaned_as_lm_eval_cleans_it(written):
    clean = harness_module(HARNESS / "hellaswag/utils.py").preprocess
    items = items_of("hellaswag", written["hellaswag"])
    for item, doc in zip(items, HELLASWAG, strict=True):
        context = doc["ctx_a"] + " " + doc["ctx_b"].capitalize()
        assert item.inputs == (clean(doc["activity_label"] + ": " + context),)
        assert item.choices == tuple(clean(ending) for ending in doc["endings"])
        assert item.gold == (int(doc["label"]),)


def test_winogrande_is_evaluated_partially_as_lm_eval_does(written):
    theirs = harness_module(HARNESS / "winogrande/preprocess_winogrande.py")
    for document, doc in zip(asked("winogrande", written["winogrande"]), WINOGRANDE, strict=True):
        assert document.kind == "contexts"
        assert [o.context for o in document.options] == theirs.doc_to_choice(doc)
        assert {o.continuation for o in document.options} == {" " + theirs.doc_to_target(doc)}
        assert document.gold == (theirs.doc_to_text(doc),)


def test_race_asks_letters_under_its_passage(written):
    documents = asked("race", written["race"])
    assert [d.subject for d in documents] == ["high", "middle", "middle"]
    assert documents[1].options[0].context == (
        "Passage: Tom has a red kite. He flies it on Sundays.\n\nQuestion: What does Tom have?\n"
        "A. A kite\nB. A car\nC. A dog\nD. A hat\nAnswer:"
    )
    assert [o.continuation for o in documents[1].options] == [" A", " B", " C", " D"]
    assert [d.gold for d in documents] == [(3,), (0,), (1,)]


def test_an_example_never_shows_the_passage_that_is_asked(written):
    for document in asked("race", written["race"], num_fewshot=1)[1:]:
        assert document.options[0].context.count("Tom has a red kite") == 1


def test_clozet_weighs_each_sentence_with_the_rest_of_the_story(written):
    first, second, third = asked("clozet", written["clozet"])
    assert [o.context + o.continuation for o in first.options] == [
        "小猫想钓鱼。它钓到十条鱼。它只好回家。",
        "小猫想钓鱼。它一条也没有钓到。它只好回家。",
    ]
    assert [o.context for o in second.options] == ["", ""]
    assert [o.continuation for o in third.options] == ["树游走了。", "树长大了。"]
    assert [d.gold for d in (first, second, third)] == [(1,), (0,), (1,)]


def test_cluewsc_weighs_what_follows_the_pronoun_after_each_candidate(written):
    (document,) = asked("cluewsc", written["cluewsc"])
    assert [o.context for o in document.options] == [
        f"小明打电话给小刚，{name}" for name in ("小明", "小刚", "电话")
    ]
    assert {o.continuation for o in document.options} == {"没有接到。"}
    assert document.gold == (1,)


def test_c3_asks_in_chinese_and_no_space_stands_before_the_letter(written):
    first, second, third = asked("c3", written["c3"])
    assert first.options[0].context == (
        "男：你吃了吗?\n女：吃了。\n\n问题：女的吃了吗?\nA. 吃了\nB. 没吃\n答案："
    )
    assert [o.continuation for o in second.options] == ["A", "B", "C"]
    assert [d.gold for d in (first, second, third)] == [(0,), (1,), (1,)]


def test_ceval_opens_with_its_subject_and_shows_its_first_published_examples(written):
    documents = asked("ceval", written["ceval"], num_fewshot=1)
    assert [d.doc for d in documents] == ["accountant/0", "accountant/1", "law/0"]
    assert documents[1].options[0].context == (
        "以下是中国关于注册会计师的单项选择题，请选出其中的正确答案。\n\n"
        "二加二等于____。\nA. 一\nB. 二\nC. 三\nD. 四\n答案：D\n\n"
        '下列哪项是"资产"？\nA. 现金\nB. 债务\nC. 费用\nD. 收入\n答案：'
    )
    assert [o.continuation for o in documents[1].options] == ["A", "B", "C", "D"]


def test_ceval_names_its_52_subjects_as_lm_eval_does():
    told = {}
    for file in (HARNESS / "ceval").glob("ceval-valid_*.yaml"):
        lines = dict(line.split(": ", 1) for line in file.read_text().splitlines())
        told[lines['"dataset_name"'].strip('"')] = lines['"description"']
    assert told.keys() == SUBJECTS.keys()
    for subject, text in SUBJECTS.items():
        assert told[subject].startswith(f'"以下是中国关于{text}的单项选择题')


def test_gsm8k_in_chinese_reads_worked_answers_and_bare_numbers(written):
    assert [i.answers for i in items_of("gsm8k_zh", written["gsm8k_zh"])] == [
        ("5",), ("24",), ("12",)
    ]  # fmt: skip
    document = asked("gsm8k_zh", written["gsm8k_zh"], num_fewshot=2)[0]
    assert document.generation.context.endswith(
        "\n\n问题：小明有3个苹果，又买了2个，一共几个？\n答案："
    )
    assert document.generation.until == ("问题：",)


def test_nlpcc_reads_its_tagged_text(written):
    items = items_of("nlpcc_kbqa", written["nlpcc_kbqa"])
    assert [i.question for i in items][0] == "《线性代数》的isbn码是什么？"
    assert [i.answers for i in items] == [
        ("978-7-111-36843-4",), ("杨可桢", "程光蕴"), ("曹雪芹",)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "record", "what"),
    [
        ("hellaswag", {"activity_label": "x", "ctx_a": "a", "ctx_b": "b"}, "has no 'label'"),
        ("hellaswag", HELLASWAG[0] | {"label": 4}, "none of the options"),
        ("winogrande", WINOGRANDE[0] | {"sentence": "no gap"}, "has no gap"),
        ("winogrande", WINOGRANDE[0] | {"answer": ""}, "none of the options"),
        ("clozet", {"story": "a", "plot0": "b", "plot1": "c", "label": "0"}, "has no <mask>"),
        ("gsm8k", {"question": "q", "answer": "none"}, "ends in no number"),
        ("c3", {"context": [], "question": "q", "choice": ["a"], "answer": "a"}, "list of texts"),
        ("race", {"article": "a", "question": "q", "options": ["x", "y"], "answer": "C",
                  "example_id": "high1"}, "none of the options"),
    ],
)  # fmt: skip
def test_a_malformed_record_is_named(tmp_path, name, record, what):
    file = write_lines(tmp_path / "set.jsonl", [record])
    with pytest.raises(BadData, match=what) as told:
        items_of(name, file)
    assert "set.jsonl" in str(told.value)


def test_a_broken_line_and_a_wrong_encoding_are_named(tmp_path):
    file = tmp_path / "set.jsonl"
    file.write_text('{"question": "a", "answer": "1"}\n{"question": \n')
    with pytest.raises(BadData, match="not valid JSON") as told:
        read_rows([file])
    assert "line 2" in str(told.value)
    file.write_bytes(b'{"question": "\xff"}')
    with pytest.raises(BadData, match="not valid UTF-8"):
        read_rows([file])
    (tmp_path / "set.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadData, match="Parquet"):
        read_rows([tmp_path / "set.parquet"])


# all real rows


@needs_shared
def test_real_winogrande_reads_alike_as_published_and_as_reformatted():
    file = UNDERSTANDING / "winogrande.jsonl"
    reformatted = items_of("winogrande", file)
    assert len(reformatted) == PUBLISHED["winogrande"].documents
    published = []
    for row in read_rows([file]):
        first, second = row.record["context_options"]
        common = len(first) - next(
            k for k in range(len(first) + 1)
            if second.startswith(first[: len(first) - k])
        )  # fmt: skip
        record = {
            "sentence": f"{first[:common]}_ {row.record['continuation']}",
            "option1": first[common:], "option2": second[common:],
            "answer": str(row.record["gold"] + 1),
        }  # fmt: skip
        # where the sentence holds an underscore of its own, or one name begins the other
        if record["option1"] and record["option2"] and "_" not in first[:common]:
            published.append((Row(record, "made"), row))
    assert len(published) > 1_200
    ours = PUBLISHED["winogrande"].read([made for made, _ in published])
    theirs = PUBLISHED["winogrande"].read([row for _, row in published])
    assert [(i.inputs, i.choices, i.gold) for i in ours] == [
        (i.inputs, i.choices, i.gold) for i in theirs
    ]


@needs_shared
def test_real_c3_is_counted_question_by_question():
    files = [EVALS / "c3/c3-m-dev.json", EVALS / "c3/c3-d-dev.json"]
    records = [q for file in files for p in json.loads(file.read_text()) for q in p[1]]
    items = items_of("c3", *files)
    assert len(items) == len(records) == PUBLISHED["c3"].documents
    assert Counter(len(i.choices) for i in items) == {2: 170, 3: 465, 4: 3_181}
    assert [i.choices[i.gold[0]] for i in items] == [q["answer"] for q in records]
    chance = sum(1 / len(q["choice"]) for q in records) / len(records)
    assert PUBLISHED["c3"].chance == pytest.approx(chance, abs=5e-4)  # printed to three digits


@needs_shared
def test_real_cluewsc_pronouns_have_right_and_wrong_candidates():
    files = [EVALS / "fewclue/cluewsc" / f"{part}.json"
             for part in ("train_few_all", "dev_few_all", "test_public")]  # fmt: skip
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines() if line]
    labels = {}
    for row in rows:
        key = (row["text"], row["target"]["span2_index"])
        labels.setdefault(key, {}).setdefault(row["target"]["span1_text"], set()).add(row["label"])
    told = {
        key: [("true" in said) for said in candidates.values()]
        for key, candidates in labels.items()
    }
    choosable = {k: v for k, v in told.items() if len(set(v)) == 2}
    items = items_of("cluewsc", *files)
    assert (len(rows), len(items)) == (1_295, 400)
    # one pronoun ends its text: nothing follows that could be weighed
    assert len(choosable) - len(items) == 1
    for item in items:
        text, _, start = item.question.rpartition("/")
        right = told[text, int(start)]
        assert [k in item.gold for k in range(len(item.inputs))] == right
        pronoun = len(text) - int(start) - len(item.worked)
        assert all(c.startswith(text[: int(start)]) for c in item.inputs)
        assert 0 < pronoun <= 3 and text.endswith(item.worked)
    guess = sum(len(i.gold) / len(i.inputs) for i in items) / len(items)
    assert PUBLISHED["cluewsc"].chance == pytest.approx(guess, abs=5e-3)  # printed to two digits


@needs_shared
def test_the_hub_numbers_the_labels_of_cluewsc_in_the_order_true_false():
    file = EVALS / "fewclue/cluewsc/dev_few_all.json"
    rows = read_rows([file])
    on_hub = [
        Row(row.record | {"label": ["true", "false"].index(row.record["label"])}, row.where)
        for row in rows
    ]
    read = PUBLISHED["cluewsc"].read
    assert read(on_hub) == read(rows)


@needs_shared
def test_real_hellaswag_and_triviaqa_read_as_the_short_forms_do():
    trivia = EVALS / "llm-foundry/world_knowledge/triviaqa_sm_sub.first500.jsonl"
    hella = EVALS / "hellaswag/hellaswag.jsonl"
    assert [(i.inputs, i.choices, i.gold) for i in items_of("hellaswag", hella)] == [
        (i.inputs, i.choices, i.gold) for i in read_items(hella)
    ]
    ours, theirs = items_of("triviaqa", trivia), read_items(trivia)
    assert [i.answers for i in ours] == [i.answers for i in theirs]
    assert [f"Question: {i.question}\nAnswer:" for i in ours] == [i.question for i in theirs]
