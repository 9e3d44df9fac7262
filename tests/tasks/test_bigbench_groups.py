"""The published groups hold as many tasks as the paper counts."""

from isoloss.tasks.bigbench_groups import BREAKTHROUGH, LINEAR, MULTIPLE_CHOICE


def test_groups_have_the_published_sizes_and_lie_in_the_whole():
    assert (len(set(MULTIPLE_CHOICE)), len(set(LINEAR)), len(set(BREAKTHROUGH))) == (74, 12, 6)
    assert {*LINEAR, *BREAKTHROUGH} <= {*MULTIPLE_CHOICE}
    assert not {*LINEAR} & {*BREAKTHROUGH}
