"""Greedy continuations in batches, cut where the harness cuts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isoloss.errors import BadRequest
from isoloss.scoring.packing import Cost, Policy

# the logits of two batches in float32 differ by rounding only
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A text to continue greedily.

    Attributes:
        context: the text before; empty means the prefix token alone.
        until: the continuation ends before the first of these strings, and at the tokenizer's
            end-of-text.
        max_tokens: longest continuation in tokens; the context keeps its last
            ``window - max_tokens``.
    """

    context: str
    until: tuple[str, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class _Job:
    tokens: tuple[int, ...]
    until: tuple[str, ...]
    max_tokens: int


def generate(
    model: Any,
    tokenizer: Any,
    requests: Sequence[Generation],
    contexts: Sequence[tuple[int, ...]],
    *,
    window: int,
    policy: Policy,
    cost: Cost,
) -> list[str]:
    """Continue contexts; equal requests are computed once.

    Args:
        model: a transformers causal language model.
        tokenizer: its tokenizer.
        requests: what to continue.
        contexts: the requests' contexts as token ids, not empty.
        window: longest input in tokens.
        policy: holds the memory budget.
        cost: bytes of a pass.

    Raises:
        BadRequest: no room for a context is left beside the tokens to generate.
    """
    jobs = []
    for request, tokens in zip(requests, contexts, strict=True):
        if not 0 < request.max_tokens < window:
            raise BadRequest(
                "The tokens to generate leave no room for a context.",
                asked=f"max_tokens = {request.max_tokens}, window {window}",
                nearest=f"1 to {window - 1}",
                remedy="lower max_gen_toks",
            )
        kept = tokens[-(window - request.max_tokens) :]
        jobs.append(_Job(kept, request.until, request.max_tokens))
    texts: dict[_Job, str] = {}
    for batch in _batches(model, list(dict.fromkeys(jobs)), policy, cost):
        texts.update(zip(batch, _run(model, tokenizer, batch), strict=True))
    return [texts[job] for job in jobs]


def _batches(model: Any, jobs: list[_Job], policy: Policy, cost: Cost) -> Iterator[list[_Job]]:
    """Jobs of one token limit and, where left padding is not shown to agree, of one length."""
    jobs = sorted(jobs, key=lambda job: (-job.max_tokens, -len(job.tokens), job.tokens, job.until))
    pads = len({len(job.tokens) for job in jobs}) > 1 and _agrees_when_padded(model, policy)
    batch: list[_Job] = []
    for job in jobs:
        if batch:
            together = job.max_tokens == batch[0].max_tokens and (
                pads or len(job.tokens) == len(batch[0].tokens)
            )
            row_bytes = cost.row(len(batch[0].tokens) + job.max_tokens, keeps=True)
            if not together or (len(batch) + 1) * row_bytes > policy.budget:
                yield batch
                batch = []
        batch.append(job)
    if batch:
        yield batch


def _run(model: Any, tokenizer: Any, batch: list[_Job]) -> list[str]:
    ids, mask = _pad_left([job.tokens for job in batch], next(model.parameters()).device)
    ends = _end_tokens(model, tokenizer)
    eos = getattr(tokenizer, "eos_token_id", None)
    ending = () if eos is None else (tokenizer.decode(eos),)
    stops = [tuple(filter(None, (*job.until, *ending))) for job in batch]
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=batch[0].max_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=_pad_token(tokenizer),
        stopping_criteria=[_StopStrings(tokenizer, stops, ids.shape[1])],
    )
    texts = []
    for row, stop in zip(found[:, ids.shape[1] :].tolist(), stops, strict=True):
        end = next((i for i, token in enumerate(row) if token in ends), len(row))
        text = tokenizer.decode(row[:end], skip_special_tokens=True)
        for string in stop:
            text = text.split(string)[0]
        texts.append(text)
    return texts


class _StopStrings:
    """A stopping criterion of ``model.generate``: each row ends at its own stop strings."""

    def __init__(self, tokenizer: Any, stops: Sequence[tuple[str, ...]], start: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, stops, start
        self.done = [False] * len(stops)

    def __call__(self, ids: Tensor, scores: object, **options: object) -> Tensor:
        open_rows = [i for i, done in enumerate(self.done) if not done]
        texts = self.tokenizer.batch_decode(ids[open_rows, self.start :])
        for i, text in zip(open_rows, texts, strict=True):
            self.done[i] = any(stop in text for stop in self.stops[i])
        return torch.tensor(self.done, device=ids.device)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens after which a row holds padding only."""
    ends = {getattr(tokenizer, "eos_token_id", None)}
    named = getattr(model.generation_config, "eos_token_id", None)
    ends.update(named if isinstance(named, list) else [named])
    return {int(token) for token in ends if token is not None}


def _pad_token(tokenizer: Any) -> int:
    for name in ("pad_token_id", "eos_token_id", "unk_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
            return int(token)
    return 0


def _pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (batch, seq) padded with their own first token, and the mask of what is real."""
    longest = max(map(len, rows))
    gaps = [longest - len(row) for row in rows]
    ids = [[*[row[0]] * gap, *row] for row, gap in zip(rows, gaps, strict=True)]
    mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _agrees_when_padded(model: Any, policy: Policy) -> bool:
    """Whether a short row beside a long one gets the logits it gets alone, for three tokens."""
    rng = np.random.default_rng(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    # longer than the shortest window, where one is short enough to try
    long = next((length + 4 for length in policy.critical if length < 256), 12)
    rows = [rng.integers(vocabulary, size=size).tolist() for size in (long, 5)]
    device = next(model.parameters()).device

    def logits(contexts: list[list[int]]) -> Tensor:
        ids, mask = _pad_left(contexts, device)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack(output.logits)[:, -1].float()

    try:
        together, alone = logits(rows), logits(rows[1:])
    # a class that cannot pad on the left is mended by batches of equal length
    except Exception:
        return False
    scale = max(1.0, float(alone.abs().max()))
    return together.shape == alone.shape and float((together - alone).abs().max()) < (
        _TOLERANCE * scale
    )
