"""The store: a folder of Parquet files, and the only way to them.

A cell is finished when its measurement file stands: it is written last, after the cell's items,
token losses and arrays, so a process that dies at any moment leaves the cell either finished or
to be measured again. The cell's own row travels in that file's metadata; an index made from these
files spares readers to open each (:mod:`isoloss.store.index`). An import finishes thousands of
cells at once: they share one file, a batch, whose rows carry their cells' columns.
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
from isoloss.safe_text import redacted
from isoloss.shown import Shown
from isoloss.store import schema
from isoloss.store.cell import Cell, Failure, Finished, read_failure
from isoloss.store.files import (
    make_folder,
    read_parquet,
    remove,
    slug,
    told,
    write_bytes,
    write_parquet,
    write_text,
)
from isoloss.store.index import BATCH, Index
from isoloss.store.place import Place

PARTS = ("items", "token_losses", "arrays")
"""Folders of what cells give beside their numbers."""

_MANY = 1000  # files that were fetched just now, from which on a look into each is slow


class Store(Shown):
    """Results of one or more studies of a family.

    Reading needs no lock and may go on while a run writes. Every method that writes must be
    called inside :meth:`writing`.

    A store at a URL is read and written in a folder of this machine that is kept like the one
    there; see :class:`isoloss.store.mirror.Mirror`.

    Args:
        path: the folder or the URL; see :meth:`create` for a new one.

    Attributes:
        path: the folder of this machine.
        place: where the store is.
        tables: waits until nobody else changes a table, for what reads one and writes it anew.

    Raises:
        BadStore: no store stands there, or a newer version of isoloss wrote it.
        PlaceUnreachable: the URL does not answer.
    """

    def __init__(self, path: str | Path) -> None:
        self.place = Place(path)
        self.path, self.tables = self.place.path, self.place.tables
        self._index, self._writing = Index(self.path), False
        if self.place.refresh() >= _MANY:
            self._write_index()
        self._check_version()

    @classmethod
    def create(cls, path: str | Path) -> Store:
        """Open the store at ``path``, making an empty one where there is none."""
        place = Place(path)
        if not place.stands():
            with told(place.path):
                make_folder(place.path)
            with place.tables():
                if not place.stands():  # another shard was first
                    empty = schema.empty(schema.CHECKPOINTS)
                    _write_table(place.path / "checkpoints.parquet", empty)
        return cls(path)

    @staticmethod
    def stands_at(path: str | Path) -> bool:
        """Whether there is a store."""
        return Place(path).stands()

    def _check_version(self) -> None:
        table = self.path / "checkpoints.parquet"
        if not table.is_file():
            raise BadStore(
                f"there is no store at {self.place}.",
                asked=str(self.place),
                nearest=self.place.near(),
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
                f"the store at {self.place} was written by a newer isoloss.",
                asked=f"store version {written}; this isoloss reads up to {schema.STORE_VERSION}",
                remedy="pip install --upgrade isoloss",
            )

    def shown_facts(self) -> list[tuple[str, object]]:
        """Where it is and how much is in it; a damaged one still says where it is."""
        rows: list[tuple[str, object]] = [("path", str(self.path))]
        try:
            points, cells = self.checkpoints().collect(), self.cells().collect()
            rows += [("families", points["family"].unique().sort().to_list()),
                     ("runs", points.select("family", "run").n_unique()),
                     ("checkpoints", points.height), ("cells", cells.height),
                     ("subjects", cells["subject"].unique().drop_nulls().sort().to_list()),
                     ("failures", self.failures().collect().height)]  # fmt: skip
        except BadStore as error:
            rows.append(("damaged", error.what))
        return rows

    # ---- reading

    def checkpoints(self) -> pl.LazyFrame:
        """One row a checkpoint, by family, run and step."""
        frame = read_parquet(self.path / "checkpoints.parquet")
        return schema.conform(frame, schema.CHECKPOINTS).lazy()

    def cells(self) -> pl.LazyFrame:
        """One row a finished cell, with every setting as a column."""
        return self._index.contents().cells.lazy()

    def measurements(self) -> pl.LazyFrame:
        """Measured values joined with their checkpoints and settings: the way to read.

        Two checkpoints of equal weights both get the row. A cell whose weights no checkpoint
        claims any more is left out.
        """
        contents = self._index.contents()
        names = ["cell", *schema.SETTINGS]
        settings = contents.cells.lazy().select(names).rename({"source": "cell_source"})
        return (
            contents.rows.join(settings, on="cell", how="inner")
            .join(self.checkpoints(), on="weights_hash", how="inner")
            .sort("family", "run", "step", "probe", "subject", "cell", "metric", nulls_last=True)
        )

    def items(self, task: str, cells: Collection[str] | None = None) -> pl.LazyFrame:
        """Per-document results of one task, with ``cell`` and ``weights_hash``.

        Args:
            task: its name in the study.
            cells: only these, whose files alone are opened; None takes all.
        """
        folder = self.place.part("items", slug(task), only=cells)
        return self._per_cell(folder, schema.ITEMS, cells)

    def cells_with_items(self, task: str) -> set[str]:
        """Names of the finished cells of a task whose documents are kept."""
        return self.place.stems("items", slug(task)) & self.finished()

    def arrays(self, probe: str) -> pl.LazyFrame:
        """Vectors of one probe: ``name``, ``values`` (a list), ``cell``, ``weights_hash``."""
        columns: schema.Schema = {"name": pl.String, "values": pl.List(pl.Float64)}
        return self._per_cell(self.place.part("arrays", slug(probe)), columns)

    def token_losses(self, corpus: str, tokenizer: str | None = None) -> pl.LazyFrame:
        """Losses of every scored token of a corpus at every checkpoint, in long form.

        Args:
            corpus: the corpus's name in the study.
            tokenizer: a tokenizer hash, where the corpus was laid out under several.

        Returns:
            ``token`` (row in the layout), ``token_id``, ``document``, ``position``, ``bytes``,
            ``loss_nats`` (float32), ``layout``, ``cell``, ``weights_hash``.
        """
        folder = self.place.part("token_losses", slug(corpus))
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
        files = sorted((self.path / "failures").glob("*.json"))
        finished = self.finished() if files else set()
        for file in files:
            if file.stem in finished:
                continue  # deleted, and a loss of power brought it back
            try:
                rows.append(read_failure(file))
            except FileNotFoundError:
                continue  # it succeeded just now
            except ValueError as error:
                raise BadStore(
                    f"cannot read {file.name}: {error}",
                    asked=str(file),
                    remedy="delete this file and run the study again",
                ) from error
        return pl.DataFrame(rows, schema=schema.FAILURES).lazy()

    def finished(self) -> set[str]:
        """Names of the cells that need no more work."""
        return set(self._index.contents().files)

    # ---- writing

    @contextmanager
    def writing(self, *, together: bool = False) -> Iterator[None]:
        """Hold the store for writing; the index of cells is rebuilt at the end.

        Inside a block of the same object this does nothing more.

        Args:
            together: with others that hold it so, such as the shards of one study.

        Raises:
            StoreBusy: another run holds it.
        """
        if self._writing:
            yield
            return
        with self.place.held(together=together):
            self._writing = True
            try:
                yield
            finally:
                self._writing = False
                self._write_index()

    def put_study(self, text: str) -> None:
        """Keep the study file as given, but for secrets: a store is passed on."""
        write_text(self.path / "study.toml", redacted(text))

    def put_checkpoints(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add checkpoints, or correct the facts of those already there."""
        new = schema.conform(
            pl.DataFrame(rows, schema=schema.CHECKPOINTS), schema.CHECKPOINTS
        ).unique(schema.CHECKPOINT_KEY, keep="last", maintain_order=True)
        with self.tables():
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
        remove(self.path / "failures" / f"{cell.id}.json")

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
        name = f"{BATCH}{hashlib.sha256(ids.encode()).hexdigest()[:32]}.parquet"
        file = self.path / "measurements" / slug(cells[0].cell.probe) / name
        frame = pl.DataFrame(rows, schema=schema.MEASUREMENTS | schema.CELLS)
        write_parquet(file, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})

    def remove(self, cells: Collection[str]) -> None:
        """Forget finished cells, such as rows of a file that was imported again."""
        files = self._index.contents().files
        for file in dict.fromkeys(files[cell] for cell in cells if cell in files):
            frame = read_parquet(file).filter(~pl.col("cell").is_in(list(cells)))
            if frame.height:
                write_parquet(file, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})
            else:
                remove(file)

    def put_failure(self, failure: Failure) -> None:
        """Keep why a cell or a checkpoint failed; it is tried again by the next run."""
        text = json.dumps(asdict(failure), indent=1, ensure_ascii=False)
        write_bytes(self.path / "failures" / f"{failure.cell}.json", text.encode())

    def clear_failures(self, names: Collection[str]) -> None:
        """Forget failures of cells that are about to be tried again."""
        for name in names:
            if name == slug(name):  # out of a file that may be anyone's: it must not lead away
                remove(self.path / "failures" / f"{name}.json")

    # ---- inside

    def _write_index(self) -> None:
        with self.tables.here():
            self._index.write()

    def _per_cell(
        self, folder: Path, columns: schema.Schema, cells: Collection[str] | None = None
    ) -> pl.LazyFrame:
        weights = self.cells().select("cell", "weights_hash")
        files = sorted(folder.glob("*.parquet"))
        if cells is not None:
            files = [file for file in files if file.stem in cells]
        if not files:
            names: schema.Schema = {"cell": pl.String, "weights_hash": pl.String}
            return schema.empty({**columns, **names}).lazy()
        frame = pl.scan_parquet(
            files, hive_partitioning=False, glob=False, include_file_paths="cell"
        )
        return frame.with_columns(pl.col("cell").str.extract(r"([0-9a-f]+)\.parquet$")).join(
            weights, on="cell", how="inner"
        )


def _write_table(path: Path, frame: pl.DataFrame) -> None:
    write_parquet(path, frame, {schema.VERSION_KEY: str(schema.STORE_VERSION)})
