"""Anisotropy of a checkpoint's hidden states at every layer, streaming over tokens.

The tokens pass twice: sums of unit vectors, means and powers first; then, with these known, the
unit vectors after the mean is taken off and without the largest dimensions. Memory holds sums
alone, whatever the number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.errors import BadData, NonFinite
from isoloss.estimate import Estimate
from isoloss.probes.hidden_layers import LayerReader, Place, Reading
from isoloss.probes.measured import Measured, Row

GROUPS = 100  # of whole documents: as many are left out in turn for the standard error
OUTLIERS = 3


class PlaceAnisotropy(NamedTuple):
    """Mean cosines at one place of a model.

    Attributes:
        place: where.
        plain: of all pairs of different tokens.
        without_first: of pairs without the first token of a row (BOS, where there is one).
        centred: after the mean state is taken off. Isotropic states have -1 / (n - 1): of fewer
            tokens than dimensions, what is read off is mostly this bias. NaN where a state
            equals the mean.
        without_outliers: without the dimensions of the largest share of the squared norm.
        outlier_share: that share.
        outliers: those dimensions, the largest first.
    """

    place: Place
    plain: Estimate
    without_first: Estimate
    centred: Estimate
    without_outliers: Estimate
    outlier_share: Estimate
    outliers: tuple[int, ...]

    def measured(self) -> Measured:
        """The rows of a cell."""
        named = (
            ("anisotropy", self.plain, "cosine"),
            ("anisotropy_without_first_token", self.without_first, "cosine"),
            ("anisotropy_centred", self.centred, "cosine"),
            ("anisotropy_without_outliers", self.without_outliers, "cosine"),
            ("outlier_share", self.outlier_share, "fraction"),
        )
        return Measured(
            rows=tuple(Row(metric=m, estimate=e, unit=u) for m, e, u in named),
            arrays={"outlier_dimensions": np.array(self.outliers, dtype=np.float64)},
        )


def layer_anisotropy(
    reader: LayerReader, readings: Sequence[Reading], *, outliers: int = OUTLIERS
) -> tuple[PlaceAnisotropy, ...]:
    """Mean cosine of hidden states at every place of a model.

    Standard errors leave out documents in turn (jackknife), in at most 100 groups of whole ones;
    the mean and the largest dimensions are taken as known.

    Args:
        reader: of the model.
        readings: of a corpus or a language; padding is masked.
        outliers: dimensions left out, fewer than the width.

    Returns:
        One a place: embeddings, layers, the last before and after the final norm.

    Raises:
        BadData: fewer than two tokens, or a state of zeros.
        NonFinite: a state holds NaN or infinity.

    Reference:
        Godey et al., "Why do small language models underperform?" (2024), section 4.1.
    """
    group_of = _groups(readings)
    first = [_First() for _ in reader.places]
    for reading in readings:
        group, is_first = group_of[reading.block[reading.kept]], _is_first(reading)
        for place, total, states in zip(reader.places, first, _read(reader, reading), strict=True):
            total.add(states, group, is_first, place)
    second = [_Second(total, outliers) for total in first]
    for reading in readings:
        group = group_of[reading.block[reading.kept]]
        for more, states in zip(second, _read(reader, reading), strict=True):
            more.add(states, group)
    return tuple(
        PlaceAnisotropy(
            place=place,
            plain=total.plain.estimate(),
            without_first=total.without_first.estimate(),
            centred=more.centred.estimate(),
            without_outliers=more.without_outliers.estimate(),
            outlier_share=more.share,
            outliers=more.outliers,
        )
        for place, total, more in zip(reader.places, first, second, strict=True)
    )


class _UnitSums:
    """Sums of unit vectors by group, float64 (groups, width)."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._counts = torch.zeros(GROUPS, dtype=torch.float64)
        self.nowhere = 0  # states without a direction

    def add(self, states: Tensor, group: Tensor, floor: float = 0.0) -> None:
        length = states.norm(dim=1, keepdim=True)
        self.nowhere += int((length <= floor).sum())
        if self._sums is None:
            self._sums = states.new_zeros(GROUPS, states.shape[1])
        self._sums.index_add_(0, group.to(states.device), states / length.clamp_min(1e-300))
        self._counts += torch.bincount(group, minlength=GROUPS)

    def estimate(self) -> Estimate:
        """Mean cosine of pairs; NaN where a state has no direction or there is no pair."""
        n = int(self._counts.sum())
        if self._sums is None or n < 2 or self.nowhere:
            return Estimate(value=float("nan"), stderr=None, n=n)
        filled = self._counts > 0
        sums, counts = self._sums.cpu()[filled].numpy(), self._counts[filled].numpy()
        total = sums.sum(axis=0)
        value = float(np.clip((total @ total - n) / (n * n - n), -1.0, 1.0))
        left, groups = n - counts, len(counts)
        if groups < 2 or left.min() < 2:
            return Estimate(value=value, stderr=None, n=n)
        rest: NDArray[np.float64] = total - sums
        without = (np.einsum("ij,ij->i", rest, rest) - left) / (left * left - left)
        variance = (groups - 1) / groups * np.sum((without - without.mean()) ** 2)
        return Estimate(value=value, stderr=float(np.sqrt(variance)), n=n)


