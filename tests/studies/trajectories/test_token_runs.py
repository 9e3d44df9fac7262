"""Several runs side by side: the same tokens in every row, or a refusal that names both."""

import numpy as np
import pytest

from isoloss.errors import BadStore, Refused
from isoloss.store import Store
from isoloss.studies.trajectories import token_runs as module
from isoloss.studies.trajectories.token_runs import read_overall, token_runs
from token_stores import MEASURED, planted, put_run


def test_stretches_of_all_runs_make_up_the_whole_and_unknown_tokens_drop_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STRETCH_BYTES", 4 * 14 * 170)  # three stretches, the last short
    first, second = planted(400, 8, 0), planted(400, 6, 1)
    first[3, 7], second[5, 399] = np.inf, np.nan
    store = Store.create(tmp_path / "RUN")
    put_run(store, first, model="a")
    put_run(store, second, model="b")
    runs = token_runs(store, "text")
    overall = read_overall(runs)
    known = np.ones(400, dtype=bool)
    known[[7, 399]] = False
    assert runs.names == ("a", "b") and overall.left_out == 2
    assert (overall.known == known).all()
    for nats, losses in zip(overall.nats, (first, second), strict=True):
        # float64 sums in another order
        assert nats == pytest.approx(losses[:, known].mean(axis=1, dtype=np.float64), rel=1e-12)


def test_runs_on_different_cuts_are_refused_and_both_named(tmp_path):
    store = Store.create(tmp_path / "RUN")
    put_run(store, planted(40, 6, 0), model="a", layout="one")
    put_run(store, planted(48, 6, 1), model="b", layout="two")
    with pytest.raises(Refused, match=r"runs a and b(.|\n)*layout one(.|\n)*two"):
        token_runs(store, "text")
    assert token_runs(store, "text", runs=["b"]).tokens == 48


def test_runs_of_different_tokenizers_are_refused_and_both_named(tmp_path, monkeypatch):
    store = Store.create(tmp_path / "RUN")
    put_run(store, planted(40, 6, 0), model="a", layout="one")
    monkeypatch.setitem(MEASURED, "tokenizer_hash", "u" * 32)
    put_run(store, planted(48, 6, 1), model="b", layout="two")
    with pytest.raises(Refused, match=r"different tokenizers(.|\n)*tttt(.|\n)*uuuu"):
        token_runs(store, "text")


def test_two_models_with_a_run_of_one_name_are_told_apart(tmp_path):
    store = Store.create(tmp_path / "RUN")
    put_run(store, planted(40, 6, 0), model="a", run="seed0")
    put_run(store, planted(40, 6, 1), model="b", run="seed0")
    assert token_runs(store, "text").names == ("a seed0", "b seed0")


def test_a_corpus_without_token_losses_and_runs_without_a_finite_one_are_errors(tmp_path):
    store = put_run(Store.create(tmp_path / "RUN"), planted(40, 6, 0))
    with pytest.raises(BadStore, match="no losses of single tokens of other"):
        token_runs(store, "other")
    dead = planted(40, 6, 1)
    dead[2] = np.inf
    put_run(store, dead, model="dead")
    with pytest.raises(BadStore, match="no token has a finite loss"):
        read_overall(token_runs(store, "text"))
