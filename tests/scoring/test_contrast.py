"""Texts of two models at once: against a plain loop without caches, and by the law of p'."""

import numpy as np
import pytest
import torch

from isoloss.errors import BadRequest
from isoloss.scoring.contrast import (
    PUBLISHED_WEIGHTS,
    Contrast,
    ContrastLogits,
    mixed,
    write_together,
)
from scoring.small_models import small_model

PROMPTS = [[5, 9, 3], [7, 7, 2, 4, 1], [8, 8, 8], [3, 4, 5], [11, 60, 12, 13, 14]]


@pytest.fixture(scope="module")
def models():
    return small_model("gpt-neox", seed=0), small_model("llama-grouped", seed=1)


def by_hand(small, large, prompt, contrast, draws):
    """One text, the whole prefix read anew for every token, float64 arithmetic in plain words."""
    ids, out = list(prompt), []
    for u in draws:
        with torch.inference_mode():
            p = [
                torch.softmax(m(torch.tensor([ids])).logits[0, -1].float(), -1).double().numpy()
                for m in (small, large)
            ]
        wanted = np.maximum(contrast.small * p[0] + contrast.large * p[1], 0)
        wanted /= wanted.sum()
        if contrast.decoding == "greedy":
            token = int(wanted.argmax())
        else:
            order = np.argsort(-wanted, kind="stable")
            n = int(np.searchsorted(wanted[order].cumsum(), contrast.top_p)) + 1
            kept = wanted[order][:n]
            token = int(order[np.searchsorted(kept.cumsum(), u * kept.sum(), side="right")])
        ids.append(token)
        out.append(token)
    return tuple(out)


@pytest.mark.parametrize("weights", PUBLISHED_WEIGHTS)
@pytest.mark.parametrize("decoding", ["greedy", "nucleus"])
def test_batched_texts_with_caches_are_those_of_a_plain_loop(models, weights, decoding):
    contrast = Contrast(small=weights[0], large=weights[1], decoding=decoding, max_tokens=12)
    found = write_together(*models, PROMPTS, contrast, seed=4, batch=2)
    draws = np.random.default_rng(4).random((5, 12))
    for i, prompt in enumerate(PROMPTS):
        assert found.tokens[i] == by_hand(*models, prompt, contrast, draws[i])
    assert found.undecided == 0


def test_texts_do_not_depend_on_the_batch(models):
    contrast = Contrast(small=1.0, large=-1.0, max_tokens=10)
    alone = write_together(*models, PROMPTS, contrast, seed=1, batch=1)
    together = write_together(*models, PROMPTS, contrast, seed=1, batch=5)
    assert alone.tokens == together.tokens and alone.prompts_hash == together.prompts_hash
    other = write_together(*models, PROMPTS, contrast, seed=2, batch=5)
    assert other.tokens != together.tokens


def test_draws_from_the_nucleus_have_its_probabilities(models):
    contrast = Contrast(small=1.0, large=-0.5, top_p=0.7, max_tokens=1)
    n = 20_000
    found = write_together(*models, [[5, 9, 3]] * n, contrast, seed=3, batch=5_000)
    p = [torch.softmax(m(torch.tensor([[5, 9, 3]])).logits[0, -1].float(), -1) for m in models]
    wanted = mixed(p[0][None], p[1][None], contrast).probabilities[0].detach().double().numpy()
    order = np.argsort(-wanted)
    nucleus = order[: int(np.searchsorted(wanted[order].cumsum(), 0.7)) + 1]
    counts = np.bincount([t[0] for t in found.tokens], minlength=len(wanted)) / n
    assert set(np.flatnonzero(counts)) <= set(nucleus.tolist())
    expected = wanted[nucleus] / wanted[nucleus].sum()
    # 5 standard errors of a binomial share of 20,000
    assert np.abs(counts[nucleus] - expected).max() < 5 * np.sqrt(0.25 / n)


def test_generate_with_the_processor_writes_the_same_greedy_texts(models):
    small, large = models
    contrast = Contrast(small=1.0, large=-1.0, decoding="greedy", max_tokens=8)
    direct = write_together(small, large, [[5, 9, 3], [8, 8, 8]], contrast, seed=0)
    generated = large.generate(
        torch.tensor([[5, 9, 3], [8, 8, 8]]),
        attention_mask=torch.ones(2, 3),
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
        logits_processor=[ContrastLogits(small, contrast)],
    )
    assert [tuple(row) for row in generated[:, 3:].tolist()] == list(direct.tokens)


def test_equal_models_leave_nothing_and_that_is_counted(models):
    contrast = Contrast(small=1.0, large=-1.0, decoding="greedy", max_tokens=3)
    found = write_together(models[0], models[0], [[5, 9]], contrast, seed=0)
    assert found.undecided == 3
    alone = Contrast(small=1.0, large=0.0, decoding="greedy", max_tokens=3)
    assert found.tokens == write_together(*models, [[5, 9]], alone, seed=0).tokens


def test_a_text_ends_at_its_end_token(models):
    contrast = Contrast(small=1.0, large=-1.0, max_tokens=20)
    whole = write_together(*models, PROMPTS, contrast, seed=1).tokens
    end = whole[0][4]
    found = write_together(*models, PROMPTS, contrast, seed=1, end=end).tokens
    for text, cut in zip(whole, found, strict=True):
        assert cut == (text[: text.index(end)] if end in text else text)


def test_errors_name_what_can_not_be(models):
    with pytest.raises(BadRequest, match="one of them above 0"):
        Contrast(small=-1.0, large=0.0)
    with pytest.raises(BadRequest, match="top_p=0.9"):
        Contrast(small=1.0, large=0.0, top_p=0.0)
    with pytest.raises(BadRequest, match="shortest prompt 0"):
        write_together(*models, [[]], Contrast(small=1.0, large=-1.0), seed=0)
