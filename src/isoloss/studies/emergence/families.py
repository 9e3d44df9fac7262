"""The families of the emergence study, as the files that train and measure them.

long: three sizes, long runs of two seeds, kept at 15 steps.
grid: sizes by token budgets, every schedule finished at its own budget.
architecture, optimizer, corpus: one long run each of another architecture, optimizer, mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONG, GRID, ARCHITECTURE, OPTIMIZER, CORPUS = "long", "grid", "architecture", "optimizer", "corpus"
FAMILIES = (LONG, GRID, ARCHITECTURE, OPTIMIZER, CORPUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the study is.

    Attributes:
        states: hidden states of the base language; it has as many words.
        widths: of the grid.
        long_widths: of the long runs.
        other_width: of the runs of another architecture, optimizer and mixture.
        tokens: budgets of the grid.
        long_tokens: of a long run.
        seeds: of the grid.
        long_seeds: of the long runs.
        checkpoints: of a long run.
        batch: sequences in a step.
        sentences: of the held-out text.
        items: of a task.
        text_widths: of the family of two languages.
        text_tokens: read by each of its runs.
        text_kilobytes: of the larger language; the smaller has a quarter of its tokens.
    """

    states: int
    widths: tuple[int, ...]
    long_widths: tuple[int, ...]
    other_width: int
    tokens: tuple[int, ...]
    long_tokens: int
    seeds: tuple[int, ...]
    long_seeds: tuple[int, ...]
    checkpoints: int
    batch: int
    sentences: int
    items: int
    text_widths: tuple[int, ...]
    text_tokens: int
    text_kilobytes: int


SIZES: Mapping[str, Size] = {
    "tiny": Size(
        states=64, widths=(24, 32, 48, 64), long_widths=(24, 32, 64), other_width=32,
        tokens=(200_000, 350_000, 600_000, 1_500_000), long_tokens=3_000_000,
        seeds=(1, 2), long_seeds=(0, 3), checkpoints=15, batch=64, sentences=600, items=400,
        text_widths=(32, 48, 64), text_tokens=3_000_000, text_kilobytes=1_600,
    ),
    "small": Size(
        states=256, widths=(32, 48, 64, 96, 128), long_widths=(32, 64, 128), other_width=64,
        tokens=(2_000_000, 6_000_000, 20_000_000, 60_000_000), long_tokens=100_000_000,
        seeds=(1, 2, 3), long_seeds=(0, 4), checkpoints=20, batch=128, sentences=2_000, items=1_000,
        text_widths=(64, 96, 128), text_tokens=60_000_000, text_kilobytes=20_000,
    ),
    "_smoke": Size(
        states=24, widths=(8, 12), long_widths=(8, 12, 16), other_width=8,
        tokens=(2_000, 4_000), long_tokens=8_000, seeds=(1,), long_seeds=(0,),
        checkpoints=5, batch=8, sentences=30, items=12,
        text_widths=(8, 12, 16), text_tokens=8_000, text_kilobytes=20,
    ),
}  # fmt: skip

HELD_OUT, PLAIN = "heldout", "plain"
"""Texts: the mixture that most runs are trained on, and its sentences without any task."""

COPY = '{{ kind = "copy", steps = 5, symbols = 48, weight = {weight} }}'
MIXTURE, OTHER_MIXTURE = 0.15, 0.3
"""Shares of task sentences: of all families but ``corpus``, and of that."""

_LANGUAGE = """\
[language]
kind = "abilities"
tasks = [{copy}]

[language.base]
kind = "hmm"
vocab = {states}
states = {states}
length = 16
seed = 1
transition_concentration = 0.02
emission_concentration = 0.003
"""

_TRAIN = """
[train]
optimizer = "{optimizer}"
optimizer_options = {options}
schedule = "cosine"
final_lr = 0.1
batch = {batch}
checkpoints = {checkpoints}
evaluate = 50
"""

_ADAM = "{ betas = [0.9, 0.95], weight_decay = 0.01 }"


def family_files(size: Size) -> dict[str, str]:
    """Family files of the planted language by name.

    Args:
        size: of the study.

    Returns:
        TOML; the runs of one file may be trained side by side.
    """
    kept = f"{{ log = {size.checkpoints}, first = {_first(size)} }}"
    other = {"width": size.other_width, "seed": 0, "tokens": size.long_tokens}
    long = {
        "width": list(size.long_widths),
        "seed": list(size.long_seeds),
        "tokens": size.long_tokens,
    }
    grid = {"width": list(size.widths), "seed": list(size.seeds), "tokens": list(size.tokens)}
    return {
        LONG: _file(size, LONG, "three sizes, long runs of two seeds", long, kept),
        GRID: _file(size, GRID, "every schedule ends at its own budget", grid, "[]"),
        ARCHITECTURE: _file(
            size, ARCHITECTURE, "as the long runs, but GPT-NeoX", other, kept,
            architecture="gpt-neox",
        ),
        OPTIMIZER: _file(
            size, OPTIMIZER, "as the long runs, but another optimizer", other | {"lr": 0.5}, kept,
            optimizer="sgd", options="{ momentum = 0.9 }",
        ),
        CORPUS: _file(
            size, CORPUS, "as the long runs, but another mixture of the same language", other,
            kept, weight=OTHER_MIXTURE,
        ),
    }  # fmt: skip


def study_file(families: Sequence[str]) -> str:
    """The study of the planted language: one held-out text for all families."""
    tasks = [
        f"{ability}{form}"
        for ability in ("copy", "predictable")
        for form in ("", "_step", "_choice")
    ] + ["random_answers"]
    parts = [
        '# What the models are asked; the text is the same for all of them.\nname = "emergence"\n'
        "seed = 0\n\n[run]\nthreads = 1\n"
    ]
    parts += [f'\n[[family]]\npretrained = "families/{name}"\n' for name in families]
    parts += [
        f'\n[corpus.{name}]\npath = "texts/{name}.txt"\ndocument = "line"\n'
        for name in (HELD_OUT, PLAIN)
    ]
    parts += [f'\n[task.{name}]\npath = "tasks/{name}.jsonl"\n' for name in tasks]
    parts.append(f'\n[probe.token_loss]\n[probe.task_score]\n\n[axis]\nloss = "{HELD_OUT}"\n')
    return "".join(parts)


def _file(
    size: Size,
    name: str,
    about: str,
    grid: Mapping[str, object],
    checkpoints: str,
    *,
    architecture: str = "llama",
    optimizer: str = "adamw",
    options: str = _ADAM,
    weight: float = MIXTURE,
) -> str:
    language = _LANGUAGE.format(copy=COPY.format(weight=weight), states=size.states)
    train = _TRAIN.format(
        optimizer=optimizer, options=options, batch=size.batch, checkpoints=checkpoints
    )
    lines = "".join(f"{key} = {value}\n" for key, value in grid.items())
    return (
        f'# {about}\nname = "{name}"\nseed = 0\n\n{language}{train}\n'
        f'[[grid]]\narchitecture = "{architecture}"\ndepth = 2\n{lines}'
    )


def _first(size: Size) -> int:
    """The first checkpoint after step 0: at a thirtieth of a long run single words are learned."""
    return max(1, size.long_tokens // (30 * 16 * size.batch))
