"""The model's window by the harness's rule, and the lengths where arithmetic changes."""

import pytest
from lm_eval.models.utils import resolve_max_length

from isoloss.scoring.window import critical_lengths, max_window
from scoring.small_models import CONFIGS, byte_tokenizer


@pytest.mark.parametrize("name", CONFIGS)
def test_window_is_the_harness_window(name):
    config, tokenizer = CONFIGS[name](), byte_tokenizer(adds_bos=True)
    assert max_window(config, tokenizer) == resolve_max_length(config, tokenizer)
    tokenizer.model_max_length = 77
    assert max_window(config, tokenizer) == resolve_max_length(config, tokenizer)


def test_windows_are_found_wherever_the_config_keeps_them():
    found = {name: critical_lengths(config()) for name, config in CONFIGS.items()}
    assert found["gpt2"] == found["llama-grouped"] == ()
    for name in ("mistral-sliding", "gemma2-sliding-capped", "gpt-neo-local", "recurrent-gemma"):
        assert 8 in found[name]
    assert 32 in found["phi3-longrope"]
