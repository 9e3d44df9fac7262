"""The head gives the model's own logits, a chunk at a time, in float32."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from isoloss.scoring.head import Head, find_head, score_targets
from scoring.small_models import CONFIGS, VOCAB, freeze, small_model

IDS = torch.arange(3, 19)[None]


@pytest.mark.parametrize("name", CONFIGS)
def test_head_on_states_is_the_models_logits(name):
    model = small_model(name)
    head = find_head(model, IDS)
    assert head.project is not None
    with torch.no_grad():
        states = model.base_model(input_ids=IDS, use_cache=False).last_hidden_state[0]
        wanted = model(input_ids=IDS, use_cache=False).logits[0]
        # the same product on the same numbers
        torch.testing.assert_close(head.logits(states), wanted, rtol=1e-5, atol=1e-5)


class Odd(LlamaForCausalLM):
    """A class that does to its logits what no config tells."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.sin()
        return output


def test_a_head_of_unknown_form_is_not_guessed():
    assert find_head(freeze(Odd(CONFIGS["llama-grouped"]())), IDS).project is None


def test_logits_alive_at_once_are_bounded():
    sizes = []
    weight = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))

    def project(states):
        sizes.append(len(states))
        return states @ weight.T

    score_targets(
        Head(project=project),
        torch.zeros(23, 4),
        torch.arange(23),
        torch.zeros(23, dtype=torch.long),
        rows_per_chunk=5,
    )
    assert sizes == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("rows_per_chunk", [1, 3, 100])
def test_scores_are_log_softmax_at_the_targets(rows_per_chunk):
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(7, VOCAB, generator=rng)
    rows = torch.tensor([0, 0, 2, 3, 3, 3, 6])
    targets = torch.tensor([1, 2, int(logits[2].argmax()), 4, 5, int(logits[3].argmax()), 6])
    scores = score_targets(Head(), logits, rows, targets, rows_per_chunk=rows_per_chunk)
    wanted = logits.double().log_softmax(-1)[rows, targets]
    # float32 numbers of size 20
    np.testing.assert_allclose(scores.logprobs.numpy(), wanted.numpy(), atol=5e-6)
    assert scores.greedy.tolist() == (logits.argmax(-1)[rows] == targets).tolist()


def test_normalisation_is_float32_whatever_the_logits_are():
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    scores = score_targets(Head(), logits, torch.tensor([0]), torch.tensor([9]), rows_per_chunk=1)
    # log 4096 = 8.3178; bfloat16 would round it to 8.3125
    assert float(scores.logprobs[0]) == pytest.approx(-np.log(4096), abs=1e-6)


def test_nan_logits_are_never_greedy():
    scores = score_targets(
        Head(),
        torch.full((1, 3), float("nan")),
        torch.tensor([0]),
        torch.tensor([0]),
        rows_per_chunk=1,
    )
    assert scores.logprobs.isnan().all() and not scores.greedy.any()
