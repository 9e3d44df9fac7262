"""Scoring against lm-evaluation-harness's HFLM, on a GPT-NeoX of Pythia-70m's shape.

Weights are random and seeded: speed does not depend on what they say, and neither does parity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from benchmarks.timing import Pair, in_turn, matmul_peak
from isoloss.scoring import Scorer
from isoloss.tasks import Task, TaskSpec, load_task

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TOKENIZER = SHARED / "tokenizers" / "gpt-neox-20b" / "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table.

    Attributes:
        work: what was scored.
        pair: seconds of both sides.
        gap_nats: largest difference of an option's sum.
        flops: 2 x non-embedding parameters and head, for the tokens that must be computed once.
        fraction_of_peak: flops / our seconds / the matrix-product rate of this run.
    """

    work: str
    pair: Pair
    gap_nats: float
    flops: float
    fraction_of_peak: float


def pythia_70m() -> GPTNeoXForCausalLM:
    """A GPT-NeoX of Pythia-70m's shape with seeded random weights, float32."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        rotary_pct=0.25,
        max_position_embeddings=2048,
        use_parallel_residual=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def tokenizer() -> PreTrainedTokenizerFast:
    """The GPT-NeoX tokenizer."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def compare(task: Task, *, repeats: int, batch_size: int = 16) -> Result:
    """Score a task's options by both sides."""
    model, words = pythia_70m(), tokenizer()
    pairs = [(o.context, o.continuation) for d in task.documents for o in d.options]
    scorer = Scorer(model, words)
    peer = HFLM(
        pretrained=model, tokenizer=words, dtype="float32", batch_size=batch_size, device="cpu"
    )
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    sums: dict[str, list[float]] = {}

    def ours() -> None:
        sums["ours"] = [one.total for one in scorer.loglikelihoods(pairs)]

    def theirs() -> None:
        sums["theirs"] = [total for total, _ in peer.loglikelihood(requests, disable_tqdm=True)]

    pair = in_turn(ours, theirs, repeats=repeats)
    flops = needed_flops(model, scorer, pairs)
    gap = float(np.abs(np.subtract(sums["ours"], sums["theirs"])).max())
    return Result(
        work=f"{task.name}, {task.num_fewshot}-shot, {len(task.documents)} documents",
        pair=pair,
        gap_nats=gap,
        flops=flops,
        fraction_of_peak=flops / pair.ours / matmul_peak(),
    )


def needed_flops(model: GPTNeoXForCausalLM, scorer: Scorer, pairs: list[tuple[str, str]]) -> float:
    """Products that no exact method can avoid: every distinct prefix's tokens once, heads once.

    Attention's own products, small at these lengths, are left out.
    """
    from isoloss.scoring import encode_pairs

    distinct: set[tuple[int, ...]] = set()
    heads: set[tuple[int, ...]] = set()
    for context, continuation in encode_pairs(scorer.tokenizer, pairs):
        ids = (*context, *continuation)[-(scorer.max_length + 1) :]
        distinct.update(ids[:k] for k in range(1, len(ids)))
        heads.update(ids[: len(ids) - k] for k in range(1, len(continuation) + 1))
    body = sum(p.numel() for p in model.gpt_neox.layers.parameters())
    head = model.get_output_embeddings().weight.numel()
    return 2.0 * (body * len(distinct) + head * len(heads))


def rows(*, documents: int, repeats: int) -> Iterator[Result]:
    """All rows, one after the other."""
    path = SHARED / "eval-sets" / "hellaswag" / "hellaswag.jsonl"
    spec = TaskSpec(path=path, num_fewshot=0, limit=documents, sample="first")
    yield compare(load_task("HellaSwag", spec), repeats=repeats)
