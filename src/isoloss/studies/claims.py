"""Claims that are written down before the first run, and the one rule that judges them all.

``claims.toml`` says what each study claims, by whom, in which unit, and how large an effect has to
be to matter. :func:`judge` maps an estimate with its interval to a verdict; no study has a rule of
its own.
"""

from __future__ import annotations

import importlib.resources
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from isoloss.config import Part, check
from isoloss.errors import BadRequest, nearest_name
from isoloss.studies.findings import Finding, Verdict

LEVEL = 0.05
"""Largest p-value, corrected for the claims of a study, at which a claim is decided."""

Direction = Literal["greater", "less", "differs", "none"]


class Claim(Part):
    """A sentence that a study puts to the test.

    Attributes:
        id: unique among all claims.
        study: whose it is.
        sentence: what is claimed.
        source: who claims it.
        statistic: what is estimated.
        unit: of the statistic and of the smallest effect.
        direction: ``greater`` and ``less`` claim an effect of that sign, ``differs`` one of either
            sign, ``none`` that there is none of a size that matters.
        smallest_effect: an effect below it does not matter.
        minimum_runs: with fewer units of replication nothing is decided.
        control: what must hold for the verdict to count.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    study: str
    sentence: str
    source: str
    statistic: str
    unit: str
    direction: Direction
    smallest_effect: Annotated[float, Field(gt=0)]
    minimum_runs: Annotated[int, Field(ge=1)]
    control: str


class _Claims(Part):
    claim: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured about a claim.

    Attributes:
        estimate: of the statistic; None where nothing could be estimated.
        low: lower end of its interval; None where the data allow none.
        high: its upper end.
        level: of the two-sided interval; .90 for an equivalence tested at 5% on each side.
        n: units of replication.
        p_value: two-sided; for a claim of no effect that of both one-sided tests.
        smallest_p: that this design can reach; 0 where it can reach any.
        control_holds: None where the control could not be looked at.
        control: what the control gave.
        note: why there is no estimate, or what else is to be known.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int = 0
    p_value: float | None = None
    smallest_p: float = 0.0
    control_holds: bool | None = None
    control: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Ruling:
    verdict: Verdict
    reason: str


def load_claims(study: str) -> tuple[Claim, ...]:
    """The claims of a study, in the order of the file.

    Raises:
        BadRequest: the study claims nothing.
    """
    text = importlib.resources.files("isoloss.studies").joinpath("claims.toml").read_text("utf-8")
    claims = check(tomllib.loads(text), _Claims, text=text, source="claims.toml").claim
    found = tuple(claim for claim in claims if claim.study == study)
    if not found:
        studies = sorted({claim.study for claim in claims})
        raise BadRequest(
            "no claim is written down for this study",
            asked=study,
            nearest=nearest_name(study, studies) or ", ".join(studies),
            remedy="add its claims to studies/claims.toml before the first run",
        )
    return found


def not_run(claim: Claim, reason: str) -> Finding:
    """The finding of a claim whose runs were not made."""
    return _finding(claim, Evidence(), _Ruling("not run", reason))


def judge(claim: Claim, evidence: Evidence) -> Finding:
    """Hold evidence against a claim: the one rule of all studies.

    Let [low, high] be the interval and d the smallest effect. In this order:

    - too few runs, no interval, a design whose smallest p-value is above .05, or a control that
      fails: *undetermined*;
    - the interval inside [-d, d]: *no effect of this size*, which for a claim of ``none`` is
      *confirmed*;
    - a claim of ``none``: *contradicted* where the interval lies wholly outside [-d, d];
    - any other: the interval on one side of 0 and the estimate at least d from it: *confirmed* on
      the claimed side, *contradicted* on the other;
    - else *undetermined*.

    Args:
        claim: as it was written down.
        evidence: what was measured.

    Returns:
        The finding; ``p_holm`` is left to :func:`holm`.
    """
    return _finding(claim, evidence, _rule(claim, evidence))


def holm(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Correct the p-values of a study's findings for their number, and its verdicts with them.

    A decision whose corrected p-value is above .05 becomes *undetermined*. Findings without a
    p-value count for nothing and stay as they are.

    Args:
        findings: all of one study.

    Returns:
        The findings in their order with ``p_holm``.

    Reference:
        Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6.
    """
    known = [i for i, f in enumerate(findings) if f.p_value is not None]
    ranked = sorted(known, key=lambda i: findings[i].p_value or 0.0)
    corrected: dict[int, float] = {}
    so_far = 0.0
    for rank, i in enumerate(ranked):
        so_far = max(so_far, min(1.0, (len(ranked) - rank) * (findings[i].p_value or 0.0)))
        corrected[i] = so_far
    return tuple(
        _corrected(finding, corrected[i]) if i in corrected else finding
        for i, finding in enumerate(findings)
    )


