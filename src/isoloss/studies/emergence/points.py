"""The points of the emergence study: one row a trained checkpoint, one column a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import Refused
from isoloss.store.schema import LOSS_PROBE, TASK_PROBE
from isoloss.store.store import Store
from isoloss.studies.emergence.families import GRID, LONG

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FACTS = ("family", "model", "run", "seed", "step", "params_total", "tokens_seen", "flops",
          "schedule_progress")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Points:
    """Checkpoints that were trained at all, by family, run and step.

    Attributes:
        frame: a row a checkpoint: what it is, ``SUBJECT:METRIC`` of every score and loss, and
            ``SUBJECT:n``, documents behind a score.
    """

    frame: pl.DataFrame

    def of(self, *families: str) -> Points:
        """The points of some families; of the grid the finished ones alone."""
        kept = self.frame.filter(
            pl.col("family").is_in(families)
            & ((pl.col("family") != GRID) | (pl.col("schedule_progress") >= 1.0))
        )
        return Points(kept)

    def column(self, name: str) -> Floats:
        """A column as float64, NaN where unknown; all NaN where the store has none."""
        if name not in self.frame.columns:
            return np.full(self.frame.height, np.nan)
        values: Floats = self.frame[name].cast(pl.Float64).to_numpy().astype(np.float64)
        return values

    def known(self, *names: str) -> Points:
        """The points at which all of these are finite."""
        finite = np.all([np.isfinite(self.column(name)) for name in names], axis=0)
        return Points(self.frame.filter(pl.Series(finite, dtype=pl.Boolean)))

    @property
    def run(self) -> list[str]:
        """Label of each point's run."""
        return [f"{family}/{run}" for family, run in self.frame.select("family", "run").rows()]

    @property
    def is_long(self) -> Bools:
        """Whether each point is of the long runs, which draw the curve."""
        return np.asarray(self.frame["family"] == LONG)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(set(self.run))


def read_points(store: Store) -> Points:
    """Every score and loss of a store, beside each other.

    Checkpoints that have not read a token are left out: no loss explains random weights.

    Raises:
        Refused: the store holds no score of a trained checkpoint.
    """
    rows = (
        store.measurements()
        .filter(
            pl.col("probe").is_in([TASK_PROBE, LOSS_PROBE]),
            pl.col("tokens_seen").fill_null(0) > 0,
        )
        .select(*_FACTS, "subject", "metric", "value", "n")
        .collect()
    )
    if rows.is_empty():
        raise Refused(
            "the store holds no score of a trained checkpoint.",
            asked=str(store.path),
            remedy="run the study again: isoloss study emergence",
        )
    named = rows.with_columns(name=pl.col("subject") + ":" + pl.col("metric"))
    counts = rows.group_by(*_FACTS, "subject").agg(value=pl.col("n").max().cast(pl.Float64))
    counts = counts.with_columns(name=pl.col("subject") + ":n")
    tall = pl.concat([part.select(*_FACTS, "name", "value") for part in (named, counts)])
    frame = tall.pivot("name", index=list(_FACTS), values="value", aggregate_function="first")
    return Points(frame.sort("family", "run", "step"))
