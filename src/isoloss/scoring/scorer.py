"""The scorer: requests in, log-likelihoods out, for one model.

Numbers do not depend on how requests are packed: to 1e-4 nats a token in float32 whatever the
memory budget, and bit for bit for one budget, one number of threads and one set of requests,
in whichever order and however often they are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from isoloss.errors import BadData, BadRequest
from isoloss.scoring.encode import encode_pairs, encode_texts
from isoloss.scoring.forward import Answers, Network, estimate_cost, run_plan
from isoloss.scoring.generation import Generation, generate
from isoloss.scoring.packing import Plan, Policy
from isoloss.scoring.proof import prove
from isoloss.scoring.requests import Requests
from isoloss.scoring.window import critical_lengths, max_window

DEFAULT_BUDGET_BYTES = 1 << 30
_SHRUNK = "the memory budget is now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loglikelihood:
    """What a model thinks of one continuation after one context.

    Attributes:
        total: sum of ``per_token`` in nats; NaN where the request could not be scored: its
            continuation has no token or exceeds the window, or the model's logits are NaN.
        is_greedy: every token is the likeliest one; False where the total is NaN.
        per_token: float32 nats, one for each token of the continuation.
    """

    total: float
    is_greedy: bool
    per_token: NDArray[np.float32]


class Scorer:
    """Log-likelihoods under one model.

    At construction the faster paths are tried on a probe; ``path`` is "shared" where prefixes
    are computed once, else "plain", and ``notes`` say why a path is not taken.

    Attributes:
        max_length: longest input in tokens, by the harness's rule.
        truncated: requests so far whose context lost tokens on the left.
        unscored: requests so far with a total of NaN.

    Args:
        model: a transformers causal language model in eval mode, on its device.
        tokenizer: its tokenizer; None where only token ids are scored.
        memory_budget: bytes that one forward pass may take, estimated from the model's shape
            and never from free memory; 1 GiB where None.
        max_length: a shorter window than the model's own.

    Raises:
        BadRequest: the budget or the window is not a positive number.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        memory_budget: int | None = None,
        max_length: int | None = None,
    ) -> None:
        for name, value in (("memory_budget", memory_budget), ("max_length", max_length)):
            if value is not None and value < 1:
                raise BadRequest(
                    f"{name} is not a positive number.",
                    asked=repr(value),
                    remedy=f"leave {name} out or give a positive number",
                )
        self.model, self.tokenizer = model, tokenizer
        self.max_length = max_length or max_window(model.config, tokenizer)
        self.truncated = 0
        self.unscored = 0
        proof = prove(model, window=self.max_length)
        self.path = "shared" if proof.share else "plain"
        self.notes = proof.notes
        self._network = Network(model)
        self._cost = estimate_cost(model, projects=self._network.projects)
        self._policy = Policy(
            share=proof.share,
            pad=proof.pad,
            share_limit=proof.share_limit,
            critical=critical_lengths(model.config),
            budget=memory_budget or DEFAULT_BUDGET_BYTES,
        )

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Loglikelihood]:
        """Score (context, continuation) texts, encoded as the harness does.

        Raises:
            BadData: a text is not valid Unicode or a token is not in the model's vocabulary.
            BadCheckpoint: a context is empty and the tokenizer has neither BOS nor EOS.
        """
        return self.loglikelihoods_of_tokens(encode_pairs(self.tokenizer, pairs))

    def loglikelihoods_of_tokens(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[Loglikelihood]:
        """Score (context, continuation) token ids; ``Requests`` keep their plan for the next model.

        A pass that runs out of memory is planned again at half the budget, down to a 64th; the
        smaller budget stays and is told in ``notes``.

        Raises:
            BadData: a token is not in the model's vocabulary.
            BadRequest: a context is empty.
        """
        requests = pairs if isinstance(pairs, Requests) else Requests(pairs)
        smallest = self._policy.budget // 64
        while True:
            plan = self.plan(requests)
            try:
                answers = run_plan(self._network, plan, budget=self._policy.budget)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or self._policy.budget // 2 < max(smallest, 1):
                    raise
                self._halve_budget()
            else:
                return self._collect(requests, plan, answers)

    def plan(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Plan:
        """The forward passes for these requests; the same for every model of this shape.

        Raises:
            BadData: a token is not in the model's vocabulary.
            BadRequest: a context is empty.
        """
        requests = pairs if isinstance(pairs, Requests) else Requests(pairs)
        self._check(requests)
        return requests.plan(window=self.max_length, policy=self._policy, cost=self._cost)

    @property
    def memory_budget(self) -> int:
        """Bytes that one forward pass may take; smaller than asked for after running out."""
        return self._policy.budget

    def _halve_budget(self) -> None:
        self._policy = replace(self._policy, budget=self._policy.budget // 2)
        self.notes = (
            *(note for note in self.notes if not note.startswith(_SHRUNK)),
            f"{_SHRUNK} {self._policy.budget:,} bytes: a pass ran out of memory",
        )

    def _check(self, requests: Requests) -> None:
        empty = next((i for i, (context, _) in enumerate(requests) if not context), None)
        if empty is not None:
            raise BadRequest(
                "A context has no token: nothing predicts the continuation's first token.",
                asked=f"request {empty}",
                remedy="begin it with isoloss.scoring.prefix_token_id(tokenizer)",
            )
        limit = self._network.vocabulary
        low, high = requests.extremes
        if low < 0 or high >= limit:
            wrong = low if low < 0 else high
            place = next(i for i, pair in enumerate(requests) if wrong in (*pair[0], *pair[1]))
            raise BadData(
                "A token id is not in the model's vocabulary.",
                asked=f"token {wrong} in request {place}",
                nearest=f"ids from 0 to {limit - 1}",
                remedy="use the tokenizer that belongs to the model",
            )

    def _collect(self, requests: Requests, plan: Plan, answers: Answers) -> list[Loglikelihood]:
        results = []
        for (_, continuation), r in zip(requests, plan.distinct.tolist(), strict=True):
            if r < 0:
                per_token = np.full(len(continuation), np.nan, np.float32)
                results.append(
                    Loglikelihood(total=float("nan"), is_greedy=False, per_token=per_token)
                )
                continue
            span = slice(plan.bounds[r], plan.bounds[r + 1])
            per_token = answers.logprobs[span]
            results.append(
                Loglikelihood(
                    total=float(per_token.sum(dtype=np.float64)),
                    is_greedy=bool(answers.greedy[span].all()),
                    per_token=per_token,
                )
            )
        self.truncated += plan.truncated
        self.unscored += sum(np.isnan(result.total) for result in results)
        return results

    def token_losses(
        self, ids: ArrayLike | Tensor, *, lengths: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Loss of every token but the first of each row, given the row's earlier tokens.

        Args:
            ids: token ids (batch, seq), rows padded on the right with anything, such as -1.
            lengths: tokens of each row; without it rows end before their first -1.

        Returns:
            Nats (batch, seq - 1), float32; column t is the loss of token t + 1, NaN in padding.

        Raises:
            BadRequest: ids are not a matrix, or a row exceeds the window by more than one token.
            BadData: a token is not in the model's vocabulary.
        """
        rows = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids)
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
            raise BadRequest(
                "Token ids are not a matrix of integers.",
                asked=f"shape {rows.shape}, {rows.dtype}",
                remedy="give an array (batch, seq) of token ids",
            )
        if lengths is None:
            sizes = np.where((rows < 0).any(1), (rows < 0).argmax(1), rows.shape[1]).tolist()
        else:
            sizes = [int(length) for length in lengths]
        if max(sizes, default=0) > self.max_length + 1:
            raise BadRequest(
                "A row is longer than the model's window.",
                asked=f"{max(sizes)} tokens",
                nearest=f"{self.max_length + 1} tokens, the last of which is only predicted",
                remedy="cut the text into windows (isoloss.corpora)",
            )
        losses = np.full((len(rows), max(rows.shape[1] - 1, 0)), np.nan, dtype=np.float32)
        scored = [i for i, size in enumerate(sizes) if size > 1]
        tokens = [tuple(rows[i, : sizes[i]].tolist()) for i in scored]
        results = self.loglikelihoods_of_tokens([(row[:1], row[1:]) for row in tokens])
        for i, result in zip(scored, results, strict=True):
            losses[i, : len(result.per_token)] = -result.per_token
        return losses

    def generate(self, requests: Sequence[Generation]) -> list[str]:
        """Continue contexts greedily, cut at the first stop string, as the harness does.

        Raises:
            BadRequest: no room for a context is left beside the tokens to generate.
            BadCheckpoint: a context is empty and the tokenizer has neither BOS nor EOS.
        """
        contexts = encode_texts(self.tokenizer, (request.context for request in requests))
        # an empty text has no tokens where the tokenizer adds no BOS by itself
        empty = (
            encode_pairs(self.tokenizer, [("", "")])[0].context
            if not all(contexts.values())
            else ()
        )
        return generate(
            self.model,
            self.tokenizer,
            requests,
            [contexts[request.context] or empty for request in requests],
            window=self.max_length,
            policy=self._policy,
            cost=self._cost,
        )


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's allocator of the CPU has no error class of its own
    return (
        not isinstance(error, RuntimeError)
        or isinstance(error, torch.OutOfMemoryError)
        or ("can't allocate memory" in str(error))
    )
