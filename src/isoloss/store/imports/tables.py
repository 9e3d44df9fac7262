"""Plain tables, CSV or Parquet, into a store: the user says which column is what.

In the long form a row is one number of one checkpoint (columns for task, metric and value); in
the wide form a row is a checkpoint with one column a number. Both forms may stand in one table.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from isoloss import __version__
from isoloss.errors import BadData, BadRequest
from isoloss.steps import steps
from isoloss.store.axis import BITS, LOSS
from isoloss.store.cell import Finished
from isoloss.store.imports import names
from isoloss.store.imports.columns import Table, check_roles, read_table
from isoloss.store.imports.filing import (
    DIGEST,
    ImportReport,
    cell,
    file_cells,
    weights_hash,
)
from isoloss.store.imports.harness_scores import check_fraction
from isoloss.store.imports.identical import flag_identical
from isoloss.store.schema import LOG_PROBE, LOSS_PROBE, TASK_PROBE
from isoloss.store.store import Store

Target = tuple[str, str]
"""Subject and metric."""

_FACTS = {
    "seed": "seed",
    "variant": "variant",
    "stage": "stage",
    "step": "step",
    "tokens": "tokens_seen",
    "params": "params_total",
    "params_non_embedding": "params_non_embedding",
    "lr": "lr",
    "schedule": "schedule",
    "schedule_progress": "schedule_progress",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number:
    """One number of a table and where it stands."""

    probe: str
    subject: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    num_fewshot: int | None
    row: int


@dataclass(slots=True, kw_only=True)
class _Filing:
    """Checkpoints and numbers gathered row by row, with the row that told each."""

    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_row: dict[str, int] = field(default_factory=dict)
    numbers: dict[tuple[Any, ...], dict[str, _Number]] = field(default_factory=dict)
    empty: int = 0


def import_table(
    path: str | Path,
    store: Store,
    *,
    family: str,
    columns: Mapping[str, str],
    scores: Mapping[str, Target] | None = None,
    losses: Mapping[str, Target] | None = None,
) -> ImportReport:
    """File the numbers of a CSV, TSV or Parquet table.

    A checkpoint is a run and a step (tokens, where no step is given); the run's name is the
    model's with variant and seed unless a column tells it. A checkpoint of the same family,
    model, run and step that the store already holds gets the numbers; others are new. lm-eval's
    names of metrics become ours, every other name stays.

    Args:
        path: the table.
        store: not held for writing.
        family: of all models.
        columns: role to column. ``model`` is needed; run, seed, variant, stage, step, tokens,
            params, params_non_embedding, lr, schedule and schedule_progress describe a
            checkpoint; ``task``, ``metric`` and ``value`` with stderr, n and num_fewshot a number
            in the long form; ``loss`` with loss_stderr is short for
            ``losses={column: ("loss", "loss_nats_per_token")}``.
        scores: column of the wide form to task and metric.
        losses: column to subject and metric of a loss axis; the subject ``train_log`` makes it
            one of the training log.

    Returns:
        What was added, and how much is unknown or empty.

    Raises:
        BadRequest: a role or a loss metric is unknown, or nothing would be imported.
        BadData: a column is missing, a cell is no number or no fraction, or a number stands
            twice.
    """
    scores, losses = dict(scores or {}), dict(losses or {})
    if "loss" in columns:
        losses.setdefault(columns["loss"], ("loss", LOSS))
    check_roles(columns, scores, losses)
    _check_losses(losses)
    table = read_table(Path(path), columns, [*scores, *losses])
    known = store.checkpoints().filter(pl.col("family") == family).collect().to_dicts()
    filing = _Filing()
    for place in steps("reading rows", range(table.rows)):
        point = _adopt(_point(table, place, family), known)
        _add_point(filing, point, place, table)
        for number in _numbers(table, place, scores, losses, filing):
            _add_number(filing, point, number, table)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    cells = [_cell(filing, key, numbers, digest) for key, numbers in filing.numbers.items()]
    points = list(filing.points.values())
    with store.writing():
        filed = file_cells(store, points, cells)
        flagged = flag_identical(store)
    return dataclasses.replace(ImportReport.of(filed, points), empty=filing.empty, flagged=flagged)


def _check_losses(losses: Mapping[str, Target]) -> None:
    for column, (subject, metric) in losses.items():
        if metric not in {LOSS, BITS}:
            raise BadRequest(
                f"{metric!r} is no metric of a loss axis.",
                asked=f"{column} = {subject}:{metric}",
                nearest=f"{subject}:{LOSS}, {subject}:{BITS}",
                remedy="take one of these, or file a perplexity among the scores",
            )


def _point(table: Table, place: int, family: str) -> dict[str, Any]:
    facts = {name: table.get(role, place) for role, name in _FACTS.items()}
    model = table.get("model", place)
    if model is None:
        raise BadData(
            "a row names no model.", asked=table.where("model", place), remedy="fill it in"
        )
    variant, seed = facts["variant"], facts["seed"]
    parts = [model, variant, None if seed is None else f"seed{seed}"]
    run = table.get("run", place) or "-".join(str(p) for p in parts if p is not None)
    params, tokens = facts["params_total"], facts["tokens_seen"]
    step = facts["step"]
    at = f"step{step}" if step is not None else f"tokens{tokens}" if tokens is not None else "end"
    stage = facts["stage"]
    return {
        "family": family,
        "model": model,
        "run": run,
        **facts,
        "flops": 6.0 * params * tokens if params is not None and tokens is not None else None,
        "weights_hash": weights_hash("table", family, model, run, stage, at),
        "source": f"import:table:{model}/{run}@{f'{stage}:' if stage else ''}{at}",
    }


def _adopt(point: dict[str, Any], known: list[dict[str, Any]]) -> dict[str, Any]:
    """The point under the identity of the one checkpoint of its run and step, if there is one."""
    if point["step"] is None:
        return point
    same = [
        row
        for row in known
        if all(row[name] == point[name] for name in ("model", "run", "step"))
        and point["stage"] in (None, row["stage"])
        and row["weights_hash"] is not None
    ]
    if len(same) != 1:
        return point
    # what the store knows stands: it may have been read from the weights
    return {name: point.get(name) if old is None else old for name, old in same[0].items()}


def _add_point(filing: _Filing, point: dict[str, Any], place: int, table: Table) -> None:
    key = point["weights_hash"]
    before = filing.points.setdefault(key, point)
    first = filing.first_row.setdefault(key, place)
    for role, name in _FACTS.items():
        if before.get(name) != point.get(name):
            raise BadData(
                f"two rows of one checkpoint disagree on its {role}.",
                asked=f"{before.get(name)} in {table.where(role, first)}; "
                f"{point.get(name)} in {table.where(role, place)}",
                remedy="mend one of them, or tell the runs apart: a column for run, seed, variant",
            )


def _numbers(
    table: Table,
    place: int,
    scores: Mapping[str, Target],
    losses: Mapping[str, Target],
    filing: _Filing,
) -> Iterator[_Number]:
    shots, n = table.get("num_fewshot", place), table.get("n", place)
    wide = [(column, TASK_PROBE, target) for column, target in scores.items()]
    for column, (subject, metric) in losses.items():
        probe = LOG_PROBE if subject == LOG_PROBE else LOSS_PROBE
        wide.append((column, probe, (subject, metric)))
    if "value" in table.columns:
        task, metric = table.get("task", place), table.get("metric", place)
        if task is None or metric is None:
            raise BadData(
                "a row names no task or no metric.",
                asked=table.where("task" if task is None else "metric", place),
                remedy="fill it in, or leave the row out",
            )
        wide.append((table.columns["value"], TASK_PROBE, (task, metric)))
    for column, probe, (subject, metric) in wide:
        value = table.number(column, place)
        if value is None:
            filing.empty += 1
            continue
        metric = names.METRICS.get(metric, metric)
        check_fraction(metric, value, f"{column!r}, {table.row_name(place)}")
        is_long = column == table.columns.get("value") and column not in scores
        stderr = table.get("stderr", place) if is_long else None
        if column == table.columns.get("loss"):
            stderr = table.get("loss_stderr", place)
        yield _Number(
            probe=probe,
            subject=subject,
            metric=metric,
            value=value,
            stderr=stderr,
            n=n if is_long else None,
            num_fewshot=shots if probe == TASK_PROBE else None,
            row=place,
        )


def _add_number(filing: _Filing, point: dict[str, Any], number: _Number, table: Table) -> None:
    key = (point["weights_hash"], number.probe, number.subject, number.num_fewshot)
    numbers = filing.numbers.setdefault(key, {})
    before = numbers.setdefault(number.metric, number)
    # in the long form a checkpoint's loss is repeated on every row of it
    is_repeated = number.probe != TASK_PROBE and "value" in table.columns
    is_equal = (before.value, before.stderr) == (number.value, number.stderr)
    if before is not number and not (is_repeated and is_equal):
        raise BadData(
            f"{number.subject}:{number.metric} of one checkpoint stands twice: "
            f"{before.value:g} and {number.value:g}.",
            asked=f"{table.row_name(before.row)} and {table.row_name(number.row)} of {table.name}",
            remedy="drop one, or tell the checkpoints apart: a column for run, seed, step, "
            "num_fewshot",
        )


def _cell(
    filing: _Filing, key: tuple[Any, ...], numbers: Mapping[str, _Number], digest: str
) -> Finished:
    weights, probe, subject, shots = key
    settings = {"source": "table", "num_fewshot": shots, DIGEST: digest}
    rows = [
        {
            "metric": number.metric,
            "value": number.value,
            "stderr": number.stderr,
            "n": number.n,
            "unit": names.unit(number.metric),
        }
        for number in numbers.values()
    ]
    return Finished(
        cell=cell(filing.points[weights], probe, subject, settings),
        rows=rows,
        execution={"code_version": __version__},
    )
