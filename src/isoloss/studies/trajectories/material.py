"""Real text for the trajectories study: training documents, held-out ones, tasks made of them.

Without a text of one's own it is the documentation strings of the Python standard library, which
every machine that runs this has.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from isoloss.corpora.language import held_out_seed, to_text
from isoloss.corpora.text import read_corpus
from isoloss.errors import BadData
from isoloss.store.files import write_text
from isoloss.studies.trajectories.families import (
    CLOZE,
    FACT_SETS,
    HELD_OUT,
    ORDER,
    RECALL,
    SETS_SEED,
    Size,
    fact_language,
)

LIBRARY = "documentation strings of the Python standard library"

_DOCUMENT = 1_500  # characters: passages of one text are joined up to it
_SHORTEST = 40  # characters of a documentation string
_SEED = 7
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"})
_SHOWN, _ASKED, _OPTIONS = 12, 5, 4  # words of a cloze, and its options
_SENTENCE = (6, 16)  # words of a sentence whose order is asked

Row = dict[str, object]


class Documents(NamedTuple):
    """Three parts of a text that share no document.

    Attributes:
        train: what models are trained on.
        held: what losses are measured on.
        asked: what tasks, corrupted texts and prompts are made of.
    """

    train: tuple[str, ...]
    held: tuple[str, ...]
    asked: tuple[str, ...]


def library_passages() -> Iterator[str]:
    """Documentation strings of the Python standard library, by path and line."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        if _NOT_LIBRARY & set(file.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue  # files that are broken on purpose belong to no text
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= _SHORTEST:
                    yield text


def gather(texts: Mapping[str, Path], size: Size) -> Documents:
    """Read a text and part it.

    Consecutive passages are joined to documents of about 1,500 characters, which are shuffled by a
    seed. Held-out documents are as many bytes as the study asks for; a fifth as many, at least,
    are left for tasks and prompts.

    Args:
        texts: files by name; none for the standard library's documentation strings.
        size: of the study.

    Raises:
        BadData: the text is too short to hold some of it out.
    """
    documents = [
        document
        for passages in (_passages(texts) if texts else [library_passages()])
        for document in _joined(passages)
    ]
    order = np.random.default_rng(_SEED).permutation(len(documents))
    shuffled = [documents[i] for i in order]
    kept = shuffled[: _fill(shuffled, round(size.megabytes * 1e6))]
    held = _fill(kept, size.held_kilobytes * 1_000)
    asked = held + _fill(kept[held:], max(size.held_kilobytes * 200, 600 * size.items))
    if len(kept) < 2 * asked:
        raise BadData(
            "the text is too short for this scale of the study",
            asked=f"{sum(len(text.encode()) for text in kept) / 1e6:.2f} MB, of which "
            f"{asked / max(len(kept), 1):.0%} would be held out",
            nearest=f"{size.held_kilobytes * 4 / 1_000:.1f} MB",
            remedy="give more text, --text text=FILE --text more=FILE, or none to take the "
            + LIBRARY,
        )
    return Documents(tuple(kept[asked:]), tuple(kept[:held]), tuple(kept[held:asked]))


def write_text_material(folder: Path, texts: Mapping[str, Path], size: Size) -> None:
    """Write the training and held-out text and the tasks; what is there is kept."""
    if (folder / "tasks" / f"{ORDER}.jsonl").exists():
        return
    parts = gather(texts, size)
    for name, documents in (("train", parts.train), (HELD_OUT, parts.held), ("asked", parts.asked)):
        write_rows(folder / "texts" / f"{name}.jsonl", ({"text": text} for text in documents))
    write_rows(folder / "tasks" / f"{CLOZE}.jsonl", cloze(parts.asked, size.items, seed=_SEED))
    rows = word_order(parts.asked, size.items, seed=_SEED)
    write_rows(folder / "tasks" / f"{ORDER}.jsonl", rows)


