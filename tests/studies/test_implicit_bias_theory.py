"""The theory's findings: that claims are judged by what was simulated, and by nothing else."""

import math

import pytest

from isoloss.estimate import Estimate
from isoloss.studies.claims import judge, load_claims
from isoloss.studies.implicit_bias.theory import (
    ADVANTAGE,
    DRIFT,
    PROMISE,
    RESCALED,
    SHARPER,
    theory,
    theory_answers,
    theory_evidence,
    theory_figures,
    theory_tables,
)

CLAIMS = {claim.id: claim for claim in load_claims("implicit-bias")}


@pytest.fixture(scope="module")
def found():
    return theory(drift_runs=16, drift_rates=(0.2, 0.1), seed=0)


def verdict(found, claim):
    return judge(CLAIMS[claim], theory_evidence(found, CLAIMS)[claim]).verdict


def test_every_claim_of_the_theory_has_evidence_with_an_interval(found):
    evidence = theory_evidence(found, CLAIMS)
    assert set(evidence) == {DRIFT, RESCALED, SHARPER, PROMISE, ADVANTAGE} <= set(CLAIMS)
    for one in evidence.values():
        assert one.low is not None and one.low < one.estimate < one.high
        assert one.control_holds and one.control


def test_claims_on_brackets_are_confirmed(found):
    assert [verdict(found, claim) for claim in (SHARPER, PROMISE, ADVANTAGE)] == ["confirmed"] * 3


def test_a_slope_of_twice_the_prediction_is_contradicted(found):
    limits = tuple(
        one._replace(ratio=Estimate(value=2.0, stderr=0.01, n=96)) if one.ratio else one
        for one in found.drift.limits
    )
    wrong = found._replace(drift=found.drift._replace(limits=limits))
    assert verdict(wrong, DRIFT) == verdict(wrong, RESCALED) == "contradicted"


def test_movement_at_the_flattest_minimum_fails_the_control(found):
    moving = Estimate(value=-0.1, stderr=0.001, n=96)
    limits = tuple(
        one._replace(measured=moving) if one.start == "flattest" else one
        for one in found.drift.limits
    )
    wrong = found._replace(drift=found.drift._replace(limits=limits))
    finding = judge(CLAIMS[DRIFT], theory_evidence(wrong, CLAIMS)[DRIFT])
    assert finding.verdict == "undetermined" and "control fails" in finding.reason


def test_unequal_losses_of_the_brackets_fail_the_control(found):
    ratios = tuple(r._replace(loss_gap_nats=0.01) for r in found.dyck.ratios)
    wrong = found._replace(dyck=found.dyck._replace(ratios=ratios))
    assert verdict(wrong, SHARPER) == verdict(wrong, ADVANTAGE) == "undetermined"


def test_tables_and_figures_hold_one_value_a_column(found):
    tables, figures = theory_tables(found), theory_figures(found)
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    for figure in figures:
        columns = {figure.x.column, figure.y.column, figure.by, figure.panel, figure.low}
        for row in figure.rows:
            assert columns <= set(row)
            assert row["layer"] == "fit" or row["low"] <= row[figure.y.column] <= row["high"]
    ids = [part.id for part in (*tables, *figures)]
    assert len(set(ids)) == len(ids)


def test_the_answers_give_the_numbers_of_the_tables(found):
    ratio = next(one.ratio for one in found.drift.limits if one.start == "random")
    drift, brackets = theory_answers(found)
    assert f"{ratio.value:.3f}" in drift
    middle = next(r for r in found.dyck.ratios if r.length == 8)
    assert f"{math.exp(middle.log_ratio.value):.0f} times as sharp" in brackets


def test_claims_of_the_theory_do_not_change_with_the_wording_of_another(found):
    changed = CLAIMS | {DRIFT: replace_effect(CLAIMS[DRIFT], 10.0)}
    same = theory_evidence(found, changed)
    assert same[RESCALED] == theory_evidence(found, CLAIMS)[RESCALED]


def replace_effect(claim, size):
    return claim.model_copy(update={"smallest_effect": size})


def test_the_same_seed_finds_the_same(found):
    again = theory(drift_runs=16, drift_rates=(0.2, 0.1), seed=0)
    assert again.dyck == found.dyck
    assert again.drift.limits == found.drift.limits
