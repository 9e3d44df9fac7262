"""Checkpoints at equal perplexity: the best choice there is, and refusals where there is none."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.errors import Refused
from isoloss.studies.trajectories.equal_perplexity import (
    common_range,
    equal_grid,
    falls,
    nearest_in_order,
    passes,
)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 4))
def test_the_choice_of_checkpoints_is_the_best_of_all(seed, points, more):
    rng = np.random.default_rng(seed)
    targets = np.sort(rng.uniform(2, 6, points))[::-1]
    nats = rng.uniform(2, 6, points + more)  # losses may rise for a while
    cost = [((nats[list(c)] - targets) ** 2).sum() for c in combinations(range(len(nats)), points)]
    pick = nearest_in_order(nats, targets)
    assert (np.diff(pick) > 0).all()
    assert ((nats[pick] - targets) ** 2).sum() == pytest.approx(min(cost), rel=1e-12)


def curve(speed, checkpoints):
    return 3.0 + 4.0 * np.exp(-speed * np.arange(checkpoints) / checkpoints)


def test_runs_of_one_curve_at_different_speeds_meet_within_a_checkpoint():
    nats = [curve(2.0, 12), curve(4.0, 40), curve(6.0, 90)]
    grid = equal_grid(nats, ["a", "b", "c"])
    assert {len(pick) for pick in grid.picks} == {len(grid.targets_nats)}
    assert (np.diff(grid.targets_nats) <= 0).all()
    for loss, pick, gap in zip(nats, grid.picks, grid.gaps_nats, strict=True):
        assert gap == pytest.approx(loss[pick] - grid.targets_nats, abs=1e-15)
        # half of the widest step between neighbouring checkpoints
        assert np.abs(gap).max() <= np.abs(np.diff(loss)).max() / 2 + 1e-12
    assert grid.worst_gap_nats == max(np.abs(gap).max() for gap in grid.gaps_nats)
    assert 0 < grid.mean_gap_nats <= grid.worst_gap_nats


def test_the_ceiling_cuts_the_common_range():
    nats = [curve(3.0, 20), curve(4.0, 20)]
    assert common_range(nats, ["a", "b"]).high == 7.0
    assert common_range(nats, ["a", "b"], ceiling_nats=5.0).high == 5.0
    assert equal_grid(nats, ["a", "b"], ceiling_nats=5.0).targets_nats[0] <= 5.0
    with pytest.raises(Refused, match="run a never knows more than how frequent"):
        common_range(nats, ["a", "b"], ceiling_nats=3.1)


def test_runs_without_a_common_loss_are_refused_and_both_named():
    with pytest.raises(Refused, match="runs small and large have no loss in common"):
        equal_grid([curve(0.2, 9), curve(0.2, 9) - 2], ["small", "large"])
    assert (
        len(equal_grid([curve(3.0, 30), curve(3.0, 30)[::8]], ["a", "b"], fewest=3).picks[0]) == 4
    )
    with pytest.raises(Refused, match="run b has too few checkpoints"):
        equal_grid([curve(3.0, 30), curve(3.0, 30)[::15]], ["a", "b"])


def test_pairs_cut_the_range_evenly_and_leave_out_runs_that_do_not_move():
    fine, coarse = curve(3.0, 60), np.array([7.0, 3.3])
    found = falls([fine, coarse], ["fine", "coarse"])
    assert len(found) == 3
    sizes = [fall.high_nats - fall.low_nats for fall in found]
    assert sizes == pytest.approx([sizes[0]] * 3, rel=1e-12)
    assert [fall.end[1] for fall in found] == [-1, -1, -1]
    for fall in found:
        for place, level in ((fall.begin[0], fall.high_nats), (fall.end[0], fall.low_nats)):
            assert np.interp(place, np.arange(60), fine) == pytest.approx(level, rel=1e-12)
    assert found[0].widest_bracket_nats == pytest.approx(3.7, rel=1e-12)
    assert all(fall.begin[0] < fall.end[0] for fall in found)
    assert found[0].name == "perplexity 1097 to 319.5"


def test_a_loss_that_rises_for_a_while_is_passed_where_it_is_first_reached():
    nats = np.array([5.0, 4.0, 4.5, 3.0])
    assert passes(nats, 4.25) == 0.75 and passes(nats, 3.75) == 2.5
    assert passes(nats, 5.0) == 0.0 and passes(nats, 3.0) == 3.0
    assert passes(nats, 3.0 - 1e-15) == 3.0
