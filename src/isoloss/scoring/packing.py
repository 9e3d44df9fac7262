"""A plan of forward passes: which sequences run together, and which prefixes are run once.

Requests become distinct input sequences with queries (a position and the token that follows
it), so that equal requests, and options of one token after one context, cost one sequence.
Sequences that share a context run on top of one computed prefix. A plan knows token ids and
the model's shape, no weights: one plan serves every checkpoint of a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isoloss.scoring.encode import TokenPair
from isoloss.scoring.window import regime

# Below this, computing a prefix twice is cheaper than handing its cache around.
_MIN_SHARED_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Estimated bytes of a forward pass, from the model's shape alone.

    Attributes:
        per_token: activations of one token alive at once.
        per_key: keys and values kept of one cached token, all layers.
        per_score: attention scores of one (query, key) pair, all heads of a layer.
    """

    per_token: int
    per_key: int
    per_score: int

    def row(self, queries: int, *, cached: int = 0, keeps: bool = False) -> int:
        """Bytes of one row of ``queries`` tokens on top of ``cached`` ones.

        Args:
            queries: tokens run.
            cached: tokens run before, whose keys and values are at hand.
            keeps: the pass keeps its keys and values.
        """
        keys = queries + cached
        kept = keys * self.per_key if keeps else 0
        return queries * (self.per_token + keys * self.per_score) + kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the model was shown to allow.

    Attributes:
        share: prefixes may be computed once and reused.
        pad: rows of unequal length may run together, padded on the right.
        share_limit: longest sequence in tokens for which sharing was shown to agree.
        critical: lengths that rows of one batch must not straddle.
        budget: bytes that one forward pass may take, by ``Cost``.
    """

    share: bool
    pad: bool
    share_limit: int
    critical: tuple[int, ...]
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows that run in one forward pass; ``parents`` are their rows in the batch's prefixes."""

    sequences: tuple[int, ...]
    parents: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Chunks on top of shared prefixes, all of ``depth`` tokens; depth 0 shares nothing."""

    depth: int
    prefixes: tuple[tuple[int, ...], ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a scorer must run, and where each number goes.

    Attributes:
        sequences: distinct model inputs.
        starts: queries of sequence s are ``starts[s]:starts[s + 1]`` of the three next arrays.
        positions: of the state that predicts, ascending within a sequence.
        targets: the token predicted.
        slots: place of the answer in the flat result.
        bounds: slots of distinct request r are ``bounds[r]:bounds[r + 1]``.
        distinct: for every request asked its distinct request, -1 where it cannot be scored.
        batches: the passes, in order.
        truncated: requests whose context lost tokens on the left.
    """

    sequences: tuple[tuple[int, ...], ...]
    starts: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    slots: NDArray[np.int64]
    bounds: NDArray[np.int64]
    distinct: NDArray[np.int64]
    batches: tuple[Batch, ...]
    truncated: int


def make_plan(pairs: Sequence[TokenPair], *, window: int, policy: Policy, cost: Cost) -> Plan:
    """Plan the scoring of requests.

    A request whose input exceeds the window loses tokens from the left, as in the harness:
    ``(context + continuation)[-(window + 1):][:-1]`` is run. One whose continuation is empty or
    alone exceeds the window is left out (the harness stops on both with an assertion).

    Args:
        pairs: requests, contexts not empty.
        window: longest input in tokens.
        policy: what the model allows.
        cost: bytes of a pass.
    """
    index: dict[TokenPair, int] = {}
    distinct = np.full(len(pairs), -1, dtype=np.int64)
    truncated = 0
    for i, (context, continuation) in enumerate(pairs):
        if not 0 < len(continuation) <= window:
            continue
        room = window + 1 - len(continuation)
        truncated += len(context) > room
        pair = TokenPair(context[-room:], continuation)
        distinct[i] = index.setdefault(pair, len(index))
    requests = list(index)
    rows: dict[tuple[int, ...], int] = {}
    row_of = [rows.setdefault(c + k[:-1], len(rows)) for c, k in requests]
    sequences = tuple(rows)

    sizes = np.array([len(k) for _, k in requests], dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    first = np.array([len(c) - 1 for c, _ in requests], dtype=np.int64)
    owner = np.repeat(np.array(row_of, dtype=np.int64), sizes)
    position = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], sizes)
    target = np.array([token for _, k in requests for token in k], dtype=np.int64)
    order = np.lexsort((position, owner))
    starts = np.searchsorted(owner[order], np.arange(len(sequences) + 1))
    positions = position[order]
    opening = positions[starts[:-1]]
    return Plan(
        sequences=sequences,
        starts=starts,
        positions=positions,
        targets=target[order],
        slots=order,
        bounds=bounds,
        distinct=distinct,
        batches=tuple(_batches(sequences, opening, policy, cost)),
        truncated=truncated,
    )


