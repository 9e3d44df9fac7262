"""Ability against flatness among checkpoints of equal loss, where a store holds both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from isoloss.store.series import read_abilities
from isoloss.store.store import Store
from isoloss.studies.findings import Figure, FigureAxis, Value

if TYPE_CHECKING:
    from isoloss.studies.flatness.equal_loss import EqualGroup

MOST_PANELS = 12


def ability_figure(store: Store, groups: Sequence[EqualGroup]) -> Figure | None:
    """Every ability's first score against the trace, a panel a group and ability.

    Args:
        store: with the abilities.
        groups: of equal loss, each with at least two checkpoints.

    Returns:
        The figure; None where no two checkpoints of a group have an ability.
    """
    scores = _scores(store)
    panels: list[list[dict[str, Value]]] = []
    for number, group in enumerate(groups, start=1):
        for ability, values in scores.items():
            rows: list[dict[str, Value]] = [
                {
                    "panel": f"{ability}: {group.family}, group {number}",
                    "trace": row.candidate.trace.value,
                    "score": value,
                    "low": None if stderr is None else value - stderr,
                    "high": None if stderr is None else value + stderr,
                    "run": row.candidate.run,
                    "checkpoint": row.candidate.name,
                }
                for row in group.rows
                if row.candidate.trace.value > 0
                for value, stderr in [values.get(row.candidate.weights_hash, (None, None))]
                if value is not None
            ]
            panels += [rows] if len(rows) > 1 else []
    if not panels:
        return None
    cut = f" The first {MOST_PANELS} of {len(panels)}." if len(panels) > MOST_PANELS else ""
    return Figure(
        id="ability-and-flatness",
        title="Ability against flatness at equal loss",
        note="One point a checkpoint; bars are one standard error of the score. Groups are those "
        "of the tables below. No law judges this figure: traces of runs that cannot be ranked "
        f"cannot be compared here either.{cut}",
        x=FigureAxis(column="trace", title="trace of the curvature", log=True),
        y=FigureAxis(column="score", title="score"),
        by="run",
        panel="panel",
        low="low",
        high="high",
        rows=tuple(row for rows in panels[:MOST_PANELS] for row in rows),
    )


def _scores(store: Store) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Value and standard error by ability and weights, parts of collections left out."""
    points = store.checkpoints().collect().with_row_index("point")
    found = read_abilities(store, points)
    values = found.values.join(points.select("point", "weights_hash"), on="point")
    return {
        f"{one.title}, {one.detail}" if one.detail else one.title: {
            weights: (value, stderr)
            for weights, value, stderr in values.filter(
                pl.col("series") == one.id, pl.col("metric") == one.metrics[0]
            )
            .select("weights_hash", "value", "stderr")
            .iter_rows()
        }
        for one in found.series
        if one.group is None and one.metrics
    }
