"""Linear probes on a trained model's layers, against scikit-learn's, one fit after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from benchmarks.rows import Row
from benchmarks.timing import in_turn
from isoloss.corpora import Hmm
from isoloss.pretrain.architectures import build_model, model_config
from isoloss.pretrain.family_file import Shape
from isoloss.pretrain.material import Sentences
from isoloss.pretrain.objectives import batch_loss, make_batch
from isoloss.probes.linear_probe import STRENGTHS, Probed, Split, linear_probe, log_loss, split
from isoloss.probes.transfer_features import layer_features, read_documents
from isoloss.probes.transfer_logistic import logistic_fits, rotate
from isoloss.probes.transfer_tasks import Classification, language_task

_LANGUAGE = Hmm.random(50, 20, 12, 0)
_SENTENCES, _SEEDS, _STEPS = 2_000, 5, 600
# the loosest power of ten at which scikit-learn's probabilities are right to 1e-4 here, as ours
# are: see the remarks
_PEER_TOLERANCE = 1e-6


def rows(*, repeats: int) -> Iterator[Row]:
    """One row: all layers, seeds and strengths of a masked model's states."""
    task = language_task(_LANGUAGE, "task-6", sentences=_SENTENCES, seed=0)
    features = trained_states(task)
    parts = split(task.labels, task.test, seeds=_SEEDS, seed=0)
    found: dict[str, list[Probed]] = {}

    def ours() -> None:
        found["ours"] = linear_probe(features, task.labels, task.test, seeds=_SEEDS, seed=0)

    def theirs() -> None:
        found["theirs"] = [one_by_one(x, task, parts) for x in features]

    # with two BLAS threads the peer does not end in minutes
    with threadpool_limits(1):
        pair = in_turn(ours, theirs, repeats=repeats)
    gaps = [
        abs(a.by_document().value - b.by_document().value)
        for a, b in zip(found["ours"], found["theirs"], strict=True)
    ]
    accuracies = ", ".join(f"{p.by_document().value:.3f}" for p in found["ours"])
    width = features[0].shape[1]
    off = errors(features[-1], task, parts)
    yield Row(
        work=f"linear probes: {len(features)} layers x {_SEEDS} seeds x {len(STRENGTHS)} "
        f"strengths, {_SENTENCES:,} sentences, {width} features, 20 classes",
        peer=f"scikit-learn, L-BFGS, tol {_PEER_TOLERANCE:g}",
        pair=pair,
        remarks=f"accuracies {accuracies}, within {max(gaps):.3f}; largest error of a "
        f"probability at strength {STRENGTHS[2]:g}: {off[0]:.0e}, peer {off[1]:.0e}",
    )


def trained_states(task: Classification) -> list[np.ndarray]:
    """States of all layers of a small masked model that has been trained a little."""
    material = Sentences(_LANGUAGE)
    shape = Shape(architecture="bert", width=48, depth=2, heads=3)
    model = build_model(model_config(shape, material, "masked-one"), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    for step in range(_STEPS):
        batch = make_batch("masked-one", _LANGUAGE.sample(128, [0, step]), material.codes, rng)
        loss = batch_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    documents = read_documents(model.eval(), None, task.documents)
    return layer_features(model, documents, range(shape.depth + 1), seed=0)


def one_by_one(x: np.ndarray, task: Classification, parts: Split) -> Probed:
    """Every seed and strength by itself, and the strength of the lowest validation loss."""
    standardised = _standardised(x, task)
    correct, chosen = [], []
    for validation, learned in zip(parts.validation, parts.learned, strict=True):
        fits = [_peer(standardised, task.labels, learned, s) for s in STRENGTHS]
        losses = [
            log_loss(f.decision_function(standardised[validation]), task.labels[validation])
            for f in fits
        ]
        best = int(np.argmin(losses))
        correct.append(fits[best].predict(standardised[task.test]) == task.labels[task.test])
        chosen.append(STRENGTHS[best])
    return Probed(correct=np.stack(correct), strength=np.array(chosen))


def errors(x: np.ndarray, task: Classification, parts: Split) -> tuple[float, float]:
    """Largest error of a probability of one fit, ours and the peer's, against an exact one."""
    pool, learned, strength = ~task.test, parts.learned[0], STRENGTHS[2]
    standardised = _standardised(x, task)
    exact = _peer(standardised, task.labels, learned, strength, tol=1e-9).predict_proba(
        standardised
    )
    peer = _peer(standardised, task.labels, learned, strength).predict_proba(standardised)
    rotated = rotate(x[pool])
    fit = logistic_fits(
        rotated,
        task.labels[pool],
        20,
        learned=learned[None, pool],
        ridges=np.array([strength]),
    )
    mine = softmax(rotated.logits(x, fit.weight)[0], axis=1)
    return float(np.abs(mine - exact).max()), float(np.abs(peer - exact).max())


def _standardised(x: np.ndarray, task: Classification) -> np.ndarray:
    pool = x[~task.test].astype(np.float64)
    scale = pool.std(axis=0)
    return (x - pool.mean(axis=0)) / np.where(scale > 0, scale, 1.0)


def _peer(x: np.ndarray, labels: np.ndarray, learned: np.ndarray, strength: float, tol=None):
    from sklearn.linear_model import LogisticRegression

    inverse = 1 / (learned.sum() * strength)
    peer = LogisticRegression(C=inverse, tol=tol or _PEER_TOLERANCE, max_iter=100_000)
    return peer.fit(x[learned], labels[learned])
