"""Published data sets as tasks: files found, counted, put into prompts.

A study names one by ``published = NAME``, with ``@REVISION`` for a revision of the hub other
than the definition's, and with ``path`` for a copy instead of the hub.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from isoloss.errors import BadData, BadRequest
from isoloss.tasks.prompts import Item, Template, document, documents, form_of
from isoloss.tasks.published import Published, Words, published_set
from isoloss.tasks.published_answers import FreeAnswers
from isoloss.tasks.published_ceval import SUBJECTS
from isoloss.tasks.published_hub import fetch
from isoloss.tasks.published_rows import read_rows
from isoloss.tasks.sample import choose
from isoloss.tasks.spec import TaskSpec
from isoloss.tasks.task import Document, Task

VERSION = "published-1"
"""Raised when the same files give other prompts."""


class Files(NamedTuple):
    """Where the questions and the examples of a data set lie.

    Attributes:
        questions: in the order they are read.
        examples: none where examples are drawn from the questions.
        source: the repository with revision and commit, or the path.
    """

    questions: tuple[Path, ...]
    examples: tuple[Path, ...]
    source: str


def read_published_task(
    name: str, published: str, spec: TaskSpec, *, expected: int | None = None
) -> Task:
    """Read a published data set.

    Args:
        name: what the study calls it.
        published: the data set, as ``NAME`` or ``NAME@REVISION``.
        spec: how to ask; a ``path`` is a file or folder as the authors publish it, or as the hub
            holds it, and goes before the hub; ``fewshot_path`` likewise for the examples.
        expected: documents the files hold, where it is knowingly not the published number.

    Raises:
        BadData: a file is missing or malformed, or holds another number of documents.
        BadRequest: there is no such data set, it is not on the hub and no path is given, or a
            setting cannot apply.
        HubUnreachable: the files were never fetched and the hub does not answer.
    """
    definition = published_set(published.partition("@")[0])
    spec.refuse("a published data set, whose own words are kept", ["delimiter", "include_path"])
    files = find_files(published, spec)
    rows = read_rows(files.questions)
    wanted = definition.documents if expected is None else expected
    if len(rows) != wanted:
        raise BadData(
            f"{definition.title} has {wanted:,} documents in this split and the files hold"
            f" {len(rows):,}.",
            asked=files.source,
            nearest=f"{len(rows):,} documents, where that is what you mean",
            remedy="fetch the files again; or say how many they hold, documents ="
            f" {len(rows)} (limit draws from them)",
        )
    items = definition.read(rows)
    form = form_of(items[0].kind, spec.form, default=definition.form)
    if definition.judge is None:
        spec.refuse("a data set without free answers", ["until", "max_tokens"])
    shots = definition.num_fewshot if spec.num_fewshot is None else spec.num_fewshot
    drawn_from = files.examples if shots else ()
    pool = definition.read(read_rows(drawn_from)) if drawn_from else None
    chosen = choose(
        [i.subject for i in items], limit=spec.limit, sample=spec.sample, seed=spec.seed
    )
    asked = _ask(definition, form, items, pool, chosen, shots, spec)
    answers = tuple(items[place].answers for place in chosen)
    judge = definition.judge
    drawn = spec.sample == "seeded" and len(chosen) < len(items)
    shown_in_order = definition.by_subject and pool is not None
    return Task(
        name=name,
        form=form,
        num_fewshot=shots,
        version=VERSION if judge is None else f"{VERSION}:{_digest(answers)}",
        documents=asked,
        docs_seed=spec.seed if drawn else None,
        fewshot_seed=spec.fewshot_seed if shots and not shown_in_order else None,
        native=None if judge is None else FreeAnswers(answers=answers, judge=judge),
    )


def find_files(published: str, spec: TaskSpec) -> Files:
    """The files of a published data set, fetched from the hub unless there is a path.

    Args:
        published: the data set, as ``NAME`` or ``NAME@REVISION``.
        spec: its ``path`` and ``fewshot_path`` go before the hub.

    Raises:
        BadData: a path is not there or holds no such file.
        BadRequest: there is no such data set, or it is not on the hub and no path is given.
        HubUnreachable: the files were never fetched and the hub does not answer.
    """
    name, _, revision = published.partition("@")
    definition = published_set(name)
    hub = definition.hub
    if spec.path is not None:
        if revision:
            raise BadRequest(
                "A revision names files on the hub, and a path was given too.",
                asked=f'published = "{published}", path = {spec.path}',
                remedy=f'published = "{name}", or remove path',
            )
        folder, source = spec.path, str(spec.path)
    elif hub is None:
        raise BadRequest(
            f"{definition.title} is not on the hub as published.",
            asked=f'published = "{published}"',
            nearest=definition.origin,
            remedy="get it there and give its file: path = FILE",
        )
    else:
        fetched = fetch(hub.repo, revision or hub.revision, hub.files + hub.examples)
        folder = fetched.folder
        source = f"{hub.repo}@{revision or hub.revision}, commit {fetched.commit}"
    questions = _matching(folder, definition, examples=False)
    if not questions:
        raise _nothing(folder, definition)
    examples = spec.fewshot_path or (folder if folder.is_dir() else None)
    shown = _matching(examples, definition, examples=True) if examples else ()
    if hub is not None and hub.examples and spec.path is None and not shown:
        # fetched before, but not these: drawing from the questions would be another setting
        raise _nothing(folder, definition)
    return Files(questions=questions, examples=shown, source=source)


def _matching(path: Path, definition: Published, *, examples: bool) -> tuple[Path, ...]:
    """A file itself; of a folder the files of the hub's layout, else of the authors'."""
    if not path.is_dir():
        return (path,)
    hub = definition.hub
    there = definition.examples if examples else definition.files
    on_hub = () if hub is None else hub.examples if examples else hub.files
    for patterns in (on_hub, there):
        found = tuple(file for pattern in patterns for file in sorted(path.glob(pattern)))
        if found:
            return found
    return ()


def _nothing(folder: Path, definition: Published) -> BadData:
    hub = definition.hub
    patterns = [*(() if hub is None else hub.files), *definition.files]
    held = [file.name for file in sorted(folder.iterdir())][:5]
    return BadData(
        f"A folder holds no files of {definition.title}.",
        asked=f"{folder} with {', '.join(held) or 'nothing'}",
        nearest=", ".join(patterns) or "a file",
        remedy=f"name the file itself, or the folder as published: {definition.origin}",
    )


def _ask(
    definition: Published,
    form: str,
    items: Sequence[Item],
    pool: Sequence[Item] | None,
    chosen: Sequence[int],
    shots: int,
    spec: TaskSpec,
) -> tuple[Document, ...]:
    """The chosen items after their examples; subject by subject where each has its own."""
    words = definition.words
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault((item.subject or "") if definition.by_subject else "", []).append(place)
    wanted = set(chosen)
    by_place: dict[int, Document] = {}
    for subject, places in groups.items():
        dressed = [_dressed(items[place], form, words) for place in places]
        shown = dressed
        if pool is not None:
            own = [i for i in pool if not definition.by_subject or i.subject == subject]
            shown = [_dressed(item, form, words) for item in own]
        ranks = [rank for rank, place in enumerate(places) if place in wanted]
        template = _template(definition, form, subject, spec)

        def named(rank: int, subject: str = subject) -> str:
            return f"{subject}/{rank}" if definition.by_subject else str(rank)

        if definition.by_subject and pool is not None:
            asked = [
                document(dressed[r], _first(shown, dressed[r], shots), template, named(r))
                for r in ranks
            ]
        else:
            asked = list(
                documents(
                    dressed,
                    ranks,
                    shown,
                    template,
                    shots=shots,
                    seed=spec.fewshot_seed,
                    name=named,
                )
            )
        by_place |= {places[rank]: made for rank, made in zip(ranks, asked, strict=True)}
    # a native scorer judges free answers; the documents carry no answers of their own
    return tuple(replace(by_place[place], answers=()) for place in chosen)


def _first(pool: Sequence[Item], item: Item, shots: int) -> Sequence[Item]:
    """A subject's first published examples, never the question that is asked."""
    others = [other for other in pool if other.question != item.question]
    if len(others) < shots:
        raise BadRequest(
            f"{item.subject} has {len(others)} published examples.",
            asked=f"num_fewshot = {shots}",
            nearest=f"num_fewshot = {len(others)}",
            remedy="lower num_fewshot",
        )
    return others[:shots]


