"""Small models as points of larger architectures."""

import copy

import pytest
import torch
import transformers as hf
from torch.func import functional_call

from isoloss.errors import BadRequest
from isoloss.family import Folder
from isoloss.models.load import load
from isoloss.models.quiet import quiet_transformers
from isoloss.models.widen import widen, widened_weights, wider_config
from shared_data import SHARED, needs_shared

VOCAB = 23
_COMMON = dict(
    vocab_size=VOCAB, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    max_position_embeddings=16,
)  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 100.0}
CONFIGS = {
    "bert": hf.RobertaPreLayerNormConfig(
        **_COMMON, intermediate_size=20, type_vocab_size=1, pad_token_id=-1
    ),
    "gpt-neox": hf.GPTNeoXConfig(
        **_COMMON, intermediate_size=20, tie_word_embeddings=False,
        rope_parameters={**_ROPE, "partial_rotary_factor": 0.5},
    ),
    "gpt-neox-serial-tied": hf.GPTNeoXConfig(
        **_COMMON, intermediate_size=20, tie_word_embeddings=True, use_parallel_residual=False,
    ),
    "llama": hf.LlamaConfig(**_COMMON, intermediate_size=20, tie_word_embeddings=False),
    "llama-tied-shared-keys": hf.LlamaConfig(
        **{**_COMMON, "hidden_size": 16, "num_attention_heads": 4}, num_key_value_heads=2,
        intermediate_size=20, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
    ),
}  # fmt: skip
CAUSAL = [name for name in CONFIGS if name != "bert"]
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str, *, dtype=torch.float32, spread: float = 0.3, seed: int = 0):
    """A model none of whose weights is at a first value that would hide a mistake."""
    auto = hf.AutoModelForMaskedLM if name == "bert" else hf.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = auto.from_config(copy.deepcopy(CONFIGS[name]), dtype=dtype)
        for parameter in model.parameters():
            parameter.data += spread * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def float64_norm(monkeypatch):
    """Llama's normalisation without the cast to float32 that transformers puts into it."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def forward(self, x):
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean + self.variance_epsilon))

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def ids(rows: int = 4) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, 9), generator=torch.Generator().manual_seed(1))


def gap(one, two) -> float:
    with torch.no_grad():
        difference = one(input_ids=ids()).logits - two(input_ids=ids()).logits
    return float(difference.abs().max())


def train(model, steps: int = 60):
    """Learn to copy a fixed batch: weights far from those first drawn."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = model(input_ids=ids(), labels=ids()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@every
@pytest.mark.parametrize(("ratio", "depth"), [(1, 2), (1, 5), (2, 2), (3, 4), (5, 3)])
def test_logits_are_equal_in_float64(name, ratio, depth, float64_norm):
    model = make(name, dtype=torch.float64)
    width = ratio * model.config.hidden_size
    large = widen(model, wider_config(model.config, width=width, depth=depth))
    assert large.config.hidden_size == width and len(large.state_dict()) >= len(model.state_dict())
    # sums of r times as many float64 terms
    assert gap(model, large) < 1e-10


@every
def test_logits_are_equal_in_float32_as_transformers_computes_them(name):
    model = make(name, spread=0.1)
    large = widen(model, wider_config(model.config, width=3 * model.config.hidden_size, depth=3))
    assert gap(model, large) < 1e-5


@every
def test_logits_of_a_trained_model_are_equal(name):
    model = make(name, spread=0.02)
    trained = train(model)
    assert gap(model, trained) > 1  # it has moved
    large = widen(trained, wider_config(trained.config, width=2 * trained.config.hidden_size))
    # trained logits near 10 in float32
    assert gap(trained, large) < 1e-5 * 10


@every
def test_small_embeddings_feel_the_constant_in_the_norms_as_before(name, float64_norm):
    # with a variance near that constant a forgotten division by r^2 shows
    model = make(name, dtype=torch.float64)
    with torch.no_grad():
        for p in model.get_input_embeddings().parameters():
            p *= 1e-6
        if name == "bert":
            for table in ("position_embeddings", "token_type_embeddings"):
                getattr(model.base_model.embeddings, table).weight *= 1e-6
    large = widen(model, wider_config(model.config, width=4 * model.config.hidden_size, depth=3))
    assert gap(model, large) < 1e-10


