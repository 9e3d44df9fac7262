"""What the page says in sentences. Each follows from the numbers by one plain rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import polars as pl

from isoloss.report.axes import OPTIMUM_PROBE, in_nats
from isoloss.report.data import ReportData
from isoloss.report.text import counted, estimate, joined, number, shown
from isoloss.store.series import Series

TIE_NATS = 0.01
"""Losses closer than this are equal."""

ABOVE_STDERRS = 2.0
"""A score further above its baseline than this is above it."""

_BASELINES = ("chance", "constant_answer")
_SCORES = ("accuracy", "exact_match", "accuracy_macro", "accuracy_micro")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A finding in words, and the part of the page that shows it."""

    text: str
    anchor: str


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


def sentences(data: ReportData, best: Sequence[Best]) -> tuple[Sentence, ...]:
    """What was found, in the order of the page."""
    return (*_lowest(data), *_above(best), *_trouble(data))


def _lowest(data: ReportData) -> Iterable[Sentence]:
    axis = data.axes.loss
    if axis is None or axis.source is None:
        yield Sentence(
            text="No loss is in the store: abilities are drawn against training tokens and steps.",
            anchor="abilities",
        )
        return
    points = data.checkpoints.select("point", "name", "is_flagged")
    losses = (
        data.axes.positions.filter(pl.col("axis") == axis.key)
        .join(points, on="point")
        .filter(~pl.col("is_flagged"))
        .sort("value", "point")
    )
    if losses.is_empty():
        return
    margin = in_nats(axis.source, TIE_NATS)
    lowest = losses.row(0, named=True)
    tied = losses.filter(pl.col("value") <= lowest["value"] + margin)["name"].to_list()
    value = estimate(lowest["value"], lowest["stderr"])
    if len(tied) == 1:
        text = f"{tied[0]} has the lowest {axis.title}: {value}."
    else:
        text = (
            f"{len(tied)} checkpoints share the lowest {axis.title} within {TIE_NATS} nats, and "
            f"none is preferred: {joined(tied)}; the lowest value is {value}."
        )
    yield Sentence(text=text, anchor="curves")
    if axis.source.kind == "proxy":
        yield Sentence(
            text="This axis is a proxy: the perplexity of a task's documents stands in for the "
            "pre-training loss, which the store does not hold.",
            anchor="methods",
        )
    if axis.source.probe == OPTIMUM_PROBE:
        yield Sentence(
            text="The language is known, so that this loss is an expectation over all its words "
            "and the lowest possible value is drawn beside it.",
            anchor="curves",
        )


def _above(best: Sequence[Best]) -> Iterable[Sentence]:
    if not best:
        return
    most = max(b.checkpoints for b in best)
    told = {
        "above": "The best checkpoint lies more than 2 standard errors above the baseline in",
        "within luck": "The best checkpoint lies more than 2 standard errors above the "
        f"baseline, yet no further than the best of up to {most} gets by guessing, in",
        "not above": "The best checkpoint does not lie more than 2 standard errors above the "
        "baseline in",
        "unknown": "The baseline or the standard error is unknown for",
    }
    for verdict, text in told.items():
        found = [b for b in best if b.verdict == verdict]
        if found:
            listed = joined(_names(found), at_most=24)
            yield Sentence(
                text=f"{text} {len(found)} of {len(best)} series: {listed}.", anchor="best"
            )


def _trouble(data: ReportData) -> Iterable[Sentence]:
    flagged, total = int(data.checkpoints["is_flagged"].sum()), data.checkpoints.height
    parts = []
    if data.failures.height:
        parts.append(counted(data.failures.height, "failure"))
    if flagged:
        parts.append(f"{counted(flagged, 'flagged checkpoint')} of {total} (crossed out)")
    if data.unknown:
        parts.append(f"{counted(len(data.unknown), 'fact')} unknown for some checkpoint")
    if parts:
        yield Sentence(text=f"To know before reading: {joined(parts)}.", anchor="trouble")
    else:
        yield Sentence(text="Nothing failed, is flagged or unknown.", anchor="trouble")


def _names(best: Sequence[Best]) -> list[str]:
    """Series by name with their settings; parts of collections are counted instead."""
    details: dict[str, list[str]] = {}
    groups: dict[str, int] = {}
    for one in best:
        if one.series.group:
            groups[one.series.group] = groups.get(one.series.group, 0) + 1
        else:
            details.setdefault(shown(one.series.title), []).append(one.series.detail)
    names = [f"{title} ({', '.join(d)})" if any(d) else title for title, d in details.items()]
    return [*names, *(f"{n} parts of {shown(group)}" for group, n in groups.items())]


def _distance(value: float, stderr: float | None, baseline: float | None) -> float | None:
    if stderr is None or baseline is None:
        return None
    if stderr > 0:
        return (value - baseline) / stderr
    return float("inf") if value > baseline else 0.0


def distance_text(stderrs: float | None) -> str:
    """A distance in standard errors."""
    return "unknown" if stderrs is None else f"{number(round(stderrs, 1))}"
