"""Documents as a model reads them, and what its layers make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.corpora.language import model_tokens, special_id
from isoloss.errors import BadData, BadRequest, NonFinite
from isoloss.probes.optimum import check_vocabulary, masked_frame
from isoloss.probes.transfer_tasks import Sentences, Texts
from isoloss.scoring.encoder import is_masked, positions_of
from isoloss.scoring.window import max_window

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats32 = NDArray[np.float32]
Pooling = Literal["concat", "mean"]

MOST_FEATURES = 1024
"""A longer concatenation is projected at random onto so many numbers."""

TOKENS_A_PASS = 8192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Documents:
    """Documents in a model's token ids.

    Attributes:
        ids: int (n, seq), padded on the right.
        attention: 1 on tokens and 0 on padding, int (n, seq).
        content: the words themselves, without special tokens and padding, (n, seq).
        truncated: documents that were longer than the model's window and lost their end.
    """

    ids: Ints
    attention: Ints
    content: Bools
    truncated: int

    def inputs(self, rows: Ints | slice, *, masked: bool, device: torch.device) -> dict[str, Any]:
        """What a masked or a causal model is called with for some of the documents."""
        found: dict[str, Any] = {"input_ids": torch.from_numpy(self.ids[rows]).to(device)}
        if not masked:
            # padding follows the words, which therefore do not see it
            return found | {"use_cache": False}
        if not self.attention.all():
            found["attention_mask"] = torch.from_numpy(self.attention[rows]).to(device)
        return found


def read_documents(model: nn.Module, tokenizer: Any, documents: Sentences | Texts) -> Documents:
    """Put documents into a model's token ids.

    Sentences of a language are framed as in training: BOS before, and for masked models EOS
    after them. Texts are tokenized as the tokenizer does for one text or for a pair.

    Args:
        model: causal or masked.
        tokenizer: of the model; sentences need none.
        documents: sentences or texts.

    Returns:
        The documents.

    Raises:
        BadRequest: the model was trained on another language.
        BadData: a text has no token of its own.
    """
    if isinstance(documents, Sentences):
        check_vocabulary(model, documents.vocab)
        return _sentences(documents, masked=is_masked(model))
    window = (
        positions_of(model, tokenizer) if is_masked(model) else max_window(model.config, tokenizer)
    )
    return _texts(tokenizer, documents, window)


def layer_features(
    model: nn.Module,
    documents: Documents,
    layers: Sequence[int],
    *,
    pooling: Pooling = "concat",
    most: int = MOST_FEATURES,
    seed: int,
) -> list[Floats32]:
    """What layers make of documents, one vector a document.

    Args:
        model: called with ``output_hidden_states=True``; its weights do not change.
        documents: in its token ids.
        layers: 0 is the embeddings' output, then one a layer; negative ones count from the end.
            The last is normalised as the head reads it.
        pooling: "concat" puts the states of all words side by side, 0 after a document's end;
            "mean" averages them.
        most: longer vectors are projected onto so many numbers by a Gaussian matrix.
        seed: of the projection.

    Returns:
        float32 (n, features) a layer.

    Raises:
        BadRequest: the model has no such layer.
        NonFinite: the model's states hold NaN.

    Reference:
        Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, appendix A.4:
        concatenated states of all tokens, where a projection onto 512 numbers changed nothing.
    """
    words = _word_places(documents.content)
    rows = max(TOKENS_A_PASS // documents.ids.shape[1], 1)
    device = next(model.parameters()).device
    found: list[list[Floats32]] = [[] for _ in layers]
    projection: Tensor | None = None
    for at in range(0, len(documents.ids), rows):
        part = slice(at, at + rows)
        with torch.inference_mode():
            inputs = documents.inputs(part, masked=is_masked(model), device=device)
            states = model(**inputs, output_hidden_states=True).hidden_states
            for features, layer in zip(found, layers, strict=True):
                pooled = _pool(states[_place(layer, len(states))], words, part, pooling)
                if pooled.shape[1] > most:
                    if projection is None:
                        projection = _gaussian(pooled.shape[1], most, seed).to(pooled.device)
                    pooled = pooled @ projection
                features.append(pooled.cpu().numpy())
    return [_finite(np.concatenate(features)) for features in found]


def project(features: NDArray[np.floating], *, most: int = MOST_FEATURES, seed: int) -> Floats32:
    """Features wider than ``most`` projected onto so many numbers; others as they are."""
    x = np.asarray(features, dtype=np.float32)
    if x.shape[1] > most:
        x = x @ _gaussian(x.shape[1], most, seed).numpy()
    return _finite(x)


def _gaussian(wide: int, narrow: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    # lengths are kept on average
    return torch.randn(wide, narrow, generator=draw) / math.sqrt(narrow)


class _Words(NamedTuple):
    places: Tensor  # columns of the words, in order, then any others; (n, most words)
    present: Tensor  # (n, most words)


def _word_places(content: Bools) -> _Words:
    longest = int(content.sum(axis=1).max())
    places = np.argsort(~content, axis=1, kind="stable")[:, :longest]
    present = np.take_along_axis(content, places, axis=1)
    return _Words(torch.from_numpy(places), torch.from_numpy(present))


def _pool(states: Tensor, words: _Words, rows: slice, pooling: Pooling) -> Tensor:
    places = words.places[rows].to(states.device)[..., None]
    present = words.present[rows].to(states.device)[..., None]
    kept = states.float().gather(1, places.expand(-1, -1, states.shape[2]))
    kept = torch.where(present, kept, 0.0)
    return kept.flatten(1) if pooling == "concat" else kept.sum(dim=1) / present.sum(dim=1)


def _place(layer: int, count: int) -> int:
    if not -count <= layer < count:
        raise BadRequest(
            "the model has no such layer",
            asked=f"layer {layer}",
            nearest=f"0 (embeddings) to {count - 1}, or {-count} to -1",
            remedy="choose one of these",
        )
    return layer


def _finite(features: Floats32) -> Floats32:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise NonFinite(
            "the model's hidden states are not numbers",
            asked=f"{int((~finite).sum())} of {len(features)} documents",
            remedy="leave this checkpoint out: its weights have diverged",
        )
    return features


def _sentences(sentences: Sentences, *, masked: bool) -> Documents:
    words, vocab = sentences
    lengths = (words >= 0).sum(axis=1)
    if masked:
        ids = masked_frame(words, vocab).ids
    else:
        ids = model_tokens(words, vocab)
        ids = np.where(ids >= 0, ids, special_id(vocab, "<pad>"))
    columns = np.arange(ids.shape[1])
    return Documents(
        ids=ids,
        attention=(columns < lengths[:, None] + 1 + masked).astype(np.int64),
        content=(columns >= 1) & (columns <= lengths[:, None]),
        truncated=0,
    )


def _texts(tokenizer: Any, texts: Texts, window: int) -> Documents:
    columns = [list(column) for column in zip(*texts.parts, strict=True)]
    whole = tokenizer(*columns, return_special_tokens_mask=True, verbose=False)
    cut = sum(len(ids) > window for ids in whole["input_ids"])
    if cut:
        whole = tokenizer(
            *columns, truncation=True, max_length=window, return_special_tokens_mask=True
        )
    rows = whole["input_ids"]
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = np.full((len(rows), longest), 0 if pad is None else pad, dtype=np.int64)
    attention, content = np.zeros_like(ids), np.zeros(ids.shape, dtype=bool)
    for i, (row, special) in enumerate(zip(rows, whole["special_tokens_mask"], strict=True)):
        ids[i, : len(row)] = row
        attention[i, : len(row)] = 1
        content[i, : len(row)] = np.asarray(special) == 0
    if not content.any(axis=1).all():
        first = int(np.argmin(content.any(axis=1)))
        raise BadData(
            "a text has no token of its own",
            asked=repr(" | ".join(texts.parts[first])[:60]),
            remedy="drop the document, or check that the tokenizer knows its script",
        )
    return Documents(ids=ids, attention=attention, content=content, truncated=cut)
