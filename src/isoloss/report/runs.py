"""How each run looks: colour by model, dash and marker by run of a model."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from isoloss.report.text import shown

# on white and on black: at least 0.12 apart in Oklab (Ottosson 2020) for readers without red or
# green receptors (after Machado et al. 2009), and 3:1 against the ground (WCAG 2.2, 1.4.11)
_DISTINCT = (
    ("#0051cc", "#4d7bf7"),
    ("#ed6e01", "#cf490a"),
    ("#006670", "#018a7f"),
    ("#b6799c", "#faa09b"),
    ("#8a5a0d", "#f5d100"),
    ("#5b87ed", "#6dd1ff"),
    ("#521e3b", "#fafcf5"),
)
# viridis without the ends that vanish on white or on black
_RAMP_LIGHT = ("#440154", "#482878", "#3b528b", "#2c728e", "#1f8a78", "#3e9949", "#7f9b0a")
_RAMP_DARK = ("#8a6bd1", "#6a8ae6", "#45abdb", "#2cc2b4", "#55d387", "#a5e04f", "#fde725")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2, 1, 2])
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStyle:
    """One run as it is drawn.

    Attributes:
        family: of the run.
        model: of the run.
        run: its name.
        label: what stands in the legend; unique on the page.
        light: colour on white.
        dark: colour on black.
        dash: of its line.
        shape: of its points.
    """

    family: str
    model: str
    run: str
    label: str
    light: str
    dark: str
    dash: tuple[int, ...]
    shape: str


def run_styles(checkpoints: pl.DataFrame) -> tuple[RunStyle, ...]:
    """A style for every run, smaller models first.

    Where the sizes of all models are known the colours run from small to large; otherwise they
    are told apart, and beyond seven models spread along the same ramp.

    Args:
        checkpoints: with ``family``, ``model``, ``run`` and ``params_total``.
    """
    runs = (
        checkpoints.group_by("family", "model", "run")
        .agg(params=pl.col("params_total").max())
        .sort("params", "family", "model", "run", nulls_last=True)
    )
    models = list(dict.fromkeys(zip(runs["family"], runs["model"], strict=True)))
    # a model of several runs may be counted in some of them only
    is_sized = runs.group_by("family", "model").agg(pl.col("params").max())["params"].null_count()
    several_families = runs["family"].n_unique() > 1
    styles: list[RunStyle] = []
    for family, model, run, _ in runs.rows():
        place = models.index((family, model))
        nth = sum((s.family, s.model) == (family, model) for s in styles)
        light, dark = _colours(place, len(models), is_sized=not is_sized)
        label = _label(family if several_families else None, model, run)
        while label in {s.label for s in styles}:
            label += "'"
        styles.append(
            RunStyle(
                family=family,
                model=model,
                run=run,
                label=label,
                light=light,
                dark=dark,
                dash=tuple(_DASHES[nth % len(_DASHES)]),
                shape=_SHAPES[nth % len(_SHAPES)],
            )
        )
    return tuple(styles)


def distinct_colours(place: int, count: int) -> tuple[str, str]:
    """Colour on white and on black of one of several names without an order.

    Args:
        place: of the name, from 0.
        count: of all names; beyond seven they are spread along a ramp.
    """
    return _colours(place, count, is_sized=False)


def ramp_colours(at: float) -> tuple[str, str]:
    """Colour on white and on black of a number along a ramp.

    Args:
        at: 0 to 1.
    """
    return _ramp(_RAMP_LIGHT, at), _ramp(_RAMP_DARK, at)


def ramp_stops() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Colours of the whole ramp, evenly spaced, on white and on black."""
    return _RAMP_LIGHT, _RAMP_DARK


def _colours(place: int, models: int, *, is_sized: bool) -> tuple[str, str]:
    if not is_sized and models <= len(_DISTINCT):
        return _DISTINCT[place]
    at = 0.5 if models == 1 else place / (models - 1)
    return ramp_colours(at)


def _ramp(stops: tuple[str, ...], at: float) -> str:
    """The colour at ``at``, 0 to 1, linear between stops in sRGB."""
    low = min(int(at * (len(stops) - 1)), len(stops) - 2)
    part = at * (len(stops) - 1) - low
    pairs = zip(*(bytes.fromhex(stops[i][1:]) for i in (low, low + 1)), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _label(family: str | None, model: str, run: str) -> str:
    name = run if run == model or run.startswith(model) else f"{model} {run}"
    return shown(f"{family}/{name}" if family else name)
