"""A family on a mixture of two languages, 4 to 1: which loss foretells a task best?

The larger language is the text that is named first. Held-out passages are split: losses are
measured on one part, the tasks are made of the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from isoloss.corpora.text import read_corpus
from isoloss.errors import BadData, BadRequest
from isoloss.store.store import Store
from isoloss.studies.claims import judge, load_claims
from isoloss.studies.emergence.curves import axis_errors, error_gap
from isoloss.studies.emergence.families import Size
from isoloss.studies.emergence.points import Floats, Points, read_points
from isoloss.studies.findings import Finding, FindingsTable, Value
from isoloss.studies.recipe import Part

PART = "two-languages"
OVERALL = "overall"
CLAIMS = ("overall-loss-first-language", "overall-loss-second-language")
_SHARE = 4  # the larger language has so many bytes for one of the smaller
_HELD, _LEAST_HELD, _MOST_HELD = 0.08, 20, 400
_ITEMS, _OPTIONS, _SEED, _LENGTH = 250, 4, 5, 64
_METRIC = "correct_choice_prob"
_LOSS, _TOKENS = "loss_nats_per_token", "tokens_scored"

_FAMILY = """\
# a mixture of {first} and {second}, {share} to 1 in bytes; three sizes, one run each
name = "two-languages"
seed = 0

[language]
kind = "text"
path = "../texts/train"
document = "blank-line"
vocab = {vocab}
length = {length}

[train]
optimizer = "adamw"
optimizer_options = {{ betas = [0.9, 0.95], weight_decay = 0.01 }}
schedule = "cosine"
final_lr = 0.1
batch = 32
checkpoints = {{ log = 12, first = {start} }}

[[grid]]
architecture = "llama"
width = {widths}
depth = 2
tokens = {tokens}
"""

_STUDY = """\
# Losses of both languages on one part of the held-out passages, tasks made of another.
name = "two-languages"
seed = 0

[run]
threads = 1

[[family]]
pretrained = "families/two-languages"
{corpora}{tasks}
[probe.token_loss]
[probe.task_score]

