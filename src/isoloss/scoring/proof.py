"""What a model is shown to allow before anything is scored: sharing, padding, up to which length.

Requests on random tokens are scored each alone, padded together, and on shared prefixes. A path
is used where it gives the numbers of the first. Prefixes are short and, where the config names
windows, longer than every window, for a short probe passes on every sliding-window model and
proves nothing. Where windows are too long to probe, inputs beyond them are not shared.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoloss.scoring.encode import TokenPair
from isoloss.scoring.forward import Network, NoCache, estimate_cost, run_plan
from isoloss.scoring.packing import Policy, make_plan
from isoloss.scoring.window import critical_lengths

# float32 rounding moves a token by about 1e-6 nats; a wrong mask or position by far more
_TOLERANCE_NATS = 1e-4
# bfloat16 has 8 bits: logits near 10 are known to 0.04
_HALF_TOLERANCE_NATS = 5e-2
_LONGEST_PROBE_TOKENS = 1_024
_SHORT_PROBE_TOKENS = 24
_PROBE_BUDGET_BYTES = 1 << 28
# half-precision models up to this size are probed in a float32 copy
_COPY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was shown, and why the rest was not.

    Attributes:
        share: prefixes may be computed once and reused.
        share_limit: longest input in tokens for which this was shown.
        pad: unequal rows may run together.
        notes: a sentence for every faster path that is not used.
    """

    share: bool
    share_limit: int
    pad: bool
    notes: tuple[str, ...]


def prove(model: Any, *, window: int) -> Proof:
    """Try the faster paths on a probe made from the model's config.

    Args:
        model: a causal language model in eval mode.
        window: longest input in tokens.
    """
    critical = tuple(length for length in critical_lengths(model.config) if length < window)
    provable = [length for length in critical if length + 16 <= _LONGEST_PROBE_TOKENS]
    limit = critical[len(provable)] if len(provable) < len(critical) else window
    subject, tolerance = _subject(model)
    vocabulary = subject.get_input_embeddings().weight.shape[0]
    probe = _probe_pairs(provable, window, vocabulary)
    trial = _Trial(subject, probe, window=window, critical=critical)

    reference = trial.score(share=False, pad=False, budget=0)
    notes = []
    if not trial.network.projects:
        notes.append("full logits: no known form of head gives the model's own logits")
    pad_fault = trial.fault(reference, tolerance, share=False, pad=True)
    if pad_fault:
        notes.append(f"no padding: {pad_fault}")
    share_fault = trial.fault(reference, tolerance, share=True, pad=pad_fault is None)
    if share_fault:
        notes.append(f"no shared prefixes: {share_fault}")
    elif limit < window:
        notes.append(f"prefixes are shared up to {limit} tokens: beyond was not probed")
    return Proof(
        share=share_fault is None,
        share_limit=limit,
        pad=pad_fault is None,
        notes=tuple(notes),
    )


class _Trial:
    """The probe, scored by whichever path is asked for."""

    def __init__(
        self, model: Any, pairs: list[TokenPair], *, window: int, critical: tuple[int, ...]
    ) -> None:
        self.pairs, self.window, self.critical = pairs, window, critical
        self.network = Network(model)
        self.cost = estimate_cost(model, projects=self.network.projects)

    def score(self, *, share: bool, pad: bool, budget: int) -> NDArray[np.float32]:
        """Nats of every probed token; a budget of 0 runs each sequence alone."""
        policy = Policy(
            share=share,
            pad=pad,
            share_limit=self.window,
            critical=self.critical,
            budget=budget,
        )
        plan = make_plan(self.pairs, window=self.window, policy=policy, cost=self.cost)
        if share and not any(p.parent >= 0 for p in plan.passes):
            raise NoCache(f"a window of {self.window} tokens leaves nothing to share")
        return run_plan(self.network, plan, budget=_PROBE_BUDGET_BYTES).logprobs

    def fault(
        self, reference: NDArray[np.float32], tolerance: float, *, share: bool, pad: bool
    ) -> str | None:
        """Why this path is not to be used, or None where it agrees with the reference."""
        try:
            found = self.score(share=share, pad=pad, budget=_PROBE_BUDGET_BYTES)
        # whatever a class raises on its own cache is mended by not using the cache
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        known = np.isfinite(reference)
        if not known.any():
            return "the probe's log-likelihoods are not finite"
        if not np.array_equal(known, np.isfinite(found)):
            return "other tokens than in plain scoring are not finite"
        worst = float(np.abs(found - reference)[known].max())
        if worst > tolerance:
            return f"a token of the probe differs by {worst:.2g} nats"
        return None


def _subject(model: Any) -> tuple[Any, float]:
    """The model to probe and the tolerance in nats per token."""
    parameter = next(model.parameters())
    if parameter.element_size() >= 4:
        return model, _TOLERANCE_NATS
    size = sum(p.numel() for p in model.parameters())
    if 4 * size <= _COPY_BYTES:
        return copy.deepcopy(model).float(), _TOLERANCE_NATS
    return model, _HALF_TOLERANCE_NATS


def _probe_pairs(provable: list[int], window: int, vocabulary: int) -> list[TokenPair]:
    """For each length a prefix, two contexts on it, and options of two and of five tokens."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(vocabulary, size=size).tolist())

    lengths = {_SHORT_PROBE_TOKENS, *(length + 10 for length in provable[-1:])}
    pairs = []
    for length in sorted(min(length, max(1, window - 4)) for length in lengths):
        prefix = draw(length // 2)
        for _ in range(2):
            context = prefix + draw(length - len(prefix))
            pairs += [TokenPair(context, draw(size)) for size in (2, min(5, window))]
    return pairs
