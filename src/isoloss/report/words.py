"""The best checkpoint of each ability beside its baseline, and the checkpoints by their loss."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import polars as pl

from isoloss.report.axes import XAxis
from isoloss.report.data import ReportData
from isoloss.report.text import estimate, number
from isoloss.store.series import Series

ABOVE_STDERRS = 2.0
"""A score further above its baseline than this is above it."""

_SCORES = ("accuracy", "exact_match", "accuracy_macro", "accuracy_micro")


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best checkpoint of a series beside its baseline.

    Attributes:
        series: the ability.
        metric: the score compared.
        checkpoint: of the highest score, flagged ones left out.
        score: with its standard error, as text.
        baseline: the higher of chance and the best constant answer; None where neither is known.
        baseline_name: which one it is.
        stderrs: distance above the baseline in standard errors of the score; None where
            either is unknown.
        checkpoints: how many it is the best of.
    """

    series: Series
    metric: str
    checkpoint: str
    score: str
    baseline: float | None
    baseline_name: str
    stderrs: float | None
    checkpoints: int

    @property
    def luck(self) -> float:
        """Standard errors above guessing that the best of so many pure guessers reaches.

        The median of the maximum of independent normal draws; neighbouring checkpoints are
        alike, so that it is on the high side.
        """
        return NormalDist().inv_cdf(0.5 ** (1 / self.checkpoints))

    @property
    def verdict(self) -> str:
        """above, within luck, not above, or unknown."""
        if self.stderrs is None:
            return "unknown"
        if self.stderrs <= ABOVE_STDERRS:
            return "not above"
        return "above" if self.stderrs > self.luck else "within luck"


def best_scores(data: ReportData) -> tuple[Best, ...]:
    """The best checkpoint of every ability that has an accuracy or exact matches."""
    points = data.checkpoints.select("point", "name", "is_flagged")
    values = data.abilities.values.join(points, on="point").filter(~pl.col("is_flagged"))
    top = values.sort("value", descending=True, maintain_order=True).group_by(
        "series", "metric", maintain_order=True
    )
    best = {
        (row["series"], row["metric"]): row
        for row in top.agg(pl.all().first(), checkpoints=pl.len()).iter_rows(named=True)
    }
    found = []
    for series in data.abilities.series:
        metric = next((m for m in _SCORES if m in series.metrics), None)
        if metric is None or (series.id, metric) not in best:
            continue
        row = best[series.id, metric]
        rules = {
            k: series.baselines[k] for k in ("chance", "constant_answer") if k in series.baselines
        }
        name = max(rules, key=lambda k: rules[k], default="")
        found.append(
            Best(
                series=series,
                metric=metric,
                checkpoint=row["name"],
                score=estimate(row["value"], row["stderr"]),
                baseline=rules.get(name),
                baseline_name=name.replace("_", " "),
                stderrs=_distance(row["value"], row["stderr"], rules.get(name)),
                checkpoints=row["checkpoints"],
            )
        )
    return tuple(found)


def lowest_losses(data: ReportData, axis: XAxis) -> pl.DataFrame:
    """``name``, ``value`` and ``stderr`` of every unflagged checkpoint, the lowest loss first."""
    points = data.checkpoints.select("point", "name", "is_flagged")
    return (
        data.axes.positions.filter(pl.col("axis") == axis.key)
        .join(points, on="point")
        .filter(~pl.col("is_flagged"))
        .sort("value", "point")
        .select("name", "value", "stderr")
    )


def _distance(value: float, stderr: float | None, baseline: float | None) -> float | None:
    if stderr is None or baseline is None:
        return None
    if stderr > 0:
        return (value - baseline) / stderr
    return float("inf") if value > baseline else 0.0


def distance_text(stderrs: float | None) -> str:
    """A distance in standard errors."""
    return "unknown" if stderrs is None else f"{number(round(stderrs, 1))}"
