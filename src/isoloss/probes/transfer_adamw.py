"""The linear probe as it was published: trained by AdamW for a fixed number of epochs.

It need not reach the optimum of its loss; :func:`isoloss.probes.linear_probe.linear_probe` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.errors import NonFinite
from isoloss.probes.linear_probe import Probed, check_labels

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecipe:
    """How the probe is trained.

    Rate and epochs are the paper's (Liu et al. 2023, appendix A.4), the rest its code's; that
    gives 50 epochs.

    Attributes:
        lr: peak learning rate; falls to 0 in a straight line.
        epochs: passes over the documents.
        batch: documents a step.
        warmup_steps: in which the rate rises from 0; at most a tenth of all steps.
        weight_decay: AdamW's.
        dropout: of the features.
    """

    lr: float = 1e-3
    epochs: int = 100
    batch: int = 512
    warmup_steps: int = 50
    weight_decay: float = 0.01
    dropout: float = 0.1


PUBLISHED = ProbeRecipe()


def adamw_probe(
    features: NDArray[np.floating],
    labels: Ints,
    test: Bools,
    *,
    recipe: ProbeRecipe = PUBLISHED,
    seeds: int = 5,
    seed: int,
) -> Probed:
    """Train a linear classifier on frozen features by the published recipe.

    All seeds are trained together, each with its own first weights, order and dropout, on all
    documents that are not the test; no validation, no early stopping. Features are taken as
    they are. Float32.

    Args:
        features: (n, d).
        labels: class ids, int (n,).
        test: the documents of the test, (n,).
        recipe: how.
        seeds: how many.
        seed: of weights, orders and dropout.

    Returns:
        Answers; strengths are NaN.

    Raises:
        BadData: there is one class only, too few documents, or a label of the test alone.
        NonFinite: a feature is NaN or infinite.
    """
    check_labels(labels, test)
    known, ids = np.unique(labels, return_inverse=True)
    x = torch.from_numpy(np.asarray(features[~test], dtype=np.float32))
    if not torch.isfinite(x).all():
        raise NonFinite(
            "the features of a probe are not numbers",
            asked=f"{int((~torch.isfinite(x)).any(dim=1).sum())} of {len(x)} documents",
            remedy="leave this checkpoint out: its weights have diverged",
        )
    y = torch.from_numpy(ids[~test])
    heads = _train(x, y, len(known), recipe, seeds, torch.Generator().manual_seed(seed))
    shown = torch.from_numpy(np.asarray(features[test], dtype=np.float32))
    answers = (shown @ heads.weight + heads.bias).argmax(dim=2).numpy()
    return Probed(correct=answers == ids[test], strength=np.full(seeds, np.nan))


def rate(step: int, steps: int, warmup_steps: int) -> float:
    """The learning rate of a step as a share of the peak: a rise, then a straight fall to 0.

    Args:
        step: from 0.
        steps: in all.
        warmup_steps: of the rise; at most a tenth of all steps are used, which a set of few
            documents would otherwise spend below the rate asked for.

    >>> [round(rate(step, 20, 50), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.06]
    """
    rise = min(warmup_steps, steps // 10)
    return (step + 1) / rise if step < rise else (steps - step) / (steps - rise)


@dataclass(frozen=True, slots=True)
class _Heads:
    weight: Tensor  # (seeds, d, classes)
    bias: Tensor  # (seeds, 1, classes)


def _train(
    x: Tensor, y: Tensor, classes: int, recipe: ProbeRecipe, seeds: int, draw: torch.Generator
) -> _Heads:
    n, dim = x.shape
    # torch's own first weights of a linear layer
    bound = 1 / math.sqrt(dim)
    weight = ((torch.rand(seeds, dim, classes, generator=draw) * 2 - 1) * bound).requires_grad_()
    bias = ((torch.rand(seeds, 1, classes, generator=draw) * 2 - 1) * bound).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=recipe.lr, weight_decay=recipe.weight_decay)
    batch, kept = min(recipe.batch, n), 1 - recipe.dropout
    steps, step = recipe.epochs * math.ceil(n / batch), 0
    for _ in range(recipe.epochs):
        order = torch.rand(seeds, n, generator=draw).argsort(dim=1)
        for at in range(0, n, batch):
            rows = order[:, at : at + batch]
            shown = x[rows]
            if recipe.dropout > 0:
                shown = shown * (torch.rand(shown.shape, generator=draw) < kept) / kept
            logits = torch.baddbmm(bias, shown, weight)
            # the mean of a seed's documents, summed over seeds: their gradients do not mix
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), y[rows].flatten()) * seeds
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate(step, steps, recipe.warmup_steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    return _Heads(weight.detach(), bias.detach())
