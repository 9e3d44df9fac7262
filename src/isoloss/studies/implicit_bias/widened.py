"""Narrow models as points of the wide architecture, so that their traces can be compared.

The widened checkpoints stand beside the trained ones as a family of their own: the same language,
runs and steps, and the same function, so that they are measured like any other.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from isoloss.pretrain.families import FAMILY_FILE, LANGUAGE_FOLDER, read_family
from isoloss.store.files import write_bytes


def widen_family(trained: Path, out: Path, *, narrow: int, wide: int) -> int:
    """Write the last checkpoint of every narrow run of a family, widened.

    Those that are there already are kept, so that an interrupted study goes on.

    Args:
        trained: a folder that ``train_family`` wrote.
        out: receives a folder of the same kind; its runs have the names of the trained ones.
        narrow: width of the runs that are taken.
        wide: width that they are given.

    Returns:
        Checkpoints in ``out``.

    Raises:
        BadRequest: the architecture cannot be widened so.
    """
    from isoloss.pretrain.checkpoint import step_folder

    record = read_family(trained)
    runs = tuple(
        replace(run, checkpoint_steps=run.checkpoint_steps[-1:])
        for run in record.runs
        if run.settings["shape"]["width"] == narrow
    )
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(trained / record.language, out / LANGUAGE_FOLDER, dirs_exist_ok=True)
    for run in runs:
        step = run.checkpoint_steps[-1]
        target = step_folder(out / run.name, step)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            _widen(step_folder(trained / run.name, step), target, wide)
    widened = replace(
        record, name=out.name, language=LANGUAGE_FOLDER,
        runs=tuple(replace(run, model=f"{run.model}-as-w{wide}") for run in runs),
    )  # fmt: skip
    write_bytes(out / FAMILY_FILE, json.dumps(asdict(widened), indent=2).encode())
    return len(runs)


def _widen(source: Path, target: Path, width: int) -> None:
    from isoloss.family import Folder
    from isoloss.models.load import load
    from isoloss.models.widen import widen, wider_config
    from isoloss.pretrain.checkpoint import TrainingFacts, save_checkpoint

    loaded = load(Folder(path=source), dtype="float32", device="cpu")
    model = widen(loaded.model, wider_config(loaded.config, width=width))
    facts = json.loads((source / "training.json").read_text(encoding="utf-8"))
    save_checkpoint(target, model, loaded.tokenizer, TrainingFacts(**facts))
