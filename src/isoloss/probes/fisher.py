"""Trace of the Fisher information: the squared gradient of labels that the model itself draws.

At a minimum where the model is the true distribution this is the trace of the loss's Hessian,
anywhere else it is not, and is to be called by its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isoloss.probes.curvature_batches import Rows, asked_logits, read_batches
from isoloss.probes.curvature_estimate import MOST_PRODUCTS, Stop, TraceEstimate, generator
from isoloss.probes.curvature_groups import overhead_tokens, sample_loss
from isoloss.probes.curvature_parameters import as_function, chosen_parameters, squared_norms
from isoloss.probes.curvature_sampling import Draw
from isoloss.scoring.encoder import is_masked

Floats = NDArray[np.float64]

_LABELS = 6  # part of a seed


def fisher_trace(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    *,
    relative_error: float | None = 0.05,
    absolute_error: float | None = None,
    max_products: int | None = None,
    seed: int,
    exclude: Sequence[str] = (),
    population: bool = False,
    rows_per_product: int | None = None,
) -> TraceEstimate:
    """Trace of the Fisher information of a model's token-weighted mean loss.

    ``Tr F = E_t E_(y ~ model) |grad log p(y | context of t)|^2``, labels sampled from the model at
    every asked place. Given the context a score has mean zero, and the labels of different places
    are independent, so that one backward pass of the scores summed over any group of tokens has
    an expected squared norm equal to the sum of the tokens' traces. How many sequences go into
    one pass is chosen by the variance that a pilot measures, see
    :mod:`isoloss.probes.curvature_groups`. First derivatives only: fast attention kernels,
    bfloat16 weights and gradient checkpointing stay in use. Dropout is off inside.

    Args:
        model: causal or masked, of transformers; unchanged when this returns.
        batches: ``input_ids`` and ``labels`` as in transformers, int (rows, seq), -100 where
            nothing is asked; which labels stand elsewhere does not matter.
        relative_error: stop at this standard error over the value.
        absolute_error: or at this standard error.
        max_products: or after so many backward passes; None takes 10,000.
        seed: of the labels and of the order of groups: equal seeds give equal numbers.
        exclude: parameters left out, by name or pattern.
        population: the batches stand for a population: the error holds the spread between them.
        rows_per_product: sequences in a backward pass; None lets a pilot choose.

    Returns:
        The trace in nats per squared unit of the weights. ``n`` counts draws, of a population the
        groups of sequences; ``scale_invariant`` holds the companion.

    Reference:
        Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, appendix B.1.
    """
    stop = Stop(
        relative_error=relative_error,
        absolute_error=absolute_error,
        max_products=MOST_PRODUCTS if max_products is None else max_products,
    )
    parameters = list(chosen_parameters(model, exclude).values())
    read, trim = read_batches(model, batches), not is_masked(model)
    with as_function(model, parameters, twice=False):
        return sample_loss(
            read,
            lambda groups: _draw(model, parameters, groups, seed=seed),
            rows=rows_per_product,
            trim=trim,
            overhead=overhead_tokens(sum(p.numel() for p in parameters), parameters[0].device),
            stop=stop,
            population=population,
            seed=seed,
        )


def _draw(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    groups: Sequence[Rows],
    *,
    seed: int,
) -> Draw:
    norms = squared_norms(parameters)

    def draw(group: int, first: int, count: int) -> Floats:
        logits = asked_logits(model, groups[group])
        probs = torch.softmax(logits.detach(), dim=-1)
        values = np.empty((count, 2))
        for number in range(count):
            # the score of a label y with respect to the logits is its one-hot vector less probs
            score = probs.clone()
            label = _sample(probs, generator(seed, _LABELS, len(groups), first + number))
            score[torch.arange(len(label)), label] -= 1
            torch.autograd.backward([logits], [score], retain_graph=number + 1 < count)
            squares = squared_norms([_taken(p) for p in parameters])
            values[number] = float(squares.sum()), float(torch.dot(norms, squares))
        return values

    return draw


def _taken(parameter: nn.Parameter) -> Tensor:
    """A parameter's gradient, which is put away; zeros where the pass did not reach it."""
    grad, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if grad is None else grad


def _sample(probs: Tensor, rng: np.random.Generator) -> Tensor:
    """One label of each row, by inversion from numbers drawn on the CPU."""
    uniform = torch.from_numpy(rng.random((len(probs), 1))).to(probs.device)
    cumulative = probs.double().cumsum(dim=-1)
    # a NaN has no place among the rest: any label, for the squared norm will be NaN too
    place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:]).squeeze(-1)
    return place.clamp_max(probs.shape[-1] - 1)
