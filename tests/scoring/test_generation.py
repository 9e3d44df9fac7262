"""Greedy text: batches give what single prompts give, and end where they should."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isoloss.errors import BadRequest
from isoloss.scoring import Generation, Scorer
from scoring.small_models import CONFIGS, LengthSensitive, byte_tokenizer, freeze
from shared_data import SHARED, needs_shared

PROMPTS = ["a", "low low", "a longer prompt than that", "", "é 漢", "the window is 64 bytes; " * 4]


def asked(prompts, *, until=(), max_tokens=12):
    return [Generation(context=p, until=until, max_tokens=max_tokens) for p in prompts]


def text_scorer(name, build=AutoModelForCausalLM.from_config):
    tokenizer = byte_tokenizer(adds_bos=True)
    config = CONFIGS[name]()
    config.vocab_size = len(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = freeze(build(config))
    return Scorer(model, tokenizer, max_length=64)


@pytest.mark.parametrize(
    "name", ["gpt2", "opt", "llama-grouped", "gemma2-sliding-capped", "bloom", "mpt", "mamba"]
)
def test_a_batch_gives_what_each_prompt_gives_alone(name):
    scorer = text_scorer(name)
    together = scorer.generate(asked(PROMPTS + PROMPTS[:2]))
    assert together[: len(PROMPTS)] == [scorer.generate(asked([p]))[0] for p in PROMPTS]
    assert together[len(PROMPTS) :] == together[:2]


def test_prompts_of_unequal_length_run_apart_where_padding_is_felt():
    scorer = text_scorer("llama-grouped", LengthSensitive)
    together = scorer.generate(asked(PROMPTS))
    assert together == [scorer.generate(asked([p]))[0] for p in PROMPTS]


def test_each_prompt_ends_before_its_own_stop_string():
    scorer = text_scorer("llama-grouped")
    whole, other = scorer.generate(asked(PROMPTS[1:3], max_tokens=20))
    stop = whole[3:5]
    cut = Generation(context=PROMPTS[1], until=(stop, "\n\n\n"), max_tokens=20)
    found = scorer.generate([cut, *asked(PROMPTS[2:3], max_tokens=20)])
    assert found == [whole.split(stop)[0], other]


def test_tokens_to_generate_must_leave_room_for_a_context():
    with pytest.raises(BadRequest, match="no room"):
        text_scorer("gpt2").generate(asked(["a"], max_tokens=64))


@needs_shared
def test_a_trained_model_tells_its_known_story():
    folder = SHARED / "models/stories-260k"
    model = freeze(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    scorer = Scorer(model, AutoTokenizer.from_pretrained(folder))
    (story,) = scorer.generate(asked([""], max_tokens=200))
    assert story.strip() == (folder / "expected_greedy_200.txt").read_text().strip()
