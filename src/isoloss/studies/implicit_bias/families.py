"""The families of the study of implicit bias, as the files that train and measure them.

One masked family on each language, narrow and wide, whose trunk runs at a constant rate and whose
branches end early: the end of every branch has its rate at 0 and is compared with the others. The
other algorithms train the wide model on the hmm. The causal arm is reported apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HMM, PCFG, CAUSAL, SGD, LM = "hmm", "pcfg", "hmm-causal", "hmm-sgd", "lm"
ADVERSARIAL = "hmm-adversarial-"
WIDENED = "-widened"
LM_VOCAB, LM_LENGTH, LM_EVALUATED = 50, 8, 10
LM_SENTENCES = 60
"""On which losses and traces of the lm family are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the study is.

    Attributes:
        hmm: keys of the hmm's table.
        pcfg: keys of the pcfg's table.
        hmm_task: the ability on the hmm: which state emitted a word, counted from 1.
        pcfg_task: the ability on the pcfg: which symbol derives the first words.
        narrow: width of the small models.
        wide: width of the large ones.
        depth: layers of both.
        seeds: of pre-training; the runs are the units.
        other_seeds: of the families that no claim is about: causal ones and SGD.
        steps: of a trunk.
        early: steps at which branches end; the other algorithms train as long as the last of them.
        batch: sequences in a step.
        lr: peak rate of AdamW.
        sgd_lr: of SGD with momentum 0.9.
        weights: of the adversary.
        adversary_batch: downstream sentences in one of its steps.
        kept: checkpoints along a trunk.
        sentences: on which losses and traces are taken.
        examples: labelled sentences of the linear probe, those that it is tested on included.
        relative_error: of a trace.
        drift_runs: simulated for every rate and batch size of the theory.
        drift_rates: of the theory.
    """

    hmm: Mapping[str, object]
    pcfg: Mapping[str, object]
    hmm_task: str
    pcfg_task: str
    narrow: int
    wide: int
    depth: int
    seeds: int
    other_seeds: int
    steps: int
    early: tuple[int, ...]
    batch: int
    lr: float
    sgd_lr: float
    weights: tuple[float, ...]
    adversary_batch: int
    kept: int
    sentences: int
    examples: int
    relative_error: float
    drift_runs: int
    drift_rates: tuple[float, ...] = (0.1, 0.05, 0.025)


# found by pilots: within 0.01 nats of the optimum after 1,500 steps at width 32, and what a linear
# probe makes of the words alone lies well below what is possible
_HMM = {
    "vocab": 8, "states": 4, "length": 6, "seed": 3,
    "transition_concentration": 0.2, "emission_concentration": 0.3,
}  # fmt: skip
_PCFG = {
    "vocab": 6, "roots": 4, "width": 3, "binary_rules": 3, "word_rules": 3, "max_length": 4,
    "seed": 10,
}  # fmt: skip

SIZES: Mapping[str, Size] = {
    "tiny": Size(
        hmm=_HMM, pcfg=_PCFG, hmm_task="task-3", pcfg_task="A",
        narrow=16, wide=32, depth=2, seeds=5, other_seeds=3,
        steps=3_600, early=(1_200, 2_400), batch=256, lr=0.005, sgd_lr=0.2,
        weights=(0.003, 0.01, 0.03), adversary_batch=64, kept=5, sentences=500, examples=1_000,
        relative_error=0.03, drift_runs=128,
    ),
    "small": Size(
        hmm=_HMM, pcfg=_PCFG, hmm_task="task-3", pcfg_task="A",
        narrow=32, wide=64, depth=2, seeds=5, other_seeds=5,
        steps=24_000, early=(6_000, 12_000), batch=256, lr=0.003, sgd_lr=0.2,
        weights=(0.0003, 0.001, 0.003, 0.01, 0.03), adversary_batch=256, kept=8,
        sentences=1_000, examples=2_000, relative_error=0.02, drift_runs=512,
    ),
    "_smoke": Size(
        hmm=_HMM | {"vocab": 5, "length": 4}, pcfg=_PCFG, hmm_task="task-3",
        pcfg_task="A",
        narrow=16, wide=32, depth=1, seeds=2, other_seeds=2,
        steps=40, early=(20,), batch=16, lr=0.005, sgd_lr=0.2,
        weights=(1.0,), adversary_batch=16, kept=2, sentences=20, examples=80,
        relative_error=0.5, drift_runs=8, drift_rates=(0.2, 0.1),
    ),
}  # fmt: skip

_TRAIN = """
[train]
objective = "{objective}"
optimizer = "{optimizer}"
optimizer_options = {options}
lr = {lr}
schedule = "wsd"
warmup = {warmup}
branches = {branches}
steps = {steps}
batch = {batch}
checkpoints = {kept}
evaluate = {evaluate}
"""

_ADVERSARY = """
[train.adversarial]
weight = {weight}
task = "state"
position = {place}
batch = {batch}
"""


def family_files(size: Size) -> dict[str, str]:
    """Family files on the hmm by name; the runs of one file may be trained side by side."""
    language, wide = _language("hmm", size.hmm), (size.wide,)
    both = size.narrow, size.wide
    files = {
        HMM: _file(size, HMM, "the main family", language, both),
        SGD: _file(size, SGD, "another algorithm", language, wide, sgd=True),
    }
    for weight in size.weights:
        name = f"{ADVERSARIAL}{weight:g}"
        about = "made to transfer badly; as long as the last branch of the others"
        files[name] = _file(size, name, about, language, wide, weight=weight)
    files[CAUSAL] = _file(size, CAUSAL, "next words, reported apart", language, both, causal=True)
    return files


def pcfg_file(size: Size) -> dict[str, str]:
    """The family on the grammar, by name."""
    language = _language("pcfg", size.pcfg)
    return {PCFG: _file(size, PCFG, "on a grammar", language, (size.narrow, size.wide))}


def lm_file(size: Size, checkpoint: str) -> dict[str, str]:
    """The family on what a causal checkpoint writes, by name.

    Args:
        size: of the study.
        checkpoint: its folder.
    """
    language = _language("lm", {"path": checkpoint, "vocab": LM_VOCAB, "length": LM_LENGTH})
    both = size.narrow, size.wide
    # every true conditional of it costs vocab passes of the checkpoint
    return {LM: _file(size, LM, "text of a checkpoint", language, both, sentences=LM_EVALUATED)}


def sgd_steps(size: Size) -> tuple[int, ...]:
    """Steps at which a trunk of SGD is kept.

    Two early ones, then from a quarter of it to three quarters, where its rate is constant and its
    loss has converged.
    """
    early = max(1, size.steps // 50), size.steps // 16
    return (*early, *(size.steps * k // 8 for k in range(2, 7)))


def study_file(size: Size, families: Sequence[str], task: str | None) -> str:
    """What is measured: losses and traces everywhere, the ability at the end of every run.

    Args:
        size: of the study.
        families: by name, in the order of measuring.
        task: of the language; None where it has none.
    """
    parts = ['# What is measured on the families.\nname = "implicit-bias"\nseed = 0\n']
    parts.append("\n[run]\nthreads = 1\n")
    parts += [f'\n[[family]]\npretrained = "families/{name}"\n' for name in families]
    sentences = min(size.sentences, LM_SENTENCES) if LM in families else size.sentences
    parts.append(
        f"\n[probe.optimum]\nsentences = {sentences}\n"
        f"\n[probe.fisher_trace]\nsentences = {sentences}\n"
        f"relative_error = {size.relative_error}\n"
    )
    if task is not None:
        parts.append(
            f'\n[probe.transfer]\nat = "last:1"\ntask = "{task}"\nsentences = {size.examples}\n'
        )
    return "".join(parts)


def _file(
    size: Size,
    name: str,
    about: str,
    language: str,
    widths: Sequence[int],
    *,
    causal: bool = False,
    sgd: bool = False,
    weight: float | None = None,
    sentences: int = 100,
) -> str:
    steps = size.steps if weight is None else size.early[-1]
    seeds = size.other_seeds if causal or sgd else size.seeds
    train = _TRAIN.format(
        objective="causal" if causal else "masked-one",
        optimizer="sgd" if sgd else "adamw",
        options="{ momentum = 0.9 }" if sgd else "{ weight_decay = 0.0 }",
        lr=size.sgd_lr if sgd else size.lr,
        # as many steps for all: a branch has the warm-up of its trunk
        warmup=0.05 * size.steps / steps,
        branches=list(size.early) if weight is None else [],
        steps=steps,
        batch=size.batch,
        kept=_kept(size, sgd=sgd, ends=weight is not None),
        evaluate=sentences,
    )
    if weight is not None:
        train += _ADVERSARY.format(
            weight=weight, place=_place(size.hmm_task), batch=size.adversary_batch
        )
    grid = (
        f'\n[[grid]]\narchitecture = "{"gpt-neox" if causal else "bert"}"\n'
        f"width = {list(widths)}\ndepth = {size.depth}\nseed = {list(range(seeds))}\n"
    )
    return f'# {about}\nname = "{name}"\nseed = 0\n\n{language}{train}{grid}'


def _kept(size: Size, *, sgd: bool, ends: bool) -> str:
    """Steps of a trunk whose weights are kept; of the adversary's only the end is looked at."""
    if ends:
        return "[]"
    if sgd:
        return str(list(sgd_steps(size)))
    return f"{{ log = {size.kept}, first = {max(1, size.steps // 50)} }}"


def _place(task: str) -> int:
    """Index of the word whose state a task asks, as the adversary counts."""
    return int(task.removeprefix("task-")) - 1


def _language(kind: str, keys: Mapping[str, object]) -> str:
    lines = "".join(
        f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {value}\n"
        for key, value in keys.items()
    )
    return f'[language]\nkind = "{kind}"\n{lines}'
