"""What the study of implicit bias found: every claim judged, its tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from isoloss.estimate import Estimate
from isoloss.store.store import Store
from isoloss.studies.claims import holm, judge, load_claims, not_run
from isoloss.studies.findings import Finding, Findings
from isoloss.studies.implicit_bias.constant_rate import (
    constant_rate,
    constant_rate_answer,
    constant_rate_table,
)
from isoloss.studies.implicit_bias.contrasts import (
    FLATTER,
    Contrasts,
    all_contrasts,
    contrast_evidence,
    correlation_evidence,
    group_of,
)
from isoloss.studies.implicit_bias.correlation import PartialCorrelation, partial_correlation
from isoloss.studies.implicit_bias.families import HMM, Size
from isoloss.studies.implicit_bias.figures import (
    correlation_table,
    equal_figure,
    inside_band,
    intervention_table,
    lookup_rows,
    model_table,
    training_figures,
)
from isoloss.studies.implicit_bias.models import (
    Trained,
    over_seeds,
    trained_models,
)
from isoloss.studies.implicit_bias.theory import (
    Theory,
    theory_answers,
    theory_evidence,
    theory_figures,
    theory_tables,
)

STUDY = "implicit-bias"
SEED = 0


def implicit_bias_findings(
    stores: Sequence[Store],
    size: Size,
    theory: Theory,
    lookup: Mapping[str, Estimate],
    *,
    scale: str,
    command: str,
    left_out: Sequence[str] = (),
) -> Findings:
    """Judge every claim of the study.

    Args:
        stores: of the study, one a language.
        size: of its scale.
        theory: what was simulated.
        lookup: accuracy of the probe on the true conditionals, by language.
        scale: its name.
        command: what makes the same again.
        left_out: what was not run, and why.

    Returns:
        Claims, tables and figures.
    """
    models = trained_models(stores, narrow=size.narrow, wide=size.wide)
    found = all_contrasts(models, size, {name: e.value for name, e in lookup.items()})
    trace, loss = _correlations(inside_band(models, HMM), size)
    claims = _judged(found, theory, trace)
    steady = constant_rate(stores, size)
    figures = (equal_figure(models), *training_figures(stores), *theory_figures(theory))
    return Findings(
        study=STUDY,
        title="What the loss hides: flatness and transfer among models of equal loss",
        scale=scale,
        command=command,
        answers=(
            *_answers(found, claims, trace),
            *([] if steady is None else [constant_rate_answer(steady)]),
            *theory_answers(theory),
        ),
        claims=claims,
        tables=(
            intervention_table(found.every),
            model_table(models),
            correlation_table(trace, loss),
            *([] if steady is None else [constant_rate_table(steady)]),
            lookup_rows(dict(lookup)),
            *theory_tables(theory),
        ),
        figures=tuple(figure for figure in figures if figure.rows),
        facts={
            "seeds of pre-training": size.seeds,
            "of causal families and SGD": size.other_seeds,
            "seed of everything else": SEED,
            "models at the end of their schedule": len(models),
            "runs simulated for each drift": size.drift_runs,
            "labelled sentences": size.examples,
        },
        not_run=tuple(left_out),
    )


def _judged(found: Contrasts, theory: Theory, trace: PartialCorrelation) -> tuple[Finding, ...]:
    claims = {claim.id: claim for claim in load_claims(STUDY)}
    evidence = {
        **theory_evidence(theory, claims),
        **contrast_evidence(found, claims, seed=SEED),
        FLATTER: correlation_evidence(trace),
    }
    return holm(
        [
            judge(claim, evidence[name])
            if name in evidence
            else not_run(claim, "no models of this comparison were trained")
            for name, claim in claims.items()
        ]
    )


def _correlations(
    models: Sequence[Trained], size: Size
) -> tuple[PartialCorrelation, PartialCorrelation]:
    """Of ability with the log of the trace, and with the loss."""
    ability = [m.ability.value if m.ability else math.nan for m in models]
    given = np.log([[m.width, m.steps] for m in models]).reshape(len(models), 2)
    groups = [group_of(m, size) for m in models]
    columns = [math.log(m.trace.value) for m in models], [m.distance.value for m in models]
    one, other = (
        partial_correlation(ability, column, given, groups, seed=SEED) for column in columns
    )
    return one, other


def _answers(
    found: Contrasts, claims: Sequence[Finding], trace: PartialCorrelation
) -> Sequence[str]:
    verdicts = {claim.claim: claim.verdict for claim in claims}
    decided = [name for name, v in verdicts.items() if v in ("confirmed", "contradicted")]
    told = [
        f"{len(decided)} of {len(verdicts)} claims are decided; "
        f"{sum(verdicts[name] == 'contradicted' for name in decided)} of them against the paper."
    ]
    for (language, intervention), one in found.chosen.items():
        loss, ability, flat = (over_seeds(x) for x in (one.loss, one.ability, one.trace))
        where = "at equal loss" if one.equal_loss else "not at equal loss"
        changes = []
        if math.isfinite(flat.value):
            changes.append(f"the Fisher trace changes by a factor of {math.exp(flat.value):.2f}")
        if math.isfinite(ability.value):
            changes.append(
                f"the ability by {ability.value:+.1f} points "
                f"[{ability.low:+.1f}, {ability.high:+.1f}]"
            )
        told.append(
            f"{language}, {intervention} ({one.compared}), {where} ({loss.value:+.4f} nats): "
            f"{', '.join(changes) or 'nothing else was measured'}."
        )
    told.append(_on_flatness(trace, verdicts.get(FLATTER, "not run")))
    return told


def _on_flatness(trace: PartialCorrelation, verdict: str) -> str:
    if trace.reason:
        return f"Whether flatter models transfer better is not estimated: {trace.reason}."
    return (
        f"Among {trace.n} masked hmm models of equal loss the partial correlation of ability with "
        f"the log of the trace is {trace.value:+.2f} [{trace.low:+.2f}, {trace.high:+.2f}]: "
        f"{verdict}."
    )
