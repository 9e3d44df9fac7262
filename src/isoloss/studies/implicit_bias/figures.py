"""Tables and figures of the trained models: interventions, models, and traces along training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import polars as pl

from isoloss.estimate import Estimate
from isoloss.laws.correlated import Interval
from isoloss.store.store import Store
from isoloss.studies.findings import Figure, FigureAxis, FindingsTable, Rule, Value
from isoloss.studies.flatness.loss_pairs import BAND_NATS, DISTANCE, interval
from isoloss.studies.flatness.traced import COMPANION
from isoloss.studies.implicit_bias.correlation import PartialCorrelation
from isoloss.studies.implicit_bias.families import ADVERSARIAL, WIDENED
from isoloss.studies.implicit_bias.models import (
    TRACE,
    Contrast,
    Trained,
    over_seeds,
)

EMBEDDING = (
    "Traces of narrow models are those of the wide architecture that they are embedded in: one of "
    "many embeddings, and the trace depends on which."
)
FISHER = (
    "The trace is the Fisher trace; it is the Hessian's only as far as the loss is at the optimum."
)


def intervention_table(contrasts: Sequence[Contrast]) -> FindingsTable:
    """Every comparison with its intervals over seeds."""
    rows: list[tuple[Value, ...]] = []
    for one in contrasts:
        numbers = [over_seeds(x) for x in (one.loss, one.trace, one.companion, one.ability)]
        cells = [with_interval(x, digits) for x, digits in zip(numbers, (4, 2, 2, 1), strict=True)]
        equal = "yes" if one.equal_loss else "no"
        rows.append((one.language, one.intervention, one.compared, len(one.loss), *cells, equal))
    return FindingsTable(
        id="interventions",
        title="What each intervention changes",
        columns=(
            "language", "intervention", "compared", "seeds", "loss (nats)", "ln Fisher trace",
            "ln scale-invariant trace", "ability (points)", "equal loss",
        ),
        rows=tuple(rows),
        note=(
            "Differences of models of one seed, mean with 95% interval over seeds; equal loss "
            f"means that the interval lies inside {BAND_NATS:g} nats. A trace that falls while the "
            f"scale-invariant one stays is growth of the weights. {FISHER} {EMBEDDING}"
        ),
    )  # fmt: skip


def model_table(models: Sequence[Trained]) -> FindingsTable:
    """Every kind of model, mean over seeds."""
    rows: list[tuple[Value, ...]] = []
    for key, group in groupby(models, key=lambda m: (m.language, m.arm, m.width, m.steps)):
        seeds = list(group)
        columns = (
            [m.distance.value for m in seeds],
            [m.trace.value for m in seeds],
            [m.companion.value if m.companion else math.nan for m in seeds],
            [m.weight_norm for m in seeds],
            [100 * m.ability.value if m.ability else math.nan for m in seeds],
        )
        means = [over_seeds(np.array(values)) for values in columns]
        cells = [with_interval(x, d) for x, d in zip(means, (4, 2, 0, 2, 1), strict=True)]
        rows.append((*key, len(seeds), *cells))
    return FindingsTable(
        id="models",
        title="The models at the end of their schedule",
        columns=(
            "language", "algorithm", "width", "steps", "seeds", "nats above the optimum",
            "Fisher trace", "scale-invariant", "weight norm", "ability (%)",
        ),
        rows=tuple(rows),
        note=f"Mean with 95% interval over seeds. {FISHER} {EMBEDDING}",
    )  # fmt: skip


def correlation_table(found: PartialCorrelation, with_loss: PartialCorrelation) -> FindingsTable:
    """Partial correlations of ability with the trace and with the loss."""
    rows: list[tuple[Value, ...]] = []
    for name, one in (("ln Fisher trace", found), ("loss", with_loss)):
        left_out = ", ".join(f"{k} {v:+.2f}" for k, v in one.without.items())
        rows.append((name, one.value, one.low, one.high, one.n, one.p_value, left_out, one.reason))
    return FindingsTable(
        id="correlation",
        title="Ability among masked hmm models of equal loss",
        columns=(
            "with", "partial correlation", "low", "high", "models", "p within interventions",
            "without one intervention", "why not",
        ),
        rows=tuple(rows),
        note="Given log width and log steps; 95% interval by Fisher's z; at least 12 models.",
    )  # fmt: skip


def equal_figure(models: Sequence[Trained]) -> Figure:
    """Ability against the trace among models inside the band of the best loss."""
    rows: list[dict[str, Value]] = [
        {
            "language": m.language, "kind": f"{m.arm}, width {m.width}", "trace": m.trace.value,
            "ability": 100 * m.ability.value, "low": 100 * interval(m.ability).low,
            "high": 100 * interval(m.ability).high, "run": m.run, "steps": m.steps,
        }
        for m in models
        if m.ability is not None and interval(m.distance).high < BAND_NATS
    ]  # fmt: skip
    return Figure(
        id="trace-and-ability",
        title="Ability against flatness at equal loss",
        note=(
            f"One point a model whose loss is surely within {BAND_NATS:g} nats of the optimum; "
            "bars are 95% intervals over test sentences, which all models share. Points of one "
            "panel alone can be compared."
        ),
        x=FigureAxis(column="trace", title="Fisher trace", log=True),
        y=FigureAxis(column="ability", title="linear-probe accuracy (%)"),
        by="kind", panel="language", low="low", high="high", rows=tuple(rows),
    )  # fmt: skip


def training_figures(stores: Sequence[Store]) -> tuple[Figure, ...]:
    """Trace, its companion, weight norm and loss along every trunk."""
    rows = (
        pl.concat([store.measurements() for store in stores])
        .filter(
            pl.col("metric").is_in([TRACE, TRACE + COMPANION, "weight_norm", DISTANCE])
            & (pl.col("step") > 0)
            & ~pl.col("family").str.ends_with(WIDENED)
            & ~pl.col("family").str.starts_with(ADVERSARIAL)  # kept at its end alone
            & ~pl.col("run").str.contains("-branch")
        )
        .unique(["family", "run", "step", "metric"], keep="first", maintain_order=True)
        .sort("family", "run", "step")
        .collect()
    )
    told = (
        (
            "loss",
            DISTANCE,
            "nats above the optimum",
            (Rule(along="y", value=BAND_NATS, label=f"{BAND_NATS:g} nats"),),
        ),
        ("trace", TRACE, "Fisher trace", ()),
        ("companion", TRACE + COMPANION, "scale-invariant trace", ()),
        ("norm", "weight_norm", "weight norm", ()),
    )
    return tuple(
        Figure(
            id=f"{name}-along-training",
            title=f"{title[:1].upper()}{title[1:]} along training",
            note=(
                "Every line is a run; its rate is constant until the last checkpoint, where it has "
                "fallen to 0. The trace falls, rises and falls again: compare at equal loss, not "
                "at equal steps."
            ),
            mark="lines",
            x=FigureAxis(column="step", title="optimizer steps", log=True),
            y=FigureAxis(column="value", title=title, log=True),
            by="run", panel="family", rules=rules,
            rows=tuple(
                {"family": r["family"], "run": r["run"], "step": r["step"], "value": r["value"]}
                for r in rows.filter(metric=metric).iter_rows(named=True)
            ),
        )
        for name, metric, title, rules in told
    )  # fmt: skip


def inside_band(models: Sequence[Trained], language: str) -> list[Trained]:
    """Models of a language whose loss is surely within the band of the optimum."""
    return [
        m for m in models
        if m.language == language and m.ability is not None
        and interval(m.distance).high < BAND_NATS
    ]  # fmt: skip


def lookup_rows(lookup: dict[str, Estimate]) -> FindingsTable:
    """What a probe reads from the true conditionals."""
    return FindingsTable(
        id="lookup",
        title="The lookup table: a linear probe on the true conditionals",
        columns=("language", "ability (%)", "95% interval"),
        rows=tuple(
            (name, 100 * e.value, _ends(interval(e), 1, scale=100)) for name, e in lookup.items()
        ),
        note="Its loss is the optimum by construction; it has no parameters, and so no trace.",
    )


def with_interval(found: Interval, digits: int) -> str | None:
    """A value with its interval as text; None where there is no value."""
    if not math.isfinite(found.value):
        return None
    return f"{found.value:.{digits}f} {_ends(found, digits) or ''}".strip()


def _ends(found: Interval, digits: int, *, scale: float = 1.0) -> str | None:
    if not math.isfinite(found.low):
        return None
    return f"[{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
