"""The parameters a curvature is taken in, and the state a model must be in meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from isoloss.errors import BadRequest, nearest_name

# implementations of attention in plain operations or behind torch's choice of kernels
_PLAIN = (None, "eager", "sdpa")


def chosen_parameters(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters of a model less those excluded; tied ones once.

    Args:
        model: any module.
        exclude: names as of ``named_parameters``, or patterns such as ``"*.bias"``.

    Returns:
        Parameters by name, in the model's order.

    Raises:
        BadRequest: a name or pattern fits no parameter, or none is left.
    """
    known = dict(model.named_parameters())
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise BadRequest(
                "a parameter to exclude is not in the model.",
                asked=f"exclude {pattern!r}",
                nearest=nearest_name(pattern, known),
                remedy="take names from model.named_parameters(); * stands for any letters",
            )
    chosen = {
        name: p
        for name, p in known.items()
        if not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    if not chosen:
        raise BadRequest(
            "no parameter is left to take the curvature in.",
            asked=f"exclude {list(exclude)} of {len(known)} parameters",
            remedy="exclude fewer",
        )
    return chosen


def squared_norms(parameters: Sequence[Tensor]) -> Tensor:
    """Squared Euclidean norm of each tensor, float64 on the CPU, (tensors,)."""
    return torch.stack([torch.dot(_wide(p), _wide(p)) for p in parameters]).double().cpu()


def products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Scalar product of each pair of tensors, float64 on the CPU, (tensors,)."""
    pairs = zip(left, right, strict=True)
    return torch.stack([torch.dot(_wide(a), _wide(b)) for a, b in pairs]).double().cpu()


def _wide(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat if flat.dtype == torch.float64 else flat.float()


@contextmanager
def as_function(
    model: nn.Module, parameters: Sequence[nn.Parameter], *, twice: bool
) -> Iterator[None]:
    """Make a model a deterministic function of some of its parameters, and put it back after.

    Dropout is off. Gradients that parameters hold stay theirs. For second derivatives attention
    runs in the math kernel, since torch's fast ones have no second derivative, and gradient
    checkpointing is off; for first ones both stay as they are.

    Args:
        model: any module.
        parameters: those that are differentiated.
        twice: whether second derivatives are taken.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = {id(p) for p in parameters}
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    rates: list[tuple[nn.Module, str, float]] = []
    model.eval()
    try:
        for p, _, _ in before:
            p.requires_grad_(id(p) in wanted)
            p.grad = None
        with torch.enable_grad():
            if not twice:
                rates = _keep_checkpointing(model)
                yield
            else:
                with _differentiable_kernels(model):
                    yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
        for module, mode in modes:
            module.training = mode
        for p, requires_grad, grad in before:
            p.requires_grad_(requires_grad)
            p.grad = grad


def _keep_checkpointing(model: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Transformers checkpoints in training mode alone: leave such modules in it, dropout at 0."""
    rates = []
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in list(vars(module).items()):
                if isinstance(value, float) and ("dropout" in name or "layerdrop" in name):
                    rates.append((module, name, value))
                    setattr(module, name, 0.0)
    return rates


@contextmanager
def _differentiable_kernels(model: nn.Module) -> Iterator[None]:
    config: Any = getattr(model, "config", None)
    before = getattr(config, "_attn_implementation", None)
    fused = before not in _PLAIN
    if fused:
        model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        # cuDNN's recurrent layers have no second derivative either
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        if fused:
            model.set_attn_implementation(before)  # type: ignore[operator]