def write_fact_material(folder: Path, size: Size) -> None:
    """Write held-out sentences, the four exact sets, and questions for the true object."""
    language = fact_language(size)
    held = language.sample(size.sentences, held_out_seed(_SEED, 1))
    sets = language.sets(size.sentences, seed=SETS_SEED)
    for name, words in ((HELD_OUT, held), *zip(FACT_SETS, sets, strict=True)):
        lines = "".join(f"{line}\n" for line in to_text(words))
        write_text(folder / "texts" / f"{name}.txt", lines)
    rows = language.recall_task(size.items, seed=_SEED)
    write_rows(folder / "tasks" / f"{RECALL}.jsonl", (dict(row) for row in rows))


def write_rows(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def cloze(documents: Sequence[str], items: int, *, seed: int) -> list[Row]:
    """Which of four pieces goes on? The wrong ones go on elsewhere in the same documents.

    Args:
        documents: held out.
        items: at most so many.
        seed: of the choice of pieces, and of the order of the options.

    Raises:
        BadData: fewer than four pieces can be cut.
    """
    rng = np.random.default_rng([seed, 1])
    pieces = [
        (" ".join(words[at : at + _SHOWN]), " ".join(words[at + _SHOWN : at + _SHOWN + _ASKED]))
        for words in (text.split() for text in documents)
        for at in range(0, len(words) - _SHOWN - _ASKED + 1, _SHOWN + _ASKED)
    ]
    answers = sorted({asked for _, asked in pieces})
    if len(answers) < _OPTIONS:
        raise _too_short("a cloze", len(answers))
    rows: list[Row] = []
    for place in np.sort(rng.permutation(len(pieces))[:items]):
        shown, asked = pieces[place]
        drawn = [answers[i] for i in rng.choice(len(answers), size=_OPTIONS, replace=False)]
        options = [text for text in drawn if text != asked][: _OPTIONS - 1]
        options.insert(gold := int(rng.integers(_OPTIONS)), asked)
        rows.append({"query": shown, "choices": options, "gold": gold})
    return rows


def word_order(documents: Sequence[str], items: int, *, seed: int) -> list[Row]:
    """Which is the sentence, and which are its words in another order?

    Args:
        documents: held out.
        items: at most so many.
        seed: of the choice of sentences, the shuffles and the order of the options.

    Raises:
        BadData: no sentence can be cut.
    """
    rng = np.random.default_rng([seed, 2])
    least, most = _SENTENCE
    found = [
        words
        for text in documents
        for words in (part.split() for part in text.replace("\n\n", ". ").split(". "))
        if least <= len(words) <= most and len(set(words)) > least // 2
    ]
    if not found:
        raise _too_short("sentences whose order is asked", 0)
    rows: list[Row] = []
    for place in np.sort(rng.permutation(len(found))[:items]):
        words = found[place]
        mixed = words
        while mixed == words:
            mixed = [words[i] for i in rng.permutation(len(words))]
        options = [" ".join(mixed)]
        options.insert(gold := int(rng.integers(2)), " ".join(words))
        # the question is empty: the whole sentence is scored
        rows.append({"query": "", "choices": options, "gold": gold})
    return rows


def _passages(texts: Mapping[str, Path]) -> Iterator[Sequence[str]]:
    for path in texts.values():
        yield read_corpus(path, document="blank-line").documents


def _joined(passages: Iterable[str]) -> Iterator[str]:
    """Consecutive passages until a document is long enough."""
    open_: list[str] = []
    length = 0
    for passage in passages:
        open_.append(passage.strip("\n"))
        length += len(passage)
        if length >= _DOCUMENT:
            yield "\n\n".join(open_)
            open_, length = [], 0
    if open_:
        yield "\n\n".join(open_)


def _fill(documents: Sequence[str], budget: int) -> int:
    """How many whole documents fill so many bytes."""
    sizes = np.cumsum([len(text.encode()) for text in documents])
    return min(len(documents), int(np.searchsorted(sizes, budget)) + 1)


def _too_short(what: str, found: int) -> BadData:
    return BadData(
        f"the held-out documents are too short for {what}",
        asked=f"{found} pieces",
        nearest=f"{_OPTIONS} and more",
        remedy="give a text of longer passages",
    )
