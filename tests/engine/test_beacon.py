"""How far a run is can be seen from its store, while it goes on and when it was killed."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoloss.engine.beacon import FOLDER, Lit, Watch
from isoloss.engine.local import run
from isoloss.engine.progress import Silent
from isoloss.store import Store
from isoloss.study import Study

KILLED = """
import os, sys, time
from pathlib import Path
from isoloss.engine.beacon import FOLDER, Lit
from isoloss.engine.progress import Silent
lit, store = Lit(Silent(), "killed", every=0.05), Path(sys.argv[1])
lit.begin(store, cells=8, finished=0, in_store=0)
lit.checkpoint("a@1")
lit.done("cell")
while not any('"done": 1' in f.read_text() for f in (store / FOLDER).glob("*.json")):
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


class Looks(Silent):
    """Looks at the store from outside whenever something happens."""

    def __init__(self, store):
        self.watch, self.seen = Watch(store), []

    def checkpoint(self, name):
        self.seen += self.watch.look()

    def stop(self):
        self.seen += self.watch.look()


def test_a_run_is_seen_from_its_store_while_it_goes_on_and_leaves_nothing(studio, tmp_path):
    looks = Looks(tmp_path / "RUN")
    run(Study.load(studio / "study.toml"), out=tmp_path / "RUN", progress=looks)
    assert looks.seen
    for beacon, is_there in looks.seen:
        assert is_there and beacon.process == os.getpid()
        assert (beacon.cells, beacon.finished, beacon.done) == (24, 0, beacon.done)
    assert not (tmp_path / "RUN" / FOLDER).exists()


def test_what_was_killed_is_told_as_gone_until_the_next_run(tmp_path):
    store = Store.create(tmp_path / "RUN")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.path)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    ((beacon, is_there),) = Watch(store.path).look()
    assert not is_there
    assert (beacon.study, beacon.checkpoint, beacon.cells, beacon.done) == ("killed", "a@1", 8, 1)
    lit = Lit(Silent(), "next", every=0.05)
    lit.begin(store.path, cells=8, finished=1, in_store=1)
    while [told.study for told, _ in Watch(store.path).look()] != ["next"]:
        pass
    lit.stop()
    assert not (store.path / FOLDER).exists()


def test_a_process_of_another_machine_is_gone_when_it_falls_silent(tmp_path, monkeypatch):
    store = Store.create(tmp_path / "RUN")
    lit = Lit(Silent(), "here", every=0.05)
    lit.begin(store.path, cells=8, finished=0, in_store=0)
    while not (files := list((store.path / FOLDER).glob("*.json"))):
        pass
    row = json.loads(files[0].read_text()) | {"machine": "elsewhere"}
    lit.stop()
    (store.path / FOLDER).mkdir()
    file = store.path / FOLDER / "elsewhere.json"
    file.write_text(json.dumps(row))
    monkeypatch.setattr("isoloss.engine.beacon.SILENT_SECONDS", 0.05)
    watch = Watch(store.path)
    assert watch.look()[0][1]  # nothing is known yet: the benefit of the doubt
    while watch.look()[0][1]:
        pass
    os.utime(file)
    assert watch.look()[0][1]


def test_a_store_that_takes_nothing_stops_no_run(tmp_path):
    store = Store.create(tmp_path / "RUN")
    (store.path / FOLDER).write_text("a file where the folder would be")
    lit = Lit(Silent(), "study", every=0.01)
    lit.begin(store.path, cells=1, finished=0, in_store=0)
    lit.done("cell")
    lit.stop()
    assert Watch(store.path).look() == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
FIELDS = ("process", "host", "machine", "study", "seconds", "cells", "finished", "in_store", "done",
          "failed", "cells_per_minute", "checkpoint", "checkpoint_seconds", "note")  # fmt: skip


@pytest.fixture(scope="module")
def anyones(tmp_path_factory):
    store = tmp_path_factory.mktemp("anyones")
    (store / FOLDER).mkdir()
    return store


@settings(deadline=None, max_examples=150)
@given(
    data=st.binary(max_size=60) | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))
)
def test_whatever_stands_there_is_read_or_left_out(anyones, data):
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    (anyones / FOLDER / "x.json").write_bytes(text)
    for beacon, _ in Watch(anyones).look():
        assert beacon.cells >= 0 and isinstance(beacon.study, str)
