"""Free answers: when a generated text counts as right."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FINAL = "####"


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and double spaces.

    Where nothing would be left ("The The" has articles alone) the articles stay, and where
    the text is punctuation alone that stays too.

    Reference:
        The answer normalisation of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250), which
        TriviaQA's evaluation uses.

    >>> normalise(" The  Onion. "), normalise("The The"), normalise("C++")
    ('onion', 'the the', 'c')
    """
    lowered = unicodedata.normalize("NFC", text).lower()
    bare = "".join(c for c in lowered if not _is_punctuation(c))
    for candidate in (_ARTICLES.sub(" ", bare), bare, lowered):
        squeezed = " ".join(candidate.split())
        if squeezed:
            return squeezed
    return ""


def matches(generated: str, answers: Sequence[str], *, form: str) -> bool:
    """Whether a generated text is one of the accepted answers.

    Args:
        generated: what the model wrote.
        answers: accepted answers.
        form: ``open`` compares the whole normalised text; ``cot`` its final number: the one
            after ``####`` where the model writes that, else the last.
    """
    if form == "cot":
        found = final_number(generated)
        return found is not None and any(found == final_number(a) for a in answers)
    said = normalise(generated)
    return any(said == normalise(answer) for answer in answers)


def final_number(text: str) -> str | None:
    """The number a worked answer ends in, without thousands separators; None without any.

    >>> final_number("6 + 12 = 18 dollars. #### 1,018"), final_number("so 18.50.")
    ('1018', '18.5')
    """
    _, _, after = text.partition(_FINAL)
    numbers: list[str] = (
        _NUMBER.findall(after.strip().split("\n")[0]) if after else _NUMBER.findall(text)
    )
    if not numbers:
        return None
    number = (numbers[0] if after else numbers[-1]).replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def _is_punctuation(character: str) -> bool:
    # symbols too: string.punctuation, SQuAD's set, holds + = < > | ~ $ ^ `
    return unicodedata.category(character)[0] in "PS"
