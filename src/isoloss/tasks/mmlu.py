"""MMLU as published: a folder of CSV files, one a subject.

A row is question, choices, answer (a letter, or a place counted from 0); a header is passed
over. ``letters`` lists the choices and weighs their letters, Hendrycks et al.'s form and
lm-eval's ``mmlu``; ``cloze`` weighs the choices' texts, lm-eval's ``mmlu_continuation``.
Examples are the first rows of the subject's development file, as published, or drawn by seed
from the rest of the subject where there is no such file.

Reference:
    Hendrycks et al. (2021), Measuring Massive Multitask Language Understanding, arXiv:2009.03300.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isoloss.errors import BadData, BadRequest
from isoloss.tasks.jsonl import decode, read_bytes
from isoloss.tasks.prompts import (
    Item,
    Template,
    document,
    documents,
    form_of,
    lettered,
)
from isoloss.tasks.sample import choose
from isoloss.tasks.spec import TaskSpec
from isoloss.tasks.task import Document, Task

VERSION = "mmlu-csv-1"
"""Raised when the same files give other prompts."""

_SPLIT = re.compile(r"_(test|dev|val)$")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """One subject's questions, examples and opening."""

    name: str
    items: list[Item]
    pool: list[Item]
    published: bool
    template: Template


def read_mmlu_task(name: str, path: Path, spec: TaskSpec) -> Task:
    """Read MMLU from a folder of CSV files, or a folder with ``test`` and ``dev`` inside.

    Args:
        name: what the study calls it.
        path: the folder; a subject is named by its file.
        spec: how to ask; the form is letters unless told, ``fewshot_path`` a folder of
            development files.

    Raises:
        BadData: a file is missing or a row malformed; the line is named.
        BadRequest: a setting cannot apply, or there are too few examples.
    """
    spec.refuse("a folder of MMLU files", ["include_path", "until", "max_tokens"])
    form = form_of("options", spec.form, default="letters")
    questions = path / "test" if (path / "test").is_dir() else path
    shown = spec.fewshot_path
    if shown is None and (questions.parent / "dev").is_dir():
        shown = questions.parent / "dev"
    shots = spec.num_fewshot or 0
    subjects = [
        _read_subject(subject, file, shown, form, spec)
        for subject, file in _files(questions).items()
    ]
    strata = [s.name for s in subjects for _ in s.items]
    chosen = choose(strata, limit=spec.limit, sample=spec.sample, seed=spec.seed)
    asked: list[Document] = []
    start = 0
    for subject in subjects:
        stop = start + len(subject.items)
        places = [place - start for place in chosen if start <= place < stop]
        asked += _ask(subject, places, shots, spec.fewshot_seed)
        start = stop
    drawn = spec.sample == "seeded" and len(chosen) < len(strata)
    return Task(
        name=name,
        form=form,
        num_fewshot=shots,
        version=VERSION,
        documents=tuple(asked),
        docs_seed=spec.seed if drawn else None,
        fewshot_seed=spec.fewshot_seed
        if shots and not all(s.published for s in subjects)
        else None,
    )


def _files(folder: Path) -> dict[str, Path]:
    files = {_SPLIT.sub("", file.stem): file for file in sorted(folder.glob("*.csv"))}
    if not files:
        raise BadData(
            "A folder holds no CSV files.",
            asked=str(folder),
            remedy="name the folder of SUBJECT_test.csv files, or the folder above it",
        )
    return files


def _read_subject(name: str, file: Path, shown: Path | None, form: str, spec: TaskSpec) -> _Subject:
    items = [replace(item, subject=name) for item in _read_items(file)]
    published = shown is not None
    pool = items if shown is None else _read_items(_development_file(shown, name))
    if form == "letters":
        about = "The following are multiple choice questions (with answers) about"
        items, pool = [lettered(i) for i in items], [lettered(i) for i in pool]
    else:
        about = "The following are questions (with answers) about"
        items, pool = [_questioned(i) for i in items], [_questioned(i) for i in pool]
    template = Template(
        description=f"{about} {name.replace('_', ' ')}.\n\n", delimiter=spec.delimiter
    )
    return _Subject(name=name, items=items, pool=pool, published=published, template=template)


def _development_file(folder: Path, subject: str) -> Path:
    files = _files(folder)
    if subject not in files:
        raise BadData(
            f"There is no file of examples for {subject}.",
            asked=str(folder),
            remedy=f"add {subject}_dev.csv, or set num_fewshot = 0 and leave fewshot_path out",
        )
    return files[subject]


def _ask(subject: _Subject, places: Sequence[int], shots: int, seed: int) -> Sequence[Document]:
    def name(place: int) -> str:
        return f"{subject.name}/{place}"

    items, pool, template = subject.items, subject.pool, subject.template
    if not subject.published:
        return documents(items, places, pool, template, shots=shots, seed=seed, name=name)
    asked = []
    for place in places:
        others = [item for item in pool if item.question != items[place].question]
        if len(others) < shots:
            raise BadRequest(
                f"{subject.name} has {len(others)} published examples.",
                asked=f"num_fewshot = {shots}",
                nearest=f"num_fewshot = {len(others)}",
                remedy="lower num_fewshot",
            )
        asked.append(document(items[place], others[:shots], template, name(place)))
    return asked


def _questioned(item: Item) -> Item:
    return replace(item, inputs=(f"Question: {item.inputs[0]}\nAnswer:",))


def _read_items(file: Path) -> list[Item]:
    text = decode(read_bytes(file), str(file))
    reader = csv.reader(io.StringIO(text, newline=""))
    items: list[Item] = []
    for row in reader:
        where = f"{file}, line {reader.line_num}"
        is_header = not items and row and row[-1].strip().lower() == "answer"
        if row and not is_header:
            items.append(_item(row, where))
    if not items:
        raise BadData(
            "A file of questions is empty.", asked=str(file), remedy="remove or fill the file"
        )
    return items


def _item(row: Sequence[str], where: str) -> Item:
    if len(row) < 3:
        raise BadData(
            "A row has fewer than three columns.",
            asked=f"{where}: {row!r}",
            remedy="write question, choices, answer",
        )
    question, *choices, answer = row
    empty = [k for k, choice in enumerate(choices) if not choice]
    if empty:
        raise BadData(
            "A choice is empty.",
            asked=f"{where}: choice {_LETTERS[empty[0]]}",
            remedy="give every choice a text",
        )
    known = [*_LETTERS[: len(choices)], *map(str, range(len(choices)))]
    if answer.strip() not in known:
        raise BadData(
            "An answer names no choice.",
            asked=f"{where}: answer {answer!r} with {len(choices)} choices",
            nearest=f"A to {_LETTERS[len(choices) - 1]}, or 0 to {len(choices) - 1}",
            remedy="correct the last column",
        )
    gold = known.index(answer.strip()) % len(choices)
    return Item(
        kind="options",
        question=question.strip(),
        inputs=(question.strip(),),
        worked=choices[gold],
        choices=tuple(choices),
        gold=(gold,),
    )
