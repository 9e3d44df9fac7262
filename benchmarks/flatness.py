"""Traces of curvature: time to 5% relative standard error, against PyHessian and curvlinops.

All work on one GPT-NeoX model trained for a few hundred steps, at the same sentences, with the same
rule for when to stop. Each peer is given its faster way: PyHessian one batch whose gradient's graph
it keeps, or batches; both have torch's math kernel for attention, without which there is no second
derivative.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.rows import Row
from benchmarks.timing import in_turn, seconds
from isoloss.corpora import Hmm, held_out_seed
from isoloss.corpora.language import model_tokens
from isoloss.pretrain.architectures import build_model, model_config
from isoloss.pretrain.family_file import Shape
from isoloss.pretrain.material import Sentences
from isoloss.pretrain.objectives import batch_loss
from isoloss.pretrain.stream import BatchStream
from isoloss.probes import fisher_trace, hessian_trace
from isoloss.probes.curvature_estimate import Stop, TraceEstimate, until_precise

_WORDS, _STATES, _LENGTH, _BATCH = 200, 20, 32, 16
_ERROR = 0.05
_MOST = 2000

Sample = Callable[[], float]


def rows(
    *, repeats: int, width: int = 64, depth: int = 2, steps: int = 400, sentences: int = 128
) -> Iterator[Row]:
    """Two rows a peer: our Fisher trace, and our Hessian trace."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, language = _trained(width, depth, steps)
        ids = torch.from_numpy(
            model_tokens(language.sample(sentences, held_out_seed(0, 9)), _WORDS)
        )
        batches = list(ids.split(_BATCH))
        yield from _compare(model, batches, repeats)
    finally:
        torch.set_num_threads(threads)


def _trained(width: int, depth: int, steps: int) -> tuple[nn.Module, Hmm]:
    """A random model's trace is a saddle's, of no sign: a few hundred steps give it one."""
    language = Hmm.random(_WORDS, _STATES, _LENGTH, 0)
    material = Sentences(language)
    shape = Shape(architecture="gpt-neox", width=width, depth=depth, heads=max(1, width // 16))
    model = build_model(model_config(shape, material, "causal"), seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in itertools.islice(
        BatchStream(material, "causal", batch=32, seeds=(0, 0)).batches(1, steps), steps
    ):
        optimizer.zero_grad()
        batch_loss(model, batch).backward()
        optimizer.step()
    return model.eval(), language


def _compare(model: nn.Module, batches: list[Tensor], repeats: int) -> Iterator[Row]:
    ours = [{"input_ids": ids, "labels": ids} for ids in batches]
    seeds = itertools.count()
    traces: dict[str, Callable[..., TraceEstimate]] = {
        "Fisher": fisher_trace,
        "Hessian": hessian_trace,
    }
    shape = f"GPT-NeoX, {sum(p.numel() for p in model.parameters()):,} parameters, "
    shape += f"{sum(len(b) for b in batches)} sentences of {_LENGTH} words"
    for peer, make in (("PyHessian", _faster_pyhessian), ("curvlinops", _curvlinops)):
        try:
            sample = make(model, batches)
        except ImportError as error:
            print(f"not run: {peer} ({error})", flush=True)
            continue
        for name, trace in traces.items():
            found: dict[str, TraceEstimate] = {}

            def mine(trace=trace, found=found) -> None:
                found["ours"] = trace(
                    model, ours, relative_error=_ERROR, max_products=100 * _MOST, seed=next(seeds)
                )

            def theirs(sample=sample, found=found) -> None:
                stop = Stop(relative_error=_ERROR, max_products=_MOST)
                with sdpa_kernel(SDPBackend.MATH):
                    found["theirs"] = until_precise(lambda _: sample(), stop)

            pair = in_turn(mine, theirs, repeats=repeats)
            yield Row(
                work=f"{name} trace to {_ERROR:.0%}: {shape}",
                peer=f"{peer}, Hutchinson",
                pair=pair,
                remarks=f"{_told(found['ours'])} against {_told(found['theirs'])}",
            )


def _told(found: TraceEstimate) -> str:
    reached = "" if found.converged else ", not reached"
    return f"{found.value:.1f} +- {found.stderr:.1f} ({found.products} products{reached})"


class _Flat(nn.Module):
    """The model as the peers want it: token ids to logits, one row a predicted token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits.flatten(0, 1)


def _pairs(batches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(ids[:, :-1], ids[:, 1:].flatten()) for ids in batches]


def _faster_pyhessian(model: nn.Module, batches: list[Tensor]) -> Sample:
    """One batch whose graph is kept, or many that are gone through: whichever is faster here."""
    from pyhessian import hessian

    ((inputs, targets),) = _pairs([torch.cat(batches)])
    flat, loss = _Flat(model), nn.CrossEntropyLoss()
    samples: dict[Sample, float] = {}
    for data in ({"data": (inputs, targets)}, {"dataloader": _pairs(batches)}):
        with sdpa_kernel(SDPBackend.MATH):
            operator = hessian(flat, loss, cuda=False, **data)

            def sample(operator: Any = operator) -> float:
                return float(operator.trace(maxIter=1)[0])

            sample()
            samples[sample] = seconds(sample)
    return min(samples, key=samples.__getitem__)


def _curvlinops(model: nn.Module, batches: list[Tensor]) -> Sample:
    from curvlinops import HessianLinearOperator, hutchinson_trace

    flat = _Flat(model)
    with sdpa_kernel(SDPBackend.MATH):
        operator = HessianLinearOperator(
            flat,
            nn.CrossEntropyLoss(),
            list(flat.parameters()),
            _pairs(batches),
            check_deterministic=False,
        )
    return lambda: float(hutchinson_trace(operator, num_matvecs=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--sentences", type=int, default=128)
    given = parser.parse_args()
    for row in rows(repeats=given.repeats, width=given.width, sentences=given.sentences):
        print(row)
