"""The command line in pipes and under Ctrl-C: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

TRAINED = """\
name = "tiny"
[language]
kind = "hmm"
vocab = 12
states = 3
length = 6
[train]
batch = 8
steps = 200_000
checkpoints = [0, 50]
[[grid]]
width = 8
depth = 1
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def measured(studio, tmp_path_factory):
    """A store of the studio's study, made once."""
    from isoloss import Study, run

    out = tmp_path_factory.mktemp("measured") / "RUN"
    run(Study.load(studio / "study.toml"), out=out)
    return out


@pytest.mark.parametrize("words", [["--json"], []])
def test_a_reader_that_has_enough_ends_it_in_silence(measured, words):
    store = measured
    query = "SELECT * FROM measurements m, checkpoints c LIMIT 300"  # more than a pipe holds
    command = [sys.executable, "-m", "isoloss.cli", "sql", str(store), query, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def is_there(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def begun(*words, cwd, when):
    """A command in a group of its own, once ``when`` holds; nothing of it outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "isoloss.cli", *map(str, words)], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 180  # two trainers begin slowly on a busy machine
        while not when() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        assert when(), "it did not begin"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_in_training_keeps_what_is_done_and_ends_its_processes(processes, tmp_path):
    (tmp_path / "family.toml").write_text(TRAINED)
    words = ["pretrain", "family.toml", "--out", "family", "--processes", str(processes)]
    kept = "family/gpt-neox-w8-d1-seed*/step-00000050/training.json"
    with begun(*words, cwd=tmp_path, when=lambda: list(tmp_path.glob(kept))) as process:
        started = children(process.pid)
        assert processes == 1 or len(started) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, error = process.communicate(timeout=30)
        end = time.monotonic() + 5
        while any(map(is_there, started)) and time.monotonic() < end:
            time.sleep(0.1)
        assert [pid for pid in started if is_there(pid)] == []
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in error
    assert error.splitlines()[-1] == (
        "stopped; what is finished is kept. To go on: isoloss pretrain family.toml "
        f"--out family --processes {processes}"
    )
    assert list(tmp_path.glob(kept))


def test_ctrl_c_in_a_run_keeps_the_cells_and_the_same_command_goes_on(studio, tmp_path):
    words = ["run", studio / "study.toml", "--out", "RUN", "--set", "probe.optimum.sentences=300",
             "--set", "corpus.heldout.context=8"]  # fmt: skip
    store, cells = tmp_path / "RUN", "measurements/fingerprint/*.parquet"
    with begun(*words, cwd=tmp_path, when=lambda: list(store.glob(cells))) as process:
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=30)
    kept = len(list(store.glob(cells)))
    if process.returncode == 0:
        pytest.skip("the machine was done before the signal came")
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in error and "To go on: isoloss run" in error
    finished = subprocess.run(
        [sys.executable, "-m", "isoloss.cli", *map(str, words), "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    done = json.loads(finished.stdout)
    assert done["finished_before"] >= kept > 0
    assert done["done"] + done["finished_before"] == 24


def test_a_second_ctrl_c_ends_at_once():
    code = (
        "import time\nfrom isoloss.interrupt import end_at_second\nend_at_second()\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "finally:\n    print('ending', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr.read()) == (130, "")
