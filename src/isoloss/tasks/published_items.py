"""Rows of the published data sets as items: what is asked, the options, what is right.

The texts of a question are bare here; ``published_task`` puts the words of a form around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from isoloss.tasks.answers import final_number
from isoloss.tasks.prompts import Item
from isoloss.tasks.published_rows import Row

Reader = Callable[[Sequence[Row]], list[Item]]

LETTERS = "ABCDE"
_MASK = "<mask>"
_BRACKETS = re.compile(r"\[.*?\]")


def triviaqa(rows: Sequence[Row]) -> list[Item]:
    """A question with every alias of its answer; the hub's, the authors' or the short form."""
    return [_trivia(row) for row in rows]


def _trivia(row: Row) -> Item:
    answer = row.get("answer", "Answer")
    if isinstance(answer, str):
        # {context, answer, aliases}: the context already has the words around the question
        question = row.text("context", "question")
        question = question.removeprefix("Question: ").removesuffix("\nAnswer:")
        value, aliases = answer, row.record.get("aliases") or []
    else:
        question = row.text("question", "Question")
        told = Row(answer, row.where)
        value = told.text("value", "Value")
        aliases = [
            *told.get("aliases", "Aliases"),
            *(answer.get("normalized_aliases") or answer.get("NormalizedAliases") or []),
            *(answer.get("HumanAnswers") or []),
        ]
    return Item(
        kind="generate",
        question=question,
        inputs=(question,),
        worked=value,
        answers=tuple(dict.fromkeys((value, *aliases))),
    )


def hellaswag(rows: Sequence[Row]) -> list[Item]:
    """A context and four endings, cleaned of WikiHow's brackets as lm-eval cleans them."""
    return [_hellaswag(row) for row in rows]


def _hellaswag(row: Row) -> Item:
    if "query" in row.record:
        choices = row.texts("choices")
        return _options(row.text("query"), choices, row.place(row.get("gold"), range(len(choices))))
    label = str(row.get("label"))
    context = f"{row.get('ctx_a')} {str(row.get('ctx_b')).capitalize()}"
    endings = tuple(_cleaned(text) for text in row.texts("endings"))
    gold = row.place(label, [str(k) for k in range(len(endings))])
    return _options(_cleaned(f"{row.text('activity_label')}: {context}"), endings, gold)


