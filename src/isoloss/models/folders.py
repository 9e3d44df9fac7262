"""Checkpoints as folders on disk: which step each one is, and what its trainer wrote beside it."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoloss.errors import BadCheckpoint, CheckpointMissing, nearest_name

_STEP = re.compile(r"(?:step|checkpoint|iter(?:ation)?)[-_=]?(\d+)", re.IGNORECASE)
_INTEGER = re.compile(r"\d+")
TRAINER_STATE = "trainer_state.json"
FACT_FILES = ("training.json", TRAINER_STATE)
"""What trainers write about a checkpoint beside it, the first of them that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """A folder of weights with what its name and its ``training.json`` say; unknown is None.

    Attributes:
        path: the folder.
        step: optimizer steps done.
        tokens_seen: training tokens consumed.
        loss_nats_per_token: training loss at this step.
        lr: learning rate at this step.
        schedule_progress: fraction of the schedule done, 0 to 1.
    """

    path: Path
    step: int | None = None
    tokens_seen: int | None = None
    loss_nats_per_token: float | None = None
    lr: float | None = None
    schedule_progress: float | None = None


def step_in_name(name: str) -> int | None:
    """The step in a folder's name: after "step" or "checkpoint", else its last integer.

    >>> [step_in_name(n) for n in ("step-00001000", "checkpoint-500", "step10-tokens4B", "main")]
    [1000, 500, 10, None]
    """
    named = _STEP.findall(name)
    numbers = named or _INTEGER.findall(name)
    return int(numbers[-1]) if numbers else None


def read_facts(path: Path) -> FolderFacts:
    """What is known about a checkpoint, from the first of ``FACT_FILES`` there, else its name.

    Raises:
        BadCheckpoint: one of these files is there and is not what a trainer writes.
    """
    file = next((path / name for name in FACT_FILES if (path / name).exists()), None)
    if file is None:
        return FolderFacts(path=path, step=step_in_name(path.name))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unread(path, file.name, str(file), error) from error
    return parse_facts(path, file.name, text, str(file))


def parse_facts(path: Path, name: str, text: str, where: str) -> FolderFacts:
    """What one of ``FACT_FILES`` says.

    Args:
        path: the checkpoint's folder.
        name: of the file.
        text: what stands in it.
        where: the file, for messages.

    Raises:
        BadCheckpoint: it is not what a trainer writes.
    """
    try:
        data = json.loads(text)
        if name == TRAINER_STATE:
            data = _of_trainer(data)
        step = _number(data, "step")
        tokens = _number(data, "tokens_seen")
        return FolderFacts(
            path=path,
            step=step_in_name(path.name) if step is None else int(step),
            tokens_seen=None if tokens is None else int(tokens),
            loss_nats_per_token=_number(data, "loss"),
            lr=_number(data, "lr"),
            schedule_progress=_number(data, "schedule_progress"),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise _unread(path, name, where, error) from error


def _unread(path: Path, name: str, where: str, error: Exception) -> BadCheckpoint:
    return BadCheckpoint(
        f"cannot read {name} of the checkpoint {path.name}: {error}",
        asked=where,
        remedy="mend or remove this file; it holds step, tokens_seen, loss, lr and"
        " schedule_progress as numbers or null",
    )


def _of_trainer(state: dict[str, Any]) -> dict[str, Any]:
    """``trainer_state.json`` in the words of ``training.json``."""
    step, last = state.get("global_step"), state.get("max_steps")
    logged = [entry for entry in state.get("log_history") or [] if entry.get("step") == step]
    latest = {key: value for entry in logged for key, value in entry.items()}
    return {
        "step": step,
        # 0 where the trainer was not told to count them
        "tokens_seen": state.get("num_input_tokens_seen") or None,
        "loss": latest.get("loss"),
        "lr": latest.get("learning_rate"),
        "schedule_progress": step / last if step is not None and last else None,
    }


def find_folders(pattern: str | Path, *, files: bool = False) -> tuple[FolderFacts, ...]:
    """The folders and the ``.ckpt`` files a glob matches, by step.

    Args:
        pattern: such as ``runs/7b/step-*``; hidden and unfinished folders do not match.
        files: take files of any name too.

    Returns:
        The facts of each, those without a step first.

    Raises:
        CheckpointMissing: no folder matches; the folders that are there are named.
        BadCheckpoint: see :func:`read_facts`.
    """
    text = str(Path(pattern).expanduser())
    matches = [Path(match) for match in glob.glob(text)]
    paths = [p for p in matches if p.is_dir() or p.is_file() and (files or p.suffix == ".ckpt")]
    if not paths:
        raise _no_folder(Path(text))
    facts = [read_facts(path) for path in paths]
    return tuple(sorted(facts, key=lambda f: (-1 if f.step is None else f.step, str(f.path))))


def _no_folder(pattern: Path) -> CheckpointMissing:
    parent = pattern.parent
    there = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    near = nearest_name(pattern.name, there)
    listed = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    return CheckpointMissing(
        f"no folder matches {pattern}.",
        asked=str(pattern),
        nearest=near or listed or None,
        remedy="check the path: it is relative to the study file, and * stands for any text",
    )


def _number(data: dict[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{key} is {value!r}, not a number")
    return value
