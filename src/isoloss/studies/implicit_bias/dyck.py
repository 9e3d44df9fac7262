"""Flat and sharp solutions of equal loss in the language of brackets: traces, and transfer.

Both solutions of ``pretrain/dyck_model.py`` have the same masked loss on every input; their traces
are exact. What a minimum-norm head then makes of n labelled strings is counted over many draws,
against the 1 - 2^-n of Theorem 6.1 of Liu et al. (2023), PMLR 202:22188.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from scipy.stats import binomtest

from isoloss.estimate import Estimate, mean
from isoloss.pretrain.dyck_model import (
    OneLayer,
    downstream_error,
    flat_solution,
    random_feature_solution,
)

Solution = Literal["flat", "random features"]

EXAMPLES = tuple(range(2, 11))
FLAT, SHARP = 0, 1  # seeds of the draws


class TraceRatio(NamedTuple):
    """How much sharper random features are at equal loss.

    Attributes:
        length: brackets in a sentence.
        flat: trace of the flat solution, exact.
        log_ratio: natural log of the traces' ratio, random features over flat, over the seeds of
            the features. Its mean and not the ratio's: a few draws are hundreds of times as sharp.
        least: the smallest ratio among them.
        loss_gap_nats: largest difference of the masked losses, absolute.
    """

    length: int
    flat: float
    log_ratio: Estimate
    least: float
    loss_gap_nats: float

    @property
    def typical(self) -> float:
        """Geometric mean of the ratios."""
        return math.exp(self.log_ratio.value)


class Transfer(NamedTuple):
    """How often a head fitted to a few strings makes no error on any.

    Attributes:
        solution: whose features.
        length: brackets in a string.
        examples: n, strings that the head was fitted to.
        solved: draws without any error.
        draws: in all.
        low: lower end of the exact 95% interval of the share solved.
        high: its upper end.
        promised: 1 - 2^-n.
        error: mean share of strings that are answered wrongly, over draws.
    """

    solution: Solution
    length: int
    examples: int
    solved: int
    draws: int
    low: float
    high: float
    promised: float
    error: Estimate

    @property
    def share(self) -> float:
        """Of the draws that were solved."""
        return self.solved / self.draws

    @property
    def keeps_promise(self) -> bool:
        """Whether the interval reaches 1 - 2^-n or lies above it."""
        return self.high >= self.promised


class DyckStudy(NamedTuple):
    """Traces by length, and transfer by length and number of examples."""

    ratios: tuple[TraceRatio, ...]
    transfer: tuple[Transfer, ...]

    def beyond_promise(self, solution: Solution) -> Estimate:
        """Mean of share solved less 1 - 2^-n over all lengths and n, binomial standard error."""
        cells = [t for t in self.transfer if t.solution == solution]
        value = sum(t.share - t.promised for t in cells) / len(cells)
        variance = sum(t.promised * (1 - t.promised) / t.draws for t in cells) / len(cells) ** 2
        return Estimate(value=value, stderr=math.sqrt(variance), n=sum(t.draws for t in cells))

    def advantage(self, examples: int) -> Estimate:
        """Mean error of random features less that of flat ones, over lengths.

        Args:
            examples: strings that the heads were fitted to.
        """
        errors = {
            solution: [
                t.error for t in self.transfer if (t.solution, t.examples) == (solution, examples)
            ]
            for solution in get_args(Solution)
        }
        count = len(errors["flat"])
        flat, sharp = (sum(e.value for e in errors[s]) / count for s in get_args(Solution))
        squares = [(e.stderr or 0.0) ** 2 for found in errors.values() for e in found]
        draws = sum(e.n for e in errors["flat"])
        return Estimate(value=sharp - flat, stderr=math.sqrt(sum(squares)) / count, n=draws)


def dyck_study(
    *,
    lengths: Sequence[int] = (6, 8, 10),
    examples: Sequence[int] = EXAMPLES,
    draws: int = 200,
    features: int = 20,
    seed: int,
) -> DyckStudy:
    """Compare both solutions at several lengths.

    Args:
        lengths: brackets in a sentence, even.
        examples: strings that the head is fitted to.
        draws: of the strings, for every length and number.
        features: seeds of the Gaussian neurons; draws go through them in turn.
        seed: of the neurons and the draws.
    """
    ratios, transfer = [], []
    for length in lengths:
        flat = flat_solution(length)
        sharp = [random_feature_solution(length, seed=seed + s) for s in range(features)]
        trace = flat.hessian_trace()
        traces = [model.hessian_trace() / trace for model in sharp]
        ratios.append(
            TraceRatio(
                length=length,
                flat=trace,
                log_ratio=mean([math.log(ratio) for ratio in traces]),
                least=min(traces),
                loss_gap_nats=max(abs(m.masked_loss() - flat.masked_loss()) for m in sharp),
            )
        )
        for n in examples:
            transfer.append(_transfer("flat", [flat], length, n, draws, [seed, FLAT, length, n]))
            transfer.append(
                _transfer("random features", sharp, length, n, draws, [seed, SHARP, length, n])
            )
    return DyckStudy(tuple(ratios), tuple(transfer))


def _transfer(
    solution: Solution,
    models: Sequence[OneLayer],
    length: int,
    examples: int,
    draws: int,
    seeds: Sequence[int],
) -> Transfer:
    errors = [
        downstream_error(models[draw % len(models)], examples=examples, seed=[*seeds, draw])
        for draw in range(draws)
    ]
    solved = sum(error == 0 for error in errors)
    interval = binomtest(solved, draws).proportion_ci(confidence_level=0.95, method="exact")
    return Transfer(
        solution=solution,
        length=length,
        examples=examples,
        solved=solved,
        draws=draws,
        low=float(interval.low),
        high=float(interval.high),
        promised=1 - 2.0**-examples,
        error=mean(errors),
    )
