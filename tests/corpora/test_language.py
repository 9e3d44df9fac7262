"""Bridges from a synthetic language to text, token ids and tasks."""

import numpy as np
import pytest

from isoloss.corpora import (
    Hmm,
    continuation_task,
    exact_choice_accuracy,
    language_tokenizer,
    load_language,
    planted_negative_task,
    to_text,
)
from isoloss.corpora.language import from_text, model_tokens, special_id
from isoloss.errors import BadData, BadRequest


def language(length: int = 10) -> Hmm:
    return Hmm.random(30, 6, length, 0, transition_concentration=0.05)


def test_text_and_words_are_each_other_s_inverse():
    sentences = language().sample(20, 0)
    assert [from_text(text) for text in to_text(sentences)] == sentences.tolist()


def test_tokenizer_gives_the_ids_that_a_model_reads():
    sentences = language().sample(20, 0)
    tokenizer = language_tokenizer(30)
    encoded = [e.ids for e in tokenizer.encode_batch(to_text(sentences))]
    assert encoded == model_tokens(sentences, 30).tolist()
    assert tokenizer.decode(encoded[0]) == to_text(sentences)[0]
    assert tokenizer.get_vocab_size() == 35


def test_continuation_tokens_do_not_depend_on_the_context():
    # scoring splits the tokens of context + continuation at the length of the context
    tokenizer = language_tokenizer(30)
    context = tokenizer.encode("w001 w002").ids
    assert tokenizer.encode("w001 w002 w003").ids == [*context, 3]


def test_words_of_another_language_become_unknown_not_another_word():
    assert language_tokenizer(30).encode("w030").ids == [
        special_id(30, "<bos>"),
        special_id(30, "<unk>"),
    ]


def test_text_that_is_none_of_a_language_is_refused():
    with pytest.raises(BadData, match="w007"):
        from_text("w001 hello")


def test_unknown_special_token_names_the_nearest():
    with pytest.raises(BadRequest, match="<bos>"):
        special_id(30, "<boss>")


def test_true_continuation_is_the_one_that_was_sampled():
    hmm = language()
    rows = continuation_task(hmm, 50, prefix=6, seed=1)
    whole = {text for text in to_text(hmm.sample(50, [1, 1]))}
    assert all(f"{r['query']} {r['choices'][r['gold']]}" in whole for r in rows)
    assert all(len(set(r["choices"])) == 4 for r in rows)
    assert all(len(c.split()) == 4 for r in rows for c in r["choices"])


def test_gold_stands_at_every_place_equally_often():
    golds = [r["gold"] for r in continuation_task(language(), 2000, prefix=6, seed=2)]
    # 500 expected, standard deviation 19
    assert np.abs(np.bincount(golds, minlength=4) - 500).max() < 5 * 19


def test_ability_is_above_chance_for_the_language_itself_and_the_planted_negative_is_not():
    hmm = language()
    able = exact_choice_accuracy(hmm, continuation_task(hmm, 1000, prefix=6, seed=3))
    noise = exact_choice_accuracy(hmm, planted_negative_task(hmm, 1000, prefix=6, seed=3))
    assert able.value > 0.25 + 5 * able.stderr
    assert abs(noise.value - 0.25) < 4 * noise.stderr


def test_tasks_are_the_same_for_the_same_seed():
    first, second = (continuation_task(language(), 20, prefix=5, seed=s) for s in (0, 0))
    assert first == second != continuation_task(language(), 20, prefix=5, seed=1)


@pytest.mark.parametrize("prefix", [0, 10])
def test_a_prefix_that_leaves_nothing_is_refused(prefix):
    with pytest.raises(BadRequest, match="prefix 1 to 9"):
        continuation_task(language(), 5, prefix=prefix, seed=0)


def test_a_language_with_too_few_continuations_is_refused():
    constant = Hmm([1.0], [[1.0]], [[0.5, 0.5]], 4)
    with pytest.raises(BadRequest, match="too few different continuations"):
        continuation_task(constant, 5, prefix=3, seed=0)


def test_a_language_is_found_by_its_folder(tmp_path):
    language().save(tmp_path)
    assert load_language(tmp_path).fingerprint() == language().fingerprint()
