"""The layout of a corpus under a tokenizer: which tokens are scored, in which windows.

Made once for a tokenizer and used for every checkpoint, so that row i is the same token of the
same text in all of them. Windows never cross documents.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.corpora.text import Corpus
from isoloss.errors import BadCheckpoint, BadData, BadRequest
from isoloss.models.tokenizer import tokenizer_hash
from isoloss.scoring.encode import prefix_token_id

Ints = NDArray[np.int32]
Indices = NDArray[np.int64]

# bounds the lists of offsets that the tokenizer hands out, which are larger than the text
_CHARACTERS_PER_CALL = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Scored tokens, one row each, and the windows that score them in row order.

    Window w is ``stream[starts[w]:stops[w]]``: at most ``context`` inputs and, after them, the
    last target. Its last ``row_stops[w] - row_starts[w]`` tokens are scored, and their losses
    are the rows ``row_starts[w]:row_stops[w]``.

    Attributes:
        token_id: int32 (rows,).
        document: index into the corpus's documents, int32 (rows,).
        position: index among the document's own tokens, int32 (rows,).
        bytes: UTF-8 bytes of text that each token stands for, int32 (rows,).
        stream: what the windows are cut from, documents with their prefix token, int32.
        starts: first token of each window in the stream, int64 (windows,).
        stops: end of each window in the stream, int64 (windows,).
        row_starts: first row each window scores, int64 (windows,).
        row_stops: end of the rows each window scores, int64 (windows,).
        context: longest input in tokens.
        stride: targets that each window after a document's first adds.
        bos_id: the token before each document; None where there is none.
        tokenizer_hash: see :func:`isoloss.models.tokenizer.tokenizer_hash`.
        layout_hash: equal hashes have equal rows and windows.
        notes: what a reader of the losses should know.
    """

    token_id: Ints
    document: Ints
    position: Ints
    bytes: Ints
    stream: Ints
    starts: Indices
    stops: Indices
    row_starts: Indices
    row_stops: Indices
    context: int
    stride: int
    bos_id: int | None
    tokenizer_hash: str
    layout_hash: str
    notes: tuple[str, ...]


def lay_out(
    corpus: Corpus,
    tokenizer: Any,
    *,
    context: int,
    stride: int | None = None,
    bos: bool | Literal["auto"] = "auto",
    tokens: int | None = None,
) -> Layout:
    """Lay a corpus out in windows.

    A document's first window scores up to ``context`` targets; each next one scores ``stride``
    more, given as much of the text before as the window holds. ``stride = context`` gives the
    rolling windows of lm-evaluation-harness, except that no document's text is given special
    tokens: where the tokenizer adds a BOS by itself, the harness scores that BOS too unless
    told ``add_bos_token=False``.

    A document, even the only one, may be shorter than the window: it runs as it is, and
    ``notes`` count such documents. Special tokens written out in the text are read as such.

    A token's bytes are those from the end of the tokens before it to its own end, so that they
    sum to the document's: a character of several tokens counts at the first of them, a space
    that no token covers at the next, and what the tokenizer drops at the end at the last.
    Where a prepended space is a token of its own, the first character counts there.

    Args:
        corpus: the documents.
        tokenizer: a fast transformers tokenizer.
        context: longest input in tokens, the prefix token included.
        stride: at most ``context``, which it is where None.
        bos: "auto" puts the harness's prefix token before each document: BOS, else EOS, else
            none. True demands one. Without one (False) a document's first token is context
            alone: it is not scored, and its bytes are left out of ``bytes``.
        tokens: at most this many rows: whole documents from the first on, the last one cut.

    Returns:
        The layout, of about 20 bytes a row; nearly all of the time is the tokenizer's.

    Raises:
        BadData: the corpus has fewer than two tokens, or none that can be scored.
        BadRequest: context, stride or tokens are out of range, or True finds no prefix token.
        BadCheckpoint: the tokenizer is not a fast one.
    """
    stride = context if stride is None else stride
    _check(tokenizer, context, stride, tokens)
    bos_id = _prefix(tokenizer, bos)
    first = 0 if bos_id is not None else 1
    encoded = _encode(corpus, tokenizer, tokens, first)
    sizes = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
    targets = np.maximum(sizes - first, 0)
    if sizes.sum() < 2 or not targets.any():
        raise BadData(
            f"the corpus {corpus.name} is too short to have a loss.",
            asked=f"{sizes.sum()} tokens in {len(sizes)} documents, "
            + ("no prefix token" if bos_id is None else f"prefix token {bos_id}"),
            remedy="give a text of at least two tokens"
            + ("" if bos_id is not None else ", and documents of two tokens each without a BOS"),
        )
    if tokens is not None:
        before = np.cumsum(targets) - targets
        sizes, targets = sizes[before < tokens], targets[before < tokens]
    notes = _notes(sizes, targets, len(corpus.documents), context=context, bos_id=bos_id)
    if tokens is not None:
        targets[-1] = min(targets[-1], tokens - targets[:-1].sum())
    chosen = np.flatnonzero(targets)
    kept = [slice(first, first + n) for n in targets[chosen]]
    prefix = np.array([] if bos_id is None else [bos_id], dtype=np.int32)
    name = tokenizer_hash(tokenizer)
    rows = int(targets.sum())
    identity = [corpus.text_hash, name, context, stride, bos_id, corpus.document, rows]
    return Layout(
        token_id=_join(encoded[d].ids[k] for d, k in zip(chosen, kept, strict=True)),
        document=np.repeat(chosen, targets[chosen]).astype(np.int32),
        position=_join(np.arange(k.start, k.stop) for k in kept),
        bytes=_join(encoded[d].bytes[k] for d, k in zip(chosen, kept, strict=True)),
        stream=_join(
            part
            for d, k in zip(chosen, kept, strict=True)
            for part in (prefix, encoded[d].ids[: k.stop])
        ),
        **_windows(targets[chosen], context, stride)._asdict(),
        context=context,
        stride=stride,
        bos_id=bos_id,
        tokenizer_hash=name,
        layout_hash=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32],
        notes=notes,
    )