class _First:
    """What the first pass sums up at one place."""

    def __init__(self) -> None:
        self.plain, self.without_first = _UnitSums(), _UnitSums()
        self.count, self.largest = 0, 0.0
        self.sum = self.power = torch.zeros(0)

    def add(self, states: Tensor, group: Tensor, is_first: Tensor, place: Place) -> None:
        if not bool(torch.isfinite(states).all()):
            raise NonFinite(
                "the model's hidden states are not numbers.",
                asked=f"layer {place.layer}, "
                f"{int((~torch.isfinite(states)).any(dim=1).sum())} of {len(states)} states",
                remedy="leave this checkpoint out: its weights have diverged",
            )
        if not self.count:
            self.sum = states.new_zeros(states.shape[1])
            self.power = states.new_zeros(states.shape[1])
        self.plain.add(states, group)
        self.without_first.add(states[~is_first.to(states.device)], group[~is_first])
        if self.plain.nowhere:
            raise BadData(
                "a hidden state of length zero points nowhere.",
                asked=f"layer {place.layer}, {self.plain.nowhere} of the states",
                remedy="look at an earlier checkpoint, or leave this one out",
            )
        self.count += len(states)
        self.largest = max(self.largest, float(states.norm(dim=1).max()))
        self.sum += states.sum(dim=0)
        self.power += (states**2).sum(dim=0)


class _Second:
    """What the second pass sums up at one place."""

    def __init__(self, total: _First, outliers: int) -> None:
        if total.count < 2:
            raise BadData(
                "anisotropy needs at least two tokens.",
                asked=f"{total.count} tokens",
                remedy="give a longer text, or more tokens to the probe",
            )
        self._mean = total.sum / total.count
        # after the mean is taken off, equal states are rounding errors
        self._floor = 1e-12 * total.largest
        order = torch.argsort(-total.power, stable=True)
        self.outliers = tuple(order[:outliers].tolist())
        self._others = order[outliers:].sort().values
        share = float(total.power[order[:outliers]].sum() / total.power.sum())
        self.share = Estimate(value=share, stderr=None, n=total.count)
        self.centred, self.without_outliers = _UnitSums(), _UnitSums()

    def add(self, states: Tensor, group: Tensor) -> None:
        self.centred.add(states - self._mean, group, self._floor)
        if len(self._others):
            self.without_outliers.add(states[:, self._others], group)


def _read(reader: LayerReader, reading: Reading) -> list[Tensor]:
    """Kept states of every place, float64 (tokens, width)."""
    kept = reading.kept.to(reader.device)
    return [s[kept].double() for s in reader.read(reading.ids, reading.attention)]


def _is_first(reading: Reading) -> Tensor:
    """Which of the kept tokens are the first of their row."""
    first = torch.zeros_like(reading.kept)
    first[:, 0] = True
    return first[reading.kept]


def _groups(readings: Sequence[Reading]) -> Tensor:
    """Group of each block, dealt in turn, (largest block + 1,)."""
    blocks = torch.cat([r.block[r.kept] for r in readings]) if readings else torch.zeros(0)
    present = torch.unique(blocks.long())
    groups = torch.zeros(int(present.max()) + 1 if len(present) else 0, dtype=torch.int64)
    groups[present] = torch.arange(len(present)) % GROUPS
    return groups
