"""The loss of a language model from its size and its tokens, with the uncertainty of the law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from isoloss.errors import Refused
from isoloss.laws.batched_newton import Floats
from isoloss.laws.fit_interval import (
    BY_DEFAULT,
    Interval,
    Known,
    first_order,
    middle_share,
    resampled,
)
from isoloss.laws.loss_forms import Form, check_names, check_rows, law_terms, log_slopes, losses
from isoloss.laws.loss_table import LossTable, loss_table
from isoloss.laws.open_parameters import unidentified
from isoloss.laws.power_fit import SCALES, Objective, PowerFit, Rule, best_fit
from isoloss.laws.power_terms import power_sum
from isoloss.laws.schedule_gain import (
    SCHEDULE_POWER,
    ScheduleGain,
    schedule_gain,
    schedule_term,
)
from isoloss.shown import Shown


class OverTraining(NamedTuple):
    """Coefficients of Gadre et al.'s Eq. 4, ``L = E + (a M^eta + b M^-eta) C^-eta``, M = D/N."""

    E: float
    a: float
    b: float
    eta: float


class Allocation(NamedTuple):
    """Parameters and tokens that give the lowest loss for some compute."""

    params: float
    tokens: float


class LossInterval(NamedTuple):
    """A predicted loss, nats per token: the law itself, without the scatter of runs."""

    loss: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LossLaw(Shown):
    """``L = E + A / N^alpha + B / D^beta`` in nats per token, and how well it is known.

    Attributes:
        E: loss that no size and no data removes.
        A: of the size term; of the compute term in the form "compute".
        B: of the data term; None where the form has none.
        alpha: exponent of the size (or compute) term.
        beta: exponent of the data term; equal to alpha in the form "overtraining".
        S: loss that a finished schedule would take off at its start; None without such a term.
        objective: what was minimised, at the fit; a sum over rows.
        n: rows fitted.
        runs: training runs among them.
        ci: interval of each fitted parameter; None where the data leave it open.
        ci_kind: "bootstrap" or "delta", and "none" where none was asked for.
        level: coverage the intervals aim at.
        unidentified: parameters the data cannot tell from others or from nothing.
        notes: what was left out or could not be told, in words.
        form: which terms there are.
        rule: the objective's kind.
        fixed: parameters that were given.
        starts: how many starting points were tried; ``agreeing`` ended at the lowest objective.
        agreeing: within one part in a million.
        residuals: ln(observed / law) of every row fitted.
        scatter: standard deviation of ``residuals``, n - parameters in the denominator.
        compute_range: 6 N D of the rows, least and most.
        loss_range: nats, least and most.
        gain: of the term of the schedule on held-out rows, where there is one.
        sample: natural parameters (logs of the scales) under resampling, (draws, parameters).
        sample_names: their order.
    """

    E: float
    A: float
    B: float | None
    alpha: float
    beta: float | None
    S: float | None = None
    objective: float
    n: int
    runs: int
    ci: Mapping[str, tuple[float, float] | None]
    ci_kind: str
    level: float
    unidentified: tuple[str, ...]
    notes: tuple[str, ...]
    form: Form
    rule: Objective
    fixed: Mapping[str, float]
    starts: int
    agreeing: int
    residuals: Floats = field(repr=False)
    scatter: float
    compute_range: tuple[float, float]
    loss_range: tuple[float, float]
    gain: ScheduleGain | None = None
    sample: Floats = field(repr=False)
    sample_names: tuple[str, ...] = field(repr=False)

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Loss of finished runs, nats per token, by broadcasting."""
        return np.asarray(losses(self.form, self._point(), params, tokens)[0])

    def draws(self, params: ArrayLike, tokens: ArrayLike) -> Floats:
        """Loss under every draw of the parameters, (draws, points).

        Draws of a first-order interval move the log loss to first order, as its variance does.
        """
        drawn = dict(zip(self.sample_names, self.sample.T, strict=True))
        here = self._point()
        if self.ci_kind == "delta":
            slopes = log_slopes(self.form, here, params, tokens)
            moved = sum(
                np.multiply.outer(drawn[name] - here[name], slope)
                for name, slope in slopes.items()
                if name in drawn
            )
            with np.errstate(over="ignore"):
                return np.asarray(self.predict(params, tokens) * np.exp(moved))
        if self.form == "overtraining" and "alpha" in drawn:
            drawn["beta"] = drawn["alpha"]
        return losses(self.form, {**here, **drawn}, params, tokens)

    def interval(self, params: ArrayLike, tokens: ArrayLike) -> LossInterval:
        """The law with the interval its parameters give it; new runs scatter more."""
        low, high = middle_share(self.draws(params, tokens), self.level)
        return LossInterval(loss=self.predict(params, tokens), low=low, high=high)

    def overtraining(self) -> OverTraining:
        """The same law in Gadre et al.'s coefficients, C = 6 N D.

        Raises:
            Refused: the exponents differ.
        """
        if self.form != "overtraining" or self.B is None:
            raise Refused(
                "only equal exponents give the over-training form",
                asked=f"a law of the form {self.form!r}",
                remedy="fit with form='overtraining'",
            )
        eta = self.alpha / 2
        return OverTraining(E=self.E, a=self.A * 6**eta, b=self.B * 6**eta, eta=eta)

    def optimal(self, compute: float) -> Allocation:
        """Parameters and tokens of the lowest loss at ``compute`` = 6 N D operations.

        Reference:
            Hoffmann et al. (2022), arXiv:2203.15556, Eq. 4.

        Raises:
            Refused: the form has no term of the tokens.
        """
        if self.B is None or self.beta is None:
            raise Refused(
                "without a term of the tokens nothing is traded against parameters",
                asked=f"a law of the form {self.form!r}",
                remedy="fit with form='chinchilla'",
            )
        total = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        params = balance * (compute / 6) ** (self.beta / total)
        return Allocation(params=params, tokens=compute / 6 / params)

    def _point(self) -> dict[str, Floats]:
        """Natural parameters of the law itself, each as an array of one draw."""
        named = {name: getattr(self, name) for name in ("E", "A", "B", "alpha", "beta")}
        with np.errstate(divide="ignore"):
            return {
                name: np.log([x]) if name in SCALES else np.array([x])
                for name, x in named.items()
                if x is not None
            }


def fit_loss_law(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    form: Form = "chinchilla",
    fixed: Mapping[str, float] | None = None,
    rule: Objective | Rule = "huber",
    run: ArrayLike | None = None,
    schedule_progress: ArrayLike | None = None,
    unfinished: Literal["leave out", "term"] = "leave out",
    interval: Interval | None = BY_DEFAULT,
    seed: int = 0,
) -> LossLaw:
    """Fit ``L = E + A / N^alpha + B / D^beta`` and say how well each parameter is known.

    All starts of the published grid, and all resampled tables, are run as one batch of Newton
    steps with exact derivatives. The minimum is often flat in (A, B): compare objectives, not
    coefficients. Only finished schedules enter unless unfinished ones are asked for.

    Args:
        params: N, (n,); total or non-embedding, but the same for all.
        tokens: D, tokens seen, (n,).
        loss: nats per token on one corpus with one tokenizer, (n,).
        form: "chinchilla"; "overtraining" (equal exponents, Gadre et al.); "compute"
            (``E + A / (6 N D)^alpha``); "params" (L(N) at one fixed D).
        fixed: parameters that are given, such as ``{"B": 410.7, "beta": 0.28, "E": 1.69}``.
        rule: the objective: "huber" (1e-3, of log residuals, summed), "huber_scale" (its density
            with a free scale), "log_squares", "squares" (of nats), or a ``Rule``.
        run: label of the training run of each row, the unit of resampling; None where every row
            is a run of its own.
        schedule_progress: share of the learning-rate schedule that is done, (n,); None where
            every schedule is finished.
        unfinished: rows before the end of their schedule are left out, or enter with a term
            ``S (1 - progress)`` whose gain on held-out runs is measured.
        interval: kind, level and number of draws; None for none.
        seed: of the draws; the same call gives the same bits.

    Returns:
        The law. Where the tokens of all rows are equal, the form becomes "params" and a note
        says so: B / D^beta is then part of E.

    Raises:
        BadRequest: an unknown form, rule or fixed parameter, or columns of unequal length.
        BadData: a loss, a size or a number of tokens that is not positive.
        Refused: fewer rows than parameters, one model only, or equal losses.

    Reference:
        Hoffmann et al. (2022), arXiv:2203.15556, Eq. 10 and appendix D.3; Besiroglu et al.
        (2024), arXiv:2404.10102; Gadre et al. (2024), arXiv:2403.08540, Eq. 4; Godey et al.
        (2024), arXiv:2404.07647, section 3, for the fit of A and alpha alone.

    >>> import numpy as np
    >>> n, d = (x.ravel() for x in np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
    >>> law = fit_loss_law(n, d, 1.7 + 400 / n**0.34 + 410 / d**0.28, interval=None)
    >>> round(law.E, 6), round(law.alpha, 6), law.unidentified
    (1.7, 0.34, ())
    """
    how = rule if isinstance(rule, Rule) else Rule(kind=rule)
    given = dict(fixed or {})
    check_names(form, given, how)
    table = loss_table(
        params,
        tokens,
        loss,
        run=run,
        schedule_progress=schedule_progress,
        keep_unfinished=unfinished == "term",
    )
    notes = list(table.notes)
    if form == "chinchilla" and not given and np.ptp(table.tokens) == 0:
        form = "params"
        notes.append(
            f"all rows saw {table.tokens[0]:g} tokens: the law is L(N) at that budget, "
            "its E holds the term of the data"
        )
    terms = law_terms(form, table)
    if table.unfinished.any():
        terms.append(schedule_term(table))
    held = {**given, **SCHEDULE_POWER}
    check_rows(table, len(power_sum(terms, held).names))
    fit = best_fit(terms, held, table.loss, how, seed=seed)
    open_ones = unidentified(terms, held, fit, table, how)
    if open_ones:
        notes.append(f"the data leave open: {', '.join(open_ones)}; no interval is given for them")
    found = _Found(
        fit=fit,
        table=table,
        form=form,
        rule=how,
        fixed=given,
        unidentified=open_ones,
        notes=tuple(notes),
        gain=schedule_gain(terms, held, fit, table, how) if table.unfinished.any() else None,
    )
    return _law(found, interval, seed)


class _Found(NamedTuple):
    """All but the intervals."""

    fit: PowerFit
    table: LossTable
    form: Form
    rule: Rule
    fixed: Mapping[str, float]
    unidentified: tuple[str, ...]
    notes: tuple[str, ...]
    gain: ScheduleGain | None


def _law(found: _Found, asked: Interval | None, seed: int) -> LossLaw:
    """The named result."""
    fit, table, notes = found.fit, found.table, list(found.notes)
    values = {**found.fixed, **fit.values}
    names = fit.law.names
    centre = fit.law.natural(fit.theta)
    known, kind = Known(centre[None], centre, centre, 0), "none"
    if asked is not None:
        kind = asked.resolved(table.n, table.runs, huber=found.rule.kind.startswith("huber"))
        known = (resampled if kind == "bootstrap" else first_order)(
            fit, table, found.rule, asked, seed
        )
        if known.failed:
            notes.append(f"{known.failed} resampled tables gave no fit and are left out")
    log_residuals = np.log(table.loss) - fit.law.log_loss(fit.theta[None])[0]
    compute = 6 * table.params * table.tokens
    return LossLaw(
        E=values["E"],
        A=values["A"],
        B=values.get("B"),
        alpha=values["alpha"],
        beta=values["alpha"] if found.form == "overtraining" else values.get("beta"),
        S=values.get("S"),
        objective=fit.objective,
        n=table.n,
        runs=table.runs,
        ci={} if asked is None else _intervals(names, known, found.unidentified),
        ci_kind=kind,
        level=asked.level if asked else float("nan"),
        unidentified=found.unidentified,
        notes=tuple(notes),
        form=found.form,
        rule=found.rule.kind,
        fixed=found.fixed,
        starts=fit.starts,
        agreeing=fit.agreeing,
        residuals=log_residuals,
        scatter=float(np.sqrt((log_residuals**2).sum() / max(table.n - len(names), 1))),
        compute_range=(float(compute.min()), float(compute.max())),
        loss_range=(float(table.loss.min()), float(table.loss.max())),
        gain=found.gain,
        sample=known.sample,
        sample_names=names,
    )


def _intervals(
    names: tuple[str, ...], known: Known, open_ones: tuple[str, ...]
) -> dict[str, tuple[float, float] | None]:
    """By parameter; None where the data leave it open."""
    ci: dict[str, tuple[float, float] | None] = {}
    for i, name in enumerate(names):
        pair = np.array([known.low[i], known.high[i]])
        # an open scale may be unbounded
        with np.errstate(over="ignore"):
            low, high = np.exp(pair) if name in SCALES else pair
        ci[name] = None if name in open_ones else (float(low), float(high))
    return ci
