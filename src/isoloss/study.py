"""The study: what to measure on which family, as a TOML file and as a frozen object."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from isoloss.config import Part, check, parse, parse_bytes, parse_seconds, read
from isoloss.errors import BadStudy
from isoloss.shown import Shown
from isoloss.study_probes import ProbesSpec, Steps, selection

_OF_LANGUAGE = re.compile(r"[ABC]|task-[1-9]\d*")


class Settings(Part):
    """How to compute, never what: of these only dtype and threads enter a cell."""

    device: str = "auto"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    memory_budget: str = "1GiB"
    threads: int = Field(default=2, ge=1)
    cache_budget: str = "50GiB"
    cell_timeout: str | None = None

    @field_validator("memory_budget", "cache_budget")
    @classmethod
    def _is_size(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @field_validator("cell_timeout")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_seconds(value)
        return value

    @property
    def cell_seconds(self) -> float | None:
        """The longest that a cell may take; None for as long as it takes."""
        return None if self.cell_timeout is None else parse_seconds(self.cell_timeout)


class CheckpointSpec(Part):
    """One folder of weights with what is known about it."""

    path: str
    step: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    lr: float | None = None
    schedule_progress: float | None = Field(default=None, ge=0, le=1)
    stage: str | None = None
    parent: str | None = None


class ModelSpec(Part):
    """The checkpoints of one run, on disk in any format or in a hub repository."""

    name: str
    run: str | None = None
    seed: int | None = None
    variant: str | None = None
    stage: str | None = None
    parent: str | None = None
    schedule: str | None = None
    checkpoints: str | list[CheckpointSpec] | None = None
    hub: str | None = None
    revision: str = "main"
    steps: Steps = "all"
    tokens_per_step: int | None = Field(default=None, ge=1)
    train_log: str | None = None
    convert: str | None = None
    config: str | None = None
    tokenizer: str | None = None

    _check_steps = field_validator("steps")(selection)

    @field_validator("convert")
    @classmethod
    def _is_command(cls, value: str) -> str:
        if not all(any(n in word for word in shlex.split(value)) for n in ("{src}", "{dst}")):
            raise ValueError("the command needs {src}, a checkpoint, and {dst}, a folder to fill")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if (self.checkpoints is None) == (self.hub is None):
            raise ValueError(f"model '{self.name}' needs either checkpoints or hub, and not both")
        if self.hub is None and "revision" in self.model_fields_set:
            raise ValueError("revision applies to a hub repository; folders are named by a glob")
        if self.hub is not None and (self.convert or self.config or self.tokenizer):
            raise ValueError("convert, config and tokenizer apply to checkpoints on disk")
        return self


class FamilySpec(Part):
    """Models that belong together, or the folder that ``isoloss pretrain`` wrote."""

    name: str | None = None
    model: list[ModelSpec] = []
    pretrained: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> FamilySpec:
        if self.pretrained is None and (self.name is None or not self.model):
            raise ValueError("a family needs a name and a [[family.model]], or pretrained")
        if self.pretrained is not None and self.model:
            raise ValueError("a pretrained family brings its own models")
        return self


class CorpusSpec(Part):
    """A text on which losses are measured, and how it is read."""

    path: str | None = None
    dataset: str | None = None
    text_key: str = "text"
    document: str = "file"
    context: int | None = Field(default=None, ge=2)
    stride: int | None = Field(default=None, ge=1)
    bos: bool | Literal["auto"] = "auto"
    tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> CorpusSpec:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a corpus needs either path or dataset")
        if self.context and self.stride and self.stride > self.context:
            raise ValueError("stride cannot exceed context: tokens between windows would be lost")
        return self


class TaskSpec(Part):
    """An ability: where its documents are and how they are asked."""

    path: str | None = None
    published: str | None = None
    documents: int | None = Field(default=None, ge=1)
    include_path: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0)
    fewshot_seed: int = 1234
    fewshot_path: str | None = None
    limit: int | float | None = Field(default=None, gt=0)
    sample: Literal["seeded", "first"] = "seeded"
    form: Literal["cloze", "letters", "open", "cot"] | None = None
    delimiter: str = " "
    until: list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    allow_task_code: bool = False


class LabelledSpec(Part):
    """Labelled texts in JSON lines; a test file, or a part of the one file."""

    path: str
    test: str | None = None
    limit: int | None = Field(default=None, ge=8)


class TaskAxisSpec(Part):
    """A task's perplexity as a stand-in for the loss, drawn as its logarithm."""

    task: str
    metric: Literal["perplexity"] = "perplexity"
    transform: Literal["ln"] = "ln"


class AxisSpec(Part):
    """The loss axis: a corpus by name, ``SUBJECT:METRIC``, ``train_log``, or a task's metric."""

    loss: str | TaskAxisSpec

    @property
    def name(self) -> str:
        """The axis as ``--loss`` takes it."""
        if isinstance(self.loss, str):
            return self.loss
        return f"{self.loss.task}:{self.loss.metric}"


