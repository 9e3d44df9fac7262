"""Tables of the token classes: shares, the grid, overlaps, what classes are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isoloss.laws.token_rule import KINDS
from isoloss.studies.findings import FindingsTable, Value
from isoloss.studies.trajectories.class_analysis import ClassAnalysis
from isoloss.studies.trajectories.overlap import TOP, Overlap

_SHORT_TRAITS = ("part of a word", "in the document")
_OVERLAP_COLUMNS = (
    "set", "run", "other run", "seeds of one size?", "log odds", "low", "high", "without strata",
    "dealt out anew", "share", "share of the other",
)  # fmt: skip


def class_tables(found: ClassAnalysis) -> tuple[FindingsTable, ...]:
    """All tables; those without rows are left out.

    Args:
        found: the analysis.
    """
    tables = (
        _shares(found),
        _grid(found),
        _overlaps(
            "token-class-overlap", "Tokens of one class in two runs", found.class_overlaps,
            "Classes by the paper's rule on the common grid of equal perplexity.",
        ),
        _overlaps(
            "token-fall-overlap", "Tokens whose loss falls most, in two runs", found.fall_overlaps,
            f"The {100 * TOP:g}% of tokens whose loss falls most from one perplexity to the other.",
        ),
        _falls(found),
        _composition(found),
    )  # fmt: skip
    return tuple(table for table in tables if table.rows)


def _shares(found: ClassAnalysis) -> FindingsTable:
    """The first start alone: the figure has the others."""
    first = {row.run: row for row in reversed(found.shares)}
    params = {run.name: run.params for run in found.runs.runs}
    rows: list[tuple[Value, ...]] = []
    for name in found.runs.names:
        row = first.get(name)
        if row is None:
            continue
        for kind in KINDS[:4]:
            paper = row.paper[kind]
            rows.append(
                (name, params[name], f"{100 * row.start:g}%", row.checkpoints, kind, paper.value,
                 paper.low, paper.high, row.null.shares[kind], row.robust[kind].value,
                 row.null.rho)
            )  # fmt: skip
    return FindingsTable(
        id="token-class-shares",
        title="Classes of tokens by run",
        columns=("run", "parameters", "after", "checkpoints", "class", "share", "low", "high",
                 "where nothing happens", "robust rule", "correlation of neighbours"),
        rows=tuple(rows),
        note="Shares by the rule of Xia et al. (2023), eq. 1; 95% intervals over documents. "
        "\"Where nothing happens\" is what the same rule finds in driftless series as correlated "
        "and as noisy as this run's tokens: a share near it says nothing.",
    )  # fmt: skip


def _grid(found: ClassAnalysis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = []
    if found.grid is not None:
        for i, run in enumerate(found.runs.runs):
            picks, gaps = found.grid.picks[i], np.abs(found.grid.gaps_nats[i])
            steps = run.series.steps
            rows.append(
                (run.name, run.params, len(steps), len(picks), steps[picks[0]], steps[picks[-1]],
                 float(gaps.mean()), float(gaps.max()))
            )  # fmt: skip
    return FindingsTable(
        id="token-equal-grid",
        title="Checkpoints at equal perplexity",
        columns=("run", "parameters", "checkpoints", "on the grid", "first step", "last step",
                 "mean mismatch (nats)", "worst mismatch (nats)"),
        rows=tuple(rows),
        note="The targets are the losses of the run with fewest checkpoints in the common range; "
        "of each other run the nearest checkpoints are taken, each once and in order.",
    )  # fmt: skip


def _falls(found: ClassAnalysis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (fall.name, fall.high_nats, fall.low_nats, sum(end >= 0 for end in fall.end),
         fall.widest_bracket_nats)
        for fall in found.falls
    ]  # fmt: skip
    return FindingsTable(
        id="token-falls",
        title="Pairs of perplexities",
        columns=("pair", "from (nats)", "to (nats)", "runs", "widest bracket (nats)"),
        rows=tuple(rows),
        note="A token's loss at a perplexity is linear between the two checkpoints around it, "
        "whose distance is the bracket. A run that passes both perplexities within half a "
        "checkpoint is left out.",
    )


def _overlaps(name: str, title: str, overlaps: Sequence[Overlap], note: str) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (one.what, one.first, one.second, one.seeds, one.log_odds.value, one.log_odds.low,
         one.log_odds.high, one.crude, one.shuffled, *one.shares)
        for one in overlaps
    ]  # fmt: skip
    return FindingsTable(
        id=name,
        title=title,
        columns=_OVERLAP_COLUMNS,
        rows=tuple(rows),
        note=f"{note} Mantel-Haenszel odds ratio within strata of word part and frequency decile, "
        '95% intervals over documents. Two seeds of one size are the ceiling; "dealt out anew" '
        "is what the strata leave by themselves.",
    )


def _composition(found: ClassAnalysis) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (run, one.kind, one.trait, one.value, one.share.value, one.share.low, one.share.high,
         one.of_all, one.lift.value, one.lift.low, one.lift.high)
        for run in found.components
        for one in found.components[run]
        if one.trait in _SHORT_TRAITS
    ]  # fmt: skip
    return FindingsTable(
        id="token-class-composition",
        title="What classes are made of",
        columns=("run", "class", "trait", "value", "share", "low", "high", "of all tokens",
                 "ratio", "low", "high"),
        rows=tuple(rows),
        note="95% intervals over documents. The figure has deciles of frequency and position.",
    )  # fmt: skip
