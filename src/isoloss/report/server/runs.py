"""The runs that are served: stores by name, folders and URLs, and folders that hold several."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from isoloss.errors import BadRequest, CheckpointMissing, nearest_name
from isoloss.places import shown, url_of
from isoloss.report.server.served import Served, name_of
from isoloss.store.files import slug
from isoloss.store.store import Store

_MOST = 1000  # entries of a folder that are looked at


class Runs:
    """Stores, each under a name of its own; a folder of stores is looked into again and again.

    Args:
        named: stores, at folders or URLs, or folders that hold stores.
        loss: the loss axis of all.
        laws: whether laws are asked.
        seed: of their draws.

    Raises:
        BadRequest: there is no store.
    """

    def __init__(
        self, named: Sequence[str | Path], *, loss: str | None = None, laws: bool = True,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self._named = list(dict.fromkeys(url_of(one) or Path(one).resolve() for one in named))
        self._loss, self._laws, self._seed = loss, laws, seed
        self._lock = threading.Lock()
        self._served: dict[str | Path, Served] = {}
        for one in self._named:
            if not any(_stores(one)):
                raise BadRequest(
                    f"there is no store at {shown(one)}, and none in it.",
                    asked=shown(one),
                    remedy="name stores that `isoloss run --out` or `isoloss import --out` wrote,"
                    " or a folder that holds them; a store is there as soon as its run has begun",
                )
        self.all()

    def all(self) -> dict[str, Served]:
        """Every run by name, those that came since the last look among them."""
        with self._lock:
            there = [store for one in self._named for store in self._seen(one)]
            for store in there:
                if store not in self._served:
                    self._served[store] = Served(
                        store, self._name(store), loss=self._loss, laws=self._laws, seed=self._seed
                    )
            return {self._served[store].name: self._served[store] for store in there}

    def _seen(self, named: str | Path) -> Iterator[str | Path]:
        if named in self._served:  # also where it is damaged, or away for a moment
            yield named
        else:
            yield from _stores(named)

    def get(self, name: str) -> Served:
        """A run by its name.

        Raises:
            CheckpointMissing: none has it.
        """
        known = self.all()
        if name not in known:
            raise CheckpointMissing(
                "no run of this name is served.",
                asked=name,
                nearest=nearest_name(name, known) or ", ".join(list(known)[:6]) or None,
                remedy="GET /api/runs lists them",
            )
        return known[name]

    def _name(self, named: str | Path) -> str:
        """Its name as far as an address can hold it; a number tells equal ones apart."""
        first = name = slug(name_of(named))
        taken, number = {one.name for one in self._served.values()}, 2
        while name in taken:
            name, number = f"{first}-{number}", number + 1
        return name


def _stores(named: str | Path) -> Iterator[str | Path]:
    if Store.stands_at(named):
        yield named
    elif isinstance(named, Path) and named.is_dir():
        inside = sorted(named.iterdir())[:_MOST]
        yield from (path for path in inside if path.is_dir() and Store.stands_at(path))
