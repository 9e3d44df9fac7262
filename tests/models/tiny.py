"""Small random models of the known architectures, saved as a trainer would save them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

VOCAB = 40
_SMALL = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
_GATED = dict(_SMALL, intermediate_size=32)
CONFIGS = {
    "gpt2": hf.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=12),
    "gpt-neox": hf.GPTNeoXConfig(**_GATED, max_position_embeddings=12),
    "llama-tied": hf.LlamaConfig(**_GATED, tie_word_embeddings=True),
    "llama-untied": hf.LlamaConfig(**_GATED, tie_word_embeddings=False),
    "opt": hf.OPTConfig(**_SMALL, ffn_dim=32, max_position_embeddings=12, word_embed_proj_dim=8),
    "mamba": hf.MambaConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, state_size=4, use_mambapy=False
    ),
    "gpt-j": hf.GPTJConfig(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, rotary_dim=4),
    "bloom": hf.BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2),
    "olmo2": hf.Olmo2Config(**_GATED),
    "mixtral": hf.MixtralConfig(**_GATED, num_key_value_heads=1, num_local_experts=3),
    "bert": hf.BertConfig(**_GATED, max_position_embeddings=12),
    "roberta": hf.RobertaConfig(**_GATED, max_position_embeddings=14),
    "modernbert": hf.ModernBertConfig(**_GATED, pad_token_id=0),
}
ENCODERS = {"bert", "roberta", "modernbert"}


def make(architecture: str, *, seed: int = 0) -> hf.PreTrainedModel:
    auto = hf.AutoModelForMaskedLM if architecture in ENCODERS else hf.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(CONFIGS[architecture], dtype=torch.float32)
        for parameter in model.parameters():
            # biases start at zero: then a swapped or forgotten one would go unseen
            parameter.data += 0.01 * torch.randn_like(parameter)
    return model.eval()


def tokenizer(size: int = VOCAB) -> hf.PreTrainedTokenizerFast:
    words = {"<unk>": 0, "<s>": 1, **{f"w{i}": i for i in range(2, size)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def save(
    folder: Path, architecture: str = "llama-tied", *, seed: int = 0, shard_size: str = "1GB"
) -> hf.PreTrainedModel:
    model = make(architecture, seed=seed)
    model.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer().save_pretrained(folder)
    return model


def read_header(file: Path) -> dict:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def rewrite(file: Path, change) -> None:
    """Load the tensors of a file, let ``change`` edit the dict, and save it again."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
