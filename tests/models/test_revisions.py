"""Revision names and step selections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadStudy, CheckpointMissing
from isoloss.models.revisions import (
    choose_revisions,
    parse_revision,
    parse_revisions,
    revision_name,
    select_steps,
)

OLMO = "stage{stage}-step{step}-tokens{tokens}B"
PYTHIA = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 144_000, 1000)]
steps = st.lists(st.integers(0, 10**6), min_size=1, max_size=200, unique=True)


@given(st.integers(0, 10**7), st.integers(0, 10**4), st.sampled_from("12"))
def test_a_name_that_was_written_reads_back(step, billions, stage):
    name = revision_name(OLMO, step=step, tokens=billions * 10**9, stage=stage)
    read = parse_revision(OLMO, name)
    assert (read.step, read.tokens_seen, read.stage) == (step, billions * 10**9, stage)


@pytest.mark.parametrize(
    ("suffix", "factor"), [("", 1), ("K", 10**3), ("M", 10**6), ("B", 10**9), ("T", 10**12)]
)
def test_the_letter_after_tokens_multiplies(suffix, factor):
    read = parse_revision("t{tokens}" + suffix, f"t3{suffix}")
    assert read.tokens_seen == 3 * factor
    assert revision_name("t{tokens}" + suffix, tokens=3 * factor) == f"t3{suffix}"


def test_a_fraction_of_a_unit_is_exact():
    assert parse_revision("{tokens}T", "1.1T").tokens_seen == 1_100_000_000_000


def test_names_that_do_not_follow_the_pattern_are_left_out():
    names = [("step10", "b"), ("main", "a"), ("step2", "c"), ("step2-old", "d"), ("xstep3", "e")]
    found = parse_revisions("step{step}", names)
    assert [(r.step, r.commit) for r in found] == [(2, "c"), (10, "b")]


def test_text_of_a_pattern_is_no_regular_expression():
    assert parse_revision("v1.0-{step}", "v1x0-3") is None
    assert parse_revision("v1.0-{step}", "v1.0-3").step == 3


@pytest.mark.parametrize("pattern", ["step{steps}", "{step}-{step}", "a{}"])
def test_a_wrong_field_is_named(pattern):
    with pytest.raises(BadStudy) as error:
        parse_revision(pattern, "step1")
    assert pattern in str(error.value)
    assert "step" in error.value.remedy


def test_a_field_without_a_value_is_named():
    with pytest.raises(BadStudy, match="value for tokens"):
        revision_name(OLMO, step=1, stage=1)


def test_a_missing_step_names_the_steps_around_it():
    with pytest.raises(CheckpointMissing) as error:
        select_steps([0, 1500], PYTHIA, "family 'toy-160m'")
    assert str(error.value).splitlines() == [
        "family 'toy-160m' has no checkpoint at step 1500.",
        "  asked:   step 1500",
        "  nearest: step 1000, step 2000     (154 steps known)",
        '  try:     drop 1500 from the list, or take steps = "all" or "log:20"',
    ]


@pytest.mark.parametrize(("step", "nearest"), [(-1, "step 0 "), (10**6, "step 143000 ")])
def test_beyond_the_ends_only_the_end_is_near(step, nearest):
    with pytest.raises(CheckpointMissing) as error:
        select_steps([step], PYTHIA, "m")
    assert error.value.nearest.startswith(nearest)


def test_a_repository_without_steps_says_so():
    with pytest.raises(CheckpointMissing) as error:
        select_steps([3], [], "m")
    assert error.value.nearest == "no step is known at all"


@given(steps, st.integers(1, 30))
def test_log_selections_exist_and_keep_both_ends(known, count):
    chosen = select_steps(f"log:{count}", known, "m")
    assert set(chosen) <= set(known)
    assert {chosen[0], chosen[-1]} == {min(known), max(known)}
    assert len(chosen) <= max(count, 2) + 1  # the first of the grid and the first of all differ
    assert list(chosen) == sorted(set(chosen))


def test_log_selection_of_pythia_is_spread_over_the_decades():
    chosen = select_steps("log:20", PYTHIA, "m")
    assert 17 <= len(chosen) <= 20
    decades = [sum(10**d <= s < 10 ** (d + 1) for s in chosen) for d in range(5)]
    assert min(decades) >= 3  # 20 points over 5.2 decades


@given(steps)
def test_all_and_the_open_range_are_everything(known):
    everything = tuple(sorted(known))
    assert select_steps("all", known, "m") == everything
    assert select_steps(f"0..{10**6}", known, "m") == everything
    assert select_steps("last:3", known, "m") == everything[-3:]


def test_a_range_takes_those_of_its_stride_that_exist():
    assert select_steps("0..3000:1000", PYTHIA, "m") == (0, 1000, 2000, 3000)
    assert select_steps("512..1000:488", PYTHIA, "m") == (512, 1000)
    with pytest.raises(CheckpointMissing, match="in the steps asked for"):
        select_steps("5..7", PYTHIA, "m")


@pytest.mark.parametrize("text", ["alll", "log:0", "log", "5..", "first:3", "0..10:0"])
def test_a_selection_that_cannot_be_read_is_shown(text):
    with pytest.raises(BadStudy, match="cannot be read") as error:
        select_steps(text, PYTHIA, "m")
    assert repr(text) in error.value.asked


def test_a_selection_applies_to_each_trajectory_of_a_repository():
    names = [f"stage1-step{s}-tokens{s}B" for s in (0, 10, 20)]
    names += [f"stage2-step{s}-tokens{s}B" for s in (0, 5)]
    revisions = parse_revisions(OLMO, [(name, None) for name in names])
    last = choose_revisions(revisions, "last:1", what="m")
    assert [(r.stage, r.step) for r in last] == [("1", 20), ("2", 5)]
    listed = choose_revisions(revisions, [0, 5], what="m")
    assert [(r.stage, r.step) for r in listed] == [("1", 0), ("2", 0), ("2", 5)]
    with pytest.raises(CheckpointMissing):
        choose_revisions(revisions, [7], what="m")


def test_a_pattern_without_fields_names_one_checkpoint_of_unknown_step():
    revisions = parse_revisions("main", [("main", "abc"), ("step1", "d")])
    (only,) = choose_revisions(revisions, "all", what="m")
    assert (only.name, only.step, only.commit) == ("main", None, "abc")


def test_an_empty_repository_has_nothing_to_choose_from():
    with pytest.raises(CheckpointMissing):
        choose_revisions((), "log:20", what="m")
