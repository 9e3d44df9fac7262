"""Texts of two models at once: weighted sums of their next-token probabilities.

``p' = small * p_small + large * p_large``, negatives cut and the rest renormalised. With weights
(1, -1) a text takes what the small model likes more than the large one does: grammatical, and
mostly untrue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.errors import BadRequest

PUBLISHED_WEIGHTS = ((1.0, -1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (-1.0, 1.0))
"""(small, large) of the five settings of Xia et al. (2023), section 4."""
_LEAST_MASS = 1e-9  # below it what is left of p' is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """How two models write together.

    Attributes:
        small: weight of the small model's probabilities, -1 to 1.
        large: weight of the large model's.
        decoding: the likeliest token, or a draw from the fewest tokens that hold ``top_p``.
        top_p: of the nucleus.
        max_tokens: to write after the prompt.
    """

    small: float
    large: float
    decoding: Literal["greedy", "nucleus"] = "nucleus"
    top_p: float = 0.9
    max_tokens: int = 50

    def __post_init__(self) -> None:
        weights = (self.small, self.large)
        if max(weights) <= 0 or max(map(abs, weights)) > 1:
            raise BadRequest(
                "two models can not write with these weights.",
                asked=f"small={self.small}, large={self.large}",
                nearest="small=1.0, large=-1.0",
                remedy="take weights of -1 to 1, one of them above 0",
            )
        if not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise BadRequest(
                "there is no such decoding.",
                asked=f"top_p={self.top_p}, max_tokens={self.max_tokens}",
                nearest="top_p=0.9, max_tokens=50",
                remedy="take top_p above 0 and up to 1, and at least one token",
            )

    @property
    def name(self) -> str:
        """Such as ``small-large nucleus``."""
        published = ("small-large", "small", "small+large", "large", "large-small")
        names = dict(zip(PUBLISHED_WEIGHTS, published, strict=True))
        key = (self.small, self.large)
        return f"{names.get(key, f'{self.small:g}small{self.large:+g}large')} {self.decoding}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastTexts:
    """What two models wrote.

    Attributes:
        tokens: after each prompt; shorter than asked where a text ended.
        contrast: the setting.
        seed: of the draws.
        prompts_hash: of the prompts' tokens, SHA-256.
        undecided: places where the models' probabilities were equal, so that nothing was left
            of p'; the small model's own were taken.
    """

    tokens: tuple[tuple[int, ...], ...]
    contrast: Contrast
    seed: int
    prompts_hash: str
    undecided: int


class Mixed(NamedTuple):
    """p' (batch, vocab), and in how many rows nothing was left of it."""

    probabilities: Tensor
    undecided: int


def mixed(small: Tensor, large: Tensor, contrast: Contrast) -> Mixed:
    """Next-token probabilities of two models together.

    Args:
        small: probabilities (batch, vocab) of the small model.
        large: of the large one.
        contrast: the weights.

    Reference:
        Xia et al., "Training Trajectories of Language Models Across Scales" (2023), section 4.2.
    """
    wanted = (contrast.small * small + contrast.large * large).clamp_min(0.0)
    mass = wanted.sum(dim=-1, keepdim=True)
    empty = mass <= _LEAST_MASS
    wanted = torch.where(empty, small, wanted / mass.clamp_min(_LEAST_MASS))
    return Mixed(wanted, int(empty.sum()))


