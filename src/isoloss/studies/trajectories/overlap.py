"""Do two runs agree on which tokens they learn, beyond what any two runs agree on?

Every overlap is an odds ratio within strata of word part and frequency decile, over resampled
documents. Two seeds of one size say how large it can be: what they do not share is chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isoloss.laws.correlated import Floats, Interval
from isoloss.laws.odds_ratio import (
    block_weights,
    count_tables,
    mantel_haenszel,
    resampled_log_odds,
)
from isoloss.laws.token_rule import KINDS
from isoloss.studies.trajectories.equal_perplexity import Fall
from isoloss.studies.trajectories.token_runs import Overall, TokenRuns
from isoloss.studies.trajectories.token_traits import STRATA, TokenTraits

Mask = NDArray[np.bool_]

COMPARED = ("downward", "upward", "stagnated")
TOP = 0.1
DRAWS = 499
FEWEST_SHARED = 20.0
"""Where chance makes two sets share fewer tokens than this, their odds ratio is not told."""

_DEALINGS = 4
_STRETCH = 1 << 20  # tokens read at once of at most four checkpoints


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Overlap:
    """A set of tokens as two runs have it.

    Attributes:
        what: the class, or the pair of perplexities.
        first: a run.
        second: another one.
        seeds: whether they are two seeds of one size.
        log_odds: natural log of the odds ratio within strata, with a 95% interval over documents;
            NaN where the sets are so small that chance would make them share fewer than 20.
        crude: the same without strata.
        shuffled: the same within strata after the second run's set was dealt out anew within
            each stratum: what agreement the strata leave by themselves.
        shares: of the tokens in either run's set.
        drawn: (draws,) log odds in each resample; the same documents for all overlaps.
    """

    what: str
    first: str
    second: str
    seeds: bool
    log_odds: Interval
    crude: float
    shuffled: float
    shares: tuple[float, float]
    drawn: Floats


def class_overlaps(
    runs: TokenRuns, overall: Overall, traits: TokenTraits, kinds: Mapping[str, NDArray[np.int8]],
    *, seed: int, draws: int = DRAWS,
) -> tuple[Overlap, ...]:  # fmt: skip
    """Overlap of each class between all pairs of runs.

    Args:
        runs: the runs.
        overall: which tokens can be compared.
        traits: of the tokens.
        kinds: by run, (tokens,) index into KINDS, judged on a common grid.
        seed: of the resamples and of the shuffling.
        draws: resamples of documents.
    """
    found: list[Overlap] = []
    for kind in COMPARED:
        sets = [kinds[name] == KINDS.index(kind) for name in runs.names]
        found += overlaps(kind, sets, runs, overall, traits, seed=seed, draws=draws)
    return tuple(found)


def fall_overlaps(
    runs: TokenRuns, overall: Overall, traits: TokenTraits, falls: Sequence[Fall],
    *, seed: int, top: float = TOP, draws: int = DRAWS,
) -> tuple[Overlap, ...]:  # fmt: skip
    """Overlap of the tokens whose loss falls most from one perplexity to another.

    The losses of one run are held, four bytes a token, and one byte a token of every run.

    Args:
        runs: the runs.
        overall: which tokens can be compared.
        traits: of the tokens.
        falls: pairs of perplexities.
        seed: of the resamples and of the shuffling.
        top: share of the tokens that count as falling most.
        draws: resamples of documents.
    """
    found: list[Overlap] = []
    for fall in falls:
        sets = largest_falls(runs, overall, fall, top)
        found += overlaps(fall.name, sets, runs, overall, traits, seed=seed, draws=draws)
    return tuple(found)


def largest_falls(runs: TokenRuns, overall: Overall, fall: Fall, top: float) -> list[Mask | None]:
    """Which tokens' losses fall most in each run; None where its checkpoints cannot tell it.

    Args:
        runs: the runs.
        overall: which tokens can be compared; the others are in no set.
        fall: the pair of perplexities.
        top: share of the tokens.
    """
    found: list[Mask | None] = []
    for i in range(len(runs.runs)):
        begin, end = fall.begin[i], fall.end[i]
        if end < 0:
            found.append(None)
            continue
        fallen = _difference(runs, i, begin, end)
        fallen[~overall.known] = -np.inf
        count = round(top * int(overall.known.sum()))
        chosen = np.zeros(runs.tokens, dtype=bool)
        if count:
            chosen[np.argpartition(fallen, -count)[-count:]] = True
        found.append(chosen)
    return found


def overlaps(
    what: str, sets: Sequence[Mask | None], runs: TokenRuns, overall: Overall, traits: TokenTraits,
    *, seed: int, draws: int = DRAWS,
) -> list[Overlap]:  # fmt: skip
    """Overlap of one set between all pairs of runs that have it.

    Args:
        what: the set's name.
        sets: of each run, (tokens,).
        runs: the runs.
        overall: which tokens can be compared.
        traits: of the tokens.
        seed: of the resamples and of the shuffling.
        draws: resamples of documents.
    """
    known, shape = overall.known, (traits.blocks, STRATA)
    strata, blocks = traits.strata[known], traits.block[known]
    weights = block_weights(traits.blocks, draws=draws, rng=np.random.default_rng(seed))
    found = []
    for i, j in runs.pairs():
        first, second = sets[i], sets[j]
        if first is None or second is None:
            continue
        a, b = first[known], second[known]
        tables = count_tables(a, b, strata=strata, blocks=blocks, shape=shape)
        whole = tables.sum(axis=0)
        enough = shared_by_chance(whole) >= FEWEST_SHARED
        drawn = resampled_log_odds(tables, weights) if enough else np.full(draws, np.nan)
        value = mantel_haenszel(whole).log_odds if enough else float("nan")
        found.append(
            Overlap(
                what=what,
                first=runs.names[i],
                second=runs.names[j],
                seeds=runs.runs[i].same_size(runs.runs[j]),
                log_odds=_interval(value, drawn),
                crude=mantel_haenszel(whole.sum(axis=0)[None]).log_odds,
                shuffled=dealt_log_odds(a, b, strata, seed=seed),
                shares=(float(a.mean()), float(b.mean())),
                drawn=drawn,
            )
        )
    return found


def shared_by_chance(tables: Floats) -> float:
    """Members that two independent sets of these sizes would share, (strata, 2, 2) counts."""
    size = np.maximum(tables.sum(axis=(1, 2)), 1.0)
    return float((tables.sum(axis=2)[:, 0] * tables.sum(axis=1)[:, 0] / size).sum())


def dealt_log_odds(a: Mask, b: Mask, strata: NDArray[np.integer], *, seed: int) -> float:
    """Log odds ratio of a set and another that is dealt out anew within strata, several times.

    Args:
        a: (tokens,) the set that stays.
        b: (tokens,) the set that is dealt out.
        strata: (tokens,) number of the stratum.
        seed: of the dealings.
    """
    nowhere = np.zeros(len(a), dtype=np.int64)
    tables = [
        count_tables(
            a, dealt_within(b, strata, seed=seed + i), strata=strata, blocks=nowhere,
            shape=(1, STRATA),
        )[0]
        for i in range(_DEALINGS)
    ]  # fmt: skip
    return mantel_haenszel(np.concatenate(tables)).log_odds


def dealt_within(chosen: Mask, strata: NDArray[np.integer], *, seed: int) -> Mask:
    """A set dealt out anew among the tokens of each stratum, as many in each as before.

    Args:
        chosen: (tokens,) the set.
        strata: (tokens,) number of the stratum.
        seed: of the dealing.
    """
    rng = np.random.default_rng(seed)
    place = np.argsort(strata, kind="stable")
    mixed = np.lexsort((rng.random(len(chosen)), strata))
    dealt = np.empty_like(chosen)
    dealt[mixed] = chosen[place]
    return dealt


def _difference(runs: TokenRuns, run: int, begin: float, end: float) -> NDArray[np.float32]:
    """Loss of every token at one place of a run less that at a later one."""
    series = runs.runs[run].series
    weights: dict[int, float] = {}
    for place, sign in ((begin, 1.0), (end, -1.0)):
        before, part = int(place), place - int(place)
        weights[before] = weights.get(before, 0.0) + sign * (1.0 - part)
        if part > 0:
            weights[before + 1] = weights.get(before + 1, 0.0) + sign * part
    used = replace(
        series,
        steps=tuple(series.steps[i] for i in weights),
        files=tuple(series.files[i] for i in weights),
    )
    factors = np.array(list(weights.values()), dtype=np.float32)
    fallen = np.empty(runs.tokens, dtype=np.float32)
    for low in range(0, runs.tokens, _STRETCH):
        high = min(low + _STRETCH, runs.tokens)
        fallen[low:high] = factors @ used.losses(low, high)
    return fallen


def _interval(value: float, drawn: Floats) -> Interval:
    known = drawn[np.isfinite(drawn)]
    # sets that some resamples lack have no interval that means what it says
    if not np.isfinite(value) or len(known) < 0.95 * len(drawn):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, float(low), float(high))
