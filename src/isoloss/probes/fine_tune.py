"""Fine-tuning of a copy of a model on labelled documents, over several seeds."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.errors import NonFinite
from isoloss.probes.linear_probe import Probed, check_labels
from isoloss.probes.transfer_adamw import rate
from isoloss.probes.transfer_features import Documents
from isoloss.scoring.encoder import is_masked

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneRecipe:
    """How a model is fine-tuned.

    Rate, warm-up and epochs are the paper's (Liu et al. 2023, appendix A.4), the rest its code's;
    that warms up over 50 steps and trains for 50 epochs.

    Attributes:
        lr: peak learning rate of AdamW; falls to 0 in a straight line.
        epochs: passes over the documents.
        batch: documents a step.
        warmup_steps: in which the rate rises from 0; at most a tenth of all steps.
        weight_decay: of matrices; biases and norms have none.
        clip: largest norm of the gradient.
        dropout: before the head's last layer.
    """

    lr: float = 1e-4
    epochs: int = 10
    batch: int = 128
    warmup_steps: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.1


PUBLISHED = FineTuneRecipe()


def fine_tune(
    model: nn.Module,
    documents: Documents,
    labels: Ints,
    test: Bools,
    *,
    recipe: FineTuneRecipe = PUBLISHED,
    seeds: int = 5,
    seed: int,
) -> Probed:
    """Train a copy of the whole model to name the class of a document, once a seed.

    The head is BERT's: a dense layer with tanh, dropout, a linear layer. It reads the state of
    the first token of a masked model, and of the last word of a causal one, whose first token
    sees nothing. All documents that are not the test are trained on; no early stopping, so that
    the test part chooses nothing. A seed draws head, order and dropout. Float32.

    Args:
        model: of transformers; only copies of it are trained.
        documents: in its token ids.
        labels: class ids, int (n,).
        test: the documents of the test, (n,).
        recipe: how.
        seeds: how many.
        seed: seed i draws from ``seed + i``.

    Returns:
        Answers; strengths are NaN.

    Raises:
        BadData: there is one class only, too few documents, or a label of the test alone.
        NonFinite: the loss is no number.
    """
    check_labels(labels, test)
    known, ids = np.unique(labels, return_inverse=True)
    correct = np.empty((seeds, int(test.sum())), dtype=bool)
    for i in range(seeds):
        # dropout and first weights draw from torch's global generator, which is put back
        with torch.random.fork_rng(devices=_devices(model)):
            torch.manual_seed(seed + i)
            classifier = _Classifier(model, len(known), recipe.dropout)
            _train(classifier, documents, ids, np.flatnonzero(~test), recipe)
        answers = _answers(classifier, documents, np.flatnonzero(test), recipe.batch)
        correct[i] = answers == ids[test]
    return Probed(correct=correct, strength=np.full(seeds, np.nan))


class _Classifier(nn.Module):
    """A copy of a model without its language head, and a head for classes."""

    def __init__(self, model: nn.Module, classes: int, dropout: float) -> None:
        super().__init__()
        self.masked = is_masked(model)
        body = copy.deepcopy(model.base_model)
        assert isinstance(body, nn.Module)
        self.body = body.float().requires_grad_(True)
        width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, classes)
        self.to(next(body.parameters()).device)

    def forward(self, documents: Documents, rows: Ints) -> Tensor:
        device = self.out.weight.device
        inputs = documents.inputs(rows, masked=self.masked, device=device)
        states = self.body(**inputs).last_hidden_state
        if self.masked:
            read = states[:, 0]
        else:
            content = documents.content[rows]
            last = content.shape[1] - 1 - content[:, ::-1].argmax(axis=1)
            read = states[torch.arange(len(rows)), torch.from_numpy(last)]
        logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(read))))
        return logits


def _train(
    classifier: _Classifier, documents: Documents, ids: Ints, rows: Ints, recipe: FineTuneRecipe
) -> None:
    optimizer = _optimizer(classifier, recipe)
    steps, step = recipe.epochs * math.ceil(len(rows) / recipe.batch), 0
    classifier.train()
    for _ in range(recipe.epochs):
        order = rows[torch.randperm(len(rows)).numpy()]
        for at in range(0, len(order), recipe.batch):
            batch = order[at : at + recipe.batch]
            logits = classifier(documents, batch)
            wanted = torch.from_numpy(ids[batch]).to(logits.device)
            loss = nn.functional.cross_entropy(logits, wanted)
            if not torch.isfinite(loss):
                raise NonFinite(
                    "the loss of fine-tuning is not a number",
                    asked=f"step {step} of {steps}, lr {recipe.lr:g}",
                    remedy="leave this checkpoint out, or fine-tune at a lower rate",
                )
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate(step, steps, recipe.warmup_steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(classifier.parameters(), recipe.clip)
            optimizer.step()
            step += 1


def _optimizer(classifier: nn.Module, recipe: FineTuneRecipe) -> torch.optim.AdamW:
    matrices = [p for p in classifier.parameters() if p.ndim > 1]
    vectors = [p for p in classifier.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.lr,
    )


@torch.inference_mode()
def _answers(classifier: _Classifier, documents: Documents, rows: Ints, batch: int) -> Ints:
    classifier.eval()
    parts = [
        classifier(documents, rows[at : at + batch]).argmax(dim=1).cpu().numpy()
        for at in range(0, len(rows), batch)
    ]
    answers: Ints = np.concatenate(parts)
    return answers


def _devices(model: nn.Module) -> list[torch.device]:
    device = next(model.parameters()).device
    return [device] if device.type == "cuda" else []
