"""The loss axis: one identity, one figure."""

import math

import polars as pl
import pytest

from isoloss.errors import BadRequest, Refused
from isoloss.store import Cell, Store
from isoloss.store import axis as axes
from isoloss.store.imports import import_table
from shared_data import needs_shared


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def measured(store: Store, subject: str, *, steps=(1, 2), probe="token_loss", **settings) -> None:
    rows = [
        {"family": "f", "model": "m", "run": "m", "step": s}
        | {"weights_hash": f"w{s}", "source": f"s{s}"}
        for s in steps
    ]
    numbers = [
        {"metric": "loss_nats_per_token", "value": 3.0, "stderr": 0.1, "n": 5, "unit": None},
        {"metric": "bits_per_byte", "value": 1.0, "stderr": 0.05, "n": 5, "unit": None},
    ]
    with store.writing():
        store.put_checkpoints(rows)
        for s in steps:
            c = Cell(
                weights_hash=f"w{s}", probe=probe, subject=subject, settings=settings, numerics=1
            )
            store.put_cell(c, numbers, {})


def test_an_empty_store_has_no_axis_and_says_how_to_get_one(store):
    assert axes.candidates(store) == []
    with pytest.raises(BadRequest, match="holds no loss axis") as error:
        axes.choose(store)
    assert "[corpus]" in error.value.remedy


def test_the_only_corpus_is_the_axis_in_nats(store):
    measured(store, "wiki", context=512, tokenizer_hash="t")
    chosen = axes.choose(store)
    assert (chosen.name, chosen.kind, chosen.unit) == (
        "wiki:loss_nats_per_token",
        "held-out",
        "nats/token",
    )
    assert axes.choose(store, "wiki") == chosen
    assert axes.choose(store, "wiki:bits_per_byte").unit == "bits/byte"
    losses = axes.losses(store, chosen)
    assert losses.select("step", "loss", "loss_stderr").rows() == [(1, 3.0, 0.1), (2, 3.0, 0.1)]


def test_two_corpora_are_an_error_that_names_both(store):
    measured(store, "wiki")
    measured(store, "books")
    with pytest.raises(BadRequest, match="several loss axes") as error:
        axes.choose(store)
    assert "wiki:loss_nats_per_token" in str(error.value)
    assert "books:loss_nats_per_token" in str(error.value)
    assert axes.choose(store, "books").subject == "books"


def test_two_readings_of_a_corpus_are_two_axes_and_their_difference_is_named(store):
    measured(store, "wiki", context=512, stride=512)
    measured(store, "wiki", context=1024, stride=512)
    with pytest.raises(BadRequest) as error:
        axes.choose(store, "wiki")
    assert "context 512" in str(error.value) and "context 1024" in str(error.value)
    assert "stride" not in str(error.value)


def test_tokenizers_part_nats_and_share_bits_per_byte(store):
    measured(store, "wiki", steps=(1,), tokenizer_hash="a")
    measured(store, "wiki", steps=(2,), tokenizer_hash="b")
    with pytest.raises(BadRequest, match="several loss axes") as error:
        axes.choose(store)
    assert "bits_per_byte" in error.value.remedy
    shared = axes.choose(store, "wiki:bits_per_byte")
    assert axes.losses(store, shared)["step"].to_list() == [1, 2]


def counted(store, tokenizer, step, loss, tokens, size):
    """One checkpoint read by a tokenizer that cuts ``size`` bytes into ``tokens`` tokens."""
    row = {"family": "f", "model": tokenizer, "run": tokenizer, "step": step, "source": tokenizer}
    cell = Cell(
        weights_hash=f"{tokenizer}{step}",
        probe="token_loss",
        subject="wiki",
        settings={"tokenizer_hash": tokenizer, "context": 8},
        numerics=1,
    )
    values = (("loss_nats_per_token", loss), ("tokens_scored", tokens), ("bytes_scored", size))
    rows = [
        {"metric": name, "value": float(value), "stderr": 0.1, "n": 5, "unit": None}
        for name, value in values
    ]
    with store.writing():
        store.put_checkpoints([{**row, "weights_hash": cell.weights_hash}])
        store.put_cell(cell, rows, {})


