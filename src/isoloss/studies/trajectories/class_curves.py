"""The perplexity of a class of tokens along every run: chosen on one run, evaluated on all.

A class is chosen by what one run does with its tokens. That other runs do the same with them, or at
the same perplexity of the whole, is the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.laws.correlated import Floats
from isoloss.laws.token_rule import KINDS
from isoloss.studies.trajectories.token_runs import Losses, Overall, TokenRuns

EVERY_RUN = "every run"


class ClassCurve(NamedTuple):
    """A class chosen on one run and evaluated on one run.

    Attributes:
        kind: of the tokens.
        chosen_on: run that they were chosen on; EVERY_RUN where they are of that kind on each.
        run: that they are evaluated on.
        tokens: how many.
        nats: (checkpoints,) mean loss of them, exp of which is the geometric mean of their
            perplexities; NaN where there are none.
    """

    kind: str
    chosen_on: str
    run: str
    tokens: int
    nats: Floats


def class_curves(
    runs: TokenRuns, overall: Overall, kinds: Mapping[str, NDArray[np.int8]]
) -> tuple[ClassCurve, ...]:
    """Mean loss of every class chosen on each of some runs, along all runs.

    Tokens whose loss is unknown anywhere are left out, so that a curve is of the same tokens
    throughout.

    Args:
        runs: that classes are evaluated on.
        overall: of the same runs.
        kinds: by the name of the run that was judged, (tokens,) index into KINDS.

    Returns:
        Curves by class, the run chosen on, the run evaluated on.

    Reference:
        Xia et al. (2023), figs. 3, 4, 11 and 12; the released code for the geometric mean.
    """
    chosen = [*kinds, *([EVERY_RUN] if len(kinds) > 1 else [])]
    groups = [(kind, name) for kind in KINDS for name in chosen]
    sums = [np.zeros((len(groups), len(run.series.steps))) for run in runs.runs]
    counts = np.zeros(len(groups), dtype=np.int64)

    def one(low: int, losses: list[Losses]) -> tuple[NDArray[np.int64], list[Floats]]:
        high = low + losses[0].shape[1]
        known = overall.known[low:high]
        own = [codes[low:high][known] for codes in kinds.values()]
        masks = [mask for i in range(len(KINDS)) for mask in _masks([c == i for c in own])]
        table = np.array(masks, dtype=np.float64)
        return table.sum(axis=1).astype(np.int64), [
            table @ part[:, known].T.astype(np.float64) for part in losses
        ]

    for count, parts in runs.over(one):
        counts += count
        for total, part in zip(sums, parts, strict=True):
            total += part
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [total / counts[:, None] for total in sums]
    return tuple(
        ClassCurve(kind, name, run.name, int(counts[g]), mean[g])
        for g, (kind, name) in enumerate(groups)
        for run, mean in zip(runs.runs, means, strict=True)
    )


def _masks(own: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    return [*own, np.logical_and.reduce(own)] if len(own) > 1 else own
