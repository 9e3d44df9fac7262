"""Flatness of a checkpoint as rows: Fisher and Hessian traces and their companions.

Off the optimum the two differ, and each goes by its own name only. Neither knows of scale: in a
model with normalisation layers both fall by mere growth of the weights, which the companion and
the weight norm beside them tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from isoloss.estimate import Estimate
from isoloss.probes.curvature_estimate import TraceEstimate
from isoloss.probes.curvature_parameters import squared_norms
from isoloss.probes.fisher import fisher_trace
from isoloss.probes.hessian import hessian_trace
from isoloss.probes.measured import Measured, Row

Kind = Literal["fisher_trace", "hessian_trace"]

LABELS: Mapping[str, str] = {
    "fisher_trace": "Fisher trace",
    "fisher_trace_scale_invariant": "Fisher trace, tensors weighted by their squared norms",
    "hessian_trace": "Hessian trace",
    "hessian_trace_scale_invariant": "Hessian trace, tensors weighted by their squared norms",
}
"""What figures and tables call the metrics."""


def flatness(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    kind: Kind,
    *,
    relative_error: float,
    max_products: int,
    population: bool,
    seed: int,
) -> Measured:
    """Measure one of the traces.

    Args:
        model: of transformers.
        batches: as of :func:`isoloss.probes.fisher_trace`.
        kind: which one.
        relative_error: stop at this standard error over the value.
        max_products: or after so many products; the standard error then says how far it came.
        population: the error holds the spread between the sequences.
        seed: of labels or probes.

    Returns:
        Rows named after the kind and, with ``_scale_invariant``, its companion, and
        ``weight_norm``; array ``effort`` holds products, whether the error was reached (1 or 0),
        and the mean tokens of a product.
    """
    measure = fisher_trace if kind == "fisher_trace" else hessian_trace
    found = measure(
        model,
        batches,
        relative_error=relative_error,
        max_products=max_products,
        population=population,
        seed=seed,
    )
    squares = squared_norms(list(model.parameters()))
    norm = Estimate(value=float(squares.sum().sqrt()), stderr=0.0, n=len(squares))
    companion = found.scale_invariant
    assert companion is not None  # both estimators measure it
    return Measured(
        rows=(
            Row(metric=kind, estimate=_plain(found), unit="nats/weight^2"),
            Row(metric=f"{kind}_scale_invariant", estimate=companion, unit="nats"),
            Row(metric="weight_norm", estimate=norm, unit="weights"),
        ),
        arrays={
            "effort": np.array([found.products, found.converged, found.tokens_per_product or 0.0])
        },
    )


def _plain(found: TraceEstimate) -> Estimate:
    return Estimate(value=found.value, stderr=found.stderr, n=found.n)
