"""Traces as a probe of checkpoints: on a language's sentences, on a corpus, in the store."""

import numpy as np
import polars as pl
import pytest
import torch

from curvature_models import LANGUAGE, tiny_model
from isoloss import Store, Study
from isoloss.corpora import Pcfg
from isoloss.engine.local import run
from isoloss.errors import BadRequest, BadStudy
from isoloss.probes.curvature import LABELS, flatness
from isoloss.probes.curvature_batches import asked_logits, read_batches
from isoloss.probes.curvature_subjects import corpus_batches, language_batches

ENDING = Pcfg.from_text("S -> A B [1.0]\nA -> 'a' [0.5] | A A [0.5]\nB -> 'b' [1.0]", 6)


def asked(model, batches):
    return sum(rows.tokens for rows in read_batches(model, batches))


def test_a_causal_model_is_asked_every_word_of_its_language():
    model = tiny_model()
    batches = language_batches(model, LANGUAGE, sentences=300, seed=0)
    assert len(batches) > 1 and asked(model, batches) == 300 * LANGUAGE.length
    again = language_batches(model, LANGUAGE, sentences=300, seed=0)
    assert all(
        torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches, again, strict=True)
    )


def test_the_end_of_a_sentence_is_asked_and_padding_is_not():
    model = tiny_model(language=ENDING)
    batches = language_batches(model, ENDING, sentences=40, seed=1)
    (ids,), (labels,) = ([b[k] for b in batches] for k in ("input_ids", "labels"))
    words = (ids < ENDING.vocab).sum(1)
    assert torch.equal((labels[:, 1:] != -100).sum(1), words + 1)
    last = labels[torch.arange(40), words + 1]
    assert (last == ENDING.vocab + 1).all() and len(set(words.tolist())) > 1
    assert torch.isfinite(asked_logits(model, read_batches(model, batches)[0])).all()


@pytest.mark.parametrize("architecture", ["bert", "lstm"])
def test_a_masked_model_is_asked_one_masked_word_a_sentence(architecture):
    model = tiny_model(architecture, language=ENDING)
    (batch,) = language_batches(model, ENDING, sentences=30, seed=1)
    places = batch["labels"] != -100
    assert (places.sum(1) == 1).all()
    assert (batch["input_ids"][places] == ENDING.vocab + 3).all()
    assert (batch["labels"][places] < ENDING.vocab).all()
    measured = flatness(
        model, [batch], "fisher_trace",
        relative_error=0.5, max_products=20, population=False, seed=0,
    )  # fmt: skip
    assert measured.rows[0].estimate.value > 0


def test_off_the_optimum_a_fisher_trace_is_never_called_a_hessian():
    assert LABELS["fisher_trace"] == "Fisher trace"
    assert not any("Hessian" in text for key, text in LABELS.items() if "fisher" in key)


STUDY = """\
name = "flat"
[run]
threads = 1
[[family]]
pretrained = "family"
[corpus.heldout]
path = "heldout.txt"
document = "line"
tokens = 60
[probe.fisher_trace]
sentences = 24
relative_error = 0.3
at = "last:1"
[probe.hessian_trace]
corpus = "heldout"
relative_error = 0.3
max_products = 40
at = "last:1"
"""


@pytest.fixture(scope="module")
def store(studio, tmp_path_factory):
    study = Study.from_text(STUDY, folder=studio)
    folder = tmp_path_factory.mktemp("flat") / "RUN"
    outcome = run(study, out=folder)
    assert outcome.failed == 0
    return Store(folder)


def test_a_study_files_traces_beside_the_checkpoints(store):
    table = store.measurements().collect()
    fisher = table.filter(pl.col("probe") == "fisher_trace")
    # the last checkpoint of two runs, each on the language of their family
    assert fisher["subject"].unique().to_list() == ["tiny"]
    assert sorted(fisher["metric"].unique()) == [
        "fisher_trace", "fisher_trace_scale_invariant", "weight_norm"
    ]  # fmt: skip
    assert fisher.filter(pl.col("metric") == "fisher_trace").height == 2
    assert (fisher.filter(pl.col("metric") == "fisher_trace")["value"] > 0).all()
    hessian = table.filter(pl.col("metric") == "hessian_trace")
    assert hessian["subject"].to_list() == ["heldout"] * 2
    assert hessian["stderr"].is_not_null().all()
    # the trace's corpus is read, and its losses, which nothing asked for, are not
    assert "token_loss" not in table["probe"].unique().to_list()


def test_the_weight_norm_is_the_fingerprint_s(store):
    table = store.measurements().collect().filter(pl.col("metric") == "weight_norm")
    last = table.filter(pl.col("step") == 6)
    for run_name in last["run"].unique():
        values = last.filter(pl.col("run") == run_name)["value"].to_numpy()
        assert len(values) > 1
        # float32 sums of a few thousand squares
        assert np.ptp(values) < 1e-5 * values[0]


def test_the_windows_of_a_corpus_ask_the_tokens_that_are_scored(studio):
    from transformers import AutoTokenizer

    from isoloss.corpora.text import read_corpus
    from isoloss.corpora.windows import lay_out

    folder = sorted((studio / "family").glob("*/step-*"))[0]
    layout = lay_out(
        read_corpus(studio / "heldout.txt", document="line"),
        AutoTokenizer.from_pretrained(folder),
        context=5,
        stride=2,
    )
    model = tiny_model()
    batches = corpus_batches(model, layout)
    assert asked(model, batches) == len(layout.token_id)
    scored = torch.cat([b["labels"][b["labels"] != -100] for b in batches])
    assert sorted(scored.tolist()) == sorted(layout.token_id.tolist())
    with pytest.raises(BadRequest, match="causal"):
        corpus_batches(tiny_model("bert"), layout)


def test_a_trace_needs_a_language_or_a_corpus(studio):
    text = STUDY[: STUDY.index("[corpus")] + "[probe.hessian_trace]\ncorpus = 'heldout'\n"
    with pytest.raises(BadStudy, match="heldout"):
        Study.from_text(text, folder=studio)


def test_a_trace_of_a_family_without_language_or_corpus_is_refused(studio, tmp_path):
    folder = sorted((studio / "family").glob("*/step-*"))[0]
    text = f"""\
name = "flat"
[[family]]
pretrained = "family"
[[family]]
name = "other"
  [[family.model]]
  name = "one"
  checkpoints = [{{ path = "{folder}" }}]
[probe.fisher_trace]
"""
    with pytest.raises(BadStudy, match="nothing to look at"):
        run(Study.from_text(text, folder=studio), out=tmp_path / "RUN")
