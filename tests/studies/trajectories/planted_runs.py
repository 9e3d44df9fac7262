"""Runs of several sizes whose tokens are planted: which are learned, where, and how fast."""

import numpy as np

from isoloss.store import Store
from token_stores import checkpoint, put_run

TOKENS, DOCUMENT = 6_000, 50


def learned_sets(runs, *, shared, share=0.2, seed=0, tokens=TOKENS):
    """A fifth of the tokens each run learns: the same ones, but for a share of them."""
    rng = np.random.default_rng(seed)
    common = rng.random(tokens) < share
    sets = []
    for _ in range(runs):
        own = rng.random(tokens) < share
        sets.append(np.where(rng.random(tokens) < shared, common, own))
    return sets


def run_losses(learned, progress, *, seed, noise=0.03):
    """Losses (checkpoints, tokens): learned tokens fall with progress, the others stay."""
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(77).uniform(1.0, 4.0, len(learned))
    fall = np.where(learned, 1.5, 0.0) * np.asarray(progress)[:, None]
    shaken = noise * rng.standard_normal((len(progress), len(learned)))
    return (level - fall + shaken).astype(np.float32)


def planted_family(path, sets, *, sizes, speeds, checkpoints=14, seed=0):
    """A store with one run a set; two runs of one size are two seeds of it."""
    store = Store.create(path)
    for i, (learned, size, speed) in enumerate(zip(sets, sizes, speeds, strict=True)):
        model, run = f"m{size}", f"m{size}-s{i}"
        progress = 1 - np.exp(-speed * np.arange(checkpoints) / checkpoints)
        put_run(store, run_losses(learned, progress, seed=seed + i), model=model, run=run)
        points = [
            checkpoint(model, run, step)
            | {"params_non_embedding": size, "flops": 6e3 * size * step}
            for step in range(1, checkpoints + 1)
        ]
        with store.writing():
            store.put_checkpoints(points)
    return store
