"""One run that is served: its page, its state and what the laws say, each made when it changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from isoloss.engine.beacon import Beacon, Watch
from isoloss.errors import IsolossError
from isoloss.places import url_of
from isoloss.report.data import ReportData, collect
from isoloss.report.pack import to_json
from isoloss.report.page import findings_of, packed_page, render
from isoloss.report.section import sections
from isoloss.report.server import answers
from isoloss.report.server.fresh import Fresh, Held, stamp_of
from isoloss.report.text import shown
from isoloss.store.place import Place
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store
from isoloss.studies.findings import Findings

_REST_SECONDS = 1.0
_SHARE = 3.0  # at most a quarter of one core: a run may go on beside it
_LAWS_REST_SECONDS = 10.0
_LAWS_SHARE = 4.0  # laws take at most a fifth of one core from the run beside them
_FETCH_SECONDS = 30.0
_FAILURES = 5
_RECENT = 20  # cells whose tokens make the rate
_VERSION = 'data-version=""'
_DATA = '<script type="application/json" id="data">'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """A page as it is served.

    Attributes:
        version: changes with its data or its words.
        html: all of it.
        words: the same without data and scripts.
        data: what its figures are drawn from, JSON.
        source: the store as it was read.
    """

    version: str
    html: bytes
    words: bytes
    data: bytes
    source: ReportData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """Counts of a store, and its latest failures."""

    checkpoints: int
    cells: int
    failed: int
    flagged: int
    tokens_per_second: float | None
    measured_at: str | None
    failures: tuple[answers.Failure, ...]


class _Stamps(NamedTuple):
    """Of the store, of its counts, and of its page, which laws that were asked make another."""

    store: str
    facts: tuple[str, float]
    page: tuple[str, object]


class Served:
    """One run.

    Args:
        named: the store's folder or URL.
        name: in addresses; letters, digits, ``.``, ``_`` and ``-`` alone.
        loss: the loss axis, as in :func:`isoloss.report.write`.
        laws: whether laws are asked.
        seed: of their draws.
    """

    def __init__(
        self, named: str | Path, name: str, *, loss: str | None, laws: bool, seed: int
    ) -> None:
        self.name, self.title = name, shown(name_of(named))
        self._named, self._place = named, Place(named)
        self._is_away = url_of(named) is not None
        self._loss, self._with_laws, self._seed = loss, laws, seed
        self._opened: Store | None = None
        self._watch = Watch(self._place.path)
        self._facts = Fresh(self._read_facts, rest=_REST_SECONDS, share=_SHARE)
        self._page = Fresh(self._make_page, rest=_REST_SECONDS, share=_SHARE)
        self._laws = Fresh(self._ask_laws, rest=_LAWS_REST_SECONDS, share=_LAWS_SHARE)

    @property
    def store(self) -> Store:
        """The store, opened when it can be.

        Raises:
            BadStore: there is none, or it cannot be read.
        """
        if self._opened is None:
            self._opened = Store(self._named)
        return self._opened

    @property
    def address(self) -> str:
        """By which another process opens the store; it may hold a login."""
        return self._place.address

    def page(self) -> Page:
        """The page, as new as it is made; the first time it is waited for.

        Raises:
            IsolossError: it could not be made, and never before either.
        """
        return self._page.wait(self._stamps().page)

    def status(self, *, wait: bool = False) -> answers.Status:
        """How far the run is.

        Args:
            wait: for the counts, where they were never read before.
        """
        stamps = self._stamps()
        if wait:
            try:
                self._facts.wait(stamps.facts)
            except IsolossError:
                pass  # it stands in the answer
        facts, page = self._facts.now(stamps.facts), self._page.now(stamps.page)
        told = facts.value
        beacons = self._watch.look()
        there = [beacon for beacon, is_there in beacons if is_there]
        count = _count(there or [beacon for beacon, _ in beacons], told)
        rate = sum(beacon.cells_per_minute or 0.0 for beacon in there) or None
        left = 60.0 * count.pending / rate if count and count.pending and rate else None
        problem = facts.problem or page.problem or self._laws_held(stamps.store).problem
        return answers.Status(
            run=self.name,
            title=self.title,
            state="running" if there else "stopped" if count and count.pending else "idle",
            checkpoints=told and told.checkpoints,
            cells=told and told.cells,
            total=count and count.total,
            done=count and count.done,
            pending=count and count.pending,
            failed=told and told.failed,
            flagged=told and told.flagged,
            cells_per_minute=rate,
            tokens_per_second=told and told.tokens_per_second,
            seconds_left=left,
            measured_at=told and told.measured_at,
            processes=[_process(beacon, is_there) for beacon, is_there in beacons],
            failures=list(told.failures) if told else [],
            page=page.value.version if page.value else None,
            laws=self._laws_state(stamps.store),
            problem=None if problem is None else problem_of(problem),
        )

    def _stamps(self) -> _Stamps:
        stamp = stamp_of(self._place.path)
        # what others put at a URL is seen when it is fetched
        fetched = time.monotonic() // _FETCH_SECONDS if self._is_away else 0.0
        return _Stamps(stamp, (stamp, fetched), (stamp, self._laws_held(stamp).stamp))

    def _laws_held(self, stamp: str) -> Held[list[Findings]]:
        if not self._with_laws:
            return Held(None, None, None, False)
        return self._laws.now(stamp)

    def _laws_state(self, stamp: str) -> str:
        if not self._with_laws:
            return "off"
        held = self._laws.now(stamp)
        if held.stamp == stamp:
            return "up to date"
        if held.is_busy:
            return "being asked"
        return "waiting" if held.value is None else "behind"

    def _ask_laws(self) -> list[Findings]:
        data = collect(self.store, loss=self._loss)
        return findings_of(self.store, data, laws=True, seed=self._seed)

    def _make_page(self) -> Page:
        data = collect(self.store, loss=self._loss)
        kept = findings_of(self.store, data, laws=False, seed=self._seed)
        asked = self._laws.peek() or []
        names = {one.study for one in kept}
        told = sections([*(one for one in asked if one.study not in names), *kept], data.runs)
        packed = packed_page(data, told)
        html, text = render(data, packed, told, live=True), to_json(packed)
        version = hashlib.sha256(html.encode()).hexdigest()[:16]
        # no name can hold these marks: the page writes "<" and quotes of a name otherwise
        html = html.replace(_VERSION, _VERSION.replace('""', f'"{version}"'), 1)
        return Page(
            version=version,
            html=html.encode(),
            words=html.partition(_DATA)[0].encode(),
            data=text.encode(),
            source=data,
        )

    def _read_facts(self) -> Facts:
        store = self.store
        store.place.refresh()
        failures = store.failures().collect().sort("failed_at", descending=True)
        flags = store.flags().collect()
        cells = store.cells().collect()
        return Facts(
            checkpoints=store.checkpoints().collect().height,
            cells=cells.height,
            failed=failures.height,
            flagged=flags.select("family", "run", "step").n_unique() if flags.height else 0,
            tokens_per_second=_tokens_per_second(store, cells),
            measured_at=cells["measured_at"].drop_nulls().max() if cells.height else None,  # type: ignore[arg-type]
            failures=tuple(
                answers.Failure(**row)
                for row in failures.head(_FAILURES).fill_null("").iter_rows(named=True)
            ),
        )


def name_of(named: str | Path) -> str:
    """The last part of a folder's path, or of a URL.

    >>> name_of("s3://bucket/runs/7b")
    '7b'
    """
    url = url_of(named)
    return Path(named).resolve().name if url is None else url.rpartition("/")[2]


def problem_of(error: IsolossError) -> answers.Problem:
    """An error as it is answered."""
    return answers.Problem(
        error=type(error).__name__,
        what=error.what,
        asked=error.asked,
        nearest=error.nearest,
        remedy=error.remedy,
    )


class _Count(NamedTuple):
    total: int
    done: int
    pending: int


def _count(beacons: Sequence[Beacon], facts: Facts | None) -> _Count | None:
    """Cells of the largest study told of: what came into the store since it began is done."""
    if not beacons or facts is None:
        return None
    one = max(beacons, key=lambda beacon: beacon.cells)
    done = min(max(one.finished + facts.cells - one.in_store, 0), one.cells)
    failed = sum(beacon.failed for beacon in beacons)
    return _Count(one.cells, done, max(one.cells - done - failed, 0))


def _process(beacon: Beacon, is_there: bool) -> answers.Process:
    return answers.Process(
        host=beacon.host,
        process=beacon.process,
        is_there=is_there,
        study=beacon.study,
        seconds=beacon.seconds,
        done=beacon.done,
        failed=beacon.failed,
        cells_per_minute=beacon.cells_per_minute,
        checkpoint=beacon.checkpoint,
        checkpoint_seconds=beacon.checkpoint_seconds,
        note=beacon.note,
    )


def _tokens_per_second(store: Store, cells: pl.DataFrame) -> float | None:
    """Tokens of the corpora read last by the seconds that they took."""
    last = (
        cells.filter(pl.col("probe") == LOSS_PROBE, pl.col("seconds") > 0)
        .sort("measured_at", nulls_last=False)
        .tail(_RECENT)
        .select("cell", "seconds")
    )
    if last.is_empty():
        return None
    rows = (
        store.measurements()
        .filter(pl.col("probe") == LOSS_PROBE, pl.col("metric") == "tokens_scored")
        .select("cell", "value")
        .join(last.lazy(), on="cell")
        .unique("cell")
        .collect()
    )
    tokens, seconds = (float(rows[name].sum()) for name in ("value", "seconds"))
    return tokens / seconds if seconds else None
