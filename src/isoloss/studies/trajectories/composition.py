"""What a class of tokens is made of, beside all tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.laws.correlated import Floats, Interval
from isoloss.laws.odds_ratio import block_weights
from isoloss.laws.token_rule import KINDS
from isoloss.studies.trajectories.token_traits import DECILES, PARTS, TokenTraits


class Component(NamedTuple):
    """How often tokens of a class have a trait.

    Attributes:
        kind: the class.
        trait: what is looked at, such as "part of a word".
        value: of the trait.
        share: of the class's tokens that have this value, with a 95% interval over documents.
        of_all: share of all tokens that have it.
        lift: the ratio of both, with its interval; 1 where the class is like all tokens.
    """

    kind: str
    trait: str
    value: str
    share: Interval
    of_all: float
    lift: Interval


def composition(
    codes: NDArray[np.int8], traits: TokenTraits, *, seed: int, draws: int = 499
) -> tuple[Component, ...]:
    """What each class of a run is made of: part of a word, frequency, position, first or later.

    Punctuation is a part of a word here: each token is a word's beginning, its continuation, a
    number, punctuation or white space.

    Args:
        codes: (tokens,) index into KINDS.
        traits: of the tokens.
        seed: of the resamples of documents.
        draws: resamples.

    Returns:
        Components of the classes that have tokens; values that no token or every token has are
        left out.
    """
    rng = np.random.default_rng(seed)
    weights = block_weights(traits.blocks, draws=draws, rng=rng)
    found: list[Component] = []
    for trait, values, names in _traits(traits):
        place = (traits.block.astype(np.int64) * len(KINDS) + codes) * len(names) + values
        shape = (traits.blocks, len(KINDS), len(names))
        counts = np.bincount(place, minlength=int(np.prod(shape))).reshape(shape)
        drawn = (weights @ counts.reshape(traits.blocks, -1)).reshape(-1, *shape[1:])
        found += _components(trait, names, counts.sum(axis=0).astype(np.float64), drawn)
    return tuple(found)


def _components(
    trait: str, names: tuple[str, ...], counts: Floats, drawn: Floats
) -> Iterator[Component]:
    share, of_all, lift = _shares(counts[None])
    shares, _, lifts = _shares(drawn)
    for k, kind in enumerate(KINDS):
        for v, value in enumerate(names):
            if counts[k].sum() == 0 or of_all[0, v] in (0.0, 1.0):
                continue
            yield Component(
                kind,
                trait,
                value,
                _interval(share[0, k, v], shares[:, k, v]),
                float(of_all[0, v]),
                _interval(lift[0, k, v], lifts[:, k, v]),
            )


def _shares(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Shares within classes, shares of all tokens, and their ratio, of (draws, kinds, values)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = counts / counts.sum(axis=2, keepdims=True)
        of_all = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
        return share, of_all, share / of_all[:, None]


def _interval(value: float, drawn: Floats) -> Interval:
    known = drawn[np.isfinite(drawn)]
    # a class that some resamples lack has no interval that means what it says
    if len(known) < 0.95 * len(drawn):
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _traits(traits: TokenTraits) -> Iterator[tuple[str, NDArray[np.int8], tuple[str, ...]]]:
    deciles = tuple(f"{i + 1}" for i in range(DECILES))
    yield "part of a word", traits.part, PARTS
    yield "frequency decile", traits.frequency, deciles
    yield "position decile", traits.position, deciles
    yield "in the document", traits.later.astype(np.int8), ("first occurrence", "later occurrence")