def test_families_of_two_tokenizers_share_a_converted_axis_that_states_its_assumption(store):
    counted(store, "a", 1, loss=2.0, tokens=100, size=400)
    counted(store, "b", 1, loss=3.0, tokens=50, size=400)
    axis = axes.choose(store, "wiki:converted_nats_per_token")
    assert (axis.kind, axis.reference) == ("converted", "a")
    assert "assumes the same probability however it is cut" in axis.label
    losses = axes.losses(store, axis).sort("model")
    # 3 nats x 50 tokens over the 100 tokens of a; its standard error likewise
    assert losses["loss"].to_list() == [2.0, 1.5]
    assert losses["loss_stderr"].to_list() == [0.1, 0.05]


def test_tokenizers_that_read_different_stretches_are_not_converted(store):
    counted(store, "a", 1, loss=2.0, tokens=100, size=400)
    counted(store, "b", 1, loss=3.0, tokens=50, size=390)
    with pytest.raises(Refused, match="did not score the same text"):
        axes.losses(store, axes.choose(store, "wiki:converted_nats_per_token"))


def test_one_tokenizer_needs_no_conversion(store):
    counted(store, "a", 1, loss=2.0, tokens=100, size=400)
    assert [axis.kind for axis in axes.candidates(store)] == ["held-out"]


def test_a_misspelt_axis_gets_the_nearest_one(store):
    measured(store, "wiki")
    with pytest.raises(BadRequest) as error:
        axes.choose(store, "wikki")
    assert error.value.nearest is not None and error.value.nearest.startswith("wiki:")
    with pytest.raises(BadRequest):
        axes.choose(store, "wiki:perplexity")


def test_held_out_losses_come_before_logs_and_logs_before_proxies(store, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("m,s,p\nm,1,12.5\n")
    import_table(
        path,
        store,
        family="f",
        columns={"model": "m", "step": "s"},
        scores={"p": ("lambada_openai", "ppl")},
    )
    assert axes.choose(store).kind == "proxy"
    measured(store, "train_log", probe="train_log")
    assert axes.choose(store).kind == "train-log"
    measured(store, "wiki")
    assert [a.kind for a in axes.candidates(store)] == [
        "held-out",
        "held-out",
        "train-log",
        "proxy",
    ]
    assert axes.choose(store).kind == "held-out"
    assert axes.choose(store, "lambada_openai").kind == "proxy"


@needs_shared
def test_imported_results_take_the_zero_shot_perplexity_as_a_labelled_proxy(pythia):
    chosen = axes.choose(pythia)
    assert chosen.name == "lambada_openai:perplexity"
    assert chosen.settings["num_fewshot"] == 0
    assert chosen.label == (
        "ln perplexity of lambada_openai, 0-shot (proxy: perplexity on other documents)"
    )
    losses = axes.losses(pythia, chosen)
    assert losses.height == 8 * 27
    last = losses.filter(pl.col("model") == "pythia-v1.1-70m", pl.col("step") == 143_000)
    # the manifest: 70m's perplexity rises from 101.7 (step 63000) to 142.4 at the end
    assert math.exp(last["loss"][0]) == pytest.approx(142.4, abs=0.05)
    raw = pythia.measurements().filter(
        pl.col("metric") == "perplexity",
        pl.col("model") == "pythia-v1.1-70m",
        pl.col("step") == 143_000,
        pl.col("num_fewshot") == 0,
    )
    (row,) = raw.collect().to_dicts()
    assert last["loss_stderr"][0] == pytest.approx(row["stderr"] / row["value"], rel=1e-12)


@needs_shared
def test_an_ability_against_its_own_perplexity_is_refused(pythia):
    chosen = axes.choose(pythia)
    with pytest.raises(Refused, match="circular") as error:
        axes.refuse_circular(chosen, "lambada_openai")
    assert "other documents" in error.value.remedy
    axes.refuse_circular(chosen, "piqa")
