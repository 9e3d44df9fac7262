"""What an export wrote, and what it could not say."""

from __future__ import annotations

from dataclasses import dataclass

from isoloss.errors import BadRequest
from isoloss.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What an export wrote.

    Attributes:
        out: the folder.
        files: written.
        checkpoints: with at least one number in them.
        numbers: values written.
        left_out: values that the format has no place for.
    """

    out: str
    files: int
    checkpoints: int
    numbers: int
    left_out: int = 0


def nothing_to_write(store: Store, what: str) -> BadRequest:
    """The error of an export that would be empty."""
    return BadRequest(
        f"the store holds no {what} to export.",
        asked=str(store.place),
        remedy="run a study with [probe.task_score], or export --to csv: every number goes there",
    )