def _corrected(finding: Finding, p_holm: float) -> Finding:
    finding = replace(finding, p_holm=p_holm)
    if p_holm <= LEVEL or finding.verdict not in ("confirmed", "contradicted"):
        return finding
    reason = (
        f"{finding.reason} Alone it would be {finding.verdict}; corrected for the study's claims "
        f"p is {p_holm:.2g}."
    )
    return replace(finding, verdict="undetermined", reason=reason)


def _rule(claim: Claim, evidence: Evidence) -> _Ruling:
    estimate, low, high = evidence.estimate, evidence.low, evidence.high
    if estimate is None or low is None or high is None or not _finite(estimate, low, high):
        why = evidence.note or "the data allow no interval"
        return _Ruling("undetermined", f"Nothing is decided: {why}.")
    if evidence.n < claim.minimum_runs:
        why = f"{evidence.n} runs, and {claim.minimum_runs} were asked for"
        return _Ruling("undetermined", f"Too few units of replication: {why}.")
    if evidence.smallest_p > LEVEL:
        return _Ruling(
            "undetermined", f"The smallest p-value of this design is {evidence.smallest_p:.2g}."
        )
    if evidence.control_holds is False:
        return _Ruling("undetermined", f"The control fails: {evidence.control}.")
    size, unit = claim.smallest_effect, claim.unit
    where = f"{estimate:+.3g} [{low:+.3g}, {high:+.3g}] {unit}"
    if -size <= low and high <= size:
        inside: Verdict = "confirmed" if claim.direction == "none" else "no effect of this size"
        return _Ruling(inside, f"{where}: inside ±{size:g}.")
    if claim.direction == "none":
        if low > size or high < -size:
            return _Ruling("contradicted", f"{where}: wholly beyond ±{size:g}.")
        return _Ruling("undetermined", f"{where}: neither inside ±{size:g} nor wholly beyond it.")
    side = 1 if low > 0 and estimate >= size else -1 if high < 0 and estimate <= -size else 0
    if side == 0:
        return _Ruling(
            "undetermined", f"{where}: neither inside ±{size:g} nor surely as large as that."
        )
    claimed = {"greater": 1, "less": -1, "differs": side}[claim.direction]
    if side == claimed:
        return _Ruling("confirmed", f"{where}: beyond 0, and at least {size:g} from it.")
    return _Ruling("contradicted", f"{where}: on the other side of 0.")


def _finding(claim: Claim, evidence: Evidence, ruling: _Ruling) -> Finding:
    note = f" {evidence.note[:1].upper()}{evidence.note[1:]}." if evidence.note else ""
    shown = ruling.reason if evidence.estimate is None else ruling.reason + note
    return Finding(
        claim=claim.id,
        sentence=claim.sentence,
        source=claim.source,
        verdict=ruling.verdict,
        statistic=claim.statistic,
        unit=claim.unit,
        smallest_effect=claim.smallest_effect,
        estimate=evidence.estimate,
        low=evidence.low,
        high=evidence.high,
        level=evidence.level,
        n=evidence.n,
        p_value=evidence.p_value,
        control=evidence.control or claim.control,
        reason=shown,
    )


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))
