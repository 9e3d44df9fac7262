"""Every model of the study at the end of its schedule, and what one intervention changes.

An intervention compares two models of each seed: they read the same sentences in the same order.
The run is the unit: an interval is over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.estimate import Estimate
from isoloss.laws.correlated import Interval, mean_interval
from isoloss.store.store import Store
from isoloss.studies.flatness.loss_pairs import BAND_NATS, DISTANCE, OPTIMUM_PROBE
from isoloss.studies.flatness.traced import COMPANION, WEIGHT_NORM
from isoloss.studies.implicit_bias.families import (
    ADVERSARIAL,
    CAUSAL,
    HMM,
    LM,
    PCFG,
    SGD,
    WIDENED,
)

Floats = NDArray[np.float64]

LANGUAGES = (HMM, PCFG, CAUSAL, LM)
TRACE, ABILITY_PROBE, ABILITY = "fisher_trace", "transfer", "accuracy"
LOOKUP = "lookup table"
ADAMW = "adamw"
DRAWS = 1_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model at the end of its schedule.

    Attributes:
        language: ``hmm``, ``pcfg``, ``hmm-causal`` or ``lm``.
        arm: ``adamw``, ``sgd``, or ``adversarial`` with its weight.
        run: its name in the family.
        width: of the architecture.
        steps: optimizer steps.
        seed: of pre-training.
        distance: nats above the exact optimum.
        trace: Fisher trace, of narrow models embedded in the wide architecture.
        companion: of the same parameters.
        weight_norm: of the model's own parameters.
        ability: accuracy of the linear probe; None where it was not measured.
    """

    language: str
    arm: str
    run: str
    width: int
    steps: int
    seed: int
    distance: Estimate
    trace: Estimate
    companion: Estimate | None
    weight_norm: float
    ability: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What an intervention changes at equal loss, one difference a seed.

    Attributes:
        language: on which.
        intervention: its name.
        compared: the two sides in words.
        loss: nats, float64 (seeds,).
        trace: natural logs, float64 (seeds,); NaN where a side has no trace.
        companion: natural logs, float64 (seeds,).
        ability: points, float64 (seeds,).
        band_nats: of the loss.
    """

    language: str
    intervention: str
    compared: str
    loss: Floats
    trace: Floats
    companion: Floats
    ability: Floats
    band_nats: float = BAND_NATS

    @property
    def equal_loss(self) -> bool:
        """Whether the 95% interval of the difference in loss lies inside the band."""
        return over_seeds(self.loss).inside(self.band_nats)


Choice = Callable[[Trained], bool]


def over_seeds(values: Floats) -> Interval:
    """Mean difference with its 95% interval over seeds; the ends are NaN below two of them."""
    known = values[np.isfinite(values)]
    rng = np.random.default_rng(len(known))
    return mean_interval(known, confidence=0.95, draws=DRAWS, rng=rng)


def trained_models(stores: Sequence[Store], *, narrow: int, wide: int) -> tuple[Trained, ...]:
    """All models at the end of their schedule whose trace is known.

    Args:
        stores: of the study, one a language.
        narrow: width of the small models, whose trace is that of their widened copy.
        wide: width of the large ones.

    Returns:
        By language, arm, width, steps and seed.
    """
    rows = pl.concat(
        [s.measurements().filter(pl.col("schedule_progress") == 1.0).collect() for s in stores]
    )
    numbers: dict[tuple[str, str, int], dict[str, Estimate]] = {}
    facts: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for row in rows.iter_rows(named=True):
        key = row["family"], row["run"], row["step"]
        facts[key] = row
        numbers.setdefault(key, {})[_name(row)] = Estimate(
            value=row["value"], stderr=row["stderr"], n=row["n"] or 0
        )
    models = []
    for key, known in facts.items():
        family, run, step = key
        if family.endswith(WIDENED):
            continue
        width = wide if f"-w{wide}" in known["model"] else narrow
        flat = numbers[key] if width == wide else numbers.get((family + WIDENED, run, step), {})
        if TRACE not in flat or DISTANCE not in numbers[key]:
            continue
        models.append(
            Trained(
                language=_language(family), arm=_arm(family), run=run, width=width, steps=step,
                seed=known["seed"], distance=numbers[key][DISTANCE], trace=flat[TRACE],
                companion=flat.get(TRACE + COMPANION), ability=numbers[key].get(ABILITY),
                weight_norm=numbers[key][WEIGHT_NORM].value,
            )
        )  # fmt: skip
    return tuple(sorted(models, key=lambda m: (m.language, m.arm, m.width, m.steps, m.seed)))


def contrast(
    models: Sequence[Trained],
    language: str,
    intervention: str,
    *,
    before: Choice,
    after: Choice,
    compared: str,
) -> Contrast:
    """The differences that an intervention makes, seed by seed.

    Args:
        models: of the study.
        language: whose.
        intervention: its name.
        before: picks one model a seed.
        after: picks the one it is compared with.
        compared: both in words.

    Returns:
        Differences of the seeds that have both.
    """
    sides = [
        {m.seed: m for m in models if m.language == language and choose(m)}
        for choose in (before, after)
    ]
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]]
    return Contrast(
        language=language,
        intervention=intervention,
        compared=compared,
        loss=_array(b.distance.value - a.distance.value for a, b in pairs),
        trace=_array(_log(b.trace) - _log(a.trace) for a, b in pairs),
        companion=_array(_log(b.companion) - _log(a.companion) for a, b in pairs),
        ability=_array(_points(b.ability) - _points(a.ability) for a, b in pairs),
    )


def lookup_contrast(
    models: Sequence[Trained], language: str, accuracy: float, *, before: Choice
) -> Contrast:
    """The lookup table against trained models: loss optimal by construction, nothing to train.

    Args:
        models: of the study.
        language: whose.
        accuracy: of a linear probe on the true conditionals.
        before: picks one model a seed.
    """
    chosen = [m for m in models if m.language == language and before(m)]
    nothing = np.full(len(chosen), np.nan)
    return Contrast(
        language=language,
        intervention=LOOKUP,
        compared="true conditionals less wide AdamW model",
        loss=_array(-m.distance.value for m in chosen),
        trace=nothing,
        companion=nothing,
        ability=_array(100 * accuracy - _points(m.ability) for m in chosen),
    )


def wide_adamw(wide: int, steps: int) -> Choice:
    """Picks the wide AdamW model of so many steps."""
    return lambda m: (m.arm, m.width, m.steps) == (ADAMW, wide, steps)


def _name(row: Mapping[str, Any]) -> str:
    """A metric's name; of a task's score only that of the ability probe counts."""
    metric = str(row["metric"])
    if metric == DISTANCE:
        return metric if row["probe"] == OPTIMUM_PROBE else f"{row['probe']} {metric}"
    if metric == ABILITY:
        return metric if row["probe"] == ABILITY_PROBE else f"{row['probe']} {metric}"
    return metric


def _language(family: str) -> str:
    return family if family in LANGUAGES else HMM


def _arm(family: str) -> str:
    if family == SGD:
        return "sgd"
    if family.startswith(ADVERSARIAL):
        return f"adversarial {family.removeprefix(ADVERSARIAL)}"
    return ADAMW


def _log(estimate: Estimate | None) -> float:
    return math.log(estimate.value) if estimate is not None and estimate.value > 0 else math.nan


def _points(estimate: Estimate | None) -> float:
    return math.nan if estimate is None else 100 * estimate.value


def _array(values: Any) -> Floats:
    return np.array(list(values), dtype=np.float64)
