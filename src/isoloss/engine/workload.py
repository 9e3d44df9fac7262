"""How much work a cell is, counted before anything is loaded: passes, tokens, products, bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from isoloss.engine.jobs import Job
from isoloss.engine.subjects import Subjects, window_of
from isoloss.engine.worklist import Work
from isoloss.models.inspect import Description
from isoloss.scoring.encode import encode_texts
from isoloss.scoring.generation import Generation
from isoloss.scoring.packing import Cost, Plan, Policy, make_plan
from isoloss.scoring.proof import probe_requests
from isoloss.scoring.requests import Requests

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Of a number of each type."""

TRACES = ("fisher_trace", "hessian_trace")
"""Probes that stop when they are sure enough: what they cost is known when they have run."""

# of a pass on a CPU, and about what the default budget gives a model of a billion parameters
_PASS_TOKENS = 2_048
_GENERATED_TOGETHER = 16
# any shape's will do: they only decide which rows run together
_NOMINAL = Cost(per_token=4 * 24 * 1024, per_key=8 * 12 * 1024, per_score=8 * 16)
_NOMINAL_BUDGET = 1 << 30
# numbers that a layer writes and reads for a token, in widths: states, projections, inner layer
_ACTIVATIONS = 24


class Shape(NamedTuple):
    """What of a model decides what a token costs.

    Attributes:
        layers: blocks.
        width: of the states.
        heads: of attention; 0 where there is none.
        body: parameters that every token goes through, all but embeddings and head.
        vocabulary: columns of the head.
        window: longest input in tokens.
        masked: it is asked once for every token.
    """

    layers: int
    width: int
    heads: int
    body: int
    vocabulary: int
    window: int
    masked: bool


