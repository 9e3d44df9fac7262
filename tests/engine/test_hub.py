"""A study of a hub repository, end to end, against a stand-in of the hub on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from models.hub_stand_in import HubStandIn

STUDY = """\
name = "hub"
[run]
threads = 1
[[family]]
name = "tiny"
[[family.model]]
name = "tiny-8"
hub = "someone/tiny-8"
revision = "step{step}"
steps = [0, 2, 6]
tokens_per_step = 64
[corpus.heldout]
path = "heldout.txt"
document = "line"
[probe.token_loss]
"""


@pytest.fixture
def hub(studio):
    run = next(p for p in sorted((studio / "family").iterdir()) if (p / "log.parquet").exists())
    revisions = {f"step{s}": run / f"step-{s:08d}" for s in (0, 2, 6)}
    with HubStandIn("someone/tiny-8", revisions) as server:
        yield server


def isoloss(hub, folder, *words):
    """Run the command line against the stand-in, in a process that may reach loopback."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hf"),
        "ISOLOSS_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-m", "isoloss.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def folder(studio, tmp_path):
    shutil.copy(studio / "heldout.txt", tmp_path / "heldout.txt")
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def test_a_repository_is_listed_and_planned_without_downloading_a_weight(hub, folder):
    listed = isoloss(hub, folder, "ls", "someone/tiny-8", "--json")
    assert [row["step"] for row in json.loads(listed.stdout)] == [0, 2, 6], listed.stderr
    planned = isoloss(hub, folder, "plan", "study.toml", "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["checkpoints"], plan["to_load"]) == (3, 3)
    sizes = [f.stat().st_size for p in hub.revisions.values() for f in p.glob("*.safetensors")]
    assert plan["weight_bytes"] == sum(sizes)
    # headers come by range requests, which the tests of the models room count
    assert not list(folder.rglob("*.safetensors"))


def test_a_run_downloads_each_checkpoint_and_equals_the_run_on_folders(hub, folder):
    done = isoloss(hub, folder, "run", "study.toml", "--out", "HUB", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 6
    local = STUDY.replace('hub = "someone/tiny-8"\nrevision = "step{step}"\n',
                          f'checkpoints = "{hub.revisions["step0"].parent}/step-*"\n')  # fmt: skip
    (folder / "local.toml").write_text(local)
    assert isoloss(hub, folder, "run", "local.toml", "--out", "HUB", "--json").returncode == 0
    # equal weights, so that the folders' cells were all in the store already
    query = "SELECT step, value FROM measurements WHERE metric = 'loss_nats_per_token'"
    rows = json.loads(isoloss(hub, folder, "sql", "HUB", query, "--json").stdout)
    assert len(rows) == 6
    assert len({(row["step"], row["value"]) for row in rows}) == 3


def test_a_revision_that_does_not_exist_names_its_neighbours(hub, folder):
    text = STUDY.replace("[0, 2, 6]", "[0, 3]")
    (folder / "study.toml").write_text(text)
    failed = isoloss(hub, folder, "run", "study.toml", "--out", "HUB")
    assert failed.returncode == 2
    assert "no checkpoint at step 3" in failed.stderr
    assert "step 2, step 6" in failed.stderr
    assert not (folder / "HUB").exists()
