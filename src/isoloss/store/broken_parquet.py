"""Parquet files that may be anything: read by Arrow, which refuses what Polars dies of.

A page that claims more values than memory can hold ends the whole process in Polars' reader
("memory allocation of 849222963200 bytes failed"), and no exception is raised.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl


def read_any_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file that may be damaged, or made to do damage.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read, whatever is wrong with it.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)  # offsets and text, which Polars takes on trust
        frame = pl.from_arrow(table)
    except (pyarrow.ArrowException, pl.exceptions.PolarsError, MemoryError, ValueError,
            TypeError, NotImplementedError, OSError) as error:  # fmt: skip
        lines = str(error).splitlines() or [type(error).__name__]
        raise OSError(lines[0]) from error
    assert isinstance(frame, pl.DataFrame)  # of a table it is always one
    return frame
