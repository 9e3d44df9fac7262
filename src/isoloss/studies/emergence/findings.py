"""What the emergence study found: its claims judged from the store, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from isoloss.laws.emergence_result import Emergence
from isoloss.store.store import Store
from isoloss.studies.claims import Claim, Evidence, holm, judge, load_claims, not_run
from isoloss.studies.emergence.curves import (
    ABILITIES,
    LOSS,
    PLAIN_LOSS,
    SMOOTH,
    Comparison,
    compare,
    error_gap,
    mean_offset,
    worst_offset,
)
from isoloss.studies.emergence.families import ARCHITECTURE, CORPUS, FAMILIES, GRID, LONG, OPTIMIZER
from isoloss.studies.emergence.figures import figures
from isoloss.studies.emergence.points import Points, read_points
from isoloss.studies.emergence.thresholds import (
    ACCURACY,
    BRIER,
    EXACT,
    PROBABILITY,
    Thresholds,
    find_thresholds,
    kink_weight,
    widest_shift,
)
from isoloss.studies.evidence import over_runs
from isoloss.studies.findings import Finding, Findings, FindingsTable, Value

STUDY = "emergence"
TITLE = "Is ability a function of the pre-training loss?"
FLOPS, TOKENS = "flops", "tokens_seen"
RANDOM = "random_answers"
SEED = 0
_MARGIN = 3.0  # points within which answers drawn at random must stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything that the claims are judged by.

    Attributes:
        points: of the store.
        comparisons: of each family with the long runs, an ability each.
        thresholds: of each ability.
        control: whether answers drawn at random stay at chance, and the words for it.
    """

    points: Points
    comparisons: Mapping[str, tuple[Comparison, ...]]
    thresholds: Mapping[str, Thresholds]
    control: Evidence


def analyse(store: Store) -> Analysis:
    """Compute everything from the store of the planted language."""
    points = read_points(store)
    return Analysis(
        points=points,
        comparisons={
            family: tuple(compare(points, family, ability) for ability in ABILITIES)
            for family in FAMILIES
        },
        thresholds={
            ability: find_thresholds(points, ability, seed=SEED)
            for ability in ("copy", "predictable", RANDOM)
        },
        control=_control(points),
    )


def emergence_findings(
    store: Store, *, scale: str, command: str, other_claims: Mapping[str, Finding], reason: str,
    tables: tuple[FindingsTable, ...] = (),
) -> Findings:  # fmt: skip
    """What the numbers of a store say.

    Args:
        store: of the planted language.
        scale: of the study.
        command: what makes the same again.
        other_claims: judged elsewhere, by id.
        reason: why claims that are neither there nor here were not run.
        tables: of the other claims.
    """
    analysis = analyse(store)
    judged = [
        other_claims[claim.id] if claim.id in other_claims else _judged(claim, analysis, reason)
        for claim in load_claims(STUDY)
    ]
    claims = holm(judged)
    missing = tuple(dict.fromkeys(f.reason for f in claims if f.verdict == "not run"))
    return Findings(
        study=STUDY,
        title=TITLE,
        scale=scale,
        command=command,
        answers=_answers(analysis, claims),
        claims=claims,
        tables=(_correlations(analysis), _offsets(analysis), _thresholds(analysis), *tables),
        figures=figures(analysis.points, analysis.thresholds),
        facts={
            "seed of the analysis": SEED,
            "trained checkpoints": analysis.points.frame.height,
            "runs": analysis.points.runs,
            "loss axis": LOSS,
            "intervals of offsets": "90%, AR(1) errors within runs; of means over runs "
            "bootstrap-t from 6 runs on, Student's t below",
        },
        not_run=missing,
    )


def _judged(claim: Claim, analysis: Analysis, reason: str) -> Finding:
    evidence = _EVIDENCE.get(claim.id)
    if evidence is None:
        return not_run(claim, reason)
    found = evidence(claim, analysis)
    if claim.id == "random-answers":
        return judge(claim, found)
    held = Evidence(
        estimate=found.estimate, low=found.low, high=found.high, level=found.level, n=found.n,
        p_value=found.p_value, smallest_p=found.smallest_p, note=found.note,
        control_holds=analysis.control.control_holds, control=analysis.control.control,
    )  # fmt: skip
    return judge(claim, held)


def _control(points: Points) -> Evidence:
    """Answers drawn at random: no run may end away from chance."""
    gains = _random_gains(points)
    if gains.size == 0:
        return Evidence(control="answers drawn at random were not asked")
    mean = float(np.mean(gains))
    words = f"answers drawn at random: {mean:+.1f} points from the start to the end of training"
    return Evidence(control_holds=abs(mean) <= _MARGIN, control=words)


def _random_gains(points: Points) -> np.ndarray:
    """Accuracy on random answers at the end of each long run less that at its start, in points."""
    long = [family for family in FAMILIES if family != GRID]
    used = points.of(*long).known(LOSS, f"{RANDOM}:{ACCURACY}")
    accuracy, runs = used.column(f"{RANDOM}:{ACCURACY}"), np.asarray(used.run)
    own = [accuracy[runs == run] for run in dict.fromkeys(runs.tolist())]
    return np.array([100 * (x[-1] - x[0]) for x in own if x.size > 1])


