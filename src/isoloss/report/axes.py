"""What can stand on the x axis of a figure, and where every checkpoint lies on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import polars as pl

from isoloss.errors import Refused
from isoloss.report.text import shown
from isoloss.store.axis import (
    BITS,
    CHECKPOINT,
    LOSS,
    PERPLEXITY,
    Axis,
    candidates,
    choose,
    losses,
)
from isoloss.store.axis import refuse_circular as refuse_same_documents
from isoloss.store.store import Store

OPTIMUM_PROBE = "optimum"
BEST, DISTANCE = "optimum_nats_per_token", "distance_to_optimum_nats"
_BUDGETS = {
    "tokens_seen": ("training tokens", "si"),
    "flops": ("training FLOPs (6 N D)", "power"),
    "params_total": ("parameters", "si"),
    "params_non_embedding": ("parameters without embeddings", "si"),
    "step": ("step (optimizer updates)", "si"),
}
TIME = ("tokens_seen", "flops", "step")
"""Axes along which a run moves as it trains: those that loss curves are drawn on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XAxis:
    """One choice of x.

    Attributes:
        key: its name in the page.
        title: what stands at the axis, with the unit.
        short: the same in two words, beside a number.
        is_loss: a loss, drawn falling from left to right; otherwise a budget.
        starts_log: whether its scale is logarithmic until somebody asks otherwise.
        numbers: how ticks are written: plain, si (1B) or power (1e+18).
        source: the loss axis of the store, where it is one.
        known: checkpoints that have a value.
        is_derived: another axis of the page in other words: drawn, but not counted again.
    """

    key: str
    title: str
    short: str
    is_loss: bool
    starts_log: bool
    numbers: str
    source: Axis | None = None
    known: int = 0
    is_derived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Every choice of x for one page.

    Attributes:
        chosen: the loss axis of the store that the page is about; None where it has none.
        options: what x may be, the first known one is shown first.
        positions: ``point``, ``axis``, ``value``, ``stderr``; one row a known value.
    """

    chosen: Axis | None
    options: tuple[XAxis, ...]
    positions: pl.DataFrame

    @property
    def first(self) -> XAxis | None:
        """The axis that the page opens with; None where nothing at all is known."""
        return next((axis for axis in self.options if axis.known), None)

    @property
    def loss(self) -> XAxis | None:
        """The loss that the page is about."""
        return next((axis for axis in self.options if axis.is_loss and axis.known), None)


def read_axes(store: Store, points: pl.DataFrame, wanted: str | None) -> Axes:
    """The loss axis asked for, what goes with it, and the budgets.

    Args:
        store: the results.
        points: checkpoints with their index ``point``.
        wanted: ``SUBJECT`` or ``SUBJECT:METRIC``; None takes the one that the store's study
            names, or else the only one there is.

    Returns:
        The axes. Without any loss in the store ``chosen`` is None.

    Raises:
        BadRequest: no axis has the name asked for, or several could be meant.
    """
    exact = _optimum_axes(store)
    chosen = _choose(store, wanted, exact)
    found = [("loss", chosen)] if chosen else []
    if chosen and (bits := _in_bits(store, chosen)):
        found.append(("bits_per_byte", bits))
    found += [(f"{_KEYS[a.metric]}:{a.subject}", a) for a in exact if a != chosen]
    options, parts = [], []
    for key, axis in found:
        option = _loss_option(key, axis)
        values = _on_points(losses(store, axis), points)
        options.append(replace(option, known=values.height))
        parts.append(values.with_columns(axis=pl.lit(key)))
    if chosen and chosen.metric != BITS and chosen.probe != OPTIMUM_PROBE:
        place = 1 + any(key == "bits_per_byte" for key, _ in found)
        options.insert(place, replace(_perplexity(chosen), known=options[0].known))
        parts.append(_exponential(parts[0]))
    for column, (title, numbers) in _BUDGETS.items():
        values = points.select("point", value=pl.col(column).cast(pl.Float64)).drop_nulls("value")
        options.append(
            XAxis(
                key=column,
                title=title,
                short=title,
                is_loss=False,
                starts_log=True,
                numbers=numbers,
                known=values.height,
            )
        )
        stderr = pl.lit(None, pl.Float64)
        parts.append(values.with_columns(stderr=stderr, axis=pl.lit(column)))
    positions = pl.concat([part.select("point", "axis", "value", "stderr") for part in parts])
    return Axes(chosen=chosen, options=tuple(options), positions=positions)


def refusals(axes: Axes, subject: str) -> dict[str, str]:
    """Why a subject may not be drawn against an axis, by the axis's key."""
    told = {}
    for option in axes.options:
        # an expected loss is taken over the language's own law: no document decides it
        if option.source is None or option.source.probe == OPTIMUM_PROBE:
            continue
        try:
            refuse_same_documents(option.source, subject)
        except Refused as error:
            told[option.key] = error.what
    return told


