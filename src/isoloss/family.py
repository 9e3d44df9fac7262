"""Families of checkpoints: who trained what, how far, and where the weights lie.

The unit of replication is the run: one optimisation trajectory. Laws cluster by it.
Unknown facts are None and are counted in the report, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoloss.places import shown
from isoloss.shown import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Weights on disk, in Hugging Face format."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Weights in a hub repository at one revision; ``commit`` pins it once resolved."""

    repo: str
    revision: str
    commit: str | None = None

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Weights on disk in a trainer's own format, made a Hugging Face folder while needed.

    Attributes:
        path: the checkpoint, a folder or a file.
        command: what converts it, as words with ``{src}`` and ``{dst}``; None where isoloss reads
            the format itself.
        started_in: the folder in which the command is started.
        config: folder with the ``config.json`` that is taken; None for the one that is there.
        tokenizer: folder with the tokenizer that is taken; None likewise.
    """

    path: Path
    command: tuple[str, ...] | None = None
    started_in: Path | None = None
    config: Path | None = None
    tokenizer: Path | None = None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """No weights at hand: the numbers come from someone's file."""

    file: str

    def __str__(self) -> str:
        return f"import:{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Weights in a folder at a URL, in Hugging Face format; the URL may hold a login."""

    url: str

    def __str__(self) -> str:
        return shown(self.url)

    def __repr__(self) -> str:
        return f"Remote(url={shown(self.url)!r})"


Source = Folder | Hub | Foreign | Remote | Imported


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One architecture and size of a family, such as pythia-70m."""

    family: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One optimisation trajectory of a model."""

    model: Model
    name: str
    seed: int | None = None
    variant: str | None = None
    schedule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One set of weights along a run.

    Attributes:
        run: the trajectory it lies on.
        source: where its weights are.
        step: optimizer steps done.
        tokens_seen: training tokens consumed.
        stage: pretrain, anneal, midtrain or posttrain.
        parent: name of the checkpoint this one was branched from.
        lr: learning rate at this step.
        schedule_progress: fraction of the schedule done, 0 to 1; 1 is a finished run.
    """

    run: Run
    source: Source
    step: int | None = None
    tokens_seen: int | None = None
    stage: str | None = None
    parent: str | None = None
    lr: float | None = None
    schedule_progress: float | None = None

    @property
    def name(self) -> str:
        """A readable name, unique within a study.

        >>> run = Run(model=Model(family="f", name="70m"), name="70m-seed1")
        >>> Checkpoint(run=run, source=Imported(file="x"), step=10).name
        'f/70m-seed1@10'
        """
        at = "?" if self.step is None else str(self.step)
        stage = f"{self.stage}:" if self.stage not in (None, "pretrain") else ""
        return f"{self.run.model.family}/{self.run.name}@{stage}{at}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Family(Shown):
    """Checkpoints that belong together, ordered by run and step."""

    name: str
    checkpoints: tuple[Checkpoint, ...]

    def shown_facts(self) -> list[tuple[str, object]]:
        """The name, and how many of what."""
        return [("name", self.name), ("runs", [run.name for run in self.runs]),
                ("checkpoints", len(self.checkpoints))]  # fmt: skip

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs in order of first appearance."""
        return tuple(dict.fromkeys(c.run for c in self.checkpoints))
