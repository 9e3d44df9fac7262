"""Narrow models embedded in the wide architecture: a family of the same functions."""

import json

import numpy as np
import pytest

from isoloss.corpora import load_language
from isoloss.errors import BadRequest
from isoloss.family import Folder
from isoloss.models.load import load
from isoloss.pretrain import FamilyConfig, read_family, train_family
from isoloss.probes.optimum import masked_word_logprobs, next_word_logprobs
from isoloss.studies.implicit_bias.widened import widen_family

ARCHITECTURES = {"bert": "masked-one", "gpt-neox": "causal"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def families(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    config = {
        "name": "tiny",
        "language": {"kind": "hmm", "vocab": 5, "states": 2, "length": 4},
        "train": {"objective": ARCHITECTURES[request.param], "steps": 10, "batch": 8,
                  "schedule": "wsd", "branches": [5], "checkpoints": [], "evaluate": None},
        "grid": [{"architecture": request.param, "width": [16, 32], "depth": 1}],
    }  # fmt: skip
    train_family(FamilyConfig.model_validate(config), folder / "tiny", processes=1)
    count = widen_family(folder / "tiny", folder / "tiny-widened", narrow=16, wide=32)
    assert count == 2  # the trunk and its branch
    return folder


def logprobs(folder, vocab, words):
    model = load(Folder(path=folder), dtype="float64", device="cpu").model
    of = next_word_logprobs if "neox" in str(folder) else masked_word_logprobs
    return of(model, words, vocab).numpy()


def test_widened_checkpoints_compute_what_the_narrow_ones_do(families):
    language = load_language(families / "tiny-widened" / "language")
    words = language.sample(20, [1, 2])
    for run in read_family(families / "tiny-widened").runs:
        (folder,) = (families / "tiny-widened" / run.name).glob("step-*")
        ours, theirs = (
            logprobs(families / name / run.name / folder.name, language.vocab, words)
            for name in ("tiny-widened", "tiny")
        )
        # float32 weights, and of bert one constant that its config cannot say
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert json.loads((folder / "config.json").read_text())["hidden_size"] == 32


def test_runs_steps_and_facts_are_those_of_the_trained_family(families):
    trained = {run.name: run for run in read_family(families / "tiny").runs}
    widened = read_family(families / "tiny-widened")
    assert widened.name == "tiny-widened"
    assert {run.name for run in widened.runs} == {n for n in trained if "-w16-" in n}
    for run in widened.runs:
        assert run.seed == trained[run.name].seed
        assert run.checkpoint_steps == trained[run.name].checkpoint_steps[-1:]
        assert run.model.endswith("-as-w32")
        step = f"step-{run.checkpoint_steps[0]:08d}"
        facts, same = (
            json.loads((families / name / run.name / step / "training.json").read_text())
            for name in ("tiny-widened", "tiny")
        )
        assert facts == same and facts["schedule_progress"] == 1.0


def test_what_is_there_is_kept(families):
    files = sorted((families / "tiny-widened").glob("*/step-*/model.safetensors"))
    before = [file.stat().st_mtime_ns for file in files]
    widen_family(families / "tiny", families / "tiny-widened", narrow=16, wide=32)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_width_that_is_no_multiple_is_refused(families, tmp_path):
    with pytest.raises(BadRequest, match="multiple"):
        widen_family(families / "tiny", tmp_path / "out", narrow=16, wide=24)
