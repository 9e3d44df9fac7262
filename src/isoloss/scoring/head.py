"""From hidden states to log-probabilities of chosen tokens, only where they are asked for.

What a class does after its output embedding (soft caps, scales) is not part of any interface.
The candidates its config names are tried against the model's own logits at load; where none
agrees, the model's full logits stand in for the states and nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoloss.scoring.window import text_config

# 1,024 x 4,096 float32 logits are 16 MiB, near the size of caches: wider and taller are no faster
_COLUMNS_PER_BLOCK = 4096
_ROWS_PER_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Logits of hidden states: ``softcap(multiplier * project(hidden))``.

    Attributes:
        project: the output embedding, (n, width) to (n, vocab); None where states are logits.
        multiplier: scale of the logits.
        softcap: c of ``c * tanh(logits / c)``.
    """

    project: Callable[[Tensor], Tensor] | None = None
    multiplier: float = 1.0
    softcap: float | None = None

    def place(self, like: Tensor) -> torch.device:
        """Where the projection is; that of ``like`` where there is none.

        A model spread over several devices may have its last layer on another one than the
        embedding that it is tied to.
        """
        weight = getattr(self.project, "weight", None)
        return weight.device if isinstance(weight, Tensor) else like.device

    def logits(self, states: Tensor) -> Tensor:
        """Logits (n, vocab) of states (n, width), in the model's own type."""
        if self.project is None:
            return states.clone()
        return self._finished(self.project(states))

    def blocks(self, states: Tensor, room: Tensor | None = None) -> Iterator[Tensor]:
        """The same logits, some columns of the vocabulary at a time: each (n, at most 4,096).

        A block stays in the processor's cache until it is summed up, and the whole vocabulary's
        logits never stand in memory: 284 against 240 GFLOP/s for 1,024 states of 512 numbers on
        50,304 tokens and two cores. Heads that are no plain product come in one block.

        Args:
            states: (n, width).
            room: from :meth:`room` for at least n states; each block then overwrites the last.
        """
        project = self.project
        # a subclass may compute something else
        if type(project) is not torch.nn.Linear:
            yield self.logits(states)
            return
        for start in range(0, len(project.weight), _COLUMNS_PER_BLOCK):
            columns = slice(start, start + _COLUMNS_PER_BLOCK)
            weight = project.weight[columns].t()
            shape = (len(states), weight.shape[1])
            out = None if room is None else room[: shape[0] * shape[1]].view(shape)
            if project.bias is None:
                yield self._finished(torch.mm(states, weight, out=out))
            else:
                yield self._finished(torch.addmm(project.bias[columns], states, weight, out=out))

    def room(self, rows: int, states: Tensor) -> Tensor | None:
        """Memory for the blocks of so many states; None where the head comes in one block."""
        if type(self.project) is not torch.nn.Linear:
            return None
        columns = min(_COLUMNS_PER_BLOCK, len(self.project.weight))
        return torch.empty(rows * columns, dtype=states.dtype, device=states.device)

    def rows_per_chunk(self, vocabulary: int, states_item: int, *, budget: int) -> int:
        """States whose logits fit into ``budget`` bytes, and no more than fill a product.

        Args:
            vocabulary: columns of the logits.
            states_item: bytes of a number in the model's own type.
            budget: bytes of logits alive at once, with their float32 copy where the type is
                narrower.
        """
        blocked = type(self.project) is torch.nn.Linear
        columns = min(_COLUMNS_PER_BLOCK, vocabulary) if blocked else vocabulary
        item = states_item if states_item >= 4 else states_item + 4
        return max(1, min(_ROWS_PER_CHUNK, budget // (columns * item)))

    def _finished(self, logits: Tensor) -> Tensor:
        if self.multiplier != 1.0:
            logits = logits.mul_(self.multiplier)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


@torch.no_grad()
def find_head(model: Any, ids: Tensor) -> Head:
    """The head that turns the backbone's states into the model's own logits.

    Args:
        model: a causal language model.
        ids: probe tokens (1, seq).

    Returns:
        A head that agrees on the probe, or one without projection where none does.
    """
    embedding = model.get_output_embeddings()
    backbone = backbone_of(model)
    if embedding is None or backbone is None:
        return Head()
    wanted = model(input_ids=ids, use_cache=False).logits[0].float()
    states = last_states(backbone(input_ids=ids, use_cache=False))
    if states is None:
        return Head()
    # the projection repeats the model's own product on the same numbers: rounding only
    close = 1e-5 if wanted.dtype == model.dtype else 1e-2
    scale = float(wanted.nan_to_num().abs().max())
    for head in _candidates(model, embedding):
        states_of_probe = states[0].to(head.place(states), embedding.weight.dtype)
        found = torch.cat(list(head.blocks(states_of_probe)), dim=-1).float().to(wanted.device)
        if found.shape == wanted.shape and torch.allclose(
            found, wanted, rtol=close, atol=close * scale, equal_nan=True
        ):
            return head
    return Head()


def backbone_of(model: Any) -> Any:
    """The part of a model below its head; None where there is no telling.

    Llama 4's causal model is a base model by itself, with the backbone under ``model``.
    """
    if model.base_model is not model:
        return model.base_model
    return getattr(model, "model", None)


def last_states(output: Any) -> Tensor | None:
    """The last hidden states (batch, seq, width) of a backbone's output, where it has them."""
    states = getattr(output, "last_hidden_state", None)
    return states if isinstance(states, Tensor) else None


def _candidates(model: Any, embedding: Callable[[Tensor], Tensor]) -> Iterator[Head]:
    """Heads that the config's own numbers suggest, the fullest first."""
    config = text_config(model.config)
    caps = [
        getattr(config, name, None)
        for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    ]
    scales = [1.0]
    for name, power in (("logit_scale", 1), ("logits_scaling", -1), ("lm_head_multiplier", 1)):
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            scales.insert(0, float(value) ** power)
    for softcap in [cap for cap in caps if cap] + [None]:
        for scale in scales:
            yield Head(project=embedding, multiplier=scale, softcap=softcap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Log-probabilities in nats, float32 (n,), and whether each target is the likeliest token."""

    logprobs: Tensor
    greedy: Tensor


def score_targets(
    head: Head, states: Tensor, rows: Tensor, targets: Tensor, *, rows_per_chunk: int
) -> Scores:
    """Log-probabilities of targets under states, a chunk of states at a time.

    The normalisation is in float32 whatever the weights' type. A target is greedy where it is
    the first of the largest logits; where the logits are NaN it is not.

    Args:
        head: states to logits.
        states: (n, width).
        rows: (m,) ascending, the state that predicts each target.
        targets: (m,) token ids.
        rows_per_chunk: states whose logits are alive at once.
    """
    device = head.place(states)
    states, rows, targets = states.to(device), rows.to(device), targets.to(device)
    logprobs = torch.empty(len(targets), dtype=torch.float32, device=states.device)
    greedy = torch.zeros(len(targets), dtype=torch.bool, device=states.device)
    room = head.room(min(rows_per_chunk, len(states)), states)
    for start in range(0, len(states), rows_per_chunk):
        part = states[start : start + rows_per_chunk]
        ends = torch.tensor([start, start + len(part)], device=rows.device)
        low, high = torch.searchsorted(rows, ends).tolist()
        scores = _score_chunk(head.blocks(part, room), rows[low:high] - start, targets[low:high])
        logprobs[low:high], greedy[low:high] = scores.logprobs, scores.greedy
    return Scores(logprobs=logprobs, greedy=greedy)


def _score_chunk(blocks: Iterator[Tensor], rows: Tensor, targets: Tensor) -> Scores:
    """Sum the vocabulary up block by block: Milakov & Gimelshein (2018), arXiv:1805.02867, alg. 3.

    Args:
        blocks: logits (n, columns), in the order of the vocabulary; overwritten.
        rows: (m,) row of each target.
        targets: (m,) token ids.
    """
    chosen = torch.full(rows.shape, torch.nan, device=rows.device)
    is_first = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    top = total = torch.zeros(0)
    offset = 0
    for block in blocks:
        logits = block.float()
        here = ((targets >= offset) & (targets < offset + logits.shape[1])).nonzero()[:, 0]
        highest = logits.amax(-1)
        found = logits[rows[here], targets[here] - offset]
        chosen[here] = found
        # of equal logits the first is the greedy one; few rows need the second look
        best = here[found == highest[rows[here]]]
        is_first[best] = logits[rows[best]].argmax(-1) == targets[best] - offset
        if offset == 0:
            top, total = highest, torch.zeros_like(highest)
        else:
            # a later block must be higher: what equals an earlier one is not the first
            is_first[here] &= (highest > top)[rows[here]]
            highest = torch.maximum(top, highest)
        # where everything is -inf so far, the difference would be NaN
        shift = highest.masked_fill(highest == -torch.inf, 0.0)
        total = total * (top - shift).exp() + logits.sub_(shift[:, None]).exp_().sum(-1)
        top = highest
        offset += logits.shape[1]
    # float32 sums of a block, then of blocks
    return Scores(
        logprobs=chosen - (top + total.log())[rows], greedy=is_first & (chosen == top[rows])
    )
