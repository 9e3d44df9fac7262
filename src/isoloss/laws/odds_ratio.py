"""How much more often two sets share a member than chance, within strata of like members.

Rare words are learned late by every model: two models share them without having anything else in
common. Within strata of like tokens such agreement drops out, and what is left is one odds ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoloss.errors import BadRequest
from isoloss.laws.correlated import Floats

_INSIDE, _ONLY_FIRST, _ONLY_SECOND, _OUTSIDE = range(4)  # cells of a table, row by row


@dataclass(frozen=True, slots=True, kw_only=True)
class OddsRatio:
    """A common odds ratio of several 2 x 2 tables.

    Attributes:
        log_odds: natural log of it; infinite where the sets never differ within a stratum, NaN
            where no stratum has members both in and out of both sets.
        stderr: of ``log_odds`` for independent members; NaN where it is not finite.
        n: members of the strata that say something.
    """

    log_odds: float
    stderr: float
    n: int


def mantel_haenszel(tables: ArrayLike) -> OddsRatio:
    """Odds ratio common to all strata.

    Consistent for few large and for many sparse strata. A stratum in which one of the sets is
    empty or whole says nothing and changes nothing.

    Args:
        tables: (strata, 2, 2) members in both sets, in the first alone; in the second alone, in
            neither. Counts, or weights of 0 and more.

    Raises:
        BadRequest: another shape, or a negative count.

    Reference:
        Mantel and Haenszel (1959); the standard error is that of Robins, Breslow and Greenland,
        Biometrics 42 (1986) 311, eq. 4.

    >>> round(mantel_haenszel([[[20, 10], [10, 20]], [[4, 2], [2, 4]]]).log_odds, 4)
    1.3863
    """
    cells = _cells(tables)
    both, neither = cells[:, _INSIDE], cells[:, _OUTSIDE]
    one, other = cells[:, _ONLY_FIRST], cells[:, _ONLY_SECOND]
    n = cells.sum(axis=1)
    size = np.maximum(n, np.finfo(np.float64).tiny)
    agree, differ = both * neither / size, one * other / size
    # shares of a stratum that agree and differ, in the paper's letters P and Q
    p, q = (both + neither) / size, (one + other) / size
    r, s = float(agree.sum()), float(differ.sum())
    stderr = float("nan")
    if r > 0 and s > 0:
        variance = (
            float(p @ agree) / r**2
            + float(p @ differ + q @ agree) / (r * s)
            + float(q @ differ) / s**2
        ) / 2
        stderr = float(np.sqrt(variance))
    return OddsRatio(
        log_odds=float(_log_ratio(np.array(r), np.array(s))),
        stderr=stderr,
        n=round(float(n[(agree > 0) | (differ > 0)].sum())),
    )


def count_tables(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *,
    strata: NDArray[np.integer],
    blocks: NDArray[np.integer],
    shape: tuple[int, int],
) -> Floats:
    """The 2 x 2 table of every stratum in every block, (blocks, strata, 2, 2).

    Args:
        first: (members,) whether a member is in the first set.
        second: (members,) likewise.
        strata: (members,) number of its stratum.
        blocks: (members,) number of its block, such as its document.
        shape: how many blocks and strata there are.
    """
    cell = 2 * (~first).astype(np.int64) + ~second
    place = (blocks.astype(np.int64) * shape[1] + strata) * 4 + cell
    counts = np.bincount(place, minlength=shape[0] * shape[1] * 4)
    return counts.reshape(*shape, 2, 2).astype(np.float64)


def block_weights(blocks: int, *, draws: int, rng: np.random.Generator) -> Floats:
    """How often each block is drawn in each resample, (draws, blocks).

    Two statistics of the same blocks under the same weights are paired.
    """
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=draws).astype(np.float64)


def resampled_log_odds(tables: ArrayLike, weights: Floats) -> Floats:
    """Log of the common odds ratio in every resample of whole blocks, (draws,).

    Members of one block may depend on one another in any way.

    Args:
        tables: (blocks, strata, 2, 2) from :func:`count_tables`.
        weights: (draws, blocks) from :func:`block_weights`.

    Raises:
        BadRequest: tables and weights of unequal numbers of blocks.
    """
    table = np.asarray(tables, dtype=np.float64)
    if table.ndim != 4 or table.shape[0] != weights.shape[1]:
        raise BadRequest(
            "resamples need a table and a weight of every block",
            asked=f"tables of shape {table.shape}, weights of shape {weights.shape}",
            remedy="give (blocks, strata, 2, 2) and (draws, blocks)",
        )
    used = table.sum(axis=(0, 2, 3)) > 0
    drawn = (weights @ table[:, used].reshape(len(table), -1)).reshape(len(weights), -1, 4)
    size = np.maximum(drawn.sum(axis=2), np.finfo(np.float64).tiny)
    agree = (drawn[..., _INSIDE] * drawn[..., _OUTSIDE] / size).sum(axis=1)
    differ = (drawn[..., _ONLY_FIRST] * drawn[..., _ONLY_SECOND] / size).sum(axis=1)
    return _log_ratio(agree, differ)


def _log_ratio(agree: Floats, differ: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.log(agree) - np.log(differ)
    return ratio


def _cells(tables: ArrayLike) -> Floats:
    cells = np.asarray(tables, dtype=np.float64)
    if cells.ndim != 3 or cells.shape[1:] != (2, 2) or (cells < 0).any():
        raise BadRequest(
            "an odds ratio needs 2 x 2 tables of counts",
            asked=f"an array of shape {cells.shape}",
            nearest="(strata, 2, 2), all of them 0 or more",
            remedy="count members in both sets, in one alone, and in neither",
        )
    return cells.reshape(len(cells), 4)
