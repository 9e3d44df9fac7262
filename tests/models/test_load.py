"""Loaded models, and every fault that a checkpoint can bring."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
import transformers

from isoloss.errors import BadCheckpoint, BadRequest
from isoloss.family import Folder
from isoloss.models.load import check_finite, load, load_tokenizer
from isoloss.models.tokenizer import tokenizer_hash
from isoloss.models.weights import copy_weights
from models import tiny
from shared_data import SHARED, needs_shared


def loaded(folder, dtype="float32"):
    return load(Folder(path=folder), dtype=dtype, device="cpu")


def refused(folder) -> BadCheckpoint:
    with pytest.raises(BadCheckpoint) as error:
        loaded(folder)
    assert error.value.remedy
    return error.value


def same_weights(a, b) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("architecture", tiny.CONFIGS)
def test_what_was_saved_is_loaded(tmp_path, architecture):
    saved = tiny.save(tmp_path, architecture)
    got = loaded(tmp_path)
    assert type(got.model) is type(saved)
    assert same_weights(got.model, saved)
    assert not got.model.training
    assert not any(p.requires_grad for p in got.model.parameters())
    ids = torch.arange(2, 8)[None]
    assert torch.equal(got.model(input_ids=ids).logits, saved(input_ids=ids).logits)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_dtype_asked_for_is_the_dtype_given(tmp_path, stored, dtype):
    model = tiny.make("gpt-neox").to(stored)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    got = loaded(tmp_path, dtype).model
    assert {p.dtype for p in got.parameters()} == {getattr(torch, dtype)}
    expected = model.lm_head.weight.to(getattr(torch, dtype))
    assert torch.equal(got.lm_head.weight, expected)


def test_an_unknown_dtype_names_the_nearest(tmp_path):
    with pytest.raises(BadRequest) as error:
        loaded(tmp_path, "floaf32")
    assert error.value.nearest == "float32"


def test_shards_load_as_one(tmp_path):
    saved = tiny.save(tmp_path, "llama-untied", shard_size="10KB")
    assert same_weights(loaded(tmp_path).model, saved)


@needs_shared
def test_trained_model_decodes_its_known_story():
    got = loaded(SHARED / "models" / "stories-260k")
    ids = torch.tensor([[got.tokenizer.bos_token_id]])
    out = got.model.generate(ids, max_new_tokens=200, do_sample=False)
    text = (SHARED / "models" / "stories-260k" / "expected_greedy_200.txt").read_text()
    assert got.tokenizer.decode(out[0], skip_special_tokens=True).strip() == text.strip()


def test_loading_writes_nothing_to_the_terminal(tmp_path, capfd):
    tiny.save(tmp_path)
    capfd.readouterr()
    loaded(tmp_path)
    tiny.edit_config(tmp_path, num_hidden_layers=1)
    refused(tmp_path)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_the_verbosity_of_transformers_is_left_as_it_was(tmp_path):
    logging = transformers.utils.logging
    tiny.save(tmp_path)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    loaded(tmp_path)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


PEAK = """
import sys
from pathlib import Path
from isoloss.family import Folder
from isoloss.models.load import load

def peak():  # of this program alone; ru_maxrss would start at the parent's
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

load(Folder(path=Path(sys.argv[1])), dtype="float32", device="cpu")  # imports and warm-up
before = peak()
load(Folder(path=Path(sys.argv[2])), dtype="float32", device="cpu")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_peaks_near_one_copy(tmp_path):
    tiny.save(tmp_path / "small")
    config = transformers.LlamaConfig(
        vocab_size=tiny.VOCAB, hidden_size=512, intermediate_size=4096, num_hidden_layers=4,
        num_attention_heads=4,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {name: torch.zeros(p.shape) for name, p in model.state_dict().items()}
    copy = sum(tensor.numel() for tensor in weights.values()) * 4
    model.save_pretrained(tmp_path / "big", state_dict=weights)
    tiny.tokenizer().save_pretrained(tmp_path / "big")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "big")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # 118 MB of weights; the finiteness check adds bytes an element of the largest tensor, 2 MB
    assert 0.8 * copy < int(out) < 1.3 * copy


