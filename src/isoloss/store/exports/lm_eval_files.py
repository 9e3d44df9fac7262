"""Scores as result files of lm-evaluation-harness, one checkpoint a folder, and their samples.

What the harness's format has no place for stands under a key of its own, ``isoloss``, that other
readers pass over: ``isoloss import lm-eval`` reads it back, so that every number returns.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from isoloss import __version__
from isoloss.steps import steps
from isoloss.store.exports.samples import sample_lines
from isoloss.store.exports.written import Written, nothing_to_write
from isoloss.store.files import read_parquet, slug, write_bytes, write_text
from isoloss.store.imports import names, own
from isoloss.store.schema import CHECKPOINT_KEY, TASK_PROBE
from isoloss.store.store import Store

# em and ppl are older names of the same
_THEIRS = {ours: theirs for theirs, ours in names.METRICS.items() if theirs not in {"em", "ppl"}}
_NEVER = "1970-01-01T00-00-00"
_SHARED = ("fewshot_seed", "dtype", "chat_template", "system_instruction", "limit")


@dataclass(slots=True)
class _File:
    """One result file: settings that all of its tasks share, and the tasks' rows."""

    shared: dict[str, Any]
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def export_lm_eval(store: Store, out: Path) -> Written:
    """Write scores in the harness's layout.

    ``OUT/FAMILY__RUN__stepN/results_DATE.json`` and ``samples_TASK_DATE.jsonl``, where documents
    are in the store. Two settings of one task, such as its shots, are two files. DATE is when the
    numbers were measured, so that the same store gives the same bytes. Metrics without a name in
    the harness are called ``isoloss/NAME``. Held-out losses are no task and are not written.

    Args:
        store: what to write.
        out: a folder; made where it is not there.

    Raises:
        BadRequest: the store holds no score.
        DiskFull: there was no room.
    """
    rows = _rows(store)
    if not rows.height:
        raise nothing_to_write(store, "score of a task")
    files = numbers = left_out = checkpoints = 0
    taken: set[str] = set()
    documents = store.place.part("items")
    points = list(rows.group_by(CHECKPOINT_KEY, maintain_order=True))
    for _, part in steps("writing checkpoints", points):
        point = part.row(0, named=True)
        folder = out / _free(_folder_name(point), taken)
        checkpoints += 1
        for place, file in enumerate(_files(part.to_dicts())):
            written = _Content(point, file)
            date = _date(file, place)
            write_text(folder / f"results_{date}.json", written.text())
            files, numbers = files + 1, numbers + written.numbers
            left_out += written.left_out
            for task, cell in file.tasks.items():
                items = documents / slug(task) / f"{cell[0]['cell']}.parquet"
                if items.exists():
                    lines = "".join(sample_lines(read_parquet(items)))
                    write_bytes(folder / f"samples_{slug(task)}_{date}.jsonl", lines.encode())
                    files += 1
    return Written(
        out=str(out), files=files, checkpoints=checkpoints, numbers=numbers, left_out=left_out
    )


def _rows(store: Store) -> pl.DataFrame:
    when = store.cells().select("cell", "measured_at")
    return (
        store.measurements()
        .filter(pl.col("probe") == TASK_PROBE)
        .join(when, on="cell", how="left")
        .sort(*CHECKPOINT_KEY, "num_fewshot", "subject", "cell", "metric", nulls_last=True)
        .collect()
    )


def _revision(point: Mapping[str, Any]) -> str:
    if point["step"] is None:
        return "main"
    stage = f"{point['stage']}-" if point["stage"] not in (None, "pretrain") else ""
    return f"{stage}step{point['step']}"


def _folder_name(point: Mapping[str, Any]) -> str:
    return slug(f"{point['family']}__{point['run']}__{_revision(point)}")


def _free(name: str, taken: set[str]) -> str:
    tries = (f"{name}-{i}" if i else name for i in range(len(taken) + 1))
    free = next(one for one in tries if one not in taken)
    taken.add(free)
    return free


