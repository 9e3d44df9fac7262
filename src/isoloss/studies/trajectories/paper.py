"""The scale of the paper: public families at their published steps, as a plan."""

from __future__ import annotations

from isoloss.studies.recipe import MAIN, Part

_SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b")
_STEPS = [1000, 2000, 4000, 8000, 16000, 23000, 33000, 43000, 53000, 63000, 73000, 83000, 93000,
          103000, 108000, 113000, 118000, 123000, 128000, 133000, 138000, 143000]  # fmt: skip
_TOKENS_A_STEP = 2_097_152

ADVICE = """\
The file is a plan: nothing is trained or downloaded here. OPT's intermediate checkpoints, which the
paper read, are no hub revisions: the plan takes Pythia, whose sizes saw one text in one order.
Put a held-out text into texts/heldout.txt, then on a machine with a GPU and 60 GB of free disk
  isoloss run study.toml --set run.device=cuda --set run.dtype=bfloat16 --out .
OPT as local folders goes into a [[family]] of its own, with path and step of each checkpoint;
published OPT numbers are read by isoloss import table."""

_STUDY = """\
# Pythia along its training; texts/heldout.txt is yours to give.
name = "trajectories-paper"
seed = 0

[[family]]
name = "pythia"
{models}
[corpus.heldout]
path = "texts/heldout.txt"
document = "blank-line"
context = 2048

[probe.token_loss]

[axis]
loss = "heldout"
"""
_MODEL = """
  [[family.model]]
  name = "pythia-{size}"
  hub = "EleutherAI/pythia-{size}"
  steps = {steps}
  tokens_per_step = {tokens}
"""


def paper_part() -> Part:
    """One study file; no family is trained."""
    models = "".join(
        _MODEL.format(size=size, steps=_STEPS, tokens=_TOKENS_A_STEP) for size in _SIZES
    )
    return Part(name=MAIN, families={}, study=_STUDY.format(models=models))
