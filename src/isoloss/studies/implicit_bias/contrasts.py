"""The interventions of the study, and which of them each claim is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from isoloss.studies.claims import Claim, Evidence
from isoloss.studies.evidence import over_runs
from isoloss.studies.implicit_bias.correlation import PartialCorrelation
from isoloss.studies.implicit_bias.families import CAUSAL, HMM, LM, PCFG, Size
from isoloss.studies.implicit_bias.models import (
    ADAMW,
    LOOKUP,
    Contrast,
    Floats,
    Trained,
    contrast,
    lookup_contrast,
    over_seeds,
    wide_adamw,
)

CONTINUED, WIDER, SGD_ARM, ADVERSARY = "continued training", "size", "sgd", "adversary"
FLATTER = "flatter-models-transfer-better"

_ABOUT = {
    "continued-training-flattens": (CONTINUED, "trace"),
    "continued-training-transfers": (CONTINUED, "ability"),
    "size-flattens": (WIDER, "trace"),
    "size-transfers": (WIDER, "ability"),
    "adversary-sharpens": (ADVERSARY, "trace"),
    "adversary-hurts-transfer": (ADVERSARY, "ability"),
    "lookup-table-transfers-less": (LOOKUP, "ability"),
}
"""What a claim is about, by its name without the language."""


class Contrasts(NamedTuple):
    """All comparisons of the study.

    Attributes:
        every: in the order of the table.
        chosen: of each language and intervention the one that its claims are judged by.
        outside: interventions none of whose variants keeps the loss inside the band, by language
            and intervention, in words.
    """

    every: tuple[Contrast, ...]
    chosen: Mapping[tuple[str, str], Contrast]
    outside: Mapping[tuple[str, str], str]


def all_contrasts(models: Sequence[Trained], size: Size, lookup: Mapping[str, float]) -> Contrasts:
    """Compare what the interventions compare, on every language that was trained.

    Where an intervention has several strengths (how much longer, which weight of the adversary)
    its claims are judged at the largest one that keeps the loss inside the band: chosen by the
    loss alone, never by the ability.

    Args:
        models: at the end of their schedule.
        size: of the study.
        lookup: accuracy of the probe on the true conditionals, by language.
    """
    every: list[Contrast] = []
    chosen: dict[tuple[str, str], Contrast] = {}
    outside: dict[tuple[str, str], str] = {}
    for language in (HMM, PCFG, CAUSAL, LM):
        if not any(m.language == language for m in models):
            continue
        variants = {
            CONTINUED: _continued(models, language, size),
            WIDER: [_wider(models, language, size)],
            SGD_ARM: [_algorithm(models, language, size, SGD_ARM, "sgd", size.steps)],
            # from the largest weight down
            ADVERSARY: [
                _algorithm(
                    models, language, size, ADVERSARY, f"adversarial {weight:g}", size.early[-1]
                )
                for weight in sorted(size.weights, reverse=True)
            ],
        }
        if language in lookup:
            trained = wide_adamw(size.wide, size.steps)
            variants[LOOKUP] = [lookup_contrast(models, language, lookup[language], before=trained)]
        for intervention, found in variants.items():
            present = [c for c in found if len(c.loss)]
            every += present
            inside = next((c for c in present if c.equal_loss), None)
            if inside is not None:
                chosen[language, intervention] = inside
            elif present:
                chosen[language, intervention] = present[-1]
                outside[language, intervention] = "no strength of it keeps the loss in the band"
    return Contrasts(tuple(every), chosen, outside)


def contrast_evidence(
    found: Contrasts, claims: Mapping[str, Claim], *, seed: int
) -> dict[str, Evidence]:
    """Evidence for the claims on interventions, by claim; those without models are left out."""
    evidence = {}
    for language in (HMM, PCFG):
        for name, (intervention, quantity) in _ABOUT.items():
            claim = claims.get(f"{language}-{name}")
            compared = found.chosen.get((language, intervention))
            if claim is not None and compared is not None:
                evidence[claim.id] = _evidence(claim, compared, quantity, seed)
    return evidence


def correlation_evidence(found: PartialCorrelation) -> Evidence:
    """Evidence for the claim that flatter models transfer better."""
    if found.reason:
        return Evidence(n=found.n, note=found.reason)
    told = ", ".join(f"{name} {value:+.2f}" for name, value in found.without.items())
    return Evidence(
        estimate=found.value, low=found.low, high=found.high, n=found.n, p_value=found.p_value,
        smallest_p=found.smallest_p, control_holds=found.keeps_sign, control=f"without {told}",
    )  # fmt: skip


def group_of(model: Trained, size: Size) -> str:
    """The intervention that a masked model of the hmm belongs to."""
    if model.arm != ADAMW:
        return "algorithm"
    return WIDER if model.width == size.narrow else CONTINUED


def _evidence(claim: Claim, compared: Contrast, quantity: str, seed: int) -> Evidence:
    values: Floats = getattr(compared, quantity)
    loss = over_seeds(compared.loss)
    control = f"loss {loss.value:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}] nats"
    note = compared.compared
    if quantity == "trace":
        companion = over_seeds(compared.companion)
        note += (
            f"; scale-invariant companion {companion.value:+.2f} "
            f"[{companion.low:+.2f}, {companion.high:+.2f}] log units"
        )
    evidence = over_runs(claim, values, seed=seed)
    return replace(evidence, control_holds=compared.equal_loss, control=control, note=note)


def _continued(models: Sequence[Trained], language: str, size: Size) -> list[Contrast]:
    """Longest span first."""
    return [
        contrast(
            models,
            language,
            CONTINUED,
            before=wide_adamw(size.wide, early),
            after=wide_adamw(size.wide, size.steps),
            compared=f"{size.steps:,} less {early:,} steps, width {size.wide}",
        )
        for early in size.early
    ]


def _wider(models: Sequence[Trained], language: str, size: Size) -> Contrast:
    return contrast(
        models,
        language,
        WIDER,
        before=lambda m: (m.arm, m.width, m.steps) == (ADAMW, size.narrow, size.steps),
        after=wide_adamw(size.wide, size.steps),
        compared=f"width {size.wide} less {size.narrow}, {size.steps:,} steps",
    )


def _algorithm(
    models: Sequence[Trained], language: str, size: Size, intervention: str, arm: str, steps: int
) -> Contrast:
    return contrast(
        models,
        language,
        intervention,
        before=wide_adamw(size.wide, steps),
        after=lambda m: (m.arm, m.steps) == (arm, steps),
        compared=f"{arm} less AdamW, width {size.wide}, {steps:,} steps",
    )
