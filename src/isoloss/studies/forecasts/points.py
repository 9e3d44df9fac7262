"""One ability beside the loss, one row a checkpoint: what every question to a family starts from.

Families, recipes and settings are never mixed: where a store holds several, one is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from isoloss.errors import BadRequest, Refused, nearest_name
from isoloss.store.axis import CHECKPOINT, Axis, choose, losses, refuse_circular
from isoloss.store.schema import CHECKPOINT_KEY
from isoloss.store.store import Store
from isoloss.studies.forecasts.ability_scores import Ability, score_rows, scores_of

PRETRAINING = "pretrain"
_FACTS = {
    "family": "family",
    "model": "model",
    "run": "run",
    "stage": "stage",
    "variant": "variant",
    "seed": "seed",
    "step": "step",
    "tokens": "tokens_seen",
    "params": "params_total",
    "params_non_embedding": "params_non_embedding",
    "flops": "flops",
    "schedule": "schedule",
    "schedule_progress": "schedule_progress",
}
_VALUES = ("loss", "loss_stderr", "score", "stderr", "n", "chance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Tidy points of one family.

    Attributes:
        frame: a row a checkpoint by run and tokens: ``family``, ``model``, ``run``, ``stage``,
            ``variant``, ``seed``, ``step``, ``tokens``, ``params`` (total),
            ``params_non_embedding``, ``flops`` (6 N D), ``schedule``, ``schedule_progress``,
            ``flagged``, ``loss``, ``loss_stderr`` (in the axis's unit), ``score``, ``stderr``,
            ``n``, ``chance``. A number that is not known or not finite is null.
        axis: the loss.
        ability: the score; None where only the loss was asked for.
        notes: what was left out, and what was chosen among several, in words.
    """

    frame: pl.DataFrame
    axis: Axis
    ability: Ability | None
    notes: tuple[str, ...]


def read_points(
    store: Store,
    *,
    task: str | None = None,
    metric: str | None = None,
    num_fewshot: int | None = None,
    loss: str | None = None,
    family: str | None = None,
    variant: str | None = None,
    keep_flagged: bool = False,
) -> Points:
    """The points of one family: its loss, and one ability where a task is named.

    Flagged checkpoints and stages after pretraining are left out and counted.

    Args:
        store: the results.
        task: subject of the ability; None reads the loss alone.
        metric: None takes the first of :data:`SCORES` that the task has.
        num_fewshot: needed where the task was asked with several numbers of shots.
        loss: ``SUBJECT`` or ``SUBJECT:METRIC``; needed where the store has several axes.
        family: needed where the store has several.
        variant: recipe or data; needed where the family has several.
        keep_flagged: flagged checkpoints stay, with ``flagged`` true.

    Returns:
        The points, those without a loss left out.

    Raises:
        BadRequest: something named is not there, or several could be meant.
        Refused: the ability and the loss come from the same documents, or no checkpoint has
            what was asked for.
    """
    tasks = [] if task is None else [task]
    found = read_each(
        store, tasks, metric=metric, num_fewshot=num_fewshot, loss=loss, family=family,
        variant=variant, keep_flagged=keep_flagged,
    )  # fmt: skip
    return found[0]


def read_each(
    store: Store,
    tasks: Sequence[str],
    *,
    metric: str | None = None,
    num_fewshot: int | None = None,
    loss: str | None = None,
    family: str | None = None,
    variant: str | None = None,
    keep_flagged: bool = False,
) -> list[Points]:
    """The points of several abilities of one family, the store read once.

    Args:
        store: the results.
        tasks: subjects of the abilities; none reads the loss alone, as one entry.
        metric: as in :func:`read_points`.
        num_fewshot: likewise.
        loss: likewise.
        family: likewise.
        variant: likewise.
        keep_flagged: likewise.

    Returns:
        One entry a task, in their order.
    """
    axis = choose(store, loss)
    for task in tasks:
        refuse_circular(axis, task)
    base = _with_losses(store, axis, family=family, variant=variant, keep_flagged=keep_flagged)
    if not tasks:
        unknown = [pl.lit(None, pl.Float64).alias(name) for name in _VALUES[2:]]
        return [_tidy(base.rows.with_columns(unknown), axis, None, base.notes)]
    measured = score_rows(store, tasks)
    found = []
    for task in tasks:
        notes = list(base.notes)
        rows = measured.filter(pl.col("subject") == task)
        ability, scores = scores_of(store, rows, task, metric, num_fewshot, notes)
        joined = base.rows.join(scores, on=CHECKPOINT_KEY, how="left", nulls_equal=True)
        found.append(_tidy(joined.with_columns(_finite("score")), axis, ability, notes))
    return found


