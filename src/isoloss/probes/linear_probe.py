"""What a linear classifier reads from frozen features, over several seeds.

A seed draws which of the documents that are not the test choose the strength of the penalty and
which are learned from; the test part is the same for all. Strengths are tried from strong to weak
until the validation loss rises; the best one is scored on the test, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from isoloss.errors import BadData
from isoloss.estimate import Estimate, mean
from isoloss.probes.transfer_logistic import logistic_fits, rotate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
TEST_SHARE = 0.375
VALIDATION_SHARE = 0.2
"""Of the documents that are not the test."""

ROUGH = 1e-3
"""How far strengths are solved to be compared: validation losses are then known to about 1e-4
nats. The chosen one is solved to the end."""

FEWEST = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probed:
    """Answers to the test documents, over seeds.

    Attributes:
        correct: (seeds, test documents).
        strength: the chosen penalty of every seed, NaN where none is chosen, (seeds,).
    """

    correct: Bools
    strength: Floats

    def by_document(self) -> Estimate:
        """Accuracy; its standard error is over test documents, seeds averaged."""
        return mean(self.correct.mean(axis=0))

    def over_seeds(self) -> Estimate:
        """The same accuracy; its standard error is over seeds, on these test documents."""
        return mean(self.correct.mean(axis=1))


class Split(NamedTuple):
    """Which documents are for what.

    Attributes:
        test: (n,).
        validation: of each seed, (seeds, n).
    """

    test: Bools
    validation: Bools

    @property
    def learned(self) -> Bools:
        """What each seed's classifier learns from, (seeds, n)."""
        return ~self.test & ~self.validation


def draw_test(labels: Ints, *, share: float = TEST_SHARE, seed: int) -> Bools:
    """A random part of the documents for the test.

    Documents whose label would then stand in the test alone are learned from instead.

    Args:
        labels: int (n,).
        share: of the documents.
        seed: of the draw.

    Returns:
        (n,).
    """
    return _held_out(labels, np.ones(len(labels), dtype=bool), share, np.random.default_rng(seed))


def split(labels: Ints, test: Bools, *, seeds: int, seed: int) -> Split:
    """Draw each seed's validation documents from those that are not the test.

    Args:
        labels: int (n,).
        test: the documents of the test, (n,).
        seeds: how many.
        seed: seed i draws from (seed, i): more seeds leave the first ones as they are.

    Returns:
        The parts.

    Raises:
        BadData: there is one class only, or too few documents to learn from, choose and test.
    """
    check_labels(labels, test)
    parts = [
        _held_out(labels, ~test, VALIDATION_SHARE, np.random.default_rng([seed, i]))
        for i in range(seeds)
    ]
    if min(int(part.sum()) for part in parts) == 0:
        raise _too_few(len(labels))
    return Split(test, np.stack(parts))


def check_labels(labels: Ints, test: Bools) -> None:
    """Refuse documents on which no classifier can be trained and tested.

    Args:
        labels: int (n,).
        test: the documents of the test, (n,).

    Raises:
        BadData: too few documents, one class only, or a label of the test alone.
    """
    if len(labels) < FEWEST or not test.any() or test.all():
        raise _too_few(len(labels))
    known = np.unique(labels[~test])
    if len(known) < 2:
        raise BadData(
            "a classification needs two classes to learn from",
            asked=f"{int((~test).sum())} documents of one class",
            remedy="give documents of every class; a file sorted by label was perhaps cut off",
        )
    alone = np.setdiff1d(labels[test], known)
    if len(alone):
        raise BadData(
            "a label stands in the test part alone",
            asked=f"class {', '.join(map(str, alone))}, {int(np.isin(labels, alone).sum())} "
            "test documents",
            remedy="spell labels alike in both parts; a test part without labels has none to score",
        )


def linear_probe(
    features: Sequence[NDArray[np.floating]],
    labels: Ints,
    test: Bools,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seeds: int = 5,
    seed: int,
) -> list[Probed]:
    """Multinomial logistic regression on each of several representations of the same documents.

    All seeds of a representation are solved together, each strength from the one before; the
    chosen one in float64 to 1e-4 in the probabilities. Standardised by all documents that are not
    the test.

    Args:
        features: such as one array a layer, (n, d) each.
        labels: class ids, int (n,).
        test: the documents of the test, (n,).
        strengths: penalties to choose among: half of it times the squared weights is added to
            the mean cross-entropy.
        seeds: how many times the documents are split.
        seed: of the splits.

    Returns:
        Answers by representation; ``strength`` is the chosen one of every seed.

    Raises:
        BadData: as of :func:`split`.
        NonFinite: a feature is NaN or infinite.

    Reference:
        Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, appendix A.4:
        a linear probe over five seeds; theirs is trained by AdamW, see ``adamw_probe``.
    """
    parts = split(labels, test, seeds=seeds, seed=seed)
    known, ids = np.unique(labels, return_inverse=True)
    return [_probe(x, ids, len(known), parts, np.asarray(strengths)) for x in features]


def _probe(
    features: NDArray[np.floating], labels: Ints, classes: int, parts: Split, strengths: Floats
) -> Probed:
    """Go from strong to weak penalties, a seed until its validation loss rises."""
    pool, seeds = ~parts.test, len(parts.validation)
    rotated = rotate(features[pool])
    learned = parts.learned[:, pool]
    going, lowest, chosen = np.arange(seeds), np.full(seeds, np.inf), np.zeros(seeds)
    weight = rotated.z.new_zeros(seeds, rotated.z.shape[1], classes)
    best = weight.clone()
    for strength in np.sort(strengths)[::-1]:
        ridges = np.full(len(going), strength)
        weight = logistic_fits(
            rotated,
            labels[pool],
            classes,
            learned=learned[going],
            ridges=ridges,
            start=weight,
            tolerance=ROUGH,
        ).weight
        logits = [
            rotated.logits(features[parts.validation[i]], weight[[place]])[0]
            for place, i in enumerate(going)
        ]
        losses = np.array(
            [
                log_loss(one, labels[parts.validation[i]])
                for one, i in zip(logits, going, strict=True)
            ]
        )
        # a weaker penalty only overfits more, and is slow to solve
        better = losses < lowest[going]
        going, weight = going[better], weight[better]
        best[going], lowest[going], chosen[going] = weight, losses[better], strength
        if len(going) == 0:
            break
    best = logistic_fits(
        rotated, labels[pool], classes, learned=learned, ridges=chosen, start=best
    ).weight
    answers = rotated.logits(features[parts.test], best).argmax(axis=2)
    return Probed(correct=answers == labels[parts.test], strength=chosen)


def log_loss(logits: Floats, labels: Ints) -> float:
    """Mean cross-entropy in nats.

    Args:
        logits: (n, classes).
        labels: int (n,).

    >>> round(log_loss(np.zeros((3, 4)), np.array([0, 1, 2])), 4)
    1.3863
    """
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _held_out(labels: Ints, among: Bools, share: float, rng: np.random.Generator) -> Bools:
    """A random share of some documents, less those whose label the others do not have."""
    places = np.flatnonzero(among)
    drawn = np.zeros(len(labels), dtype=bool)
    drawn[rng.choice(places, size=int(share * len(places)), replace=False)] = True
    return drawn & np.isin(labels, labels[among & ~drawn])


def _too_few(n: int) -> BadData:
    return BadData(
        "too few documents to train, validate and test a probe",
        asked=f"{n} labelled documents",
        nearest=f"{FEWEST}; 4000 for a standard error near 0.01",
        remedy="give more documents",
    )
