"""Optimizers by name and their state without pickling."""

import pytest
import torch
from torch import nn

from isoloss.errors import BadStudy
from isoloss.pretrain.optimizers import load_state_tensors, make_optimizer, state_tensors


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {"betas": (0.9, 0.98)}),
        ("SGD", {"momentum": 0.9}),
        ("sgd", {}),
        ("nadam", {}),
        ("adafactor", {}),
    ],
)
def test_state_put_back_continues_bit_for_bit(name, options):
    through, model = linear(), linear()
    optimizer = make_optimizer(through, name, lr=0.01, options=options)
    for seed in range(6):
        step(through, optimizer, seed)
    first = make_optimizer(model, name, lr=0.01, options=options)
    for seed in range(3):
        step(model, first, seed)
    tensors = {k: v.clone() for k, v in state_tensors(first).items()}
    second = make_optimizer(model, name, lr=0.01, options=options)
    load_state_tensors(second, tensors)
    for seed in range(3, 6):
        step(model, second, seed)
    assert torch.equal(model.weight, through.weight)
    assert torch.equal(model.bias, through.bias)


def test_weight_decay_leaves_vectors_alone():
    model = linear()
    optimizer = make_optimizer(model, "adamw", lr=0.1, options={"weight_decay": 0.5})
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    # decoupled decay without gradient: 1 - lr * decay
    torch.testing.assert_close(model.weight.detach(), weight * 0.95)
    assert torch.equal(model.bias.detach(), bias)


def test_unknown_optimizers_and_options_name_the_nearest():
    with pytest.raises(BadStudy, match="nearest: adamw"):
        make_optimizer(linear(), "adamww", lr=0.1, options={})
    with pytest.raises(BadStudy, match="nearest: momentum"):
        make_optimizer(linear(), "sgd", lr=0.1, options={"momentun": 0.9})
