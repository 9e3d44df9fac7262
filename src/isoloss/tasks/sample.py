"""Which documents are scored: the same ones at every checkpoint.

The order of a stratum comes from hashes of (seed, place), not from a generator, so it is the
same on every machine and version, and a smaller limit keeps a subset of each stratum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from isoloss.errors import BadRequest


def choose(
    subjects: Sequence[str | None], *, limit: float | None, sample: str, seed: int
) -> list[int]:
    """Places of the documents to score, ascending.

    Args:
        subjects: the stratum of every document.
        limit: how many; below 1, which fraction, rounded up; None or more than there are: all.
        sample: ``seeded`` spreads ``limit`` over the strata in proportion to their sizes;
            ``first`` takes the first ``limit`` of each stratum, as lm-eval does of each subtask.
        seed: of the seeded draw.

    Raises:
        BadRequest: limit is not positive.

    >>> choose(["a", "a", "b", "b"], limit=2, sample="first", seed=0)
    [0, 1, 2, 3]
    >>> len(choose(["a"] * 30 + ["b"] * 10, limit=4, sample="seeded", seed=0))
    4
    """
    if limit is None:
        return list(range(len(subjects)))
    if limit <= 0:
        raise BadRequest(
            "limit must be positive.", asked=f"limit = {limit}", remedy="leave it out for all"
        )
    strata: dict[str | None, list[int]] = {}
    for place, subject in enumerate(subjects):
        strata.setdefault(subject, []).append(place)
    if sample == "first":
        chosen = [p for places in strata.values() for p in places[: count(limit, len(places))]]
        return sorted(chosen)
    sizes = proportional([len(p) for p in strata.values()], count(limit, len(subjects)))
    return sorted(
        place
        for (subject, places), size in zip(strata.items(), sizes, strict=True)
        for place in _shuffled(places, f"{seed}/{subject}")[:size]
    )


def count(limit: float, available: int) -> int:
    """How many documents a limit means, by lm-eval's rule: a fraction is rounded up.

    >>> count(0.1, 25), count(200, 25), count(7, 25)
    (3, 25, 7)
    """
    wanted = math.ceil(available * limit) if limit < 1 else int(limit)
    return min(wanted, available)


def proportional(sizes: Sequence[int], total: int) -> list[int]:
    """Split ``total`` over strata in proportion to their sizes, by largest remainder.

    Integer arithmetic throughout; ties go to the earlier stratum.

    >>> proportional([50, 30, 20], 7)
    [4, 2, 1]
    """
    everything = sum(sizes)
    total = min(total, everything)
    if everything == 0:
        return [0] * len(sizes)
    shares = [size * total // everything for size in sizes]
    remainders = [size * total % everything for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _shuffled(places: Sequence[int], key: str) -> list[int]:
    digests = {
        place: hashlib.blake2b(f"{key}/{rank}".encode(), digest_size=16).digest()
        for rank, place in enumerate(places)
    }
    return sorted(places, key=digests.__getitem__)
