"""Filing numbers that others measured: new ones are added, corrected ones replace the old."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from isoloss.store import schema
from isoloss.store.cell import Cell, Finished, Setting
from isoloss.store.store import Store

NUMERICS = 1
DIGEST, WINDOW = "source_digest", "window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """What became of the cells of an import."""

    added: int
    unchanged: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, and what it could not know.

    Attributes:
        files: files read.
        skipped: names of JSON files that are no result files.
        checkpoints: different checkpoints in them.
        cells_added: new cells.
        cells_unchanged: cells that stood in the store already.
        cells_removed: older cells, replaced because their file was corrected.
        items: documents added to the items tables.
        without_step: checkpoints whose step is nowhere recorded.
        without_tokens: checkpoints whose training tokens are unknown.
        without_params: checkpoints whose size is unknown.
        nominal_params: models whose size is only the rounded one in their name.
        empty: places in a table, or checkpoints of a log's run, without a number.
        not_finite: values that are NaN or infinite.
        flagged: checkpoints flagged for results identical to another step's.
    """

    files: int
    skipped: tuple[str, ...] = ()
    checkpoints: int
    cells_added: int
    cells_unchanged: int
    cells_removed: int
    items: int = 0
    without_step: int
    without_tokens: int
    without_params: int
    nominal_params: tuple[str, ...] = ()
    empty: int = 0
    not_finite: int = 0
    flagged: int = 0

    @classmethod
    def of(cls, filed: Filed, checkpoints: Sequence[Mapping[str, Any]]) -> ImportReport:
        """The report of one file's cells and checkpoints."""
        return cls(
            files=1,
            checkpoints=len(checkpoints),
            cells_added=filed.added,
            cells_unchanged=filed.unchanged,
            cells_removed=filed.removed,
            without_step=sum(row["step"] is None for row in checkpoints),
            without_tokens=sum(row["tokens_seen"] is None for row in checkpoints),
            without_params=sum(row["params_total"] is None for row in checkpoints),
        )


def weights_hash(*names: object) -> str:
    """What stands for the weights of a checkpoint that is known by name alone."""
    text = json.dumps([None if name is None else str(name) for name in names])
    return f"import:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def cell(
    checkpoint: Mapping[str, Any], probe: str, subject: str, settings: Mapping[str, Setting]
) -> Cell:
    """The cell of an imported number."""
    return Cell(
        weights_hash=checkpoint["weights_hash"],
        probe=probe,
        subject=subject,
        settings=settings,
        numerics=NUMERICS,
    )


def series(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a cell measures, whichever file its numbers came from.

    Args:
        row: of the table ``cells``.
    """
    extra = json.loads(row["extra"]) if row["extra"] else {}
    others = sorted((k, v) for k, v in extra.items() if k not in {DIGEST, WINDOW})
    settings = (row[name] for name in schema.SETTINGS if name != "extra")
    return (row["weights_hash"], row["probe"], row["subject"], *settings, *others)


def file_cells(
    store: Store, checkpoints: Sequence[Mapping[str, Any]], cells: Sequence[Finished]
) -> Filed:
    """Put checkpoints and cells; forget cells of the same series from an older file.

    Args:
        store: held for writing.
        checkpoints: rows; what is null in them and known to the store stays known.
        cells: all that the import holds, those already filed among them.

    Returns:
        How many cells were added, found unchanged, and replaced.
    """
    stored = store.cells().collect()
    finished = set(stored["cell"])
    rows = {row["cell"]: (row, done) for done in cells for row in [done.cell.row()]}
    new = [done for name, (_, done) in rows.items() if name not in finished]
    source = {done.cell.settings.get("source") for done in cells}
    older = stored.filter(pl.col("source").is_in(list(source)), ~pl.col("cell").is_in(list(rows)))
    wanted = {series(row) for row, _ in rows.values()} if older.height else set()
    stale = [row["cell"] for row in older.iter_rows(named=True) if series(row) in wanted]
    store.put_checkpoints(_completed(store, checkpoints))
    for probe in dict.fromkeys(done.cell.probe for done in new):
        store.put_cells([done for done in new if done.cell.probe == probe])
    # last: a crash in between leaves both, and the next import removes the older
    store.remove(stale)
    return Filed(added=len(new), unchanged=len(cells) - len(new), removed=len(stale))


def _completed(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    known = {
        tuple(row[name] for name in schema.CHECKPOINT_KEY): row
        for row in store.checkpoints().collect().iter_rows(named=True)
    }
    completed = []
    for row in rows:
        old = known.get(tuple(row[name] for name in schema.CHECKPOINT_KEY), {})
        completed.append(
            {
                name: old.get(name) if row.get(name) is None else row[name]
                for name in schema.CHECKPOINTS
            }
        )
    return completed
