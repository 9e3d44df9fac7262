"""Small causal models of the known architectures, sized by a Shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from isoloss.corpora.language import SPECIAL_TOKENS, special_id
from isoloss.pretrain.family_file import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def model_config(shape: Shape, *, vocab: int, length: int) -> PreTrainedConfig:
    """The transformers config of a model that reads BOS and ``length`` words.

    Args:
        shape: architecture and size.
        vocab: words of the language; the special tokens come on top.
        length: words of the longest sentence.

    Returns:
        A config with untied embeddings and weights drawn with standard deviation
        sqrt(2 / (5 width)), the "small init" of GPT-NeoX: the library's 0.02 suits widths
        near 1000 and leaves a width of 16 all but silent.
    """
    from transformers import GPTNeoXConfig, LlamaConfig

    ids = {name: special_id(vocab, f"<{name}>") for name in ("bos", "eos", "pad")}
    common = dict(
        vocab_size=vocab + len(SPECIAL_TOKENS),
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=length + 1,
        initializer_range=math.sqrt(2 / (5 * shape.width)),
        tie_word_embeddings=False,
        **{f"{name}_token_id": i for name, i in ids.items()},
    )
    if shape.architecture == "llama":
        # three matrices instead of two: 8/3 of the width keeps the parameters of 4
        return LlamaConfig(intermediate_size=8 * math.ceil(shape.width / 3), **common)
    # all of a head is rotated: a quarter of a small head would leave it two numbers for position
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
    return GPTNeoXConfig(intermediate_size=4 * shape.width, rope_parameters=rope, **common)


def build_model(shape: Shape, *, vocab: int, length: int, seed: int) -> PreTrainedModel:
    """A float32 model on the CPU with weights drawn from ``seed`` alone."""
    from transformers import AutoModelForCausalLM

    config = model_config(shape, vocab=vocab, length=length)
    # transformers draws from torch's global generator: it is set in a fork and put back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def count_parameters(shape: Shape, *, vocab: int, length: int) -> int:
    """Parameters in all, without drawing them."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(shape, vocab=vocab, length=length))
    return sum(p.numel() for p in model.parameters())
