"""Traces of a model's Hessian and Fisher information against dense ones in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from curvature_models import (
    LANGUAGE,
    Normed,
    block_weights,
    causal_batches,
    dense_fisher,
    dense_hessian,
    masked_batches,
    own_probs,
    tiny_model,
)
from isoloss.corpora.language import model_tokens
from isoloss.errors import BadRequest
from isoloss.probes.curvature_batches import read_batches, summed_loss
from isoloss.probes.fisher import fisher_trace
from isoloss.probes.hessian import hessian_trace, loss_hessian
from isoloss.probes.lanczos import top_eigenvalues

ARCHITECTURES = ("gpt-neox", "llama", "mamba", "bert", "lstm")
NEVER = 1e-9


def case(architecture):
    batches = masked_batches() if architecture in ("bert", "lstm") else causal_batches()
    return tiny_model(architecture), batches


@pytest.fixture(scope="module")
def neox():
    model, batches = case("gpt-neox")
    return SimpleNamespace(
        model=model,
        batches=batches,
        hessian=dense_hessian(model, batches),
        fisher=dense_fisher(model, batches),
    )


def directions(dim, count):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_are_differences_of_gradients(architecture):
    model, batches = case(architecture)
    parameters, read = list(model.parameters()), read_batches(model, batches)
    with loss_hessian(model, batches) as h:
        (vector,) = directions(h.dim, 1)
        found = h.matvec(vector)
    steps = vector.split([p.numel() for p in parameters])

    def gradient(t):
        with torch.no_grad():
            for p, step in zip(parameters, steps, strict=True):
                p += t * step.view_as(p)
        loss = sum(summed_loss(model, rows) for rows in read) / sum(r.tokens for r in read)
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    model.eval()
    t = 1e-4
    expected = (gradient(t) - gradient(-2 * t)) / (2 * t)
    # some of transformers' layers compute in float32: 1e-6 of a gradient over 2e-4
    assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_products_and_top_eigenvalues_are_those_of_the_dense_hessian(neox):
    with loss_hessian(neox.model, neox.batches) as h:
        vectors = directions(h.dim, 8)
        found = torch.stack([h.matvec(v) for v in vectors])
        top = top_eigenvalues(h.matvec, h.dim, count=3, products=45, seed=0)
    # central differences of step 1e-5, and rotary angles that are float32 constants
    assert float((found - vectors @ neox.hessian).abs().max()) < 1e-5
    products = found @ vectors.T
    assert float((products - products.T).abs().max()) < 1e-10
    dense = torch.linalg.eigvalsh((neox.hessian + neox.hessian.T) / 2).flip(0)[:3]
    assert top.converged and top.values == pytest.approx(dense.numpy(), rel=1e-4)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_the_hessian_trace_is_within_three_errors_of_the_dense_one(neox, method):
    found = hessian_trace(
        neox.model, neox.batches, method=method, relative_error=0.1, max_products=1500, seed=0
    )
    assert found.converged
    assert abs(found.value - float(neox.hessian.trace())) < 3 * found.stderr
    assert found.stderr <= 0.1 * abs(found.value)


@pytest.mark.parametrize("rows", [1, 4, None])
def test_the_fisher_trace_is_within_three_errors_of_the_dense_one(neox, rows):
    found = fisher_trace(
        neox.model, neox.batches, relative_error=0.03, seed=1, rows_per_product=rows
    )
    assert found.converged and found.stderr <= 0.03 * found.value
    assert abs(found.value - float(neox.fisher.trace())) < 3 * found.stderr


@pytest.mark.parametrize("architecture", ["bert", "lstm", "mamba"])
def test_other_architectures_have_the_trace_of_their_dense_fisher(architecture):
    model, batches = case(architecture)
    batches = [{k: v[:4] for k, v in batches[0].items()}]
    dense = float(dense_fisher(model, batches).trace())
    found = fisher_trace(model, batches, relative_error=0.08, seed=1)
    assert abs(found.value - dense) < 3 * found.stderr
    # its own soft labels: the same trace by second derivatives
    twice = hessian_trace(model, own_probs(model, batches), relative_error=0.08, seed=2)
    assert abs(twice.value - dense) < 3 * twice.stderr


def test_with_its_own_soft_labels_the_hessian_is_the_fisher_matrix(neox):
    with loss_hessian(neox.model, own_probs(neox.model, neox.batches)) as h:
        vectors = directions(h.dim, 8)
        found = torch.stack([h.matvec(v) for v in vectors])
    # no probes here: both are exact, whatever the parameters
    assert float((found - vectors @ neox.fisher).abs().max()) < 1e-9
    assert float((found - vectors @ neox.hessian).abs().max()) > 0.1


def test_the_companion_weighs_each_tensor_by_its_squared_norm(neox):
    weights = block_weights(neox.model)
    for found, dense in (
        (fisher_trace(neox.model, neox.batches, relative_error=0.05, seed=3), neox.fisher),
        (
            hessian_trace(
                neox.model, own_probs(neox.model, neox.batches), relative_error=0.05, seed=3
            ),
            neox.fisher,
        ),
    ):
        companion = found.scale_invariant
        assert abs(companion.value - float(dense.diagonal() @ weights)) < 3 * companion.stderr


@pytest.mark.parametrize("trace", [fisher_trace, hessian_trace])
def test_scaling_a_weight_before_a_norm_moves_the_trace_and_not_its_companion(trace):
    ids = torch.randint(9, (6, 5), generator=torch.Generator().manual_seed(1))
    batches, model = [{"input_ids": ids, "labels": ids}], Normed()
    options = dict(relative_error=NEVER, max_products=480, seed=0, rows_per_product=6)
    before = trace(model, batches, **options)
    with torch.no_grad():
        model.inner *= 2
    after = trace(model, batches, **options)
    assert after.value / before.value < 0.9
    change = after.scale_invariant.value - before.scale_invariant.value
    if trace is fisher_trace:
        # the same labels: the companion is unchanged draw by draw
        assert change == pytest.approx(0, abs=1e-9)
    else:
        error = np.hypot(after.scale_invariant.stderr, before.scale_invariant.stderr)
        assert abs(change) < 3 * error


def test_excluded_parameters_leave_the_block_of_the_others(neox):
    names = [name for name, p in neox.model.named_parameters() for _ in range(p.numel())]
    kept = torch.tensor(["layernorm" not in n and "lm_head" not in n for n in names])
    found = fisher_trace(
        neox.model, neox.batches, relative_error=0.05, seed=1, exclude=["*layernorm*", "lm_head.*"]
    )
    assert abs(found.value - float(neox.fisher.diagonal()[kept].sum())) < 3 * found.stderr
    with loss_hessian(neox.model, neox.batches, exclude=["*layernorm*", "lm_head.*"]) as h:
        assert h.dim == int(kept.sum())


@pytest.mark.parametrize(
    ("exclude", "message"), [(["lm_haed.weight"], "not in the model"), (["*"], "no parameter")]
)
def test_excluding_what_is_not_there_or_everything_is_refused(neox, exclude, message):
    with pytest.raises(BadRequest, match=message):
        fisher_trace(neox.model, neox.batches, seed=0, exclude=exclude)


def test_hessian_and_fisher_traces_meet_as_a_model_learns_its_language():
    """With the true next-word laws as labels, and common probes."""
    model = tiny_model(width=16).float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    words = LANGUAGE.sample(128, 9)
    ids = torch.from_numpy(model_tokens(words, LANGUAGE.vocab))
    true = torch.zeros(*ids.shape, model.config.vocab_size)
    true[:, 1:, : LANGUAGE.vocab] = torch.from_numpy(np.exp(LANGUAGE.next_token_logprobs(words)))
    batches = [{"input_ids": ids, "labels": ids, "label_probs": true}]

    def gap():
        options = dict(relative_error=NEVER, max_products=128, seed=0, rows_per_product=16)
        hessian = hessian_trace(model, batches, **options).value
        fisher = hessian_trace(model, own_probs(model, batches), **options).value
        return abs(hessian - fisher) / fisher

    gaps = [gap()]
    for steps in (40, 360):
        for step in range(steps):
            fresh = torch.from_numpy(model_tokens(LANGUAGE.sample(64, (steps, step)), 8))
            optimizer.zero_grad()
            model(input_ids=fresh, labels=fresh, use_cache=False).loss.backward()
            optimizer.step()
        gaps.append(gap())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.1
