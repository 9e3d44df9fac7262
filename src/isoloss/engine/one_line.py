"""The study that ``isoloss run --model ...`` means, written out as a study file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from isoloss.errors import BadRequest
from isoloss.places import url_of

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneLine:
    """The options of the form without a file; names as in lm-evaluation-harness.

    Attributes:
        models: folders of weights, folders or globs of checkpoints, or hub repositories.
        steps: a selection such as ``log:20``; None takes every checkpoint.
        revision: the hub revision or a pattern of named fields such as ``step{step}``.
        tasks: lm-eval names, or paths of JSONL, BIG-Bench JSON or MMLU folders.
        corpora: paths of texts.
        num_fewshot: examples in the prompt of every task.
        limit: documents of every task.
        include_path: folder of lm-eval YAML files.
        document: what separates the documents of the corpora.
        context: tokens of a window of the corpora.
        dtype: type of the arithmetic.
        device: where to compute.
    """

    models: Sequence[str]
    steps: str | None = None
    revision: str | None = None
    tasks: Sequence[str] = ()
    corpora: Sequence[str] = ()
    num_fewshot: int | None = None
    limit: float | None = None
    include_path: str | None = None
    document: str | None = None
    context: int | None = None
    dtype: str | None = None
    device: str | None = None

    def given(self) -> list[str]:
        """Names of the options that were set."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


def study_text(options: OneLine) -> str:
    """A study file equal to the options; paths are absolute, so it runs from anywhere.

    Args:
        options: what was asked for on the command line.

    Raises:
        BadRequest: there is nothing to measure, or a path does not exist.
    """
    if not options.tasks and not options.corpora:
        raise BadRequest(
            "there is nothing to measure.",
            asked=f"--model {' '.join(options.models)}",
            remedy="add --tasks a,b or --corpus FILE",
        )
    lines = ['name = "one-line"', "", "[run]"]
    lines += _keys(dtype=options.dtype, device=options.device)
    lines += ["", "[[family]]", 'name = "family"']
    for model in options.models:
        lines += ["", "  [[family.model]]", *(f"  {line}" for line in _model(model, options))]
    for corpus in options.corpora:
        path = _existing(corpus, "--corpus")
        lines += ["", f"[corpus.{_quoted(path.stem)}]"]
        lines += _keys(path=str(path), document=options.document, context=options.context)
    for task in options.tasks:
        path = Path(task)
        is_path = path.exists()
        lines += ["", f"[task.{_quoted(path.stem if is_path else task)}]"]
        lines += _keys(
            path=str(path.resolve()) if is_path else None,
            include_path=str(_existing(options.include_path, "--include-path"))
            if options.include_path and not is_path
            else None,
            num_fewshot=options.num_fewshot,
            limit=int(options.limit)
            if options.limit is not None and options.limit >= 1
            else options.limit,
        )
    lines += ["", *(["[probe.token_loss]"] if options.corpora else [])]
    lines += ["[probe.task_score]"] if options.tasks else []
    return "\n".join(lines) + "\n"


def _model(model: str, options: OneLine) -> list[str]:
    path = Path(model).expanduser()
    steps = options.steps if options.steps is None else _steps(options.steps)
    if url := url_of(model):
        return _keys(name=_name_in(url), checkpoints=_pattern_at(url), steps=steps)
    if (path / "config.json").is_file():
        return _keys(name=path.resolve().name, checkpoints=str(path.resolve()), steps=steps)
    if path.is_dir():
        pattern = str(path.resolve() / "*")
        return _keys(name=path.resolve().name, checkpoints=pattern, steps=steps)
    if any(c in model for c in "*?["):
        name = path.parent.resolve().name
        return _keys(name=name, checkpoints=str(Path.cwd() / path), steps=steps)
    if _HUB_ID.fullmatch(model) and not model.startswith((".", "/", "~")):
        revision = options.revision
        return _keys(name=model.rpartition("/")[2], hub=model, revision=revision, steps=steps)
    raise BadRequest(
        "there is no such model.",
        asked=f"--model {model}",
        remedy="give a folder with config.json, a folder or glob of checkpoints, or OWNER/NAME",
    )


def _name_in(url: str) -> str:
    """The last part of a URL that names something."""
    parts = [part for part in url.partition("://")[2].split("/") if not set("*?[") & set(part)]
    return parts[-1]


def _pattern_at(url: str) -> str:
    """What the checkpoints are at a URL: itself a checkpoint, or a folder of them."""
    if any(c in url for c in "*?["):
        return url
    from isoloss.places.remote import RemoteFolder

    return url if RemoteFolder(url).entry("config.json") else f"{url}/*"


def _steps(text: str) -> str | list[int]:
    numbers = text.replace(",", " ").split()
    return [int(n) for n in numbers] if all(n.isdigit() for n in numbers) else text


def _existing(path: str, option: str) -> Path:
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise BadRequest(
            "there is no such file.", asked=f"{option} {path}", remedy="check the path"
        )
    return found


def _keys(**values: object) -> list[str]:
    # JSON strings, numbers and lists are TOML too
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)