class Load(NamedTuple):
    """Work of one cell, the same for every model of a tokenizer.

    Attributes:
        passes: forward passes.
        tokens: through the layers, padding included, shared prefixes once.
        pairs: of a token and one that it attends to.
        scored: states that go through the head.
        requests: questions asked.
    """

    passes: int = 0
    tokens: int = 0
    pairs: int = 0
    scored: int = 0
    requests: int = 0

    def plus(self, other: Load) -> Load:
        """Both."""
        return Load(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def shape_of(known: Description) -> Shape:
    """The shape of a checkpoint, from its config and its parameter count."""
    config = known.config.get("text_config") or known.config

    def first(names: Sequence[str], default: int) -> int:
        return next((int(config[n]) for n in names if isinstance(config.get(n), int)), default)

    layers = first(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 12)
    # a block of width d has about 12 d^2 parameters
    guess = round(math.sqrt(max(known.params_non_embedding, 1) / (12 * layers)))
    kinds = known.config.get("architectures") or [""]
    width = first(("hidden_size", "n_embd", "d_model", "dim"), max(guess, 1))
    has_attention = not any(name in kinds[0] for name in ("Mamba", "Lstm"))
    return Shape(
        layers=layers,
        width=width,
        heads=has_attention
        * first(("num_attention_heads", "n_head", "n_heads"), max(width // 64, 1)),
        body=known.params_non_embedding,
        vocabulary=first(("vocab_size", "n_vocab"), 50_000),
        window=window_of(known.config),
        masked="MaskedLM" in kinds[0] or "BiLstm" in kinds[0],
    )


def load_of(job: Job, work: Work, shape: Shape, subjects: Subjects) -> Load:
    """Count the work of a cell; its subject is tokenized if it was not yet.

    Args:
        job: the cell.
        work: its checkpoint.
        shape: of the checkpoint.
        subjects: of the study.
    """
    probe, subject = job.cell.probe, job.cell.subject
    if probe == "token_loss" and job.layout is not None:
        asked = subjects.windows(job.layout()).requests
        return _sum([_asked(part, shape) for part in asked])
    if probe == "task_score":
        digest = str(job.cell.settings["tokenizer_hash"])
        prepared = subjects.prepared(subject, work.tokenizer, digest, masked=shape.masked)
        return _asked(prepared.pairs, shape).plus(_written(prepared.generations, work.tokenizer))
    tokens = job.tokens()
    return Load(
        passes=math.ceil(tokens / _PASS_TOKENS),
        tokens=tokens,
        pairs=0,
        scored=tokens if probe == "optimum" else 0,
    )


def flops(load: Load, shape: Shape) -> float:
    """Floating-point operations of the matrix products."""
    products = 2.0 * shape.body * load.tokens + 2.0 * shape.vocabulary * shape.width * load.scored
    return products + 4.0 * load.pairs * shape.width * shape.layers * (shape.heads > 0)


def attended(load: Load, shape: Shape) -> float:
    """Scores that attention takes a softmax of: one a pair of tokens, a head and a layer."""
    return float(load.pairs) * shape.heads * shape.layers


def traffic(load: Load, shape: Shape, dtype: str) -> float:
    """Bytes that go through memory: weights once a pass, activations, logits."""
    size = BYTES[dtype]
    head = shape.vocabulary * shape.width if load.scored else 0
    weights = load.passes * size * (shape.body + head)
    states = load.tokens * shape.layers * _ACTIVATIONS * shape.width * size
    # the log-softmax reads and writes them in float32
    logits = load.scored * shape.vocabulary * (size + 8)
    return float(weights + states + logits)


def memory(known: Description, dtype: str, budget: int, probe: str) -> int:
    """Bytes that a checkpoint needs while a cell is measured.

    Args:
        known: the checkpoint.
        dtype: that they are loaded in.
        budget: of activations, ``run.memory_budget``.
        probe: gradients take the weights' size once more, second derivatives twice.
    """
    copies = {"fisher_trace": 2, "hessian_trace": 3, "transfer": 4}.get(probe, 1)
    return copies * known.params_total * BYTES[dtype] + budget


def _asked(requests: Requests, shape: Shape) -> Load:
    if shape.masked:
        return requests.once("load-masked", lambda: _masked(requests))
    policy = _policy(shape.window, share=_shares(shape.window))
    return requests.once(
        ("load", shape.window),
        lambda: _planned(
            requests.plan(window=shape.window, policy=policy, cost=_NOMINAL), len(requests)
        ),
    )


def _policy(window: int, *, share: bool) -> Policy:
    return Policy(
        share=share,
        pad=True,
        share_limit=window,
        critical=(),
        budget=_NOMINAL_BUDGET,
        most_tokens=_PASS_TOKENS,
    )


@lru_cache
def _shares(window: int) -> bool:
    """Whether a scorer's trial of shared prefixes finds any in so short a window."""
    trial = probe_requests((), longest=window, window=window, vocabulary=1000)
    plan = make_plan(trial.pairs, window=window, policy=_policy(window, share=True), cost=_NOMINAL)
    return any(one.parent >= 0 for one in plan.passes)


def _planned(plan: Plan, requests: int) -> Load:
    pairs = 0
    for one in plan.passes:
        width = max(map(len, one.rows))
        pairs += len(one.rows) * width * (one.depth + (width + 1) // 2)
    return Load(
        passes=len(plan.passes),
        tokens=plan.tokens,
        pairs=pairs,
        scored=sum(len(np.unique(one.cells)) for one in plan.passes),
        requests=requests,
    )


def _masked(requests: Requests) -> Load:
    """Every token of a continuation masked in turn, the whole text between special tokens."""
    sizes = [(len(k), len(c) + len(k) + 2) for c, k in requests]
    tokens = sum(asked * length for asked, length in sizes)
    return Load(
        passes=math.ceil(tokens / _PASS_TOKENS),
        tokens=tokens,
        pairs=sum(asked * length * length for asked, length in sizes),
        scored=sum(asked for asked, _ in sizes),
        requests=len(requests),
    )


def _written(generations: Sequence[Generation], tokenizer: Any) -> Load:
    """Free answers, each to its longest: where they stop is up to the model."""
    if not generations:
        return Load()
    contexts = encode_texts(tokenizer, (one.context for one in generations))
    read = sum(len(contexts[one.context]) for one in generations)
    most = sum(one.max_tokens for one in generations)
    longest = max(one.max_tokens for one in generations)
    return Load(
        passes=math.ceil(len(generations) / _GENERATED_TOGETHER) * longest,
        tokens=read + most,
        pairs=sum((len(contexts[one.context]) + one.max_tokens) ** 2 // 2 for one in generations),
        scored=most,
        requests=len(generations),
    )


def _sum(loads: Sequence[Load]) -> Load:
    total = Load()
    for one in loads:
        total = total.plus(one)
    return total
