"""The published starting grid, and the four objectives a loss law is fitted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, TypedDict

import numpy as np

from isoloss.laws.batched_newton import BatchedFit, Floats, minimise
from isoloss.laws.free_scale import free_scale_fit
from isoloss.laws.huber_fits import HuberFits
from isoloss.laws.power_terms import PowerSum, Term, power_sum

Objective = Literal["huber", "huber_scale", "log_squares", "squares"]

GRID: dict[str, tuple[float, ...]] = {
    "A": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "B": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "E": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "S": (-3.0,),
    "alpha": (0.0, 0.5, 1.0, 1.5, 2.0),
    "beta": (0.0, 0.5, 1.0, 1.5, 2.0),
}
"""Hoffmann et al.'s starts, logs of the scales: 4,500 for all five parameters."""

_LONG, _THIN = 300, 100
"""Tables over 300 points run their starts on 100 of them; the best are finished on all."""
_FINALISTS = 12
_MANY, _LAST = 1_000, 4
"""Tables over 1,000 points finish the best on 1,000 of them, and the last four on all."""
_SMOOTH, _FAR = 0.1, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is minimised.

    Attributes:
        kind: "huber": summed Huber of log residuals with threshold ``delta`` (Hoffmann et al.);
            "huber_scale": its density with a free scale (Besiroglu et al.); "log_squares";
            "squares" of the residuals in nats.
        delta: Huber's threshold.
        starts: how many of the published grid are run, drawn at random; None for all of them.
            About half of them reach the lowest objective of a usual table: 100 are plenty where
            many tables are fitted.
    """

    kind: Objective = "huber"
    delta: float = 1e-3
    starts: int | None = None

    @property
    def in_logs(self) -> bool:
        """Residuals of log losses."""
        return self.kind != "squares"

    @property
    def threshold(self) -> float:
        """Where squares end; inf for least squares."""
        return self.delta if self.kind.startswith("huber") else float("inf")

    def residuals(self, log_law: Floats, loss: Floats) -> Floats:
        """Of the last axis, in the rule's unit."""
        return log_law - np.log(loss) if self.in_logs else np.exp(log_law) - loss


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """The best fit of one design to one table.

    Attributes:
        law: the design.
        theta: inner coordinates, (parameters,).
        objective: at theta, over the whole table.
        threshold: Huber's, in log loss; that of the fitted scale where the scale is free.
        starts: how many were tried.
        converged: how many of them converged.
        agreeing: how many ended within 1e-6 of the lowest objective, relatively.
    """

    law: PowerSum
    theta: Floats
    objective: float
    threshold: float
    starts: int
    converged: int
    agreeing: int

    @property
    def values(self) -> dict[str, float]:
        """Free parameters by name, scales as they are (not their logs)."""
        natural = self.law.natural(self.theta)
        return {
            name: float(np.exp(x)) if name in SCALES else float(x)
            for name, x in zip(self.law.names, natural, strict=True)
        }


SCALES = frozenset({"A", "B", "E", "S"})
"""Parameters whose natural coordinate is a log."""


class _How(TypedDict):
    threshold: float
    in_logs: bool


def published_starts(names: Sequence[str]) -> Floats:
    """Natural starting points: the published grid over the free parameters, (starts, p)."""
    return np.array(list(product(*(GRID[name] for name in names))), dtype=np.float64)


