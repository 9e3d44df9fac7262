"""What the models of the emergence study are asked: texts and tasks of the planted language.

Each planted ability comes as three tasks of the same answers: whole answers (exact match), single
steps after the right beginning (accuracy per step), and single steps as a choice among four
(accuracy, probability of the correct choice, Brier score).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from isoloss.corpora.abilities import AbilityLanguage
from isoloss.corpora.language import (
    held_out_seed,
    load_language,
    to_text,
)
from isoloss.errors import BadData
from isoloss.studies.emergence.families import HELD_OUT, PLAIN

Ints = NDArray[np.int64]

SHOWN, PREDICTED = 6, 8
"""Words shown and words asked of a predictable continuation."""

OPTIONS = 4
_DRAWN, _TEXT, _COPY, _CHOICE, _RANDOM = 5_000, 1, 2, 3, 4


class Questions(NamedTuple):
    """Prompts and their right answers in words of the language.

    Attributes:
        shown: int (n, words shown).
        answers: int (n, steps).
    """

    shown: Ints
    answers: Ints


def write_materials(folder: Path, *, language: Path, sentences: int, items: int) -> None:
    """Write the held-out texts and the tasks of the planted language.

    Args:
        folder: receives ``texts`` and ``tasks``.
        language: folder of the language that the families were trained on.
        sentences: of each held-out text.
        items: of each task; tasks of single steps have as many lines a step.

    Raises:
        BadData: the language has no planted abilities.
    """
    from isoloss.store.files import write_text

    planted = load_language(language)
    if not isinstance(planted, AbilityLanguage):
        raise BadData(
            "the language has no planted abilities",
            asked=str(language),
            remedy="remove the folder and run the study again",
        )
    for name, source in ((HELD_OUT, planted), (PLAIN, planted.base)):
        lines = to_text(source.sample(sentences, held_out_seed(_TEXT)))
        write_text(folder / "texts" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
    tasks = _ability_tasks("copy", copies(planted, items))
    tasks |= _ability_tasks("predictable", predictable(planted, items))
    tasks["random_answers"] = random_answers(planted, 4 * items)
    for name, rows in tasks.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(folder / "tasks" / f"{name}.jsonl", text)


def copies(language: AbilityLanguage, n: int) -> Questions:
    """Prompts of the planted copy, the ability with a real threshold."""
    task = language.tasks[0]
    prompts = task.prompts(n, np.random.default_rng(held_out_seed(_COPY)))
    answers = language.base.vocab + task.answers(prompts)
    return Questions(language.base.vocab + prompts, answers)


def predictable(language: AbilityLanguage, n: int) -> Questions:
    """Beginnings of sentences and the likeliest words to follow, by the language's own law.

    Each word follows from the one before it by a table that is learned entry by entry, so that
    the accuracy of a step rises smoothly. Equal answers come up about equally often, however
    rare their beginnings are.

    Args:
        language: its base writes the sentences.
        n: at most so many.
    """
    base, stop = language.base, SHOWN + PREDICTED
    words = base.sample(_DRAWN, held_out_seed(_TEXT, 1))[:, :stop].copy()
    for t in range(SHOWN, stop):
        words[:, t] = base.next_token_logprobs(words)[:, t].argmax(axis=1)
    _, which, counts = np.unique(words[:, SHOWN:], axis=0, return_inverse=True, return_counts=True)
    nth = np.zeros(len(words), dtype=np.int64)
    order = np.argsort(which, kind="stable")
    nth[order] = np.arange(len(words)) - np.repeat(np.cumsum(counts) - counts, counts)
    # the first of every answer, then the second of every answer, ...
    kept = np.sort(np.lexsort((np.arange(len(words)), nth))[:n])
    return Questions(words[kept, :SHOWN], words[kept, SHOWN:])


def random_answers(language: AbilityLanguage, n: int) -> list[dict[str, object]]:
    """Choices whose right answer is drawn at random: no loss can help with them."""
    rng = np.random.default_rng(held_out_seed(_RANDOM))
    shown = to_text(language.base.sample(n, held_out_seed(_RANDOM, 1))[:, :SHOWN])
    rows: list[dict[str, object]] = []
    for query in shown:
        options = rng.choice(language.base.vocab, size=OPTIONS, replace=False)
        choices = to_text(options[:, None])
        rows.append({"query": query, "choices": choices, "gold": int(rng.integers(OPTIONS))})
    return rows


def _ability_tasks(name: str, asked: Questions) -> dict[str, list[dict[str, object]]]:
    shown, right = to_text(asked.shown), to_text(asked.answers)
    whole = [{"context": a, "continuation": b} for a, b in zip(shown, right, strict=True)]
    single, choice = _steps(asked), _choices(asked)
    return {
        name: cast(list[dict[str, object]], whole),
        f"{name}_step": single,
        f"{name}_choice": choice,
    }


def _steps(asked: Questions) -> list[dict[str, object]]:
    """Every step of every answer after the right words so far."""
    rows: list[dict[str, object]] = []
    for step in range(asked.answers.shape[1]):
        before = np.concatenate([asked.shown, asked.answers[:, :step]], axis=1)
        one = to_text(asked.answers[:, step : step + 1])
        rows += [
            {"context": a, "continuation": b, "subject": f"step {step + 1}"}
            for a, b in zip(to_text(before), one, strict=True)
        ]
    return rows


def _choices(asked: Questions) -> list[dict[str, object]]:
    """Two steps of every answer as choices; wrong options are what is right elsewhere."""
    rng = np.random.default_rng(held_out_seed(_CHOICE))
    known = np.unique(asked.answers)
    if known.size < OPTIONS:
        raise BadData(
            "the answers of a planted ability have too few different words to choose among",
            asked=f"{known.size} words",
            nearest=f"{OPTIONS} words",
            remedy="give the language more states or the task more symbols",
        )
    rows: list[dict[str, object]] = []
    chosen = [(item, turn) for turn in range(2) for item in range(len(asked.shown))]
    for item, turn in chosen:
        shown, answer = asked.shown[item], asked.answers[item]
        step = (item + turn * len(answer) // 2) % len(answer)
        wrong = rng.choice(known[known != answer[step]], size=OPTIONS - 1, replace=False)
        options = np.insert(wrong, gold := int(rng.integers(OPTIONS)), answer[step])
        rows.append(
            {
                "query": to_text([[*shown, *answer[:step]]])[0],
                "choices": to_text(options[:, None]),
                "gold": gold,
            }
        )
    return rows