def _dressed(item: Item, form: str, words: Words) -> Item:
    """A bare item in the words of its form; the texts of partial evaluation stay bare."""
    if item.kind == "contexts":
        return item
    question = item.inputs[0]
    if form != "letters":
        return replace(item, inputs=(words.plain.format(question=question),))
    letters = string.ascii_uppercase[: len(item.choices)]
    listed = "\n".join(f"{k}. {text}" for k, text in zip(letters, item.choices, strict=True))
    return replace(
        item,
        inputs=(words.letters.format(question=question, choices=listed),),
        choices=tuple(letters),
        worked=letters[item.gold[0]],
    )


def _template(definition: Published, form: str, subject: str, spec: TaskSpec) -> Template:
    words = definition.words
    description = words.description
    if form == "letters" and words.listed is not None:
        description = words.listed
    known = SUBJECTS if definition.language == "zh" else {}
    shown = known.get(subject, subject.replace("_", " "))
    return Template(
        description=description.format(subject=shown),
        delimiter=words.delimiter,
        until=spec.until or words.until,
        max_tokens=spec.max_tokens or (256 if form == "cot" else 32),
    )


def _digest(answers: Sequence[Sequence[str]]) -> str:
    # the documents' hash covers answers that stand in them; these stand in the scorer
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:8]
