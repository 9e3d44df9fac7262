"""What the language of planted facts itself says of its true and its false sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from isoloss.corpora.language import Language
from isoloss.laws.correlated import Ints
from isoloss.studies.emergence.points import Points
from isoloss.studies.findings import Figure, FigureAxis, FindingsTable, Rule, Value
from isoloss.studies.trajectories.families import (
    FACT_SETS,
    FALSE,
    SETS_SEED,
    TRUE,
    Size,
    fact_language,
)
from isoloss.studies.trajectories.halting import Halt, halts
from isoloss.studies.trajectories.run_points import LOSS, run_curves
from isoloss.studies.trajectories.task_growth import size_label


class Reference(NamedTuple):
    """Exact losses of the sets, the end of a sentence not counted.

    Attributes:
        true: nats per word of the true sentences under the language.
        false: nats per word of the false ones under the same grammar without facts, what a model
            reaches that knows the grammar alone; under the language itself it is infinite.
        words: mean words of a sentence, equal in all sets.
    """

    true: float
    false: float
    words: float


def reference(size: Size) -> Reference:
    """Exact losses of the sets of a scale."""
    language = fact_language(size)
    sets = language.sets(size.sentences, seed=SETS_SEED)
    return Reference(
        true=_nats_a_word(language, sets.true),
        false=_nats_a_word(language.factless, sets.false),
        words=float((sets.true >= 0).sum(axis=1).mean()),
    )


def _nats_a_word(language: Language, sentences: Ints) -> float:
    inside = sentences >= 0
    words = np.where(inside, sentences, 0)
    logs = language.next_token_logprobs(sentences)[:, : sentences.shape[1]]
    taken = np.take_along_axis(logs, words[:, :, None], axis=2)[:, :, 0]
    return -float(taken[inside].sum() / inside.sum())


class RunHalt(NamedTuple):
    """A run's verdict on one set."""

    run: str
    params: float
    size: str
    halt: Halt


def halts_of(points: Points, name: str) -> tuple[RunHalt, ...]:
    """Whether each run stays with a set, smallest models first.

    Args:
        points: of the family of facts.
        name: of the set.
    """
    return tuple(
        RunHalt(
            curve.run, curve.params, size_label(curve), halts(curve.loss, curve.value, curve.tokens)
        )
        for curve in run_curves(points, f"{name}:{LOSS}")
    )


def halt_table(found: Mapping[str, tuple[RunHalt, ...]]) -> FindingsTable:
    """Slopes and verdicts of every run.

    Args:
        found: of each set, by name.
    """
    rows: list[tuple[Value, ...]] = [
        (name, one.size, one.run, one.halt.verdict, one.halt.slope, one.halt.low, one.halt.high,
         one.halt.points)
        for name, runs in found.items()
        for one in runs
    ]  # fmt: skip
    return FindingsTable(
        id="halting", title="Who stays with false sentences, and who leaves them?",
        columns=("set", "size", "run", "verdict", "slope (nats a nat)", "low", "high",
                 "checkpoints"),
        rows=tuple(rows),
        note="Slope of the set's loss against the overall loss over the last third of training, "
        "95% interval with AR(1) errors. At or above 0 a run halts: it stays with the set. "
        "Below 0 it leaves.",
    )  # fmt: skip


def set_figure(points: Points, exact: Reference) -> Figure:
    """Log-probability of a sentence of each set relative to the exact language, along training."""
    rows: list[dict[str, Value]] = [
        {"x": float(tokens), "y": exact.words * (exact.true - float(value)), "who": name,
         "panel": f"{size_label(curve)} {curve.run}", "layer": "point"}
        for name in FACT_SETS
        for curve in run_curves(points, f"{name}:{LOSS}")
        for tokens, value in zip(curve.tokens, curve.value, strict=True)
    ]  # fmt: skip
    level = exact.words * (exact.true - exact.false)
    return Figure(
        id="fact-sets", title="Sets of sentences relative to the exact language", mark="lines",
        note="Nats of a whole sentence, less those of its true partner under the exact language. "
        "True sentences rise to 0. False ones rise to the level of the grammar without facts, "
        "and fall where the model learns what is true. Under the language itself all but the "
        "true ones are impossible.",
        x=FigureAxis(column="x", title="tokens seen", log=True),
        y=FigureAxis(column="y", title="log-probability of a sentence, nats"),
        by="who", panel="panel",
        rules=(
            Rule(along="y", value=0.0, label="exact language"),
            Rule(along="y", value=level, label="grammar alone, false sentences"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def best_false_table(points: Points, exact: Reference) -> FindingsTable:
    """How near each run came to the grammar without facts, and where it ended."""
    rows: list[tuple[Value, ...]] = []
    true = {curve.run: curve for curve in run_curves(points, f"{TRUE}:{LOSS}")}
    for curve in run_curves(points, f"{FALSE}:{LOSS}"):
        lowest = int(np.argmin(curve.value))
        rows.append(
            (size_label(curve), curve.run, float(curve.value[lowest]), int(curve.tokens[lowest]),
             float(curve.value[-1]), float(true[curve.run].value[-1]))
        )  # fmt: skip
    return FindingsTable(
        id="false-sentences", title="False sentences are learned first, then unlearned",
        columns=("size", "run", "lowest loss", "at tokens", "loss at the end",
                 "true sentences at the end"),
        rows=tuple(rows),
        note=f"Nats per word. False sentences under the grammar without facts: {exact.false:.3f}; "
        f"true ones under the exact language: {exact.true:.3f}.",
    )  # fmt: skip
