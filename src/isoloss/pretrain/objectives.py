"""What a model is asked to predict while it is trained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def causal_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy of every word given BOS and the words before it.

    Args:
        model: a causal model of transformers.
        ids: BOS and the words, int64 (batch, 1 + length).

    Returns:
        Nats per token, a scalar with its graph.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
