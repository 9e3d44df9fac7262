"""The study of implicit bias as a recipe.

Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream (ICML, arXiv:2210.14199):
models of one loss and different ability, by longer training, size and algorithm, and the trace of
the Hessian that is said to tell them apart; with the theory on models whose minima are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.studies.findings import Findings
from isoloss.studies.implicit_bias.families import (
    CAUSAL,
    HMM,
    LM,
    PCFG,
    SIZES,
    WIDENED,
    Size,
    family_files,
    lm_file,
    pcfg_file,
    study_file,
)
from isoloss.studies.recipe import MAIN, Order, Part

if TYPE_CHECKING:
    from isoloss.estimate import Estimate
    from isoloss.store import Store

NO_LM = (
    "Text that a language model writes: give a causal checkpoint, --text lm=FOLDER. Its sentences "
    "have no labels of their own: loss and trace are measured on them, ability is not."
)
NO_TUNING = "Fine-tuning: the ability here is a linear probe on frozen states, as in the paper."
LOOKUP_FILE = "lookup.json"
LABELLED = {MAIN: HMM, PCFG: PCFG}
"""Parts whose language has a task."""
SEED = 0


class ImplicitBiasRecipe:
    """``isoloss study implicit-bias``."""

    name = "implicit-bias"

    def parts(self, order: Order) -> Sequence[Part]:
        """A store for each language, whose tasks differ; that of the hmm is the main one."""
        if order.scale == "paper":
            from isoloss.studies.implicit_bias.paper import paper_parts

            return paper_parts()
        size, lm = SIZES[order.scale], order.texts.get("lm")
        others = [_part(PCFG, size, pcfg_file(size), (PCFG,), size.pcfg_task)]
        if lm is not None:
            others.append(_part(LM, size, lm_file(size, str(lm.resolve())), (LM,), None))
        return (*others, _part(MAIN, size, family_files(size), (HMM, CAUSAL), size.hmm_task))

    def advice(self, order: Order) -> str | None:
        """What to run where, for the scale of the paper."""
        if order.scale != "paper":
            return None
        from isoloss.studies.implicit_bias.paper import ADVICE

        return ADVICE

    def findings(self, stores: Mapping[str, Store], order: Order) -> Findings:
        """Every claim judged; the theory is simulated here, half a minute of it."""
        from isoloss.studies.implicit_bias.findings import implicit_bias_findings
        from isoloss.studies.implicit_bias.theory import theory

        size = SIZES[order.scale]
        lookup = {language: _read_lookup(stores[part]) for part, language in LABELLED.items()}
        return implicit_bias_findings(
            tuple(stores.values()),
            size,
            theory(drift_runs=size.drift_runs, drift_rates=size.drift_rates, seed=SEED),
            lookup,
            scale=order.scale,
            command=order.command,
            left_out=(NO_TUNING,) if "lm" in order.texts else (NO_LM, NO_TUNING),
        )


RECIPE = ImplicitBiasRecipe()


def _part(
    name: str, size: Size, files: Mapping[str, str], compared: Sequence[str], task: str | None
) -> Part:
    """Families on one language; narrow models of those that are compared are widened."""
    measured = [*files, *(family + WIDENED for family in compared)]
    # one architecture after the other: a model stays on the bench for the next checkpoint
    measured.sort(key=lambda family: family.startswith(CAUSAL))
    return Part(
        name=name,
        families=files,
        study=study_file(size, measured, task),
        after=lambda folder: _prepare(folder, size, compared, task),
    )


def _prepare(folder: Path, size: Size, compared: Sequence[str], task: str | None) -> None:
    """What is measured beside the trained models: narrow ones widened, and the lookup table."""
    from isoloss.studies.implicit_bias.widened import widen_family

    families = folder / "families"
    for name in compared:
        widen_family(
            families / name, families / (name + WIDENED), narrow=size.narrow, wide=size.wide
        )
    if task is not None and not (folder / LOOKUP_FILE).exists():
        _write_lookup(folder, families / compared[0] / "language", task, size.examples)


def _write_lookup(folder: Path, where: Path, task: str, sentences: int) -> None:
    from isoloss.corpora import load_language
    from isoloss.probes.transfer import transfer_of_conditionals
    from isoloss.probes.transfer_tasks import language_task
    from isoloss.store.files import write_text

    language = load_language(where)
    labelled = language_task(language, task, sentences=sentences, seed=SEED)
    rows = transfer_of_conditionals(language, labelled, seed=SEED).rows
    found = next(row.estimate for row in rows if row.metric == "accuracy")
    write_text(folder / LOOKUP_FILE, json.dumps(asdict(found), indent=1))


def _read_lookup(store: Store) -> Estimate:
    from isoloss.estimate import Estimate

    return Estimate(**json.loads((store.path / LOOKUP_FILE).read_text(encoding="utf-8")))
