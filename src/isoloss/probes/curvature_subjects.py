"""What a checkpoint's curvature is measured on: a language's held-out sentences, or a corpus."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.corpora.language import Language, held_out_seed, model_tokens, special_id
from isoloss.corpora.windows import Layout
from isoloss.errors import BadRequest
from isoloss.probes.curvature_batches import IGNORED
from isoloss.probes.optimum import check_vocabulary, masked_frame
from isoloss.scoring.encoder import is_masked

Batch = dict[str, Tensor]

SEED_PART = 6  # of the held-out sentences: others than the other probes'

# a graph of second derivatives holds several times the activations of a training step
_TOKENS = 1024


def language_batches(
    model: nn.Module, language: Language, *, sentences: int, seed: int
) -> list[Batch]:
    """Held-out sentences of a language, as the model was trained to read them.

    A causal model is asked every word, and the end where sentences have one. A masked model is
    asked one word of each sentence, at a uniform position, whatever share was masked in training.

    Args:
        model: trained on the language.
        language: the family's own.
        sentences: how many.
        seed: of the sentences and the masked positions; equal seeds compare models on equal ones.

    Returns:
        Batches for :func:`isoloss.probes.hessian_trace` and ``fisher_trace``.

    Raises:
        BadRequest: the model does not read this language.
    """
    check_vocabulary(model, language.vocab)
    words = language.sample(sentences, held_out_seed(seed, SEED_PART))
    vocab = language.vocab
    if is_masked(model):
        framed = masked_frame(words, vocab)
        rng = np.random.default_rng(held_out_seed(seed, SEED_PART))
        rows, places = np.arange(len(words)), 1 + rng.integers((words >= 0).sum(axis=1))
        labels = np.full_like(framed.ids, IGNORED)
        labels[rows, places] = framed.ids[rows, places]
        framed.ids[rows, places] = special_id(vocab, "<mask>")
        batch = {"input_ids": framed.ids, "labels": labels}
        if framed.attention is not None:
            batch["attention_mask"] = framed.attention
    else:
        ids = model_tokens(words, vocab)
        if language.ends:
            ids = np.pad(ids, ((0, 0), (0, 1)), constant_values=-1)
            ids[np.arange(len(ids)), 1 + (words >= 0).sum(axis=1)] = special_id(vocab, "<eos>")
        batch = {
            "input_ids": np.where(ids >= 0, ids, special_id(vocab, "<pad>")),
            "labels": np.where(ids >= 0, ids, IGNORED),
        }
    rows_each = max(1, _TOKENS // batch["labels"].shape[1])
    return [
        {name: torch.from_numpy(value[at : at + rows_each]) for name, value in batch.items()}
        for at in range(0, sentences, rows_each)
    ]


def corpus_batches(model: nn.Module, layout: Layout) -> list[Batch]:
    """The windows of a corpus; those of like length together.

    Args:
        model: causal.
        layout: of the corpus under the model's tokenizer.

    Returns:
        Batches that ask exactly the tokens that ``token_loss`` scores.

    Raises:
        BadRequest: the model is masked: which words of a text to mask is not settled.
    """
    if is_masked(model):
        raise BadRequest(
            "the curvature on a corpus is that of a causal model's loss.",
            asked=f"a masked model, {type(model).__name__}",
            nearest="a family trained by isoloss, on its own language",
            remedy="drop corpus from the probe, or call fisher_trace with masked batches",
        )
    lengths = layout.stops - layout.starts
    order = np.argsort(-lengths, kind="stable")
    batches, at = [], 0
    while at < len(order):
        width = int(lengths[order[at]])
        windows = order[at : at + max(1, _TOKENS // width)]
        ids = np.zeros((len(windows), width), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        for row, w in enumerate(windows):
            tokens = layout.stream[layout.starts[w] : layout.stops[w]]
            scored = int(layout.row_stops[w] - layout.row_starts[w])
            ids[row, : len(tokens)] = tokens
            labels[row, len(tokens) - scored : len(tokens)] = tokens[-scored:]
        batches.append({"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)})
        at += len(windows)
    return batches
