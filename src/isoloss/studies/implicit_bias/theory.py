"""The theory of the study: drift and brackets, as evidence, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from scipy.stats import norm

from isoloss.estimate import Estimate
from isoloss.laws.correlated import Interval
from isoloss.studies.claims import Claim, Evidence
from isoloss.studies.evidence import from_interval
from isoloss.studies.findings import Figure, FigureAxis, FindingsTable, Value
from isoloss.studies.implicit_bias.drift import DriftStudy, Limit, drift_study
from isoloss.studies.implicit_bias.dyck import DyckStudy, TraceRatio, dyck_study

LEVEL = 0.95
STILL = 0.05  # of the random minimum's slope: more movement at the flattest one fails the control
LOSSES_AGREE_NATS = 1e-9

DRIFT = "drift-has-the-predicted-slope"
RESCALED = "rescaled-drift-has-the-predicted-slope"
SHARPER = "dyck-random-features-are-sharper"
PROMISE = "dyck-flat-features-transfer"
ADVANTAGE = "dyck-flat-features-transfer-better"


class Theory(NamedTuple):
    """What was simulated and what follows.

    Attributes:
        drift: SGD along a known manifold of minima.
        dyck: flat and sharp solutions of the bracket task.
    """

    drift: DriftStudy
    dyck: DyckStudy


def theory(*, drift_runs: int, drift_rates: Sequence[float], seed: int) -> Theory:
    """Simulate the drift and count the transfer of the bracket task.

    Args:
        drift_runs: simulated for every rate and batch size; 128 take half a minute on one core.
        drift_rates: of SGD, at least two.
        seed: of everything.
    """
    return Theory(
        drift=drift_study(runs=drift_runs, rates=drift_rates, seed=seed), dyck=dyck_study(seed=seed)
    )


def theory_evidence(found: Theory, claims: Mapping[str, Claim]) -> dict[str, Evidence]:
    """Evidence for the five claims of the theory, by claim.

    Args:
        found: what was simulated.
        claims: of the study, by id.
    """
    limits = {limit.start: limit for limit in found.drift.limits}
    return {
        DRIFT: _drift(claims[DRIFT], limits["random"], limits),
        RESCALED: _drift(claims[RESCALED], limits["rescaled"], limits),
        **_dyck(found.dyck, claims),
    }


def theory_tables(found: Theory) -> tuple[FindingsTable, ...]:
    """Slopes and starts of the drift, traces and transfer of the brackets."""
    return (_slopes(found.drift), _starts(found.drift), _ratios(found.dyck))


def theory_figures(found: Theory) -> tuple[Figure, ...]:
    """Predicted and measured traces along the drift; transfer error against the promise."""
    return (_drift_figure(found.drift), _dyck_figure(found.dyck))


def theory_answers(found: Theory) -> tuple[str, ...]:
    """The theory in two sentences."""
    ratio = next(limit.ratio for limit in found.drift.limits if limit.start == "random")
    assert ratio is not None and ratio.stderr is not None
    middle = _middle(found.dyck)
    return (
        f"Where the minima are known exactly, SGD lowers the trace at {ratio.value:.3f} +- "
        f"{ratio.stderr:.3f} times the predicted rate, extrapolated to rate 0.",
        f"On brackets of length {middle.length}, solutions on random features of the same loss "
        f"are {middle.typical:.0f} times as sharp as the flattest one (geometric mean).",
    )


def _drift(claim: Claim, limit: Limit, limits: dict[str, Limit]) -> Evidence:
    still, moving = limits["flattest"].measured, limits["random"].predicted
    holds = _reach(still).inside(STILL * abs(moving))
    control = f"slope {still.value:+.2g} at the flattest minimum, {moving:+.2g} at the random one"
    if limit.ratio is None:
        return Evidence(note="no slope is predicted")
    less_one = Estimate(value=limit.ratio.value - 1, stderr=limit.ratio.stderr, n=limit.ratio.n)
    return _of(claim, less_one, holds=holds, control=control)


def _dyck(found: DyckStudy, claims: Mapping[str, Claim]) -> dict[str, Evidence]:
    middle = _middle(found)
    gap = max(r.loss_gap_nats for r in found.ratios)
    agree, told = gap < LOSSES_AGREE_NATS, f"the masked losses differ by {gap:.1g} nats"
    sharp = found.beyond_promise("random features")
    most = max(t.examples for t in found.transfer)
    return {
        SHARPER: _of(claims[SHARPER], middle.log_ratio, holds=agree, control=told),
        PROMISE: _of(
            claims[PROMISE], found.beyond_promise("flat"), holds=_reach(sharp).high < 0,
            control=f"random features: {sharp.value:+.2f} of the draws",
        ),
        ADVANTAGE: _of(claims[ADVANTAGE], found.advantage(most), holds=agree, control=told),
    }  # fmt: skip


def _of(claim: Claim, estimate: Estimate, *, holds: bool, control: str) -> Evidence:
    evidence = from_interval(claim, _reach(estimate), level=LEVEL, dof=float("inf"), n=estimate.n)
    return replace(evidence, control_holds=holds, control=control)


def _reach(estimate: Estimate) -> Interval:
    """Normal 95% interval: every one of these comes from a hundred runs and more."""
    half = float(norm.ppf((1 + LEVEL) / 2)) * (estimate.stderr or 0.0)
    return Interval(estimate.value, estimate.value - half, estimate.value + half)


def _middle(found: DyckStudy) -> TraceRatio:
    return found.ratios[len(found.ratios) // 2]


def _slopes(found: DriftStudy) -> FindingsTable:
    rows: list[tuple[Value, ...]] = [
        (
            s.start, s.rate, s.batch, s.predicted, s.measured.value, s.measured.stderr,
            s.companion.value, s.excess_nats.value, s.measured.n,
        )
        for s in found.slopes
    ]  # fmt: skip
    rows += [
        (lim.start, 0.0, None, lim.predicted, lim.measured.value, lim.measured.stderr, None, 0.0,
         lim.measured.n)
        for lim in found.limits
    ]  # fmt: skip
    return FindingsTable(
        id="drift-slopes",
        title="Drift of SGD along minima that are known exactly",
        columns=(
            "start", "rate", "batch", "slope predicted", "slope measured", "standard error",
            "slope of the scale-invariant companion", "nats above the optimum", "runs",
        ),
        rows=tuple(rows),
        note=(
            "Slopes are B times d/dt Tr H with t = rate^2 steps. Rate 0: a line in the rate for "
            "each batch size through one intercept. Predicted with the gradient projected on the "
            f"tangent space; unprojected it would be {found.overprediction:.2f} times as steep at "
            "the random minimum. From the rescaled one the function and the loss are the same."
        ),
    )  # fmt: skip


def _starts(found: DriftStudy) -> FindingsTable:
    return FindingsTable(
        id="drift-starts",
        title="The minima from which SGD starts",
        columns=("start", "Hessian trace", "scale-invariant", "weight norm", "nats above optimum"),
        rows=tuple(tuple(start) for start in found.starts),
        note="All of them are the same function: only the parameters differ.",
    )


def _ratios(found: DyckStudy) -> FindingsTable:
    return FindingsTable(
        id="dyck-traces",
        title="Brackets: traces of flat and random-feature solutions of equal loss",
        columns=(
            "length", "trace of the flat solution", "ratio (geometric mean)", "smallest ratio",
            "seeds", "difference in loss (nats)",
        ),
        rows=tuple(
            (r.length, r.flat, r.typical, r.least, r.log_ratio.n, r.loss_gap_nats)
            for r in found.ratios
        ),
        note="All traces are exact, in closed form.",
    )  # fmt: skip


def _drift_figure(found: DriftStudy) -> Figure:
    shown = [p for p in found.path if p.start != "flattest"]
    smallest = min(p.rate for p in shown)
    rows: list[dict[str, Value]] = [
        {
            "start": p.start, "series": f"rate {p.rate:g}, batch {p.batch}",
            "time": p.time_per_batch, "trace": p.measured.value,
            "low": _reach(p.measured).low, "high": _reach(p.measured).high, "layer": "runs",
        }
        for p in shown
    ]  # fmt: skip
    rows += [
        {"start": p.start, "series": "predicted", "time": p.time_per_batch, "trace": p.predicted,
         "low": None, "high": None, "layer": "fit"}
        for p in shown if p.rate == smallest and p.batch == shown[0].batch
    ]  # fmt: skip
    return Figure(
        id="drift",
        title="The trace falls along the minima as predicted",
        note=(
            "Mean over runs with its 95% interval, at the minimum nearest to each run; the line is "
            "the theorem's flow. Do not read it as a statement on networks: there the minima are "
            "unknown and weights grow."
        ),
        x=FigureAxis(column="time", title="rate^2 x steps / batch"),
        y=FigureAxis(column="trace", title="trace of the Hessian"),
        by="series", panel="start", low="low", high="high", rows=tuple(rows),
    )  # fmt: skip


def _dyck_figure(found: DyckStudy) -> Figure:
    rows: list[dict[str, Value]] = [
        {
            "solution": t.solution, "length": f"length {t.length}", "examples": t.examples,
            "failed": 1 - t.share, "low": 1 - t.high, "high": 1 - t.low, "layer": "draws",
        }
        for t in found.transfer
    ]  # fmt: skip
    rows += [
        {"solution": "promised", "length": f"length {t.length}", "examples": t.examples,
         "failed": 1 - t.promised, "low": None, "high": None, "layer": "fit"}
        for t in found.transfer if t.solution == "flat"
    ]  # fmt: skip
    draws = found.transfer[0].draws
    return Figure(
        id="dyck-transfer",
        title="Brackets: how often a head fitted to n strings errs somewhere",
        note=(
            f"Share of {draws} draws with any error on all strings, exact 95% intervals; the line "
            "is 2^-n. Encodings and label are ours: those of the paper are not known."
        ),
        x=FigureAxis(column="examples", title="labelled strings n"),
        y=FigureAxis(column="failed", title="draws that are not solved"),
        by="solution", panel="length", low="low", high="high", rows=tuple(rows),
    )  # fmt: skip
