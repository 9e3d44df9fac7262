"""Descriptions from headers alone, and the faults that headers show."""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from isoloss.errors import BadCheckpoint, BadRequest, CheckpointMissing
from isoloss.family import Folder, Imported
from isoloss.models.headers import Tensor
from isoloss.models.inspect import describe, hash_shards
from isoloss.models.load import load
from isoloss.models.parameters import count_parameters, training_flops
from models import tiny
from shared_data import SHARED, needs_shared

POSITIONS = ("wpe", "embed_positions", "position_embeddings", "token_type_embeddings")


def unique_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())  # parameters() gives a tied one once


def outside_embeddings(model: torch.nn.Module) -> int:
    """The rule of count_parameters from the modules themselves."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    left_out = {id(p) for module in (head, embedding) for p in module.parameters()}
    for name, module in model.named_modules():
        if name.endswith(POSITIONS):
            left_out |= {id(p) for p in module.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in left_out)


@pytest.mark.parametrize("architecture", tiny.CONFIGS)
def test_counts_equal_those_of_the_loaded_modules(tmp_path, architecture):
    tiny.save(tmp_path, architecture)
    got = describe(Folder(path=tmp_path))
    model = load(Folder(path=tmp_path), dtype="float32", device="cpu").model
    assert got.params_total == unique_parameters(model)
    assert got.params_non_embedding == outside_embeddings(model)


@needs_shared
@pytest.mark.parametrize("name", ["stories-260k", "tinyllama-xs"])
def test_counts_of_trained_models_equal_those_of_the_loaded_modules(name):
    source = Folder(path=SHARED / "models" / name)
    got = describe(source)
    model = load(source, dtype="float32", device="cpu").model
    assert got.params_total == unique_parameters(model)
    assert got.params_non_embedding == outside_embeddings(model)
    assert (got.dtype, got.bytes) == ("float32", (source.path / "model.safetensors").stat().st_size)


def test_a_stored_copy_of_a_tied_head_counts_once(tmp_path):
    model = tiny.save(tmp_path, "llama-tied")
    before = describe(Folder(path=tmp_path))

    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    tiny.rewrite(tmp_path / "model.safetensors", add_head)
    after = describe(Folder(path=tmp_path))
    assert after.params_total == before.params_total == unique_parameters(model)
    tiny.edit_config(tmp_path, tie_word_embeddings=False)
    untied = describe(Folder(path=tmp_path))
    assert untied.params_total == before.params_total + model.lm_head.weight.numel()
    assert untied.params_non_embedding == before.params_non_embedding


def test_buffers_of_old_files_are_no_parameters():
    weight = Tensor(name="h.0.attn.c_attn.bias", shape=(48,), dtype="F32")
    buffers = [
        Tensor(name="h.0.attn.bias", shape=(1, 1, 1024, 1024), dtype="F32"),
        Tensor(name="gpt_neox.layers.0.attention.bias", shape=(1, 1, 8, 8), dtype="BOOL"),
        Tensor(name="gpt_neox.layers.0.attention.masked_bias", shape=(), dtype="F16"),
        Tensor(name="gpt_neox.layers.0.attention.rotary_emb.inv_freq", shape=(8,), dtype="F32"),
        Tensor(name="bert.embeddings.position_ids", shape=(1, 512), dtype="I64"),
        Tensor(name="bert.pooler.dense.weight", shape=(16, 16), dtype="F32"),
        Tensor(name="cls.seq_relationship.weight", shape=(2, 16), dtype="F32"),
    ]
    assert count_parameters([weight, *buffers], {}).total == 48


def test_the_stored_dtype_is_that_of_most_parameters(tmp_path):
    model = tiny.make("gpt2").to(torch.bfloat16)
    model.save_pretrained(tmp_path)

    def one_in_float32(tensors):
        name = next(n for n in tensors if n.endswith("ln_f.bias"))
        tensors[name] = tensors[name].float()

    tiny.rewrite(tmp_path / "model.safetensors", one_in_float32)
    assert describe(Folder(path=tmp_path)).dtype == "bfloat16"


def test_the_hash_is_over_sorted_names_and_digests(tmp_path):
    tiny.save(tmp_path, "gpt-neox", shard_size="10KB")
    got = describe(Folder(path=tmp_path))
    names = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(names) > 1
    digests = [hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in names]
    assert [(s.name, s.digest) for s in got.shards] == list(zip(names, digests, strict=True))
    text = "".join(f"{n}\0{d}\n" for n, d in zip(names, digests, strict=True))
    assert got.weights_hash == hashlib.sha256(text.encode()).hexdigest()
    assert hash_shards(reversed(got.shards)) == got.weights_hash


def test_shards_change_neither_counts_nor_config(tmp_path):
    tiny.save(tmp_path / "one", "gpt-neox")
    tiny.save(tmp_path / "many", "gpt-neox", shard_size="10KB")
    one, many = (describe(Folder(path=tmp_path / n)) for n in ("one", "many"))
    assert (one.params_total, one.params_non_embedding) == (
        many.params_total,
        many.params_non_embedding,
    )
    assert one.config == many.config


def test_equal_weights_have_equal_hashes_and_others_do_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.save(tmp_path / name, seed=seed)
    a, b, c = (describe(Folder(path=tmp_path / n)).weights_hash for n in "abc")
    assert a == b != c


def test_describing_needs_neither_torch_nor_transformers(tmp_path):
    tiny.save(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from isoloss.family import Folder; from isoloss.models.inspect import describe\n"
        "print(describe(Folder(path=Path(sys.argv[1]))).params_total)\n"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done


def test_flops_are_six_n_d_or_unknown():
    assert training_flops(10, 7) == 420
    assert training_flops(None, 7) is training_flops(10, None) is None


# faults


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    tiny.save(tmp_path / "step-1000", "gpt-neox", shard_size="10KB")
    return tmp_path / "step-1000"


def refused(folder: Path) -> BadCheckpoint:
    with pytest.raises(BadCheckpoint) as error:
        describe(Folder(path=folder))
    assert error.value.remedy
    return error.value


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def test_no_config(checkpoint):
    (checkpoint / "config.json").unlink()
    assert "no config.json" in refused(checkpoint).what


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_config_that_is_no_json_object(checkpoint, text):
    (checkpoint / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json of the checkpoint cannot be read" in refused(checkpoint).what


def test_a_missing_shard_is_named(checkpoint):
    shard = first_shard(checkpoint)
    shard.unlink()
    error = refused(checkpoint)
    assert error.what == f"the weight file {shard.name} is missing."
    assert "shards" in error.asked


@pytest.mark.parametrize("text", ["{}", '{"weight_map": 3}', "no json"])
def test_a_broken_index(checkpoint, text):
    (checkpoint / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refused(checkpoint).what


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named_with_both_sizes(checkpoint, keep):
    shard = first_shard(checkpoint)
    data = shard.read_bytes()
    shard.write_bytes(data[:keep])
    error = refused(checkpoint)
    assert shard.name in error.what
    if keep == -1:
        assert f"promises {len(data):,} bytes and the file has {len(data) - 1:,}" in error.what


def test_bytes_after_the_end_are_refused(checkpoint):
    shard = first_shard(checkpoint)
    shard.write_bytes(shard.read_bytes() + b"more")
    assert "promises" in refused(checkpoint).what


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>not found</html>" * 5,
        struct.pack("<Q", 20) + b"this is no json text",
        header(),
        header(a=3),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + bytes(4),
        header(a={"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}) + bytes(4),
        header(a={"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}) + bytes(4),
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [0]}) + bytes(4),
    ],
)
def test_garbage_is_no_safetensors_file(checkpoint, data):
    shard = first_shard(checkpoint)
    shard.write_bytes(data)
    assert f"the weight file {shard.name} is broken" in refused(checkpoint).what


def test_pickled_weights_are_refused_with_the_way_to_convert_them(checkpoint):
    for file in checkpoint.glob("*.safetensors*"):
        file.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"\x80\x02")
    error = refused(checkpoint)
    assert "pickled" in error.what
    assert "save_pretrained" in error.remedy


def test_no_weights_at_all(checkpoint):
    for file in checkpoint.glob("*.safetensors*"):
        file.unlink()
    assert "has no model.safetensors" in refused(checkpoint).what


def test_a_missing_folder_names_the_nearest(checkpoint):
    with pytest.raises(CheckpointMissing) as error:
        describe(Folder(path=checkpoint.with_name("step-100")))
    assert error.value.nearest == "step-1000"


def test_an_imported_checkpoint_has_no_weights():
    with pytest.raises(BadRequest):
        describe(Imported(file="results.json"))


def test_the_single_file_goes_before_an_index_as_in_transformers(checkpoint, tmp_path):
    tiny.save(tmp_path / "other", "gpt-neox", seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", checkpoint)
    described = describe(Folder(path=checkpoint))
    assert [s.name for s in described.shards] == ["model.safetensors"]
    loaded = load(Folder(path=checkpoint), dtype="float32", device="cpu").model
    other = tiny.make("gpt-neox", seed=1)
    assert torch.equal(loaded.lm_head.weight, other.lm_head.weight)
