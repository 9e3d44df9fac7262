"""What a recipe would train: runs, tokens, FLOPs and time, before anything is written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from isoloss.models.parameters import training_flops
from isoloss.studies.recipe import Order, Part, Recipe

if TYPE_CHECKING:
    from isoloss.pretrain.family_file import FamilyConfig
    from isoloss.pretrain.objectives import Codes

SECONDS_A_TOKEN, SECONDS_A_PARAMETER = 8e-6, 2.0e-10
"""Of one CPU core: a fixed cost of a token, and what a parameter adds to it.

Fitted to small Llamas of 2 layers in batches of 64 sentences of 16 words: 140,000 tokens a second
at width 8, 60,000 at width 32, on a busy machine."""

GPU_FLOPS = 1.25e14
"""FLOP a second of one A100 at 40% of its 312 TFLOP/s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        part: of the recipe.
        family: its file.
        run: its name.
        params_total: embeddings included.
        tokens: that it reads.
        flops: 6 N D.
        checkpoints: that are kept.
        hours: of one core, or of one GPU where the scale is only planned.
    """

    part: str
    family: str
    run: str
    params_total: int
    tokens: int
    flops: float
    checkpoints: int
    hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipePlan:
    """What a recipe would train.

    Attributes:
        study: its name.
        scale: of it.
        runs: in the order of training.
        device: what the hours are of.
        advice: where to run it; None where it runs here.
    """

    study: str
    scale: str
    runs: tuple[PlannedRun, ...]
    device: str
    advice: str | None

    def rows(self) -> list[dict[str, Any]]:
        """A table of the runs."""
        return [
            {
                "family": f"{run.part}/{run.family}".lstrip("/"),
                "run": run.run,
                "params": run.params_total,
                "tokens": run.tokens,
                "FLOPs": run.flops,
                "checkpoints": run.checkpoints,
                "hours": round(run.hours, 4),
            }
            for run in self.runs
        ]

    def lines(self) -> list[str]:
        """The sums in words."""
        return told_sums(self.runs, self.device) + ([self.advice] if self.advice else [])

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def told_sums(runs: Sequence[PlannedRun], device: str) -> list[str]:
    """The sums of planned runs in words.

    Args:
        runs: the runs.
        device: what their hours are of.
    """
    hours = sum(run.hours for run in runs)
    time = f"{hours:,.0f} hours" if hours > 10 else f"{60 * hours:,.1f} minutes"
    return [
        f"{len(runs)} runs, {sum(run.checkpoints for run in runs):,} checkpoints, "
        f"{sum(run.tokens for run in runs):,} tokens, {sum(run.flops for run in runs):.3g} FLOPs",
        f"training: about {time} of {device}",
    ]


def plan_recipe(recipe: Recipe, order: Order) -> RecipePlan:
    """What a recipe would train; nothing is written."""
    parts, advice = recipe.parts(order), recipe.advice(order)
    return RecipePlan(
        study=recipe.name,
        scale=order.scale,
        runs=planned_runs(parts, on_gpu=advice is not None),
        device="one A100 at 40% of its peak" if advice else "one CPU core",
        advice=advice,
    )


def planned_runs(parts: Sequence[Part], *, on_gpu: bool) -> tuple[PlannedRun, ...]:
    """The runs of all families of a recipe.

    Args:
        parts: of the recipe.
        on_gpu: whether the hours are those of a GPU.
    """
    return tuple(
        run
        for part in parts
        for name, text in part.families.items()
        for run in _family(part.name, name, text, on_gpu)
    )


class _Reading(NamedTuple):
    """What of a text decides a model's size; its tokenizer is not trained yet."""

    vocabulary: int
    length: int
    codes: Codes
    tokens_per_sequence: float


def _family(part: str, name: str, text: str, on_gpu: bool) -> list[PlannedRun]:
    from isoloss.config import check
    from isoloss.pretrain.family_file import FamilyConfig

    config = check(tomllib.loads(text), FamilyConfig, text=text, source=f"{name}.toml")
    return family_runs(config, folder=Path(), part=part, name=name, on_gpu=on_gpu)


def family_runs(
    config: FamilyConfig, *, folder: Path, part: str = "", name: str, on_gpu: bool = False
) -> list[PlannedRun]:
    """The runs of one family; no text is read and nothing is written.

    Args:
        config: the family.
        folder: what paths in it are relative to.
        part: of a recipe.
        name: of the family's file.
        on_gpu: whether the hours are those of a GPU.
    """
    from isoloss.pretrain.architectures import count_parameters, model_config
    from isoloss.pretrain.language_config import TextConfig
    from isoloss.pretrain.languages import make_material

    language = config.language
    material: Any = (
        _unread(language.vocab, language.length)
        if isinstance(language, TextConfig)
        else make_material(language, folder=folder, seed=config.seed)
    )
    planned = []
    for run in config.runs(tokens_per_sequence=material.tokens_per_sequence):
        params = count_parameters(model_config(run.shape, material, run.train.objective))
        tokens = round(run.steps * run.train.batch * material.tokens_per_sequence)
        flops = training_flops(params, tokens) or 0.0
        seconds = (
            flops / GPU_FLOPS
            if on_gpu
            else tokens * (SECONDS_A_TOKEN + SECONDS_A_PARAMETER * params)
        )
        planned.append(
            PlannedRun(
                part=part,
                family=name,
                run=run.name,
                params_total=params,
                tokens=tokens,
                flops=flops,
                checkpoints=len(run.checkpoint_steps),
                hours=seconds / 3600,
            )  # fmt: skip
        )
    return planned


def _unread(vocab: int, length: int) -> _Reading:
    from isoloss.pretrain.objectives import Codes

    last = vocab - 1
    codes = Codes(last - 4, bos=last - 4, eos=last - 3, pad=last - 2, mask=last - 1, ends=False)
    return _Reading(vocab, length, codes, float(length))
