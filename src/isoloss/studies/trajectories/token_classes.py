"""The class of every token of a corpus along a run, read, judged and written in stretches.

However long the corpus and the run, memory holds a few stretches of tokens at a time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from isoloss.laws.false_discovery import PValueCounts
from isoloss.laws.token_lines import Block, block_of_losses
from isoloss.laws.token_rule import KINDS, Judge, Judged, TrendRule, pooled_rho
from isoloss.laws.token_trend import CHUNK, first_checkpoint, regressor
from isoloss.store.files import slug
from isoloss.store.store import Store
from isoloss.store.token_series import TokenSeries

T = TypeVar("T")
R = TypeVar("R")

STRETCH = 1 << 17  # tokens read at once: 80 MB of losses at 150 checkpoints
_TOKENS_FOR_RHO = 1 << 17
_THREADS = min(4, os.cpu_count() or 1)
_SCHEMA = pa.schema(
    [
        ("kind", pa.int8()),
        ("slope", pa.float64()),
        ("p_value", pa.float64()),
        ("near", pa.bool_()),
        ("turn_sign", pa.int8()),
        ("turn", pa.int32()),
        ("turn_low", pa.int32()),
        ("turn_high", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClasses:
    """Where the classes of a run's tokens stand, and how many there are of each.

    Attributes:
        file: one row a token in the layout's order: kind (index into KINDS), slope, p_value,
            near, turn_sign, turn, turn_low, turn_high (checkpoints from ``first`` on).
        counts: tokens of each kind.
        first: index of the first checkpoint used.
        rho: correlation of neighbouring checkpoints that was reckoned with.
        largest_p: a slope is called a trend up to this p-value.
        unknown: tokens without a slope.
    """

    file: Path
    counts: dict[str, int]
    first: int
    rho: float
    largest_p: float
    unknown: int

    def shares(self) -> dict[str, float]:
        """Share of all tokens in each class."""
        total = sum(self.counts.values())
        return {kind: n / total for kind, n in self.counts.items()}

    def kinds(self) -> NDArray[np.int8]:
        """Index into KINDS of every token."""
        codes: NDArray[np.int8] = pl.read_parquet(self.file, columns=["kind"])["kind"].to_numpy()
        return codes


def classify_tokens(
    store: Store,
    series: TokenSeries,
    *,
    start: float = 0.1,
    alpha: float = 0.05,
    band: float = 0.05,
    rule: TrendRule | None = None,
) -> TokenClasses:
    """Classify every token of a series and keep the classes beside the store's losses.

    The same numbers as :func:`isoloss.laws.token_trends` gives for the whole table, which is
    never held. Checkpoints before ``start`` of the last step are left out.

    Args:
        store: where the classes are written, under ``token_classes/``.
        series: losses of a corpus along a run.
        start: share of training after which trends are looked for.
        alpha: level.
        band: half width of the stagnation band.
        rule: how trends are told; the paper's where None.
    """
    chosen = rule or TrendRule()
    checkpoints = len(series.steps)
    first = first_checkpoint((series.tokens, checkpoints), series.steps, start)
    x = regressor(None, checkpoints)[first:]
    rho = 0.0
    if chosen.trend == "robust":
        rho = pooled_rho(_spread(series, first), x)
    ends_first = int(start * checkpoints) if chosen.trend == "released" else None
    judge = Judge(x=x, rho=rho, alpha=alpha, band=band, rule=chosen)

    def one(low: int) -> Judged:
        losses = series.losses(low, min(low + STRETCH, series.tokens))
        return judged_losses(judge, losses, first, ends_first)

    folder = store.path / "token_classes" / slug(series.corpus) / series.layout
    file = folder / f"{slug(f'{series.model}@{series.run}')}.parquet"
    parts = in_order(one, range(0, series.tokens, STRETCH))
    if not chosen.false_discovery:
        return _kept(file, parts, alpha, strict=True, first=first, rho=rho)
    # the level depends on all p-values: they are written first, and classes in a second pass
    draft = file.with_name(f"{file.name}.draft")
    counts = PValueCounts()
    _kept(draft, _counted(parts, counts), alpha, strict=True, first=first, rho=rho)
    limit = counts.largest_p(alpha)
    kept = _kept(file, _reread(draft), limit, strict=False, first=first, rho=rho)
    draft.unlink()
    return kept


def judged_losses(
    judge: Judge, losses: NDArray[np.float32], first: int, ends_first: int | None = None
) -> Judged:
    """Judge a stretch of losses, (checkpoints, tokens), in blocks that stay in the cache."""
    parts = []
    for low in range(0, losses.shape[1], CHUNK):
        part = losses[:, low : low + CHUNK]
        ends = None if ends_first is None else block_of_losses(part[ends_first:])
        parts.append(judge.judge(block_of_losses(part[first:]), ends))
    return Judged.joined(parts)


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of a function in the items' order, a few computed ahead by threads."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _spread(series: TokenSeries, first: int) -> Iterator[Block]:
    """Evenly spread blocks of about so many tokens as tell the correlation."""
    starts = range(0, series.tokens, CHUNK)
    every = max(1, series.tokens // _TOKENS_FOR_RHO)
    for low in starts[::every]:
        losses = series.losses(low, min(low + CHUNK, series.tokens))
        yield block_of_losses(losses[first:])


def _counted(parts: Iterable[Judged], counts: PValueCounts) -> Iterator[Judged]:
    for part in parts:
        counts.add(part.p_value)
        yield part


def _reread(draft: Path) -> Iterator[Judged]:
    for batch in pq.ParquetFile(draft).iter_batches(STRETCH):
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in _SCHEMA.names[1:]]
        yield Judged(*columns)


def _kept(
    file: Path, parts: Iterable[Judged], limit: float, *, strict: bool, first: int, rho: float
) -> TokenClasses:
    """Write classes as they come, and put the file in place when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    counts = np.zeros(len(KINDS), dtype=np.int64)
    unknown = 0
    with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for part in parts:
            codes = part.codes(limit, strict=strict)
            counts += np.bincount(codes, minlength=len(KINDS))
            unknown += int(np.isnan(part.slope).sum())
            columns = dict(zip(_SCHEMA.names, (codes, *part), strict=True))
            writer.write_table(pa.table(columns, schema=_SCHEMA))
    temporary.replace(file)
    return TokenClasses(
        file=file,
        counts=dict(zip(KINDS, counts.tolist(), strict=True)),
        first=first,
        rho=rho,
        largest_p=limit,
        unknown=unknown,
    )
