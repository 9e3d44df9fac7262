"""Labelled texts in JSON lines, as SST-2, QNLI and their kin are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isoloss.errors import BadData
from isoloss.probes.linear_probe import check_labels, draw_test
from isoloss.probes.transfer_tasks import Classification, Texts
from isoloss.tasks.jsonl import json_lines
from isoloss.tasks.sample import choose

# pairs before single texts: a question's sentence is not the whole of it
SHAPES = (
    ("question", "sentence"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("text",),
    ("sentence",),
)


def read_classification(
    name: str,
    path: Path,
    *,
    test_path: Path | None = None,
    limit: int | None = None,
    seed: int,
) -> Classification:
    """Read labelled texts.

    A line is ``{"text": .., "label": ..}`` or ``{"sentence": .., "label": ..}``; of two texts
    ``{"question", "sentence"}``, ``{"sentence1", "sentence2"}``, ``{"question1", "question2"}``,
    ``{"premise", "hypothesis"}`` or ``{"text", "text_pair"}``. Labels are texts or whole numbers;
    other keys are left alone. All lines of a file have the shape of its first one.

    Args:
        name: of the task.
        path: the file; without a test file three eighths of it, drawn at random, are the test.
        test_path: a file of test documents.
        limit: at most so many documents of each file, drawn in proportion to the labels.
        seed: of the draws.

    Returns:
        The task.

    Raises:
        BadData: a file is missing or empty, a line is malformed, a text is empty, there is one
            class only, or a label stands in the test file alone.
    """
    files = [path] if test_path is None else [path, test_path]
    read = [_chosen(list(_labelled(file)), file, limit, seed) for file in files]
    every = [one for part in read for one in part]
    classes = tuple(sorted({one.label for one in every}))
    ids = {label: i for i, label in enumerate(classes)}
    labels = np.array([ids[one.label] for one in every], dtype=np.int64)
    if test_path is None:
        test = draw_test(labels, seed=seed)
    else:
        test = np.arange(len(every)) >= len(read[0])
        _check_known(read, test_path)
    check_labels(labels, test)
    return Classification(
        name=name,
        documents=Texts(tuple(one.texts for one in every)),
        labels=labels,
        classes=classes,
        test=test,
    )


class _Labelled(NamedTuple):
    texts: tuple[str, ...]
    label: str


def _labelled(path: Path) -> Iterator[_Labelled]:
    shape: tuple[str, ...] | None = None
    for where, record in json_lines(path):
        shape = shape or next((s for s in SHAPES if all(key in record for key in s)), None)
        if shape is None or any(key not in record for key in (*shape, "label")):
            raise BadData(
                "a line is no labelled text, or of another shape than the first one",
                asked=f"{where}: keys {', '.join(map(repr, record)) or 'none'}",
                nearest=", ".join(map(repr, (*(shape or ("text",)), "label"))),
                remedy='write {"text": .., "label": ..}, or two texts such as sentence1, sentence2',
            )
        yield _Labelled(tuple(_text(record, key, where) for key in shape), _label(record, where))


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        raise BadData(
            f"{key!r} is no text, or an empty one",
            asked=f"{where}: {value!r}",
            remedy="drop the line or give it its text",
        )
    return value


def _label(record: Mapping[str, Any], where: str) -> str:
    value = record["label"]
    if isinstance(value, float) or not isinstance(value, str | int) or value == "":
        raise BadData(
            "a label is a text or a whole number",
            asked=f"{where}: {value!r}",
            remedy="a classification names classes; numbers to be predicted are another task",
        )
    return str(value)


def _chosen(every: list[_Labelled], path: Path, limit: int | None, seed: int) -> list[_Labelled]:
    if not every:
        raise BadData(
            "a file of labelled texts is empty", asked=str(path), remedy="give it a text a line"
        )
    places = choose([one.label for one in every], limit=limit, sample="seeded", seed=seed)
    return [every[i] for i in places]


def _check_known(read: list[list[_Labelled]], test_path: Path) -> None:
    known = {one.label for one in read[0]}
    alone = sorted({one.label for one in read[1]} - known)
    if alone:
        raise BadData(
            "a label stands in the test file alone",
            asked=f"{alone[0]!r}, {sum(one.label == alone[0] for one in read[1])} times in "
            f"{test_path}",
            nearest=", ".join(map(repr, sorted(known)[:8])),
            remedy="spell labels alike in both files; a test file without labels has none to score",
        )