class _Base(NamedTuple):
    """Checkpoints that may be used, with their loss."""

    rows: pl.DataFrame
    notes: list[str]


def _with_losses(
    store: Store, axis: Axis, *, family: str | None, variant: str | None, keep_flagged: bool
) -> _Base:
    notes: list[str] = []
    rows = _one_of(_checkpoints(store), "family", family)
    rows = _one_of(_pretraining(rows, notes), "variant", variant)
    rows = rows.join(losses(store, axis), on=list(CHECKPOINT), how="left", nulls_equal=True)
    flagged = int(rows["flagged"].sum())
    if flagged and not keep_flagged:
        notes.append(f"{flagged} flagged checkpoints are left out (isoloss status lists them)")
        rows = rows.filter(~pl.col("flagged"))
    known = rows.with_columns(_finite("loss")).filter(pl.col("loss").is_not_null())
    if known.height < rows.height:
        notes.append(f"{rows.height - known.height} checkpoints have no {axis.name}")
    if known.is_empty():
        raise Refused(
            f"no checkpoint that may be used has a loss on {axis.name}.",
            asked="; ".join(notes) or axis.name,
            remedy="isoloss ls RUN shows what each checkpoint has; measure or import its loss",
        )
    return _Base(known, notes)


def _tidy(rows: pl.DataFrame, axis: Axis, ability: Ability | None, notes: list[str]) -> Points:
    frame = rows.select(
        *(pl.col(column).alias(name) for name, column in _FACTS.items()), "flagged", *_VALUES
    ).sort("params", "model", "run", "tokens", "step", nulls_last=True)
    return Points(frame=frame, axis=axis, ability=ability, notes=tuple(notes))


def _checkpoints(store: Store) -> pl.DataFrame:
    keys = ["family", "model", "run", "stage", "step"]
    flags = store.flags().select(keys).unique().with_columns(flagged=pl.lit(value=True)).collect()
    return (
        store.checkpoints()
        .collect()
        .join(flags, on=keys, how="left", nulls_equal=True)
        .with_columns(pl.col("flagged").fill_null(value=False))
    )


def _one_of(rows: pl.DataFrame, column: str, wanted: str | None) -> pl.DataFrame:
    """The rows of one family or variant; several are an error."""
    known = [str(x) for x in rows[column].unique().drop_nulls().sort()]
    if wanted is not None:
        if wanted not in known:
            raise BadRequest(
                f"the store has no such {column}.",
                asked=wanted,
                nearest=nearest_name(wanted, known) or ", ".join(known) or None,
                remedy=f"isoloss ls RUN shows them; leave out --{column} where there is one",
            )
        return rows.filter(pl.col(column) == wanted)
    if rows[column].n_unique() > 1:
        unnamed = rows[column].null_count()
        raise BadRequest(
            f"a law holds for one {column}, and the store has several.",
            asked=f"no --{column}",
            nearest=", ".join(known) + (f" ({unnamed} checkpoints have none)" if unnamed else ""),
            remedy=f"--{column} {known[0]}",
        )
    return rows


def _pretraining(rows: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    kept = rows.filter(pl.col("stage").fill_null(PRETRAINING) == PRETRAINING)
    if kept.height < rows.height:
        stages = sorted(set(rows["stage"].drop_nulls()) - {PRETRAINING})
        notes.append(
            f"{rows.height - kept.height} checkpoints of later stages are left out "
            f"({', '.join(stages)})"
        )
    return kept


def _finite(name: str) -> pl.Expr:
    column = pl.col(name)
    return pl.when(column.is_finite()).then(column).alias(name)