[axis]
loss = "{first}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """How passages of a language are cut into a question and its continuation, in characters."""

    shown: int
    asked: int
    delimiter: str


_WORDS = _Cut(shown=90, asked=30, delimiter=" ")
_SIGNS = _Cut(shown=24, asked=8, delimiter="")


def languages_part(size: Size, texts: Mapping[str, Path]) -> Part:
    """The part of the study that needs two texts.

    Args:
        size: of the study.
        texts: two files by name, the larger language first.

    Raises:
        BadRequest: not two texts.
    """
    if len(texts) != 2:
        raise BadRequest(
            "the family of two languages needs two texts",
            asked=", ".join(texts),
            remedy="--text en=FILE --text zh=FILE, the larger language first",
        )
    first, second = texts
    cuts = {name: _cut_of(path) for name, path in texts.items()}
    corpora = "".join(
        f'\n[corpus.{name}]\npath = "texts/held/{name}.txt"\ndocument = "blank-line"\n'
        f"context = {_LENGTH}\n"
        for name in texts
    )
    tasks = "".join(
        f'\n[task.cloze_{name}]\npath = "tasks/cloze_{name}.jsonl"\n'
        f'delimiter = "{cuts[name].delimiter}"\n'
        for name in texts
    )
    family = _FAMILY.format(
        first=first, second=second, share=_SHARE, vocab=2_048, length=_LENGTH,
        start=max(1, size.text_tokens // (100 * 32 * _LENGTH)),
        widths=list(size.text_widths), tokens=size.text_tokens,
    )  # fmt: skip
    return Part(
        name=PART,
        families={PART: family},
        study=_STUDY.format(corpora=corpora, tasks=tasks, first=first),
        before=lambda folder: _write_texts(folder, texts, cuts, size),
    )


def languages_findings(
    store: Store, texts: Sequence[str]
) -> tuple[dict[str, Finding], FindingsTable]:
    """Which loss foretells each language's task best, on runs left out.

    Args:
        store: of the part.
        texts: names of the two, the larger language first.

    Returns:
        The claims by id, and a table of errors.
    """
    points = _with_overall(read_points(store), texts)
    claims = {claim.id: claim for claim in load_claims("emergence")}
    found, rows = {}, []
    for name, claim_id in zip(texts, CLAIMS, strict=True):
        claim, task = claims[claim_id], f"cloze_{name}:{_METRIC}"
        own = f"{name}:{_LOSS}"
        evidence = error_gap(claim, points, OVERALL, own, [task], seed=_SEED)
        found[claim_id] = judge(claim, evidence)
        for axis in (OVERALL, *(f"{other}:{_LOSS}" for other in texts)):
            rows.append(_error_row(points, name, axis, task, own))
    table = FindingsTable(
        id="two-languages",
        title="Which loss foretells a task of each language?",
        columns=("language of the task", "loss", "error on runs left out (points)", "runs",
                 "more than the language's own"),
        rows=tuple(rows),
        note="Probability of the correct one of four continuations. The overall loss is that of "
        "all held-out tokens of both languages.",
    )  # fmt: skip
    return found, table


def _error_row(points: Points, name: str, axis: str, task: str, own: str) -> tuple[Value, ...]:
    try:
        errors, base = (
            np.array(list(axis_errors(points, one, task).by_run.values())) for one in (axis, own)
        )
    except BadRequest as error:
        return name, axis, None, 0, error.what
    mean, reference = float(np.nanmean(errors)), float(np.nanmean(base))
    return name, axis.partition(":")[0], mean, int(np.isfinite(errors).sum()), mean - reference


def _with_overall(points: Points, texts: Sequence[str]) -> Points:
    nats: Floats = np.zeros(points.frame.height)
    tokens: Floats = np.zeros(points.frame.height)
    for name in texts:
        count = points.column(f"{name}:{_TOKENS}")
        nats = nats + count * points.column(f"{name}:{_LOSS}")
        tokens = tokens + count
    return Points(points.frame.with_columns(pl.Series(OVERALL, nats / tokens)))


def _cut_of(path: Path) -> _Cut:
    """Words where the text has spaces between them, else single signs."""
    text = path.read_text(encoding="utf-8", errors="replace")[:20_000]
    return _WORDS if text.count(" ") > 0.05 * max(len(text), 1) else _SIGNS


def _write_texts(
    folder: Path, texts: Mapping[str, Path], cuts: Mapping[str, _Cut], size: Size
) -> None:
    """Training text 4 to 1 in bytes, held-out passages in the same proportion, and the tasks."""
    from isoloss.store.files import write_text

    budget = size.text_kilobytes * 1_000
    for place, (name, path) in enumerate(texts.items()):
        rng = np.random.default_rng([_SEED, place])
        passages = list(read_corpus(path, document="blank-line").documents)
        order = rng.permutation(len(passages))
        held = min(max(_LEAST_HELD, int(_HELD * len(passages))), _MOST_HELD)
        if len(passages) < 3 * held:
            raise BadData(
                "the text has too few passages to hold some out",
                asked=f"{path}: {len(passages)} passages between empty lines",
                nearest=f"{3 * held} passages",
                remedy="separate its passages by empty lines, or give more text",
            )
        part = [[passages[i] for i in order[a:b]] for a, b in
                ((0, held), (held, 2 * held), (2 * held, len(passages)))]  # fmt: skip
        share = budget if place == 0 else budget // _SHARE
        write_text(folder / "texts" / "train" / f"{name}.txt", _joined(_up_to(share, part[2])))
        asked = share // 30
        write_text(folder / "texts" / "held" / f"{name}.txt", _joined(_up_to(asked, part[0])))
        rows = cloze(part[1], cuts[name], rng)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "tasks" / f"cloze_{name}.jsonl", text)


def cloze(passages: Iterable[str], cut: _Cut, rng: np.random.Generator) -> list[dict[str, object]]:
    """Items that ask which of four pieces goes on; wrong ones come from other passages.

    Args:
        passages: held out.
        cut: where to cut.
        rng: source of the order of the options.

    Raises:
        BadData: fewer than four passages are long enough.
    """
    pairs = [pair for text in passages for pair in _pieces(" ".join(text.split()), cut)]
    if len({asked for _, asked in pairs}) < _OPTIONS:
        raise BadData(
            "the held-out passages are too short for a cloze",
            asked=f"{len(pairs)} pieces of {cut.shown + cut.asked} characters",
            remedy="give a text of longer passages",
        )
    kept = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:_ITEMS])]
    answers = sorted({asked for _, asked in pairs})
    rows: list[dict[str, object]] = []
    for shown, asked in kept:
        others = [answers[i] for i in rng.choice(len(answers), size=_OPTIONS, replace=False)]
        wrong = [text for text in others if text != asked][: _OPTIONS - 1]
        gold = int(rng.integers(_OPTIONS))
        wrong.insert(gold, asked)
        rows.append({"query": shown, "choices": wrong, "gold": gold})
    return rows


def _pieces(text: str, cut: _Cut) -> list[tuple[str, str]]:
    """Stretches of a passage as (shown, asked), cut between words where there are any."""
    whole, found = cut.shown + cut.asked, []
    for start in range(0, len(text) - whole, whole):
        piece = text[start : start + whole]
        at = piece.find(" ", cut.shown) if cut.delimiter else cut.shown
        if at > 0 and piece[at:].strip():
            found.append((piece[:at].strip(), piece[at:].strip()))
    return found


def _up_to(budget: int, passages: Sequence[str]) -> list[str]:
    """Whole passages until the budget of bytes is full; at least one."""
    sizes = np.cumsum([len(text.encode()) for text in passages])
    return list(passages[: max(1, int(np.searchsorted(sizes, budget)))])


def _joined(passages: Sequence[str]) -> str:
    return "\n\n".join(text.strip("\n") for text in passages) + "\n"
