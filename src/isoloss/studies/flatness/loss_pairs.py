"""Differences in loss between two checkpoints, paired wherever the same text was scored.

The loss of a checkpoint varies from text to text far more than two checkpoints differ on one: with
the losses of the same documents at hand, the difference is known much better than either loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t as student

from isoloss.estimate import Estimate, ratio
from isoloss.laws.correlated import Interval
from isoloss.store.axis import LOSS, choose
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store

Floats = NDArray[np.float64]

OPTIMUM_PROBE, DISTANCE = "optimum", "distance_to_optimum_nats"
CONFIDENCE = 0.95
BAND_NATS = 0.01
"""Losses whose difference surely lies within this many nats are called equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Losses of several checkpoints on the same text, by weights hash.

    Attributes:
        subject: corpus, or family whose language was sampled.
        values: nats per token.
        optimum: nats above the best possible loss; empty for a text.
        sums: of each block of the text, nats, float64 (blocks,); empty where only means are kept.
        tokens: of each block.
    """

    subject: str
    values: Mapping[str, Estimate]
    optimum: Mapping[str, Estimate] = field(default_factory=dict)
    sums: Mapping[str, Floats] = field(default_factory=dict)
    tokens: Floats | None = None

    @property
    def paired(self) -> bool:
        """Whether differences are taken block by block."""
        return bool(self.sums)

    def difference(self, one: str, other: str) -> Interval:
        """Loss of one checkpoint less that of another with its 95% interval, nats per token.

        Without blocks both standard errors are added in square, as if the texts were different
        ones. On equal sentences the errors go together: that interval is too wide, never too
        narrow.
        """
        if one == other:
            return Interval(0.0, 0.0, 0.0)
        if self.paired and self.tokens is not None:
            found = ratio(self.sums[one] - self.sums[other], self.tokens)
        else:
            known = self.optimum or self.values
            errors = [known[name].stderr for name in (one, other)]
            stderr = None if None in errors else math.hypot(*(e or 0.0 for e in errors))
            value = known[one].value - known[other].value
            found = Estimate(value=value, stderr=stderr, n=min(known[one].n, known[other].n))
        return interval(found)


def interval(estimate: Estimate) -> Interval:
    """A 95% interval, Student's t with n - 1 degrees of freedom; NaN ends where there is none."""
    if estimate.stderr is None or estimate.n < 2:
        return Interval(estimate.value, math.nan, math.nan)
    half = float(student.ppf((1 + CONFIDENCE) / 2, estimate.n - 1)) * estimate.stderr
    return Interval(estimate.value, estimate.value - half, estimate.value + half)


def read_losses(store: Store, family: str, wanted: str | None = None) -> Losses | None:
    """The losses on which checkpoints of a family are compared.

    Where the family has a language of its own, those of the probe ``optimum``; else those of a
    corpus that was scored token by token.

    Args:
        store: the results.
        family: its name.
        wanted: a corpus, as ``--loss`` takes it; goes before the language.

    Returns:
        The losses; None where the family has neither.

    Raises:
        BadRequest: no corpus has the name, or several could be meant.
    """
    rows = store.measurements().filter(pl.col("family") == family).collect()
    if wanted is None and rows.filter(probe=OPTIMUM_PROBE, metric=DISTANCE).height:
        return _of_language(rows, family)
    if not rows.filter(probe=LOSS_PROBE, metric=LOSS).height:
        return None
    return _of_corpus(store, rows, choose(store, wanted).subject)


def _of_language(rows: pl.DataFrame, family: str) -> Losses:
    found = rows.filter(probe=OPTIMUM_PROBE)
    return Losses(
        subject=family,
        values=_estimates(found.filter(metric=LOSS)),
        optimum=_estimates(found.filter(metric=DISTANCE)),
    )


def _of_corpus(store: Store, rows: pl.DataFrame, subject: str) -> Losses | None:
    values = _estimates(rows.filter(probe=LOSS_PROBE, metric=LOSS, subject=subject))
    tokens = store.token_losses(subject).filter(
        pl.col("weights_hash").is_in(list(values)) & pl.col("loss_nats").is_finite()
    )
    context = rows.filter(probe=LOSS_PROBE, subject=subject)["context"].max()
    documents = tokens.select(pl.col("document").n_unique()).collect().item()
    # a single document has no others to compare with: its windows are the blocks, as in the probe
    windows = pl.col("token") // int(context or 512)  # type: ignore[arg-type]
    block = pl.col("document") if documents > 1 else windows.alias("document")
    sums = (
        tokens.group_by("layout", "weights_hash", block)
        .agg(nats=pl.col("loss_nats").cast(pl.Float64).sum(), count=pl.len())
        .sort("layout", "weights_hash", "document")
        .collect()
    )
    parts = {
        str(weights): part
        for (weights,), part in sums.group_by("weights_hash", maintain_order=True)
    }
    counts = {name: tuple(part["count"]) for name, part in parts.items()}
    usual = max(counts.values(), key=list(counts.values()).count, default=())
    same = {name: part for name, part in parts.items() if counts[name] == usual}
    if not same:
        return Losses(subject=subject, values=values) if values else None
    return Losses(
        subject=subject,
        values={name: values[name] for name in same},
        sums={name: part["nats"].to_numpy() for name, part in same.items()},
        tokens=np.array(usual, dtype=np.float64),
    )


def _estimates(rows: pl.DataFrame) -> dict[str, Estimate]:
    """By weights; where several settings were measured, of the one with most units."""
    best = rows.filter(pl.col("value").is_finite()).sort("n", "cell", descending=[True, False])
    return {
        row["weights_hash"]: Estimate(value=row["value"], stderr=row["stderr"], n=row["n"] or 0)
        for row in best.unique("weights_hash", keep="first", maintain_order=True).iter_rows(
            named=True
        )
    }
