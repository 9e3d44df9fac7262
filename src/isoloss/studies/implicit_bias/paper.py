"""The models of Liu et al. (2023) as family files: a plan, with what isoloss does otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from isoloss.studies.recipe import MAIN, Part

SEEDS = 3
STEPS, BATCH, WARMUP, LR = 30_000, 4_096, 0.06, 1e-3
"""Appendix A.3; the paper gives "more than 30K" steps, until the loss converges."""
SGD_STEPS, SGD_WARMUP, SGD_LR = 30_000, 0.12, 1e-3
"""Appendix B.2: a constant rate after the warm-up; how many steps is not published."""
LAMBDAS = (0.01, 0.1, 1.0, 10.0)
"""Weights of the adversary: the paper's is not known, the largest that keeps the loss is taken."""

ADVICE = """\
The files are a plan: nothing is trained here. Train each file on its own machines,
  accelerate launch --multi_gpu -m isoloss.cli pretrain families/NAME.toml --out families/NAME
then measure: isoloss run study.toml --out .
What is otherwise than in the paper: embeddings hold the words of the language and five special
tokens, not 30,522 rows, so that small models have far fewer parameters than their published names
say; shapes but that of 235M are those whose published parameter count fits; the published grammar
has sentences of at most 16 words, so that one with 32 is drawn by its law; text that OPT-125M
writes needs its checkpoint (isoloss study implicit-bias --scale small --text lm=FOLDER); narrow
models are to be widened before their traces are compared (isoloss.models.widen); continued
training is read off the checkpoints of these runs."""


class _Shape(NamedTuple):
    """A published size."""

    name: str
    depth: int
    width: int
    heads: int


TRANSFORMERS = (
    _Shape("2m", 2, 64, 1),
    _Shape("9m", 2, 256, 4),
    _Shape("41m", 8, 512, 8),
    _Shape("110m", 12, 768, 12),
    _Shape("235m", 16, 1024, 16),
    _Shape("730m", 24, 1536, 24),
)
LSTMS = (_Shape("10m", 4, 256, 1), _Shape("67m", 12, 768, 1), _Shape("135m", 16, 1024, 1))

_PCFG = """\
[language]
kind = "pcfg"
vocab = 200
roots = 9
width = 8
binary_rules = 20
word_rules = 100
max_length = 32
"""
_HMM = """\
[language]
kind = "hmm"
vocab = 200
states = 100
length = 16
"""
_TRAIN = """
[train]
objective = "masked-one"
optimizer = "{optimizer}"
optimizer_options = {options}
lr = {lr}
schedule = "{schedule}"
warmup = {warmup}
batch = {batch}
steps = {steps}
checkpoints = {{ log = 20, first = 100 }}
"""
_ADVERSARY = """
[train.adversarial]
weight = {weight}
task = "span-B"
"""
_GRID = """
[[grid]]
architecture = "{architecture}"
width = {width}
depth = {depth}
heads = {heads}
seed = {seeds}
"""
_STUDY = """\
# What the tables of the paper hold, on its languages.
name = "implicit-bias-paper"
seed = 0

{families}
[probe.optimum]
sentences = 2_000

[probe.fisher_trace]
sentences = 2_000

[probe.transfer]
at = "last:3"
task = {tasks}
sentences = 100_000
"""


def paper_parts() -> tuple[Part, ...]:
    """The published sizes and algorithms as family files with a study for each language."""
    adam = _train("adamw", "{ betas = [0.9, 0.98], eps = 1e-6, weight_decay = 0.01 }", LR)
    sgd = _train("sgd", "{}", SGD_LR, schedule="constant", warmup=SGD_WARMUP, steps=SGD_STEPS)
    largest = tuple(shape for shape in TRANSFORMERS if shape.name == "235m")
    middle = tuple(shape for shape in LSTMS if shape.name == "67m")
    hmm = {
        "hmm": _family("hmm", _HMM + adam, "lstm", LSTMS),
        "hmm-sgd": _family("hmm-sgd", _HMM + sgd, "lstm", middle),
    }
    pcfg = {
        "pcfg": _family("pcfg", _PCFG + adam, "bert", TRANSFORMERS),
        "pcfg-sgd": _family("pcfg-sgd", _PCFG + sgd, "bert", largest),
    }
    for weight in LAMBDAS:
        name = f"pcfg-adversarial-{weight:g}"
        train = adam + _ADVERSARY.format(weight=weight)
        pcfg[name] = _family(name, _PCFG + train, "bert", largest)
    return (_part("hmm", hmm, ["task-6", "task-10"]), _part(MAIN, pcfg, ["A", "B", "C"]))


def _part(name: str, families: Mapping[str, str], tasks: Sequence[str]) -> Part:
    named = "\n".join(f'[[family]]\npretrained = "families/{family}"\n' for family in families)
    quoted = "[" + ", ".join(f'"{task}"' for task in tasks) + "]"
    return Part(name=name, families=families, study=_STUDY.format(families=named, tasks=quoted))


def _train(
    optimizer: str,
    options: str,
    lr: float,
    *,
    schedule: str = "linear",
    warmup: float = WARMUP,
    steps: int = STEPS,
) -> str:
    return _TRAIN.format(
        optimizer=optimizer, options=options, lr=lr, schedule=schedule, warmup=warmup,
        batch=BATCH, steps=steps,
    )  # fmt: skip


def _family(name: str, body: str, architecture: str, shapes: tuple[_Shape, ...]) -> str:
    grids = "".join(
        _GRID.format(
            architecture=architecture, width=shape.width, depth=shape.depth, heads=shape.heads,
            seeds=list(range(SEEDS)),
        )
        for shape in shapes
    )  # fmt: skip
    return f'# Liu et al. (2023), PMLR 202:22188\nname = "{name}"\nseed = 0\n\n{body}{grids}'
