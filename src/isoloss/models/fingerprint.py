"""Faults of published checkpoints seen from their fingerprints: copies, mixtures, strangers.

Such faults are real: among the published Pythia steps some hold the weights of another step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from isoloss.models.inspect import Shard

if TYPE_CHECKING:
    from torch import Tensor, nn

ELEMENTS = 15  # of each tensor, beside its norm
DETOUR = 1.5
ABOVE_RUN = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one checkpoint; unknown is None and is not judged.

    Attributes:
        checkpoint: its name, unique within the study.
        run: its trajectory.
        step: optimizer steps done.
        weights_hash: see ``inspect.hash_shards``.
        shards: its weight files.
        sketch: see :func:`sketch`.
    """

    checkpoint: str
    run: str
    step: int | None = None
    weights_hash: str | None = None
    shards: tuple[Shard, ...] = ()
    sketch: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One thing that is wrong with a checkpoint, in words that name the others involved."""

    checkpoint: str
    kind: Literal["equal_weights", "shared_shard", "outlier"]
    detail: str


def sketch(model: nn.Module | Mapping[str, Tensor]) -> NDArray[np.float32]:
    """A few numbers of every tensor, by which two checkpoints of one model can be compared.

    Each floating-point tensor, in sorted order of names, gives its norm and 15 elements evenly
    strided through it (repeated in tensors that are smaller). No randomness is involved.

    Args:
        model: a module or its state dict.

    Returns:
        A float32 vector of 16 numbers a tensor, in the units of the weights.
    """
    import torch

    tensors = model.state_dict() if isinstance(model, torch.nn.Module) else model
    rows = []
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        # integer arithmetic: float32 positions would repeat beyond 2**24 elements
        at = torch.arange(ELEMENTS) * tensor.numel() // ELEMENTS
        elements = tensor.reshape(-1)[at.to(tensor.device)].float()
        wide = torch.promote_types(tensor.dtype, torch.float32)
        norm = torch.linalg.vector_norm(tensor, dtype=wide).float()
        rows.append(torch.cat([norm.reshape(1), elements]).cpu())
    return torch.cat(rows).numpy() if rows else np.zeros(0, dtype=np.float32)


def flags(checkpoints: Iterable[Facts]) -> list[Flag]:
    """Everything wrong with a family's checkpoints that fingerprints can show.

    - ``equal_weights``: the same weights at two different steps or in two runs.
    - ``shared_shard``: of several weight files some, and not all, equal another checkpoint's: a
      mixed upload. Which of the two is the mixture cannot be told: both are flagged.
    - ``outlier``: see :func:`outliers`.

    Args:
        checkpoints: of any number of runs.

    Returns:
        The flags, in the order of the checkpoints.
    """
    everything = list(checkpoints)
    found = [*_equal_weights(everything), *_shared_shards(everything)]
    runs: dict[str, list[Facts]] = defaultdict(list)
    for facts in everything:
        runs[facts.run].append(facts)
    for run in runs.values():
        found += outliers(run)
    order = {facts.checkpoint: i for i, facts in enumerate(everything)}
    return sorted(found, key=lambda flag: order[flag.checkpoint])


def outliers(run: Sequence[Facts]) -> list[Flag]:
    """Checkpoints that do not lie on the way of their run.

    The rule compares a checkpoint with the local interpolation, so that it knows no scale: with
    a and b its distances to the checkpoints before and after it, and c their distance from one
    another, its detour is min(a, b) / c. On a straight way that is at most 0.5, on a random walk
    0.71, about a fixed point with independent noise 1. An outlier's detour is above 1.5 and above
    3 times the median of the run's other detours. Distances are between sketches, each tensor's
    norm and elements divided by their median size in the run, so that every tensor counts alike.

    Not seen are a strange first or last checkpoint, two strange ones in a row, and a fault that
    is small beside the way between the neighbours: a stranger among log-spaced checkpoints of a
    run that moves by its own size between them.

    Args:
        run: checkpoints of one trajectory with sketches of equal length, in any order.

    Returns:
        One flag an outlier, by step; none for fewer than three checkpoints.
    """
    known = [f for f in run if f.step is not None and f.sketch is not None]
    known.sort(key=lambda f: f.step or 0)
    sketches = [f.sketch for f in known if f.sketch is not None]
    if len(known) < 3 or len({s.shape for s in sketches}) > 1:
        return []
    detours = _detours(_scaled(np.stack(sketches)))
    found = []
    for i, detour in enumerate(detours):
        others = np.delete(detours, i)
        usual = float(np.median(others)) if others.size else 0.0
        limit = max(DETOUR, ABOVE_RUN * usual)
        if detour > limit:
            before, at, after = known[i : i + 3]
            found.append(
                Flag(
                    checkpoint=at.checkpoint,
                    kind="outlier",
                    detail=f"{detour:.1f} times as far from {before.checkpoint} and"
                    f" {after.checkpoint} as these are from one another (limit {limit:.1f})",
                )
            )
    return found


def _scaled(sketches: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sketches (checkpoints, 16 tensors) with every tensor's parts at a size near 1."""
    rows = sketches.astype(np.float64).reshape(len(sketches), -1, 1 + ELEMENTS)
    elements = np.sqrt((rows[:, :, 1:] ** 2).mean(axis=2))
    for part, size in ((rows[:, :, :1], rows[:, :, 0]), (rows[:, :, 1:], elements)):
        scale = np.median(size, axis=0)
        # a tensor that is zero through the run says nothing
        part /= np.where(scale > 0, scale, 1.0)[None, :, None]
    flat: NDArray[np.float64] = rows.reshape(len(sketches), -1)
    return flat


def _detours(points: NDArray[np.float64]) -> NDArray[np.float64]:
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    across = np.linalg.norm(points[2:] - points[:-2], axis=1)
    nearer = np.minimum(step[:-1], step[1:])
    # neighbours that are equal: any distance from both is infinitely far, none is none
    infinite = np.where(nearer > 0, math.inf, 0.0)
    detours: NDArray[np.float64] = np.divide(nearer, across, out=infinite, where=across > 0)
    return detours


def _equal_weights(checkpoints: Sequence[Facts]) -> list[Flag]:
    groups: dict[str, list[Facts]] = defaultdict(list)
    for facts in checkpoints:
        if facts.weights_hash is not None:
            groups[facts.weights_hash].append(facts)
    found = []
    for group in groups.values():
        for facts in group:
            others = [f.checkpoint for f in group if (f.run, f.step) != (facts.run, facts.step)]
            if others:
                detail = f"the same weights as {_names(others)}"
                found.append(Flag(checkpoint=facts.checkpoint, kind="equal_weights", detail=detail))
    return found


def _shared_shards(checkpoints: Sequence[Facts]) -> list[Flag]:
    holders: dict[str, list[Facts]] = defaultdict(list)
    for facts in checkpoints:
        for digest in {shard.digest for shard in facts.shards}:
            holders[digest].append(facts)
    found = []
    for facts in checkpoints:
        mine = {shard.digest for shard in facts.shards}
        shared: dict[str, int] = defaultdict(int)
        for digest in mine:
            for other in holders[digest]:
                if {shard.digest for shard in other.shards} != mine:
                    shared[other.checkpoint] += 1
        if len(mine) > 1 and shared:
            most = max(shared.values())
            names = _names([name for name, count in shared.items() if count == most])
            detail = f"{most} of {len(mine)} weight files are those of {names}"
            found.append(Flag(checkpoint=facts.checkpoint, kind="shared_shard", detail=detail))
    return found


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(names[:3])
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed
