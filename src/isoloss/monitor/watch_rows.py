"""Looks at a live run as rows of a store, which the live page reads while training goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import isoloss
from isoloss.errors import IsolossError, StoreBusy
from isoloss.store import Cell, Store
from isoloss.store.cell import Setting
from isoloss.store.schema import LOG_PROBE

PROBE, SUBJECT = "monitor", "training"
LOSS = "loss_nats_per_token"
NUMERICS = 1

UNITS = {
    LOSS: "nats/token",
    "anisotropy": "cosine",
    "singular_entropy": "nats",
    "effective_rank": "dimensions",
    "top_share": "fraction",
    "saturation_warning": "flag",
    "forecast_alarm": "flag",
}


class WatchedRun(NamedTuple):
    """What a watched run is called in the store; two runs of one name write the same rows.

    Attributes:
        family: of models.
        model: its name.
        run: the trajectory.
        seed: of the run, where it is known.
        tokens_per_step: for the token counts, where it is known.
    """

    family: str = "watched"
    model: str = "model"
    run: str = "run"
    seed: int | None = None
    tokens_per_step: int | None = None


class LookRow(NamedTuple):
    """One look as it is filed.

    Attributes:
        step: of training.
        values: by metric; NaN is left out.
        tokens: behind the anisotropy.
        losses: behind the loss.
        params: of the model.
        seconds: the look took.
    """

    step: int
    values: Mapping[str, float]
    tokens: int
    losses: int
    params: int
    seconds: float


class RowWriter:
    """Writes looks into a store; what cannot be written now waits for the next look.

    Args:
        path: the store; made where there is none.
        run: names.

    Attributes:
        waiting: looks that are not written yet.

    Raises:
        BadStore: something else stands at the path.
    """

    def __init__(self, path: str | Path, run: WatchedRun) -> None:
        self._store, self._run = Store.create(path), run
        self.waiting: list[LookRow] = []

    def write(self, row: LookRow) -> str | None:
        """File a look; the reason where it cannot be, such as a full disk."""
        self.waiting.append(row)
        return self.flush()

    def flush(self) -> str | None:
        """File what waits; why it was not."""
        if not self.waiting:
            return None
        try:
            with self._store.writing():
                self._store.put_checkpoints([self._checkpoint(row) for row in self.waiting])
                for row in self.waiting:
                    self._put(row)
        except StoreBusy:
            return None  # as a report that is being written: the next look will do
        except IsolossError as error:
            return str(error)
        self.waiting = []
        return None

    def _put(self, row: LookRow) -> None:
        known = {name: value for name, value in row.values.items() if value == value}
        self._file(row, PROBE, SUBJECT, {"norm": "after", "source": "measured"}, known, row.tokens)
        if LOSS in known:  # beside the losses of imported logs, where pages and laws look for them
            loss = {LOSS: known[LOSS]}
            self._file(row, LOG_PROBE, LOG_PROBE, {"source": "log"}, loss, row.losses)

    def _file(
        self,
        row: LookRow,
        probe: str,
        subject: str,
        settings: Mapping[str, Setting],
        values: Mapping[str, float],
        n: int,
    ) -> None:
        cell = Cell(
            weights_hash=self._weights(row.step),
            probe=probe,
            subject=subject,
            settings=settings,
            numerics=NUMERICS,
        )
        rows = [
            {"metric": name, "value": value, "stderr": None, "n": n, "unit": UNITS[name]}
            for name, value in values.items()
        ]
        execution = {
            "code_version": isoloss.__version__,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": row.seconds,
        }
        self._store.put_cell(cell, rows, execution)

    def _checkpoint(self, row: LookRow) -> dict[str, Any]:
        run = self._run
        tokens = row.step * run.tokens_per_step if run.tokens_per_step is not None else None
        return {
            "family": run.family,
            "model": run.model,
            "run": run.run,
            "seed": run.seed,
            "step": row.step,
            "tokens_seen": tokens,
            "params_total": row.params,
            "flops": 6.0 * row.params * tokens if tokens is not None else None,
            "weights_hash": self._weights(row.step),
            "source": f"monitor:{run.run}#{row.step}",
        }

    def _weights(self, step: int) -> str:
        """A name for weights that are in no file: of the run and the step."""
        name = "\0".join([PROBE, self._run.family, self._run.model, self._run.run, str(step)])
        return hashlib.sha256(name.encode()).hexdigest()
