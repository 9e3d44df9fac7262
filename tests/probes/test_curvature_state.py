"""What curvature probes do to a model, to odd batches, and where they stop."""

from types import SimpleNamespace

import pytest
import torch

from curvature_models import Normed, causal_batches, tiny_model
from isoloss.errors import BadRequest, NonFinite
from isoloss.probes.fisher import fisher_trace
from isoloss.probes.hessian import hessian_trace

NEVER = 1e-9  # a relative error that no estimate here reaches
MODEL, BATCHES = tiny_model(), causal_batches()


@pytest.mark.parametrize("trace", [fisher_trace, hessian_trace])
def test_padding_and_rows_that_ask_nothing_change_nothing(trace):
    options = dict(relative_error=NEVER, max_products=48, seed=0, rows_per_product=1)
    plain = trace(MODEL, BATCHES, **options)
    padded = []
    for batch in BATCHES:
        ids, labels = batch["input_ids"], batch["labels"]
        extra = torch.full((len(ids), 2), 10)
        padded.append(
            {
                # one column within the model's window, and a sentence of padding alone
                "input_ids": torch.cat([torch.cat([ids, extra[:, :1]], 1), extra[:1, [0] * 8]]),
                "labels": torch.cat(
                    [
                        torch.cat([labels, torch.full((len(ids), 1), -100)], 1),
                        torch.full((1, labels.shape[1] + 1), -100),
                    ]
                ),
            }
        )
    again = trace(MODEL, padded, **options)
    assert again.value == pytest.approx(plain.value, rel=1e-6)


@pytest.mark.parametrize("trace", [fisher_trace, hessian_trace])
def test_dropout_is_off_inside_and_everything_is_put_back(trace):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = dict(vocab_size=13, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                 intermediate_size=8, hidden_dropout=0.5, attention_dropout=0.5)  # fmt: skip
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).train()
    model.lm_head.weight.requires_grad_(False)
    model.gpt_neox.final_layer_norm.eval()
    kept = model.gpt_neox.embed_in.weight.grad = torch.ones_like(model.gpt_neox.embed_in.weight)
    modes = [m.training for m in model.modules()]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    options = dict(relative_error=NEVER, max_products=16, seed=0, rows_per_product=2)
    found = trace(model, causal_batches(), **options)
    assert [m.training for m in model.modules()] == modes
    assert model.gpt_neox.embed_in.weight.grad is kept and model.lm_head.weight.grad is None
    assert not model.lm_head.weight.requires_grad
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert found.value == trace(model.eval(), causal_batches(), **options).value


def test_an_error_inside_leaves_the_model_as_it_was():
    model = tiny_model().train()
    batches = [
        {"input_ids": torch.zeros(2, 4, dtype=torch.long), "labels": torch.ones(2, 4).long()}
    ]
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    for trace in (fisher_trace, hessian_trace):
        with pytest.raises(NonFinite, match="probe 0"):
            trace(model, batches, seed=0, rows_per_product=1)
        assert model.training and all(p.grad is None for p in model.parameters())


def test_checkpointing_and_bfloat16_change_the_fisher_trace_by_rounding_alone():
    model = tiny_model(width=16).float()
    options = dict(relative_error=NEVER, max_products=64, seed=0, rows_per_product=2)
    plain = fisher_trace(model, causal_batches(), **options)
    entered = []
    model.activation_checkpointing_enable()
    inside = model.gpt_neox.layers[0].input_layernorm
    handle = inside.register_forward_pre_hook(lambda *_: entered.append(torch.is_grad_enabled()))
    checkpointed = fisher_trace(model, causal_batches(), **options)
    handle.remove()
    # recomputed in the backward pass: once for every draw
    assert len(entered) > checkpointed.products
    assert checkpointed.value == pytest.approx(plain.value, rel=1e-5)
    model.activation_checkpointing_disable()
    half = fisher_trace(model.bfloat16(), causal_batches(), **options)
    # 8 bits; labels drawn near a boundary may differ
    assert half.value == pytest.approx(plain.value, rel=0.05)


@pytest.mark.parametrize("trace", [fisher_trace, hessian_trace])
def test_equal_seeds_give_equal_numbers(trace):
    options = dict(relative_error=NEVER, max_products=40)
    first = trace(MODEL, BATCHES, seed=4, **options)
    assert trace(MODEL, BATCHES, seed=4, **options) == first
    assert trace(MODEL, BATCHES, seed=5, **options) != first


def test_the_limit_of_products_is_kept_and_told():
    found = hessian_trace(MODEL, BATCHES, relative_error=NEVER, max_products=30, seed=0)
    assert (found.products, found.converged) == (30, False)
    loose = fisher_trace(MODEL, BATCHES, relative_error=None, absolute_error=5, seed=0)
    assert loose.converged and loose.stderr <= 5


def test_a_population_adds_the_spread_between_sentences():
    options = dict(relative_error=NEVER, max_products=192, seed=0, rows_per_product=1)
    batches = causal_batches((24,))
    exact = fisher_trace(MODEL, batches, **options)
    population = fisher_trace(MODEL, batches, population=True, **options)
    assert population.value == exact.value and population.n == 24
    assert population.stderr > exact.stderr
    one = [{k: v[:1] for k, v in batches[0].items()}]
    for trace in (fisher_trace, hessian_trace):
        with pytest.raises(BadRequest, match="one sequence"):
            trace(MODEL, one, seed=0, population=True)
    assert fisher_trace(MODEL, one, seed=0, relative_error=0.1).converged


def test_zero_curvature_is_zero():
    class Constant(Normed):
        def forward(self, input_ids, use_cache):
            return SimpleNamespace(logits=0 * super().forward(input_ids, use_cache).logits)

    for trace in (fisher_trace, hessian_trace):
        found = trace(Constant(), BATCHES, seed=0)
        assert (found.value, found.stderr, found.converged) == (0.0, 0.0, True)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "ask nothing"),
        ([{"input_ids": torch.zeros(1, 3).long(), "labels": torch.full((1, 3), -100)}], "nothing"),
        ([{"input_ids": torch.zeros(1, 3).long()}], "batch 0 lacks"),
        ([{"input_ids": torch.zeros(1, 3).long(), "labels": torch.zeros(1, 2).long()}], "shape"),
    ],
)
def test_batches_that_cannot_be_are_refused(batches, message):
    with pytest.raises(BadRequest, match=message):
        hessian_trace(MODEL, batches, seed=0)


def test_methods_that_cannot_be_are_refused():
    with pytest.raises(BadRequest, match="no such method"):
        hessian_trace(MODEL, BATCHES, seed=0, method="xtrase")
    with pytest.raises(BadRequest, match="spread between batches"):
        hessian_trace(MODEL, BATCHES, seed=0, method="xtrace", population=True)
