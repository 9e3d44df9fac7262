import json
import re
import string
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isoloss.tasks.published_answers import (
    chinese_matches,
    chinese_number,
    number_matches,
    told_number,
    triviaqa_matches,
    triviaqa_normalise,
)
from shared_data import SHARED, needs_shared

TRIVIA = SHARED / "eval-sets/llm-foundry/world_knowledge/triviaqa_sm_sub.first500.jsonl"
GSM8K = SHARED / "eval-sets/gsm8k/test.jsonl"


def official(text):
    """The rule of TriviaQA's evaluation script, step by step."""
    text = text.replace("_", " ").lower()
    for mark in [*string.punctuation, "‘", "’", "´", "`"]:
        text = text.replace(mark, " ")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@given(st.text(alphabet=st.sampled_from("aAtTheEnN tX1é_-.,’‘´`'\"()!ß\u2028\t"), max_size=30))
def test_triviaqa_answers_are_normalised_by_the_official_rule(text):
    assert triviaqa_normalise(text) == official(text)


@needs_shared
def test_every_real_alias_is_right_however_it_is_decorated():
    rows = [json.loads(line) for line in TRIVIA.read_text().splitlines()]
    aliases = [(alias, row["aliases"]) for row in rows for alias in row["aliases"]]
    assert len(aliases) > 5_000
    normalised = [official(alias) for alias, _ in aliases]
    # an alias of marks alone has nothing to match by
    told = [pair for pair, text in zip(aliases, normalised, strict=True) if text]
    for alias, accepted in told:
        assert triviaqa_matches(
            f" The {alias.upper()}!\n" if alias.upper().lower() == alias.lower() else alias,
            accepted,
        )
    assert not any(triviaqa_matches("...", accepted) for _, accepted in aliases)


@needs_shared
def test_a_real_answer_is_right_exactly_where_the_official_rule_says_so():
    rows = [json.loads(line) for line in TRIVIA.read_text().splitlines()]
    said = {row["answer"]: official(row["answer"]) for row in rows}
    for row in rows[::25]:
        aliases = (row["answer"], *row["aliases"])
        accepted = {official(text) for text in aliases} - {""}
        for text, normalised in said.items():
            assert triviaqa_matches(text, aliases) is (normalised in accepted)


@pytest.mark.parametrize(
    ("generated", "right"),
    [
        ("dik dik", True),
        ("the Dik_Dik", True),
        ("dikdik", False),
        ("dik-dik antelope", False),
        ("", False),
        ("the", False),
    ],
)
def test_punctuation_parts_words_in_triviaqa(generated, right):
    assert triviaqa_matches(generated, ["Dik-dik"]) is right


STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
COT = re.compile(r"The answer is (\-?[0-9\.\,]+).")


def harness_number(text):
    """What lm-eval extracts: gsm8k's strict filter, else gsm8k_cot's, else the flexible one."""
    for pattern in (STRICT, COT):
        if match := pattern.search(text):
            return bare(match[1])
    found = FLEXIBLE.findall(text)
    return bare(next(part for part in found[-1] if part)) if found else None


def bare(number):
    """lm-eval's regexes_to_ignore of gsm8k."""
    return re.sub(r"\.$", "", number.replace(",", "").replace("$", ""))


OUTPUTS = [
    "16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\nShe makes 9 * 2 = 18.\n#### 18",
    "#### 18\n\nQuestion: another one has 7?",
    "First 5, then 13. The answer is 18.",
    "The answer is 18. The answer is 20.",
    "She has 5 and earns $1,018.50",
    "so the total is 18 dollars.",
    "In all it is 1,234,567 people",
    "The answer is -5.",
    "#### -5",
    "#### 1,018",
    "It costs $18.",
    "no number at all",
    "3 apples and 4 pears make 7",
    "7.25 hours",
]


