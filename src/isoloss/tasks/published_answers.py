"""Free answers of the published data sets: what counts as right in each.

TriviaQA by its official normalisation, Chinese answers without punctuation and spaces, worked
problems by the number they end in.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from isoloss.estimate import mean
from isoloss.tasks.task import Response, Verdict

Judge = Callable[[str, Sequence[str]], bool]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SPACED = str.maketrans({mark: " " for mark in string.punctuation + "‘’´`"})
# the full-width forms of ASCII alone: NFKC would also make 25 m² end in a 2
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2212: 0x2D}
_PLAIN = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_PIECE = re.compile(rf"({_PLAIN})\s*([万亿]+|千|)")
# 3万5千 and 1亿2000万 are one number; the thousand of 千克, 千米 and 千瓦 is a unit
_DIGITS = re.compile(rf"-?\$?{_PLAIN}(?:\s*[万亿]+(?:{_PLAIN}(?:[万亿]+|千(?![克米瓦]))?)*)?")
_NUMERAL = re.compile(r"负?(?:[零〇一二两三四五六七八九十百万亿]|千(?![克米瓦]))+")
_TOLD = re.compile(r"####|the (?:final )?answer is|答案(?:是|为|:)", re.IGNORECASE)
_ONES = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_LONGEST_NUMBER = 300  # characters; Python refuses to read numbers of some thousand digits


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeAnswers:
    """The scorer of a task whose free answers follow a data set's own rule.

    Attributes:
        answers: accepted answers of every document.
        judge: whether a generated text is one of the accepted ones.
    """

    answers: tuple[tuple[str, ...], ...]
    judge: Judge

    def score(self, responses: Sequence[Response]) -> Verdict:
        """Exact match over the documents, and which of them matched."""
        matched = tuple(
            self.judge(response.generated or "", accepted)
            for response, accepted in zip(responses, self.answers, strict=True)
        )
        return Verdict(scores={"exact_match": mean([float(m) for m in matched])}, matched=matched)

    def answer(self, place: int) -> str | None:
        """The first accepted answer of the document at this place."""
        return self.answers[place][0]


def triviaqa_matches(generated: str, answers: Sequence[str]) -> bool:
    """Whether an answer equals an alias after TriviaQA's own normalisation.

    An empty answer is never right, also where an alias is punctuation or an article alone.
    """
    said = triviaqa_normalise(generated)
    return bool(said) and any(said == triviaqa_normalise(answer) for answer in answers)


def triviaqa_normalise(text: str) -> str:
    """Lower case, punctuation and underscores as spaces, without articles and double spaces.

    Unlike SQuAD's rule punctuation parts words: ``dik-dik`` is two.

    Reference:
        ``normalize_answer`` of the evaluation script of Joshi et al. (2017), arXiv:1705.03551.

    >>> triviaqa_normalise("The  Dik-dik_s."), triviaqa_normalise("rock ’n’ roll")
    ('dik dik s', 'rock n roll')
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_SPACED)).split())


def chinese_matches(generated: str, answers: Sequence[str]) -> bool:
    """Whether an answer equals an accepted one without punctuation, case and spaces."""
    said = chinese_normalise(generated)
    return bool(said) and any(said == chinese_normalise(answer) for answer in answers)


def chinese_normalise(text: str) -> str:
    """Lower case without punctuation, symbols and spaces, full-width forms as ASCII.

    A text of such marks alone keeps them.

    >>> chinese_normalise("《红楼梦》。"), chinese_normalise("ＩＳＢＮ 978-7")
    ('红楼梦', 'isbn9787')
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    bare = "".join(c for c in lowered if unicodedata.category(c)[0] not in "PSZC")
    return bare or "".join(lowered.split())


def number_matches(generated: str, answers: Sequence[str]) -> bool:
    """Whether a worked answer ends in the right number; 18, 18.0 and 18.00 are one number."""
    said = told_number(generated)
    return said is not None and any(said == told_number(answer) for answer in answers)


def told_number(text: str) -> Fraction | None:
    """The number a worked answer tells; None without any.

    The first number on the line after the first ``####``, "the answer is" or 答案是 that has
    one; without these the last number of the text. Commas between thousands and a dollar sign
    are passed over, full-width digits are digits, and 万 and 亿 after digits multiply: 3万5千 is
    35,000. Numbers
    in Chinese characters count where the text searched has no digits.

    >>> told_number("6 + 12 = 18 dollars. #### 1,018"), told_number("so it is $18.50.")
    (Fraction(1018, 1), Fraction(37, 2))
    >>> told_number("答案是两百零五元。"), told_number("所以一共有３．５万个"), told_number("none")
    (Fraction(205, 1), Fraction(35000, 1), None)
    """
    text = text.translate(_NARROW)
    for mark in _TOLD.finditer(text):
        # the next mark ends the line too: what follows it is another answer
        after = _TOLD.split(text[mark.end() :].lstrip().split("\n")[0])[0]
        if numbers := _numbers(after):
            return numbers[0]
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Fraction]:
    runs = [run for run in _DIGITS.findall(text) if len(run) <= _LONGEST_NUMBER]
    if runs:
        return [_digits(run) for run in runs]
    return [Fraction(chinese_number(numeral)) for numeral in _NUMERAL.findall(text)]


def _digits(run: str) -> Fraction:
    total = sum(
        (
            Fraction(plain.replace(",", "")) * math.prod(_PLACES[unit] for unit in units)
            for plain, units in _PIECE.findall(run)
        ),
        start=Fraction(0),
    )
    return -total if run.startswith("-") else total


def chinese_number(numeral: str) -> int:
    """The whole number that Chinese numerals write, by places or digit by digit.

    >>> chinese_number("一千二百零三"), chinese_number("十八"), chinese_number("二〇二四")
    (1203, 18, 2024)
    >>> chinese_number("三万五千"), chinese_number("负两亿零七")
    (35000, -200000007)
    """
    bare = numeral.removeprefix("负")
    sign = -1 if bare != numeral else 1
    if all(c in _ONES for c in bare):
        return sign * int("".join(str(_ONES[c]) for c in bare))
    total = section = digit = 0
    for c in bare:
        if c in _ONES:
            digit = _ONES[c]
        elif c not in "万亿":
            # 十八 is 18 and 百 a hundred: a place without a digit counts once
            section += (digit or 1) * _PLACES[c]
            digit = 0
        elif c == "亿":
            total = (total + section + digit or 1) * _PLACES[c]
            section = digit = 0
        else:
            total += (section + digit or 1) * _PLACES[c]
            section = digit = 0
    return sign * (total + section + digit)
