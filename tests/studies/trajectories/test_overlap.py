"""Overlap of runs on planted tokens: what is shared is found, what is not is not."""

import numpy as np
import pytest

from isoloss.laws.correlated import Interval
from isoloss.studies.claims import Claim, judge
from isoloss.studies.trajectories.agreement import between_sizes, evidence, short_of_seeds
from isoloss.studies.trajectories.equal_perplexity import falls
from isoloss.studies.trajectories.overlap import (
    Overlap,
    dealt_within,
    fall_overlaps,
    largest_falls,
    overlaps,
    shared_by_chance,
)
from isoloss.studies.trajectories.token_runs import read_overall, token_runs
from isoloss.studies.trajectories.token_traits import token_traits
from studies.trajectories.planted_runs import TOKENS, learned_sets, planted_family

SHARED = Claim(
    id="a", study="s", sentence="sets are shared", source="us", statistic="log odds ratio",
    unit="log odds", direction="greater", smallest_effect=0.7, minimum_runs=4, control="",
)  # fmt: skip
TO_SEEDS = SHARED.model_copy(update={"direction": "none", "smallest_effect": 0.5})


def kept(path, shared):
    sets = learned_sets(5, shared=shared)
    store = planted_family(
        path, sets, sizes=(100, 300, 300, 900, 3_000), speeds=(3.0, 4.0, 4.0, 5.0, 6.0)
    )
    runs = token_runs(store, "text")
    return runs, read_overall(runs), token_traits(runs), sets


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("halves") / "RUN", 0.5)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("strangers") / "RUN", 0.0)


def test_the_largest_falls_are_the_tokens_that_were_learned(halves):
    runs, overall, _, sets = halves
    for fall in falls(overall.nats, runs.names):
        for chosen, learned in zip(largest_falls(runs, overall, fall, 0.1), sets, strict=True):
            assert chosen.sum() == TOKENS // 10
            assert learned[chosen].mean() > 0.97  # falls of .3 nats and more against noise of .04


def test_overlap_of_planted_sets_is_the_odds_ratio_they_were_drawn_with(halves):
    runs, overall, traits, sets = halves
    found = overlaps("learned", sets, runs, overall, traits, seed=0)
    # a fifth is learned: half of the tokens by all runs alike, half by each run for itself
    both = 0.25 * 0.2 + 0.75 * 0.2**2
    truth = np.log(both * (1 - 2 * 0.2 + both) / (0.2 - both) ** 2)
    assert len(found) == 10 and sum(one.seeds for one in found) == 1
    for one in found:
        spread = (one.log_odds.high - one.log_odds.low) / 4
        assert abs(one.log_odds.value - truth) < 5 * spread  # pairs of one planting move together
        assert abs(one.shuffled) < 0.1  # four dealings of 1,200 tokens: sd .04
        assert one.shares == pytest.approx((0.2, 0.2), abs=0.02)


def test_sizes_that_share_as_much_as_seeds_are_found_to(halves):
    runs, overall, traits, _ = halves
    found = fall_overlaps(runs, overall, traits, falls(overall.nats, runs.names), seed=0)
    assert len(found) == 30
    shared = judge(SHARED, evidence(SHARED, between_sizes(found), found))
    ceiling = judge(TO_SEEDS, evidence(TO_SEEDS, short_of_seeds(found), found))
    assert (shared.verdict, ceiling.verdict) == ("confirmed", "confirmed"), (shared, ceiling)
    assert shared.n == 5 and "1 pairs of seeds" in shared.reason


def test_runs_that_learn_tokens_of_their_own_share_nothing(strangers):
    runs, overall, traits, _ = strangers
    found = fall_overlaps(runs, overall, traits, falls(overall.nats, runs.names), seed=0)
    agreement = between_sizes(found)
    assert agreement.interval.low < 0 < agreement.interval.high
    assert judge(SHARED, evidence(SHARED, agreement, found)).verdict == "no effect of this size"