class _Encoded(NamedTuple):
    ids: Ints
    bytes: Ints


class _Windows(NamedTuple):
    starts: Indices
    stops: Indices
    row_starts: Indices
    row_stops: Indices


def _check(tokenizer: Any, context: int, stride: int, tokens: int | None) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise BadCheckpoint(
            "the tokenizer is not a fast one: it cannot tell which bytes a token stands for.",
            asked=type(tokenizer).__name__,
            remedy="save it with a tokenizer.json (transformers converts most of them)",
        )
    if context < 2:
        raise BadRequest(
            "a window needs at least two tokens.", asked=f"context {context}", remedy="context >= 2"
        )
    if not 1 <= stride <= context:
        raise BadRequest(
            "the stride does not fit the window.",
            asked=f"stride {stride}, context {context}",
            nearest=f"stride {context}: windows side by side",
            remedy="a stride from 1 to context: a longer one would skip tokens",
        )
    if tokens is not None and tokens < 1:
        raise BadRequest(
            "no token would be scored.",
            asked=f"tokens {tokens}",
            remedy="tokens >= 1, or leave it out for all",
        )


def _prefix(tokenizer: Any, bos: bool | Literal["auto"]) -> int | None:
    prefix = prefix_token_id(tokenizer) if bos else None
    if prefix is None and bos is True:
        raise BadRequest(
            "the tokenizer has neither a BOS nor an EOS token to put before a document.",
            asked="bos = true",
            remedy='bos = "auto" or false: the first token of each document is then not scored',
        )
    return prefix


def _encode(corpus: Corpus, tokenizer: Any, limit: int | None, first: int) -> list[_Encoded]:
    """Tokens of the documents from the first on, until ``limit`` of them can be scored."""
    encoded: list[_Encoded] = []
    batch: list[str] = []
    characters = scored = 0
    for i, text in enumerate(corpus.documents, start=1):
        batch.append(text)
        characters += len(text)
        if characters < _CHARACTERS_PER_CALL and i < len(corpus.documents):
            continue
        # verbose=False: a text longer than the model's window is what windows are for
        output = tokenizer(
            batch,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        for document, ids, offsets in zip(
            batch, output["input_ids"], output["offset_mapping"], strict=True
        ):
            encoded.append(
                _Encoded(np.array(ids, dtype=np.int32), _bytes_of_tokens(document, offsets))
            )
            scored += max(len(ids) - first, 0)
        if limit is not None and scored >= limit:
            break
        batch, characters = [], 0
    return encoded


def _bytes_of_tokens(text: str, offsets: list[tuple[int, int]]) -> Ints:
    ends = np.fromiter((end for _, end in offsets), dtype=np.int64, count=len(offsets))
    if not len(ends):
        return ends.astype(np.int32)
    ends = np.maximum.accumulate(ends)
    ends[-1] = len(text)
    if not text.isascii():
        code = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        widths = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(widths)])[ends]
    return np.diff(ends, prepend=0).astype(np.int32)


def _windows(targets: Indices, context: int, stride: int) -> _Windows:
    """Windows over documents with these numbers of targets, each at least 1."""
    counts = 1 + -(-np.maximum(targets - context, 0) // stride)
    owner = np.repeat(np.arange(len(targets)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    # targets done before and after the window, counted within the document
    done = np.where(nth == 0, 0, context + (nth - 1) * stride)
    end = np.minimum(context + nth * stride, targets[owner])
    row = np.cumsum(targets) - targets
    # a document has one token more than targets in the stream: its first predicts only
    stream = row + np.arange(len(targets))
    return _Windows(
        starts=stream[owner] + np.maximum(end - context, 0),
        stops=stream[owner] + end + 1,
        row_starts=row[owner] + done,
        row_stops=row[owner] + end,
    )


def _notes(
    sizes: Indices, targets: Indices, documents: int, *, context: int, bos_id: int | None
) -> tuple[str, ...]:
    notes = []
    if bos_id is None:
        notes.append(f"without a BOS the first token of {np.count_nonzero(sizes)} documents is "
                     "not scored, and its bytes are left out")  # fmt: skip
    if unscored := np.count_nonzero(targets == 0):
        notes.append(f"{unscored} of {len(sizes)} documents have no token to score")
    if short := np.count_nonzero((targets > 0) & (targets < context)):
        notes.append(f"{short} of {len(sizes)} documents are shorter than the window of {context}")
    if len(sizes) < documents:
        notes.append(f"of {documents} documents the first {len(sizes)} reach the limit of tokens")
    return tuple(notes)


def _join(parts: Any) -> Ints:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