def _cleaned(text: str) -> str:
    text = _BRACKETS.sub("", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def race(rows: Sequence[Row]) -> list[Item]:
    """A passage, a question and four options; middle and high school are two subjects."""
    return [
        _passage(
            row.text("article"),
            f"Passage: {row.text('article').strip()}\n\nQuestion: {row.text('question').strip()}",
            row.texts("options"),
            row.place(row.get("answer"), list(LETTERS[: len(row.texts("options"))])),
            subject="high" if row.text("example_id").startswith("high") else "middle",
        )
        for row in rows
    ]


def c3(rows: Sequence[Row]) -> list[Item]:
    """A Chinese passage or dialogue, a question and two to four options."""
    items = []
    for row in rows:
        context = "\n".join(row.texts("context"))
        choices = row.texts("choice")
        question = row.text("question").strip()
        gold = row.place(row.get("answer"), choices)
        items.append(_passage(context, f"{context}\n\n问题：{question}", choices, gold))
    return items


def _passage(
    passage: str, asked: str, choices: tuple[str, ...], gold: int, subject: str | None = None
) -> Item:
    # questions of one passage count as one: an example never shows the passage that is asked
    return Item(
        kind="options",
        question=passage,
        inputs=(asked,),
        worked=choices[gold],
        choices=choices,
        gold=(gold,),
        subject=subject,
    )


def winogrande(rows: Sequence[Row]) -> list[Item]:
    """Both names put in the gap; the text after the gap is weighed."""
    return [_winogrande(row) for row in rows]


def _winogrande(row: Row) -> Item:
    if "context_options" in row.record:
        contexts, rest = row.texts("context_options"), row.text("continuation")
        return _contexts("\n".join(contexts), contexts, rest, [row.get("gold")])
    sentence = row.text("sentence")
    before, gap, after = sentence.partition("_")
    if not gap or not after.strip():
        raise row.fault("a sentence has no gap '_' with text behind it", sentence)
    contexts = tuple(before + row.text(key) for key in ("option1", "option2"))
    gold = row.place(str(row.get("answer")), ("1", "2"))
    return _contexts(sentence, contexts, after.strip(), [gold])


def cluewsc(rows: Sequence[Row]) -> list[Item]:
    """Candidates of one pronoun put in its place; the text after the pronoun is weighed.

    A published row is one candidate, right or not. Rows of one pronoun become one item; where
    all its candidates are right, or all wrong, or no text follows, there is nothing to choose.
    """
    pronouns: dict[tuple[str, int], dict[str, bool]] = {}
    ends: dict[tuple[str, int], int] = {}
    for row in rows:
        target = Row(row.get("target"), row.where)
        text, start, pronoun = (
            row.text("text"),
            target.get("span2_index"),
            target.text("span2_text"),
        )
        if text[start : start + len(pronoun)] != pronoun:
            raise row.fault(f"the pronoun {pronoun} does not stand at {start}", text)
        # the authors write true and false, the hub their places in that order
        label = str(row.get("label")).lower()
        right = row.place(label, ("true", "false", "0", "1")) % 2 == 0
        candidates = pronouns.setdefault((text, start), {})
        candidate = target.text("span1_text")
        candidates[candidate] = candidates.get(candidate, False) or right
        ends[text, start] = start + len(pronoun)
    return [
        _contexts(
            f"{text}/{start}",
            tuple(text[:start] + candidate for candidate in candidates),
            text[ends[text, start] :],
            [k for k, right in enumerate(candidates.values()) if right],
        )
        for (text, start), candidates in pronouns.items()
        if len(set(candidates.values())) == 2 and text[ends[text, start] :].strip()
    ]


def clozet(rows: Sequence[Row]) -> list[Item]:
    """Two sentences for the gap of a story; each is weighed with all that follows it."""
    items = []
    for row in rows:
        story = row.text("story")
        before, mask, after = story.partition(_MASK)
        if not mask:
            raise row.fault(f"a story has no {_MASK}", story)
        choices = (row.text("plot0") + after, row.text("plot1") + after)
        gold = row.place(str(row.get("label")), ("0", "1"))
        # the gap may open the story: the text before it does not tell two stories apart
        items.append(replace(_options(before, choices, gold), question=story))
    return items


def examination(rows: Sequence[Row]) -> list[Item]:
    """A question of MMLU or C-Eval with its options, under its subject."""
    items = []
    for row in rows:
        if "A" in row.record:
            choices = tuple(row.text(letter) for letter in "ABCD")
        else:
            choices = row.texts("choices")
        names = [*LETTERS[: len(choices)], *map(str, range(len(choices)))]
        gold = row.place(str(row.get("answer")), names) % len(choices)
        items.append(_options(row.text("question").strip(), choices, gold, row.text("subject")))
    return items


def gsm8k(rows: Sequence[Row]) -> list[Item]:
    """A problem; the worked answer ends in ``#### number``, or is the number alone."""
    items = []
    for row in rows:
        answer = str(row.get("answer"))
        number = final_number(answer)
        if number is None:
            raise row.fault("a worked answer ends in no number", answer)
        question = row.text("question")
        items.append(
            Item(
                kind="generate",
                question=question,
                inputs=(question,),
                worked=answer,
                answers=(number,),
            )
        )
    return items


def nlpcc_kbqa(rows: Sequence[Row]) -> list[Item]:
    """A question about one fact of a knowledge base; several answers stand between ``|||``."""
    items = []
    for row in rows:
        question = row.text("question")
        accepted = [part.strip() for part in row.text("answer").split("|||")]
        answers = tuple(dict.fromkeys(part for part in accepted if part))
        if not answers:
            raise row.fault("an answer holds no text", row.get("answer"))
        items.append(
            Item(
                kind="generate",
                question=question,
                inputs=(question,),
                worked=answers[0],
                answers=answers,
            )
        )
    return items


def _options(
    question: str, choices: tuple[str, ...], gold: int, subject: str | None = None
) -> Item:
    return Item(
        kind="options",
        question=question,
        inputs=(question,),
        worked=choices[gold],
        choices=choices,
        gold=(gold,),
        subject=subject,
    )


def _contexts(question: str, contexts: tuple[str, ...], rest: str, gold: list[int]) -> Item:
    return Item(
        kind="contexts",
        question=question,
        inputs=contexts,
        worked=rest,
        choices=(rest,),
        gold=tuple(gold),
    )
