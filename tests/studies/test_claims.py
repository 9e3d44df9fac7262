"""The one rule for claims: its verdicts, Holm's correction, and how often it errs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadRequest
from isoloss.studies.claims import Claim, Evidence, holm, judge, load_claims, not_run
from isoloss.studies.evidence import from_interval, over_runs

GREATER = Claim(
    id="a", study="s", sentence="a is better than b", source="us", statistic="difference",
    unit="points", direction="greater", smallest_effect=1.0, minimum_runs=3, control="",
)  # fmt: skip
LESS = GREATER.model_copy(update={"direction": "less"})
NONE = GREATER.model_copy(update={"direction": "none"})
DIFFERS = GREATER.model_copy(update={"direction": "differs"})
RANK = {"contradicted": 0, "undetermined": 1, "no effect of this size": 1, "confirmed": 2}

numbers = st.floats(-5, 5, allow_subnormal=False)
widths = st.floats(0, 5, allow_subnormal=False)


def seen(estimate, below, above, n=8, **more):
    return Evidence(estimate=estimate, low=estimate - below, high=estimate + above, n=n, **more)


@pytest.mark.parametrize(
    ("claim", "low", "estimate", "high", "verdict"),
    [
        (GREATER, 0.2, 2.0, 3.8, "confirmed"),
        (GREATER, 0.2, 0.9, 1.6, "undetermined"),  # surely above 0, not as large as claimed
        (GREATER, -0.9, 0.1, 0.8, "no effect of this size"),
        (GREATER, -3.0, -2.0, -1.0, "contradicted"),
        (GREATER, -0.1, 2.0, 4.1, "undetermined"),
        (LESS, -3.0, -2.0, -1.0, "confirmed"),
        (LESS, 0.2, 2.0, 3.8, "contradicted"),
        (DIFFERS, -3.0, -2.0, -1.0, "confirmed"),
        (DIFFERS, 1.0, 2.0, 3.0, "confirmed"),
        (DIFFERS, -0.5, 0.0, 0.5, "no effect of this size"),
        (NONE, -0.9, 0.1, 0.8, "confirmed"),
        (NONE, 1.1, 2.0, 3.0, "contradicted"),
        (NONE, 0.5, 2.0, 3.0, "undetermined"),
        (NONE, -0.9, 0.2, 1.1, "undetermined"),
    ],
)
def test_the_rule_reads_estimate_and_interval(claim, low, estimate, high, verdict):
    found = judge(claim, Evidence(estimate=estimate, low=low, high=high, n=8))
    assert found.verdict == verdict
    assert f"{estimate:+.3g}" in found.reason


@given(numbers, widths, widths, st.floats(0, 5))
def test_more_of_the_claimed_effect_never_makes_a_verdict_worse(estimate, below, above, more):
    ranks = [
        RANK[judge(GREATER, seen(e, below, above)).verdict] for e in (estimate, estimate + more)
    ]
    assert ranks[0] <= ranks[1]


@given(numbers, widths, widths)
def test_the_opposite_claim_has_the_opposite_verdict(estimate, below, above):
    one = judge(GREATER, seen(estimate, below, above)).verdict
    other = judge(LESS, seen(estimate, below, above)).verdict
    assert RANK[one] + RANK[other] == 2


@given(numbers, widths, widths, st.sampled_from([GREATER, LESS, NONE, DIFFERS]), st.integers(-6, 6))
def test_the_unit_does_not_matter(estimate, below, above, claim, power):
    # powers of 2, so that no rounding moves an end across a bound
    scale = 2.0**power
    larger = claim.model_copy(update={"smallest_effect": claim.smallest_effect * scale})
    scaled = seen(estimate * scale, below * scale, above * scale)
    assert judge(claim, seen(estimate, below, above)).verdict == judge(larger, scaled).verdict


@given(numbers, widths, widths)
def test_no_interval_both_is_and_is_not_an_effect(estimate, below, above):
    effect = judge(DIFFERS, seen(estimate, below, above)).verdict
    absence = judge(NONE, seen(estimate, below, above)).verdict
    assert (effect == "no effect of this size") == (absence == "confirmed")
    assert not (effect == "confirmed" and absence == "confirmed")


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (Evidence(n=8, note="all scores are equal"), "all scores are equal"),
        (seen(float("nan"), 1, 1), "no interval"),
        (seen(9.0, 1, 1, n=2), "2 runs, and 3"),
        (seen(9.0, 1, 1, smallest_p=0.125), "0.12"),
        (
            seen(9.0, 1, 1, control_holds=False, control="noise has an effect"),
            "noise has an effect",
        ),
    ],
)
def test_nothing_is_decided_without_the_means_to_decide_it(evidence, why):
    for claim in (GREATER, LESS, NONE, DIFFERS):
        found = judge(claim, evidence)
        assert found.verdict == "undetermined"
        assert why in found.reason


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_holm_is_that_of_statsmodels(size):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for seed in range(20):
        # squares: some are small enough to be decided; rounding makes ties
        p_values = np.random.default_rng([size, seed]).random(size).round(2) ** 2
        findings = [judge(GREATER, seen(2.0, 1, 1, p_value=float(p))) for p in p_values]
        corrected = holm([*findings, not_run(GREATER, "no texts")])
        expected = multitest.multipletests(p_values, method="holm")[1]
        got = [f.p_holm for f in corrected[:-1]]
        assert got == pytest.approx(expected, abs=1e-12)
        decided = ["confirmed" if p <= 0.05 else "undetermined" for p in got]
        assert [f.verdict for f in corrected] == [*decided, "not run"]


def test_holm_against_the_step_down_by_hand():
    findings = [judge(GREATER, seen(2.0, 1, 1, p_value=p)) for p in (0.04, 0.01, 0.03, 0.02)]
    # in rising order .01 x 4, .02 x 3, .03 x 2, .04 x 1, then the running maximum
    assert [f.p_holm for f in holm(findings)] == pytest.approx([0.06, 0.04, 0.06, 0.06])


def shares(claim, truth, runs, spread=1.0, replications=200):
    verdicts = []
    for seed in range(replications):
        values = truth + spread * np.random.default_rng([7, seed]).standard_normal(runs)
        verdicts.append(judge(claim, over_runs(claim, values, seed=seed, draws=199)).verdict)
    return {verdict: verdicts.count(verdict) / replications for verdict in RANK}


def test_without_an_effect_a_claim_is_rarely_decided():
    # nominal 2.5% on each side; 4 sd of 200 replications are .044
    found = shares(GREATER, truth=0.0, runs=8)
    assert found["confirmed"] <= 0.069
    assert found["contradicted"] <= 0.069


def test_at_the_margin_no_effect_is_rarely_confirmed():
    # nominal 5%; 4 sd of 200 replications are .062
    assert shares(NONE, truth=1.0, runs=8, spread=0.5)["confirmed"] <= 0.112


def test_a_planted_effect_is_found_and_so_is_its_absence():
    assert shares(GREATER, truth=3.0, runs=8)["confirmed"] > 0.95
    assert shares(NONE, truth=0.0, runs=8, spread=0.3)["confirmed"] > 0.9
    assert shares(NONE, truth=3.0, runs=8)["contradicted"] > 0.8


@pytest.mark.parametrize("runs", [4, 9])
@pytest.mark.parametrize("mean", [0.3, 1.0, 2.0])
def test_the_p_value_never_contradicts_the_interval(mean, runs):
    for seed in range(20):
        values = np.random.default_rng([3, seed]).normal(mean, 0.5, runs)
        found = over_runs(GREATER, values, seed=seed, draws=199)
        # 12 halvings leave 2^-12
        beyond = found.low > 0 or found.high < 0
        assert beyond == (found.p_value <= 0.05) or abs(found.p_value - 0.05) < 2**-11
        found = over_runs(NONE, values, seed=seed, draws=199)
        decided = judge(NONE, found).verdict in ("confirmed", "contradicted")
        assert decided == (found.p_value <= 0.05) or abs(found.p_value - 0.05) < 2**-11


def test_the_p_value_of_few_runs_is_that_of_a_t_test():
    stats = pytest.importorskip("scipy.stats")
    values = np.array([0.5, 1.5, 1.0, 2.5])
    expected = stats.ttest_1samp(values, 0.0).pvalue
    # 12 halvings leave 2^-12
    assert over_runs(GREATER, values, seed=0).p_value == pytest.approx(expected, abs=2**-12)
    found = over_runs(GREATER, values, seed=0)
    from isoloss.laws.correlated import Interval

    again = from_interval(
        GREATER, Interval(found.estimate, found.low, found.high), level=0.95, dof=3, n=4
    )
    assert again.p_value == pytest.approx(expected, rel=1e-9)
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_one_run_has_no_interval():
    found = over_runs(GREATER, [2.0, float("nan")], seed=0)
    assert (found.n, found.low, found.p_value) == (1, None, None)
    assert judge(GREATER, found).verdict == "undetermined"


def test_the_claims_of_the_package_are_whole():
    claims = load_claims("emergence")
    assert len({claim.id for claim in claims}) == len(claims) >= 12
    for claim in claims:
        assert claim.sentence.endswith(".")
        assert claim.source


def test_a_study_without_claims_is_an_error_that_names_the_nearest():
    with pytest.raises(BadRequest, match="no claim") as caught:
        load_claims("emergense")
    assert caught.value.nearest == "emergence"


def test_a_corrected_finding_keeps_its_evidence():
    finding = judge(GREATER, seen(2.0, 1, 1, p_value=0.03))
    two = holm([finding, finding])
    assert two[0] == replace(finding, p_holm=0.06, verdict="undetermined", reason=two[0].reason)
    assert "Alone it would be confirmed" in two[0].reason
