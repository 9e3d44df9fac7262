"""The spectrum of a checkpoint's language-model head as rows of the store."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isoloss.errors import BadRequest
from isoloss.estimate import Estimate
from isoloss.probes.head_spectrum import head_spectrum
from isoloss.probes.measured import Measured, Row


def head_weight(model: nn.Module) -> Tensor:
    """The output embedding of a model, (vocab, d), tied or not.

    Raises:
        BadRequest: the model has no head.
    """
    found: Any = getattr(model, "get_output_embeddings", lambda: None)()
    weight = getattr(found, "weight", None)
    if not isinstance(weight, Tensor):
        raise BadRequest(
            "the model has no language-model head.",
            asked=type(model).__name__,
            nearest="a causal or masked language model of transformers",
            remedy="load the checkpoint with its head, or leave it out of the probe",
        )
    return weight.detach()


def spectrum(model: nn.Module, token_ids: ArrayLike | None = None) -> Measured:
    """Singular values of a model's head and what they say.

    Args:
        model: with a head.
        token_ids: of a text, by whose counts the first singular vector is compared; without one
            there is no correlation.

    Returns:
        Rows singular_entropy, singular_entropy_power1 (nats), effective_rank, top_share and, with
        a text, top_frequency_correlation; n is the smaller side of the head, for the correlation
        the tokens that occur. All but the correlation are exact for these weights: their standard
        error is 0. Array ``singular_values``, falling.

    Raises:
        BadRequest: the model has no head.
        BadData: the head is not finite, or is zero.
    """
    weight = head_weight(model)
    counts = None
    if token_ids is not None:
        counts = np.bincount(np.asarray(token_ids, dtype=np.int64), minlength=len(weight))
    found = head_spectrum(weight, counts)
    rows = [
        Row(metric=metric, estimate=Estimate(value=value, stderr=0.0, n=len(found.values)), unit=u)
        for metric, value, u in (
            ("singular_entropy", found.singular_entropy, "nats"),
            ("singular_entropy_power1", found.singular_entropy_power1, "nats"),
            ("effective_rank", found.effective_rank, "dimensions"),
            ("top_share", found.top_share, "fraction"),
        )
    ]
    r = found.top_frequency_correlation
    if r is not None and counts is not None:
        n = int(np.count_nonzero(counts))
        # of a correlation of n pairs, to first order
        stderr = float((1 - r * r) / np.sqrt(n - 1)) if n > 1 else None
        estimate = Estimate(value=r, stderr=stderr, n=n)
        rows.append(Row(metric="top_frequency_correlation", estimate=estimate, unit="correlation"))
    return Measured(rows=tuple(rows), arrays={"singular_values": found.values})
