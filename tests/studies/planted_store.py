"""Stores with a planted law between loss and score, for what is said about any store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoloss.store import Cell, Store
from isoloss.store.cell import Finished
from report import stores

ETA, FLOOR, ITEMS = 2.6, 0.25, 10_000
"""The planted threshold, the score above it, and the documents behind each score."""

Score = Callable[[float, int], Sequence[dict[str, Any]]]
"""Loss and number of the run to the rows of a task."""


def finished(point: dict[str, Any], probe: str, subject: str, rows: Sequence[dict[str, Any]],
             **settings: Any) -> Finished:  # fmt: skip
    cell = Cell(weights_hash=point["weights_hash"], probe=probe, subject=subject,
                settings={**stores.MEASURED, **settings}, numerics=1)  # fmt: skip
    return Finished(cell=cell, rows=rows, execution={})


def kinked(loss: float) -> float:
    return FLOOR + 0.3 * max(0.0, ETA - loss)


def smooth(loss: float) -> float:
    return 0.25 + 0.2 * (3.8 - loss)


def row(metric: str, value: float, n: int | None = ITEMS) -> dict[str, Any]:
    share = min(max(value, 0.0), 1.0)
    error = None if n is None else max((share * (1 - share) / n) ** 0.5, 1e-4)
    return stores.row(metric, value, error, n)


def guess(share: float = 0.25) -> dict[str, Any]:
    return stores.row("chance", share, 0.0, None)


def family(
    path: Path,
    tasks: Mapping[str, Score],
    *,
    runs: int = 8,
    points: int = 12,
    spread: float = 1.0,
    bits: bool = True,
    **facts: Any,
) -> tuple[Store, list[dict[str, Any]], list[float]]:
    """Runs of rising size whose losses fall from 3.6 to 2.3 .. 1.6 nats, with a bend in FLOPs.

    The loss is no function of FLOPs, tokens or parameters alone: each run's data are better or
    worse by up to ``spread`` times 0.6 nats, so that a score that follows the loss follows none
    of them.
    """
    store = Store.create(path)
    rng = np.random.default_rng(0)
    checkpoints, losses, read, scored = [], [], [], []
    for r in range(runs):
        params = int(1e6 * 2 ** (8 * r / runs))
        shift = 0.6 * spread * ((r * 3) % runs) / runs
        for k in range(points):
            point = stores.checkpoint(2**k * 10, model=f"m{r}", params_total=params, **facts)
            loss = 1.6 + shift + 1.7 * float(np.exp(-0.3 * k)) + float(rng.normal(0, 0.01))
            checkpoints.append(point)
            losses.append(loss)
            rows = [stores.row("loss_nats_per_token", loss, 0.01)]
            if bits:
                rows.append(stores.row("bits_per_byte", loss / 3, 0.003))
            layout = {"corpus_hash": "text", "context": 64, "stride": 64, "bos": "yes",
                      "tokenizer_hash": stores.TOKENIZER}  # fmt: skip
            read.append(finished(point, "token_loss", "heldout", rows, **layout))
            scored += [
                finished(point, "task_score", task, score(loss, r)) for task, score in tasks.items()
            ]
    with store.writing():
        store.put_checkpoints(checkpoints)
        store.put_cells(read)
        store.put_cells(scored)
    return store, checkpoints, losses


def drawn(seed: int, law: Callable[[float], float], n: int = ITEMS) -> Score:
    """An accuracy of n documents under a law, with the score of a guess."""
    rng = np.random.default_rng(seed)
    return lambda loss, _: [row("accuracy", float(rng.binomial(n, law(loss))) / n, n), guess()]


def three_scores(seed: int) -> Score:
    """A real threshold, seen by the counted score, the probability and the Brier score."""
    rng = np.random.default_rng(seed)

    def scores(loss: float, _: int) -> list[dict[str, Any]]:
        p = kinked(loss)
        noise = rng.normal(0, 0.002, 2)
        return [
            row("accuracy", float(rng.binomial(ITEMS, p)) / ITEMS),
            row("correct_choice_prob", p + float(noise[0])),
            row("brier_sum", 0.75 - (p - FLOOR) + float(noise[1])),
            guess(),
        ]

    return scores


def planted(path: Path) -> Store:
    """Five abilities of eight runs: smooth, with a threshold, at chance, and two that go apart."""
    apart = drawn(3, smooth)

    def by_size(loss: float, run: int) -> Sequence[dict[str, Any]]:
        first, *others = apart(loss, run)
        return [row("accuracy", first["value"] + 0.02 * run), *others]

    tasks: dict[str, Score] = {
        "smooth": drawn(1, smooth),
        "kinked": three_scores(2),
        "by_size": by_size,
        "guessing": drawn(4, lambda _: 0.25),
        "heldout": drawn(5, smooth),  # on the documents of the loss
    }
    for i, part in enumerate(("law", "art", "logic", "maths", "physics")):
        tasks[f"exam-{part}"] = drawn(10 + i, smooth, n=500)
    store, _, _ = family(path, tasks)
    return store
