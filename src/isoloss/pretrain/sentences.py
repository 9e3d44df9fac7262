"""The endless stream of fresh sentences that a run is trained on, addressable by step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isoloss.corpora.language import Language, model_tokens

BLOCK = 64  # steps sampled at once: drawing a batch alone costs as much as a small model's step


class SentenceStream:
    """Batches of sentences that depend on the seeds and the step alone.

    A resumed run therefore sees what the uninterrupted one would have seen, and runs of equal
    seeds see the same sentences whatever their size.
    """

    def __init__(self, language: Language, *, batch: int, seeds: tuple[int, ...]) -> None:
        self._language, self._batch, self._seeds = language, batch, seeds
        self._block: int | None = None
        self._tokens: Tensor = torch.empty(0)

    def at(self, step: int) -> Tensor:
        """The batch of optimizer step ``step`` (from 1), int64 (batch, 1 + length)."""
        block, place = divmod(step - 1, BLOCK)
        if block != self._block:
            words = self._language.sample(self._batch * BLOCK, [*self._seeds, block])
            ids = np.ascontiguousarray(model_tokens(words, self._language.vocab))
            self._tokens, self._block = torch.from_numpy(ids), block
        return self._tokens[place * self._batch : (place + 1) * self._batch]
