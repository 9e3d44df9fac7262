"""The store: a folder of Parquet files, and the only way to them.

A cell is finished when its measurement file stands: it is written last, after the cell's items,
token losses and arrays, so a process that dies at any moment leaves the cell either finished or
to be measured again. The cell's own row travels in that file's metadata; ``cells.parquet`` is an
index made from them, which any reader completes and any writer may rebuild. An import finishes
thousands of cells at once: they share one file, a batch, whose rows carry their cells' columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from isoloss.errors import BadStore
from isoloss.store import schema
from isoloss.store.cell import Cell, Failure, Finished
from isoloss.store.files import read_parquet, slug, write_bytes, write_parquet, write_text
from isoloss.store.lock import exclusive

_BATCH = "batch-"


class Store:
    """Results of one or more studies of a family.

    Reading needs no lock and may go on while a run writes. Every method that writes must be
    called inside :meth:`writing`.

    Args:
        path: the folder; see :meth:`create` for a new one.

    Raises:
        BadStore: no store stands there, or a newer version of isoloss wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._check_version()

    @classmethod
    def create(cls, path: str | Path) -> Store:
        """Open the store at ``path``, making an empty one where there is none."""
        folder = Path(path)
        if not (folder / "checkpoints.parquet").exists():
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive(folder):
                _write_table(folder / "checkpoints.parquet", schema.empty(schema.CHECKPOINTS))
        return cls(folder)

    def _check_version(self) -> None:
        table = self.path / "checkpoints.parquet"
        if not table.is_file():
            raise BadStore(
                f"there is no store at {self.path}.",
                asked=str(self.path),
                remedy="name a folder that `isoloss run --out` or `isoloss import --out` wrote",
            )
        try:
            written = int(pl.read_parquet_metadata(table).get(schema.VERSION_KEY, "0"))
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise BadStore(
                f"cannot read {table.name}: {str(error).splitlines()[0]}",
                asked=str(table),
                remedy="delete this file and run the study again: finished cells are kept",
            ) from error
        if written > schema.STORE_VERSION:
            raise BadStore(
                f"the store at {self.path} was written by a newer isoloss.",
                asked=f"store version {written}; this isoloss reads up to {schema.STORE_VERSION}",
                remedy="pip install --upgrade isoloss",
            )

    # ---- reading

    def checkpoints(self) -> pl.LazyFrame:
        """One row a checkpoint, by family, run and step."""
        frame = read_parquet(self.path / "checkpoints.parquet")
        return schema.conform(frame, schema.CHECKPOINTS).lazy()

    def cells(self) -> pl.LazyFrame:
        """One row a finished cell, with every setting as a column."""
        index = self._index()
        known = set(index["cell"]) if index.height else set()
        files = self._measurement_files()
        late = {cell: file for cell, file in files.items() if cell not in known}
        single = [_cell_row(file) for file in late.values() if not _is_batch(file)]
        batches = dict.fromkeys(file for file in late.values() if _is_batch(file))
        frame = pl.concat(
            [
                index,
                pl.DataFrame(single, schema=schema.CELLS),
                *(_batch_cells(file).filter(pl.col("cell").is_in(list(late))) for file in batches),
            ]
        ).unique("cell", keep="first")
        return frame.filter(pl.col("cell").is_in(list(files))).sort("cell").lazy()

    def measurements(self) -> pl.LazyFrame:
        """Measured values joined with their checkpoints and settings: the way to read.

        Two checkpoints of equal weights both get the row. A cell whose weights no checkpoint
        claims any more is left out.
        """
        files = list(dict.fromkeys(self._measurement_files().values()))
        if files:
            rows = pl.scan_parquet(
                files,
                schema=schema.MEASUREMENTS,
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
            )
        else:
            rows = schema.empty(schema.MEASUREMENTS).lazy()
        settings = self.cells().select("cell", *schema.SETTINGS).rename({"source": "cell_source"})
        return (
            rows.join(settings, on="cell", how="left")
            .join(self.checkpoints(), on="weights_hash", how="inner")
            .sort("family", "run", "step", "probe", "subject", "cell", "metric", nulls_last=True)
        )

    def items(self, task: str) -> pl.LazyFrame:
        """Per-document results of one task, with ``cell`` and ``weights_hash``."""
        return self._per_cell(self.path / "items" / slug(task), schema.ITEMS)

    def arrays(self, probe: str) -> pl.LazyFrame:
        """Vectors of one probe: ``name``, ``values`` (a list), ``cell``, ``weights_hash``."""
        columns: schema.Schema = {"name": pl.String, "values": pl.List(pl.Float64)}
        return self._per_cell(self.path / "arrays" / slug(probe), columns)

    def token_losses(self, corpus: str, tokenizer: str | None = None) -> pl.LazyFrame:
        """Losses of every scored token of a corpus at every checkpoint, in long form.

        Args:
            corpus: the corpus's name in the study.
            tokenizer: a tokenizer hash, where the corpus was laid out under several.

        Returns:
            ``token`` (row in the layout), ``token_id``, ``document``, ``position``, ``bytes``,
            ``loss_nats`` (float32), ``layout``, ``cell``, ``weights_hash``.
        """
        folder = self.path / "token_losses" / slug(corpus)
        cells = self.cells().collect()
        if tokenizer is not None:
            cells = cells.filter(pl.col("tokenizer_hash") == tokenizer)
        weights = dict(zip(cells["cell"], cells["weights_hash"], strict=True))
        parts = []
        for layout in sorted(p for p in folder.glob("*") if p.is_dir()):
            tokens = pl.scan_parquet(layout / "tokens.parquet", glob=False)
            for file in sorted(layout.glob("*.parquet")):
                if file.stem in weights:
                    losses = pl.scan_parquet(file, glob=False)
                    part = pl.concat([tokens, losses], how="horizontal").with_row_index("token")
                    parts.append(
                        part.with_columns(
                            pl.lit(layout.name).alias("layout"),
                            pl.lit(file.stem).alias("cell"),
                            pl.lit(weights[file.stem]).alias("weights_hash"),
                        )
                    )
        if parts:
            return pl.concat(parts)
        columns = {"token": pl.UInt32, **schema.TOKENS, "loss_nats": pl.Float32}
        names: schema.Schema = {"layout": pl.String, "cell": pl.String, "weights_hash": pl.String}
        return schema.empty({**columns, **names}).lazy()

    def flags(self) -> pl.LazyFrame:
        """Checkpoints that look wrong, one row a reason."""
        file = self.path / "flags.parquet"
        frame = read_parquet(file) if file.exists() else schema.empty(schema.FLAGS)
        return schema.conform(frame, schema.FLAGS).lazy()

    def failures(self) -> pl.LazyFrame:
        """Cells that failed and have not succeeded since, with what to do."""
        rows = []
        for file in sorted((self.path / "failures").glob("*.json")):
            try:
                rows.append(json.loads(file.read_text()))
            except ValueError as error:
                raise BadStore(
                    f"cannot read {file.name}: {error}",
                    asked=str(file),
                    remedy="delete this file and run the study again",
                ) from error
        return (
            schema.conform(pl.DataFrame(rows), schema.FAILURES).lazy()
            if rows
            else (schema.empty(schema.FAILURES).lazy())
        )

    def finished(self) -> set[str]:
        """Names of the cells that need no more work."""
        return set(self._measurement_files())

    # ---- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for writing; the index of cells is rebuilt at the end.

        Raises:
            StoreBusy: another run holds it.
        """
        with exclusive(self.path):
            try:
                yield
            finally:
                self._write_index()

    def put_study(self, text: str) -> None:
        """Keep the study file as given."""
        write_text(self.path / "study.toml", text)

    def put_checkpoints(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add checkpoints, or correct the facts of those already there."""
        new = schema.conform(
            pl.DataFrame(rows, schema=schema.CHECKPOINTS), schema.CHECKPOINTS
        ).unique(schema.CHECKPOINT_KEY, keep="last", maintain_order=True)
        old = self.checkpoints().collect()
        kept = old.join(new, on=schema.CHECKPOINT_KEY, how="anti", nulls_equal=True)
        table = pl.concat([kept, new]).sort("family", "run", "step", "source", nulls_last=True)
        _write_table(self.path / "checkpoints.parquet", table)

    def put_flags(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the table of flags."""
        _write_table(self.path / "flags.parquet", pl.DataFrame(rows, schema=schema.FLAGS))

    def put_tokens(self, corpus: str, layout: str, tokens: pl.DataFrame) -> None:
        """Keep what every row of this layout's token losses stands for, once."""
        file = self.path / "token_losses" / slug(corpus) / layout / "tokens.parquet"
        if not file.exists():
            write_parquet(file, schema.conform(tokens, schema.TOKENS))

    def put_items(self, cell: Cell, items: pl.DataFrame) -> None:
        """Keep per-document results of a cell; call before :meth:`put_cell`."""
        file = self.path / "items" / slug(cell.subject) / f"{cell.id}.parquet"
        write_parquet(file, schema.conform(items, schema.ITEMS))

    def put_token_losses(self, cell: Cell, layout: str, losses: np.ndarray) -> None:
        """Keep losses in nats, one a row of the layout; call before :meth:`put_cell`."""
        file = self.path / "token_losses" / slug(cell.subject) / layout / f"{cell.id}.parquet"
        write_parquet(file, pl.DataFrame({"loss_nats": np.asarray(losses, dtype=np.float32)}))

    def put_arrays(self, cell: Cell, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep vectors of a cell; call before :meth:`put_cell`."""
        frame = pl.DataFrame(
            {"name": list(arrays), "values": [np.ravel(a).tolist() for a in arrays.values()]},
            schema={"name": pl.String, "values": pl.List(pl.Float64)},
        )
        write_parquet(self.path / "arrays" / slug(cell.probe) / f"{cell.id}.parquet", frame)

    def put_cell(
        self, cell: Cell, rows: Sequence[Mapping[str, Any]], execution: Mapping[str, Any]
    ) -> None:
        """Finish a cell.

        Args:
            cell: what was measured.
            rows: metric, value, stderr, n and unit of each number.
            execution: code_version, measured_at, seconds, peak_memory.
        """
        frame = pl.DataFrame(rows, schema_overrides=schema.MEASUREMENTS).with_columns(
            cell=pl.lit(cell.id),
            weights_hash=pl.lit(cell.weights_hash),
            probe=pl.lit(cell.probe),
            subject=pl.lit(cell.subject),
        )
        row = {**cell.row(), **execution}
        file = self.path / "measurements" / slug(cell.probe) / f"{cell.id}.parquet"
        write_parquet(
            file,
            schema.conform(frame, schema.MEASUREMENTS),
            {schema.CELL_KEY: json.dumps(row), schema.VERSION_KEY: str(schema.STORE_VERSION)},
        )
        (self.path / "failures" / f"{cell.id}.json").unlink(missing_ok=True)

    def put_cells(self, cells: Sequence[Finished]) -> None:
        """Finish many cells of one probe in one file: all of them or, after a crash, none.

        For imports: a file a cell would cost a flush each. The file's name is a digest of the
        cells' names, so that the same import writes the same file.
        """
        if not cells:
            return
        assert len({done.cell.probe for done in cells}) == 1
        columns = [{**done.cell.row(), **done.execution} for done in cells]
        rows = [
            {**row, **shared}
            for done, shared in zip(cells, columns, strict=True)
            for row in done.rows
        ]
        ids = "\n".join(sorted(str(shared["cell"]) for shared in columns))
        name = f"{_BATCH}{hashlib.sha256(ids.encode()).hexdigest()[:32]}.parquet"
        file = self.path / "measurements" / slug(cells[0].cell.probe) / name
        frame = pl.DataFrame(rows, schema=schema.MEASUREMENTS | schema.CELLS)
        write_parquet(file, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})

    def remove(self, cells: Collection[str]) -> None:
        """Forget finished cells, such as rows of a file that was imported again."""
        files = self._measurement_files()
        for file in dict.fromkeys(files[cell] for cell in cells if cell in files):
            frame = read_parquet(file).filter(~pl.col("cell").is_in(list(cells)))
            if frame.height:
                write_parquet(file, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})
            else:
                file.unlink()

    def put_failure(self, failure: Failure) -> None:
        """Keep why a cell or a checkpoint failed; it is tried again by the next run."""
        text = json.dumps(asdict(failure), indent=1, ensure_ascii=False)
        write_bytes(self.path / "failures" / f"{failure.cell}.json", text.encode())

    def clear_failures(self, names: Collection[str]) -> None:
        """Forget failures of cells that are about to be tried again."""
        for name in names:
            (self.path / "failures" / f"{name}.json").unlink(missing_ok=True)

    # ---- inside

    def _measurement_files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for file in sorted((self.path / "measurements").glob("*/*.parquet")):
            if _is_batch(file):
                cells = read_parquet(file, columns=["cell"])["cell"].unique(maintain_order=True)
                files.update(dict.fromkeys(cells, file))
            else:
                files[file.stem] = file
        return files

    def _index(self) -> pl.DataFrame:
        file = self.path / "cells.parquet"
        if not file.exists():
            return schema.empty(schema.CELLS)
        return schema.conform(read_parquet(file), schema.CELLS)

    def _write_index(self) -> None:
        write_parquet(self.path / "cells.parquet", self.cells().collect())

    def _per_cell(self, folder: Path, columns: schema.Schema) -> pl.LazyFrame:
        weights = self.cells().select("cell", "weights_hash")
        files = sorted(folder.glob("*.parquet"))
        if not files:
            names: schema.Schema = {"cell": pl.String, "weights_hash": pl.String}
            return schema.empty({**columns, **names}).lazy()
        frame = pl.scan_parquet(
            files, hive_partitioning=False, glob=False, include_file_paths="cell"
        )
        return frame.with_columns(pl.col("cell").str.extract(r"([0-9a-f]+)\.parquet$")).join(
            weights, on="cell", how="inner"
        )


def _is_batch(file: Path) -> bool:
    return file.name.startswith(_BATCH)


def _batch_cells(file: Path) -> pl.DataFrame:
    cells = read_parquet(file, columns=list(schema.CELLS)).unique("cell")
    return schema.conform(cells, schema.CELLS)


def _write_table(path: Path, frame: pl.DataFrame) -> None:
    write_parquet(path, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})


def _cell_row(file: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(pl.read_parquet_metadata(file)[schema.CELL_KEY])
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
        raise BadStore(
            f"{file.name} is damaged or was not written by isoloss.",
            asked=str(file),
            remedy="delete this file and run the study again: only its cell is measured anew",
        ) from error
    return row
