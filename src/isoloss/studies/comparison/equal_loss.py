"""Two runs of a store, read at equal losses on every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadRequest, Refused
from isoloss.steps import steps
from isoloss.store.axis import BITS, Axis, choose, losses, refuse_circular
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store
from isoloss.studies.comparison.chosen import choose_run, names_step
from isoloss.studies.comparison.documents import SCORES, shared_scores
from isoloss.studies.comparison.paired import holm_corrected
from isoloss.studies.comparison.residual import Residual, RunScores, residual_at_equal_loss
from isoloss.studies.comparison.settings import shared_ways, with_settings

Floats = NDArray[np.float64]
_RUN = ("family", "model", "run")
_WINDOW = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualLoss:
    """One task of two runs at equal losses.

    Attributes:
        task: its subject in the store.
        metric: the score.
        setting: how it was asked, in words.
        residual: b less a.
        p_holm: the p-value of the mean corrected for the number of tasks.
    """

    task: str
    metric: str
    setting: str
    residual: Residual
    p_holm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualLosses:
    """Every task of two runs at equal losses.

    Attributes:
        a: name of the first run.
        b: of the second.
        axis: the loss, in words.
        found: an entry a task and setting.
        skipped: why a task was not compared, in words.
        notes: what was left out.
    """

    a: str
    b: str
    axis: str
    found: tuple[EqualLoss, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


class _Run(NamedTuple):
    """A run's checkpoints that may be used, with their loss, in the order of training."""

    name: str
    rows: pl.DataFrame


class _Text(NamedTuple):
    """Sums of nats by weights over the blocks of the text, and their sizes."""

    sums: dict[str, Floats]
    sizes: Floats


