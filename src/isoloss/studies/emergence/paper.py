"""The 31 models of Du et al. as family files: a plan, with what isoloss cannot train of it."""

from __future__ import annotations

from typing import NamedTuple

from isoloss.studies.recipe import MAIN, Part

SEQUENCE, VOCAB = 2_048, 65_536
BILLION = 1_000_000_000
KEPT_EVERY = 43 * BILLION
"""Tokens between kept checkpoints of the long runs."""

ADVICE = """\
The files are a plan: nothing is trained here. Train each file on its own machines,
  accelerate launch --multi_gpu -m isoloss.cli pretrain families/NAME.toml --out families/NAME
then measure: isoloss run study.toml --out .
What isoloss cannot train of the paper's models: grouped-query attention, rotation of half of the
query and key dimensions, the published inner widths (its Llama has 8/3 of the width; sizes differ
by a few percent) and the published corpus, which is not public: put one of 4 parts English to 1
part Chinese into texts/train. Warm-up, final rate, weight decay and clipping are not published."""


class _Long(NamedTuple):
    """A row of Table 4: one run whose checkpoints are kept."""

    name: str
    tokens: int
    width: int
    heads: int
    depth: int
    batch: int
    lr: float


class _Small(NamedTuple):
    """A row of Table 5: runs of one size that end at several budgets."""

    name: str
    tokens: tuple[int, ...]
    width: int
    heads: int
    depth: int
    lr: float


LONG_RUNS = (
    _Long("1.5b", 3_000, 2048, 16, 24, 1344, 5e-4),
    _Long("6b", 3_000, 4096, 32, 28, 4224, 4e-4),
    _Long("32b", 2_500, 6656, 52, 58, 8832, 3e-4),
)
"""Tokens in billions. Du et al., arXiv:2403.15796, Table 4 and appendix H."""

SMALL_RUNS = (
    _Small("300m", (67, 125, 250, 500), 1152, 9, 12, 2.8e-3),
    _Small("540m", (33, 66, 125, 250, 500), 1536, 12, 12, 2e-3),
    _Small("1b", (33, 67, 125, 250, 500), 2048, 16, 16, 1.5e-3),
    _Small("1.5b", (67, 100, 125, 250, 375, 500), 2048, 16, 24, 1e-3),
    _Small("3b", (67, 125, 250, 500), 3072, 24, 24, 7e-4),
    _Small("6b", (33, 67, 125, 250), 4096, 32, 28, 4e-4),
)
"""Tokens in billions; every schedule ends at its budget. Du et al., Table 5."""

_HEAD = """\
# {about}; Du et al., arXiv:2403.15796
name = "{name}"
seed = 0

[language]
kind = "text"
path = "../texts/train"
document = "file"
vocab = {vocab}
length = {length}

[train]
optimizer = "adamw"
optimizer_options = {{ betas = [0.9, 0.95] }}
schedule = "cosine"
batch = {batch}
checkpoints = {checkpoints}
"""
_GRID = """
[[grid]]
architecture = "llama"
width = {width}
heads = {heads}
depth = {depth}
lr = {lr}
tokens = {tokens}
"""
_STUDY = """\
# The held-out text and tasks are yours to name; the twelve data sets stand in the docs.
name = "emergence-paper"
seed = 0

{families}
[corpus.heldout]
path = "texts/heldout.txt"
document = "blank-line"
context = 2048

[task.hellaswag]
num_fewshot = 0

[task.mmlu]
num_fewshot = 5

[task.gsm8k]
num_fewshot = 8

[probe.token_loss]
[probe.task_score]

[axis]
loss = "heldout"
"""


def paper_part() -> Part:
    """The 3 long and 28 finished runs as four family files, and a study of them."""
    families = {f"long-{row.name}": _long_file(row) for row in LONG_RUNS}
    families["grid"] = _small_file()
    named = "\n".join(f'[[family]]\npretrained = "families/{name}"' for name in families)
    return Part(name=MAIN, families=families, study=_STUDY.format(families=named + "\n"))


def _long_file(row: _Long) -> str:
    tokens = row.tokens * BILLION
    every = KEPT_EVERY // (row.batch * SEQUENCE)
    steps = -(-tokens // (row.batch * SEQUENCE))
    head = _HEAD.format(
        about=f"the long run of {row.name}, kept every 43 billion tokens", name=f"long-{row.name}",
        vocab=VOCAB, length=SEQUENCE, batch=row.batch, checkpoints=list(range(0, steps, every)),
    )  # fmt: skip
    return head + _GRID.format(
        width=row.width, heads=row.heads, depth=row.depth, lr=row.lr, tokens=tokens
    )


def _small_file() -> str:
    head = _HEAD.format(
        about="28 finished runs of six sizes", name="grid", vocab=VOCAB, length=SEQUENCE,
        batch=1152, checkpoints=[],
    )  # fmt: skip
    return head + "".join(
        _GRID.format(
            width=row.width, heads=row.heads, depth=row.depth, lr=row.lr,
            tokens=[budget * BILLION for budget in row.tokens],
        )
        for row in SMALL_RUNS
    )  # fmt: skip
