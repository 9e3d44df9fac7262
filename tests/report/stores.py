"""Small stores with planted numbers, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isoloss.store import Cell, Failure, Store

HOSTILE = '<script>alert("x")</script>\n\u202egnp.exe & </td>\'; DROP TABLE'
MEASURED = {"source": "measured", "dtype": "float32", "threads": 1}
TOKENIZER = "t" * 32
STUDY = """\
name = "toy"
[[family]]
name = "toy"
[[family.model]]
name = "small"
checkpoints = "small/step-*"
"""


def checkpoint(
    step: int | None,
    *,
    model: str = "small",
    run: str | None = None,
    family: str = "toy",
    **facts: Any,
) -> dict[str, Any]:
    """A row of checkpoints.parquet."""
    params = facts.pop("params_total", 1000)
    tokens = None if step is None else 100 * step
    name = f"{family}/{model}/{run}/{step}"
    return {
        "family": family, "model": model, "run": run or model, "step": step,
        "tokens_seen": tokens, "params_total": params, "params_non_embedding": 800,
        "flops": None if tokens is None else 6.0 * params * tokens,
        "weights_hash": name, "source": name,
        **facts,
    }  # fmt: skip


def row(
    metric: str, value: float, stderr: float | None = 0.01, n: int | None = 100
) -> dict[str, Any]:
    """A row of a measurement file."""
    units = {"loss_nats_per_token": "nats/token", "bits_per_byte": "bits/byte"}
    # rounded: 0.5 + 0.07 * 5 is planted as 0.85, not as 0.8500000000000001
    return {"metric": metric, "value": round(value, 12), "stderr": stderr, "n": n,
            "unit": units.get(metric, "fraction")}  # fmt: skip


def put(
    store: Store, point: dict[str, Any], probe: str, subject: str, rows: Sequence[dict[str, Any]],
    **settings: Any,
) -> None:  # fmt: skip
    """Finish a cell of a checkpoint."""
    cell = Cell(weights_hash=point["weights_hash"], probe=probe, subject=subject,
                settings={**MEASURED, **settings}, numerics=1)  # fmt: skip
    store.put_cell(
        cell, rows, {"code_version": "0.1.0", "measured_at": "2025-01-01", "seconds": 1.5}
    )


def put_loss(
    store: Store, point: dict[str, Any], nats: float, *, corpus: str = "heldout", **settings: Any
) -> None:
    """The held-out loss of a checkpoint, in both units."""
    layout = {"corpus_hash": f"{corpus}-text", "context": 64, "stride": 64, "bos": "yes",
              "tokenizer_hash": TOKENIZER, **settings}  # fmt: skip
    rows = [row("loss_nats_per_token", nats, 0.02), row("bits_per_byte", nats / 3, 0.007)]
    put(store, point, "token_loss", corpus, rows, **layout)


def trained(path: Path) -> Store:
    """Two models of three checkpoints: two losses, two tasks, a probe, an optimum, a failure.

    ``piqa`` follows the loss and is asked with no and with five examples; ``coin`` stays at
    chance. The last checkpoint of the large model is flagged, and its loss would be the lowest.
    """
    store = Store.create(path)
    points = [
        checkpoint(step, model=model, params_total=params, schedule_progress=step / 1000, lr=1e-3,
                   seed=0, schedule="cosine")
        for model, params in (("small", 1000), ("large", 9000))
        for step in (10, 100, 1000)
    ]  # fmt: skip
    with store.writing():
        store.put_checkpoints(points)
        store.put_study(STUDY)
        for i, point in enumerate(points):
            put_loss(store, point, 4.0 - 0.5 * i)
            task = [row("accuracy", 0.5 + 0.07 * i), row("brier_sum", 0.5 - 0.01 * i),
                    row("chance", 0.5, 0.0), row("constant_answer", 0.52)]  # fmt: skip
            put(store, point, "task_score", "piqa", task, num_fewshot=0)
            put(store, point, "task_score", "piqa", [row("accuracy", 0.6 + 0.01 * i), task[2]],
                num_fewshot=5)  # fmt: skip
            put(store, point, "task_score", "coin", [row("accuracy", 0.5 + 0.001 * i), task[2]])
            put(store, point, "hidden_state", "language",
                [row("accuracy", 0.3 + 0.05 * i), row("bayes_accuracy", 0.7), row("chance", 0.1)],
                position=-1)  # fmt: skip
            put(store, point, "optimum", "language",
                [row("loss_nats_per_token", 4.1 - 0.5 * i), row("optimum_nats_per_token", 1.25),
                 row("distance_to_optimum_nats", 2.85 - 0.5 * i)],
                corpus_hash="law", docs_n=100, docs_seed=0)  # fmt: skip
        store.put_flags([{"family": "toy", "model": "large", "run": "large", "step": 1000,
                          "kind": "same_weights", "detail": "equal to step 100"}])  # fmt: skip
        store.put_failure(
            Failure(cell="f" * 32, checkpoint="toy/small@9", probe="task_score", subject="coin",
                    error="NonFinite", reason="the logits are NaN", remedy="export it again",
                    failed_at="2025-01-01T00:00:00")
        )  # fmt: skip
    return store


def hostile(path: Path) -> Store:
    """A store in which every name is an attack."""
    store = Store.create(path)
    point = checkpoint(1, model=HOSTILE, run=HOSTILE, family=HOSTILE, variant=HOSTILE)
    with store.writing():
        store.put_checkpoints([point])
        put_loss(store, point, 2.0, corpus=HOSTILE)
        rows = [row("accuracy", 0.5), row(HOSTILE, 0.25)]
        put(store, point, "task_score", "\u05d0 " + HOSTILE, rows, form=HOSTILE)
        store.put_flags([{"family": HOSTILE, "model": HOSTILE, "run": HOSTILE, "step": 1,
                          "kind": HOSTILE, "detail": HOSTILE}])  # fmt: skip
        store.put_failure(
            Failure(cell="f" * 32, checkpoint=HOSTILE, probe=HOSTILE, subject=HOSTILE,
                    error=HOSTILE, reason=HOSTILE, remedy=HOSTILE, failed_at="")
        )  # fmt: skip
    return store


def proxied(path: Path) -> Store:
    """Imported numbers: no loss but the perplexity of a task."""
    store = Store.create(path)
    points = [checkpoint(step) for step in (0, 1, 2)]
    with store.writing():
        store.put_checkpoints(points)
        for i, point in enumerate(points):
            rows = [row("accuracy", 0.1 * i), row("perplexity", 100.0 / (i + 1), 1.0)]
            put(store, point, "task_score", "lambada", rows, num_fewshot=0, source="lm-eval")
            put(store, point, "task_score", "piqa", [row("accuracy", 0.5 + 0.1 * i)],
                num_fewshot=0, source="lm-eval", source_digest=f"file-{i}")  # fmt: skip
    return store


def without_loss(path: Path) -> Store:
    """Scores alone."""
    store = Store.create(path)
    point = checkpoint(5)
    with store.writing():
        store.put_checkpoints([point])
        put(store, point, "task_score", "piqa", [row("accuracy", 0.5)])
    return store


def patchy(path: Path) -> Store:
    """Three checkpoints with scores, of which one has neither a loss nor a step."""
    store = Store.create(path)
    points = [checkpoint(step) for step in (1, 2, None)]
    with store.writing():
        store.put_checkpoints(points)
        for i, point in enumerate(points):
            put(store, point, "task_score", "piqa", [row("accuracy", 0.5 + 0.1 * i)])
            if point["step"] is not None:
                put_loss(store, point, 3.0 - i)
    return store


def embedded(html: str) -> dict[str, Any]:
    """The data of a page."""
    _, _, rest = html.partition('<script type="application/json" id="data">')
    data: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return data
