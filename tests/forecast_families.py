"""Families drawn from known laws, as points and as stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from isoloss.store import Cell, Store
from isoloss.store.axis import Axis
from isoloss.studies.forecasts.ability_scores import Ability
from isoloss.studies.forecasts.points import Points

SIZES = np.array([7e7, 1.6e8, 4.1e8, 1e9, 1.4e9, 2.8e9, 6.9e9, 1.2e10])
BUDGET = 3e11
AXIS = Axis(subject="heldout", metric="loss_nats_per_token", probe="token_loss", kind="held-out")
QUIZ = Ability(task="quiz", metric="accuracy", num_fewshot=0)


def loss_of(params, tokens):
    """Hoffmann et al.'s law, nats per token."""
    return 1.69 + 406.4 / np.asarray(params) ** 0.34 + 410.7 / np.asarray(tokens) ** 0.28


def score_of(loss):
    """A planted ability: .25 far above a loss of 2.6, .9 far below."""
    return 0.9 - 0.65 / (1 + np.exp(-4 * (np.asarray(loss) - 2.6)))


def family(
    seed=0, *, sizes=SIZES, budgets=None, checkpoints=13, loss_noise=0.005, noise=0.01,
    rises=(), progress=None,
) -> Points:  # fmt: skip
    """Points of a family with one run a (size, budget), lognormal runs and noisy scores.

    Args:
        seed: of the draws.
        sizes: a run each.
        budgets: tokens of each run; all BUDGET where None.
        checkpoints: of each run, evenly spaced.
        loss_noise: standard deviation of a run's log loss; a fifth of it at each checkpoint.
        noise: standard deviation of scores.
        rises: runs, by index, whose loss rises by .4 nats over the second half.
        progress: of every run at its end; unknown where None.
    """
    rng = np.random.default_rng(seed)
    budgets = np.full(len(sizes), BUDGET) if budgets is None else np.asarray(budgets)
    rows = []
    for i, (size, budget) in enumerate(zip(sizes, budgets, strict=True)):
        own = rng.normal(0, loss_noise)
        for k in range(1, checkpoints + 1):
            tokens = budget * k / checkpoints
            loss = loss_of(size, tokens) * np.exp(own + rng.normal(0, loss_noise / 5))
            if i in rises and k > checkpoints / 2:
                loss += 0.8 * (k / checkpoints - 0.5)
            score = float(np.clip(score_of(loss) + rng.normal(0, noise), 0, 1))
            rows.append(
                {"family": "toy", "model": f"m{i}", "run": f"m{i}", "stage": None,
                 "variant": None, "seed": 0, "step": k, "tokens": int(tokens),
                 "params": int(size), "params_non_embedding": int(size * 0.9),
                 "flops": 6.0 * size * tokens, "schedule": None,
                 "schedule_progress": None if progress is None else progress * k / checkpoints,
                 "flagged": False, "loss": loss, "loss_stderr": 0.01, "score": score,
                 "stderr": 0.01, "n": 1000.0, "chance": 0.25}
            )  # fmt: skip
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return Points(frame=frame, axis=AXIS, ability=QUIZ, notes=())


def store_of(points: Points, path: Path, *, shots=(0,)) -> Store:
    """A store that holds a family's losses and scores, the quiz under each number of shots."""
    store = Store.create(path)
    rows = points.frame.to_dicts()
    for row in rows:
        row["weights_hash"] = row["source"] = f"{row['model']}/{row['step']}"
    with store.writing():
        store.put_checkpoints(
            [{k: r[k] for k in ("family", "model", "run", "stage", "variant", "seed", "step",
                                "params_non_embedding", "flops", "schedule",
                                "schedule_progress", "weights_hash", "source")}
             | {"tokens_seen": r["tokens"], "params_total": r["params"]} for r in rows]
        )  # fmt: skip
        for r in rows:
            put(store, r, "token_loss", "heldout", [value("loss_nats_per_token", r["loss"])])
            scores = [value("accuracy", r["score"], n=1000), value("chance", 0.25)]
            for number in shots:
                put(store, r, "task_score", "quiz", scores, num_fewshot=number)
    return store


def value(metric: str, number: float, n: int | None = None) -> dict[str, object]:
    """A row of a measurement."""
    return {"metric": metric, "value": number, "stderr": 0.01, "n": n, "unit": None}


def put(store: Store, row, probe: str, subject: str, rows, **settings) -> None:
    """Finish a cell of a checkpoint."""
    cell = Cell(weights_hash=row["weights_hash"], probe=probe, subject=subject, numerics=1,
                settings={"source": "measured", **settings})  # fmt: skip
    store.put_cell(cell, rows, {"code_version": "0", "measured_at": "2026", "seconds": 1.0})
