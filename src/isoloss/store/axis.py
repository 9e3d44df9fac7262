"""The loss axis and its identity: points of different identity never share a figure or a fit.

An axis is a corpus (or, for imported results, a task's perplexity) under one reading of it:
corpus, context, stride, BOS, and for nats per token the tokenizer. Its kind says how far it may be
trusted as the pre-training loss: held-out, train-log, converted or proxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from isoloss.errors import BadRequest, Refused, nearest_name
from isoloss.store.convert import convert_loss, converted_label
from isoloss.store.schema import LOG_PROBE, LOSS_PROBE, TASK_PROBE
from isoloss.store.store import Store
from isoloss.study import Study

LOSS, BITS, PERPLEXITY = "loss_nats_per_token", "bits_per_byte", "perplexity"
CONVERTED = "converted_nats_per_token"
TOKENS, BYTES = "tokens_scored", "bytes_scored"
_IDENTITY = ("corpus_hash", "context", "stride", "bos", "num_fewshot")
_KINDS = {LOSS_PROBE: "held-out", LOG_PROBE: "train-log", TASK_PROBE: "proxy"}
_ORDER = ("held-out", "train-log", "converted", "proxy")
CHECKPOINT = ("family", "model", "run", "stage", "step", "weights_hash")
"""The columns that name a point; nulls compare equal in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One loss axis of a store.

    Attributes:
        subject: the corpus or task it is measured on.
        metric: loss_nats_per_token, bits_per_byte, converted_nats_per_token or perplexity
            (drawn as its logarithm).
        probe: the probe that measured it.
        kind: held-out, train-log, converted or proxy.
        settings: the reading of the subject that all its points share.
        reference: hash of the tokenizer in whose tokens a converted loss is counted.
    """

    subject: str
    metric: str
    probe: str
    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)
    reference: str | None = None

    @property
    def name(self) -> str:
        """What ``--loss`` takes."""
        return f"{self.subject}:{self.metric}"

    @property
    def label(self) -> str:
        """What stands at the axis, with its unit and how far it may be trusted."""
        shots = self.settings.get("num_fewshot")
        if self.kind == "proxy":
            reading = "" if shots is None else f", {shots}-shot"
            return (
                f"ln perplexity of {self.subject}{reading} (proxy: perplexity on other documents)"
            )
        if self.reference is not None:
            told = converted_label(f"tokenizer {self.reference[:8]}")
            return f"loss, held-out {self.subject} (nats per token, {told})"
        unit = "bits per byte" if self.metric == BITS else "nats per token"
        where = "training log" if self.kind == "train-log" else f"held-out {self.subject}"
        return f"loss, {where} ({unit})"

    @property
    def unit(self) -> str:
        """The unit of the values along the axis."""
        return "bits/byte" if self.metric == BITS else "nats/token"


def candidates(store: Store) -> list[Axis]:
    """Every loss axis the store holds, held-out ones first."""
    rows = (
        store.measurements()
        .filter(
            ((pl.col("probe") == LOSS_PROBE) & pl.col("metric").is_in([LOSS, BITS]))
            | ((pl.col("probe") == LOG_PROBE) & (pl.col("metric") == LOSS))
            | ((pl.col("probe") == TASK_PROBE) & (pl.col("metric") == PERPLEXITY))
        )
        .select("probe", "subject", "metric", "tokenizer_hash", *_IDENTITY)
        .unique()
        .collect()
    )
    axes = {}
    for row in rows.sort(rows.columns, nulls_last=True).iter_rows(named=True):
        keys = _IDENTITY if row["metric"] == BITS else (*_IDENTITY, "tokenizer_hash")
        axis = Axis(
            subject=row["subject"],
            metric=row["metric"],
            probe=row["probe"],
            kind=_KINDS[row["probe"]],
            settings={key: row[key] for key in keys},
        )
        axes[(axis.name, tuple(axis.settings.items()))] = axis
    found = [*axes.values(), *_converted(list(axes.values()))]
    return sorted(found, key=lambda a: (_ORDER.index(a.kind), a.metric == BITS, a.name))


def _converted(axes: list[Axis]) -> list[Axis]:
    """An axis in common tokens for every corpus that was read by several tokenizers."""
    readings: dict[tuple[str, tuple[object, ...]], list[Axis]] = {}
    for axis in axes:
        if axis.probe == LOSS_PROBE and axis.metric == LOSS:
            key = (axis.subject, tuple(axis.settings[name] for name in _IDENTITY))
            readings.setdefault(key, []).append(axis)
    found = []
    for (subject, values), group in readings.items():
        if len(group) > 1:
            found.append(
                Axis(
                    subject=subject,
                    metric=CONVERTED,
                    probe=LOSS_PROBE,
                    kind="converted",
                    settings=dict(zip(_IDENTITY, values, strict=True)),
                    reference=min(str(axis.settings["tokenizer_hash"]) for axis in group),
                )
            )
    return found


def choose(store: Store, wanted: str | None = None) -> Axis:
    """The axis asked for, or the only one there is.

    Args:
        store: where the losses are.
        wanted: ``SUBJECT`` or ``SUBJECT:METRIC``; None takes what the study's [axis] names, else
            the only corpus there is, in nats per token.

    Returns:
        One axis. Where a proxy was read at several numbers of shots, the one of fewest shots.

    Raises:
        BadRequest: no axis has that name, there is none at all, or several could be meant.
    """
    axes = candidates(store)
    wanted = wanted or _named_in_study(store)
    subject, _, metric = (wanted or "").partition(":")
    found = [
        axis
        for axis in axes
        if (not subject or axis.subject == subject) and (not metric or axis.metric == metric)
    ]
    if not wanted and found:
        found = [axis for axis in found if axis.kind == found[0].kind]
    if not metric and any(axis.metric != BITS for axis in found):
        found = [axis for axis in found if axis.metric != BITS]
    names = sorted({axis.name for axis in axes})
    if not found:
        raise BadRequest(
            "the store holds no such loss axis." if axes else "the store holds no loss axis.",
            asked=wanted,
            nearest=(nearest_name(wanted, names) if wanted else None) or ", ".join(names) or None,
            remedy="--loss SUBJECT:METRIC with one of these"
            if names
            else "add a [corpus] to the study, or import a training log: isoloss import log",
        )
    if len({axis.name for axis in found}) == 1 and found[0].kind == "proxy":
        return min(found, key=lambda a: _number(a.settings.get("num_fewshot")))
    if len(found) > 1:
        raise BadRequest(
            "several loss axes could be meant, and points of two axes never share a figure.",
            asked=wanted or "no --loss",
            nearest="; ".join(f"{axis.name} {_reading(axis, found)}".strip() for axis in found),
            remedy=f"--loss {found[0].name}, or [axis] in the study; families of several "
            "tokenizers compare through SUBJECT:bits_per_byte or SUBJECT:converted_nats_per_token",
        )
    return found[0]


def losses(store: Store, axis: Axis) -> pl.DataFrame:
    """The axis's value at every checkpoint.

    Returns:
        The columns of :data:`CHECKPOINT` with ``loss`` and ``loss_stderr`` in the axis's unit.
    """
    if axis.reference is not None:
        return _losses_in_common_tokens(store, axis)
    frame = _rows(store, axis, axis.metric)
    value, stderr = pl.col("value"), pl.col("stderr")
    if axis.metric == PERPLEXITY:
        # first order: the standard error of ln x is that of x over x
        value, stderr = value.log(), stderr / pl.col("value")
    return (
        frame.select(*CHECKPOINT, value.alias("loss"), stderr.alias("loss_stderr"))
        .unique(CHECKPOINT, keep="first", maintain_order=True)
        .collect()
    )


def _rows(store: Store, axis: Axis, metric: str) -> pl.LazyFrame:
    same = [pl.col(key).eq_missing(pl.lit(value)) for key, value in axis.settings.items()]
    return store.measurements().filter(
        pl.col("probe") == axis.probe,
        pl.col("subject") == axis.subject,
        pl.col("metric") == metric,
        *same,
    )


def _losses_in_common_tokens(store: Store, axis: Axis) -> pl.DataFrame:
    keys = [*CHECKPOINT, "tokenizer_hash"]
    frame = _rows(store, axis, LOSS).select(*keys, "value", "stderr").collect()
    for name in (TOKENS, BYTES):
        counts = _rows(store, axis, name).select(*keys, pl.col("value").alias(name)).collect()
        frame = frame.join(counts, on=keys, how="inner", nulls_equal=True)
    if frame[BYTES].n_unique() > 1:
        sizes = frame.select("tokenizer_hash", BYTES).unique().sort("tokenizer_hash").rows()
        raise Refused(
            f"the tokenizers did not score the same text of {axis.subject}.",
            asked=", ".join(f"tokenizer {name[:8]}: {int(size):,} bytes" for name, size in sizes),
            remedy=f"leave out `tokens` of [corpus.{axis.subject}], or compare "
            f"--loss {axis.subject}:{BITS}",
        )
    own = frame.filter(pl.col("tokenizer_hash") == axis.reference)[TOKENS]
    for name in ("value", "stderr"):
        converted = convert_loss(frame[name].fill_null(float("nan")), frame[TOKENS], own[0])
        frame = frame.with_columns(pl.Series(name, converted).fill_nan(None))
    return (
        frame.rename({"value": "loss", "stderr": "loss_stderr"})
        .select(*CHECKPOINT, "loss", "loss_stderr")
        .unique(CHECKPOINT, keep="first", maintain_order=True)
    )


def refuse_circular(axis: Axis, subject: str) -> None:
    """Stop a comparison whose two sides come from the same documents.

    Raises:
        Refused: the ability and the loss are measured on the same documents, so that they agree
            whatever the truth (R^2 .999 for LAMBADA accuracy on LAMBADA perplexity).
    """
    if axis.subject == subject:
        raise Refused(
            f"{subject} against its own perplexity is circular: both come from the same "
            "log-likelihoods.",
            asked=f"ability {subject} against {axis.name}",
            remedy="take a loss measured on other documents: --loss SUBJECT:METRIC",
        )


def _named_in_study(store: Store) -> str | None:
    file = store.path / "study.toml"
    if not file.is_file():
        return None
    axis = Study.from_text(file.read_text(encoding="utf-8"), folder=store.path).axis
    return axis.name if axis else None


def _reading(axis: Axis, among: list[Axis]) -> str:
    differing = [
        f"{key} {value}"
        for key, value in axis.settings.items()
        if any(other.settings.get(key) != value for other in among)
    ]
    return f"({', '.join(differing)})" if differing else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