_Make = Callable[[Claim, Analysis], Evidence]


def _smooth(found: Analysis, family: str) -> list[Comparison]:
    return [one for one in found.comparisons[family] if one.ability in SMOOTH]


def _arm(family: str) -> _Make:
    return lambda claim, found: worst_offset(claim, _smooth(found, family))


def _gap(other: str) -> _Make:
    return lambda claim, found: error_gap(
        claim, found.points.of(LONG, GRID), other, LOSS, ABILITIES, seed=SEED
    )


def _kink(ability: str, metric: str) -> _Make:
    return lambda claim, found: kink_weight(claim, found.thresholds[ability], metric)


_EVIDENCE: Mapping[str, _Make] = {
    "sizes-share-a-curve": _arm(LONG),
    "finished-runs-on-the-curve": lambda claim, found: mean_offset(
        claim, _smooth(found, GRID), seed=SEED
    ),
    "architecture-on-the-curve": _arm(ARCHITECTURE),
    "optimizer-on-the-curve": _arm(OPTIMIZER),
    "corpus-leaves-the-curve": _arm(CORPUS),
    "loss-beats-flops": _gap(FLOPS),
    "loss-beats-tokens": _gap(TOKENS),
    "real-threshold-continuous": _kink("copy", PROBABILITY),
    "same-tipping-point": lambda claim, found: widest_shift(claim, found.thresholds["copy"]),
    "exact-match-delays-onset": lambda claim, found: over_runs(
        claim, found.thresholds["predictable"].delay, seed=SEED
    ),
    "made-threshold-goes-away": _kink("predictable", PROBABILITY),
    "random-answers": lambda claim, found: over_runs(claim, _random_gains(found.points), seed=SEED),
}
"""What each claim is judged by."""


def _answers(analysis: Analysis, claims: tuple[Finding, ...]) -> tuple[str, ...]:
    told = [f"{f.verdict}: {f.sentence} {f.reason}" for f in claims if f.verdict == "confirmed"]
    told += [f"{f.verdict}: {f.sentence} {f.reason}" for f in claims if f.verdict == "contradicted"]
    for found in analysis.thresholds.values():
        law = found.under(PROBABILITY)
        words = f"{found.ability}: the threshold is {found.nature}."
        if found.nature == "none":
            words = f"{found.ability}: no metric shows a threshold."
        told.append(words + (f" By probability: {law.reason}" if law else f" {found.reason}."))
    open_ = [f.claim for f in claims if f.verdict == "undetermined"]
    if open_:
        told.append(f"Left open: {', '.join(open_)}.")
    return tuple(told)


def _correlations(analysis: Analysis) -> FindingsTable:
    """Spearman and Pearson over the pooled checkpoints of the long runs, as in Table 2."""
    rows: list[tuple[Value, ...]] = []
    for comparison in analysis.comparisons[LONG]:
        found = comparison.found
        if found is None:
            rows.append((comparison.ability, None, None, 0, "undetermined", comparison.reason))
        else:
            values = (found.spearman, found.pearson, found.n, found.verdict, found.reason)
            rows.append((comparison.ability, *values))
    return FindingsTable(
        id="correlations",
        title="Ability and loss, pooled checkpoints of the long runs",
        columns=("ability", "Spearman", "Pearson", "points", "one curve?", "why"),
        rows=tuple(rows),
        note="Du et al., Table 2. The verdict is that of laws.collapse without controls.",
    )


def _offsets(analysis: Analysis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (family, str(one.run).partition("/")[2], comparison.ability, axis.partition(":")[0],
         one.points, one.offset.value, one.offset.low, one.offset.high)
        for family in FAMILIES
        for axis in (LOSS, PLAIN_LOSS)
        for ability in ABILITIES
        for comparison in (compare(analysis.points, family, ability, axis),)
        for one in comparison.offsets
    ]  # fmt: skip
    return FindingsTable(
        id="offsets",
        title="Every run against the curve of the long runs at equal loss",
        columns=(
            "family",
            "run",
            "ability",
            "loss",
            "checkpoints",
            "offset (points)",
            "low",
            "high",
        ),
        rows=tuple(rows),
        note="90% intervals. A run without overlap in the loss is left out. On a steep curve a "
        "small difference of the loss is a large offset. The loss called plain is that of "
        "sentences without a task: learning a task does not lower it by itself.",
    )


def _thresholds(analysis: Analysis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = []
    for found in analysis.thresholds.values():
        for metric in (EXACT, ACCURACY, PROBABILITY, BRIER):
            law = found.under(metric)
            if law is not None:
                rows.append((found.ability, metric, *_threshold_row(law), found.nature))
    return FindingsTable(
        id="thresholds",
        title="The same threshold under each metric?",
        columns=("ability", "metric", "verdict", "threshold", "low", "high", "weight of a kink",
                 "nothing known below", "the threshold is"),
        rows=tuple(rows),
        note="Thresholds in nats per token of the held-out text, 95% intervals over runs. Exact "
        "match is of whole answers, the others are of single steps among four options.",
    )  # fmt: skip


def _threshold_row(law: Emergence) -> tuple[Value, ...]:
    low, high = law.ci or (None, None)
    return law.verdict, law.threshold, low, high, law.kink_weight, law.unknown_below