def best_fit(
    terms: Sequence[Term],
    fixed: Mapping[str, float],
    loss: Floats,
    rule: Rule,
    *,
    seed: int,
    starts: Floats | None = None,
) -> PowerFit:
    """Fit a law from every start and keep the lowest objective.

    Args:
        terms: of the law, over the points of the table.
        fixed: parameters that are given.
        loss: nats per token, (points,).
        rule: what is minimised.
        seed: of the starts, where not all are run, and of the points the starts of a table over
            300 points are run on.
        starts: natural starting points, (starts, p); the published grid where None.

    Returns:
        The best fit.
    """
    law = power_sum(terms, fixed)
    rng = np.random.default_rng(seed)
    first = published_starts(law.names) if starts is None else starts
    if rule.starts is not None and rule.starts < len(first):
        first = first[np.sort(rng.choice(len(first), rule.starts, replace=False))]
    how: _How = {"threshold": rule.threshold, "in_logs": rule.in_logs}
    if len(loss) > _LONG:
        some = np.sort(rng.choice(len(loss), _THIN, replace=False))
        thin = power_sum([replace(t, x=t.x[some]) for t in terms], fixed)
        ends = descend(thin, loss[some], thin.inside(first), **how)
        finalists = law.inside(thin.natural(_lowest(ends)))
        if len(loss) > _MANY:
            more = np.sort(rng.choice(len(loss), _MANY, replace=False))
            part = power_sum([replace(t, x=t.x[more]) for t in terms], fixed)
            nearly = descend(part, loss[more], part.inside(law.natural(finalists)), **how)
            finalists = law.inside(part.natural(_lowest(nearly)[:_LAST]))
        problems = HuberFits(law=law, loss=loss, delta=rule.threshold, in_logs=rule.in_logs)
        final = minimise(problems, finalists)
    else:
        ends = final = descend(law, loss, law.inside(first), **how)
    theta = final.theta[final.best()]
    threshold = rule.threshold
    if rule.kind == "huber_scale":
        scaled = free_scale_fit(law, loss, _lowest(final), delta=rule.delta)
        best = int(np.argmin(scaled.objective))
        theta, threshold = scaled.theta[best], float(scaled.threshold[best])
        objective = float(scaled.objective[best])
    else:
        objective = float(final.objective.min())
    lowest = float(ends.objective.min())
    near = ends.objective <= lowest * (1 + 1e-6) + 1e-18
    return PowerFit(
        law=law,
        theta=theta,
        objective=objective,
        threshold=threshold,
        starts=len(first),
        converged=int(ends.converged.sum()),
        agreeing=int(near.sum()),
    )


def refit(fit: PowerFit, loss: Floats, rule: Rule, weights: Floats) -> Floats:
    """Fit the same law to reweighted tables, each from the best fit of the whole.

    Args:
        fit: of the whole table.
        loss: nats per token, (points,).
        rule: what is minimised.
        weights: how often each point counts, (tables, points).

    Returns:
        Inner coordinates, (tables, parameters); NaN where a table did not converge.
    """
    start = np.repeat(fit.theta[None], len(weights), axis=0)
    if rule.kind == "huber_scale":
        return free_scale_fit(fit.law, loss, start, delta=rule.delta, weights=weights).theta
    problems = HuberFits(
        law=fit.law, loss=loss, delta=rule.threshold, weights=weights, in_logs=rule.in_logs
    )
    # far below the spread of the refits, which is about 1 / sqrt(points) on this scale
    fits = minimise(problems, start, tolerance=1e-6)
    return np.where(fits.converged[:, None], fits.theta, np.nan)


def descend(
    law: PowerSum, loss: Floats, start: Floats, *, threshold: float, in_logs: bool
) -> BatchedFit:
    """Every start to its own end: first on a smoother objective, then on the one asked for.

    Absolute residuals make narrow, kinked valleys in which far starts crawl; with a threshold of
    .1 they do not. Starts that have met on the way go on as one.

    Args:
        law: the design.
        loss: nats per token, (points,).
        start: inner coordinates, (starts, parameters).
        threshold: Huber's.
        in_logs: residuals of log losses.

    Returns:
        The end of every start.
    """
    smooth = max(threshold, _SMOOTH)
    problems = HuberFits(law=law, loss=loss, delta=smooth, in_logs=in_logs)
    near = minimise(problems, start, far=True, tolerance=1e-5, max_iterations=_FAR).theta
    _, first, same = np.unique(
        np.round(near, 3) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    problems = HuberFits(law=law, loss=loss, delta=threshold, in_logs=in_logs)
    ends = minimise(problems, near[first])
    same = same.ravel()
    return BatchedFit(
        theta=ends.theta[same],
        objective=ends.objective[same],
        converged=ends.converged[same],
        iterations=ends.iterations[same],
    )


def _lowest(fits: BatchedFit) -> Floats:
    """End points of the best few."""
    return fits.theta[np.argsort(fits.objective, kind="stable")[:_FINALISTS]]
