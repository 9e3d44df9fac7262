"""Training logs of other people's loops as one table: step, tokens seen, loss, learning rate.

A log is appended to, and a restarted run writes steps again: the last record of a step counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.errors import BadData, DependencyMissing, nearest_name
from isoloss.store.broken_parquet import read_any_parquet
from isoloss.store.schema import Schema

_MOST_STEPS = 2**53  # beyond it float64 skips whole numbers

COLUMNS: Schema = {
    "step": pl.Int64,
    "tokens_seen": pl.Int64,
    "loss": pl.Float64,
    "lr": pl.Float64,
}
"""The columns of a training log; steps ascend, unknown is null."""

# names as _plain gives them: train/lm_loss, Train-LM loss and train_lm_loss are one
_USUAL = {
    "step": {"step", "steps", "global_step", "train_global_step", "iteration", "iter"},
    "tokens_seen": {
        "tokens",
        "tokens_seen",
        "train_tokens",
        "num_tokens",
        "n_tokens",
        "consumed_tokens",
        "consumed_train_tokens",
        "num_input_tokens_seen",
        "train_num_input_tokens_seen",
        "throughput_total_tokens",
    },
    "loss": {
        "loss",
        "lm_loss",
        "loss_train",
        "train_loss",
        "training_loss",
        "train_lm_loss",
        "lm_loss_training_lm_loss",
        "train_crossentropyloss",
    },
    "lr": {"lr", "learning_rate", "train_lr", "train_learning_rate"},
}
_KINDS = ".csv, .tsv, .jsonl, .parquet, trainer_state.json or TensorBoard event files"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingLog:
    """A training log, one row a step.

    Attributes:
        frame: columns :data:`COLUMNS`.
        names: which column of the log each of ours was read from, where there is one.
        notes: what was replaced, left out or is not finite.
    """

    frame: pl.DataFrame
    names: Mapping[str, str]
    notes: tuple[str, ...]


def read_training_log(
    path: str | Path,
    *,
    step: str | None = None,
    tokens_seen: str | None = None,
    loss: str | None = None,
    lr: str | None = None,
) -> TrainingLog:
    """Read a training log.

    CSV, TSV, JSON lines, Parquet, the ``trainer_state.json`` of transformers, TensorBoard event
    files, or a folder with event files or a ``trainer_state.json``; of Weights & Biases a run's
    history or a chart, saved as CSV. Records of a step are
    merged, later values over earlier ones, and steps without a loss (evaluations) left out. The
    loss is what the loop logged, in nats per token by convention. Transformers' ``train_loss``,
    the mean over the whole run written at its end, is no step's loss and is passed over.

    Args:
        path: file or folder.
        step: column of the step, where its name is none of the usual ones or several are there.
        tokens_seen: column of the training tokens consumed.
        loss: column of the training loss.
        lr: column of the learning rate.

    Returns:
        The table with its notes.

    Raises:
        BadData: the file cannot be read as what its name says, a column is missing or could be
            several (those there are named), or a value is no number.
        DependencyMissing: event files without the package ``tensorboard``.
    """
    file = Path(path).expanduser()
    raw = _read(file)
    asked = {"step": step, "tokens_seen": tokens_seen, "loss": loss, "lr": lr}
    names = {
        ours: name
        for ours, wanted in asked.items()
        if (name := _pick(raw.columns, ours, wanted, str(file))) is not None
    }
    return _tidy(
        pl.DataFrame({ours: _numbers(raw[name], str(file)) for ours, name in names.items()}),
        names,
        str(file),
    )


def _read(file: Path) -> pl.DataFrame:
    if file.is_dir():
        return _read_folder(file)
    if not file.is_file():
        names = [f.name for f in file.parent.iterdir()] if file.parent.is_dir() else []
        raise BadData(
            f"there is no training log at {file}.",
            nearest=nearest_name(file.name, names),
            remedy=f"name a file or folder: {_KINDS}",
        )
    if "tfevents" in file.name:
        return _event_files([file])
    try:
        match file.suffix.lower():
            case ".csv" | ".tsv":
                separator = "\t" if file.suffix.lower() == ".tsv" else ","
                # numbers are parsed below, where a bad one can be named
                return pl.read_csv(file, infer_schema=False, separator=separator)
            case ".parquet":
                return read_any_parquet(file)
            case ".jsonl" | ".ndjson":
                return _table(_json_lines(file))
            case ".json":
                return _table(_trainer_state(file))
    except (pl.exceptions.PolarsError, ValueError, RecursionError, OSError) as error:
        raise BadData(
            f"{file} cannot be read: {error}",
            remedy="mend the file, or write it again from the training loop's own log",
        ) from error
    raise BadData(
        "a training log of this kind is not known.", asked=str(file), remedy=f"give {_KINDS}"
    )


def _read_folder(folder: Path) -> pl.DataFrame:
    # names begin with the time of their making: restarts follow in order
    events = sorted(f for f in folder.iterdir() if "tfevents" in f.name)
    if events:
        return _event_files(events)
    if (folder / "trainer_state.json").is_file():
        return _read(folder / "trainer_state.json")
    raise BadData(
        f"the folder {folder} holds no training log.",
        asked="TensorBoard event files or a trainer_state.json",
        nearest=", ".join(sorted(f.name for f in folder.iterdir())[:5]) or "nothing",
        remedy=f"name the log itself: {_KINDS}",
    )


def _json_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not valid JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no JSON object")
        yield record


def _trainer_state(file: Path) -> Iterator[Mapping[str, Any]]:
    state = json.loads(file.read_text(encoding="utf-8"))
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise ValueError("there is no log_history in it, so it is no trainer_state.json")
    for record in history:
        yield {name: value for name, value in record.items() if name != "train_loss"}


def _table(records: Iterator[Mapping[str, Any]]) -> pl.DataFrame:
    rows = list(records)
    # as text, like CSV: loops also log numbers as strings
    return pl.DataFrame(
        {
            name: pl.Series([_text(row.get(name)) for row in rows], dtype=pl.String)
            for name in dict.fromkeys(name for row in rows for name in row)
        }
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _event_files(files: Sequence[Path]) -> pl.DataFrame:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise DependencyMissing(
            "TensorBoard event files need the package tensorboard.",
            asked=str(files[0]),
            remedy="pip install 'isoloss[tensorboard]'",
        ) from error
    steps: list[int] = []
    records: list[dict[str, float]] = []
    scalars: set[str] = set()
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            # TensorFlow 2 says what a tag is at its first value alone
            scalars |= {
                value.tag
                for value in event.summary.value
                if value.metadata.plugin_data.plugin_name == "scalars"
            }
            values = {
                value.tag: float(make_ndarray(value.tensor).reshape(()))
                for value in event.summary.value
                if value.tag in scalars
            }
            if values:
                steps.append(event.step)
                records.append(values)
    if not records:
        raise BadData(
            f"{files[0]} holds no scalars.",
            remedy="give the event files of the training run; a truncated one cannot be read",
        )
    tags = dict.fromkeys(tag for record in records for tag in record)
    columns = {tag: pl.Series([r.get(tag) for r in records], dtype=pl.Float64) for tag in tags}
    # an event knows its step; a tag that also calls itself so would be a second one
    others = {tag: column for tag, column in columns.items() if _plain(tag) not in _USUAL["step"]}
    return pl.DataFrame({"step": pl.Series(steps, dtype=pl.Int64), **others})


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _metric(column: str, columns: Sequence[str]) -> str:
    """What a column holds: a chart saved from Weights & Biases writes ``RUN - METRIC``."""
    return column.rpartition(" - ")[2] if f"{column}__MIN" in columns else column


def _pick(columns: Sequence[str], ours: str, wanted: str | None, where: str) -> str | None:
    if wanted is not None:
        if wanted not in columns:
            raise BadData(
                f"the training log has no column {wanted!r}.",
                asked=f"{ours} = {wanted!r}, {where}",
                nearest=nearest_name(wanted, columns) or ", ".join(columns),
                remedy=f"its columns are {', '.join(columns)}",
            )
        return wanted
    found = [name for name in columns if _plain(_metric(name, columns)) in _USUAL[ours]]
    if len(found) > 1 and ours == "step":
        # Weights & Biases counts its own calls in _step; a loop that logs its step means that one
        found = [name for name in found if name != "_step"]
    if len(found) > 1:
        raise BadData(
            f"several columns of the training log could be the {ours}.",
            asked=where,
            nearest=", ".join(found),
            remedy=f"name one: {ours} = {found[0]!r}",
        )
    if not found and ours in {"step", "loss"}:
        raise BadData(
            f"no column of the training log is called like a {ours}.",
            asked=where,
            nearest=f"its columns are {', '.join(columns) or 'none'}",
            remedy=f"name one: {ours} = COLUMN",
        )
    return found[0] if found else None


def _numbers(column: pl.Series, where: str) -> pl.Series:
    text = column.str.strip_chars() if column.dtype == pl.String else column
    if column.dtype == pl.String:
        text = text.replace("", None)
    try:
        numbers = text.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        numbers = pl.Series([None] * len(column), dtype=pl.Float64)  # a type no number is made of
    bad = (numbers.is_null() & text.is_not_null()).arg_true()
    if len(bad):
        raise BadData(
            f"the column {column.name!r} holds something that is no number.",
            asked=f"{column[bad[0]]!r} in record {bad[0] + 1}, {where}",
            remedy="mend that value (empty and nan are fine), or name another column",
        )
    return numbers


def _tidy(raw: pl.DataFrame, names: Mapping[str, str], where: str) -> TrainingLog:
    unplaced = int(raw.get_column("step").null_count())
    raw = raw.filter(pl.col("step").is_not_null())
    is_count = pl.col("step").is_between(0, _MOST_STEPS) & (
        pl.col("step") == pl.col("step").round()
    )
    if (broken := raw.filter(~is_count)).height:
        raise BadData(
            "a step is no whole number from 0 on.",
            asked=f"step {broken['step'][0]:g}, {where}",
            remedy="name the column that counts optimizer steps: step = COLUMN",
        )
    losses = raw.filter(pl.col("loss").is_not_null())
    if not losses.height:
        raise BadData(
            "the training log holds no loss at any step.",
            asked=f"column {names['loss']!r}, {where}",
            remedy="name the column of the training loss: loss = COLUMN",
        )
    merged = (
        raw.group_by("step")
        .agg(pl.all().drop_nulls().last())
        .filter(pl.col("loss").is_not_null())
        .sort("step")
    )
    absent = [pl.lit(None).alias(name) for name in COLUMNS if name not in merged.columns]
    # not strict: a token count of nan is unknown
    frame = merged.with_columns(absent).select(
        pl.col(name).cast(kind, strict=False) for name, kind in COLUMNS.items()
    )
    backwards = int((losses["step"].diff() < 0).sum())
    counts = {
        f"records replaced by a later one of the same step (steps go back {backwards} times)": (
            losses.height - frame.height
        ),
        "records without a step, left out": unplaced,
        "losses that are not finite": int((~frame["loss"].is_finite()).sum()),
    }
    notes = tuple(f"{count} {what}" for what, count in counts.items() if count)
    return TrainingLog(frame=frame, names=dict(names), notes=notes)
