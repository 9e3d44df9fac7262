import math

import polars as pl
import pytest

from isoloss.errors import BadRequest
from isoloss.report import collect
from isoloss.report.axes import in_nats
from report import stores


def values(data, key):
    return dict(data.axes.positions.filter(pl.col("axis") == key).select("point", "value").rows())


def test_the_only_corpus_is_the_axis_and_bits_per_byte_stand_beside_it(tmp_path):
    data = collect(stores.trained(tmp_path))
    keys = [axis.key for axis in data.axes.options]
    assert keys[:2] == ["loss", "bits_per_byte"]
    assert data.axes.first.key == "loss"
    by_step = data.checkpoints.filter(pl.col("model") == "small").sort("step")["point"]
    assert [values(data, "loss")[p] for p in by_step] == [4.0, 3.5, 3.0]
    assert [values(data, "bits_per_byte")[p] for p in by_step] == pytest.approx(
        [4 / 3, 3.5 / 3, 1.0],
        abs=1e-12,  # planted to twelve digits
    )


def test_a_proxy_is_the_logarithm_of_the_perplexity_and_says_that_it_is_one(tmp_path):
    data = collect(stores.proxied(tmp_path))
    assert data.axes.loss.title.endswith("(proxy: perplexity on other documents)")
    assert sorted(values(data, "loss").values()) == pytest.approx(
        sorted(math.log(100 / k) for k in (1, 2, 3)),
        rel=1e-12,  # one float64 logarithm
    )


def test_a_known_language_gives_the_expected_loss_and_its_distance_as_axes(tmp_path):
    data = collect(stores.trained(tmp_path))
    by_step = data.checkpoints.filter(pl.col("model") == "small").sort("step")["point"]
    assert [values(data, "expected_loss:language")[p] for p in by_step] == [4.1, 3.6, 3.1]
    assert [values(data, "distance:language")[p] for p in by_step] == [2.85, 2.35, 1.85]
    assert {c.axis.key: c.optimum for c in data.curves}["expected_loss:language"] == 1.25


def test_without_a_loss_the_page_starts_with_training_tokens(tmp_path):
    data = collect(stores.without_loss(tmp_path))
    assert data.axes.chosen is None and data.axes.loss is None
    assert data.axes.first.key == "tokens_seen"


def test_two_corpora_are_an_error_naming_both_until_one_is_asked_for(tmp_path):
    store = stores.trained(tmp_path)
    point = stores.checkpoint(10)
    with store.writing():
        stores.put_loss(store, point, 5.0, corpus="other")
    with pytest.raises(BadRequest, match="several loss axes") as error:
        collect(store)
    assert "heldout" in error.value.nearest and "other" in error.value.nearest
    assert collect(store, loss="other").axes.chosen.subject == "other"


def test_the_axis_that_the_study_names_is_used(tmp_path):
    store = stores.trained(tmp_path)
    with store.writing():
        stores.put_loss(store, stores.checkpoint(10), 5.0, corpus="other")
        store.put_study(stores.STUDY + '[corpus.other]\npath = "o.txt"\n[axis]\nloss = "other"\n')
    assert collect(store).axes.chosen.subject == "other"
    assert collect(store, loss="heldout").axes.chosen.subject == "heldout"


def test_the_optimum_can_be_asked_for_as_the_loss(tmp_path):
    data = collect(stores.trained(tmp_path), loss="language")
    assert data.axes.first.title == "expected loss on the language of language (nats per token)"


def test_a_misspelt_axis_names_the_nearest(tmp_path):
    with pytest.raises(BadRequest) as error:
        collect(stores.trained(tmp_path), loss="heldput")
    assert "heldout" in error.value.nearest


def test_a_tie_in_bits_is_the_same_tie_in_nats(tmp_path):
    data = collect(stores.trained(tmp_path))
    nats, bits = (axis.source for axis in data.axes.options[:2])
    assert in_nats(nats, 0.01) == 0.01
    assert in_nats(bits, math.log(2)) == 1.0
