"""What two checkpoints lose on the same text: in all, by kind of token, and by document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadRequest, Refused, nearest_name
from isoloss.steps import steps
from isoloss.store.files import slug
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store
from isoloss.studies.comparison.chosen import Chosen
from isoloss.studies.comparison.paired import Difference, paired_ratio
from isoloss.studies.comparison.token_kinds import KindDifference, Reading, kinds_and_text

MOST_MOVED = 20
_WINDOW = 512
_READING = ("context", "stride", "bos")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A document on which the two checkpoints differ much.

    Attributes:
        document: its number in the corpus, from 0.
        tokens: scored; None where the two have different tokenizers.
        bytes: of its text.
        a: loss of the first, in nats per token; bits per byte under different tokenizers.
        b: of the second.
        text: how it begins; None where no tokenizer lies beside the store.
    """

    document: int
    tokens: int | None
    bytes: int
    a: float
    b: float
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossDifference:
    """One corpus under one reading.

    Attributes:
        corpus: its name in the study.
        reading: context, stride and BOS, in words.
        nats_per_token: b less a; None where the two have different tokenizers.
        bits_per_byte: b less a.
        blocks: what was resampled: documents, or windows where there is one document.
        kinds: by part of a word, by whether the token came before, by how frequent it is; empty
            where the two have different tokenizers.
        moved: the documents that moved most, the furthest first.
        notes: what was left out.
    """

    corpus: str
    reading: str
    nats_per_token: Difference | None
    bits_per_byte: Difference
    blocks: str
    kinds: tuple[KindDifference, ...]
    moved: tuple[Moved, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossDifferences:
    """All corpora of two checkpoints.

    Attributes:
        found: one entry a corpus and reading.
        skipped: why a corpus that both have was not compared, in words.
    """

    found: tuple[LossDifference, ...]
    skipped: tuple[str, ...]


class _Sums(NamedTuple):
    """Of each block: nats of both, tokens (None under two tokenizers) and bytes."""

    blocks: NDArray[np.int64]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    tokens: NDArray[np.float64] | None
    bytes: NDArray[np.float64]


def loss_differences(
    store: Store,
    a: Chosen,
    b: Chosen,
    *,
    corpora: Sequence[str] = (),
    level: float = 0.95,
) -> LossDifferences:
    """Compare two checkpoints on every corpus, paired by document, from the losses of tokens.

    Args:
        store: the results.
        a: the first checkpoint.
        b: the second.
        corpora: names; all that both have where there are none.
        level: of the intervals.

    Returns:
        A corpus read in several ways by both is one entry a way.

    Raises:
        BadRequest: one of the two has no token losses of a named corpus.
        Refused: a named corpus was read in different ways, or no document is shared.
    """
    cells = {one: _cells(store, one) for one in (a, b)}
    names = {one: set(cells[one]["subject"]) for one in (a, b)}
    for corpus in corpora:
        for one in (a, b):
            if corpus not in names[one]:
                raise _no_corpus(corpus, one, names[one])
    found: list[LossDifference] = []
    skipped: list[str] = []
    shared = list(dict.fromkeys(corpora)) or sorted(names[a] & names[b])
    for corpus in steps("comparing", shared):
        try:
            own = [cells[one].filter(pl.col("subject") == corpus) for one in (a, b)]
            found += _of_corpus(store, corpus, own, (a, b), level)
        except Refused as error:
            if corpora:
                raise
            skipped.append(f"{corpus}: {error.what.rstrip('.')} ({error.asked})")
    return LossDifferences(found=tuple(found), skipped=tuple(skipped))


def _cells(store: Store, one: Chosen) -> pl.DataFrame:
    """Cells of token losses with their layout and file."""
    rows = store.cells().filter(
        pl.col("probe") == LOSS_PROBE, pl.col("weights_hash").is_in(list(one.weights))
    )
    frame = rows.sort("measured_at", descending=True, nulls_last=True).collect()
    files = {
        (corpus, file.stem): file
        for corpus in frame["subject"].unique()
        for file in store.place.part("token_losses", slug(corpus)).glob("*/*.parquet")
    }
    found = [files.get((corpus, cell)) for corpus, cell in frame.select("subject", "cell").rows()]
    return frame.with_columns(
        layout=pl.Series([file.parent.name if file else None for file in found], dtype=pl.String),
        file=pl.Series([str(file) if file else None for file in found], dtype=pl.String),
    ).filter(pl.col("layout").is_not_null())


def _of_corpus(
    store: Store,
    corpus: str,
    cells: Sequence[pl.DataFrame],
    names: tuple[Chosen, Chosen],
    level: float,
) -> list[LossDifference]:
    first, second = (
        {row["layout"]: row for row in part.iter_rows(named=True)} for part in cells
    )  # fmt: skip
    shared = sorted(set(first) & set(second))
    if shared:
        return [
            _same_layout(store, corpus, layout, first[layout], second[layout], names, level)
            for layout in shared
        ]
    one, other = next(iter(first.values())), next(iter(second.values()))
    if set(cells[0]["tokenizer_hash"]) & set(cells[1]["tokenizer_hash"]):
        raise Refused(
            f"{corpus} was cut in two ways.",
            asked=f"{names[0].name}: {_told(one)}; {names[1].name}: {_told(other)}",
            remedy="measure both with one context, stride and document rule: isoloss run STUDY",
        )
    return [_two_tokenizers(corpus, one, other, names, level)]


def _same_layout(
    store: Store,
    corpus: str,
    layout: str,
    a: dict[str, object],
    b: dict[str, object],
    names: tuple[Chosen, Chosen],
    level: float,
) -> LossDifference:
    read = _tokens(a).with_columns(b=_tokens(b)["loss_nats"]).with_row_index("row")
    known = read.filter(pl.col("loss_nats").is_finite() & pl.col("b").is_finite())
    if known.is_empty():
        raise _none_shared(corpus, names, "no token has a finite loss at both")
    window = int(str(a["stride"] or a["context"] or _WINDOW))
    alone = known["document"].n_unique() == 1
    block = (pl.col("row") // window).cast(pl.Int64) if alone else pl.col("document")
    table = known.group_by(block.alias("block")).agg(
        a=pl.col("loss_nats").cast(pl.Float64).sum(), b=pl.col("b").cast(pl.Float64).sum(),
        tokens=pl.len(), bytes=pl.col("bytes").sum(),
    ).sort("block")  # fmt: skip
    sums = _Sums(*(table[name].to_numpy() for name in ("block", "a", "b", "tokens", "bytes")))
    reading = Reading(
        store=store, corpus=corpus, layout=layout, window=window, names=names,
        files=(Path(str(a["file"])), Path(str(b["file"]))), tokens=read.height,
    )  # fmt: skip
    told = kinds_and_text(reading, read, level=level)
    moved = [] if alone else _moved(sums, told.openings)
    assert sums.tokens is not None
    notes = [*told.notes]
    if known.height < read.height:
        notes.append(f"{read.height - known.height} tokens without a finite loss are left out")
    return LossDifference(
        corpus=corpus,
        reading=_told(a),
        nats_per_token=paired_ratio(sums.a, sums.b, sums.tokens, level=level),
        bits_per_byte=_bits(sums, level),
        blocks=f"windows of {window} tokens" if alone else "documents",
        kinds=told.kinds,
        moved=tuple(moved),
        notes=tuple(notes),
    )


def _two_tokenizers(
    corpus: str,
    a: dict[str, object],
    b: dict[str, object],
    names: tuple[Chosen, Chosen],
    level: float,
) -> LossDifference:
    """Documents of the same number of bytes under both, in bits per byte."""
    if a["corpus_hash"] != b["corpus_hash"]:
        raise _none_shared(corpus, names, "the two were measured on different texts of that name")
    tables = [
        _tokens(one)
        .group_by("document")
        .agg(nats=pl.col("loss_nats").cast(pl.Float64).sum(), bytes=pl.col("bytes").sum())
        for one in (a, b)
    ]
    both = tables[0].join(tables[1], on="document", suffix="_b").sort("document")
    # a document that `tokens =` cut short ends at different bytes under two tokenizers
    same = both.filter(
        pl.col("bytes") == pl.col("bytes_b"),
        pl.col("nats").is_finite() & pl.col("nats_b").is_finite(),
    )
    if same.is_empty():
        raise _none_shared(corpus, names, "the tokenizers scored no document over the same bytes")
    block, first, second, size = (
        same[name].to_numpy() for name in ("document", "nats", "nats_b", "bytes")
    )
    sums = _Sums(block, first, second, None, size)
    notes = ["the two have different tokenizers: losses per token cannot be compared"]
    if left := max(t.height for t in tables) - same.height:
        notes.append(f"{left} documents of which not the same bytes were scored are left out")
    return LossDifference(
        corpus=corpus,
        reading=_told(a),
        nats_per_token=None,
        bits_per_byte=_bits(sums, level),
        blocks="documents",
        kinds=(),
        moved=tuple(_moved(sums, {})),
        notes=tuple(notes),
    )


def _bits(sums: _Sums, level: float) -> Difference:
    return paired_ratio(sums.a / np.log(2), sums.b / np.log(2), sums.bytes, level=level)


def _moved(sums: _Sums, openings: Mapping[int, str]) -> list[Moved]:
    """Documents by difference per token times the root of its tokens.

    That is what a t-value goes by where tokens are alike: neither the shortest documents, whose
    means jump, nor the longest, which weigh most, come first by their length alone.
    """
    size = sums.bytes if sums.tokens is None else sums.tokens
    scale = np.log(2) if sums.tokens is None else 1.0
    far = np.abs(sums.b - sums.a) / np.sqrt(np.maximum(size, 1))
    return [
        Moved(
            document=int(sums.blocks[i]),
            tokens=None if sums.tokens is None else int(sums.tokens[i]),
            bytes=int(sums.bytes[i]),
            a=float(sums.a[i] / scale / size[i]),
            b=float(sums.b[i] / scale / size[i]),
            text=openings.get(int(sums.blocks[i])),
        )
        for i in np.argsort(-far, kind="stable")[:MOST_MOVED]
        if size[i]
    ]


def _tokens(cell: dict[str, object]) -> pl.DataFrame:
    file = Path(str(cell["file"]))
    tokens = pl.read_parquet(file.parent / "tokens.parquet", glob=False)
    return pl.concat([tokens, pl.read_parquet(file, glob=False)], how="horizontal")


def _told(cell: dict[str, object]) -> str:
    known = [f"{key} {cell[key]}" for key in _READING if cell[key] is not None]
    return ", ".join([*known, f"layout {str(cell['layout'])[:8]}"])


def _none_shared(corpus: str, names: tuple[Chosen, Chosen], why: str) -> Refused:
    return Refused(
        f"{names[0].name} and {names[1].name} share no document of {corpus}.",
        asked=why,
        remedy="measure both on one text, whole documents: leave out `tokens` of the corpus",
    )


def _no_corpus(corpus: str, one: Chosen, known: set[str]) -> BadRequest:
    return BadRequest(
        f"{one.name} has no losses of single tokens of this corpus.",
        asked=corpus,
        nearest=nearest_name(corpus, known) or ", ".join(sorted(known)[:12]) or None,
        remedy="--corpus with one of these, or measure it: isoloss run --corpus FILE",
    )
