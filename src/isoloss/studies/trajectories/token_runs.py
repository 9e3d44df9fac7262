"""Losses of the same tokens along several runs, read side by side in stretches.

Runs are only compared on one cut of a corpus under one tokenizer: row i is the same token in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadStore, Refused
from isoloss.laws.correlated import Floats
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store
from isoloss.store.token_series import TokenSeries, token_series
from isoloss.studies.trajectories.token_classes import in_order

Losses = NDArray[np.float32]
R = TypeVar("R")

STRETCH_BYTES = 1 << 25  # of losses read at once, a few times over
_WINDOW = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRun:
    """A run whose tokens' losses are kept.

    Attributes:
        name: of the run, with its model where two models have a run of that name.
        series: its losses.
        params: without embeddings where that is known, else all; None where neither is.
        flops: (checkpoints,) of training, 6 N D; NaN where unknown.
    """

    name: str
    series: TokenSeries
    params: int | None
    flops: tuple[float, ...]

    def same_size(self, other: TokenRun) -> bool:
        """Whether both runs are of one size: then they differ by their seed."""
        if self.series.family != other.series.family:
            return False
        if self.params is None or other.params is None:
            return self.series.model == other.series.model
        return self.params == other.params


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRuns:
    """Runs whose rows are the same tokens, by size and then by name.

    Attributes:
        runs: at least one.
        window: tokens of the corpus's windows, the blocks where there is one document alone.
    """

    runs: tuple[TokenRun, ...]
    window: int

    @property
    def tokens(self) -> int:
        """Tokens in the layout."""
        return self.runs[0].series.tokens

    @property
    def names(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(run.name for run in self.runs)

    def over(self, function: Callable[[int, list[Losses]], R]) -> Iterator[R]:
        """What a function makes of each stretch, in order.

        Args:
            function: takes the first token's number and the losses of each run,
                (checkpoints, tokens).
        """
        length = stretch(sum(len(run.series.steps) for run in self.runs))

        def one(low: int) -> R:
            high = min(low + length, self.tokens)
            return function(low, [run.series.losses(low, high) for run in self.runs])

        return in_order(one, range(0, self.tokens, length))

    def pairs(self) -> list[tuple[int, int]]:
        """Numbers of all pairs of runs."""
        return [(i, j) for j in range(len(self.runs)) for i in range(j)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """Losses over all tokens that can be compared.

    Attributes:
        known: (tokens,) whether a token's loss is finite at every checkpoint of every run.
        nats: mean loss of those tokens, (checkpoints,) for each run.
    """

    known: NDArray[np.bool_]
    nats: tuple[Floats, ...]

    @property
    def left_out(self) -> int:
        """Tokens that cannot be compared."""
        return int((~self.known).sum())


def stretch(checkpoints: int) -> int:
    """Tokens to read at once from so many checkpoints, of one run or of several."""
    return max(STRETCH_BYTES // (4 * checkpoints), 1)


def token_runs(
    store: Store, corpus: str, *, runs: Sequence[str] | None = None, tokenizer: str | None = None
) -> TokenRuns:
    """The runs of a store along which the losses of a corpus's tokens are kept.

    Args:
        store: the results.
        corpus: its name in the study.
        runs: names; all where None.
        tokenizer: hash, where the corpus was read under several.

    Raises:
        BadStore: no run has losses of single tokens of this corpus.
        Refused: two runs were scored on different cuts of the corpus or by other tokenizers.
    """
    cells = (
        store.cells().filter(pl.col("probe") == LOSS_PROBE, pl.col("subject") == corpus).collect()
    )
    points = store.checkpoints().collect()
    scored = points.filter(
        pl.col("weights_hash").is_in(cells["weights_hash"].to_list()),
        pl.col("stage").fill_null("pretrain") == "pretrain",
        pl.col("run").is_not_null(),
    )
    if runs is not None:
        scored = scored.filter(pl.col("run").is_in(list(runs)))
    keys = scored.select("model", "run").unique().sort("run", "model").rows()
    if not keys:
        raise BadStore(
            f"no losses of single tokens of {corpus} are kept.",
            asked="runs " + ", ".join(runs) if runs else "all runs",
            remedy="measure them: [probe.token_loss] on this corpus, then isoloss run",
        )
    twice = {run for _, run in keys if sum(run == other for _, other in keys) > 1}
    found = []
    for model, run in keys:
        series = token_series(store, corpus, run=run, model=model, tokenizer=tokenizer)
        name = f"{model} {run}" if run in twice else run
        found.append(_token_run(series, name, scored))
    _same_cut(found, cells)
    return TokenRuns(
        runs=tuple(sorted(found, key=lambda one: (one.params or 0, one.name))),
        window=_window(cells),
    )


def read_overall(runs: TokenRuns) -> Overall:
    """Which tokens can be compared, and their mean loss at every checkpoint."""
    known = np.empty(runs.tokens, dtype=bool)
    sums = [np.zeros(len(run.series.steps)) for run in runs.runs]

    def one(low: int, losses: list[Losses]) -> tuple[int, NDArray[np.bool_], list[Floats]]:
        whole = np.logical_and.reduce([np.isfinite(table).all(axis=0) for table in losses])
        return low, whole, [table[:, whole].sum(axis=1, dtype=np.float64) for table in losses]

    for low, whole, parts in runs.over(one):
        known[low : low + len(whole)] = whole
        for total, part in zip(sums, parts, strict=True):
            total += part
    if not known.any():
        raise BadStore(
            "no token has a finite loss at every checkpoint of every run.",
            asked=", ".join(runs.names),
            remedy="look for checkpoints that diverged (isoloss check RUN) and leave them out",
        )
    count = int(known.sum())
    return Overall(known=known, nats=tuple(total / count for total in sums))


def _token_run(series: TokenSeries, name: str, points: pl.DataFrame) -> TokenRun:
    own = points.filter(pl.col("run") == series.run, pl.col("model") == series.model)
    flops = dict(own.select("step", "flops").rows())
    params = [own["params_non_embedding"].max(), own["params_total"].max()]
    known = [value for value in params if isinstance(value, int)]
    return TokenRun(
        name=name,
        series=series,
        params=known[0] if known else None,
        flops=tuple(math.nan if flops[s] is None else float(flops[s]) for s in series.steps),
    )


def _same_cut(runs: Sequence[TokenRun], cells: pl.DataFrame) -> None:
    first = runs[0]
    for other in runs[1:]:
        if other.series.layout != first.series.layout:
            tokenizers = [_tokenizer(run, cells) for run in (first, other)]
            why = "tokenizers" if len(set(tokenizers)) > 1 else "cuts of the corpus"
            raise Refused(
                f"runs {first.name} and {other.name} were scored with different {why}.",
                asked=f"layout {first.series.layout} (tokenizer {tokenizers[0]}) and "
                f"{other.series.layout} (tokenizer {tokenizers[1]})",
                remedy="name runs of one layout, or measure the corpus again with one tokenizer, "
                "context and stride",
            )


def _tokenizer(run: TokenRun, cells: pl.DataFrame) -> str:
    own = cells.filter(pl.col("cell").is_in([file.stem for file in run.series.files]))
    return str(own["tokenizer_hash"][0])[:12]


def _window(cells: pl.DataFrame) -> int:
    known = [cells[name].drop_nulls() for name in ("stride", "context")]
    return int(next((column[0] for column in known if len(column)), _WINDOW))
