"""Checkpoints of equal loss side by side: what flatness says about them, and what it does not.

Two checkpoints have equal loss where the 95% interval of their difference, paired where it can be,
lies inside a band. Traces are ranked only where they can be compared: within one run, or among runs
of one architecture, size and optimizer. Elsewhere the rank is missing, with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from isoloss.estimate import Estimate
from isoloss.laws.correlated import Interval
from isoloss.store.store import Store
from isoloss.studies.findings import Findings, FindingsTable
from isoloss.studies.flatness.ability_figure import ability_figure
from isoloss.studies.flatness.loss_pairs import BAND_NATS, Losses, interval, read_losses
from isoloss.studies.flatness.traced import Candidate, Trace, traced

DECIDED = 1.96  # standard errors by which two traces differ

OTHER_RUN = "another run, whose optimizer is unknown"
OTHER_OPTIMIZER = "another optimizer"
OTHER_SIZE = "another architecture or size"
ALONE = "nothing to compare it with"


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualRow:
    """A checkpoint of a group of equal loss.

    Attributes:
        candidate: which.
        difference: its loss less that of the group's best, nats per token.
        rank: 1 for the flattest of those it can be compared with; those that are not surely
            flatter share a rank. None where it is compared with nothing.
        reason: why there is no rank; empty where there is one.
    """

    candidate: Candidate
    difference: Interval
    rank: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualGroup:
    """Checkpoints whose loss equals that of the first one.

    Attributes:
        family: theirs.
        metric: of the trace.
        subject: of the trace.
        loss: on which the losses were taken.
        paired: whether differences were taken text by text.
        at_optimum: whether all of them are surely within the band of the best possible loss.
        band_nats: of a difference.
        rows: the best first, then by difference.
    """

    family: str
    metric: Trace
    subject: str
    loss: str
    paired: bool
    at_optimum: bool
    band_nats: float
    rows: tuple[EqualRow, ...]

    @property
    def label(self) -> str:
        """What the trace may be called: a Fisher trace is a Hessian's at the optimum alone."""
        if self.metric == "hessian_trace":
            return "Hessian trace"
        return "Fisher trace (the Hessian's at the optimum)" if self.at_optimum else "Fisher trace"


def equal_loss(
    store: Store,
    *,
    band_nats: float = BAND_NATS,
    loss: str | None = None,
    optimizers: Mapping[str, str] | None = None,
) -> tuple[EqualGroup, ...]:
    """Groups of at least two checkpoints of equal loss, for every trace that a store holds.

    The checkpoint of lowest loss takes everything equal to it; of the rest the same again.

    Args:
        store: the results.
        band_nats: the 95% interval of a difference in loss must lie within plus or minus it.
        loss: a corpus, as ``--loss`` takes it; None takes the family's language or its corpus.
        optimizers: of runs by name, where they are known.

    Returns:
        The groups by family, trace and loss.

    Raises:
        BadRequest: no corpus has the name, or several could be meant.
    """
    found: list[EqualGroup] = []
    for (family, metric, subject), candidates in traced(store).items():
        losses = read_losses(store, family, loss)
        if losses is None:
            continue
        left = sorted(
            (c for c in candidates if c.weights_hash in losses.values),
            key=lambda c: losses.values[c.weights_hash].value,
        )
        while len(left) > 1:
            best = left[0]
            gaps = [losses.difference(c.weights_hash, best.weights_hash) for c in left]
            inside = [gap.inside(band_nats) for gap in gaps]
            equal = list(compress(left, inside))
            differences = list(compress(gaps, inside))
            left = [c for c, taken in zip(left, inside, strict=True) if not taken]
            if len(equal) < 2:
                continue
            ranked = rank(equal, optimizers or {})
            found.append(
                EqualGroup(
                    family=family, metric=metric, subject=subject, loss=losses.subject,
                    paired=losses.paired, band_nats=band_nats,
                    at_optimum=_at_optimum(losses, equal, band_nats),
                    rows=tuple(
                        EqualRow(candidate=c, difference=d, rank=r.rank, reason=r.reason)
                        for c, d, r in zip(equal, differences, ranked, strict=True)
                    ),
                )
            )  # fmt: skip
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rank:
    """A place among comparable checkpoints, or why there is none."""

    rank: int | None
    reason: str


def rank(candidates: Sequence[Candidate], optimizers: Mapping[str, str]) -> tuple[Rank, ...]:
    """Rank checkpoints of equal loss by their trace, each among those it can be compared with.

    Args:
        candidates: of equal loss.
        optimizers: of runs by name, where they are known.

    Returns:
        One rank a candidate: one more than the number of comparable ones that are surely flatter.
    """
    ranks = []
    for one in candidates:
        others = [c for c in candidates if c is not one]
        reasons = [_incomparable(one, c, optimizers) for c in others]
        comparable = [c for c, reason in zip(others, reasons, strict=True) if not reason]
        if comparable:
            ranks.append(Rank(1 + sum(_flatter(c.trace, one.trace) for c in comparable), ""))
        else:
            ranks.append(Rank(None, min(filter(None, reasons), default=ALONE)))
    return tuple(ranks)


