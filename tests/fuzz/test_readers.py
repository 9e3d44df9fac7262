"""Only errors of ours leave a reader, whatever the file holds.

The quick part: variants drawn by hypothesis. The long one, guided by the ways that inputs take
through the code, is for ``make soak`` (``tests/fuzz/guided.py``).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutate import mutated
from fuzz.readers import READERS, attempt

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, tmp_path):
    for data in READERS[name].seeds():
        assert attempt(READERS[name], data, tmp_path) is None


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=25,
    deadline=60_000,  # ms: a hang, also on a machine that does much else
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rng=st.randoms(use_true_random=True), which=st.integers(0, 9))
def test_only_errors_of_ours_leave_a_reader(name, tmp_path, rng, which):
    seeds = READERS[name].seeds()
    attempt(READERS[name], mutated(seeds[which % len(seeds)], rng), tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("study", b"[run]", b'[run]\nmemory_budget = "%sGiB"' % (b"9" * 400)),
        ("study", b"[run]", b'[run]\ncell_timeout = "%sh"' % (b"9" * 400)),
        ("bigbench-task", b'"target_scores": {', b'"target_scores": {"z": %s, ' % (b"9" * 400)),
    ],
)
def test_numbers_too_large_for_a_float_are_refused(name, old, new, tmp_path):
    (data, *_) = READERS[name].seeds()
    assert old in data
    assert attempt(READERS[name], data.replace(old, new, 1), tmp_path) in ("BadStudy", "BadData")


@pytest.mark.soak
def test_an_hour_of_guided_fuzzing_finds_nothing(tmp_path):
    seconds = os.environ.get("ISOLOSS_FUZZ_SECONDS", "3600")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.guided", "--seconds", seconds, "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        text=True,
    )
    tallies = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"{sum(t['inputs'] for t in tallies):,} inputs")
    assert [t["reader"] for t in tallies] == list(READERS)
    assert [t["faults"] for t in tallies if t["faults"]] == [] and done.returncode == 0
