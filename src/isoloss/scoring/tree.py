"""The tree of shared prefixes: which tokens several inputs have in common, at every depth.

Inputs in lexicographic order have their common prefixes side by side, so that one pass over
neighbours finds every branching point. A branching point is worth a pass of its own where the
tokens it saves outweigh handing its keys and values to the branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Below this many saved tokens a pass of its own costs more than it saves.
_MIN_SAVED_TOKENS = 8
# Handing the keys and values of this many tokens to a row is taken to cost as much as computing one
# token: an estimate from 25 kB a token copied and 38 MFLOP a token computed (Pythia-70m, float32).
_COPIES_PER_TOKEN = 50


@dataclass(slots=True, kw_only=True, eq=False)
class Branch:
    """Tokens that several inputs share: ``sequences[example][:depth]``.

    Attributes:
        depth: tokens from the start of the inputs.
        example: one of the inputs below.
        branches: longer prefixes that begin with this one.
        leaves: inputs that go on by themselves from here.
    """

    depth: int
    example: int
    branches: list[Branch] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """What to run once, and what every input hangs on.

    Attributes:
        root: depth 0; its leaves share nothing.
        host: for every input the one whose computation holds it: itself, or an input that it
            is the beginning of.
    """

    root: Branch
    host: dict[int, int]


def grow(sequences: Sequence[tuple[int, ...]], members: Sequence[int], *, lowest: int) -> Forest:
    """Find the shared prefixes of inputs that are worth sharing.

    Args:
        sequences: distinct inputs.
        members: those to take, any order; the result does not depend on it.
        lowest: a shared prefix is longer than this (a length at which the model's arithmetic
            changes, below which a prefix is not the prefix of a longer input).

    Returns:
        The prefixes as a tree, and where each input is computed.
    """
    ordered = sorted(members, key=sequences.__getitem__)
    arrays = [np.array(sequences[s], dtype=np.int64) for s in ordered]
    leaves: list[int] = []
    common: list[int] = []  # tokens that leaf i shares with leaf i - 1
    host: dict[int, int] = {}
    shared = 0
    for i, s in enumerate(ordered):
        ahead = _common(arrays[i], arrays[i + 1]) if i + 1 < len(ordered) else 0
        if i + 1 < len(ordered) and ahead == len(arrays[i]):
            host[s] = ordered[i + 1]  # the next input begins with this one
            # what the next leaf shares with the last one passes through this prefix
            shared = min(shared, ahead)
            continue
        host[s] = s
        leaves.append(s)
        common.append(shared)
        shared = ahead
    for s in reversed(ordered):
        host[s] = host[host[s]] if host[s] != s else s
    root = Branch(depth=0, example=ordered[0] if ordered else -1)
    pending = [(node, root) for node in _radix(sequences, leaves, common).children]
    while pending:
        node, anchor = pending.pop()
        if not node.children:
            anchor.leaves.append(node.example)
            continue
        if node.depth > lowest and _saved(node, anchor.depth) >= _MIN_SAVED_TOKENS:
            branch = Branch(depth=node.depth, example=node.example)
            anchor.branches.append(branch)
            anchor = branch
        pending += [(child, anchor) for child in node.children]
    return Forest(root=root, host=host)


def _saved(node: _Node, above: int) -> float:
    """Tokens that a pass for this node saves, less those that handing it around costs."""
    edge, rows = node.depth - above, len(node.children)
    return edge * (rows - 1) - (above + rows * edge) / _COPIES_PER_TOKEN


@dataclass(slots=True, kw_only=True, eq=False)
class _Node:
    """A node of the radix tree; ``example`` is an input below it, at a leaf the input itself."""

    depth: int
    example: int
    children: list[_Node] = field(default_factory=list)


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _radix(
    sequences: Sequence[tuple[int, ...]], leaves: Sequence[int], common: Sequence[int]
) -> _Node:
    """The radix tree of sorted inputs, none the beginning of another, from their overlaps."""
    root = _Node(depth=0, example=-1)
    path = [root]
    for s, shared in zip(leaves, common, strict=True):
        while path[-1].depth > shared:
            last = path.pop()
            if path[-1].depth < shared:
                fork = _Node(depth=shared, example=last.example, children=[last])
                path[-1].children[-1] = fork
                path.append(fork)
        leaf = _Node(depth=len(sequences[s]), example=s)
        path[-1].children.append(leaf)
        path.append(leaf)
    return root
