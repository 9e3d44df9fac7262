"""Twelve published data sets, ready to ask: where they lie, how many documents, how they are asked.

They are those of Du et al. (2024), Table 1, who name split and count of each and whether it is
asked with examples, but neither how many examples nor the words around a question: those here
are the usual ones of each set. A set is fetched from the hub, or read from a copy as its authors
publish it.

Reference:
    Du et al. (2024), Understanding Emergent Abilities of Language Models from the Loss
    Perspective, arXiv:2403.15796.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoloss.errors import BadRequest, nearest_name
from isoloss.tasks import published_items as items
from isoloss.tasks.published_answers import (
    Judge,
    chinese_matches,
    number_matches,
    triviaqa_matches,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Where a data set lies on the hub.

    Attributes:
        repo: its name.
        files: patterns of the files with the questions.
        examples: patterns of the files the examples are drawn from.
        revision: a branch or commit; ``main`` is whatever the authors serve now.
    """

    repo: str
    files: tuple[str, ...]
    examples: tuple[str, ...] = ()
    revision: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words around a question; ``{question}``, ``{choices}`` and ``{subject}`` are filled in.

    Attributes:
        letters: a question with its choices listed.
        plain: a question whose options are weighed as texts, or that is answered freely.
        description: opens a prompt.
        listed: the same where the choices are not listed; the same as ``description`` if None.
        delimiter: between a question and its answer.
        until: ends a free answer.
    """

    letters: str
    plain: str
    description: str = ""
    listed: str | None = None
    delimiter: str = " "
    until: tuple[str, ...] = ("\n",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One data set as it is asked.

    Attributes:
        title: its name in print.
        language: en or zh.
        split: the part that is asked.
        documents: records of that part as published; another number is an error.
        form: cloze, letters, open or cot.
        num_fewshot: examples in a prompt unless told.
        metric: the score the paper reports.
        chance: the score of a guess; of C3 and CLUEWSC2020, whose items have two options and
            more, the mean over items, of the latter measured on FewCLUE's rows.
        read: rows to items.
        words: around a question.
        hub: where it lies on the hub; None where it does not as published.
        files: patterns of the questions' files in the folder its authors publish.
        examples: patterns of the examples' files there; none draws from the questions.
        origin: where to get it.
        by_subject: every subject opens its own prompt and brings its own examples.
        judge: what counts as right in a free answer.
    """

    title: str
    language: str
    split: str
    documents: int
    form: str
    num_fewshot: int
    metric: str
    chance: float
    read: items.Reader
    words: Words
    origin: str
    hub: Hub | None = None
    files: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    by_subject: bool = False
    judge: Judge | None = None


_ENGLISH = Words(letters="{question}\n{choices}\nAnswer:", plain="{question}\nAnswer:")
_CHINESE = Words(letters="{question}\n{choices}\n答案：", plain="{question}\n答案：", delimiter="")
_ASKED = Words(letters="", plain="Question: {question}\nAnswer:")
_ASKED_CHINESE = Words(letters="", plain="问题：{question}\n答案：", delimiter="")
_WORKED = Words(letters="", plain="Question: {question}\nAnswer:", until=("Question:",))
_WORKED_CHINESE = Words(
    letters="", plain="问题：{question}\n答案：", delimiter="", until=("问题：",)
)

