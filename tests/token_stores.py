"""A small store that holds planted losses of single tokens."""

import numpy as np
import polars as pl

from isoloss.store import Cell

MEASURED = {"source": "measured", "dtype": "float32", "threads": 1, "tokenizer_hash": "t" * 32}


def checkpoint(model, run, step):
    name = f"toy/{model}/{run}/{step}"
    return {
        "family": "toy", "model": model, "run": run, "step": step, "tokens_seen": 100 * step,
        "params_total": 1000, "params_non_embedding": 800, "flops": 6.0e5 * step,
        "weights_hash": name, "source": name,
    }  # fmt: skip


def put_run(store, losses, *, model="small", run=None, steps=None, layout="layout", corpus="text"):
    """Keep losses (checkpoints, tokens) as a run's; rows of NaN are checkpoints without losses."""
    run = run or model
    steps = steps or range(1, len(losses) + 1)
    points = [checkpoint(model, run, step) for step in steps]
    tokens = losses.shape[1]
    table = pl.DataFrame(
        {
            "token_id": np.arange(tokens) % 97,
            "document": np.arange(tokens) // 50,
            "position": np.arange(tokens) % 50,
            "bytes": np.full(tokens, 3),
        }
    )
    with store.writing():
        store.put_checkpoints(points)
        store.put_tokens(corpus, layout, table)
        for point, row in zip(points, losses, strict=True):
            if np.isnan(row).all():
                continue
            settings = MEASURED | {"context": 64, "extra": layout}
            cell = Cell(weights_hash=point["weights_hash"], probe="token_loss", subject=corpus,
                        settings=settings, numerics=1)  # fmt: skip
            store.put_token_losses(cell, layout, row)
            value = {"metric": "loss_nats_per_token", "value": float(row.mean()), "stderr": 0.01,
                     "n": tokens, "unit": "nats/token"}  # fmt: skip
            store.put_cell(
                cell, [value],
                {"code_version": "0", "measured_at": "2025-01-01", "seconds": 1.0},
            )  # fmt: skip
    return store


def planted(tokens, checkpoints, seed, rho=0.5):
    """Losses of tokens that fall, rise, stay, and turn in the middle, a quarter each."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((checkpoints, tokens))
    for i in range(1, checkpoints):
        noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    index = np.arange(checkpoints)[:, None]
    middle = checkpoints // 2
    turn = np.where(index < middle, -index, index - 2 * middle)
    shapes = [-0.04 * index, 0.04 * index, 0.0 * index, 0.08 * turn]
    level = rng.uniform(0.5, 4.0, size=tokens)
    shape = np.concatenate([np.tile(s, tokens // 4) for s in shapes], axis=1)
    return (level + shape + 0.03 * noise).astype(np.float32)
