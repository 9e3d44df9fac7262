"""How far a model is from the best loss its language allows.

The language is known, so that nothing is left to the luck of the words drawn: at every
position the model is scored against the whole true distribution of the next word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.corpora.language import SPECIAL_TOKENS, Language, model_tokens
from isoloss.errors import BadRequest, NonFinite
from isoloss.estimate import mean
from isoloss.probes.measured import Measured, Row

UNIT = "nats/token"


def optimum(
    model: nn.Module, language: Language, *, sentences: int, batch: int = 256, seed: int
) -> Measured:
    """Expected loss of a causal model, the exact optimum, and the distance between them.

    The model reads BOS w1 .. wT; its prediction at BOS is that of w1. With p the true law of
    the next word and q the model's, each position gives ``-sum p log q`` (loss), ``-sum p log
    p`` (optimum) and their difference, the Kullback-Leibler divergence, which is never
    negative. The model's distribution runs over its whole vocabulary: probability given to
    special tokens counts as lost. Unbiased over sentences; the standard errors are by
    sentence, that of the distance paired.

    Args:
        model: called as ``model(input_ids=...)`` with logits (batch, 1 + length, >= vocab).
        language: the one the model was trained on; its end symbol, if any, is not scored.
        sentences: how many are sampled, at least 2 for a standard error.
        batch: sentences at a time; changes memory, not the estimate.
        seed: of the sentences: equal seeds compare models on equal sentences.

    Returns:
        Rows ``loss_nats_per_token``, ``optimum_nats_per_token``, ``distance_to_optimum_nats``.

    Raises:
        BadRequest: the model was trained on another language.
        NonFinite: the model's logits hold NaN.
    """
    check_vocabulary(model, language.vocab)
    words = language.sample(sentences, seed)
    parts = [_losses(model, language, words[i : i + batch]) for i in range(0, sentences, batch)]
    loss, best = np.concatenate(parts, axis=1)
    if not np.isfinite(loss).all():
        raise NonFinite(
            "the model's loss on its language is not a number",
            asked=f"{int((~np.isfinite(loss)).sum())} of {sentences} sentences",
            remedy="leave this checkpoint out: its weights have diverged",
        )
    return Measured(
        rows=(
            Row(metric="loss_nats_per_token", estimate=mean(loss), unit=UNIT),
            Row(metric="optimum_nats_per_token", estimate=mean(best), unit=UNIT),
            Row(metric="distance_to_optimum_nats", estimate=mean(loss - best), unit=UNIT),
        )
    )


def check_vocabulary(model: nn.Module, vocab: int) -> None:
    """Refuse a model that does not read the words and special tokens of the language.

    Args:
        model: a model of transformers.
        vocab: words of the language.

    Raises:
        BadRequest: its vocabulary is of another size.
    """
    config: Any = model.config
    expected = vocab + len(SPECIAL_TOKENS)
    if config.vocab_size != expected:
        raise BadRequest(
            "the model does not read this language",
            asked=f"a model of {config.vocab_size} tokens, a language of {vocab} words",
            nearest=f"{expected} tokens: the words and {len(SPECIAL_TOKENS)} special ones",
            remedy="measure the model on the language it was trained on",
        )


def next_word_logprobs(model: nn.Module, words: NDArray[np.int64], vocab: int) -> Tensor:
    """Log probabilities that a causal model gives to each next word.

    Args:
        model: a causal model in the language's token ids.
        words: sentences, int (n, length).
        vocab: words of the language.

    Returns:
        float64 (n, length, vocab) on the CPU; rows sum to at most one, the rest being the
        special tokens'.
    """
    device = next(model.parameters()).device
    ids = torch.from_numpy(model_tokens(words, vocab)).to(device)
    with torch.inference_mode():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    # float64: a distance of 1e-4 nats is a difference of two losses near 3
    return torch.log_softmax(logits.cpu().double(), dim=-1)[..., :vocab]


def _losses(model: nn.Module, language: Language, words: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per sentence the model's expected loss and the optimum, (2, n)."""
    true = torch.from_numpy(language.next_token_logprobs(words))[..., : language.vocab]
    probability = true.exp()
    # probability zero times its log, -inf, counts as zero on both sides
    surprise = torch.where(probability > 0, true, 0.0)
    model_logprobs = next_word_logprobs(model, words, language.vocab)
    model_surprise = torch.where(probability > 0, model_logprobs, 0.0)
    sums = [-(probability * x).sum(-1).mean(-1) for x in (model_surprise, surprise)]
    return torch.stack(sums).numpy()
