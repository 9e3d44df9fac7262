"""SQL over a store, by the same views that Python reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl

from isoloss.errors import BadRequest, nearest_name
from isoloss.store.store import Store

VIEWS = ("checkpoints", "cells", "measurements", "items", "failures", "flags")


def query(store: Store, statement: str, *, most: int | None = None) -> pl.DataFrame:
    """Answer one SELECT over the views of a store.

    Args:
        store: where the rows are.
        statement: SQL as Polars understands it; tables are the names in :data:`VIEWS`. ``items``
            holds the documents of every task, with the task's name in ``task``.
        most: rows to compute; None computes all.

    Returns:
        The rows asked for.

    Raises:
        BadRequest: the statement does not parse or names an unknown table or column.
    """
    views: dict[str, Callable[[], pl.LazyFrame]] = {
        "checkpoints": store.checkpoints,
        "cells": store.cells,
        "measurements": store.measurements,
        "items": partial(_items, store),
        "failures": store.failures,
        "flags": store.flags,
    }
    # a view that is not named need not be looked up
    named = statement.lower()
    context = pl.SQLContext({name: view() for name, view in views.items() if name in named})
    try:
        found = context.execute(statement)
        return (found if most is None else found.head(most)).collect()
    except pl.exceptions.PolarsError as error:
        words = statement.replace(",", " ").split()
        near = {name for word in words if (name := nearest_name(word.lower(), VIEWS))}
        raise BadRequest(
            f"the query cannot be answered: {str(error).splitlines()[0]}",
            asked=statement,
            nearest=", ".join(sorted(near)) or None,
            remedy=f"tables are {', '.join(VIEWS)}; "
            'their columns: isoloss sql RUN "SELECT * FROM measurements LIMIT 1"',
        ) from error


def _items(store: Store) -> pl.LazyFrame:
    scored = store.cells().filter(pl.col("probe") == "task_score").select("subject").unique()
    tasks = sorted(scored.collect()["subject"].to_list())
    frames = [store.items(task).with_columns(task=pl.lit(task)) for task in tasks]
    if frames:
        return pl.concat(frames, how="diagonal_relaxed")
    return store.items("").with_columns(task=pl.lit(None, dtype=pl.String))