def test_agreement_that_frequency_makes_is_no_overlap(strangers):
    """Both runs learn rare tokens: without strata they seem to agree."""
    runs, overall, traits, _ = strangers
    rng = np.random.default_rng(0)
    chance = np.where(traits.frequency < 3, 0.6, 0.05)
    sets = [rng.random(TOKENS) < chance for _ in runs.names]
    for one in overlaps("rare", sets, runs, overall, traits, seed=0):
        spread = (one.log_odds.high - one.log_odds.low) / 4
        assert abs(one.log_odds.value) < 4 * spread and one.crude > 1.0


def test_sets_too_small_to_tell_are_not_told(halves):
    runs, overall, traits, _ = halves
    few = [np.arange(TOKENS) < 200 for _ in runs.names]
    assert shared_by_chance(np.array([[[10.0, 10.0], [20.0, 40.0]]])) == pytest.approx(7.5)
    for one in overlaps("few", few, runs, overall, traits, seed=0):
        assert np.isnan(one.log_odds.value) and np.isnan(one.drawn).all()
    nothing = overlaps("few", few, runs, overall, traits, seed=0)
    assert (
        judge(SHARED, evidence(SHARED, between_sizes(nothing), nothing)).verdict == "undetermined"
    )


def test_a_run_without_two_checkpoints_is_left_out(halves):
    runs, overall, traits, sets = halves
    found = overlaps("some", [None, *sets[1:]], runs, overall, traits, seed=0)
    assert len(found) == 6 and runs.names[0] not in {one.first for one in found}


def test_dealing_keeps_the_number_in_each_stratum():
    rng = np.random.default_rng(1)
    strata, chosen = rng.integers(0, 7, 5_000), rng.random(5_000) < 0.3
    dealt = dealt_within(chosen, strata, seed=0)
    assert (np.bincount(strata, dealt) == np.bincount(strata, chosen)).all()
    assert 0.2 < (dealt & chosen).mean() / chosen.mean() < 0.4


def pair(first, second, value, *, what="a", seeds=False, shuffled=0.0):
    return Overlap(
        what=what, first=first, second=second, seeds=seeds, log_odds=Interval(value, value, value),
        crude=value, shuffled=shuffled, shares=(0.1, 0.1), drawn=np.full(5, value),
    )  # fmt: skip


def test_the_standard_error_of_runs_is_the_jackknife():
    effect = {"a": 0.0, "b": 0.2, "c": 0.5, "d": 1.0}
    names = list(effect)
    found = [pair(p, q, effect[p] + effect[q]) for i, q in enumerate(names) for p in names[:i]]
    agreement = between_sizes(found)
    values = np.array(list(effect.values()))
    # the mean over pairs of a sum of two effects is twice their mean
    assert agreement.value == pytest.approx(2 * values.mean(), rel=1e-12)
    without = [2 * np.delete(values, i).mean() for i in range(4)]
    expected = np.sqrt(3 / 4 * ((without - np.mean(without)) ** 2).sum())
    assert agreement.from_runs == pytest.approx(expected, rel=1e-12)
    assert agreement.from_documents == 0.0 and agreement.runs == 4


def test_a_control_that_overlaps_leaves_the_claim_open():
    names = ["a", "b", "c", "d"]
    found = [pair(p, q, 2.0, shuffled=0.4) for i, q in enumerate(names) for p in names[:i]]
    judged = judge(SHARED, evidence(SHARED, between_sizes(found), found))
    assert judged.verdict == "undetermined" and "control fails" in judged.reason


def test_three_runs_and_no_seeds_say_what_is_missing():
    found = [pair("a", "b", 1.0), pair("a", "c", 1.0), pair("b", "c", 1.0)]
    assert judge(SHARED, evidence(SHARED, between_sizes(found), found)).verdict == "undetermined"
    assert np.isnan(short_of_seeds(found).value)
