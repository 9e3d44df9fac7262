"""Losses of families with different tokenizers, made comparable on the same text.

A loss in nats per token depends on how finely its tokenizer cuts the text. Bits per byte do not,
and a converted loss states one family's loss as if it had been counted in another's tokens.
"""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoloss.errors import BadRequest

Floats = NDArray[np.float64]


@overload
def convert_loss(nats_per_token_a: float, tokens_a: float, tokens_b: float) -> float: ...
@overload
def convert_loss(
    nats_per_token_a: ArrayLike, tokens_a: ArrayLike, tokens_b: ArrayLike
) -> Floats: ...
def convert_loss(
    nats_per_token_a: ArrayLike, tokens_a: ArrayLike, tokens_b: ArrayLike
) -> Floats | float:
    """Loss of a model with tokenizer A as if counted in the tokens of B, on the same text.

    ``L_B = L_A * tokens_A / tokens_B``: the nats of the whole text stay, the count changes. This
    assumes that the model's probability of the text does not depend on how the text is cut. A
    model counts one cutting only, so its nats are an upper bound of the text's, by an amount
    that differs between tokenizers; and tokens without loss (a first token without BOS) must be
    left out of both counts.

    >>> convert_loss(3.0, 1000, 1200)
    2.5

    Args:
        nats_per_token_a: mean loss over the text, scalar or array.
        tokens_a: tokens of the text under the model's own tokenizer.
        tokens_b: tokens of the same text under the other tokenizer.

    Returns:
        Nats per token of B, float64, of the arguments' common shape.

    Raises:
        BadRequest: a count is not positive.
    """
    a, b = _counts("tokens_a", tokens_a), _counts("tokens_b", tokens_b)
    return _unwrap(np.asarray(nats_per_token_a, dtype=np.float64) * a / b)


@overload
def bits_per_byte(nats_per_token: float, tokens: float, bytes: float) -> float: ...
@overload
def bits_per_byte(nats_per_token: ArrayLike, tokens: ArrayLike, bytes: ArrayLike) -> Floats: ...
def bits_per_byte(nats_per_token: ArrayLike, tokens: ArrayLike, bytes: ArrayLike) -> Floats | float:
    """Bits for each UTF-8 byte of the text: ``nats_per_token * tokens / (ln 2 * bytes)``.

    >>> round(bits_per_byte(np.log(2), tokens=300, bytes=1200), 12)
    0.25

    Args:
        nats_per_token: mean loss over the text, scalar or array.
        tokens: tokens that were scored.
        bytes: UTF-8 bytes of the text those tokens stand for.

    Returns:
        Bits per byte, float64, of the arguments' common shape.

    Raises:
        BadRequest: a count is not positive.
    """
    n, size = _counts("tokens", tokens), _counts("bytes", bytes)
    return _unwrap(np.asarray(nats_per_token, dtype=np.float64) * n / (np.log(2) * size))


def converted_label(tokenizer: str) -> str:
    """What stands at an axis of converted losses.

    >>> converted_label("gpt-neox-20b")
    'converted: same text, tokens of gpt-neox-20b; assumes the same probability however it is cut'
    """
    return (
        f"converted: same text, tokens of {tokenizer}; assumes the same probability "
        "however it is cut"
    )


def _counts(name: str, values: ArrayLike) -> Floats:
    counts = np.asarray(values, dtype=np.float64)
    if not (counts > 0).all():
        raise BadRequest(
            f"{name} must be positive.",
            asked=f"{name} = {counts[~(counts > 0)].flat[0]:g}",
            remedy="count the tokens and bytes on the text the loss was measured on",
        )
    return counts


def _unwrap(values: Floats) -> Floats | float:
    return values if values.ndim else float(values)