# faults


def test_too_few_layers_in_the_config(tmp_path):
    tiny.save(tmp_path)
    tiny.edit_config(tmp_path, num_hidden_layers=1)
    error = refused(tmp_path)
    assert "do not match config.json" in error.what
    assert "unexpected: model.layers.1." in error.asked


def test_too_many_layers_in_the_config(tmp_path):
    tiny.save(tmp_path)
    tiny.edit_config(tmp_path, num_hidden_layers=3)
    assert "missing: model.layers.2." in refused(tmp_path).asked


def test_another_width_in_the_config(tmp_path):
    tiny.save(tmp_path, "llama-untied")
    tiny.edit_config(tmp_path, intermediate_size=48)
    assert "(32, 16) and should be (48, 16)" in refused(tmp_path).asked


def test_a_forgotten_head_is_missing_and_not_made_up(tmp_path):
    tiny.save(tmp_path, "llama-untied")
    tiny.rewrite(tmp_path / "model.safetensors", lambda t: t.pop("lm_head.weight"))
    assert "missing: lm_head.weight" in refused(tmp_path).asked


def test_a_head_that_differs_from_the_embedding_it_is_tied_to(tmp_path):
    tiny.save(tmp_path, "llama-untied")
    tiny.edit_config(tmp_path, tie_word_embeddings=True)
    assert "two different matrices" in refused(tmp_path).what


def test_a_stored_copy_of_the_tied_head_is_fine(tmp_path):
    saved = tiny.save(tmp_path, "llama-tied")

    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    tiny.rewrite(tmp_path / "model.safetensors", add_head)
    assert same_weights(loaded(tmp_path).model, saved)


def test_heads_of_another_objective_are_left_unread(tmp_path):
    saved = tiny.save(tmp_path, "bert")

    def add_heads(tensors):
        tensors["bert.pooler.dense.weight"] = torch.zeros(16, 16)
        tensors["cls.seq_relationship.bias"] = torch.zeros(2)

    tiny.rewrite(tmp_path / "model.safetensors", add_heads)
    assert same_weights(loaded(tmp_path).model, saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_named(tmp_path, value):
    tiny.save(tmp_path)

    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value

    tiny.rewrite(tmp_path / "model.safetensors", spoil)
    error = refused(tmp_path)
    assert error.what == "the weight model.layers.1.mlp.up_proj.weight holds NaN or infinity."
    assert error.asked.startswith("1 of 512 elements")


def test_overflow_of_float16_points_to_bfloat16(tmp_path):
    tiny.save(tmp_path)

    def blow_up(tensors):
        tensors["model.norm.weight"][0] = 1e6

    tiny.rewrite(tmp_path / "model.safetensors", blow_up)
    loaded(tmp_path)
    with pytest.raises(BadCheckpoint, match="model.norm.weight") as error:
        loaded(tmp_path, "float16")
    assert "bfloat16" in error.value.remedy


def test_a_truncated_file_is_refused_before_anything_is_loaded(tmp_path):
    tiny.save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "promises" in refused(tmp_path).what


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no-such-model"},
        {"model_type": None},
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"model_type": "custom", "auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"model_type": "vit"},
    ],
)
def test_a_config_that_makes_no_language_model(tmp_path, changes):
    tiny.save(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    tiny.edit_config(tmp_path, **changes)
    assert refused(tmp_path).asked


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("names", [None, "kept", ["AnyModel"]])
def test_an_encoder_is_known_by_its_architectures_or_else_by_its_kind(
    tmp_path, architecture, names
):
    saved = tiny.save(tmp_path, architecture)
    if names != "kept":
        tiny.edit_config(tmp_path, architectures=names)
    assert type(loaded(tmp_path).model) is type(saved)


@pytest.mark.parametrize("names", [None, ["BertLMHeadModel"]])
@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_class_known_as_both_is_causal_only_where_it_is_a_decoder(tmp_path, names, is_decoder):
    tiny.save(tmp_path, "bert")
    tiny.edit_config(tmp_path, architectures=names, is_decoder=is_decoder)
    model = loaded(tmp_path).model
    assert isinstance(model, transformers.BertLMHeadModel) is is_decoder
    first = torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4, 6]])
    a, b = (model(input_ids=ids).logits[0, 0] for ids in first)
    # the first place sees the last one, or does not
    assert torch.equal(a, b) is is_decoder


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_a_model_of_two_stacks_is_refused_with_what_works(tmp_path, kind):
    tiny.save(tmp_path)
    sizes = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tiny.edit_config(
        tmp_path, model_type=kind, is_encoder_decoder=True, architectures=None, **sizes
    )
    error = refused(tmp_path)
    assert "no language model with one stack" in error.what
    assert error.asked and "ForMaskedLM" in error.nearest