def _files(rows: Sequence[dict[str, Any]]) -> Iterator[_File]:
    """Cells dealt out to files: one setting of a task a file, equal shared settings."""
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["cell"]].append(row)
    open_files: list[_File] = []
    for cell in cells.values():
        first = cell[0]
        extra = json.loads(first["extra"]) if first["extra"] else {}
        # one file for each number of examples, as the harness is called
        shared = {"num_fewshot": first["num_fewshot"]} | {
            name: first.get(name, extra.get(name)) for name in _SHARED
        }
        for file in open_files:
            if file.shared == shared and first["subject"] not in file.tasks:
                break
        else:
            file = _File(shared=shared)
            open_files.append(file)
        file.tasks[first["subject"]] = cell
    yield from open_files


def _date(file: _File, place: int) -> str:
    """A name's date, with the place of the file among its checkpoint's as microseconds."""
    measured = [row["measured_at"] for cell in file.tasks.values() for row in cell]
    latest = max((m for m in measured if m), default=None)
    try:
        stamp = datetime.fromisoformat(latest or "").strftime("%Y-%m-%dT%H-%M-%S")
    except ValueError:
        stamp = _NEVER
    return f"{stamp}.{place:06d}"


def _seconds(file: _File) -> float | None:
    measured = [row["measured_at"] for cell in file.tasks.values() for row in cell]
    try:
        return datetime.fromisoformat(max(m for m in measured if m)).timestamp()
    except ValueError:
        return None


class _Content:
    """The content of one result file."""

    def __init__(self, point: Mapping[str, Any], file: _File) -> None:
        self.numbers = self.left_out = 0
        self._point, self._file = point, file

    def text(self) -> str:
        tasks, shared, revision = self._file.tasks, self._file.shared, _revision(self._point)
        firsts = {task: cell[0] for task, cell in tasks.items()}
        # more documents than one number has: the others leave some out
        counts = {t: max((r["n"] or 0 for r in cell), default=0) for t, cell in tasks.items()}
        content = {
            "results": {task: self._scores(task, cell) for task, cell in tasks.items()},
            "group_subtasks": {task: [] for task in tasks},
            "versions": {task: row["task_version"] for task, row in firsts.items()},
            "n-shot": {task: row["num_fewshot"] for task, row in firsts.items()},
            "n-samples": {t: {"original": n, "effective": n} for t, n in counts.items() if n},
            "config": {
                "model": "hf",
                "model_args": {"pretrained": self._pretrained(), "revision": revision},
                "model_num_parameters": self._point["params_total"],
                "model_dtype": shared["dtype"],
                "model_revision": revision,
                "limit": shared["limit"],
                "fewshot_seed": shared["fewshot_seed"],
            },
            "date": _seconds(self._file),
            "model_source": "hf",
            "model_name": self._pretrained(),
            "chat_template_sha": shared["chat_template"],
            "system_instruction_sha": shared["system_instruction"],
            own.KEY: {
                "version": __version__,
                "checkpoint": _known(self._point, own.FACTS),
                "settings": {task: _known(row, own.SETTINGS) for task, row in firsts.items()},
                "n": {t: {r["metric"]: r["n"] for r in cell} for t, cell in tasks.items()},
            },
        }
        return json.dumps(content, indent=1, ensure_ascii=True) + "\n"

    def _pretrained(self) -> str:
        parts = (str(self._point[key]) for key in ("family", "run"))
        return "/".join(part.replace("/", "_").replace("\\", "_") for part in parts)

    def _scores(self, task: str, cell: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {"alias": task}
        for row in cell:
            name, kind = _their_name(row["metric"])
            if name.endswith("_stderr") or "," in name or row["value"] is None:
                self.left_out += 1
                continue
            error = row["stderr"]
            result[f"{name},{kind}"] = row["value"]
            result[f"{name}_stderr,{kind}"] = "N/A" if error is None else error
            self.numbers += 1
        return result


def _their_name(metric: str) -> tuple[str, str]:
    """The harness's name of one of our metrics, and its filter.

    >>> _their_name("accuracy_per_char"), _their_name("lm_eval/f1"), _their_name("margin")
    (('acc_norm', 'none'), ('f1', 'none'), ('isoloss/margin', 'none'))
    >>> _their_name("exact_match/flexible-extract")
    ('exact_match', 'flexible-extract')
    """
    theirs, _, kind = metric.removeprefix("lm_eval/").partition("/")
    if metric.startswith("lm_eval/"):
        return theirs, kind or "none"
    if theirs in _THEIRS:
        return _THEIRS[theirs], kind or "none"
    return f"{own.PREFIX}{metric}", "none"


def _known(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in columns if row[name] is not None}
