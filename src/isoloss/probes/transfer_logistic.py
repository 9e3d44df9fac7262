"""Many multinomial logistic regressions on the same features, solved together.

The fits of a probe differ in the examples they learn from and in the strength of the penalty,
not in the features. So the features are rotated once onto the axes of their Gram matrix, where
Boehning's bound of every fit's Hessian is diagonal, and preconditioned L-BFGS moves all fits in
step: a step is two matrix products for all of them, and who has arrived leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.errors import NonFinite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MEMORY_PAIRS = 12
MOST_STEPS = 2_000
TOLERANCE = 3e-7
"""On the root of the square that L-BFGS's own curvature gives the gradient: the loss is then
within 1e-13 nats of its minimum, and probabilities are right to 1e-4, mostly to 1e-6."""

_ROUGH = 3e-4
_BLOCK = 1 << 18  # logits of a block of examples: 2 MB stay in the cache between operations
_GROUP_BYTES = 1 << 28  # of the directions that L-BFGS keeps
_MOST_HALVINGS = 20
_CHECK_EVERY = 4  # steps between looks at who has arrived: leaving copies all that is kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rotated:
    """Features standardised and turned onto the axes of their Gram matrix.

    Attributes:
        z: of the features it was made from, and last a constant one; (n, axes + 1).
        spectrum: mean square of every axis, (axes,).
        center: mean of the features, (features,).
        scale: their standard deviation, 1 where it is 0, (features,).
        rotation: from standardised features to axes, (features, axes).
    """

    z: Tensor
    spectrum: Tensor
    center: Tensor
    scale: Tensor
    rotation: Tensor

    def logits(self, features: NDArray[np.floating], weight: Tensor) -> Floats:
        """Class scores of other documents.

        Args:
            features: (n, features).
            weight: of fits, (fits, axes + 1, classes).

        Returns:
            float64 (fits, n, classes).
        """
        z = _turn((_double(features) - self.center) / self.scale, self.rotation)
        scores: Floats = torch.einsum("nd,pdc->pnc", z, weight).numpy()
        return scores


class Fits(NamedTuple):
    """Fitted multinomial logistic regressions.

    Attributes:
        weight: on the axes of the features and, last, a constant; (fits, axes + 1, classes).
        converged: whether the gradient fell below the tolerance, (fits,).
    """

    weight: Tensor
    converged: Bools


def rotate(features: NDArray[np.floating]) -> Rotated:
    """Standardise features and turn them onto the axes of their Gram matrix.

    Axes on which they have no variance but rounding errors are left out.

    Args:
        features: (n, d).

    Returns:
        What fits on these features share.

    Raises:
        NonFinite: a feature is NaN or infinite.
    """
    x = _double(features)
    if not torch.isfinite(x).all():
        raise NonFinite(
            "the features of a probe are not numbers",
            asked=f"{int((~torch.isfinite(x)).any(dim=1).sum())} of {len(x)} documents",
            remedy="leave this checkpoint out: its weights have diverged",
        )
    center, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    # a constant feature has a standard deviation of rounding errors
    scale = torch.where(scale > 1e-12 * center.abs(), scale, 1.0)
    x = (x - center) / scale
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = values > 1e-14 * values[-1].clamp(min=1e-300)
    rotation = vectors[:, kept]
    return Rotated(
        z=_turn(x, rotation),
        spectrum=values[kept],
        center=center,
        scale=scale,
        rotation=rotation,
    )


def logistic_fits(
    rotated: Rotated,
    labels: Ints,
    classes: int,
    *,
    learned: Bools,
    ridges: Floats,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Fits:
    """Minimise, for every fit, the mean cross-entropy plus ``ridge / 2`` times squared weights.

    The bias is not penalised. scikit-learn's ``C`` of equal strength is 1 / (n ridge) with n the
    rows learned from, and 2 / (n ridge) for two classes, to which it gives one vector of weights
    instead of two. Deterministic, float64.

    Args:
        rotated: the features of n documents.
        labels: classes from 0, int (n,).
        classes: their number.
        learned: which rows each fit learns from, (fits, n); each has every class.
        ridges: penalty of each fit, above 0, (fits,).
        start: weights to start from, such as those of another penalty; zeros where None.
        tolerance: largest norm of the gradient at the end, measured by the inverse Hessian.

    Returns:
        The fits, in the order given.

    Reference:
        Boehning (1992), Multinomial logistic regression algorithm: the Hessian of every fit lies
        below half the Gram matrix. Nocedal (1980) for L-BFGS.
    """
    width = rotated.z.shape[1]
    if start is None:
        start = rotated.z.new_zeros(len(ridges), width, classes)
    group = max(_GROUP_BYTES // (width * classes * 8 * (2 * MEMORY_PAIRS + 6)), 1)
    parts, converged = [], []
    for at in range(0, len(ridges), group):
        rows = torch.from_numpy(learned[at : at + group].T.astype(np.float64))
        problem = _Problem(
            rotated.z,
            torch.from_numpy(labels),
            classes,
            rows / rows.sum(dim=0),
            _penalty(torch.from_numpy(ridges[at : at + group]), width - 1),
            rotated.spectrum,
        )
        first = start[at : at + group].permute(1, 0, 2).clone(memory_format=torch.contiguous_format)
        # float32 is twice as fast, and its rounding is seen below this norm
        rough, done = _descend(problem.to(torch.float32), first.float(), max(tolerance, _ROUGH))
        weight = rough.double()
        if tolerance < _ROUGH:
            weight, done = _descend(problem, weight, tolerance)
        parts.append(weight.permute(1, 0, 2))
        converged.append(done)
    return Fits(torch.cat(parts), np.concatenate(converged))


def _double(features: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(features).double()


def _turn(standardised: Tensor, rotation: Tensor) -> Tensor:
    return torch.cat([standardised @ rotation, standardised.new_ones(len(standardised), 1)], dim=1)


def _penalty(ridges: Tensor, axes: int) -> Tensor:
    """(axes + 1, fits, 1), zero for the bias."""
    penalty = ridges.expand(axes + 1, -1).clone()
    penalty[-1] = 0.0
    return penalty[..., None]


class _Problem(NamedTuple):
    """Some fits: weights (axes + 1, fits, classes) are moved in step."""

    z: Tensor
    labels: Tensor
    classes: int
    share: Tensor  # weight of every example in every fit, (n, fits)
    penalty: Tensor
    spectrum: Tensor

    def only(self, fits: Tensor) -> _Problem:
        return self._replace(share=self.share[:, fits], penalty=self.penalty[:, fits])

    def to(self, dtype: torch.dtype) -> _Problem:
        return self._replace(
            z=self.z.to(dtype),
            share=self.share.to(dtype),
            penalty=self.penalty.to(dtype),
            spectrum=self.spectrum.to(dtype),
        )

    def inverse_bound(self) -> Tensor:
        """Inverse diagonal of Boehning's bound, (axes + 1, fits, 1); the constant's is 1/2."""
        bound = torch.cat([self.spectrum, self.spectrum.new_ones(1)])[:, None, None] / 2
        return 1 / (bound + self.penalty)

    def evaluate(self, weight: Tensor) -> _Point:
        fits = weight.shape[1]
        flat = weight.reshape(len(weight), -1)
        loss, gradient = (self.penalty * weight**2).sum(dim=(0, 2)) / 2, self.penalty * weight
        total = torch.zeros_like(flat)
        step = max(_BLOCK // flat.shape[1], 64)
        for at in range(0, len(self.z), step):
            z, share = self.z[at : at + step], self.share[at : at + step]
            logits = (z @ flat).view(len(z), fits, self.classes)
            logits -= logits.amax(dim=2, keepdim=True)
            label = self.labels[at : at + step, None, None].expand(-1, fits, 1)
            loss -= (share * logits.gather(2, label)[..., 0]).sum(dim=0)
            residual = logits.exp_()
            sums = residual.sum(dim=2)
            loss += (share * sums.log()).sum(dim=0)
            residual *= (share / sums)[..., None]
            residual.scatter_add_(2, label, -share[..., None])
            total.addmm_(z.T, residual.view(len(z), -1))
        return _Point(weight, loss, gradient + total.view_as(weight))


class _Point(NamedTuple):
    weight: Tensor
    loss: Tensor  # (fits,)
    gradient: Tensor

    def only(self, fits: Tensor) -> _Point:
        return _Point(self.weight[:, fits], self.loss[fits], self.gradient[:, fits])


class _Pair(NamedTuple):
    """A step, the change of the gradient, and one over their product (0: not to be used)."""

    step: Tensor
    change: Tensor
    inverse: Tensor

    def only(self, fits: Tensor) -> _Pair:
        return _Pair(self.step[:, fits], self.change[:, fits], self.inverse[fits])


def _descend(problem: _Problem, solved: Tensor, tolerance: float) -> tuple[Tensor, Bools]:
    """Weights (axes + 1, fits, classes) from those of a start, and which fits converged."""
    fits = problem.share.shape[1]
    converged = np.zeros(fits, dtype=bool)
    active = torch.arange(fits)
    point = problem.evaluate(solved)
    diagonal = problem.inverse_bound()
    pairs: list[_Pair] = []
    for step in range(MOST_STEPS):
        if step % _CHECK_EVERY == 0:
            done = (diagonal * point.gradient**2).sum(dim=(0, 2)).sqrt() < tolerance
            if done.any():
                solved[:, active[done]] = point.weight[:, done]
                converged[active[done].numpy()] = True
                left = torch.nonzero(~done)[:, 0]
                active = active[left]
                problem, point = problem.only(left), point.only(left)
                diagonal, pairs = diagonal[:, left], [pair.only(left) for pair in pairs]
            if len(active) == 0:
                break
        direction = _direction(point.gradient, diagonal, pairs)
        new = _search(problem, point, direction)
        pairs = [*pairs[1 - MEMORY_PAIRS :], _pair(point, new)]
        point = new
    solved[:, active] = point.weight
    return solved, converged


def _pair(old: _Point, new: _Point) -> _Pair:
    step, change = new.weight - old.weight, new.gradient - old.gradient
    product = _dot(step, change)
    # at rounding level the product may be 0 or negative
    usable = product > torch.finfo(product.dtype).tiny
    return _Pair(step, change, torch.where(usable, 1 / product.where(usable, 1.0), 0.0))


def _direction(gradient: Tensor, diagonal: Tensor, pairs: list[_Pair]) -> Tensor:
    """L-BFGS's two loops, for all fits at once."""
    q, factors = gradient.clone(), []
    for pair in reversed(pairs):
        factor = pair.inverse * _dot(pair.step, q)
        factors.append(factor)
        q -= factor[:, None] * pair.change
    q *= diagonal
    if pairs:
        last = pairs[-1]
        curvature = last.inverse * (diagonal * last.change**2).sum(dim=(0, 2))
        q /= torch.where(curvature > 0, curvature, 1.0)[:, None]
    for pair, factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - pair.inverse * _dot(pair.change, q))[:, None] * pair.step
    return -q


def _search(problem: _Problem, point: _Point, direction: Tensor) -> _Point:
    """Halve each fit's step until its loss falls enough (Armijo).

    Where the fall drowns in the loss's last digits, the slope decides instead: Hager and Zhang
    (2005), A new conjugate gradient method with guaranteed descent, eq. 4.1.
    """
    slope = _dot(point.gradient, direction)
    length = torch.ones_like(slope)
    rounding = 50 * torch.finfo(slope.dtype).eps
    for _ in range(_MOST_HALVINGS):
        new = problem.evaluate(point.weight + length[:, None] * direction)
        enough = new.loss <= point.loss + 1e-4 * length * slope
        if not enough.all():
            flat = _dot(new.gradient, direction) <= -0.8 * slope
            enough |= flat & (new.loss <= point.loss * (1 + rounding))
        if enough.all():
            break
        length = torch.where(enough, length, length / 2)
    return new


def _dot(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum(dim=(0, 2))
