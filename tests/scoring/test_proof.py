"""The probe refuses what is wrong and allows what is right."""

import numpy as np
import pytest
import torch
from transformers import Cache, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from isoloss.scoring import Scorer
from isoloss.scoring.proof import prove
from scoring.small_models import (
    CONFIGS,
    UNSHARED,
    WINDOW,
    LengthSensitive,
    alone,
    freeze,
    small_model,
)

CONTEXT = tuple(range(3, 33))
PAIRS = [
    (CONTEXT, (5, 6, 7)),
    (CONTEXT, (8, 9)),
    (CONTEXT[::-1], (8, 9, 4)),
    (CONTEXT[::-1], (1, 2)),
]


def assert_right(scorer, model):
    for (context, tail), found in zip(PAIRS, scorer.loglikelihoods_of_tokens(PAIRS), strict=True):
        # float32 sums of three numbers near 10
        np.testing.assert_allclose(found.per_token, alone(model, context, tail), atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_prefixes_are_shared_on_every_model_that_keeps_keys_and_values(name):
    proof = prove(small_model(name), window=WINDOW)
    assert proof.share == (name not in UNSHARED)
    assert proof.pad
    assert proof.share == (proof.notes == ())


def test_a_cache_that_mixes_up_rows_is_found_and_not_used(monkeypatch):
    select = Cache.batch_select_indices
    monkeypatch.setattr(
        Cache, "batch_select_indices", lambda self, rows: select(self, rows.flip(0))
    )
    model = small_model("llama-grouped")
    scorer = Scorer(model, None)
    assert scorer.path == "plain"
    assert "differs by" in scorer.notes[0]
    assert_right(scorer, model)


class WindowedCache(LlamaForCausalLM):
    """Right below 24 cached tokens; beyond, it forgets the first: what a short probe misses."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.forward

        def forgetful(*args, past_key_values=None, **kwargs):
            if past_key_values is not None and past_key_values.get_seq_length() > 24:
                for layer in past_key_values.layers:
                    layer.keys[:, :, 0] = 0
            return forward(*args, past_key_values=past_key_values, **kwargs)

        self.model.forward = forgetful


def test_the_probe_is_longer_than_the_window_that_the_config_names():
    config = CONFIGS["llama-grouped"]()
    assert prove(freeze(WindowedCache(config)), window=WINDOW).share  # nobody told
    config.sliding_window = 28
    proof = prove(freeze(WindowedCache(config)), window=WINDOW)
    assert not proof.share and "differs by" in proof.notes[0]


def test_beyond_a_window_too_long_to_probe_nothing_is_shared():
    config = MistralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4096,
        max_position_embeddings=8192,
    )
    with torch.random.fork_rng():
        proof = prove(freeze(MistralForCausalLM(config)), window=8192)
    assert proof.share and proof.share_limit == 4096
    assert "4096" in proof.notes[0]


def test_rows_of_unequal_length_run_apart_where_padding_is_felt():
    model = freeze(LengthSensitive(CONFIGS["llama-grouped"]()))
    scorer = Scorer(model, None)
    assert scorer.path == "plain"
    assert scorer.notes[0].startswith("no padding")
    assert_right(scorer, model)


def test_a_model_of_nan_is_scored_plainly_and_unknown():
    model = small_model("llama-grouped")
    model.lm_head.weight.data.fill_(float("nan"))
    scorer = Scorer(model, None)
    assert scorer.path == "plain"
    assert all(
        np.isnan(r.total) and not r.is_greedy for r in scorer.loglikelihoods_of_tokens(PAIRS)
    )
    assert scorer.unscored == len(PAIRS)
