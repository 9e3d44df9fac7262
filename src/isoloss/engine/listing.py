"""What stands in a store, a folder or a hub repository: checkpoints, sizes, gaps, progress."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.errors import CheckpointMissing, IsolossError, nearest_name
from isoloss.family import Folder, Remote
from isoloss.models.folders import find_folders
from isoloss.models.inspect import describe
from isoloss.places import shown, url_of
from isoloss.store import Store

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Checkpoints as rows, and the steps that seem to be missing between them."""

    rows: list[dict[str, Any]]
    gaps: str | None


def listing(what: str, *, revision: str) -> Listing:
    """List the checkpoints of a store, a folder or a hub repository.

    Args:
        what: a store, a folder of checkpoints (or one checkpoint), either also at a URL, or
            OWNER/NAME.
        revision: pattern of a repository's revisions.

    Returns:
        Rows with run, step, sizes and digests as far as they are known without a download.

    Raises:
        CheckpointMissing: there is nothing of the kind.
    """
    if url := url_of(what):
        return _of_store(Store(url)) if Store.stands_at(url) else _of_remote(url)
    path = Path(what)
    if (path / "checkpoints.parquet").is_file():
        return _of_store(Store(path))
    if path.is_dir():
        return _of_folder(path)
    _may_be_on_a_hub(what, path)
    return _of_hub(what, revision)


def status(store: Store) -> dict[str, Any]:
    """How far a store is.

    Args:
        store: which one.

    Returns:
        Counts of checkpoints, cells, failures and flags, the facts that are unknown, and the
        first failures with their remedy.
    """
    checkpoints = store.checkpoints().collect()
    failures = store.failures().collect()
    flags = store.flags().collect()
    unknown = {
        name: count
        for name in checkpoints.columns
        if (count := checkpoints[name].null_count()) and name not in {"parent", "commit"}
    }
    return {
        "checkpoints": checkpoints.height,
        "cells": store.cells().select(pl.len()).collect().item(),
        "failed": failures.height,
        "flagged": flags.select("run", "step").n_unique() if flags.height else 0,
        "unknown": unknown,
        "failures": [
            # a line each: a reason may have several
            f"{row['checkpoint']} {row['probe'] or ''}: {' '.join(row['reason'].split())}"
            f" -> {row['remedy']}"
            for row in failures.head(20).iter_rows(named=True)
        ],
        "flags": [
            f"{row['run']}@{row['step']} {row['kind']}: {row['detail']}"
            for row in flags.head(20).iter_rows(named=True)
        ],
    }


def gaps(steps: Iterable[int]) -> list[tuple[int, int]]:
    """Where steps are missing: spacings over 1.5 times both of their neighbours.

    Log-spaced and evenly spaced checkpoints have none.

    >>> gaps([0, 1000, 2000, 4000, 5000, 6000])
    [(2000, 4000)]
    >>> gaps([1, 2, 4, 8, 16, 32])
    []
    """
    have = sorted(set(steps))
    found = []
    for i in range(1, len(have) - 2):
        before, here, after = (have[j + 1] - have[j] for j in (i - 1, i, i + 1))
        if here > 1.5 * max(before, after):
            found.append((have[i], have[i + 1]))
    return found


def _of_store(store: Store) -> Listing:
    counts = (
        store.measurements()
        .group_by("family", "run", "step")
        .agg(pl.col("cell").n_unique().alias("cells"))
    )
    flags = (
        store.flags().group_by("family", "run", "step").agg(pl.col("kind").sort().str.join(", "))
    )
    frame = (
        store.checkpoints()
        .join(counts, on=["family", "run", "step"], how="left", nulls_equal=True)
        .join(flags, on=["family", "run", "step"], how="left", nulls_equal=True)
        .select(
            "family",
            "run",
            "step",
            "tokens_seen",
            "params_total",
            pl.col("cells").fill_null(0),
            pl.col("kind").alias("flags"),
            pl.col("weights_hash").str.slice(0, 12).alias("weights"),
            "source",
        )
        .sort("family", "run", "step", nulls_last=True)
        .collect()
    )
    texts = []
    for (run,), part in frame.group_by("run", maintain_order=True):
        texts += [f"{run} {a}..{b}" for a, b in gaps(part["step"].drop_nulls().to_list())]
    return Listing(rows=frame.to_dicts(), gaps=", ".join(texts) or None)


def _of_folder(path: Path) -> Listing:
    if (path / "config.json").is_file():
        found = find_folders(path)
    else:
        found = tuple(f for f in find_folders(path / "*") if (f.path / "config.json").is_file())
    if not found:
        raise CheckpointMissing(
            f"{path} holds no checkpoint in Hugging Face format.",
            asked=str(path),
            remedy="name a folder with config.json, or one whose subfolders have it",
        )
    rows = []
    for facts in found:
        row: dict[str, Any] = {"checkpoint": facts.path.name, "step": facts.step}
        row["tokens_seen"] = facts.tokens_seen
        try:
            known = describe(Folder(path=facts.path))
        except IsolossError as error:
            row |= {"params_total": None, "bytes": None, "weights": f"unreadable: {error.what}"}
        else:
            row |= {
                "params_total": known.params_total,
                "bytes": known.bytes,
                "weights": known.weights_hash[:12],
            }
        rows.append(row)
    return Listing(rows=rows, gaps=_gap_text(f.step for f in found))


def _of_remote(url: str) -> Listing:
    from isoloss.models.remote import RemoteFiles, find_remote

    rows = []
    found = find_remote(url if "*" in url else f"{url}/*")
    for one in found:
        sizes = RemoteFiles(Remote(url=one.url)).sizes()
        rows.append(
            {
                "checkpoint": shown(one.url).rpartition("/")[2],
                "step": one.facts.step,
                "tokens_seen": one.facts.tokens_seen,
                "files": len(sizes),
                "bytes": sum(sizes.values()),
            }
        )
    return Listing(rows=rows, gaps=_gap_text(one.facts.step for one in found))


def _may_be_on_a_hub(what: str, path: Path) -> None:
    # of a folder that is there the name is a mistake, and no owner on a hub
    if _HUB_ID.fullmatch(what) and not path.parent.is_dir():
        return
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = nearest_name(path.name, [one.name for one in beside if one.is_dir()])
    raise CheckpointMissing(
        f"there is no folder {what}.",
        asked=what,
        nearest=None if near is None else str(path.parent / near),
        remedy="name a store, a folder with checkpoints, or OWNER/NAME of a hub repository",
    )


def _of_hub(repo: str, pattern: str) -> Listing:
    # the hub client takes a second to import
    from isoloss.family import Hub
    from isoloss.models.files import open_files
    from isoloss.models.hub import list_revisions
    from isoloss.models.inspect import shards_of

    rows = []
    revisions = list_revisions(repo, pattern)
    for revision in revisions:
        source = Hub(repo=repo, revision=revision.name, commit=revision.commit)
        shards = shards_of(open_files(source))
        rows.append(
            {
                "revision": revision.name,
                "step": revision.step,
                "shards": len(shards),
                "bytes": sum(shard.bytes for shard in shards),
                "commit": (revision.commit or "")[:12],
            }
        )
    return Listing(rows=rows, gaps=_gap_text(r.step for r in revisions))


def _gap_text(steps: Iterable[int | None]) -> str | None:
    found = gaps(step for step in steps if step is not None)
    return ", ".join(f"{a}..{b}" for a, b in found) or None