def write_together(
    small: Any,
    large: Any,
    prompts: Sequence[Sequence[int]],
    contrast: Contrast,
    *,
    seed: int,
    end: int | None = None,
    batch: int = 64,
) -> ContrastTexts:
    """Continue prompts with two models of one vocabulary.

    Both read with key-value caches, prompts of equal length side by side. The draws of a text
    depend on the seed and on its place among the prompts, never on the batch.

    Args:
        small: a transformers causal model in eval mode.
        large: another.
        prompts: token ids, each at least one.
        contrast: weights and decoding.
        seed: of the draws; greedy texts have none.
        end: token that ends a text; None writes on to ``max_tokens``.
        batch: prompts side by side.

    Raises:
        BadRequest: a prompt is empty, or the models' vocabularies differ in size.
    """
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (small, large)]
    if sizes[0] != sizes[1] or not all(len(prompt) for prompt in prompts):
        raise BadRequest(
            "two models write together in one vocabulary, after prompts of at least one token.",
            asked=f"vocabularies of {sizes[0]:,} and {sizes[1]:,} tokens, shortest prompt "
            f"{min(map(len, prompts), default=0)}",
            remedy="take two models of one tokenizer, and put BOS before empty prompts",
        )
    draws = np.random.default_rng(seed).random((len(prompts), contrast.max_tokens))
    texts: list[tuple[int, ...]] = [()] * len(prompts)
    undecided = 0
    for places in _batches(prompts, batch):
        ids = torch.tensor([list(prompts[i]) for i in places], device=small.device)
        written = _write(small, large, ids, contrast, draws[places], end)
        undecided += written.undecided
        for place, row in zip(places, written.tokens.tolist(), strict=True):
            texts[place] = tuple(row[: row.index(end)] if end in row else row)
    return ContrastTexts(
        tokens=tuple(texts),
        contrast=contrast,
        seed=seed,
        prompts_hash=_hash(prompts),
        undecided=undecided,
    )


class ContrastLogits:
    """The same as a logits processor of ``large.generate(logits_processor=[...])``.

    It turns the large model's scores into the logarithms of p'. It reads along with the small
    model, one token at a time, and serves one call of ``generate`` without beams.
    """

    def __init__(self, small: Any, contrast: Contrast) -> None:
        self._reader, self._contrast, self._seen = _Reader(small), contrast, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (batch, vocab) of the next token."""
        small = self._reader.next_probabilities(input_ids[:, self._seen :])
        self._seen = input_ids.shape[1]
        found = mixed(small, torch.softmax(scores.float(), dim=-1), self._contrast)
        return found.probabilities.log()


class _Reader:
    """A model that reads on, keeping what it has read."""

    def __init__(self, model: Any) -> None:
        self.model, self.past = model, None

    @torch.inference_mode()
    def next_probabilities(self, ids: Tensor) -> Tensor:
        """Probabilities (batch, vocab), float32, after reading ids (batch, new tokens) too."""
        output = self.model(
            input_ids=ids, past_key_values=self.past, use_cache=True, logits_to_keep=1
        )
        self.past = output.past_key_values
        return torch.softmax(output.logits[:, -1].float(), dim=-1)


class _Written(NamedTuple):
    tokens: Tensor
    undecided: int


def _write(
    small: Any,
    large: Any,
    ids: Tensor,
    contrast: Contrast,
    draws: NDArray[np.float64],
    end: int | None,
) -> _Written:
    # a model of weight 0 is not asked
    readers = [
        None if weight == 0 else _Reader(model)
        for model, weight in ((small, contrast.small), (large, contrast.large))
    ]
    uniform = torch.tensor(draws, dtype=torch.float32, device=ids.device)
    columns: list[Tensor] = []
    done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    undecided, fresh = 0, ids
    for place in range(contrast.max_tokens):
        found = [None if r is None else r.next_probabilities(fresh) for r in readers]
        known = next(p for p in found if p is not None)
        pair = [torch.zeros_like(known) if p is None else p for p in found]
        both = mixed(pair[0], pair[1], contrast)
        undecided += both.undecided
        token = _chosen(both.probabilities, contrast, uniform[:, place])
        columns.append(token)
        if end is not None:
            done |= token == end
            if bool(done.all()):
                break
        fresh = token[:, None]
    return _Written(torch.stack(columns, dim=1), undecided)


def _chosen(probabilities: Tensor, contrast: Contrast, uniform: Tensor) -> Tensor:
    if contrast.decoding == "greedy":
        return probabilities.argmax(dim=-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    # the fewest tokens whose mass reaches top_p: those with less than it before them
    kept = torch.where(before < contrast.top_p, ordered, 0.0)
    reached = kept.cumsum(dim=-1)
    place = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)
    last = (kept > 0).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]


def _batches(prompts: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Places of prompts of one length, at most so many at a time."""
    by_length: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(place)
    for places in by_length.values():
        for low in range(0, len(places), batch):
            yield places[low : low + batch]


def _hash(prompts: Sequence[Sequence[int]]) -> str:
    text = "\n".join(" ".join(map(str, prompt)) for prompt in prompts)
    return hashlib.sha256(text.encode()).hexdigest()