class Study(Shown, Part):
    """What to measure on which family.

    Load one with :meth:`load`; paths in it are relative to its file.
    """

    name: str
    seed: int = 0
    run: Settings = Settings()
    family: list[FamilySpec] = Field(min_length=1)
    corpus: dict[str, CorpusSpec] = {}
    task: dict[str, TaskSpec] = {}
    labelled: dict[str, LabelledSpec] = {}
    probe: ProbesSpec = ProbesSpec()
    axis: AxisSpec | None = None

    _folder: Path = PrivateAttr(default_factory=Path)
    _text: str = PrivateAttr(default="")

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Study:
        """Read a study file.

        Args:
            path: the TOML file.
            overrides: ``KEY=VALUE`` settings that go before the file's, keys dotted, values TOML.

        Returns:
            The checked study.

        Raises:
            BadStudy: the file, a key or a value is wrong; the line is named.
        """
        file = Path(path)
        return cls.from_text(read(file), folder=file.parent, source=file.name, overrides=overrides)

    @classmethod
    def from_text(
        cls, text: str, *, folder: Path, source: str = "study.toml", overrides: Sequence[str] = ()
    ) -> Study:
        """Read a study from TOML text whose paths are relative to ``folder``; see :meth:`load`."""
        data = parse(text, source=source)
        for override in overrides:
            _override(data, override)
        study = check(data, cls, text=text, source=source)
        study._folder, study._text = folder.resolve(), text
        study._check_subjects(source)
        return study

    def shown_facts(self) -> list[tuple[str, object]]:
        """What is measured on what."""
        models = [model.name for family in self.family for model in family.model]
        trained = [family.pretrained for family in self.family if family.pretrained]
        probes = [name for name, spec in self.probe if spec is not None]
        axis = None if self.axis is None else self.axis.name
        return [("name", self.name), ("models", models + trained), ("corpora", list(self.corpus)),
                ("tasks", list(self.task)), ("probes", probes), ("loss", axis)]  # fmt: skip

    @property
    def text(self) -> str:
        """The file as given."""
        return self._text

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        return self._folder

    def without_code(self) -> Study:
        """The study without what would run other programs: of a store that came from elsewhere.

        Commands that convert checkpoints are dropped, and tasks may not bring code of their own.
        """
        families = [
            part.model_copy(
                update={"model": [m.model_copy(update={"convert": None}) for m in part.model]}
            )
            for part in self.family
        ]
        tasks = {n: t.model_copy(update={"allow_task_code": False}) for n, t in self.task.items()}
        return self.model_copy(update={"family": families, "task": tasks})

    def path(self, relative: str) -> Path:
        """A path of the study file made absolute."""
        return self._folder / Path(relative).expanduser()

    def _check_subjects(self, source: str) -> None:
        if self.axis and isinstance(self.axis.loss, str):
            subject = self.axis.loss.partition(":")[0]
            if subject not in {*self.corpus, "train_log"}:
                raise BadStudy(
                    f"axis.loss: there is no [corpus.{subject}] in the study.",
                    asked=f"{self.axis.loss!r}, {source}",
                    nearest=", ".join([*self.corpus, "train_log"]),
                    remedy="name a corpus, SUBJECT:METRIC, train_log, or { task = NAME }",
                )
        wanted: list[tuple[str, str | list[str] | None, Mapping[str, object], str]] = []
        for name in ("token_loss", "fisher_trace", "hessian_trace", "anisotropy", "head_spectrum"):
            if spec := getattr(self.probe, name):
                wanted.append((name, spec.corpus, self.corpus, "corpus"))
        if task_spec := self.probe.task_score:
            wanted.append(("task_score", task_spec.task, self.task, "task"))
        if transfer := self.probe.transfer:  # its other names are tasks of a language
            labelled = [name for name in transfer.names if not _OF_LANGUAGE.fullmatch(name)]
            wanted.append(("transfer", labelled, self.labelled, "labelled"))
        for probe, names, known, kind in wanted:
            for name in [names] if isinstance(names, str) else names or []:
                if name not in known:
                    raise BadStudy(
                        f"probe.{probe}.{kind}: there is no [{kind}.{name}] in the study.",
                        asked=f"{name!r}, {source}",
                        nearest=", ".join(known) or f"no {kind} at all",
                        remedy=f"add [{kind}.{name}], or drop the name",
                    )


def _override(data: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise BadStudy(
            "a setting is written KEY=VALUE.",
            asked=override,
            remedy="for example --set run.dtype=bfloat16 or --set corpus.wikitext.tokens=1000",
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value  # a bare word is a string, as on any command line
    here: Any = data
    *path, last = [int(p) if p.isdigit() else p for p in key.strip().split(".")]
    try:
        for part in path:
            here = here[part] if isinstance(part, int) else here.setdefault(part, {})
        here[last] = parsed
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise BadStudy(
            f"the study has no place called {key}.",
            asked=override,
            remedy="count lists from 0: --set family.0.name=other",
        ) from error
