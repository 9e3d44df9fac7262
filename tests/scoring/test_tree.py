"""The tree of prefixes: found whole, and shared where that saves."""

from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.scoring.tree import grow

SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple), unique=True, max_size=20
)


def hangers(branch, above=()):
    """Every branch and leaf with the branches above it."""
    yield branch, above
    for child in branch.branches:
        yield from hangers(child, (*above, branch))


@settings(deadline=None)  # the machine may be busy
@given(SEQUENCES, st.sampled_from([0, 5]))
def test_every_input_hangs_once_on_prefixes_of_its_own(sequences, lowest):
    forest = grow(sequences, range(len(sequences)), lowest=lowest)
    leaves = [leaf for branch, _ in hangers(forest.root) for leaf in branch.leaves]
    assert len(leaves) == len(set(leaves))
    for s, host in forest.host.items():
        assert host in leaves
        assert sequences[host][: len(sequences[s])] == sequences[s]
    assert set(forest.host) == set(range(len(sequences)))
    for branch, above in hangers(forest.root):
        prefix = sequences[branch.example][: branch.depth] if branch.depth else ()
        assert len(prefix) == branch.depth
        assert branch.depth == 0 or branch.depth > lowest
        for over in above:
            assert over.depth < branch.depth
            assert sequences[over.example][: over.depth] == prefix[: over.depth]
        for leaf in branch.leaves:
            assert sequences[leaf][: branch.depth] == prefix
            assert len(sequences[leaf]) > branch.depth


def test_nested_inputs_end_in_the_longest_one_and_need_no_recursion():
    sequences = [tuple([1] * n) for n in range(1, 3000)]
    forest = grow(sequences, range(len(sequences)), lowest=0)
    assert set(forest.host.values()) == {2998}
    # each differs from the next in its last token: a comb of 3,000 branching points
    comb = [(*[1] * n, 2) for n in range(3000)]
    assert len(grow(comb, range(3000), lowest=0).host) == 3000


def test_a_prefix_that_saves_less_than_it_costs_is_not_shared():
    short = [(1, 2, 3, tail, tail) for tail in range(4, 6)]
    assert grow(short, range(2), lowest=0).root.branches == []
    # three tokens shared by ten inputs save 27
    many = [(1, 2, 3, tail, tail) for tail in range(4, 14)]
    (branch,) = grow(many, range(10), lowest=0).root.branches
    assert branch.depth == 3
