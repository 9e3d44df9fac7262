"""Damaged texts: a share of the tokens replaced, deleted, inserted or repeated at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadRequest

Damage = Literal["replace", "delete", "insert", "repeat"]
PUBLISHED_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of replaced tokens in Xia et al. (2023), section 4."""


def corrupt(
    tokens: Sequence[int],
    share: float,
    *,
    damage: Damage = "replace",
    vocab: int | None = None,
    allowed: Sequence[int] | None = None,
    seed: int | Sequence[int],
) -> list[int]:
    """Damage a share of the tokens of one sequence.

    Exactly ``round(share * len(tokens))`` places are drawn without replacement, so that sequences
    of one length are damaged alike. A replaced token becomes a uniform draw from the vocabulary,
    which may be the token itself, as published. An inserted one is such a draw after its place;
    a repeated one stands twice.

    Args:
        tokens: of the sequence.
        share: of the places, 0 to 1.
        damage: what happens there.
        vocab: tokens to draw from are 0 to ``vocab - 1``; for replace and insert.
        allowed: the tokens to draw from, where not all are (no special ones, no padding).
        seed: of places and draws.

    Raises:
        BadRequest: no such damage or share, or nothing to draw from.

    Reference:
        Xia et al., "Training Trajectories of Language Models Across Scales" (2023), section 4.

    >>> corrupt([5, 6, 7, 8], 0.5, damage="repeat", seed=0)
    [5, 6, 7, 7, 8, 8]
    """
    draws = np.asarray(range(vocab or 0) if allowed is None else allowed, dtype=np.int64)
    if damage not in get_args(Damage) or not 0 <= share <= 1:
        raise BadRequest(
            "there is no such damage.",
            asked=f"damage={damage!r}, share={share}",
            nearest=f"{', '.join(get_args(Damage))}, with a share of 0 to 1",
            remedy="take one of these",
        )
    if damage in {"replace", "insert"} and not len(draws):
        raise BadRequest(
            f"to {damage} tokens there must be tokens to draw.",
            asked=f"vocab={vocab}, allowed={allowed}",
            remedy="give vocab= the size of the vocabulary, or allowed= its words",
        )
    rng = np.random.default_rng(seed)
    row = np.asarray(tokens, dtype=np.int64)
    places = np.sort(rng.choice(len(row), size=round(share * len(row)), replace=False))
    damaged: list[int] = _damaged(row, places, damage, draws, rng).tolist()
    return damaged


def _damaged(
    row: NDArray[np.int64],
    places: NDArray[np.int64],
    damage: Damage,
    draws: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    if damage == "delete":
        return np.delete(row, places)
    if damage == "repeat":
        return np.insert(row, places + 1, row[places])
    drawn = rng.choice(draws, size=len(places))
    if damage == "insert":
        return np.insert(row, places + 1, drawn)
    replaced = row.copy()
    replaced[places] = drawn
    return replaced
