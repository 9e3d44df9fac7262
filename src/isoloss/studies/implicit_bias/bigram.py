r"""The drift of SGD along a manifold of minima that is known exactly.

A bigram language of V words, p(b | a) = P_ab, is learned by softmax(U W) with U (V, r) and
W (r, V), r >= V: it attains P, and its minima are all (U, W) with

    U W C = log(P) C,   C = 1 - ones / V   (softmax does not see what C removes)

a smooth manifold where U has rank V. Its tangent is the null space of (dU, dW) -> dU W C + U dW C,
which is also that of the Hessian. One parameter moves a logit linearly, so that the trace of the
Hessian is exact at any parameters, with q_a = softmax(U_a W) and S_a = diag(q_a) - q_a q_a':

    Tr H = sum_a pi_a [ Tr(W S_a W') + |U_a|^2 Tr(S_a) ]

Theorem 4.3 of Liu et al. (2023), PMLR 202:22188: SGD of rate eta and B fresh examples a step
moves along the minima, in t = eta^2 k after k steps, by d theta/dt = -(1/(4 B)) grad_G Tr H, with
grad_G the gradient projected on the tangent space, and so Tr H falls by

    d/dt Tr H = -(1/(4 B)) |grad_G Tr H|^2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoloss.errors import BadRequest

Floats = NDArray[np.float64]

NEWTON_STEPS = 6  # from a distance of 1 the residual is below 1e-12 after five
FLOW_STEP = 0.05  # of t / B; a tenth of it changes a trace by less than 1e-5


class Bigram(NamedTuple):
    """A language of pairs of words.

    Attributes:
        transition: P, rows sum to 1, float64 (V, V).
        stationary: pi, how often each word comes first, float64 (V,).
    """

    transition: Floats
    stationary: Floats


class Parameters(NamedTuple):
    """A model, or a stack of them along leading axes.

    Attributes:
        left: U, float64 (..., V, r).
        right: W, float64 (..., r, V).
    """

    left: Floats
    right: Floats

    def flat(self) -> Floats:
        """Both as one vector, float64 (..., 2 V r)."""
        parts = [x.reshape(*x.shape[:-2], -1) for x in self]
        return np.concatenate(parts, axis=-1)

    def moved(self, by: Floats) -> Parameters:
        """The model after a step, float64 (..., 2 V r)."""
        count = self.left.shape[-2] * self.left.shape[-1]
        return Parameters(
            self.left + by[..., :count].reshape(*by.shape[:-1], *self.left.shape[-2:]),
            self.right + by[..., count:].reshape(*by.shape[:-1], *self.right.shape[-2:]),
        )


class Traces(NamedTuple):
    """Curvature of a stack of models.

    Attributes:
        trace: Tr H, float64 (...).
        companion: each factor's trace times its squared norm, summed, float64 (...): unchanged
            when U is multiplied by a number and W divided by it.
    """

    trace: Floats
    companion: Floats


class Gradient(NamedTuple):
    """Gradient of Tr H at a minimum.

    Attributes:
        tangent: its projection on the tangent space of the minima, float64 (2 V r,).
        full: as it is where P is held fixed, float64 (2 V r,).
    """

    tangent: Floats
    full: Floats


def random_bigram(words: int, *, concentration: float = 4.0, seed: int) -> Bigram:
    """Draw a language: Dirichlet rows and their stationary law.

    Args:
        words: V, at least 2.
        concentration: of the rows; small ones make curvatures small and the drift slow to see.
        seed: of the rows.
    """
    rows = np.random.default_rng(seed).dirichlet(np.full(words, concentration), size=words)
    values, vectors = np.linalg.eig(rows.T)
    first = np.real(vectors[:, np.argmax(np.real(values))])
    return Bigram(transition=rows, stationary=first / first.sum())


def random_minimum(language: Bigram, *, rank: int, seed: int) -> Parameters:
    """A minimum near Gaussian factors.

    Args:
        language: what is attained.
        rank: r, at least the number of words.
        seed: of the factors.

    Raises:
        BadRequest: the rank is too small for every language of so many words.
    """
    words = len(language.stationary)
    if rank < words:
        raise BadRequest(
            "factors of so small a rank do not attain every bigram language",
            asked=f"rank {rank} for {words} words",
            nearest=f"rank {words}",
            remedy="ask for this rank",
        )
    rng = np.random.default_rng(seed)
    start = Parameters(rng.standard_normal((words, rank)), rng.standard_normal((rank, words)))
    return onto_minima(language, start)


def rescaled(parameters: Parameters, factor: float) -> Parameters:
    """The same function with U multiplied and W divided by a number: another trace."""
    return Parameters(parameters.left * factor, parameters.right / factor)


def onto_minima(language: Bigram, parameters: Parameters) -> Parameters:
    """The minimum that Gauss-Newton steps of least norm reach; models may be stacked."""
    basis = _contrasts(len(language.stationary))
    target = np.log(language.transition) @ basis
    for _ in range(NEWTON_STEPS):
        jacobian = _jacobian(parameters, basis)
        missing = (parameters.left @ parameters.right @ basis - target).reshape(
            *jacobian.shape[:-1], 1
        )
        transposed = np.swapaxes(jacobian, -1, -2)
        step = -(transposed @ np.linalg.solve(jacobian @ transposed, missing))[..., 0]
        parameters = parameters.moved(step)
    return parameters


def excess_loss(language: Bigram, parameters: Parameters) -> Floats:
    """Nats above the entropy of the language, float64 (...)."""
    scores = parameters.left @ parameters.right
    logs = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    gap = np.log(language.transition) - logs
    excess: Floats = np.einsum("a,ab,...ab->...", language.stationary, language.transition, gap)
    return excess


def traces(language: Bigram, parameters: Parameters) -> Traces:
    """Exact Hessian trace of the expected loss and its scale-invariant companion."""
    q = softmax(parameters.left @ parameters.right)
    pi = language.stationary
    mixed = np.einsum("a,...ai,...ki->...k", pi, q, parameters.right**2)
    crossed = np.einsum("...ki,...ai->...ak", parameters.right, q)
    of_left = mixed.sum(-1) - np.einsum("a,...ak->...", pi, crossed**2)
    spread = 1.0 - (q**2).sum(-1)
    of_right = np.einsum("a,...ak,...a->...", pi, parameters.left**2, spread)
    left_norm, right_norm = ((x**2).sum((-2, -1)) for x in parameters)
    return Traces(of_left + of_right, of_left * left_norm + of_right * right_norm)


def trace_gradient(language: Bigram, minimum: Parameters) -> Gradient:
    """Gradient of Tr H at a minimum, and its projection on the tangent space.

    Moving along the tangent leaves every probability as it is: for the projection the S_a are
    constants.
    """
    pi, p = language.stationary, language.transition
    mean_spread = np.diag(pi @ p) - np.einsum("a,ai,aj->ij", pi, p, p)
    spread = pi * (1.0 - (p**2).sum(-1))
    full = 2 * Parameters(spread[:, None] * minimum.left, minimum.right @ mean_spread).flat()
    jacobian = _jacobian(minimum, _contrasts(len(pi)))
    normal = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T, jacobian @ full)
    return Gradient(tangent=full - normal, full=full)


def flow(language: Bigram, start: Parameters, times: Sequence[float]) -> tuple[Parameters, ...]:
    """The minima that the theorem's flow passes, by Runge and Kutta's midpoint rule.

    Args:
        language: what is learned.
        start: a minimum.
        times: of t / B, ascending.

    Returns:
        One minimum a time.
    """
    passed, here, now = [], start, 0.0
    for time in times:
        steps = max(1, int(np.ceil((time - now) / FLOW_STEP)))
        size = (time - now) / steps
        for _ in range(steps):
            half = here.moved(-size / 8 * trace_gradient(language, here).tangent)
            middle = trace_gradient(language, onto_minima(language, half)).tangent
            here = onto_minima(language, here.moved(-size / 4 * middle))
        passed.append(here)
        now = time
    return tuple(passed)


def softmax(scores: Floats) -> Floats:
    """Probabilities along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def _contrasts(words: int) -> Floats:
    """Orthonormal columns that span what softmax sees, float64 (V, V - 1)."""
    left, _, _ = np.linalg.svd(np.eye(words) - 1.0 / words)
    basis: Floats = left[:, : words - 1]
    return basis


def _jacobian(parameters: Parameters, basis: Floats) -> Floats:
    """Of U W C in the basis, float64 (..., V (V - 1), 2 V r)."""
    left, right = parameters
    words, rank = left.shape[-2:]
    by_left = np.einsum("ac,...kj->...ajck", np.eye(words), right @ basis)
    by_right = np.einsum("...ak,bj->...ajkb", left, basis)
    stack = left.shape[:-2]
    rows = words * (words - 1)
    return np.concatenate(
        [x.reshape(*stack, rows, words * rank) for x in (by_left, by_right)], axis=-1
    )
