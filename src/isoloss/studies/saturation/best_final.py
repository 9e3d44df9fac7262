"""Best against final checkpoint of every run on every task: what saturation costs in scores.

After Table 1 of Godey et al. (2024), with the best chosen on one half of the documents and scored
on the other wherever the answers to single documents are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from isoloss.laws.best_final import BestFinal, best_against_final, best_of_means
from isoloss.steps import steps as in_steps
from isoloss.store.series import LOWER_IS_BETTER
from isoloss.store.store import Store
from isoloss.studies.comparison.documents import SCORES, shared_scores
from isoloss.studies.comparison.settings import with_settings
from isoloss.studies.findings import Findings, FindingsTable, Value

STUDY = "best-final"
TITLE = "Best against final checkpoint"
SOURCE = "Godey et al. (2024), arXiv:2404.07647, Table 1"
PERPLEXITY = "perplexity"

FEWEST = 3
"""Checkpoints of a run after its start: below, there is hardly a choice."""
START = 0.1
MOST_CELLS = 10_000
"""Cells whose documents are read, in about 20 seconds; scores after them are compared by means."""

_KEYS = ["family", "run_name", "subject", "setting", "metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFinalRow:
    """One run and one score.

    Attributes:
        run: with its family where the store has several.
        task: its subject.
        num_fewshot: examples in the prompt; None where unknown.
        metric: the score; perplexities are compared by their logarithm.
        best_step: of the best checkpoint on everything known.
        final_step: of the last one.
        found: the comparison.
    """

    run: str
    task: str
    num_fewshot: int | None
    metric: str
    best_step: int | None
    final_step: int | None
    found: BestFinal


def best_final_rows(store: Store, *, start: float = START, seed: int = 0) -> list[BestFinalRow]:
    """Best against final for every run, task and way of asking.

    One score a task is taken, the first of those a document has by itself, and the perplexity
    where there is one.

    Args:
        store: the results.
        start: share of a run's tokens left out at its beginning.
        seed: of the halves.

    Returns:
        Runs of three checkpoints and more after the start.
    """
    rows = _rows(store, start)
    if rows.is_empty():
        return []
    several = rows["family"].n_unique() > 1
    kept = {task: store.cells_with_items(task) for task in rows["subject"].unique()}
    found = []
    left = MOST_CELLS
    series = list(rows.group_by(_KEYS, maintain_order=True))
    for (family, run, task, _, metric), part in in_steps("comparing best and final", series):
        if part.height < FEWEST:
            continue
        own = kept[task] if part.height <= left else set()
        left -= part.height if own else 0
        one = _compare(store, str(task), str(metric), part, own, seed)
        if one is None:
            continue
        steps = part["step"].to_list()
        shots = part["num_fewshot"][0]
        found.append(
            BestFinalRow(
                run=f"{family}/{run}" if several else str(run),
                task=str(task),
                num_fewshot=shots,
                metric=f"ln {metric}" if metric == PERPLEXITY else str(metric),
                best_step=steps[one.best],
                final_step=steps[-1],
                found=one,
            )
        )
    return found


def best_final_table(store: Store, *, start: float = START, seed: int = 0) -> FindingsTable:
    """The same as a table, the largest gain first within each run.

    Args:
        store: the results.
        start: share of a run's tokens left out at its beginning.
        seed: of the halves.
    """
    return _table(best_final_rows(store, start=start, seed=seed))


def best_final_findings(store: Store, *, seed: int = 0) -> Findings | None:
    """The table as a section of the page.

    Args:
        store: the results.
        seed: of the halves.

    Returns:
        None where no run has three checkpoints with scores.
    """
    rows = best_final_rows(store, seed=seed)
    if not rows:
        return None
    return Findings(study=STUDY, title=TITLE, answers=tuple(_answers(rows)), tables=(_table(rows),))


def _rows(store: Store, start: float) -> pl.DataFrame:
    """Scores after the start, by run and tokens; one choice of metrics for each way of asking."""
    weights = store.checkpoints().select("weights_hash").collect()["weights_hash"].drop_nulls()
    named = pl.coalesce("run", "model").alias("run_name")
    rows = (
        with_settings(store, weights.unique().to_list())
        .filter(pl.col("stage").fill_null("pretrain") == "pretrain")
        .filter(pl.col("metric").is_in([*SCORES, PERPLEXITY]), pl.col("value").is_finite())
        .with_columns(named, place=pl.coalesce("tokens_seen", "step"))
        .filter(pl.col("place").is_not_null())
    )
    if rows.is_empty():
        return rows
    first = pl.col("metric").replace_strict(
        {name: i for i, name in enumerate(SCORES)}, default=len(SCORES), return_dtype=pl.Int64
    )
    way = _KEYS[:-1]
    return (
        rows.with_columns(rank=first)
        .filter((pl.col("rank") == pl.col("rank").min().over(way)) | (first == len(SCORES)))
        .filter(pl.col("place") >= start * pl.col("place").max().over(way))
        .unique([*_KEYS, "place"], keep="last", maintain_order=True)
        .sort(*_KEYS, "place", nulls_last=True)
    )


def _compare(
    store: Store, task: str, metric: str, part: pl.DataFrame, kept: set[str], seed: int
) -> BestFinal | None:
    """By documents where all checkpoints have them, else by means."""
    lower = metric in LOWER_IS_BETTER or metric == PERPLEXITY
    cells = [str(cell) for cell in part["cell"]]
    if metric in SCORES and set(cells) <= kept:
        got = shared_scores(store, task, cells, metric)
        if len(got.documents) >= 4:
            return best_against_final(got.scores, lower_is_better=lower, seed=seed)
    values = part["value"].to_numpy()
    errors = part["stderr"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if metric == PERPLEXITY:
        if (values <= 0).any():
            return None
        # first order: an error of ppl is one of ppl / ppl in its logarithm
        values, errors = np.log(values), errors / values
    return best_of_means(values, errors, lower_is_better=lower, seed=seed)


def _table(rows: list[BestFinalRow]) -> FindingsTable:
    ordered = sorted(rows, key=lambda row: (row.run, row.found.halves, -row.found.gain.value))
    return FindingsTable(
        id="best-final",
        title="Best against final checkpoint, by run and task",
        columns=(
            "run",
            "task",
            "shots",
            "score",
            "best step",
            "best",
            "final step",
            "final",
            "apparent gain",
            "luck of the choice",
            "gain",
            "low",
            "high",
            "documents",
            "how",
        ),  # fmt: skip
        rows=tuple(_values(row) for row in ordered),
        note="A gain is how much better the best checkpoint is than the last, in the unit of the "
        "score (nats for ln perplexity), with its 95% interval. 'Halves': chosen on one half of "
        "the documents and scored on the other, over 20 random halves. 'Means': no answers to "
        "single documents are kept, so that the best was chosen by the score it is shown with; "
        "the luck is estimated as if checkpoints had answered different documents, which makes it "
        f"and the interval too large. Documents of at most {MOST_CELLS:,} cells are read, those of "
        f"the first rows; the others are compared by means. After {SOURCE}.",
    )


def _values(row: BestFinalRow) -> tuple[Value, ...]:
    one = row.found
    return (row.run, row.task, row.num_fewshot, row.metric, row.best_step, one.best_value,
            row.final_step, one.final_value, one.apparent, _known(one.luck), one.gain.value,
            _known(one.gain.low), _known(one.gain.high), one.n or None,
            "halves" if one.halves else "means")  # fmt: skip


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _answers(rows: list[BestFinalRow]) -> Iterator[str]:
    for run in dict.fromkeys(row.run for row in rows):
        own = [row for row in rows if row.run == run]
        better = [row for row in own if row.found.gain.low > 0]
        told = f"{run}: an earlier checkpoint is better than the last on {len(better)} of "
        told += f"{len(own)} scores (95% interval above zero)"
        if better:
            most = max(better, key=lambda row: row.found.gain.value / abs(row.found.final_value))
            gain = most.found.gain
            told += (
                f", most of all on {most.task} ({most.metric} {most.found.best_value:.4g} at step "
                f"{most.best_step}, {most.found.final_value:.4g} at the last; gain "
                f"{gain.value:.3g}, {gain.low:.3g} to {gain.high:.3g})"
            )
        yield told + "."
    if any(not row.found.halves for row in rows):
        yield (
            "Where only mean scores are kept, the best checkpoint was chosen by the scores it is "
            "shown with; the luck of that choice is estimated and taken off."
        )