def in_nats(axis: Axis, nats: float) -> float:
    """A distance given in nats, in the unit of an axis."""
    return nats / math.log(2) if axis.metric == BITS else nats


def label(axis: Axis) -> str:
    """What stands at an axis of the store, or at one of an exact optimum."""
    if axis.probe != OPTIMUM_PROBE:
        return axis.label
    if axis.metric == DISTANCE:
        return f"distance to the optimum of the language of {axis.subject} (nats per token)"
    return f"expected loss on the language of {axis.subject} (nats per token)"


_KEYS = {LOSS: "expected_loss", DISTANCE: "distance"}


def _choose(store: Store, wanted: str | None, exact: list[Axis]) -> Axis | None:
    known = candidates(store)
    subject, _, metric = (wanted or "").partition(":")
    if subject not in {axis.subject for axis in known}:
        for axis in exact:
            if (axis.subject, axis.metric) == (subject, metric or LOSS):
                return axis
    if not known and wanted is None:
        return None
    return choose(store, wanted)


def _in_bits(store: Store, chosen: Axis) -> Axis | None:
    same = {k: v for k, v in chosen.settings.items() if k != "tokenizer_hash"}
    return next(
        (
            axis
            for axis in candidates(store)
            if axis != chosen
            and (axis.subject, axis.metric, axis.probe) == (chosen.subject, BITS, chosen.probe)
            and dict(axis.settings) == same
        ),
        None,
    )


def _optimum_axes(store: Store) -> list[Axis]:
    keys = ("corpus_hash", "docs_n", "docs_seed")
    rows = (
        store.measurements()
        .filter(pl.col("probe") == OPTIMUM_PROBE, pl.col("metric").is_in([LOSS, DISTANCE]))
        .group_by("subject", "metric", *keys)
        .len()
        .sort("metric", "len", *keys, descending=[True, True, *[False] * 3], nulls_last=True)
        # two samples of one language are two axes: the one with more checkpoints is drawn
        .unique(["subject", "metric"], keep="first", maintain_order=True)
        .collect()
    )
    return [
        Axis(
            subject=row["subject"],
            metric=row["metric"],
            probe=OPTIMUM_PROBE,
            kind="exact",
            settings={key: row[key] for key in keys},
        )
        for row in rows.iter_rows(named=True)
    ]


def _loss_option(key: str, axis: Axis) -> XAxis:
    return XAxis(
        key=key,
        title=shown(label(axis), longest=200),
        short=_short(axis),
        is_loss=True,
        starts_log=axis.metric == DISTANCE,
        numbers="plain",
        source=axis,
    )


def _perplexity(axis: Axis) -> XAxis:
    """The exponential of a loss in nats, for comparison with figures that quote it."""
    told = label(axis).replace("ln perplexity", "perplexity").replace("loss,", "perplexity,")
    return XAxis(
        key=PERPLEXITY,
        title=shown(told.replace("(nats per token", "(exp of nats per token"), longest=200),
        short="perplexity",
        is_loss=True,
        starts_log=True,
        numbers="plain",
        source=axis,
        is_derived=True,
    )


def _exponential(values: pl.DataFrame) -> pl.DataFrame:
    grown = pl.col("value").exp()
    # the delta method: the error of exp(x) is exp(x) times that of x
    return values.with_columns(
        value=grown, stderr=grown * pl.col("stderr"), axis=pl.lit(PERPLEXITY)
    ).filter(pl.col("value").is_finite())


def _short(axis: Axis) -> str:
    names = {"proxy": "ln perplexity", "train-log": "training loss"}
    if axis.probe == OPTIMUM_PROBE:
        name = "above optimum" if axis.metric == DISTANCE else "expected loss"
    else:
        name = names.get(axis.kind, "loss")
    return f"{name} ({axis.unit})"


def _on_points(values: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    return (
        points.join(values, on=list(CHECKPOINT), how="inner", nulls_equal=True)
        .select("point", value="loss", stderr="loss_stderr")
        .filter(pl.col("value").is_finite())
        .unique("point", keep="first", maintain_order=True)
    )
