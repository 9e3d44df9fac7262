"""Hidden states of every layer, a batch of tokens at a time, and the text they are read from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.corpora.language import Language, held_out_seed, model_tokens, special_id
from isoloss.corpora.windows import Layout
from isoloss.errors import BadCheckpoint, BadRequest
from isoloss.probes.optimum import check_vocabulary, masked_frame
from isoloss.scoring.encoder import is_masked
from isoloss.scoring.head import backbone_of

SEED_PART = 7  # of the held-out sentences: others than those of the other probes

# every layer's states of so many tokens are alive at once
_TOKENS = 2048


class Reading(NamedTuple):
    """Rows of tokens, padded on the right.

    Attributes:
        ids: int64 (batch, seq).
        kept: bool (batch, seq), False for padding and for tokens another row has seen.
        block: int64 (batch, seq), the independent block, such as the document, of each token.
        attention: int64 (batch, seq) for models that look ahead; None for causal ones.
    """

    ids: Tensor
    kept: Tensor
    block: Tensor
    attention: Tensor | None


class Place(NamedTuple):
    """Where in a model states are taken.

    Attributes:
        layer: 0 for the embeddings, the number of layers for the last.
        norm: "before" or "after" the final norm; None below the last layer.
    """

    layer: int
    norm: str | None


def places(layers: int) -> tuple[Place, ...]:
    """All places of a model of so many layers, in the order in which they are read.

    >>> places(1)
    (Place(layer=0, norm=None), Place(layer=1, norm='before'), Place(layer=1, norm='after'))
    """
    below = [Place(layer, None) for layer in range(layers)]
    return (*below, Place(layers, "before"), Place(layers, "after"))


class LayerReader:
    """Reads all layers of a model.

    The final norm is found by what it does: the one outside the layers whose output is the last
    hidden state. A model without one has equal states before and after.

    Args:
        model: of transformers, in evaluation mode.

    Attributes:
        places: what :meth:`read` gives.

    Raises:
        BadCheckpoint: the model does not hand out its hidden states.
    """

    def __init__(self, model: nn.Module) -> None:
        self._backbone: Any = backbone_of(model) or model
        self.device = next(model.parameters()).device
        self._norm: nn.Module | None = None
        seen: dict[nn.Module, Tensor] = {}
        hooks = [
            module.register_forward_hook(lambda m, _, out: seen.__setitem__(m, out))
            for name, module in self._backbone.named_modules()
            # a number in the name: a part of one of the layers
            if "norm" in type(module).__name__.lower()
            and not any(part.isdigit() for part in name.split("."))
        ]
        try:
            states = self._states(torch.zeros((1, 4), dtype=torch.int64), None)
        finally:
            for hook in hooks:
                hook.remove()
        for module, output in seen.items():
            if isinstance(output, Tensor) and torch.equal(output, states[-1]):
                self._norm = module
        self.places = places(len(states) - 1)

    def read(self, ids: Tensor, attention: Tensor | None = None) -> tuple[Tensor, ...]:
        """States (batch, seq, width) at every place, on the model's device.

        Args:
            ids: int64 (batch, seq).
            attention: 1 where a token may be looked at; None for all.
        """
        before: list[Tensor] = []
        hook = None
        if self._norm is not None:
            hook = self._norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        try:
            states = self._states(ids, attention)
        finally:
            if hook is not None:
                hook.remove()
        return (*states[:-1], before[-1] if before else states[-1], states[-1])

    @torch.no_grad()
    def _states(self, ids: Tensor, attention: Tensor | None) -> tuple[Tensor, ...]:
        options = {} if attention is None else {"attention_mask": attention.to(self.device)}
        output = self._backbone(input_ids=ids.to(self.device), output_hidden_states=True, **options)
        states = getattr(output, "hidden_states", None)
        if not states:
            raise BadCheckpoint(
                "the model does not hand out the states of its layers.",
                asked=type(self._backbone).__name__,
                remedy="leave this model out of [probe.anisotropy] with at, or drop the probe",
            )
        return tuple(states)


def corpus_readings(model: nn.Module, layout: Layout, *, tokens: int, seed: int) -> list[Reading]:
    """Windows of a corpus in a seeded order, until so many tokens are read.

    Args:
        model: causal.
        layout: of the corpus under the model's tokenizer.
        tokens: at most so many; each is taken once, where windows overlap.
        seed: of the order of the windows.

    Returns:
        Batches of at most 2,048 tokens (or one window). A token's block is its document; its
        window, where there is one document.

    Raises:
        BadRequest: the model is masked: how a text is framed for it is not settled.
    """
    if is_masked(model):
        raise BadRequest(
            "hidden states on a corpus are those of a causal model.",
            asked=f"a masked model, {type(model).__name__}",
            nearest="a family trained by isoloss, on its own language",
            remedy="drop corpus from the probe",
        )
    order = np.random.default_rng(seed).permutation(len(layout.starts))
    scored = (layout.row_stops - layout.row_starts)[order]
    # each window whole but the one that reaches the limit
    room = np.clip(tokens - (np.cumsum(scored) - scored), 0, scored)
    order, room = order[room > 0], room[room > 0]
    single = layout.document[0] == layout.document[-1]
    rows = []
    for w, left in zip(order.tolist(), room.tolist(), strict=True):
        # the state at a token predicts the next one: the last token of a window is not read
        ids = layout.stream[layout.starts[w] : layout.stops[w] - 1].astype(np.int64)
        kept = np.zeros(len(ids), dtype=np.bool_)
        first = len(ids) - int(layout.row_stops[w] - layout.row_starts[w])
        kept[first : first + left] = True
        rows.append((ids, kept, w if single else int(layout.document[layout.row_starts[w]])))
    rows.sort(key=lambda row: -len(row[0]))  # like lengths together waste least on padding
    return list(_batches(rows))


def language_readings(
    model: nn.Module, language: Language, *, tokens: int, seed: int
) -> list[Reading]:
    """Held-out sentences of a language, as the model was trained to read them.

    Args:
        model: causal, or masked; nothing is masked.
        language: the family's own.
        tokens: about so many, special ones included.
        seed: of the sentences; equal seeds compare models on equal ones.

    Returns:
        Batches of about 2,048 tokens; a token's block is its sentence.

    Raises:
        BadRequest: the model does not read this language.
    """
    check_vocabulary(model, language.vocab)
    sentences = max(2, tokens // (language.length + 1))
    words = language.sample(sentences, held_out_seed(seed, SEED_PART))
    if is_masked(model):
        frame = masked_frame(words, language.vocab)
        ids, attention = frame.ids, frame.attention
        kept = np.ones(ids.shape, dtype=np.bool_) if attention is None else attention > 0
    else:
        ids, attention = model_tokens(words, language.vocab), None
        kept = ids >= 0
        ids = np.where(kept, ids, special_id(language.vocab, "<pad>"))
    block = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    parts = np.array_split(np.arange(len(ids)), max(1, ids.size // _TOKENS))
    return [
        Reading(
            ids=torch.from_numpy(ids[rows]),
            kept=torch.from_numpy(kept[rows]),
            block=torch.from_numpy(block[rows].astype(np.int64)),
            attention=None if attention is None else torch.from_numpy(attention[rows]),
        )
        for rows in parts
    ]


Row = tuple[NDArray[np.int64], NDArray[np.bool_], int]


def _batches(rows: list[Row]) -> Iterator[Reading]:
    at = 0
    while at < len(rows):
        width = len(rows[at][0])
        part = rows[at : at + max(1, _TOKENS // width)]
        at += len(part)
        # padded with the row's own first token: a foreign one could bring NaN
        ids = np.stack([np.pad(i, (0, width - len(i)), constant_values=i[0]) for i, _, _ in part])
        kept = np.stack([np.pad(k, (0, width - len(k))) for _, k, _ in part])
        block = np.repeat(np.array([b for _, _, b in part], dtype=np.int64), width)
        yield Reading(
            ids=torch.from_numpy(ids),
            kept=torch.from_numpy(kept),
            block=torch.from_numpy(block.reshape(ids.shape)),
            attention=None,
        )
