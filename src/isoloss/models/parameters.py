"""How many parameters a model has, with and without its embeddings, from stored shapes alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from isoloss.models.headers import Tensor

# buffers that older versions of transformers stored among the weights
_BUFFERS = re.compile(r"(\.masked_bias|\.inv_freq|position_ids|token_type_ids)$")
# heads of other objectives, which a language model leaves unread
OTHER_HEADS = re.compile(
    r"(^|\.)(pooler|seq_relationship|sop_classifier|discriminator_predictions)\."
)
_TOKEN_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings?|tok_embeddings|tokens_embed|embeddings"
    r"|shared)\.weight$"
)
_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|generator_lm_head|vocab_projector)\.(weight|bias)$"
    r"|(^|\.predictions\.|(^|\.)lm_head\.)decoder\.(weight|bias)$"
    r"|(^|\.)predictions\.bias$|^head\.weight$"
)
_POSITIONS = re.compile(
    r"(^|\.)(wpe|embed_positions|position_embeddings|positions_embed|token_type_embeddings)"
    r"\.weight$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Parameters of a model, and the type most of them are stored in (such as ``BF16``)."""

    total: int
    non_embedding: int
    dtype: str


def count_parameters(tensors: Iterable[Tensor], config: dict[str, Any]) -> ParameterCount:
    """Count the parameters of a checkpoint from the shapes of its tensors.

    Counted are the floating-point tensors, less the buffers that old versions of transformers
    stored (causal masks, rotary frequencies) and heads of other objectives (BERT's pooler).
    Tied weights count once: an output head stored beside the token embedding, in the same
    shape, adds nothing where the config says ``tie_word_embeddings``; a config that does not
    say is taken at the file's word, since writers that tie leave the copy out. ``non_embedding``
    leaves out token embeddings, the output head with its bias, learned positions and token
    types; projections, norms and transforms beside them stay in. They are known by name.

    Args:
        tensors: all tensors of the checkpoint.
        config: the content of ``config.json``.

    Returns:
        The counts.
    """
    mine = [t for t in tensors if is_parameter(t)]
    embeddings = {t.shape for t in mine if _TOKEN_EMBEDDING.search(t.name)}
    head_biases: set[tuple[int, ...]] = set()
    tied = bool(config.get("tie_word_embeddings"))
    total = outside = 0
    by_dtype: Counter[str] = Counter()
    for tensor in mine:
        if _HEAD.search(tensor.name):
            # an encoder stores its head's one bias under two names
            if tensor.name.endswith("bias"):
                if tensor.shape in head_biases:
                    continue
                head_biases.add(tensor.shape)
            elif tied and tensor.shape in embeddings:
                continue
        elif not (_TOKEN_EMBEDDING.search(tensor.name) or _POSITIONS.search(tensor.name)):
            outside += tensor.size
        total += tensor.size
        by_dtype[tensor.dtype] += tensor.size
    return ParameterCount(
        total=total,
        non_embedding=outside,
        dtype=by_dtype.most_common(1)[0][0] if by_dtype else "none",
    )


def is_parameter(tensor: Tensor) -> bool:
    """Whether a stored tensor is a trained parameter of the language model."""
    floating = tensor.dtype.startswith(("F", "BF"))
    # the causal mask of old GPT-2 and GPT-NeoX files is called a bias and has four axes
    mask = tensor.name.endswith(".bias") and len(tensor.shape) == 4
    unread = _BUFFERS.search(tensor.name) or OTHER_HEADS.search(tensor.name)
    return floating and not mask and not unread


def training_flops(params_total: int | None, tokens_seen: int | None) -> int | None:
    """FLOPs spent in training: 6 N D, with N all parameters; None where either is unknown.

    >>> training_flops(70_000_000, 1_000_000_000)
    420000000000000000
    """
    if params_total is None or tokens_seen is None:
        return None
    return 6 * params_total * tokens_seen
