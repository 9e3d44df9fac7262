"""Everything about the token classes of several runs, computed from the store in a few readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoloss.errors import BadRequest, Refused
from isoloss.laws.correlated import Interval
from isoloss.laws.token_rule import TrendRule
from isoloss.store.store import Store
from isoloss.studies.trajectories.class_curves import ClassCurve, class_curves
from isoloss.studies.trajectories.classes_across import (
    STARTS,
    DriftlessNull,
    StartClasses,
    class_shares,
    classes_by_start,
    driftless_nulls,
)
from isoloss.studies.trajectories.composition import Component, composition
from isoloss.studies.trajectories.equal_perplexity import Fall, Grid, equal_grid, falls
from isoloss.studies.trajectories.overlap import Overlap, class_overlaps, fall_overlaps
from isoloss.studies.trajectories.token_runs import Overall, TokenRuns, read_overall, token_runs
from isoloss.studies.trajectories.token_traits import TokenTraits, texts_beside, token_traits

ROBUST = TrendRule(trend="robust")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRow:
    """Shares of one run from one start on.

    Attributes:
        run: its name.
        start: share of training.
        checkpoints: used.
        paper: shares by the paper's rule.
        robust: shares by the rule that reckons with correlation.
        null: what the paper's rule finds in driftless series fitted to the run.
    """

    run: str
    start: float
    checkpoints: int
    paper: dict[str, Interval]
    robust: dict[str, Interval]
    null: DriftlessNull


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAnalysis:
    """All of it.

    Attributes:
        runs: compared.
        overall: their losses.
        traits: of the tokens.
        shares: by run and start.
        curves: of classes chosen on each run's own checkpoints.
        components: what the classes of each run are made of, by its name.
        grid: of equal perplexity; None where the runs allow none.
        falls: pairs of perplexities.
        class_overlaps: on the grid.
        fall_overlaps: of the largest falls.
        not_run: what could not be computed, and why.
    """

    runs: TokenRuns
    overall: Overall
    traits: TokenTraits
    shares: tuple[ShareRow, ...]
    curves: tuple[ClassCurve, ...]
    components: dict[str, tuple[Component, ...]]
    grid: Grid | None
    falls: tuple[Fall, ...]
    class_overlaps: tuple[Overlap, ...]
    fall_overlaps: tuple[Overlap, ...]
    not_run: tuple[str, ...]


def analyse_classes(
    store: Store, corpus: str, *, seed: int, runs: Sequence[str] | None = None,
    tokenizer: str | None = None, texts: Sequence[str] | None = None,
    counts: ArrayLike | None = None, starts: Sequence[float] = STARTS,
) -> ClassAnalysis:  # fmt: skip
    """Compute everything about the classes of a corpus's tokens along several runs.

    Args:
        store: the results.
        corpus: its name in the study.
        seed: of all resamples.
        runs: names; all runs with losses of these tokens where None.
        tokenizer: hash, where the corpus was read under several.
        texts: of each token id, from :func:`isoloss.studies.trajectories.token_traits.token_texts`;
            where None, those of a checkpoint folder that is still there; else word parts are
            unknown.
        counts: of each id in the training text; counted on the corpus itself where None.
        starts: shares of training after which trends are looked for.

    Raises:
        BadStore: no losses of single tokens are kept.
        Refused: the runs were scored on different cuts or by different tokenizers.
    """
    chosen = token_runs(store, corpus, runs=runs, tokenizer=tokenizer)
    overall = read_overall(chosen)
    texts = texts_beside(store, chosen) if texts is None else texts
    traits = token_traits(chosen, texts=texts, counts=counts)
    why: list[str] = []
    shares: list[ShareRow] = []
    kinds: dict[str, NDArray[np.int8]] = {}
    for run in chosen.runs:
        try:
            found = classes_by_start(run.series, starts=starts)
        except BadRequest as error:
            why.append(f"Classes of {run.name}: {error.what} ({error.asked}).")
            continue
        robust = classes_by_start(run.series, starts=starts, rule=ROBUST)
        kinds[run.name] = found[0].codes
        nulls = driftless_nulls(run.series, starts=starts)
        for one, other, null in zip(found, robust, nulls, strict=True):
            shares.append(_share_row(run.name, one, other, null, traits, seed))
    compared = _compared(chosen, overall, traits, seed, why)
    return ClassAnalysis(
        runs=chosen,
        overall=overall,
        traits=traits,
        shares=tuple(shares),
        curves=class_curves(chosen, overall, kinds) if kinds else (),
        components={name: composition(codes, traits, seed=seed) for name, codes in kinds.items()},
        grid=compared.grid,
        falls=compared.falls,
        class_overlaps=compared.by_class,
        fall_overlaps=compared.by_fall,
        not_run=tuple(why),
    )


def _share_row(
    run: str, paper: StartClasses, robust: StartClasses, null: DriftlessNull, traits: TokenTraits,
    seed: int,
) -> ShareRow:  # fmt: skip
    return ShareRow(
        run=run,
        start=paper.start,
        checkpoints=paper.checkpoints,
        paper=class_shares(paper.codes, traits.block, seed=seed),
        robust=class_shares(robust.codes, traits.block, seed=seed),
        null=null,
    )


class _Compared(NamedTuple):
    grid: Grid | None = None
    falls: tuple[Fall, ...] = ()
    by_class: tuple[Overlap, ...] = ()
    by_fall: tuple[Overlap, ...] = ()


def _compared(
    runs: TokenRuns, overall: Overall, traits: TokenTraits, seed: int, why: list[str]
) -> _Compared:
    """Grid, falls and overlaps; what cannot be had is added to the reasons."""
    if len(runs.runs) < 2:
        why.append("Overlaps: there is one run alone.")
        return _Compared()
    try:
        # before, every model learns how frequent tokens are, and nothing else can be shared
        ceiling = traits.frequency_nats
        fallen = falls(overall.nats, runs.names, ceiling_nats=ceiling)
    except Refused as error:
        why.append(f"Overlaps at equal perplexity: {error.what} ({error.asked}).")
        return _Compared()
    by_fall = fall_overlaps(runs, overall, traits, fallen, seed=seed)
    try:
        grid = equal_grid(overall.nats, runs.names, ceiling_nats=ceiling)
    except Refused as error:
        why.append(f"Classes at equal perplexity: {error.what} ({error.asked}).")
        return _Compared(falls=fallen, by_fall=by_fall)
    # the grid begins where all runs pass: nothing of it is left out
    kinds = {
        run.name: classes_by_start(grid.of(run.series, i), starts=(0.0,))[0].codes
        for i, run in enumerate(runs.runs)
    }
    return _Compared(
        grid,
        fallen,
        class_overlaps(runs, overall, traits, kinds, seed=seed),
        by_fall,
    )
