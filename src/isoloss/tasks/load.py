"""From a name and a spec to a task, by what lies at its path."""

from __future__ import annotations

from isoloss.errors import BadRequest
from isoloss.tasks.bigbench import read_bigbench_task
from isoloss.tasks.jsonl import read_jsonl_task
from isoloss.tasks.mmlu import read_mmlu_task
from isoloss.tasks.published_task import read_published_task
from isoloss.tasks.spec import TaskSpec
from isoloss.tasks.task import Task


def load_task(
    name: str, spec: TaskSpec, *, published: str | None = None, expected: int | None = None
) -> Task:
    """Read a task: JSONL, BIG-Bench JSON, MMLU's CSVs, a published set, or lm-eval's of this name.

    Args:
        name: what the study calls it; lm-eval's name where the spec has no path.
        spec: where it lies and how to ask.
        published: a data set of ``isoloss.tasks.published``, fetched where the spec has no path.
        expected: documents the published set's files hold, where not the published number.

    Raises:
        BadData: the file cannot be read as what it claims to be.
        BadRequest: there is no reader for it, or a setting cannot apply.
    """
    if published is not None:
        return read_published_task(name, published, spec, expected=expected)
    if expected is not None:
        raise BadRequest(
            "documents is the number of documents of a published data set, and none is named.",
            asked=f"documents = {expected}",
            nearest=f"limit = {expected} draws as many",
            remedy="add published = NAME, or remove documents",
        )
    path = spec.path
    if path is None or path.suffix in (".yaml", ".yml"):
        # lm-eval is slow to import, and most studies do without
        from isoloss.tasks.harness import read_harness_task

        return read_harness_task(name, spec)
    if path.is_dir():
        return read_mmlu_task(name, path, spec)
    if path.suffix == ".jsonl":
        return read_jsonl_task(name, path, spec)
    if path.suffix == ".json":
        return read_bigbench_task(name, path, spec)
    raise BadRequest(
        f"No reader takes a task's file of type {path.suffix or 'unknown'}.",
        asked=f"path = {path}",
        nearest=".jsonl, .json (BIG-Bench), .yaml (lm-eval), a folder of MMLU CSV files",
        remedy="convert the file to JSONL, or leave path out for an lm-eval task",
    )
