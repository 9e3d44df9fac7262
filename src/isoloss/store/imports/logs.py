"""A training log as a loss axis: its running loss at every checkpoint of the run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss import __version__
from isoloss.errors import BadData
from isoloss.estimate import Estimate, mean
from isoloss.store.cell import Finished, Setting
from isoloss.store.imports import names
from isoloss.store.imports.filing import (
    DIGEST,
    WINDOW,
    ImportReport,
    cell,
    file_cells,
    weights_hash,
)
from isoloss.store.schema import LOG_PROBE
from isoloss.store.store import Store

MADE = 100
"""Checkpoints made from a log whose run has none in the store."""

_BLOCKS = 10
_SOURCE = "import:log:"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def put_training_log(
    store: Store,
    frame: pl.DataFrame,
    *,
    family: str,
    model: str,
    run: str | None = None,
    tokens_per_step: int | None = None,
    window: int = 100,
) -> ImportReport:
    """File a training log's loss beside every checkpoint of its run.

    Where the store holds no checkpoint of the run, about 100 are made at logarithmically spaced
    steps of the log. The value at a step is :func:`loss_at`; the whole curve is kept among the
    arrays of the last cell. A longer log of the same run replaces the shorter one's numbers.

    Args:
        store: not held for writing.
        frame: step and loss in nats per token; tokens_seen and lr where known.
        family: as in the store.
        model: as in the store.
        run: as in the store; the model's name where a model was trained once.
        tokens_per_step: where the log has no tokens.
        window: records to average over, at most.

    Returns:
        What was added; ``empty`` counts checkpoints outside the log.

    Raises:
        BadData: the frame lacks a column or holds no finite loss.
    """
    run = run or model
    log = _checked(frame)
    steps, loss = log["step"].to_numpy(), log["loss"].to_numpy()
    known = _of_run(store, family, model, run)
    made = [row for row in known if str(row["source"]).startswith(_SOURCE)]
    if len(known) == len(made):
        wanted = {int(s) for s in _spread(steps)} | {row["step"] for row in made}
        known = [_made(family, model, run, step) for step in sorted(wanted)]
    points = [_with_facts(row, log, tokens_per_step) for row in known]
    digest = hashlib.sha256(steps.tobytes() + loss.tobytes()).hexdigest()
    settings: dict[str, Setting] = {"source": "log", WINDOW: window, DIGEST: digest}
    cells: dict[str, Finished] = {}
    for point in points:
        here = loss_at(steps, loss, point["step"], window=window)
        # two steps of equal weights share their rows: the first one's loss stands for both
        if here is not None and point["weights_hash"] not in cells:
            cells[point["weights_hash"]] = Finished(
                cell=cell(point, LOG_PROBE, LOG_PROBE, settings),
                rows=[_row(here)],
                execution={"code_version": __version__},
            )
    with store.writing():
        done = list(cells.values())
        if done:
            store.put_arrays(done[-1].cell, {"step": steps, "loss": loss})
        filed = file_cells(store, points, done)
    return dataclasses.replace(
        ImportReport.of(filed, points),
        empty=len(points) - len(done),
        not_finite=int((~pl.Series(frame["loss"], dtype=pl.Float64).is_finite()).sum()),
    )


def loss_at(steps: Integers, loss: Floats, step: int, *, window: int) -> Estimate | None:
    """The running loss at a step: the mean of the last records up to it.

    The window never reaches back more than a tenth of the way, since the loss falls steeply at
    first. The standard error is that of ten blocks of consecutive records, which keeps their
    correlation inside the blocks; it is unknown for fewer than twenty records.

    Args:
        steps: ascending, (records,).
        loss: finite, (records,).
        step: where.
        window: records, at most.

    Returns:
        Nats per token with n records; None where the log does not reach the step.
    """
    end = int(np.searchsorted(steps, step, side="right"))
    spacing = int(np.median(np.diff(steps))) if len(steps) > 1 else 0
    if end == 0 or step - steps[end - 1] > spacing:
        return None
    start = max(end - window, int(np.searchsorted(steps, 0.9 * step, side="left")))
    records = loss[min(start, end - 1) : end]
    stderr = None
    if len(records) >= 2 * _BLOCKS:
        stderr = mean([block.mean() for block in np.array_split(records, _BLOCKS)]).stderr
    return Estimate(value=float(records.mean()), stderr=stderr, n=len(records))


def _checked(frame: pl.DataFrame) -> pl.DataFrame:
    missing = {"step", "loss"} - set(frame.columns)
    if not missing:
        columns = {"step": pl.Int64, "loss": pl.Float64, "tokens_seen": pl.Int64, "lr": pl.Float64}
        log = (
            frame.select(pl.col(name).cast(columns[name]) for name in columns if name in frame)
            .filter(pl.col("loss").is_finite())
            .sort("step")
            .unique("step", keep="last", maintain_order=True)
        )
        if log.height:
            return log
    raise BadData(
        "the training log holds no finite loss."
        if not missing
        else f"the training log has no column {sorted(missing)[0]!r}.",
        asked=f"columns {', '.join(frame.columns)}; {frame.height} records",
        remedy="name the columns of step and loss",
    )


def _of_run(store: Store, family: str, model: str, run: str) -> list[dict[str, Any]]:
    frame = store.checkpoints().filter(
        pl.col("family") == family,
        pl.col("model") == model,
        pl.col("run") == run,
        pl.col("step").is_not_null(),
        pl.col("weights_hash").is_not_null(),
    )
    return frame.sort("step").collect().to_dicts()


def _spread(steps: Integers) -> Integers:
    first = max(int(steps[0]), 1)
    wanted = np.geomspace(first, max(int(steps[-1]), first), MADE)
    places = np.searchsorted(steps, wanted.round()).clip(0, len(steps) - 1)
    return np.unique(steps[np.append(places, [0, len(steps) - 1])])


def _made(family: str, model: str, run: str, step: int) -> dict[str, Any]:
    size = names.size(model, is_pythia=family == names.PYTHIA)
    return {
        "family": family,
        "model": model,
        "run": run,
        "step": step,
        "params_total": size.total,
        "params_non_embedding": size.non_embedding,
        "weights_hash": weights_hash("log", family, model, run, step),
        "source": f"{_SOURCE}{run}@{step}",
    }


def _with_facts(
    row: Mapping[str, Any], log: pl.DataFrame, tokens_per_step: int | None
) -> dict[str, Any]:
    at = log.filter(pl.col("step") == row["step"]).row(0, named=True) if _has(log, row) else {}
    tokens = row.get("tokens_seen")
    if tokens is None:
        tokens = at.get("tokens_seen")
    if tokens is None and tokens_per_step is not None:
        tokens = row["step"] * tokens_per_step
    params = row.get("params_total")
    flops = 6.0 * params * tokens if params is not None and tokens is not None else None
    lr = at.get("lr") if row.get("lr") is None else row["lr"]
    return {
        **row,
        "params_total": params,
        "tokens_seen": tokens,
        "lr": lr,
        "flops": row.get("flops") if row.get("flops") is not None else flops,
    }


def _has(log: pl.DataFrame, row: Mapping[str, Any]) -> bool:
    return bool((log["step"] == row["step"]).any())


def _row(here: Estimate) -> dict[str, Any]:
    return {
        "metric": "loss_nats_per_token",
        "value": here.value,
        "stderr": here.stderr,
        "n": here.n,
        "unit": names.unit("loss_nats_per_token"),
    }
