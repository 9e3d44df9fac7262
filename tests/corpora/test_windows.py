"""A layout scores each token once, in its document, and gives it its bytes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from isoloss.corpora.text import corpus_of, read_corpus
from isoloss.corpora.windows import Layout, _bytes_of_tokens, lay_out
from isoloss.errors import BadCheckpoint, BadData, BadRequest
from shared_data import SHARED, needs_shared


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token a byte: an honest tokenizer whose every count is known."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


BYTES = byte_tokenizer()
BOS = byte_tokenizer(bos_token="<s>")
WORDS = st.text(min_size=1, max_size=40).filter(lambda s: s.strip() and s.isprintable())


def windows(layout: Layout) -> list[tuple[list[int], list[int]]]:
    """Inputs and scored targets of every window."""
    pairs = []
    for w in range(len(layout.starts)):
        ids = layout.stream[layout.starts[w] : layout.stops[w]].tolist()
        pairs.append((ids[:-1], ids[-(layout.row_stops[w] - layout.row_starts[w]) :]))
    return pairs


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(2, 12), st.data())
def test_windows_are_the_harness_rolling_windows(texts, context, data):
    stride = data.draw(st.integers(1, context))
    corpus = corpus_of(["x" + text for text in texts], name="x")
    layout = lay_out(corpus, BOS, context=context, stride=stride)
    expected = []
    for text in corpus.documents:
        ids = BOS(text, add_special_tokens=False)["input_ids"]
        # the harness's stride is what its window leaves beside the context it must keep
        rolling = get_rolling_token_windows(ids, BOS.bos_token_id, context, context - stride + 1)
        for pair in rolling:
            before, scored = make_disjoint_window(pair)
            expected.append((before + scored[:-1], scored))
    assert windows(layout) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(2, 12), st.booleans(), st.data())
def test_every_token_is_scored_once_in_row_order(texts, context, bos, data):
    stride = data.draw(st.integers(1, context))
    corpus = corpus_of(["xy" + text for text in texts], name="x")
    layout = lay_out(corpus, BOS, context=context, stride=stride, bos=bos)
    assert np.concatenate([scored for _, scored in windows(layout)]).tolist() == (
        layout.token_id.tolist()
    )
    assert layout.row_starts.tolist() == [0, *layout.row_stops[:-1].tolist()]
    assert max(len(ids) for ids, _ in windows(layout)) <= context
    first = 0 if bos else 1
    encoded = [BOS(text, add_special_tokens=False)["input_ids"] for text in corpus.documents]
    for d, ids in enumerate(encoded):
        rows = layout.document == d
        assert layout.token_id[rows].tolist() == ids[first:]
        assert layout.position[rows].tolist() == list(range(first, len(ids)))


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5))
def test_bytes_of_a_documents_tokens_sum_to_the_document(texts):
    corpus = corpus_of(["x" + text for text in texts], name="x")
    layout = lay_out(corpus, BOS, context=8)
    sums = np.bincount(layout.document, layout.bytes, len(corpus.documents))
    assert tuple(sums.astype(int)) == corpus.bytes


def test_a_character_of_several_tokens_counts_at_the_first():
    layout = lay_out(corpus_of(["a🦞é"], name="x"), BOS, context=4)
    assert layout.bytes.tolist() == [1, 4, 0, 0, 0, 2, 0]


def test_no_window_reads_another_document():
    corpus = corpus_of(["aaaa", "bbbbbbb"], name="x")
    a, b = BYTES("ab")["input_ids"]
    for ids, _ in windows(lay_out(corpus, BOS, context=3)):
        assert not {a, b} <= set(ids)


def test_without_bos_the_first_token_is_context_alone():
    corpus = corpus_of(["abc", "d", "ef"], name="x")
    layout = lay_out(corpus, BYTES, context=4)
    assert layout.bos_id is None
    assert layout.document.tolist() == [0, 0, 2]
    assert layout.position.tolist() == [1, 2, 1]
    assert layout.bytes.sum() == 3
    assert any("first token of 3 documents is not scored" in note for note in layout.notes)
    assert "1 of 3 documents have no token to score" in layout.notes


def test_auto_takes_bos_else_eos_else_nothing():
    corpus = corpus_of(["abc"], name="x")
    both = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    only_eos = byte_tokenizer(eos_token="</s>")
    assert lay_out(corpus, both, context=4).bos_id == both.bos_token_id
    assert lay_out(corpus, only_eos, context=4).bos_id == only_eos.eos_token_id
    assert lay_out(corpus, BYTES, context=4).bos_id is None
    with pytest.raises(BadRequest, match="neither a BOS nor an EOS"):
        lay_out(corpus, BYTES, context=4, bos=True)


@given(st.integers(1, 12), st.booleans())
def test_a_limit_takes_whole_documents_and_cuts_the_last(tokens, bos):
    corpus = corpus_of(["abcd", "efg", "hi"], name="x")
    whole = lay_out(corpus, BOS, context=3, bos=bos)
    limited = lay_out(corpus, BOS, context=3, bos=bos, tokens=tokens)
    n = min(tokens, len(whole.token_id))
    for column in ("token_id", "document", "position", "bytes"):
        assert getattr(limited, column).tolist() == getattr(whole, column)[:n].tolist()
    assert limited.row_stops[-1] == n
    # a limit that cuts nothing is no other layout
    assert (limited.layout_hash == whole.layout_hash) == (n == len(whole.token_id))


def test_a_limit_notes_how_many_documents_it_took():
    corpus = corpus_of(["abcd", "efg", "hi"], name="x")
    note = "of 3 documents the first {} reach the limit of tokens"
    assert note.format(1) in lay_out(corpus, BOS, context=2, tokens=4).notes
    assert note.format(2) in lay_out(corpus, BOS, context=2, tokens=5).notes


@pytest.mark.parametrize("tokens", [None, 8])
def test_the_tokenizers_batches_leave_no_trace(monkeypatch, tokens):
    corpus = corpus_of(["abcd", "efg", "hi", "jklmnop"], name="x")
    once = lay_out(corpus, BOS, context=3, tokens=tokens)
    monkeypatch.setattr("isoloss.corpora.windows._CHARACTERS_PER_CALL", 4)
    again = lay_out(corpus, BOS, context=3, tokens=tokens)
    assert again.layout_hash == once.layout_hash and again.notes == once.notes
    for column in ("token_id", "document", "bytes", "stream", "starts", "stops"):
        assert getattr(again, column).tolist() == getattr(once, column).tolist()


def test_the_hash_knows_everything_that_moves_a_row():
    corpus = corpus_of(["abcdefgh"], name="x")
    base = {"context": 4, "stride": 4, "bos": True}
    one = lay_out(corpus, BOS, **base).layout_hash
    assert one == lay_out(corpus_of(["abcdefgh"], name="y"), BOS, **base).layout_hash
    others = [
        lay_out(corpus_of(["abcdefgi"], name="x"), BOS, **base),
        lay_out(corpus_of(["abcdefgh"], name="x", document="line"), BOS, **base),
        lay_out(corpus, byte_tokenizer(bos_token="<t>"), **base),
        *(lay_out(corpus, BOS, **base | change) for change in (
            {"context": 5}, {"stride": 3}, {"bos": False}, {"tokens": 7},
        )),
    ]  # fmt: skip
    assert len({one, *(layout.layout_hash for layout in others)}) == 1 + len(others)


def test_a_document_shorter_than_the_window_runs_and_is_noted():
    layout = lay_out(corpus_of(["abc"], name="x"), BOS, context=100)
    assert len(layout.token_id) == 3
    assert layout.notes == ("1 of 1 documents are shorter than the window of 100",)


def test_a_corpus_without_two_tokens_is_an_error():
    with pytest.raises(BadData, match="too short"):
        lay_out(corpus_of(["a"], name="x"), BOS, context=4)
    with pytest.raises(BadData, match="too short"):
        lay_out(corpus_of(["a", "b"], name="x"), BOS, context=4, bos=False)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({"context": 1}, "at least two tokens"),
        ({"context": 4, "stride": 5}, "stride does not fit"),
        ({"context": 4, "stride": 0}, "stride does not fit"),
        ({"context": 4, "tokens": 0}, "no token would be scored"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, what):
    with pytest.raises(BadRequest, match=what):
        lay_out(corpus_of(["abc"], name="x"), BOS, **setting)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(BadCheckpoint, match="not a fast one"):
        lay_out(corpus_of(["abc"], name="x"), Slow(), context=4)


def shared_tokenizer(name: str) -> PreTrainedTokenizerFast:
    if name == "stories":
        return AutoTokenizer.from_pretrained(SHARED / "models/stories-260k")
    file = SHARED / "tokenizers/gpt-neox-20b/tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>")


@needs_shared
@pytest.mark.parametrize("name", ["stories", "gpt-neox"])
def test_bytes_sum_to_the_text_under_real_tokenizers(name):
    english = read_corpus(SHARED / "text/wikitext-2/valid.txt", document="blank-line")
    chinese = json.loads((SHARED / "eval-sets/c3/c3-m-dev.json").read_text())
    texts = [*english.documents[:200], *("\n".join(row[0]) for row in chinese[:50]), "end \n\n "]
    corpus = corpus_of(texts, name="mixed")
    layout = lay_out(corpus, shared_tokenizer(name), context=64)
    sums = np.bincount(layout.document, layout.bytes, len(corpus.documents))
    assert tuple(sums.astype(int)) == corpus.bytes
    assert layout.bytes.min() >= 0


def test_offsets_that_overlap_or_step_back_take_no_bytes_away():
    assert _bytes_of_tokens("abcd", [(0, 2), (0, 1), (1, 3), (3, 3)]).tolist() == [2, 0, 1, 1]
