"""Training runs as offline runs of Weights & Biases: every number over the training steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.errors import DependencyMissing
from isoloss.steps import steps
from isoloss.store.exports.written import Written, nothing_to_write
from isoloss.store.store import Store

_CONFIG = ("family", "model", "run", "seed", "variant", "params_total", "params_non_embedding",
           "schedule")  # fmt: skip
_ALONG = ("tokens_seen", "flops", "lr")
_RUN = ["family", "model", "run"]


def export_wandb(store: Store, out: Path, *, project: str = "isoloss") -> Written:
    """Write one offline run a training run; ``wandb sync OUT/wandb/offline-run-*`` uploads them.

    A value's key is ``PROBE/SUBJECT/METRIC``, with the shots where a task was asked with several;
    the last of several settings otherwise alike counts. Nothing is sent from here. A run's id is
    a digest of its names, so that a later export of the same run goes to the same place.

    Args:
        store: what to write.
        out: a folder; made where it is not there.
        project: under which they are filed.

    Raises:
        DependencyMissing: without the package ``wandb``.
        BadRequest: no checkpoint with a number has a step.
        DiskFull: there was no room.
    """
    try:
        import wandb
    except ImportError as error:
        raise DependencyMissing(
            "an export to Weights & Biases needs the package wandb.",
            asked="--to wandb",
            remedy="pip install 'isoloss[wandb]'",
        ) from error
    rows = store.measurements().filter(pl.col("step").is_not_null()).sort("step").collect()
    if not rows.height:
        raise nothing_to_write(store, "measurement with a step")
    out.mkdir(parents=True, exist_ok=True)
    rows = rows.with_columns(key=_keys(rows))
    numbers = checkpoints = runs = 0
    is_ours = wandb.run is None  # else the service that writes is also somebody else's
    for names, part in steps("writing runs", list(rows.group_by(_RUN, maintain_order=True))):
        first = part.row(0, named=True)
        run = wandb.init(
            project=project,
            name=f"{first['family']}/{first['run']}",
            id=hashlib.sha256(repr(names).encode()).hexdigest()[:16],
            mode="offline",
            dir=out,
            config={name: first[name] for name in _CONFIG if first[name] is not None},
            settings=wandb.Settings(
                # of this machine and its checkout nothing belongs to the numbers
                silent=True, console="off", disable_git=True, x_disable_stats=True,
                x_disable_meta=True, x_save_requirements=False, save_code=False,
            ),
            reinit="create_new",
        )  # fmt: skip
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        for _, here in part.group_by("step", maintain_order=True):
            values = _point(here)
            run.log(values)
            checkpoints += 1
            numbers += len(values) - sum(name in values for name in ("step", *_ALONG))
        run.finish()
        runs += 1
    if is_ours:
        wandb.teardown()  # files are whole when the service has ended
    return Written(
        out=str(out), files=runs, checkpoints=checkpoints, numbers=numbers,
        left_out=store.measurements().select(pl.len()).collect().item() - numbers,
    )  # fmt: skip


def _keys(rows: pl.DataFrame) -> pl.Series:
    shots = rows.group_by("probe", "subject").agg(several=pl.col("num_fewshot").n_unique() > 1)
    several = {(probe, subject) for probe, subject, many in shots.iter_rows() if many}
    return pl.Series([_key(row, several) for row in rows.iter_rows(named=True)])


def _key(row: Mapping[str, Any], several: set[tuple[str, str]]) -> str:
    key = f"{row['probe']}/{row['subject']}/{row['metric']}"
    asked = (row["probe"], row["subject"]) in several and row["num_fewshot"] is not None
    return f"{key}/{row['num_fewshot']}-shot" if asked else key


def _point(here: pl.DataFrame) -> dict[str, Any]:
    first = here.row(0, named=True)
    along = {name: first[name] for name in ("step", *_ALONG) if first[name] is not None}
    known = here.filter(pl.col("value").is_not_null())
    return {**along, **dict(zip(known["key"], known["value"], strict=True))}
