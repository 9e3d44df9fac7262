"""A store as the tidy frames that the page and its figures are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from isoloss.report.axes import BEST, OPTIMUM_PROBE, Axes, XAxis, read_axes
from isoloss.report.runs import RunStyle, run_styles
from isoloss.report.text import UNKNOWN, count, estimate, number, shown
from isoloss.store.schema import LOSS_PROBE, TASK_PROBE
from isoloss.store.series import Abilities, read_abilities
from isoloss.store.store import Store

_RUN = ["family", "model", "run"]
FACTS = {
    "model": "model",
    "run": "run",
    "seed": "seed",
    "variant": "variant",
    "stage": "stage",
    "step": "step",
    "tokens_seen": "tokens",
    "params_total": "parameters",
    "params_non_embedding": "without embeddings",
    "flops": "FLOPs",
    "lr": "learning rate",
    "schedule": "schedule",
    "schedule_progress": "schedule done",
    "parent": "parent",
    "source": "weights",
}
"""What is told about a checkpoint when somebody points at it."""

_COUNTS = {"tokens_seen", "params_total", "params_non_embedding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A loss along training.

    Attributes:
        axis: the loss.
        optimum: the lowest value that is possible, where it is known.
        values: ``point``, ``value``, ``stderr``.
    """

    axis: XAxis
    optimum: float | None
    values: pl.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a page says.

    Attributes:
        checkpoints: the store's table with ``point`` (row number), ``name``, ``label`` (of its
            run), ``is_flagged``, ``is_unfinished``, ``flags``, and the facts as text in
            ``fact_NAME``.
        runs: every run as it is drawn.
        axes: choices of x.
        abilities: scores of tasks and probes.
        curves: losses along training.
        cells: the store's table.
        failures: the store's table.
        flags: the store's table.
        unknown: checkpoints that lack a fact, by column.
        odd: what was measured and cannot be drawn, counted, by what it is.
    """

    checkpoints: pl.DataFrame
    runs: tuple[RunStyle, ...]
    axes: Axes
    abilities: Abilities
    curves: tuple[Curve, ...]
    cells: pl.DataFrame
    failures: pl.DataFrame
    flags: pl.DataFrame
    unknown: Mapping[str, int]
    odd: Mapping[str, int]

    @property
    def facts(self) -> dict[str, str]:
        """Facts known of at least one checkpoint: column of their text to label."""
        is_plain = (self.checkpoints["run"] == self.checkpoints["model"]).all()
        known = {
            f"fact_{name}": label
            for name, label in FACTS.items()
            if self.checkpoints[name].null_count() < self.checkpoints.height
            and not (name == "run" and is_plain)
        }
        losses = [axis for axis in self.axes.options if _is_told(axis)]
        return {f"fact_loss_{i}": axis.short for i, axis in enumerate(losses)} | known

    def subjects(self, probe: str) -> list[str]:
        """What a probe was measured on."""
        return sorted(self.cells.filter(pl.col("probe") == probe)["subject"].unique())

    @property
    def corpora(self) -> list[str]:
        """Texts that losses were measured on."""
        return self.subjects(LOSS_PROBE)

    @property
    def tasks(self) -> list[str]:
        """Tasks that were asked."""
        return self.subjects(TASK_PROBE)


def collect(store: Store, *, loss: str | None = None) -> ReportData:
    """Read a store.

    Args:
        store: the results.
        loss: ``SUBJECT`` or ``SUBJECT:METRIC``; None takes the store's only loss axis.

    Raises:
        BadRequest: no axis has that name, or several could be meant.
    """
    flags = store.flags().collect()
    points = store.checkpoints().collect().with_row_index("point")
    runs = run_styles(points)
    points = _named(_flagged(points, flags), runs)
    axes = read_axes(store, points, loss)
    abilities = read_abilities(store, points)
    absent = {
        column: points[column].null_count()
        for column in (*FACTS, "weights_hash", "commit")
        if column not in {"model", "run", "source"}
    }
    return ReportData(
        checkpoints=_with_losses(points, axes),
        runs=runs,
        axes=axes,
        abilities=abilities,
        curves=_curves(store, axes),
        cells=store.cells().collect(),
        failures=store.failures().collect(),
        flags=flags,
        unknown={column: n for column, n in absent.items() if n},
        odd=_odd(store, abilities),
    )


def figure_frame(
    data: ReportData, values: pl.DataFrame, axis: XAxis, *, log: bool = False
) -> pl.DataFrame:
    """Points of one figure: x, y and all that is told about them.

    Args:
        data: of the page.
        values: ``point``, ``value``, ``stderr`` and perhaps ``n``.
        axis: of x.
        log: whether x is logarithmic; what is not above 0 is then left out.

    Returns:
        ``x``, ``y``, ``low``, ``high`` (one standard error; null where unknown), ``text``
        of the value, ``run``, ``order`` along training, ``flagged``, ``hollow``,
        ``flags``, and the facts.
    """
    at = data.axes.positions.filter(pl.col("axis") == axis.key).select("point", x="value")
    if log:
        at = at.filter(pl.col("x") > 0)
    return (
        values.join(at, on="point")
        .join(data.checkpoints, on="point")
        .sort("point")
        .select(
            "x",
            run="label",
            y="value",
            low=pl.col("value") - pl.col("stderr"),
            high=pl.col("value") + pl.col("stderr"),
            text=pl.struct("value", "stderr").map_elements(
                lambda row: estimate(row["value"], row["stderr"]), return_dtype=pl.String
            ),
            order="point",
            flagged="is_flagged",
            hollow="is_unfinished",
            flags="flags",
            **{name: pl.col(name) for name in data.facts},
        )
    )


def _flagged(points: pl.DataFrame, flags: pl.DataFrame) -> pl.DataFrame:
    keys = [*_RUN, "stage", "step"]
    reasons = flags.group_by(keys).agg(
        flags=pl.format("{}: {}", pl.col("kind"), pl.col("detail").fill_null("")).str.join("; ")
    )
    return points.join(reasons, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _named(points: pl.DataFrame, runs: tuple[RunStyle, ...]) -> pl.DataFrame:
    labels = {(run.family, run.model, run.run): run.label for run in runs}
    rows = points.select(*_RUN, "stage", "step").rows()
    label = [labels[row[:3]] for row in rows]
    texts = {
        f"fact_{name}": pl.Series([_fact(name, value) for value in points[name]], dtype=pl.String)
        for name in FACTS
    }
    return points.with_columns(
        label=pl.Series(label, dtype=pl.String),
        name=pl.Series(
            [f"{one}@{_place(row[3], row[4])}" for one, row in zip(label, rows, strict=True)],
            dtype=pl.String,
        ),
        is_flagged=pl.col("flags").is_not_null(),
        flags=pl.Series([shown(f) if f else None for f in points["flags"]], dtype=pl.String),
        is_unfinished=(pl.col("schedule_progress") < 1).fill_null(False),
        **texts,
    )


def _with_losses(points: pl.DataFrame, axes: Axes) -> pl.DataFrame:
    """The losses of every checkpoint as text, among its facts."""
    losses = [axis.key for axis in axes.options if _is_told(axis)]
    texts = []
    for i, key in enumerate(losses):
        told = {
            point: estimate(value, stderr)
            for point, axis, value, stderr in axes.positions.rows()
            if axis == key
        }
        column = [told.get(point, UNKNOWN) for point in points["point"]]
        texts.append(pl.Series(f"fact_loss_{i}", column, dtype=pl.String))
    return points.with_columns(texts)


def _is_told(axis: XAxis) -> bool:
    """Whether an axis is a loss of its own that some checkpoint has."""
    return axis.is_loss and axis.known > 0 and not axis.is_derived


def _place(stage: str | None, step: int | None) -> str:
    before = f"{shown(stage)}:" if stage not in {None, "pretrain"} else ""
    return f"{before}{'?' if step is None else step}"


def _fact(name: str, value: object) -> str:
    if isinstance(value, int | float):
        return count(value) if name in _COUNTS else number(value)
    return UNKNOWN if value is None else shown(value)


def _curves(store: Store, axes: Axes) -> tuple[Curve, ...]:
    best = (
        store.measurements()
        .filter(pl.col("probe") == OPTIMUM_PROBE, pl.col("metric") == BEST)
        .group_by("subject")
        .agg(pl.col("value").median())
        .collect()
    )
    optimum = dict(best.iter_rows())
    curves = []
    for axis in axes.options:
        if axis.source is not None and _is_told(axis):
            exact = optimum.get(axis.source.subject) if axis.key.startswith("expected") else None
            values = axes.positions.filter(pl.col("axis") == axis.key)
            curves.append(Curve(axis=axis, optimum=exact, values=values))
    return tuple(curves)


def _odd(store: Store, abilities: Abilities) -> dict[str, int]:
    unscored = (
        store.measurements()
        .filter(pl.col("metric").is_in(["documents_unknown", "tokens_unknown"]))
        .group_by("metric")
        .agg(pl.col("value").sum())
        .collect()
    )
    missing = dict(unscored.iter_rows())
    counted = {
        "scores that are NaN or infinite": abilities.not_finite,
        "scores replaced by a later measurement of the same series": abilities.superseded,
        "documents without a score": int(missing.get("documents_unknown") or 0),
        "tokens without a loss": int(missing.get("tokens_unknown") or 0),
    }
    return {what: n for what, n in counted.items() if n}
