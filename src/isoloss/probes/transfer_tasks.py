"""Labelled documents: the downstream tasks of the languages, and files of users.

A language's task labels its own sentences: a hidden Markov language's by the state that emitted
one of the words (``task-6``, ``task-10``), a grammar's by the symbol that derives the first words
(``A``, ``B``, ``C``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.corpora.hmm import Hmm
from isoloss.corpora.language import Language, held_out_seed
from isoloss.corpora.pcfg import Pcfg
from isoloss.corpora.pcfg_labels import Reading, label_names, span_labels
from isoloss.errors import BadRequest
from isoloss.estimate import Estimate, mean
from isoloss.probes.linear_probe import draw_test

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SEED_PART = 5  # of the held-out sentences: others than those of the other probes
_MOST_DRAWS = 100
_STATE = re.compile(r"task-([1-9]\d*)")
_RELEASED_WORDS = 5  # the released code leaves shorter sentences out


class Sentences(NamedTuple):
    """Sentences of a language.

    Attributes:
        words: int (n, length), -1 after the end.
        vocab: words of the language.
    """

    words: Ints
    vocab: int


class Texts(NamedTuple):
    """Texts, or pairs of them, a tuple a document."""

    parts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classification:
    """Labelled documents, and which of them are the test.

    Attributes:
        name: of the task.
        documents: what is read.
        labels: class ids, int (n,).
        classes: what they stand for.
        test: (n,).
        best: accuracy on the test documents of who knows the true law of the label given the
            words; None where the words decide the label or the law is unknown.
    """

    name: str
    documents: Sentences | Texts
    labels: Ints
    classes: tuple[str, ...]
    test: Bools
    best: Estimate | None = None


def language_task(
    language: Language, name: str, *, sentences: int, reading: Reading = "paper", seed: int
) -> Classification:
    """A task on fresh sentences of a language, three eighths of which are the test.

    Args:
        language: an HMM or a grammar.
        name: ``task-N`` of an HMM: the state that emitted word N, counted from 1. ``A``, ``B``
            or ``C`` of a grammar: see :func:`isoloss.corpora.pcfg_labels.span_labels`; sentences
            without a label are left out and others drawn.
        sentences: labelled ones in all. The paper has 100,000.
        reading: of A, B and C: the paper's, or the released code's, where sentences have 5 words
            at least.
        seed: equal seeds compare models on equal sentences.

    Returns:
        The task; ``best`` is there for an HMM, from the exact posterior of the state given the
        whole sentence.

    Raises:
        BadRequest: the language has no such task, or almost no sentence of it has a label.
    """
    if isinstance(language, Hmm) and (found := _STATE.fullmatch(name)):
        return _state_task(language, name, int(found[1]), sentences, seed)
    if isinstance(language, Pcfg) and name in ("A", "B", "C"):
        return _span_task(language, name, sentences, reading, seed)
    raise BadRequest(
        "the language has no such task",
        asked=f"{name!r} of a {type(language).__name__}",
        nearest=_tasks_of(language),
        remedy="name one of these, or a file of labelled texts",
    )


def _tasks_of(language: Language) -> str:
    if isinstance(language, Hmm):
        return f"task-1 to task-{language.length}"
    return "A, B, C" if isinstance(language, Pcfg) else "none: only hmm and pcfg have tasks"


def _state_task(language: Hmm, name: str, word: int, n: int, seed: int) -> Classification:
    if word > language.length:
        raise BadRequest(
            "the sentences have no such word",
            asked=f"{name!r}",
            nearest=_tasks_of(language),
            remedy="choose one of these",
        )
    sample = language.sample_with_states(n, held_out_seed(seed, SEED_PART))
    labels = sample.states[:, word - 1]
    test = draw_test(labels, seed=seed)
    guess = language.state_posterior(sample.tokens[test])[:, word - 1].argmax(axis=1)
    return Classification(
        name=name,
        documents=Sentences(sample.tokens, language.vocab),
        labels=labels,
        classes=tuple(map(str, range(language.states))),
        test=test,
        best=mean(guess == labels[test]),
    )


def _span_task(language: Pcfg, name: str, n: int, reading: Reading, seed: int) -> Classification:
    classes = label_names(language, name, reading)  # type: ignore[arg-type]
    words: list[Ints] = []
    labels: list[Ints] = []
    for draw in range(_MOST_DRAWS):
        x = language.sample(n, [*held_out_seed(seed, SEED_PART), draw])
        if reading == "released":
            x = x[(x >= 0).sum(axis=1) >= _RELEASED_WORDS]
        y = span_labels(language, x, name, reading)  # type: ignore[arg-type]
        words.append(x[y >= 0])
        labels.append(y[y >= 0])
        if sum(map(len, labels)) >= n:
            break
    else:
        raise BadRequest(
            "almost no sentence of the language has a label",
            asked=f"task {name}: {sum(map(len, labels))} of {n * _MOST_DRAWS} sentences",
            nearest='reading = "released"',
            remedy="choose another task, or a grammar whose symbols derive longer stretches",
        )
    known = np.concatenate(labels)[:n]
    return Classification(
        name=name,
        documents=Sentences(np.concatenate(words)[:n], language.vocab),
        labels=known,
        classes=classes,
        test=draw_test(known, seed=seed),
    )
