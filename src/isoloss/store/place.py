"""Where a store is: a folder, or a URL and the folder of this machine that is kept like it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from isoloss.errors import BadRequest, nearest_name
from isoloss.places import shown, url_of
from isoloss.store.leases import Leases
from isoloss.store.lock import TableLock, exclusive, shared

if TYPE_CHECKING:
    from isoloss.store.mirror import Mirror

LEASES_FOLDER = "leases"
"""Of a store: which process is at which checkpoint."""

_TABLE = "checkpoints.parquet"


class Place:
    """Where a store is; ``str`` gives it as it may be shown.

    Args:
        named: the folder or the URL.

    Attributes:
        path: the folder of this machine.
        address: by which another process opens the store; it may hold a login.
        tables: waits until nobody else changes a table.
    """

    def __init__(self, named: str | Path) -> None:
        url = url_of(named)
        self._mirror = None if url is None else _mirror(url)
        self._shown = shown(named)
        self.path = Path(named) if self._mirror is None else self._mirror.root
        self.address = url or os.path.abspath(named)
        self.tables = TableLock(self.path, self._mirror)

    def __str__(self) -> str:
        return self._shown

    def stands(self) -> bool:
        """Whether there is a store."""
        if self._mirror is not None:
            return self._mirror.remote.entry(_TABLE) is not None
        return (self.path / _TABLE).exists()

    def near(self) -> str | None:
        """The store of this machine that may be meant: one in the folder, or of a like name."""
        if self._mirror is not None:
            return None
        inside = sorted(self.path.glob(f"*/{_TABLE}"))
        if inside:
            return ", ".join(str(table.parent) for table in inside[:5])
        beside = {t.parent.name: t.parent for t in self.path.parent.glob(f"*/{_TABLE}")}
        name = nearest_name(self.path.name, beside)
        return None if name is None else str(beside[name])

    def refresh(self) -> int:
        """Fetch what others have put since; the number of files. A folder here has it already."""
        return 0 if self._mirror is None else self._mirror.pull()

    def part(self, *names: str, only: Collection[str] | None = None) -> Path:
        """The folder of a part of the store, fetched first where that is at a URL.

        Args:
            names: of the folders that lead to it, such as ``"items", "arc_easy"``.
            only: cells whose files alone are fetched; None takes all.

        Raises:
            PlaceUnreachable: the URL does not answer.
        """
        if self._mirror is not None:
            self._mirror.pull_part("/".join(names), only)
        return self.path.joinpath(*names)

    def stems(self, *names: str) -> set[str]:
        """Names of the Parquet files of a part, which is not fetched for it."""
        if self._mirror is not None:
            return {Path(name).stem for name in self._mirror.remote.listing("/".join(names))}
        return {file.stem for file in self.path.joinpath(*names).glob("*.parquet")}

    @property
    def holds_claims(self) -> bool:
        """Whether several processes can share a study out here."""
        return self._mirror is None or self._mirror.remote.claims

    def leases(self) -> Leases:
        """Claims on checkpoints, for processes that measure one study.

        Raises:
            BadRequest: the protocol of the URL cannot keep two from claiming the same.
        """
        if self._mirror is None:
            return Leases(self.path / LEASES_FOLDER)
        if not self.holds_claims:
            raise BadRequest(
                "this protocol cannot hold claims, so that a store there has one writer.",
                asked=str(self),
                nearest="--shard I/N, where each shard measures its own checkpoints and no more",
                remedy="take s3://, gs://, sftp:// or a shared folder, or drop --engine ray",
            )
        return self._mirror.leases()

    @contextmanager
    def held(self, *, together: bool) -> Iterator[None]:
        """Hold the store for writing, alone or with others that hold it so.

        What an earlier run could not send to a URL is sent first.

        Raises:
            StoreBusy: another process holds it.
        """
        with (shared if together else exclusive)(self.path):
            if self._mirror is None:
                yield
                return
            with self._mirror.held(together=together):
                self._mirror.push()
                yield
                self._mirror.put_cells()


def _mirror(url: str) -> Mirror:
    from isoloss.store.mirror import mirror_of  # with the libraries of file systems

    return mirror_of(url)
