"""Parameters of a loss law that a table leaves open: named, and never given an interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from isoloss.laws.fit_interval import degrees_of_freedom, scores_of
from isoloss.laws.loss_table import LossTable
from isoloss.laws.power_fit import PowerFit, Rule, descend, published_starts
from isoloss.laws.power_terms import Term, power_sum

_STARTS = 12
"""Of the grid, for each parameter held at a border, beside the best fit itself."""
_LONG, _MANY_ROWS = 300, 1_000
"""What 300 rows can tell, all rows can; more than 1,000 are not profiled."""
_STEEPEST, _FLATTEST = 3.0, 5e-3
"""Exponents beyond which no law of language models has been seen."""


def unidentified(
    terms: Sequence[Term], fixed: Mapping[str, float], fit: PowerFit, table: LossTable, rule: Rule
) -> tuple[str, ...]:
    """Parameters that the data leave open: their profile is flat out to a border.

    A term is open where the law without it fits as well; its exponent also where .005 or 3 does.
    "As well" is a rise of the objective below the 95% point of its distribution, scaled by the
    scatter. Tables over 1,000 rows are judged by 1,000 of them, drawn at random: what these
    leave open counts as open. Where the columns cannot tell terms apart (all sizes equal,
    tokens a fixed multiple of the size), every parameter of these terms is open.

    Args:
        terms: of the law.
        fixed: parameters that were given.
        fit: the best fit.
        table: its rows.
        rule: what was minimised.

    Returns:
        Names, in the order of the law's parameters.
    """
    if table.n > _LONG and not _open(*_some(_LONG, terms, fixed, fit, table), rule):
        return ()
    if table.n > _MANY_ROWS:
        return _open(*_some(_MANY_ROWS, terms, fixed, fit, table), rule)
    return _open(terms, fixed, fit, table, rule)


class _Part(NamedTuple):
    """A law over some rows of a table."""

    terms: Sequence[Term]
    fixed: Mapping[str, float]
    fit: PowerFit
    table: LossTable


def _some(
    rows: int, terms: Sequence[Term], fixed: Mapping[str, float], fit: PowerFit, table: LossTable
) -> _Part:
    """Rows drawn at random, and the fit of all rows over them."""
    some = np.sort(np.random.default_rng(0).choice(table.n, rows, replace=False))
    few = [replace(t, x=t.x[some]) for t in terms]
    law = power_sum(few, fixed)
    theta = law.inside(fit.law.natural(fit.theta))
    return _Part(few, fixed, replace(fit, law=law, theta=theta), table.rows(some))


def _open(
    terms: Sequence[Term], fixed: Mapping[str, float], fit: PowerFit, table: LossTable, rule: Rule
) -> tuple[str, ...]:
    """The parameters whose profile is flat, on exactly these rows."""
    found = _confounded(terms, fixed)
    # the profile of a threshold of 1e-8 has no quadratic part to descend from far away
    fit = replace(fit, threshold=max(fit.threshold, 1e-4))
    bar = fit_bar(fit, table, rule)
    for term in terms:
        group = {name for name in (term.scale, term.exponent) if name and name not in fixed}
        if not group or group <= found:
            continue
        shared = {t.scale for t in terms if t.exponent and t.exponent == term.exponent}
        for given, names in _borders(term, fixed, group, shared - set(fixed)):
            if _lowest_with(terms, {**fixed, **given}, fit, table, rule) <= bar:
                found |= names
    return tuple(name for name in fit.law.names if name in found)


def _borders(
    term: Term, fixed: Mapping[str, float], group: set[str], shared: set[str]
) -> Iterator[tuple[dict[str, float], set[str]]]:
    """Values at the border of what is possible, with the names that are open if they fit."""
    if term.scale not in fixed:
        yield {term.scale: 0.0}, group
    if term.exponent is not None and term.exponent not in fixed:
        for power in (_FLATTEST, _STEEPEST):
            yield {term.exponent: power}, group | shared


def fit_bar(fit: PowerFit, table: LossTable, rule: Rule) -> float:
    """The objective up to which a law with one parameter fewer fits as well.

    Twice its rise, times the slope over the variance of the scores, is chi-square with one
    degree of freedom for large tables; an F quantile stands in for small ones. Laws that agree
    to 1e-7 are the same law.
    """
    scores = scores_of(fit, table, rule)
    n, p = table.n, len(fit.theta)
    quantile = float(stdtrit(degrees_of_freedom(n, table.runs, p), 0.975)) ** 2
    variance = float((scores.psi**2).mean()) * n / max(n - p, 1)
    rise = quantile / 2 * variance / scores.slope
    return _plain(fit, table, rule) + max(rise, n * 0.5e-14)


def _plain(fit: PowerFit, table: LossTable, rule: Rule) -> float:
    """Sum of Huber terms at the fit, with the threshold it ended at."""
    residual = rule.residuals(fit.law.log_loss(fit.theta[None])[0], table.loss)
    psi = np.clip(residual, -fit.threshold, fit.threshold)
    return float((psi * (residual - 0.5 * psi)).sum())


def _lowest_with(
    terms: Sequence[Term],
    fixed: Mapping[str, float],
    fit: PowerFit,
    table: LossTable,
    rule: Rule,
) -> float:
    """Lowest objective with some parameters given, from the best fit and a few of the grid."""
    law = power_sum(terms, fixed)
    natural = dict(zip(fit.law.names, fit.law.natural(fit.theta), strict=True))
    here = np.array([[natural[name] for name in law.names]])
    grid = published_starts(law.names)
    few = min(len(grid), _STARTS if table.n <= _LONG else 3)
    some = np.random.default_rng(0).choice(len(grid), few, replace=False)
    start = law.inside(np.concatenate([here, grid[some]]))
    ends = descend(law, table.loss, start, threshold=fit.threshold, in_logs=rule.in_logs)
    return float(ends.objective.min())


def _confounded(terms: Sequence[Term], fixed: Mapping[str, float]) -> set[str]:
    """Names of the terms whose columns are constant or multiples of one another."""
    constants = {t.scale for t in terms if t.exponent is None and t.scale not in fixed}
    found: set[str] = set()
    open_terms = [t for t in terms if t.exponent and not {t.scale, t.exponent} & set(fixed)]
    for term in open_terms:
        if np.ptp(term.x[np.isfinite(term.x)]) < 1e-9:
            found |= {term.scale, str(term.exponent)} | constants
    for i, a in enumerate(open_terms):
        for b in open_terms[i + 1 :]:
            gap = a.x - b.x
            if a.exponent != b.exponent and np.ptp(gap[np.isfinite(gap)]) < 1e-9:
                found |= {a.scale, b.scale, str(a.exponent), str(b.exponent)}
            elif a.exponent == b.exponent and np.ptp(gap[np.isfinite(gap)]) < 1e-9:
                found |= {a.scale, b.scale}
    return found
