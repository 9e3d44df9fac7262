"""The forecast command: what it prints, and what it refuses."""

import json
import subprocess
import sys

import pytest

from forecast_families import family, store_of
from isoloss.studies.findings import load


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_of(family(1, checkpoints=6), tmp_path_factory.mktemp("forecast") / "RUN")


def forecast(store, *words):
    return subprocess.run(
        [sys.executable, "-m", "isoloss.cli", "forecast", str(store.path), *map(str, words)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_forecast_is_told_with_what_it_hangs_on(store):
    told = forecast(store, "--params", 3e10, "--task", "quiz")
    assert told.returncode == 0, told.stderr
    first, second, third, *rest = told.stdout.splitlines()
    assert first.startswith("quiz (accuracy, 0-shot): 0.8")
    assert "(90% for one run)" in first
    assert second.startswith("loss: ") and "held-out heldout (nats per token)" in second
    assert "2.5 times the largest compute fitted" in third
    assert any(line.startswith("fitted on: m0, m1") for line in rest)
    assert any(line.startswith("back-test: ") for line in rest)


def test_json_is_one_object_and_nothing_else(store):
    told = forecast(store, "--task", "quiz", "--reach", 0.8, "--json")
    assert (told.returncode, told.stderr) == (0, "")
    record = json.loads(told.stdout)
    assert record["score"] == 0.8 and record["task"] == "quiz"
    assert record["earliest"] < record["params"]


def test_a_back_test_is_kept_for_the_page_only_where_asked(store):
    plain = forecast(store, "--backtest", "--json")
    record = json.loads(plain.stdout)
    assert record["summary"]["sigmoid"]["pairs"] == 4
    assert load(store) == ()
    kept = forecast(store, "--backtest", "--task", "quiz", "--keep")
    assert kept.returncode == 0, kept.stderr
    assert "held-out scores" in kept.stdout
    (findings,) = load(store)
    assert findings.command == "isoloss forecast RUN --backtest --task quiz"
    assert findings.answers[0] in kept.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "the size of a run, or a score to reach"),
        (["--params", "1e10", "--backtest"], "takes no size and no score"),
        (["--params", "1e10", "--keep"], "--keep keeps a back-test"),
        (["--params", "1e13"], "too far beyond"),
        (["--params", "1e10", "--task", "quizz"], "no scores of this task"),
    ],
)
def test_a_wrong_question_is_one_clear_error_with_status_2(store, words, what):
    told = forecast(store, *words)
    assert (told.returncode, told.stdout) == (2, "")
    assert what in told.stderr and "try:" in told.stderr
    assert "Traceback" not in told.stderr