@every
def test_gradients_map_back_through_the_embedding(name, float64_norm):
    model = make(name, dtype=torch.float64)
    large = widen(model, wider_config(model.config, width=2 * model.config.hidden_size, depth=3))
    small = {k: v.detach().requires_grad_() for k, v in model.named_parameters()}
    like = dict(large.named_parameters())
    direct = functional_call(model, small, kwargs=dict(input_ids=ids(), labels=ids())).loss
    mapped = functional_call(
        large, widened_weights(model, small, like), kwargs=dict(input_ids=ids(), labels=ids())
    ).loss
    wanted = torch.autograd.grad(direct, list(small.values()))
    got = torch.autograd.grad(mapped, list(small.values()))
    for one, other in zip(wanted, got, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert max(float(g.abs().max()) for g in wanted) > 1e-3


@pytest.mark.parametrize("neurons", [20, 27, 40, 53])
def test_neurons_need_not_be_a_multiple(neurons, float64_norm):
    model = make("llama", dtype=torch.float64)
    larger = wider_config(model.config, width=24, depth=2)
    larger.intermediate_size = neurons
    assert gap(model, widen(model, larger)) < 1e-10


def test_more_positions_leave_short_texts_alone():
    model = make("bert", dtype=torch.float64)
    larger = wider_config(model.config, width=24)
    larger.max_position_embeddings = 30
    assert gap(model, widen(model, larger)) < 1e-10


def test_heads_may_outgrow_the_width_where_their_size_is_given(float64_norm):
    model = make("llama", dtype=torch.float64)
    larger = wider_config(model.config, width=24)
    larger.num_attention_heads = larger.num_key_value_heads = 9
    larger.head_dim = 4
    assert gap(model, widen(model, larger)) < 1e-10


@pytest.mark.parametrize("name", CAUSAL)
def test_a_widened_causal_model_survives_saving(name, tmp_path):
    model = make(name, spread=0.1)
    with torch.no_grad():
        model.get_input_embeddings().weight *= 1e-2
    large = widen(model, wider_config(model.config, width=4 * model.config.hidden_size))
    large.save_pretrained(tmp_path)
    with quiet_transformers():
        again = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert gap(large, again) == 0


@every
def test_ties_dtype_and_mode_stay_and_the_model_is_not_touched(name):
    model = make(name, dtype=torch.float64).requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    large = widen(model, wider_config(model.config, width=2 * model.config.hidden_size))
    head, embedding = large.get_output_embeddings().weight, large.get_input_embeddings().weight
    assert (head is embedding) == model.config.tie_word_embeddings
    assert large.dtype is torch.float64 and not large.training
    assert not any(p.requires_grad for p in large.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def changed(name: str, **fields):
    larger = wider_config(CONFIGS[name], width=2 * CONFIGS[name].hidden_size, depth=3)
    for field, value in fields.items():
        setattr(larger, field, value)
    return larger


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("llama", {"vocab_size": 24}, "vocab_size"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"rms_norm_eps": 1e-3}, "rms_norm_eps"),
        ("gpt-neox", {"use_parallel_residual": False}, "use_parallel_residual"),
        ("gpt-neox", {"tie_word_embeddings": True}, "tie_word_embeddings"),
        ("gpt-neox", {"rope_parameters": _ROPE}, "rope_parameters"),
        ("bert", {"hidden_size": 30, "num_attention_heads": 3}, "no multiple"),
        ("bert", {"num_attention_heads": 3}, "6 heads of 4 numbers"),
        ("llama", {"num_key_value_heads": 3}, "6 heads on 6 keys"),
        ("llama", {"intermediate_size": 19}, "intermediate_size = 20 or more"),
        ("bert", {"max_position_embeddings": 8}, "max_position_embeddings = 16 or more"),
        ("bert", {"num_hidden_layers": 1}, "2 or more"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(name, fields, told):
    with pytest.raises(BadRequest, match=told):
        widen(make(name), changed(name, **fields))


def test_another_architecture_is_refused():
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(BadRequest, match="GPT2LMHeadModel"):
        widen(model, model.config)


def test_a_width_between_multiples_is_refused_with_the_nearest():
    with pytest.raises(BadRequest, match="width 36"):
        wider_config(CONFIGS["bert"], width=32)


@needs_shared
@pytest.mark.parametrize("name", ["stories-260k", "tinyllama-xs"])
def test_a_really_trained_model_keeps_its_losses(name):
    loaded = load(Folder(path=SHARED / "models" / name), dtype="float32", device="cpu")
    model = loaded.model
    words = min((SHARED / "text" / "tinystories_sample").glob("*.txt")).read_text()
    tokens = torch.tensor([loaded.tokenizer(words)["input_ids"][:200]])
    large = widen(model, wider_config(model.config, width=3 * model.config.hidden_size, depth=8))
    with torch.no_grad():
        one, other = (m(input_ids=tokens).logits for m in (model, large))
    # float32 logits of up to 20
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))
    assert (
        sum(p.numel() for p in large.parameters())
        > 9 * sum(p.numel() for p in model.parameters()) / 2
    )