# tokenizers


def test_no_tokenizer(tmp_path):
    tiny.save(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    assert refused(tmp_path).what == "the checkpoint has no tokenizer."


def test_a_broken_tokenizer(tmp_path):
    tiny.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert "tokenizer cannot be read" in refused(tmp_path).what


def test_a_tokenizer_larger_than_the_embedding_is_refused_and_a_smaller_one_is_not(tmp_path):
    tiny.save(tmp_path)
    tiny.tokenizer(tiny.VOCAB - 5).save_pretrained(tmp_path)
    loaded(tmp_path)
    tiny.tokenizer(tiny.VOCAB + 1).save_pretrained(tmp_path)
    assert refused(tmp_path).what == "the tokenizer has 41 tokens and the embedding has 40 rows."


def test_equal_tokenizers_have_equal_hashes_whatever_the_file_looks_like(tmp_path):
    tiny.save(tmp_path / "a")
    tiny.save(tmp_path / "b", "gpt2")
    file = tmp_path / "b" / "tokenizer.json"
    data = json.loads(file.read_text())
    data["truncation"] = dict(direction="Right", max_length=3, strategy="LongestFirst", stride=0)
    file.write_text(json.dumps(data, indent=7, sort_keys=True))
    tiny.tokenizer(39).save_pretrained(tmp_path / "c")
    hashes = [tokenizer_hash(load_tokenizer(Folder(path=tmp_path / n))) for n in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_another_bos_is_another_tokenizer(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    before = tokenizer_hash(load_tokenizer(Folder(path=tmp_path)))
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token": "w3"}))
    assert tokenizer_hash(load_tokenizer(Folder(path=tmp_path))) != before


def test_using_a_tokenizer_does_not_change_its_hash():
    tokenizer = tiny.tokenizer()
    before = tokenizer_hash(tokenizer)
    tokenizer("w2 w3 w4", truncation=True, max_length=2)
    assert tokenizer_hash(tokenizer) == before


@needs_shared
def test_the_trained_models_share_one_tokenizer():
    first, second = (
        tokenizer_hash(load_tokenizer(Folder(path=SHARED / "models" / name)))
        for name in ("stories-260k", "tinyllama-xs")
    )
    assert first == second


# new weights into an existing module


@pytest.mark.parametrize("architecture", sorted(set(tiny.CONFIGS) - {"mixtral"}))
def test_a_sweep_builds_no_second_model(tmp_path, architecture, monkeypatch):
    tiny.save(tmp_path / "a", architecture)
    tiny.save(tmp_path / "b", architecture, seed=1)
    model = loaded(tmp_path / "a").model
    # building one would call None
    monkeypatch.setattr("isoloss.models.weights.build_model", None)
    copy_weights(model, Folder(path=tmp_path / "b"))
    assert same_weights(model, loaded(tmp_path / "b").model)


@pytest.mark.parametrize("architecture", tiny.CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copied_weights_equal_a_fresh_load(tmp_path, architecture, dtype):
    tiny.save(tmp_path / "a", architecture)
    tiny.save(tmp_path / "b", architecture, seed=1, shard_size="10KB")
    model = loaded(tmp_path / "a", dtype).model
    copy_weights(model, Folder(path=tmp_path / "b"))
    assert same_weights(model, loaded(tmp_path / "b", dtype).model)
    assert not any(p.requires_grad for p in model.parameters())


def test_copying_leaves_the_files_alone(tmp_path):
    tiny.save(tmp_path / "a")
    tiny.save(tmp_path / "b", seed=1)
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    model = loaded(tmp_path / "a").model
    copy_weights(model, Folder(path=tmp_path / "b"))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before


def test_weights_under_older_names_are_copied_too(tmp_path):
    tiny.save(tmp_path / "a", "gpt2")
    tiny.save(tmp_path / "b", "gpt2", seed=1)

    def as_the_first_gpt2_files(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 12, 12)

    tiny.rewrite(tmp_path / "b" / "model.safetensors", as_the_first_gpt2_files)
    model = loaded(tmp_path / "a").model
    copy_weights(model, Folder(path=tmp_path / "b"))
    assert same_weights(model, loaded(tmp_path / "b").model)


def test_a_checkpoint_of_another_config_is_not_copied(tmp_path):
    tiny.save(tmp_path / "a")
    tiny.save(tmp_path / "b", seed=1)
    # the same shapes, another function
    tiny.edit_config(tmp_path / "b", rms_norm_eps=0.1)
    model = loaded(tmp_path / "a").model
    with pytest.raises(BadRequest, match="rms_norm_eps"):
        copy_weights(model, Folder(path=tmp_path / "b"))
    assert same_weights(model, loaded(tmp_path / "a").model)


@pytest.mark.parametrize(
    ("first", "second"),
    itertools.permutations(["gpt-neox", "llama-tied", "mamba", "roberta"], 2),
)
def test_a_checkpoint_of_another_architecture_is_told_before_it_is_read(tmp_path, first, second):
    tiny.save(tmp_path / "a", first)
    tiny.save(tmp_path / "b", second)
    model = loaded(tmp_path / "a").model
    with pytest.raises(BadRequest, match="of another architecture"):
        copy_weights(model, Folder(path=tmp_path / "b"))


def test_an_incomplete_checkpoint_is_not_copied(tmp_path):
    tiny.save(tmp_path / "a")
    tiny.save(tmp_path / "b", seed=1)
    tiny.rewrite(tmp_path / "b" / "model.safetensors", lambda t: t.pop("model.norm.weight"))
    model = loaded(tmp_path / "a").model
    with pytest.raises(BadCheckpoint, match="do not match"):
        copy_weights(model, Folder(path=tmp_path / "b"))


def test_copied_weights_are_checked_for_numbers(tmp_path):
    tiny.save(tmp_path / "a")
    tiny.save(tmp_path / "b", seed=1)

    def spoil(tensors):
        tensors["model.norm.weight"][0] = float("nan")

    tiny.rewrite(tmp_path / "b" / "model.safetensors", spoil)
    model = loaded(tmp_path / "a").model
    with pytest.raises(BadCheckpoint, match="model.norm.weight"):
        copy_weights(model, Folder(path=tmp_path / "b"))


def test_finite_weights_whose_sum_overflows_are_finite(tmp_path):
    large = torch.full((4, 4), 3e38)
    assert torch.isinf(large.sum())
    check_finite([("large", large)], tmp_path)
    # infinities of both signs leave a NaN in the sum
    large[0, 0], large[1, 1] = float("inf"), -float("inf")
    with pytest.raises(BadCheckpoint, match="weight large holds"):
        check_finite([("large", large)], tmp_path)
