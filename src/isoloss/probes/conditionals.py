"""A language's conditional probabilities as features: the model's own, and the true ones.

What a probe reads from the true ones is what a model knows that predicts perfectly and does
nothing else: the lookup table, the baseline of the implicit-bias study.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from isoloss.corpora.language import Language
from isoloss.probes.optimum import check_vocabulary, masked_word_logprobs, next_word_logprobs
from isoloss.scoring.encoder import is_masked

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SENTENCES = 256
"""Read at a time."""


def model_conditionals(model: nn.Module, language: Language, words: Ints) -> Floats:
    """The probabilities a model gives to every word at every place, side by side.

    A masked model reads the sentence once for each of its words, with that word alone masked; a
    causal model gives the next word's, the end's included where sentences end. Probabilities are
    over the model's whole vocabulary, special tokens left out afterwards.

    Args:
        model: causal or masked, in the language's token ids.
        language: the one it was trained on.
        words: sentences, int (n, length), -1 after the end.

    Returns:
        (n, places * words), 0 after the end of a sentence.

    Raises:
        BadRequest: the model was trained on another language.

    Reference:
        Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, section 3;
        class CondF in modeling.py of their code.
    """
    check_vocabulary(model, language.vocab)
    parts = []
    for at in range(0, len(words), SENTENCES):
        some = words[at : at + SENTENCES]
        if is_masked(model):
            logs = masked_word_logprobs(model, some, language.vocab).numpy()
        else:
            logs = next_word_logprobs(model, some, language.vocab, ends=language.ends).numpy()
            # rows after the end are predictions from padding
            logs[~_asked(some, ends=language.ends)] = np.nan
        parts.append(_side_by_side(logs))
    features: Floats = np.concatenate(parts)
    return features


def true_conditionals(language: Language, words: Ints, *, masked: bool) -> Floats:
    """The language's own probabilities of every word at every place: the lookup table.

    Args:
        language: whose probabilities are exact.
        words: sentences, int (n, length), -1 after the end.
        masked: given all other words; otherwise given those before.

    Returns:
        Of the shape and order of :func:`model_conditionals`, which a perfect model equals.
    """
    exact = language.masked_logprobs if masked else language.next_token_logprobs
    parts = [
        _side_by_side(exact(words[at : at + SENTENCES])) for at in range(0, len(words), SENTENCES)
    ]
    features: Floats = np.concatenate(parts)
    return features


def _asked(words: Ints, *, ends: bool) -> NDArray[np.bool_]:
    """Where a causal model predicts a word or the end."""
    here = words >= 0
    if not ends:
        return here
    return np.pad(here, ((0, 0), (1, 0)), constant_values=True)


def _side_by_side(logprobs: Floats) -> Floats:
    """Probabilities, and not their logs, as in the paper's probe."""
    return np.nan_to_num(np.exp(logprobs), nan=0.0).reshape(len(logprobs), -1)