@pytest.mark.parametrize("output", OUTPUTS)
def test_numbers_are_extracted_as_lm_eval_extracts_them(output):
    expected = harness_number(output)
    assert told_number(output) == (None if expected is None else Fraction(expected))


def test_lm_evals_filters_are_those_restated_here():
    # found, not imported: the package takes seconds
    folder = Path(find_spec("lm_eval").origin).parent / "tasks" / "gsm8k"
    filters = {
        part["name"]: part["filter"][0]["regex_pattern"]
        for part in yaml.safe_load((folder / "gsm8k.yaml").read_text())["filter_list"]
    }
    assert filters == {"strict-match": STRICT.pattern, "flexible-extract": FLEXIBLE.pattern}
    cot = yaml.safe_load((folder / "gsm8k-cot.yaml").read_text())["filter_list"]
    assert cot[0]["filter"][0]["regex_pattern"] == COT.pattern


@needs_shared
def test_every_real_gold_answer_gives_lm_evals_number_and_matches_itself():
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    assert len(rows) == 1_319
    for row in rows:
        number = bare(STRICT.search(row["answer"])[1])
        assert told_number(row["answer"]) == Fraction(number)
        assert number_matches(row["answer"].replace("#### ", "The answer is $") + ".", (number,))
        assert not number_matches("", (number,))


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("所以她每天赚 9*2=18 美元。\n#### 18", 18),
        ("答案是１８。", 18),
        ("答案：十八元", 18),
        ("因此答案为 １，０１８ 元", 1018),
        ("一共有3万5千", 35_000),
        ("1亿2000万", 120_000_000),
        ("答案是3万5000元", 35_000),
        ("重5千克", 5),  # 千克 is a kilogram
        ("2万3千米", 20_003),
        ("总共3.5万人", 35_000),
        ("小明有两百零五个苹果", 205),
        ("答案是一共18个", 18),
        ("一个人一天走五千米", 5),  # 千米 is a kilometre
        ("面积是 25 m²", 25),
        ("不知道", None),
        ("答案是：没有。所以是 7", 7),
    ],
)
def test_chinese_answers_tell_their_number(output, number):
    assert told_number(output) == number


def write_chinese(n):
    """Numerals by the school rule: four places a group, 零 once for missing places."""
    digits, places = "零一二三四五六七八九", ["", "十", "百", "千"]

    def section(k):
        text = ""
        for power in range(3, -1, -1):
            d = k // 10**power % 10
            if d:
                text += digits[d] + places[power]
            elif text and k % 10**power and not text.endswith("零"):
                text += "零"
        return text

    if n == 0:
        return "零"
    parts, text = [n // 10**8, n // 10**4 % 10**4, n % 10**4], ""
    for part, name in zip(parts, ["亿", "万", ""], strict=True):
        if part:
            text += ("零" if text and part < 1_000 else "") + section(part) + name
    return text


@given(st.integers(0, 10**12 - 1))
def test_chinese_numerals_are_read_back(n):
    assert chinese_number(write_chinese(n)) == n
    assert told_number(f"答案是{write_chinese(n)}。") == n


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{:d}", "{:,d}", "{:d}.0", "{:,d}.00"]))
def test_one_number_is_one_number_however_it_is_written(n, form):
    assert number_matches(f"The answer is {form.format(n)}.", [str(n)])
    assert not number_matches(f"The answer is {form.format(n)}.", [str(n + 1)])


def test_a_number_of_thousands_of_digits_is_no_number():
    assert told_number("9" * 100_000) is None


@pytest.mark.parametrize(
    ("generated", "right"),
    [
        ("《机械设计基础》。", True),
        (" 机械设计 基础\n", True),
        ("机械设计", False),
        ("", False),
        ("。", False),
    ],
)
def test_chinese_answers_match_without_marks_and_spaces(generated, right):
    assert chinese_matches(generated, ["机械设计基础"]) is right


def test_full_width_forms_are_ascii():
    assert chinese_matches("９７８－７－１１１", ["978-7-111"])
