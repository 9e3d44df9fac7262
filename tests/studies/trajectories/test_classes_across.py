"""Shares of classes by start and run, and what the rule finds where nothing happens."""

import numpy as np
import pytest

from isoloss.errors import BadRequest
from isoloss.laws.token_rule import KINDS, TrendRule
from isoloss.store import Store
from isoloss.store.token_series import token_series
from isoloss.studies.trajectories import token_runs as module
from isoloss.studies.trajectories.classes_across import (
    class_shares,
    classes_by_start,
    driftless_nulls,
)
from isoloss.studies.trajectories.token_classes import classify_tokens
from token_stores import planted, put_run

RULES = {
    "paper": TrendRule(),
    "released": TrendRule(trend="released"),
    "robust": TrendRule(trend="robust", turns=True),
}


def autoregressions(tokens, checkpoints, rho, seed, sigma=0.05):
    """Driftless losses around levels of their own."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((checkpoints, tokens))
    for i in range(1, checkpoints):
        noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return (rng.uniform(1.0, 4.0, tokens) + sigma * noise).astype(np.float32)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("across") / "RUN")
    put_run(store, planted(4_000, 20, 0), model="learns")
    for rho in (0.0, 0.8):
        put_run(store, autoregressions(4_000, 20, rho, 1), model=f"rho{rho}")
    return store


@pytest.mark.parametrize("name", RULES)
def test_each_start_has_the_classes_that_it_has_alone(kept, monkeypatch, name):
    monkeypatch.setattr(module, "STRETCH_BYTES", 4 * 20 * 1_500)
    series = token_series(kept, "text", run="learns")
    found = classes_by_start(series, starts=(0.1, 0.4, 0.7), rule=RULES[name])
    for one in found:
        alone = classify_tokens(kept, series, start=one.start, rule=RULES[name])
        # the correlation of the robust rule is pooled over other stretches of tokens
        assert (one.codes != alone.kinds()).mean() <= (0.002 if name == "robust" else 0.0)
        assert one.checkpoints == 20 - alone.first


def test_starts_that_leave_too_few_checkpoints_are_left_out(kept):
    series = token_series(kept, "text", run="learns")
    found = classes_by_start(series, starts=(0.5, 0.96))
    assert [one.start for one in found] == [0.5]
    with pytest.raises(BadRequest, match="too few checkpoints for a trend"):
        classes_by_start(series, starts=(0.96,))
    with pytest.raises(BadRequest, match="without false-discovery control"):
        classes_by_start(series, rule=TrendRule(false_discovery=True))


def test_shares_are_counts_and_their_intervals_are_of_documents():
    rng = np.random.default_rng(0)
    codes, block = rng.integers(0, 4, 3_000).astype(np.int8), np.arange(3_000) // 30
    # every document is of one kind: a token says as much as its whole document
    whole = np.repeat(rng.integers(0, 4, 100), 30).astype(np.int8)
    for table, independent in ((codes, 3_000), (whole, 100)):
        found = class_shares(table, block, seed=1)
        assert list(found) == list(KINDS)
        assert sum(one.value for one in found.values()) == pytest.approx(1.0, rel=1e-12)
        for i, kind in enumerate(KINDS[:4]):
            share = (table == i).mean()
            assert found[kind].value == pytest.approx(share, rel=1e-12)
            half = 1.96 * np.sqrt(share * (1 - share) / independent)
            # 499 resamples tell a quantile to about a tenth of the half width; twice that
            assert found[kind].high - found[kind].low == pytest.approx(2 * half, rel=0.25)
    assert np.isnan(class_shares(codes, np.zeros(3_000, int), seed=1)["upward"].low)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_fitted_null_has_the_classes_of_driftless_tokens(kept, rho):
    series = token_series(kept, "text", run=f"rho{rho}")
    (null,) = driftless_nulls(series, starts=(0.1,))
    codes = classes_by_start(series, starts=(0.1,))[0].codes
    assert null.rho == pytest.approx(rho, abs=0.04)  # 4,000 series of 18 points, sd .01
    assert null.sigma_nats == pytest.approx(0.05, rel=0.08)
    for i, kind in enumerate(KINDS[:4]):
        # shares of 4,000 tokens: sd at most .008, and rho is off by up to .02
        assert null.shares[kind] == pytest.approx((codes == i).mean(), abs=0.035)
    expected = 0.05 if rho == 0 else 0.5
    assert null.false_trends == pytest.approx(expected, abs=0.02 if rho == 0 else 0.12)


def test_the_null_is_the_same_for_the_same_run(kept):
    series = token_series(kept, "text", run="learns")
    assert driftless_nulls(series) == driftless_nulls(series)
    assert len(driftless_nulls(series)) == len(classes_by_start(series))
