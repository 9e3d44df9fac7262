"""Stores compared as tables: equal in all columns but those of one execution."""

from pathlib import Path

import polars as pl

from isoloss.store import Store
from isoloss.store.schema import VOLATILE


def tables(path: Path) -> dict[str, pl.DataFrame]:
    """Every table of a store, sorted, without the columns of one execution."""
    store = Store(path)
    cells = store.cells().collect()
    tasks = sorted(set(cells.filter(probe="task_score")["subject"]))
    corpora = sorted(set(cells.filter(probe="token_loss")["subject"]))
    probes = sorted(set(cells["probe"]))
    frames = {
        "checkpoints": store.checkpoints().collect(),
        "cells": cells.drop(VOLATILE),
        "measurements": store.measurements().collect(),
        "flags": store.flags().collect(),
        "failures": store.failures().collect().drop("failed_at"),
    }
    frames |= {f"items {task}": store.items(task).collect() for task in tasks}
    frames |= {f"arrays {probe}": store.arrays(probe).collect() for probe in probes}
    frames |= {f"losses {corpus}": store.token_losses(corpus).collect() for corpus in corpora}
    return {name: frame.sort(_plain(frame), nulls_last=True) for name, frame in frames.items()}


def _plain(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if not kind.is_nested()]


def assert_equal_tables(a: Path, b: Path) -> None:
    left, right = tables(a), tables(b)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].equals(right[name]), name
