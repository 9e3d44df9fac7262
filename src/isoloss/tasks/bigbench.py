r"""BIG-Bench tasks of multiple choice, from their ``task.json``.

The prompt is BIG-Bench's own: ``task_prefix``, the examples, the question, where a question is
``example_input_prefix``, input, the choices each after ``choice_prefix`` (if
``append_choices_to_input``), ``example_output_prefix``; the file's own values where it has them,
else "\nQ: ", "\nA: ", "\n  choice: ", true, and a line break between examples
(``few_shot_example_separator``). Two examples unless told, drawn by seed for every document
from the others. The listed choices are in an order drawn by seed for each document.

Options are weighed in alphabetical order: many files name the right one first, which would
decide ties and give a constant answer full marks. All options of the highest score are right;
``multiple_choice_grade`` gives the chosen option the points that the file gives it, as the
benchmark does: the likeliest option, lengths as they are.

Reference:
    Srivastava et al. (2022), Beyond the Imitation Game, arXiv:2206.04615; two examples as in
    Xia et al. (2023), Training Trajectories of Language Models Across Scales, arXiv:2212.09803,
    which picks by length-normalised probability: ``accuracy_per_token`` (and ``_per_byte``,
    ``_per_char``, which do not depend on the tokenizer).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isoloss.errors import BadData, nearest_name
from isoloss.tasks.fewshot import draw_distinct
from isoloss.tasks.jsonl import decode, read_bytes
from isoloss.tasks.prompts import Item, Template, documents
from isoloss.tasks.sample import choose
from isoloss.tasks.spec import TaskSpec
from isoloss.tasks.task import Task

VERSION = "bigbench-1"
"""Raised when the same file gives other prompts."""

DEFAULT_SHOTS = 2


def read_bigbench_task(name: str, path: Path, spec: TaskSpec) -> Task:
    """Read a BIG-Bench ``task.json`` with ``target_scores``.

    Args:
        name: what the study calls it.
        path: the file.
        spec: how to ask; two examples unless ``num_fewshot`` is given.

    Raises:
        BadData: the file is no such task; the example is named.
        BadRequest: a setting cannot apply, or there are too few examples.
    """
    spec.refuse("a BIG-Bench file", ["delimiter", "include_path", "until", "max_tokens"])
    if spec.form != "cloze":
        spec.refuse("a BIG-Bench file, whose own prompt is kept", ["form"])
    items, template = _read(path, spec.fewshot_seed)
    pool = items if spec.fewshot_path is None else _read(spec.fewshot_path, spec.fewshot_seed)[0]
    shots = DEFAULT_SHOTS if spec.num_fewshot is None else spec.num_fewshot
    chosen = choose([None] * len(items), limit=spec.limit, sample=spec.sample, seed=spec.seed)
    drawn = spec.sample == "seeded" and len(chosen) < len(items)
    return Task(
        name=name,
        form="cloze",
        num_fewshot=shots,
        version=VERSION,
        documents=documents(items, chosen, pool, template, shots=shots, seed=spec.fewshot_seed),
        docs_seed=spec.seed if drawn else None,
        fewshot_seed=spec.fewshot_seed,
    )


def _read(path: Path, seed: int) -> tuple[list[Item], Template]:
    where = str(path)
    try:
        task = json.loads(decode(read_bytes(path), where))
    except (ValueError, RecursionError) as error:
        raise BadData(
            f"A task's file is not valid JSON: {error}.",
            asked=where,
            remedy="export the task again",
        ) from error
    if not isinstance(task, dict) or not isinstance(task.get("examples"), list):
        raise BadData(
            "A BIG-Bench file has no list of examples.",
            asked=where,
            nearest=nearest_name("examples", task) if isinstance(task, dict) else None,
            remedy='give a task.json with "examples"',
        )
    if not task["examples"]:
        raise BadData(
            "A task's file holds no documents.", asked=where, remedy="give it at least one example"
        )
    items = [
        _item(example, task, random.Random(f"{seed}/choices/{place}"), f"{where}, example {place}")
        for place, example in enumerate(task["examples"])
    ]
    template = Template(
        description=_setting(task, "task_prefix", "", where),
        separator=_setting(task, "few_shot_example_separator", "\n", where),
        delimiter="",
    )
    return items, template


def _item(example: Any, task: Mapping[str, Any], rng: random.Random, where: str) -> Item:
    if not isinstance(example, dict) or not isinstance(example.get("input"), str):
        raise BadData(
            "An example has no input text.",
            asked=where,
            remedy='give every example an "input" string',
        )
    scores = example.get("target_scores")
    if not isinstance(scores, dict) or not scores:
        raise BadData(
            f"An example has {'an empty' if scores == {} else 'no'} target_scores.",
            asked=where,
            nearest=nearest_name("target_scores", example),
            remedy="only multiple-choice tasks can be read: give every example its target_scores",
        )
    for choice, score in scores.items():
        is_number = isinstance(score, int | float) and abs(score) <= sys.float_info.max
        if not choice or not is_number:
            raise BadData(
                "target_scores holds an empty choice or a score that is no number.",
                asked=f"{where}: {choice!r}: {score!r}",
                remedy="give every choice a text and a finite score",
            )
    top = max(scores.values())
    if top <= 0:
        raise BadData(
            "No choice of an example has a positive score.",
            asked=where,
            remedy="give the right choice the score 1",
        )
    choices = tuple(sorted(scores))
    gold = tuple(k for k, choice in enumerate(choices) if scores[choice] == top)
    return Item(
        kind="options",
        question=example["input"],
        inputs=(_question(example["input"], choices, task, rng, where),),
        worked=choices[gold[0]],
        choices=choices,
        gold=gold,
        points=tuple(float(scores[choice]) for choice in choices),
    )


def _question(
    text: str, choices: tuple[str, ...], task: Mapping[str, Any], rng: random.Random, where: str
) -> str:
    asked = _setting(task, "example_input_prefix", "\nQ: ", where) + text
    if task.get("append_choices_to_input", True):
        prefix = _setting(task, "choice_prefix", "\n  choice: ", where)
        order = draw_distinct(len(choices), len(choices), rng)
        asked += "".join(prefix + choices[k] for k in order)
    return asked + _setting(task, "example_output_prefix", "\nA: ", where)


def _setting(task: Mapping[str, Any], key: str, default: str, where: str) -> str:
    value = task.get(key, default)
    if not isinstance(value, str):
        raise BadData(
            f"{key} is no text.", asked=f"{where}: {key} = {value!r}", remedy="give it a string"
        )
    return value
