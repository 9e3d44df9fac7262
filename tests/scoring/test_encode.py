"""The harness's own methods are the oracle: tokens must be the same, not alike."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

from isoloss.errors import BadCheckpoint, BadData
from isoloss.scoring import encode_pairs, move_spaces, prefix_token_id
from scoring.small_models import byte_tokenizer

TOKENIZERS = {adds_bos: byte_tokenizer(adds_bos=adds_bos) for adds_bos in (True, False)}
WORDS = st.lists(
    st.sampled_from(
        [" ", "  ", "\n", "a", "low", "e ", "lo", "w", "é", "漢", "🙂", "👩‍👧", "<s>", "."]
    ),
    max_size=6,
).map("".join)


def harness_pair(tokenizer, context, continuation):
    """What lm-eval 0.4.13 makes of a pair, by its own code on an object without a model."""
    lm = HFLM.__new__(HFLM)
    lm.tokenizer, lm.backend, lm.add_bos_token = tokenizer, "causal", None
    lm.custom_prefix_token_id = None
    found = []
    lm._loglikelihood_tokens = lambda requests, **_: found.extend(requests)
    request = type("Request", (), {"args": (context, continuation)})
    super(HFLM, lm).loglikelihood([request], disable_tqdm=True)
    (_, context_ids, continuation_ids), *_ = found
    return tuple(context_ids), tuple(continuation_ids)


@pytest.mark.parametrize("adds_bos", [True, False])
@settings(deadline=None)  # the machine may be busy
@given(context=WORDS, continuation=WORDS.filter(bool))
def test_tokens_are_the_harness_tokens(adds_bos, context, continuation):
    tokenizer = TOKENIZERS[adds_bos]
    (found,) = encode_pairs(tokenizer, [(context, continuation)])
    expected = harness_pair(tokenizer, context, continuation)
    if expected[0]:
        assert found == expected
    else:  # the harness stops here: a context of white space alone without BOS
        assert found.context == (prefix_token_id(tokenizer),)


def test_many_pairs_are_each_encoded_as_if_alone():
    tokenizer = TOKENIZERS[True]
    pairs = [("a low ", "e a"), ("", "low"), ("<s>a", " low"), ("a low ", "e a"), ("a", " 🙂")]
    together = encode_pairs(tokenizer, pairs)
    assert together == [encode_pairs(tokenizer, [pair])[0] for pair in pairs]


def test_scored_text_includes_the_moved_space():
    assert move_spaces("Q: \n", "é") == ("Q:", " \né")
    assert len(move_spaces("Q: \n", "é")[1].encode()) == 4


def test_moving_spaces_loses_no_character():
    context, continuation = " a b\t ", " c "
    assert "".join(move_spaces(context, continuation)) == context + continuation


def test_an_empty_continuation_keeps_its_place():
    assert encode_pairs(TOKENIZERS[True], [("a", ""), ("a", "b")])[0].continuation == ()


def test_prefix_is_bos_else_eos_else_what_the_config_says():
    assert prefix_token_id(TOKENIZERS[True]) == 1
    assert prefix_token_id(TOKENIZERS[False]) == 2
    nameless = type("T", (), {"bos_token_id": None, "eos_token_id": None})
    assert prefix_token_id(nameless) is None
    assert prefix_token_id(nameless, type("C", (), {"eos_token_id": [7, 8]})) == 7


def test_an_empty_context_without_any_prefix_token_is_an_error():
    tokenizer = byte_tokenizer(adds_bos=False)
    tokenizer.eos_token = None
    with pytest.raises(BadCheckpoint, match="neither a BOS nor an EOS"):
        encode_pairs(tokenizer, [("", "a")])


def test_half_a_surrogate_pair_is_named():
    with pytest.raises(BadData, match="not valid Unicode"):
        encode_pairs(TOKENIZERS[True], [("a", "b\ud83d")])
