"""Checkpoints whose curvature was measured, each with its companion and its weight norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import polars as pl

from isoloss.estimate import Estimate
from isoloss.store.schema import SETTINGS
from isoloss.store.store import Store

Trace = Literal["fisher_trace", "hessian_trace"]

TRACES = ("fisher_trace", "hessian_trace")
COMPANION = "_scale_invariant"
"""Ends the name of a trace's companion: every tensor's trace times its squared norm, summed."""
WEIGHT_NORM = "weight_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A checkpoint whose trace is known.

    Attributes:
        family: its family.
        model: architecture and size.
        run: one trajectory.
        step: optimizer steps; None where unknown.
        weights_hash: of the weights.
        lr: learning rate of its last step; None where unknown.
        trace: Tr F or Tr H.
        companion: every parameter tensor's trace times its squared norm, summed.
        weight_norm: of all parameters; None where it was not measured.
    """

    family: str
    model: str | None
    run: str | None
    step: int | None
    weights_hash: str
    lr: float | None
    trace: Estimate
    companion: Estimate | None
    weight_norm: float | None

    @property
    def name(self) -> str:
        """Run and step."""
        return f"{self.run or self.model} @ {'?' if self.step is None else self.step}"


def traced(store: Store) -> dict[tuple[str, Trace, str], list[Candidate]]:
    """Checkpoints with a trace, by family, metric and subject.

    Where a trace was measured under several settings, the one that most checkpoints have is taken:
    two settings are two series. Untrained checkpoints, of step 0, are left out.
    """
    rows = store.measurements().collect()
    # weights that two families share, such as those of equal seeds, bring the other's language
    elsewhere = pl.col("subject").is_in(rows["family"].unique().to_list()) & (
        pl.col("subject") != pl.col("family")
    )
    rows = rows.filter(~elsewhere & (pl.col("step").is_null() | (pl.col("step") > 0)))
    norms = dict(rows.filter(metric=WEIGHT_NORM).select("weights_hash", "value").iter_rows())
    companions = {
        (row["cell"], row["metric"].removesuffix(COMPANION)): _estimate(row)
        for row in rows.filter(pl.col("metric").str.ends_with(COMPANION)).iter_rows(named=True)
    }
    traces = rows.filter(pl.col("metric").is_in(TRACES) & pl.col("value").is_finite())
    series = ("family", "metric", "subject")
    found: dict[tuple[str, Trace, str], list[Candidate]] = {}
    for key, part in traces.group_by(series, maintain_order=True):
        settings = part.group_by(_SETTINGS, maintain_order=True)
        main = max((rows for _, rows in settings), key=lambda rows: rows.height)
        found[cast(tuple[str, Trace, str], key)] = [
            _candidate(
                row, companions.get((row["cell"], row["metric"])), norms.get(row["weights_hash"])
            )
            for row in main.iter_rows(named=True)
        ]
    return found


# where a number was computed, and by how many threads, splits no series
_SETTINGS = [name for name in SETTINGS if name not in {"threads", "source"}]


def _candidate(row: Mapping[str, Any], companion: Estimate | None, norm: float | None) -> Candidate:
    return Candidate(
        family=row["family"],
        model=row["model"],
        run=row["run"],
        step=row["step"],
        weights_hash=row["weights_hash"],
        lr=row["lr"],
        trace=_estimate(row),
        companion=companion,
        weight_norm=norm,
    )


def _estimate(row: Mapping[str, Any]) -> Estimate:
    return Estimate(value=row["value"], stderr=row["stderr"], n=row["n"] or 0)
