"""Classes of tokens read from a store in stretches: the same as those of the whole table."""

import numpy as np
import polars as pl
import pytest

from isoloss.errors import BadStore, Refused
from isoloss.laws.token_rule import KINDS, TrendRule
from isoloss.laws.token_trend import token_trends
from isoloss.store import Store
from isoloss.store.token_series import token_series
from isoloss.studies.trajectories import token_classes
from isoloss.studies.trajectories.token_classes import classify_tokens, in_order
from token_stores import planted, put_run

RULES = {
    "paper": TrendRule(),
    "released": TrendRule(trend="released"),
    "robust": TrendRule(trend="robust", turns=True),
    "few false": TrendRule(trend="robust", false_discovery=True),
}


@pytest.fixture(scope="module")
def losses():
    return planted(12_000, 16, 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory, losses):
    return put_run(Store.create(tmp_path_factory.mktemp("classes") / "RUN"), losses)


@pytest.mark.parametrize("name", RULES)
def test_stretches_give_the_classes_of_the_whole_table(store, losses, monkeypatch, name):
    monkeypatch.setattr(token_classes, "STRETCH", 5_000)  # three of them, none a whole CHUNK
    found = classify_tokens(store, token_series(store, "text", run="small"), rule=RULES[name])
    whole = token_trends(
        np.exp(losses.T.astype(np.float64)), steps=range(1, 17), start=0.1, rule=RULES[name]
    )
    rows = pl.read_parquet(found.file)
    # exp(loss - loss) and exp(loss) / exp(loss) differ in the last of 16 digits
    assert rows["slope"].to_numpy() == pytest.approx(whole.slope, rel=1e-9, abs=1e-13)
    assert rows["p_value"].to_numpy() == pytest.approx(whole.p_value, rel=1e-7, abs=1e-13)
    kinds = np.array(KINDS)[found.kinds()]
    # a p-value beside the limit of the counted ones falls on either side
    assert (kinds != whole.kind).sum() <= (3 if name == "few false" else 0)
    assert found.counts == {kind: int((kinds == kind).sum()) for kind in KINDS}
    assert sum(found.counts.values()) == 12_000 and found.unknown == 0
    assert found.rho == pytest.approx(whole.rho, abs=1e-9)


def test_planted_tokens_are_told_apart(store):
    rule = TrendRule(trend="robust", turns=True)
    found = classify_tokens(store, token_series(store, "text", run="small"), rule=rule)
    kinds = np.array(KINDS)[found.kinds()].reshape(4, 3_000)
    assert (kinds[0] == "downward").mean() > 0.9
    assert (kinds[1] == "upward").mean() > 0.9
    assert np.isin(kinds[2], ["downward", "upward", "double descent"]).mean() < 0.08
    assert (kinds[3] == "double descent").mean() > 0.9


def test_a_checkpoint_missing_in_the_middle_is_named(tmp_path):
    losses = planted(400, 12, 1)
    losses[5] = np.nan
    store = put_run(Store.create(tmp_path / "RUN"), losses)
    series = token_series(store, "text", run="small")
    assert series.missing_steps == (6,) and len(series.files) == 11
    assert sum(classify_tokens(store, series).counts.values()) == 400


def test_a_token_with_an_infinite_loss_at_one_checkpoint_keeps_its_other_points(tmp_path):
    losses = planted(400, 12, 2)
    losses[7, 3] = np.inf
    losses[2:, 9] = np.nan
    store = put_run(Store.create(tmp_path / "RUN"), losses)
    found = classify_tokens(store, token_series(store, "text", run="small"), start=0.0)
    whole = token_trends(np.exp(losses.T.astype(np.float64)), start=0.0)
    assert found.unknown == whole.unknown == 1
    assert (np.array(KINDS)[found.kinds()] == whole.kind).all()


def test_two_layouts_of_one_corpus_are_refused_and_both_named(tmp_path):
    store = Store.create(tmp_path / "RUN")
    put_run(store, planted(40, 6, 3), steps=range(1, 7), layout="one")
    put_run(store, planted(48, 6, 4), steps=range(7, 13), layout="two")
    with pytest.raises(Refused, match="layouts one and two"):
        token_series(store, "text", run="small")


def test_a_run_without_token_losses_is_an_error_with_the_nearest_name(store):
    with pytest.raises(BadStore, match=r"asked:   run smal\n(.|\n)*nearest: small"):
        token_series(store, "text", run="smal")


def test_a_file_that_was_cut_off_is_named(tmp_path):
    store = put_run(Store.create(tmp_path / "RUN"), planted(400, 8, 5))
    series = token_series(store, "text", run="small")
    pl.read_parquet(series.files[3]).head(100).write_parquet(series.files[3])
    with pytest.raises(BadStore, match="fewer losses than the corpus has tokens"):
        classify_tokens(store, series)
    assert not list((tmp_path / "RUN" / "token_classes").rglob("[!.]*.parquet"))


def test_results_keep_their_order():
    assert list(in_order(lambda i: i * i, range(50))) == [i * i for i in range(50)]