def _batches(
    sequences: Sequence[tuple[int, ...]], opening: NDArray[np.int64], policy: Policy, cost: Cost
) -> Iterator[Batch]:
    """Split the sequences into those that run alone and those on top of a shared prefix."""
    # sorted by content, so that neither order nor repetition of the requests changes a bit
    ordered = sorted(range(len(sequences)), key=lambda s: (-len(sequences[s]), sequences[s]))
    families: dict[tuple[int, ...], list[int]] = {}
    for s in ordered:
        # up to the context's last token: that one runs with each option, so that every
        # scored position lies in the option's own pass
        families.setdefault(sequences[s][: opening[s]], []).append(s)
    alone, shared = [], []
    for prefix, members in families.items():
        if policy.share and _worth_sharing(len(prefix), members, sequences, policy):
            shared.append((prefix, members))
        else:
            alone += members
    alone.sort(key=lambda s: (-len(sequences[s]), sequences[s]))
    for rows in _pack([len(sequences[s]) for s in alone], policy, cost.row, tightness=0.875):
        chosen = tuple(alone[i] for i in rows)
        yield Batch(depth=0, prefixes=(), chunks=(Chunk(sequences=chosen, parents=()),))
    yield from _shared_batches(shared, sequences, policy, cost)


def _worth_sharing(
    depth: int, members: list[int], sequences: Sequence[tuple[int, ...]], policy: Policy
) -> bool:
    longest = len(sequences[members[0]])
    return (
        len(members) > 1
        and depth >= _MIN_SHARED_TOKENS
        and longest <= policy.share_limit
        # a prefix run below a switch of the rotary table is not the prefix of a longer input
        and regime(depth, policy.critical) == regime(longest, policy.critical)
    )


def _shared_batches(
    families: list[tuple[tuple[int, ...], list[int]]],
    sequences: Sequence[tuple[int, ...]],
    policy: Policy,
    cost: Cost,
) -> Iterator[Batch]:
    """Run prefixes of nearly equal length together, cut to the shortest of them."""
    families.sort(key=lambda family: (-len(family[0]), family[0]))
    room = policy.budget // 2  # the other half is for the suffixes
    start = 0
    while start < len(families):
        longest = depth = len(families[start][0])
        end = start + 1
        while end < len(families):
            shorter = len(families[end][0])
            # tokens cut off run once per option; no padding, so that every model agrees
            close = longest - shorter <= max(2, longest // 16)
            same = regime(shorter, policy.critical) == regime(longest, policy.critical)
            fits = (end - start + 1) * cost.row(longest, keeps=True) <= room
            if not (close and same and fits):
                break
            depth = shorter
            end += 1
        part = families[start:end]
        start = end
        rows = [(parent, s) for parent, (_, members) in enumerate(part) for s in members]
        rows.sort(key=lambda row: -len(sequences[row[1]]))
        lengths = [len(sequences[s]) - depth for _, s in rows]
        row_bytes = partial(cost.row, cached=depth, keeps=True)
        chunks = [
            Chunk(
                sequences=tuple(rows[i][1] for i in chosen),
                parents=tuple(rows[i][0] for i in chosen),
            )
            for chosen in _pack(lengths, policy, row_bytes, tightness=0.7)
        ]
        prefixes = tuple(prefix[:depth] for prefix, _ in part)
        yield Batch(depth=depth, prefixes=prefixes, chunks=tuple(chunks))


def _pack(
    lengths: Sequence[int], policy: Policy, row_bytes: Callable[[int], int], *, tightness: float
) -> Iterator[range]:
    """Cut descending lengths into runs that fit the budget and waste little on padding."""
    start = 0
    for end in range(1, len(lengths) + 1):
        if end < len(lengths):
            longest, here = lengths[start], lengths[end]
            together = here == longest or (
                policy.pad
                and here >= tightness * longest
                and regime(here, policy.critical) == regime(longest, policy.critical)
            )
            if together and (end - start + 1) * row_bytes(longest) <= policy.budget:
                continue
        yield range(start, end)
        start = end
