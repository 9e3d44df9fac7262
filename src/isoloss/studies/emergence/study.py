"""The study of emergence as a recipe.

Du et al., arXiv:2403.15796: long runs of three sizes, a grid of finished runs, and what they left
open: another architecture, optimizer and corpus. On a language with planted abilities, whose
thresholds are known to be real or made by the metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.studies.emergence.families import FAMILIES, LONG, SIZES, Size, family_files, study_file
from isoloss.studies.findings import Finding, Findings, FindingsTable
from isoloss.studies.recipe import MAIN, Order, Part

if TYPE_CHECKING:
    from isoloss.store import Store

NO_TEXTS = "needs two texts: --text en=FILE --text zh=FILE"


class EmergenceRecipe:
    """``isoloss study emergence``."""

    name = "emergence"

    def parts(self, order: Order) -> Sequence[Part]:
        """Two languages where two texts are given, then the planted language."""
        if order.scale == "paper":
            from isoloss.studies.emergence.paper import paper_part

            return (paper_part(),)
        size = SIZES[order.scale]
        main = Part(
            name=MAIN,
            families=family_files(size),
            study=study_file(FAMILIES),
            after=lambda folder: _write_materials(folder, size),
        )
        if not order.texts:
            return (main,)
        from isoloss.studies.emergence.languages import languages_part

        return languages_part(size, order.texts), main

    def advice(self, order: Order) -> str | None:
        """What to run where, for the scale of the paper."""
        if order.scale != "paper":
            return None
        from isoloss.studies.emergence.paper import ADVICE

        return ADVICE

    def findings(self, stores: Mapping[str, Store], order: Order) -> Findings:
        """Every claim judged from the stores alone."""
        from isoloss.studies.emergence.findings import emergence_findings
        from isoloss.studies.emergence.languages import PART, languages_findings

        other: dict[str, Finding] = {}
        tables: tuple[FindingsTable, ...] = ()
        if PART in stores:
            other, table = languages_findings(stores[PART], tuple(order.texts))
            tables = (table,)
        return emergence_findings(
            stores[MAIN], scale=order.scale, command=order.command, other_claims=other,
            reason=NO_TEXTS, tables=tables,
        )  # fmt: skip


RECIPE = EmergenceRecipe()


def _write_materials(folder: Path, size: Size) -> None:
    from isoloss.studies.emergence.tasks import write_materials

    language = folder / "families" / LONG / "language"
    write_materials(folder, language=language, sentences=size.sentences, items=size.items)
