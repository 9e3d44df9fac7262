"""A trace that was estimated from products, and when to stop taking more of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isoloss.errors import BadRequest, NonFinite
from isoloss.estimate import Estimate, mean

MOST_PRODUCTS = 10_000
"""Where the caller sets no limit: a trace of zero never reaches a relative error."""

# a spread of fewer values is too often small by luck for the stop to trust it
FEWEST_DRAWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEstimate(Estimate):
    """An estimated trace.

    Attributes:
        value: in the units of the operator's eigenvalues.
        stderr: one standard error from the spread between probes; None after a single one.
        n: independent draws behind the value.
        converged: whether the error asked for was reached; False where the limit of products was.
        products: matrix-vector products, of Fisher traces backward passes, that were taken.
        tokens_per_product: mean asked tokens that went into one; None for a bare operator.
        scale_invariant: the sum over parameter tensors of their own trace times their squared
            norm; None where it was not measured.
    """

    converged: bool
    products: int
    tokens_per_product: float | None = None
    scale_invariant: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When an estimate is good enough.

    Attributes:
        relative_error: standard error over the absolute value; None asks for none.
        absolute_error: standard error in the units of the trace; None asks for none. Where both
            are given either is enough.
        max_products: the most products.

    Raises:
        BadRequest: an error or the limit is not positive, or no error is asked for.
    """

    relative_error: float | None = 0.05
    absolute_error: float | None = None
    max_products: int = MOST_PRODUCTS

    def __post_init__(self) -> None:
        asked = f"relative_error={self.relative_error}, absolute_error={self.absolute_error}, "
        asked += f"max_products={self.max_products}"
        errors = [e for e in (self.relative_error, self.absolute_error) if e is not None]
        if not errors or not all(e > 0 for e in errors):
            raise BadRequest(
                "a trace is estimated to a positive error.",
                asked=asked,
                remedy="give relative_error, absolute_error or both, above 0",
            )
        if self.max_products < 1:
            raise BadRequest(
                "a trace needs at least one product.", asked=asked, remedy="max_products >= 1"
            )

    def reached(self, estimate: Estimate) -> bool:
        """Whether an estimate is as good as was asked; never where its error is unknown."""
        if estimate.stderr is None:
            return False
        # zero curvature has no spread: its error of 0 is at most 5% of 0
        relative = -1.0 if self.relative_error is None else self.relative_error
        absolute = -1.0 if self.absolute_error is None else self.absolute_error
        return estimate.stderr <= max(relative * abs(estimate.value), absolute)


def until_precise(
    draw: Callable[[int], float], stop: Stop, *, spent: int = 0, shift: float = 0.0
) -> TraceEstimate:
    """Draw independent values until their mean is precise enough.

    At least 32 are drawn, limit permitting, so that a small spread is not an accident of a few.

    Args:
        draw: gives the value of the probe of a number, from 0; one product each.
        stop: when to stop.
        spent: products taken before.
        shift: added to the mean: a part of the trace that is known without error.

    Returns:
        Mean and standard error of the mean.

    Raises:
        NonFinite: a value is NaN or infinite; the probe is named.
    """
    values: list[float] = []
    while True:
        values.append(check_finite(draw(len(values)), probe=len(values)))
        found = mean(values)
        estimate = Estimate(value=shift + found.value, stderr=found.stderr, n=found.n)
        done = len(values) >= FEWEST_DRAWS and stop.reached(estimate)
        if done or spent + len(values) >= stop.max_products:
            break
    return TraceEstimate(
        value=estimate.value,
        stderr=estimate.stderr,
        n=estimate.n,
        converged=stop.reached(estimate),
        products=spent + len(values),
    )


def check_finite(value: float, *, probe: int) -> float:
    """The value, or an error that names the probe.

    Raises:
        NonFinite: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise NonFinite(
            f"the product of probe {probe} is not a number.",
            asked=f"probe {probe} (the first is 0) gave {value}",
            remedy="leave this checkpoint out if its weights have diverged; in float16 or "
            "bfloat16, try dtype = float32",
        )
    return value


def generator(seed: int, *parts: int) -> np.random.Generator:
    """A stream of its own for each probe, the same on every device."""
    return np.random.default_rng([seed, *parts])
