"""From overlaps of pairs of runs to one number: how much sizes share, and how far short of seeds.

Two things make the number uncertain: which documents were held out, and which runs were trained.
The first is resampled, the second is what leaving out each run in turn changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from isoloss.laws.correlated import Floats, Interval
from isoloss.studies.claims import Claim, Evidence
from isoloss.studies.evidence import from_interval
from isoloss.studies.trajectories.overlap import Overlap

SHUFFLED_NATS = 0.1
"""Sets that were dealt out anew within strata must overlap by less than this, in log odds."""

_LEVEL = 0.95
Statistic = Callable[[Sequence[Overlap], Floats], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A mean over overlaps with its standard error.

    Attributes:
        value: in log odds.
        stderr: of documents and of runs together; NaN with fewer than three runs.
        from_documents: the part of documents.
        from_runs: the part of runs, by the jackknife.
        runs: how many took part.
        seed_pairs: pairs of seeds of one size among the overlaps.
    """

    value: float
    stderr: float
    from_documents: float
    from_runs: float
    runs: int
    seed_pairs: int

    @property
    def interval(self) -> Interval:
        """95%, Student's t with runs - 1 degrees of freedom."""
        if self.runs < 2:
            return Interval(self.value, np.nan, np.nan)
        half = float(student.ppf((1 + _LEVEL) / 2, self.runs - 1)) * self.stderr
        return Interval(self.value, self.value - half, self.value + half)


def between_sizes(overlaps: Sequence[Overlap]) -> Agreement:
    """Mean log odds ratio of runs of different sizes, over sets and pairs.

    Args:
        overlaps: of some sets, over all pairs of runs; those that are not told are left out.
    """
    return _agreement(overlaps, lambda some, values: _mean(some, values, seeds=False))


def short_of_seeds(overlaps: Sequence[Overlap]) -> Agreement:
    """Mean log odds ratio of two seeds of one size less that of two sizes, over sets.

    A set counts where it has both. With one pair of seeds the ceiling's own spread over seeds is
    not known, and is not in the standard error.

    Args:
        overlaps: of some sets, over all pairs of runs; those that are not told are left out.
    """
    return _agreement(overlaps, _shortfall)


def between_seeds(overlaps: Sequence[Overlap]) -> float:
    """Mean log odds ratio of two seeds of one size, over sets: the ceiling.

    Args:
        overlaps: of some sets, over all pairs of runs; NaN where no two are seeds of one size.
    """
    known = [one for one in overlaps if not np.isnan(one.log_odds.value)]
    values = np.array([[one.log_odds.value] for one in known])
    return float(_mean(known, values, seeds=True)[0]) if known else float("nan")


def evidence(claim: Claim, found: Agreement, overlaps: Sequence[Overlap]) -> Evidence:
    """Evidence for a claim about overlaps; the control is that shuffled sets do not overlap.

    Args:
        claim: as it was written down.
        found: the number that it is about.
        overlaps: that the number was taken over.
    """
    shuffled = [one.shuffled for one in overlaps if np.isfinite(one.shuffled)]
    control = float(np.mean(shuffled)) if shuffled else float("nan")
    note = (
        f"standard error {found.from_documents:.2g} from documents and {found.from_runs:.2g} from "
        f"runs; {found.seed_pairs} pairs of seeds"
    )
    made = from_interval(
        claim, found.interval, level=_LEVEL, dof=max(found.runs - 1, 1), n=found.runs, note=note
    )
    return replace(
        made,
        control_holds=abs(control) <= SHUFFLED_NATS if shuffled else None,
        control=f"sets dealt out anew within strata overlap by {control:+.2g} log odds",
    )


def _agreement(overlaps: Sequence[Overlap], statistic: Statistic) -> Agreement:
    known = [one for one in overlaps if not np.isnan(one.log_odds.value)]
    values = np.array([[one.log_odds.value] for one in known])
    runs = sorted({name for one in known if not one.seeds for name in (one.first, one.second)})
    seeds = {(one.first, one.second) for one in known if one.seeds}
    without = np.array([_without(known, values, run, statistic) for run in runs])
    count = len(runs)
    from_runs = from_documents = float("nan")
    if count > 2 and np.isfinite(without).all():
        from_runs = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    if known:
        drawn = np.array([one.drawn for one in known])
        from_documents = float(np.std(statistic(known, np.where(np.isinf(drawn), np.nan, drawn))))
    return Agreement(
        value=float(statistic(known, values)[0]) if known else float("nan"),
        stderr=float(np.hypot(from_documents, from_runs)),
        from_documents=from_documents,
        from_runs=from_runs,
        runs=count,
        seed_pairs=len(seeds),
    )


def _without(known: list[Overlap], values: Floats, run: str, statistic: Statistic) -> float:
    """The statistic without a run; seeds stay where no other pair of seeds would be left."""
    kept = [run not in (one.first, one.second) for one in known]
    if not any(one.seeds and keep for one, keep in zip(known, kept, strict=True)):
        kept = [keep or one.seeds for one, keep in zip(known, kept, strict=True)]
    some = [one for one, keep in zip(known, kept, strict=True) if keep]
    return float(statistic(some, values[kept])[0])


def _mean(overlaps: Sequence[Overlap], values: Floats, *, seeds: bool) -> Floats:
    """Over sets, of each set's mean over pairs; (overlaps, n) to (n,)."""
    means = []
    for what in dict.fromkeys(one.what for one in overlaps):
        own = [i for i, one in enumerate(overlaps) if one.what == what and one.seeds == seeds]
        if own:
            known = ~np.isnan(values[own])
            total = np.where(known, values[own], 0.0).sum(axis=0)
            means.append(total / np.maximum(known.sum(axis=0), 1))
    return np.mean(means, axis=0) if means else np.full(values.shape[1], np.nan)


def _shortfall(overlaps: Sequence[Overlap], values: Floats) -> Floats:
    both = {o.what for o in overlaps if o.seeds} & {o.what for o in overlaps if not o.seeds}
    some = [i for i, one in enumerate(overlaps) if one.what in both]
    chosen = [overlaps[i] for i in some]
    ceiling = _mean(chosen, values[some], seeds=True)
    return ceiling - _mean(chosen, values[some], seeds=False)