def equal_losses(
    store: Store,
    a: str,
    b: str,
    *,
    tasks: Sequence[str] = (),
    metric: str | None = None,
    num_fewshot: int | None = None,
    loss: str | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> EqualLosses:
    """The ability of one run over another's at equal loss, on every task.

    Args:
        store: the results.
        a: a run or a model.
        b: another.
        tasks: names; all that both have where there are none.
        metric: None takes the first of :data:`SCORES` that both have.
        num_fewshot: only tasks asked with so many examples.
        loss: the axis, as ``--loss`` takes it; needed where the store has several.
        level: of the intervals.
        seed: of the draws.

    Raises:
        BadRequest: no such run, task, score or loss, or several could be meant.
        Refused: the runs share no loss, or a named task was asked in different ways.
    """
    for asked in (a, b):
        if names_step(asked):
            raise BadRequest(
                "a reading at equal losses names runs: all of their checkpoints are read.",
                asked=asked,
                nearest=asked.partition("@")[0],
                remedy="leave out the step, or compare two checkpoints without --at",
            )
    axis = choose(store, loss)
    notes: list[str] = []
    runs = [_usable(store, axis, name, notes) for name in (a, b)]
    if runs[0].rows.select(_RUN).row(0) == runs[1].rows.select(_RUN).row(0):
        raise Refused(
            "a run has the ability of itself.",
            asked=f"{a} and {b}",
            remedy="name two runs; two of its checkpoints compare without --at",
        )
    weights = [str(one) for run in runs for one in run.rows["weights_hash"]]
    text = _text(store, axis, weights)
    measured = with_settings(store, weights, num_fewshot)
    found: list[EqualLoss] = []
    skipped: list[str] = []
    asked_of = list(dict.fromkeys(tasks)) or sorted(set(measured["subject"]))
    for task in steps("comparing at equal loss", asked_of):
        try:
            refuse_circular(axis, task)
            own = measured.filter(pl.col("subject") == task)
            found += _of_task(store, task, own, runs, text, metric, level, seed)
        except (BadRequest, Refused) as error:
            if tasks:
                raise
            skipped.append(f"{task}: {error.what.rstrip('.')} ({error.asked})")
    if not found:
        raise Refused(
            "no task of both runs can be read at equal losses.",
            asked="; ".join(skipped) or f"{a} and {b} have no task in common",
            remedy="measure a task at several checkpoints of both: isoloss run STUDY.toml",
        )
    corrected = holm_corrected([one.residual.p_value for one in found])
    return EqualLosses(
        a=runs[0].name,
        b=runs[1].name,
        axis=axis.label,
        found=tuple(replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _usable(store: Store, axis: Axis, asked: str, notes: list[str]) -> _Run:
    rows = choose_run(store, asked)
    name = str(rows["run"][0] or rows["model"][0])
    keys = ["family", "model", "run", "stage", "step"]
    kept = rows.filter(pl.col("stage").fill_null("pretrain") == "pretrain")
    kept = kept.join(store.flags().select(keys).collect(), on=keys, how="anti", nulls_equal=True)
    known = losses(store, axis).select("weights_hash", "loss").unique("weights_hash")
    found = kept.join(known, on="weights_hash", how="left", maintain_order="left").filter(
        pl.col("loss").is_finite()
    )
    if found.height < rows.height:
        notes.append(
            f"{name}: {rows.height - found.height} of {rows.height} checkpoints are left out "
            "(flagged, of a later stage, or without the loss)"
        )
    if found.is_empty():
        raise Refused(
            f"no checkpoint of {name} that may be used has a loss on {axis.name}.",
            asked=f"--loss {axis.name}",
            remedy="--loss SUBJECT:bits_per_byte for runs of different tokenizers, or measure it",
        )
    return _Run(name, found)


def _text(store: Store, axis: Axis, weights: Sequence[str]) -> _Text | None:
    """The nats of every checkpoint on the blocks that all have; None where they are not kept."""
    if axis.probe != LOSS_PROBE or axis.reference is not None:
        return None
    tokens = store.token_losses(axis.subject).filter(
        pl.col("weights_hash").is_in(list(weights)) & pl.col("loss_nats").is_finite()
    )
    one_document = tokens.select(pl.col("document").n_unique()).collect().item() == 1
    window = int(str(axis.settings.get("context") or _WINDOW))
    block = (pl.col("token") // window).cast(pl.Int32) if one_document else pl.col("document")
    table = (
        tokens.group_by("layout", "cell", "weights_hash", block.alias("block"))
        .agg(
            nats=pl.col("loss_nats").cast(pl.Float64).sum(),
            tokens=pl.len(),
            bytes=pl.col("bytes").sum(),
        )
        .sort("cell")
        .unique(["weights_hash", "block"], keep="first", maintain_order=True)
        .collect()
    )
    size = pl.col("bytes" if axis.metric == BITS else "tokens")
    scale = np.log(2) if axis.metric == BITS else 1.0
    alike = (
        table.group_by("block")
        .agg(sizes=size.n_unique(), scored=pl.col("weights_hash").n_unique(), size=size.first())
        .filter(pl.col("sizes") == 1, pl.col("scored") == len(set(weights)))
        .sort("block")
    )
    if alike.height < 2:
        return None
    kept = table.join(alike.select("block"), on="block").sort("block")
    sums = {
        str(name): part["nats"].to_numpy() / scale
        for (name,), part in kept.group_by("weights_hash", maintain_order=True)
    }
    return _Text(sums, alike["size"].to_numpy().astype(np.float64))


def _of_task(
    store: Store,
    task: str,
    rows: pl.DataFrame,
    runs: Sequence[_Run],
    text: _Text | None,
    metric: str | None,
    level: float,
    seed: int,
) -> list[EqualLoss]:
    own = [
        rows.filter(pl.col("weights_hash").is_in(r.rows["weights_hash"].to_list())) for r in runs
    ]
    found = []
    for way in shared_ways(task, own, [run.name for run in runs], metric, SCORES):
        tables = [
            run.rows.join(
                part.filter(pl.col("setting") == way.key, pl.col("metric") == way.metric).select(
                    "weights_hash", "cell", "value", value_stderr="stderr"
                ),
                on="weights_hash",
                maintain_order="left",
            ).filter(pl.col("value").is_finite())
            for run, part in zip(runs, own, strict=True)
        ]
        series = _series(store, task, way.metric, runs, tables, text)
        residual = residual_at_equal_loss(
            *series, sizes=None if text is None else text.sizes, level=level, seed=seed
        )
        found.append(EqualLoss(task=task, metric=way.metric, setting=way.told, residual=residual))
    return found


def _series(
    store: Store,
    task: str,
    metric: str,
    runs: Sequence[_Run],
    tables: Sequence[pl.DataFrame],
    text: _Text | None,
) -> list[RunScores]:
    cells = [str(cell) for table in tables for cell in table["cell"]]
    documents = None
    if metric in SCORES and cells and set(cells) <= store.cells_with_items(task):
        shared = shared_scores(store, task, cells, metric)
        # fewer than two documents leave nothing to resample
        documents = shared.scores if len(shared.documents) > 1 else None
    found, start = [], 0
    for run, table in zip(runs, tables, strict=True):
        own = None if documents is None else documents[start : start + table.height]
        start += table.height
        found.append(
            RunScores(
                name=run.name,
                loss=table["loss"].to_numpy(),
                score=table["value"].to_numpy() if own is None else own.mean(axis=1),
                stderr=table["value_stderr"].fill_null(float("nan")).to_numpy(),
                documents=own,
                sums=None
                if text is None or not table.height
                else np.stack([text.sums[str(w)] for w in table["weights_hash"]]),
            )
        )
    return found
