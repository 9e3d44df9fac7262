"""Traits of tokens, what classes are made of, and curves of classes."""

import json

import numpy as np
import polars as pl
import pytest

from isoloss.errors import BadRequest
from isoloss.laws.token_rule import KINDS
from isoloss.store import Store
from isoloss.studies.trajectories import token_traits as module
from isoloss.studies.trajectories.class_curves import EVERY_RUN, class_curves
from isoloss.studies.trajectories.composition import composition
from isoloss.studies.trajectories.token_runs import read_overall, token_runs
from isoloss.studies.trajectories.token_traits import PARTS, deciles_of_ids, token_traits
from token_stores import planted, put_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("traits") / "RUN")
    put_run(store, planted(1_000, 8, 0), model="a")
    put_run(store, planted(1_000, 6, 1), model="b")
    runs = token_runs(store, "text")
    file = runs.runs[0].series.tokens_file
    table = pl.read_parquet(file)
    ids = np.random.default_rng(0).geometric(0.1, 1_000) % 97  # some often, some seldom
    ids[0] = 96
    table.with_columns(pl.Series("token_id", ids, dtype=table["token_id"].dtype)).write_parquet(
        file
    )
    return runs


def test_traits_equal_a_naive_reading_whatever_the_stretch(runs, monkeypatch):
    monkeypatch.setattr(module, "_STRETCH", 130)  # documents of 50 are cut in the middle
    texts = [" a", "b", "7", ",", " "][::-1] * 20
    traits = token_traits(runs, texts=texts)
    table = pl.read_parquet(runs.runs[0].series.tokens_file)
    ids, documents = table["token_id"].to_list(), table["document"].to_list()
    seen = set()
    for i, (token, document) in enumerate(zip(ids, documents, strict=True)):
        assert traits.later[i] == ((document, token) in seen)
        seen.add((document, token))
        assert (
            PARTS[traits.part[i]]
            == ("space", "punctuation", "number", "continuation", "word")[token % 5]
        )
    assert (traits.block == documents).all() and traits.blocks == 20
    assert traits.strata.max() < module.STRATA
    counts = np.bincount(ids)
    p = (counts + 1) / (counts + 1).sum()
    assert traits.frequency_nats == pytest.approx(-np.log(p[ids]).mean(), rel=1e-12)


def test_deciles_hold_a_tenth_each_and_equal_values_share_one():
    decile = deciles_of_ids(np.arange(1_000), np.ones(1_000, dtype=int))
    assert np.bincount(decile).tolist() == [100] * 10
    tied = deciles_of_ids(np.array([5, 1, 5]), np.array([5, 1, 5]))
    assert tied[0] == tied[2] > tied[1]


def test_a_single_document_is_cut_into_windows_and_many_are_joined(tmp_path):
    store = put_run(Store.create(tmp_path / "RUN"), planted(400, 6, 0))
    runs = token_runs(store, "text")
    file = runs.runs[0].series.tokens_file
    table = pl.read_parquet(file)
    one = table.with_columns(
        pl.lit(0, dtype=table["document"].dtype).alias("document"),
        pl.int_range(400, dtype=table["position"].dtype).alias("position"),
    )
    one.write_parquet(file)
    assert token_traits(runs).blocks == 7  # windows of 64
    many = table.with_columns(pl.int_range(400, dtype=table["document"].dtype).alias("document"))
    many.write_parquet(file)
    module_blocks, count = module._blocks(np.repeat(np.arange(2_500), 2))
    assert count == 400 and set(np.bincount(module_blocks)) == {12, 14}
    assert token_traits(runs).blocks == 400


def test_texts_and_counts_of_another_tokenizer_are_refused(runs):
    with pytest.raises(BadRequest, match="texts of too few token ids(.|\n)*97"):
        token_traits(runs, texts=["a"] * 50)
    with pytest.raises(BadRequest, match="counts of too few token ids"):
        token_traits(runs, counts=np.ones(96))
    given = token_traits(runs, counts=np.arange(97))
    table = pl.read_parquet(runs.runs[0].series.tokens_file)
    by_id = given.frequency[np.argsort(table["token_id"].to_numpy(), kind="stable")]
    assert (np.diff(by_id.astype(int)) >= 0).all()  # the counts rise with the id


@pytest.mark.parametrize("kind", ["bytes", "pieces", "wordpiece"])
def test_words_begin_with_a_space_however_the_tokenizer_marks_it(tmp_path, kind):
    from tokenizers import Tokenizer, decoders, models

    begins = {"bytes": "\u0120the", "pieces": "\u2581the", "wordpiece": "the"}[kind]
    goes_on = {"bytes": "ing", "pieces": "ing", "wordpiece": "##ing"}[kind]
    vocab = {"<unk>": 0, begins: 1, goes_on: 2, ",": 3}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.decoder = {
        "bytes": decoders.ByteLevel(), "pieces": decoders.Metaspace(),
        "wordpiece": decoders.WordPiece(),
    }[kind]  # fmt: skip
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = module.token_texts(tmp_path)
    assert texts[:3] == ("", " the", "ing")
    assert PARTS[module.word_part(texts[3])] == "punctuation"


def test_composition_counts_what_a_class_is_made_of(runs):
    traits = token_traits(runs)
    codes = np.where(traits.later, 3, 1).astype(np.int8)
    codes[traits.position == 0] = 2
    found = {(one.kind, one.trait, one.value): one for one in composition(codes, traits, seed=0)}
    stagnated = found["stagnated", "in the document", "later occurrence"]
    assert stagnated.share.value == 1.0 and stagnated.lift.value == pytest.approx(
        1 / traits.later.mean(), rel=1e-12
    )
    early = found["upward", "position decile", "1"]
    assert early.share.value == 1.0 and early.share.low == 1.0
    assert found["downward", "position decile", "1"].share.value == 0.0
    assert not any(kind == "double descent" for kind, _, _ in found)
    for one in found.values():
        assert not one.share.low > one.share.value and not one.share.high < one.share.value


def test_class_curves_are_means_over_the_chosen_tokens(runs):
    overall = read_overall(runs)
    rng = np.random.default_rng(3)
    kinds = {name: rng.integers(0, 4, 1_000).astype(np.int8) for name in runs.names}
    found = {(c.kind, c.chosen_on, c.run): c for c in class_curves(runs, overall, kinds)}
    for run in runs.runs:
        losses = run.series.losses(0, 1_000).astype(np.float64)
        for i, kind in enumerate(KINDS[:4]):
            chosen = {name: codes == i for name, codes in kinds.items()}
            chosen[EVERY_RUN] = np.logical_and(*chosen.values())
            for name, mask in chosen.items():
                curve = found[kind, name, run.name]
                assert curve.tokens == mask.sum()
                # float64 sums in another order
                assert curve.nats == pytest.approx(losses[:, mask].mean(axis=1), rel=1e-12)
    assert np.isnan(found["double descent", "a", "b"].nats).all()
