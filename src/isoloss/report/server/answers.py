"""What the server answers, with types and units: its OpenAPI description is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """An answer: unknown is null."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """Why a request could not be answered, and what to do."""

    error: Annotated[str, Field(description="Its class, such as BadRequest or BadStore.")]
    what: Annotated[str, Field(description="What is wrong, in one sentence.")]
    asked: Annotated[str | None, Field(description="The value received.")] = None
    nearest: Annotated[str | None, Field(description="The nearest thing that works.")] = None
    remedy: Annotated[str, Field(description="What to do.")]


class Failure(Answer):
    """A cell, or a whole checkpoint, that could not be measured."""

    cell: str
    checkpoint: str
    probe: Annotated[str | None, Field(description="Null for a whole checkpoint.")]
    subject: Annotated[str | None, Field(description="The corpus or task.")]
    error: str
    reason: str
    remedy: str
    failed_at: Annotated[str, Field(description="UTC, ISO 8601.")]


class Process(Answer):
    """A process that measures, or that was killed while it did."""

    host: str
    process: Annotated[int, Field(description="Its number on its machine.")]
    is_there: Annotated[bool, Field(description="False where it was killed.")]
    study: str
    seconds: Annotated[float, Field(description="Since it began, s.")]
    done: Annotated[int, Field(description="Cells measured.")]
    failed: Annotated[int, Field(description="Cells and checkpoints that could not be.")]
    cells_per_minute: Annotated[float | None, Field(description="Over its last cells, 1/min.")]
    checkpoint: Annotated[str | None, Field(description="What it measures now.")]
    checkpoint_seconds: Annotated[float | None, Field(description="For how long, s.")]
    note: Annotated[str | None, Field(description="What it told last.")]


class Status(Answer):
    """How far a run is."""

    run: Annotated[str, Field(description="Its name in addresses.")]
    title: Annotated[str, Field(description="Its folder's name.")]
    state: Annotated[
        Literal["running", "stopped", "idle"],
        Field(description="stopped: a process was killed, and the run can go on."),
    ]
    checkpoints: Annotated[int | None, Field(description="In the store.")]
    cells: Annotated[int | None, Field(description="Measured, in the store.")]
    total: Annotated[int | None, Field(description="Of the study; null where nobody runs.")]
    done: Annotated[int | None, Field(description="Of the study, in the store.")]
    pending: Annotated[int | None, Field(description="Left to measure; null where nobody runs.")]
    failed: Annotated[int | None, Field(description="Failures that stand.")]
    flagged: Annotated[int | None, Field(description="Checkpoints that look wrong.")]
    cells_per_minute: Annotated[float | None, Field(description="Of all processes, 1/min.")]
    tokens_per_second: Annotated[
        float | None, Field(description="Of the last corpora read, of one process, 1/s.")
    ]
    seconds_left: Annotated[float | None, Field(description="pending at this rate, s.")]
    measured_at: Annotated[str | None, Field(description="The last cell, UTC, ISO 8601.")]
    processes: list[Process]
    failures: Annotated[list[Failure], Field(description="The latest five.")]
    page: Annotated[str | None, Field(description="Version of page-data; null before the first.")]
    laws: Annotated[
        Literal["off", "waiting", "being asked", "behind", "up to date"],
        Field(description="Whether what the laws say is about the store as it is."),
    ]
    problem: Annotated[Problem | None, Field(description="Why the store cannot be read now.")]


class RunList(Answer):
    """The runs that are served."""

    runs: list[Status]


class Checkpoint(Answer):
    """A checkpoint of the store."""

    name: Annotated[str, Field(description="As on the page, LABEL@STEP; compare takes it.")]
    label: Annotated[str, Field(description="Of its run, on the page.")]
    family: str | None
    model: str | None
    run: str | None
    seed: int | None
    variant: Annotated[str | None, Field(description="Data or recipe.")]
    stage: Annotated[str | None, Field(description="pretrain, anneal, midtrain or posttrain.")]
    parent: str | None
    step: int | None
    tokens_seen: Annotated[int | None, Field(description="Training tokens.")]
    params_total: int | None
    params_non_embedding: int | None
    flops: Annotated[float | None, Field(description="6 N D with N the total parameters.")]
    lr: Annotated[float | None, Field(description="Learning rate.")]
    schedule: str | None
    schedule_progress: Annotated[float | None, Field(description="0 to 1.")]
    weights_hash: str | None
    source: Annotated[str | None, Field(description="Where the weights are.")]
    commit: str | None
    is_flagged: Annotated[bool, Field(description="It looks wrong: laws leave it out.")]
    flags: Annotated[str | None, Field(description="Why.")]


class Measurement(Answer):
    """A number of one cell at one checkpoint."""

    checkpoint: Annotated[str | None, Field(description="As on the page; null if newer than it.")]
    family: str | None
    model: str | None
    run: str | None
    stage: str | None
    step: int | None
    tokens_seen: Annotated[int | None, Field(description="Training tokens.")]
    probe: str
    subject: Annotated[str, Field(description="The corpus or task.")]
    metric: str
    value: Annotated[float | None, Field(description="In ``unit``; null where not finite.")]
    stderr: Annotated[float | None, Field(description="In ``unit``; null where unknown.")]
    n: Annotated[int | None, Field(description="Documents, tokens or draws.")]
    unit: str | None
    num_fewshot: int | None
    form: str | None
    cell: str


class Listed(Answer):
    """How much of a list this is."""

    total: Annotated[int, Field(description="Rows that fit the filter.")]
    offset: int
    limit: int


class Checkpoints(Listed):
    """A part of the checkpoints."""

    rows: list[Checkpoint]


class Measurements(Listed):
    """A part of the measurements."""

    rows: list[Measurement]


class Failures(Listed):
    """A part of the failures."""

    rows: list[Failure]


class Compared(Answer):
    """Two checkpoints on one task or corpus. The difference is b less a."""

    task: Annotated[str, Field(description="Task or corpus.")]
    setting: Annotated[str, Field(description="How it was asked or read.")]
    metric: str
    a: Annotated[float | None, Field(description="Over the documents that both were asked.")]
    b: float | None
    difference: Annotated[float | None, Field(description="b less a.")]
    low: Annotated[float | None, Field(description="Lower end of its interval.")]
    high: float | None
    n: Annotated[int, Field(description="Documents.")]
    p: Annotated[float | None, Field(description="Tasks: after Holm's correction.")]
    paired: Annotated[bool, Field(description="Taken document by document.")]
    verdict: Annotated[
        Literal["a is higher", "b is higher", "equal", "undetermined"],
        Field(description="equal: a loss whose interval lies inside 0.01 nats either way."),
    ]


class Comparison(Answer):
    """Two checkpoints on everything that both were measured on."""

    a: str
    b: str
    level: Annotated[float, Field(description="Of all intervals.")]
    rows: list[Compared]
    notes: Annotated[list[str], Field(description="What was skipped, and why.")]


class Rows(Answer):
    """Rows of a query."""

    rows: list[dict[str, Any]]
    is_cut: Annotated[bool, Field(description="There are more rows than the limit.")]


class FigureName(Answer):
    """A figure of the page."""

    id: Annotated[str, Field(description="series-N or curve-N, its anchor on the page.")]
    title: str
    detail: Annotated[str, Field(description="Setting.")]
    metrics: list[str]
    sql: Annotated[str, Field(description="The query of its table.")]


class Figures(Answer):
    """The figures of the page, and what may stand on their x."""

    figures: list[FigureName]
    axes: Annotated[dict[str, str], Field(description="Key to title with unit.")]


class FigurePoint(Answer):
    """A point of a figure."""

    checkpoint: str
    run: Annotated[str, Field(description="Its label on the page.")]
    x: Annotated[float, Field(description="In the axis's unit.")]
    y: Annotated[float, Field(description="In the metric's unit.")]
    stderr: float | None
    is_flagged: bool
    is_unfinished: Annotated[bool, Field(description="Its schedule had not ended.")]


class FigureData(Answer):
    """What a figure draws."""

    id: str
    x: Annotated[str, Field(description="Title of the axis with unit.")]
    metric: str
    unit: str | None
    rows: list[FigurePoint]


class PageData(BaseModel):
    """What the figures of the page are drawn from: packed columns, as the page embeds them."""

    axes: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    checkpoints: dict[str, Any]
    series: list[dict[str, Any]]
    curves: list[dict[str, Any]]