PUBLISHED: dict[str, Published] = {
    "triviaqa": Published(
        title="TriviaQA",
        language="en",
        split="validation, unfiltered, without contexts",
        documents=11_313,
        form="open",
        num_fewshot=5,
        metric="exact_match",
        chance=0.0,
        read=items.triviaqa,
        words=_ASKED,
        origin="https://nlp.cs.washington.edu/triviaqa (unfiltered-web-dev.json)",
        hub=Hub(repo="mandarjoshi/trivia_qa", files=("unfiltered.nocontext/validation-*.parquet",)),
        files=("unfiltered-web-dev.json",),
        judge=triviaqa_matches,
    ),
    "hellaswag": Published(
        title="HellaSwag",
        language="en",
        split="validation",
        documents=10_042,
        form="cloze",
        num_fewshot=0,
        metric="accuracy",
        chance=0.25,
        read=items.hellaswag,
        words=Words(letters="{question}\n{choices}\nAnswer:", plain="{question}"),
        origin="https://github.com/rowanz/hellaswag (hellaswag_val.jsonl)",
        hub=Hub(repo="Rowan/hellaswag", files=("data/validation-*.parquet",)),
        files=("hellaswag_val.jsonl",),
    ),
    "race": Published(
        title="RACE",
        language="en",
        split="test, middle and high school",
        documents=4_934,
        form="letters",
        num_fewshot=3,
        metric="accuracy",
        chance=0.25,
        read=items.race,
        words=_ENGLISH,
        origin="https://www.cs.cmu.edu/~glai1/data/race (the folder RACE)",
        hub=Hub(
            repo="ehovy/race",
            files=("all/test-*.parquet",),
            examples=("all/validation-*.parquet",),
        ),
        files=("test/*/*.txt",),
        examples=("dev/*/*.txt",),
    ),
    "winogrande": Published(
        title="WinoGrande",
        language="en",
        split="validation",
        documents=1_267,
        form="cloze",
        num_fewshot=0,
        metric="accuracy",
        chance=0.5,
        read=items.winogrande,
        words=_ENGLISH,
        origin="https://github.com/allenai/winogrande (dev.jsonl)",
        hub=Hub(repo="allenai/winogrande", files=("winogrande_xl/validation-*.parquet",)),
        files=("dev.jsonl",),
    ),
    "mmlu": Published(
        title="MMLU",
        language="en",
        split="test",
        documents=14_042,
        form="letters",
        num_fewshot=5,
        metric="accuracy",
        chance=0.25,
        read=items.examination,
        words=Words(
            letters="{question}\n{choices}\nAnswer:",
            plain="Question: {question}\nAnswer:",
            description="The following are questions (with answers) about {subject}.\n\n",
            listed="The following are multiple choice questions (with answers) about"
            " {subject}.\n\n",
        ),
        origin="https://github.com/hendrycks/test (the folder data)",
        hub=Hub(repo="cais/mmlu", files=("all/test-*.parquet",), examples=("all/dev-*.parquet",)),
        files=("test/*.csv",),
        examples=("dev/*.csv",),
        by_subject=True,
    ),
    "gsm8k": Published(
        title="GSM8K",
        language="en",
        split="test",
        documents=1_319,
        form="cot",
        num_fewshot=8,
        metric="exact_match",
        chance=0.0,
        read=items.gsm8k,
        words=_WORKED,
        origin="https://github.com/openai/grade-school-math (test.jsonl, train.jsonl)",
        hub=Hub(
            repo="openai/gsm8k", files=("main/test-*.parquet",), examples=("main/train-*.parquet",)
        ),
        files=("test.jsonl",),
        examples=("train.jsonl",),
        judge=number_matches,
    ),
    "nlpcc_kbqa": Published(
        title="NLPCC-KBQA",
        language="zh",
        split="validation",
        documents=10_613,
        form="open",
        num_fewshot=5,
        metric="exact_match",
        chance=0.0,
        read=items.nlpcc_kbqa,
        words=_ASKED_CHINESE,
        origin="the NLPCC shared tasks on knowledge base question answering, 2016 to 2018;"
        " the paper does not say how its 10,613 questions were split off",
        judge=chinese_matches,
    ),
    "clozet": Published(
        title="ClozeT",
        language="zh",
        split="train and validation",
        documents=938,
        form="cloze",
        num_fewshot=0,
        metric="accuracy",
        chance=0.5,
        read=items.clozet,
        words=Words(letters="{question}\n{choices}\n答案：", plain="{question}", delimiter=""),
        origin="https://github.com/thu-coai/LOT-LongLM (clozet/train.jsonl, clozet/val.jsonl)",
        hub=Hub(repo="Jiann/LOT", files=("clozet/train.jsonl", "clozet/val.jsonl")),
        files=("train.jsonl", "val.jsonl"),
    ),
    "cluewsc": Published(
        title="CLUEWSC2020",
        language="zh",
        split="train and validation",
        documents=1_548,
        form="cloze",
        num_fewshot=0,
        metric="accuracy",
        chance=0.44,
        read=items.cluewsc,
        words=_CHINESE,
        origin="https://github.com/CLUEbenchmark/CLUEWSC2020 (train.json, dev.json)",
        hub=Hub(
            repo="clue/clue",
            files=("cluewsc2020/train-*.parquet", "cluewsc2020/validation-*.parquet"),
        ),
        files=("train.json", "dev.json"),
    ),
    "c3": Published(
        title="C3",
        language="zh",
        split="validation, mixed and dialogue",
        documents=3_816,
        form="letters",
        num_fewshot=5,
        metric="accuracy",
        chance=0.271,
        read=items.c3,
        words=_CHINESE,
        origin="https://github.com/nlpdata/c3 (c3-m-dev.json, c3-d-dev.json)",
        hub=Hub(
            repo="clue/clue",
            files=("c3/validation-*.parquet",),
            examples=("c3/train-*.parquet",),
        ),
        files=("*m-dev.json", "*d-dev.json"),
        examples=("*m-train.json", "*d-train.json"),
    ),
    "ceval": Published(
        title="C-Eval",
        language="zh",
        split="validation",
        documents=1_346,
        form="letters",
        num_fewshot=5,
        metric="accuracy",
        chance=0.25,
        read=items.examination,
        words=Words(
            letters="{question}\n{choices}\n答案：",
            plain="{question}\n答案：",
            description="以下是中国关于{subject}考试的题目，请给出正确的答案。\n\n",
            listed="以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n",
            delimiter="",
        ),
        origin="https://github.com/hkust-nlp/ceval (ceval-exam.zip)",
        hub=Hub(repo="ceval/ceval-exam", files=("*/val-*.parquet",), examples=("*/dev-*.parquet",)),
        files=("val/*.csv",),
        examples=("dev/*.csv",),
        by_subject=True,
    ),
    "gsm8k_zh": Published(
        title="GSM8K-Chinese",
        language="zh",
        split="test",
        documents=1_212,
        form="cot",
        num_fewshot=8,
        metric="exact_match",
        chance=0.0,
        read=items.gsm8k,
        words=_WORKED_CHINESE,
        origin="the paper's own translation of GSM8K, which it does not publish; any translation"
        " in GSM8K's format will do, with its number of documents",
        judge=number_matches,
    ),
}


def published_set(name: str) -> Published:
    """The data set of this name.

    Raises:
        BadRequest: there is none; the nearest is named.
    """
    if name not in PUBLISHED:
        raise BadRequest(
            f"There is no published data set {name!r}.",
            asked=f"published = {name!r}",
            nearest=nearest_name(name, PUBLISHED),
            remedy=f"choose one of {', '.join(PUBLISHED)}",
        )
    return PUBLISHED[name]
