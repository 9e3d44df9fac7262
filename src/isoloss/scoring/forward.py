"""Running a plan: forward passes on plain rows and on shared prefixes.

No attention mask is passed: rows are padded on the right of causal models, so that padding is
seen by no scored position. (The harness does the same.)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.scoring.head import Head, find_head, last_states, score_targets
from isoloss.scoring.packing import Batch, Chunk, Cost, Plan
from isoloss.scoring.window import text_config

# transformers names the state of attention and of recurrent models differently
_CACHE_NAMES = ("past_key_values", "cache_params")


class NoCache(Exception):
    """The model hands out no state that could be reused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One number a query, in the order of the plan's slots.

    Attributes:
        logprobs: float32 nats.
        greedy: the token is the likeliest one.
    """

    logprobs: NDArray[np.float32]
    greedy: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """The state of prefixes (batch of equal length), and the argument that takes it back."""

    name: str
    cache: Any

    def rows(self, parents: Sequence[int], *, keep: bool) -> dict[str, Any]:
        """The arguments for rows that continue the given prefixes.

        A pass writes into its cache, so one that is needed again (``keep``) is copied.
        """
        cache = copy.deepcopy(self.cache) if keep else self.cache
        if not hasattr(cache, "batch_select_indices"):
            raise NoCache(f"a {type(cache).__name__} cannot be copied to more rows")
        cache.batch_select_indices(torch.tensor(parents))
        return {self.name: cache, "use_cache": True}


class Network:
    """A causal model as states and a head.

    Args:
        model: a transformers causal language model in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        probe = np.random.default_rng(0).integers(self.vocabulary, size=(1, 8))
        self.head: Head = find_head(model, torch.from_numpy(probe).to(self.device))

    @property
    def projects(self) -> bool:
        """Whether the head runs apart from the backbone, only where a token is scored."""
        return self.head.project is not None

    @torch.no_grad()
    def states(self, ids: Tensor, **options: Any) -> Tensor:
        """States (batch, seq, width) that the head turns into logits."""
        if not self.projects:
            logits: Tensor = self.model(input_ids=ids, **({"use_cache": False} | options)).logits
            return logits
        states = last_states(
            self.model.base_model(input_ids=ids, **({"use_cache": False} | options))
        )
        assert states is not None  # seen at load
        return states

    @torch.no_grad()
    def prefill(self, prefixes: Sequence[Sequence[int]]) -> Prefill:
        """Run prefixes of equal length and keep their state.

        Raises:
            NoCache: the model returns none.
        """
        ids = torch.tensor(prefixes, device=self.device)
        output = self.model.base_model(input_ids=ids, use_cache=True)
        for name in _CACHE_NAMES:
            cache = getattr(output, name, None)
            if cache is not None:
                return Prefill(name=name, cache=cache)
        raise NoCache("the model returns no cache")


def run_plan(network: Network, plan: Plan, *, budget: int) -> Answers:
    """Score every query of a plan.

    Args:
        network: the model.
        plan: from ``make_plan``.
        budget: bytes; a quarter bounds the logits alive at once.
    """
    # logits in the model's type, in float32 and the exponentials within logsumexp
    rows_per_chunk = max(1, budget // 4 // (12 * network.vocabulary))
    size = int(plan.bounds[-1])
    answers = Answers(logprobs=np.empty(size, np.float32), greedy=np.empty(size, np.bool_))
    for batch in plan.batches:
        prefill = network.prefill(batch.prefixes) if batch.depth else None
        for i, chunk in enumerate(batch.chunks):
            options = prefill.rows(chunk.parents, keep=i + 1 < len(batch.chunks)) if prefill else {}
            _run_chunk(network, plan, batch, chunk, options, rows_per_chunk, answers)
    return answers


@torch.no_grad()
def _run_chunk(
    network: Network,
    plan: Plan,
    batch: Batch,
    chunk: Chunk,
    options: dict[str, Any],
    rows_per_chunk: int,
    answers: Answers,
) -> None:
    device = network.device
    ids = _pad([plan.sequences[s][batch.depth :] for s in chunk.sequences]).to(device)
    queries = np.concatenate([np.arange(*plan.starts[s : s + 2]) for s in chunk.sequences])
    counts = [int(plan.starts[s + 1] - plan.starts[s]) for s in chunk.sequences]
    cells = np.repeat(np.arange(len(counts)), counts) * ids.shape[1]
    cells += plan.positions[queries] - batch.depth
    # several targets may ask the same state: options of one token after one context
    cells, rows = np.unique(cells, return_inverse=True)
    states = network.states(ids, **options).flatten(0, 1)[torch.from_numpy(cells).to(device)]
    scores = score_targets(
        network.head,
        states,
        torch.from_numpy(rows).to(device),
        torch.from_numpy(plan.targets[queries]).to(device),
        rows_per_chunk=rows_per_chunk,
    )
    slots = plan.slots[queries]
    answers.logprobs[slots] = scores.logprobs.cpu().numpy()
    answers.greedy[slots] = scores.greedy.cpu().numpy()


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows (batch, seq), each padded with its own last token: a foreign token could bring NaN."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])


def estimate_cost(model: Any, *, projects: bool) -> Cost:
    """Bytes of a forward pass, from the config; generous, since only packing hangs on it.

    Args:
        model: a transformers model.
        projects: the head runs apart; otherwise every token costs its logits.
    """
    config = text_config(model.config)
    item = next(model.parameters()).element_size()
    width = int(getattr(config, "hidden_size", 0) or 1024)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None)
    inner = int(inner or 4 * width)
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    layers = int(getattr(config, "num_hidden_layers", 0) or 12)
    # a scan in plain torch holds (tokens, inner, state)
    state = int(getattr(config, "state_size", 0) or 0)
    logits = 0 if projects else model.get_input_embeddings().weight.shape[0]
    return Cost(
        per_token=item * (12 * width + 3 * inner + 3 * inner * state) + 3 * 4 * logits,
        per_key=item * 2 * layers * width,
        per_score=2 * item * heads,
    )