def flatness_findings(
    store: Store, *, band_nats: float = BAND_NATS, loss: str | None = None
) -> Findings | None:
    """What a store that holds a trace says about checkpoints of equal loss, for the page.

    Args:
        store: the results.
        band_nats: of a difference in loss.
        loss: a corpus, as ``--loss`` takes it.

    Returns:
        The tables, and ability against the trace where abilities were measured; None where the
        store holds no trace.

    Raises:
        BadRequest: no corpus has the name, or several could be meant.
    """
    if not traced(store):
        return None
    groups = equal_loss(store, band_nats=band_nats, loss=loss)
    drawn = ability_figure(store, groups)
    return Findings(
        study="equal-loss",
        title="Checkpoints of equal loss",
        answers=tuple(_answers(groups, band_nats, has_ability=drawn is not None)),
        tables=tuple(table(group, number) for number, group in enumerate(groups, start=1)),
        figures=() if drawn is None else (drawn,),
        facts={"band in nats": band_nats},
    )


def table(group: EqualGroup, number: int) -> FindingsTable:
    """A group as a table; ``number`` tells groups of one store apart."""
    rows = tuple(
        (
            row.candidate.name,
            row.difference.value,
            _ends(row.difference),
            row.candidate.trace.value,
            _ends(interval(row.candidate.trace)),
            None if row.candidate.companion is None else row.candidate.companion.value,
            None if row.candidate.companion is None else _ends(interval(row.candidate.companion)),
            row.candidate.weight_norm,
            row.candidate.lr,
            row.rank if row.rank is not None else f"not ranked: {row.reason}",
        )
        for row in group.rows
    )
    return FindingsTable(
        id=f"equal-loss-{number}",
        title=f"{group.family}: losses equal within {group.band_nats:g} nats, group {number}",
        columns=(
            "checkpoint", "loss less the best (nats)", "95% interval", group.label, "95% interval ",
            "scale-invariant", "95% interval  ", "weight norm", "learning rate", "flattest first",
        ),
        rows=rows,
        note=_note(group),
    )  # fmt: skip


def _note(group: EqualGroup) -> str:
    pairing = (
        "differences are paired by document"
        if group.paired
        else "differences are those of two means on the same sentences, taken as if independent: "
        "their intervals are too wide rather than too narrow"
    )
    return (
        f"Loss on {group.loss}; {pairing}. {group.label} on {group.subject}, with the interval of "
        "the estimate itself, not that over seeds of training. A trace that falls while the "
        "scale-invariant number stays is growth of the weight norm. Ranks are given within one "
        "run, or one architecture, size and optimizer; checkpoints that are not surely flatter "
        "share one."
    )


def _answers(groups: Sequence[EqualGroup], band_nats: float, *, has_ability: bool) -> Iterable[str]:
    if not groups:
        yield (
            f"No two checkpoints with a trace have losses that are surely within {band_nats:g} "
            "nats of each other: their traces are not compared."
        )
        return
    count = sum(len(group.rows) for group in groups)
    yield (
        f"{count} checkpoints stand in {len(groups)} groups of equal loss (differences surely "
        f"within {band_nats:g} nats)."
    )
    for group in groups:
        spread = _widest(group)
        if spread is not None:
            yield (
                f"{group.family}: at equal loss the {group.label} of comparable checkpoints "
                f"differs by a factor of up to {spread:.2g}."
            )
    yield (
        "Which of them to keep does not follow from a trace: "
        + (
            "the figure holds abilities against it, and no law judges it."
            if has_ability
            else "here no ability was held against it. Measure one (probe.transfer, "
            "probe.task_score) at these checkpoints."
        )
    )


def _widest(group: EqualGroup) -> float | None:
    ranked = [row.candidate.trace.value for row in group.rows if row.rank is not None]
    if len(ranked) < 2 or min(ranked) <= 0:
        return None
    return max(ranked) / min(ranked)


def _incomparable(one: Candidate, other: Candidate, optimizers: Mapping[str, str]) -> str:
    """Why two traces cannot be ranked; empty where they can."""
    if one.run is not None and _trajectory(one.run) == _trajectory(other.run or ""):
        return ""
    if one.model is None or one.model != other.model:
        return OTHER_SIZE
    known = [optimizers.get(c.run or "") for c in (one, other)]
    if None in known:
        return OTHER_RUN
    return "" if known[0] == known[1] else OTHER_OPTIMIZER


def _trajectory(run: str) -> str:
    """A branch that leaves the stable part of a run goes on with that run's optimizer."""
    return re.sub(r"-branch\d+$", "", run)


def _flatter(one: Estimate, other: Estimate) -> bool:
    spread = math.hypot(one.stderr or 0.0, other.stderr or 0.0)
    return other.value - one.value > DECIDED * spread


def _at_optimum(losses: Losses, equal: Sequence[Candidate], band_nats: float) -> bool:
    known = [losses.optimum.get(c.weights_hash) for c in equal]
    return all(e is not None and interval(e).high < band_nats for e in known)


def _ends(found: Interval) -> str | None:
    if not math.isfinite(found.low):
        return None
    return f"{found.low:.4g} to {found.high:.4g}"
