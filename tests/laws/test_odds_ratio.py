"""Odds ratios within strata: against statsmodels, on planted truth, and where nothing is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.contingency_tables import StratifiedTable

from isoloss.errors import BadRequest
from isoloss.laws.odds_ratio import (
    block_weights,
    count_tables,
    mantel_haenszel,
    resampled_log_odds,
)


@given(arrays(np.float64, (6, 2, 2), elements=st.integers(1, 60)))
def test_equals_statsmodels_on_any_tables(tables):
    theirs = StratifiedTable(np.moveaxis(tables, 0, -1))
    ours = mantel_haenszel(tables)
    # sums of six float64 terms each; logs near 0 may cancel
    assert ours.log_odds == pytest.approx(theirs.logodds_pooled, rel=1e-10, abs=1e-12)
    assert ours.stderr == pytest.approx(theirs.logodds_pooled_se, rel=1e-10)


def planted(rng, log_odds, members, documents, pull=0.0):
    """Two sets whose odds ratio is the same in each of four strata, whose base rates differ."""
    stratum = rng.integers(0, 4, members)
    document = rng.integers(0, documents, members)
    base = np.array([-3.0, -1.0, 0.0, 2.0])[stratum]
    first = rng.random(members) < 1 / (1 + np.exp(-base))
    own = pull * rng.standard_normal(documents)[document]
    second = rng.random(members) < 1 / (1 + np.exp(-(base + log_odds * first + own)))
    return first, second, stratum, document


def test_agreement_that_strata_make_drops_out_and_planted_agreement_stays():
    rng = np.random.default_rng(0)
    for truth in (0.0, 1.5):
        first, second, stratum, document = planted(rng, truth, 40_000, 200)
        tables = count_tables(first, second, strata=stratum, blocks=document, shape=(200, 4))
        found = mantel_haenszel(tables.sum(axis=0))
        assert abs(found.log_odds - truth) < 4 * found.stderr  # 4 standard errors
        crude = mantel_haenszel(tables.sum(axis=(0, 1))[None])
        assert crude.log_odds > truth + 1  # rates from .05 to .88 make agreement by themselves


def test_resamples_of_documents_spread_as_estimates_do():
    """Documents pull at one of the sets: tokens are not independent, documents are."""
    rng = np.random.default_rng(1)
    estimates, spreads = [], []
    for _ in range(60):
        first, second, stratum, document = planted(rng, 0.8, 4_000, 80, pull=1.0)
        tables = count_tables(first, second, strata=stratum, blocks=document, shape=(80, 4))
        estimates.append(mantel_haenszel(tables.sum(axis=0)).log_odds)
        weights = block_weights(80, draws=199, rng=rng)
        spreads.append(resampled_log_odds(tables, weights).std())
    # 60 estimates tell their own spread to 9%, three of which are allowed
    assert np.mean(spreads) / np.std(estimates) == pytest.approx(1.0, abs=0.28)


def test_weights_of_one_give_the_estimate_itself():
    rng = np.random.default_rng(2)
    first, second, stratum, document = planted(rng, 1.0, 5_000, 30)
    tables = count_tables(first, second, strata=stratum, blocks=document, shape=(30, 5))
    again = resampled_log_odds(tables, np.ones((1, 30)))[0]
    assert again == pytest.approx(mantel_haenszel(tables.sum(axis=0)).log_odds, rel=1e-12)
    assert tables.sum() == 5_000 and (tables[:, 4] == 0).all()


def test_every_block_is_drawn_once_on_average():
    weights = block_weights(50, draws=400, rng=np.random.default_rng(3))
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.25)  # sd 1 / sqrt(400), 5 of them


def test_sets_that_never_differ_and_strata_without_news():
    same = mantel_haenszel([[[5, 0], [0, 7]]])
    assert same.log_odds == np.inf and np.isnan(same.stderr)
    empty = mantel_haenszel([[[0, 0], [3, 9]], [[0, 0], [0, 0]]])
    assert np.isnan(empty.log_odds) and empty.n == 0
    told = [[[5.0, 2.0], [3.0, 7.0]]]
    assert mantel_haenszel([*told, [[0, 0], [3, 9]]]).log_odds == mantel_haenszel(told).log_odds


def test_other_shapes_are_refused():
    with pytest.raises(BadRequest, match="2 x 2 tables"):
        mantel_haenszel([[1, 2], [3, 4]])
    with pytest.raises(BadRequest, match="2 x 2 tables"):
        mantel_haenszel([[[1, -2], [3, 4]]])
    with pytest.raises(BadRequest, match="a weight of every block"):
        resampled_log_odds(np.ones((3, 2, 2, 2)), np.ones((5, 4)))
