"""Checkpoints as folders: the step in the name, the facts beside the weights."""

import json

import pytest

from isoloss.errors import BadCheckpoint, CheckpointMissing
from isoloss.models.folders import find_folders, read_facts


def folders(tmp_path, *names):
    for name in names:
        (tmp_path / name).mkdir()


def test_folders_come_in_order_of_their_steps_not_of_their_names(tmp_path):
    folders(tmp_path, "step-9", "step-10", "step-00000002", ".step-3.tmp", "other")
    (tmp_path / "step-11").write_text("a file is no checkpoint")
    assert [f.step for f in find_folders(tmp_path / "step-*")] == [2, 9, 10]


def test_training_json_is_read_and_goes_before_the_name(tmp_path):
    folders(tmp_path, "step-5")
    facts = dict(step=7, tokens_seen=700, loss=2.5, lr=1e-3, schedule_progress=0.25)
    (tmp_path / "step-5" / "training.json").write_text(json.dumps(facts))
    (found,) = find_folders(tmp_path / "*")
    assert (found.step, found.tokens_seen, found.loss_nats_per_token) == (7, 700, 2.5)
    assert (found.lr, found.schedule_progress) == (1e-3, 0.25)


def test_unknown_facts_stay_unknown(tmp_path):
    folders(tmp_path, "final")
    (tmp_path / "final" / "training.json").write_text('{"loss": null, "step": 0}')
    found = read_facts(tmp_path / "final")
    assert (found.step, found.loss_nats_per_token, found.tokens_seen) == (0, None, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"step": "many"}', '{"step": true}'])
def test_a_broken_training_json_is_named(tmp_path, text):
    folders(tmp_path, "step-5")
    (tmp_path / "step-5" / "training.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=r"training.json of the checkpoint step-5"):
        read_facts(tmp_path / "step-5")


def test_a_glob_that_matches_nothing_names_what_is_there(tmp_path):
    folders(tmp_path, "step-1", "step-2")
    with pytest.raises(CheckpointMissing) as error:
        find_folders(tmp_path / "stp-*")
    assert "step-" in error.value.nearest
