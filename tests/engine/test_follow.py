"""Following a run: whole checkpoints are measured as they come, and nothing else is."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from engine_tables import assert_equal_tables
from isoloss import cli
from isoloss.engine.arrivals import PATIENCE, Arrivals
from isoloss.engine.follow import follow_runs, parse_seconds
from isoloss.engine.local import run
from isoloss.engine.news import Command, news_of, sentence
from isoloss.engine.progress import Silent
from isoloss.engine.resolve import find
from isoloss.errors import BadRequest
from isoloss.laws.next_value import expect_next
from isoloss.store import Cell, Store
from isoloss.study import Study

STUDY = """\
name = "live"
[run]
threads = 1
[[family]]
name = "f"
  [[family.model]]
  name = "m"
  checkpoints = "run/step-*"
  tokens_per_step = 64
[corpus.heldout]
path = "heldout.txt"
document = "line"
[probe.token_loss]
"""


class Notes(Silent):
    """Remembers what a run tells."""

    def __init__(self):
        self.checkpoints, self.notes, self.failures = [], [], []

    def checkpoint(self, name):
        self.checkpoints.append(name)

    def note(self, text):
        self.notes.append(text)

    def failed(self, label, reason):
        self.failures.append(label)


@pytest.fixture
def weights(studio):
    """A trained checkpoint, as a trainer that marks nothing leaves it."""
    return studio / "family" / "gpt-neox-w8-seed0" / "step-00000002"


@pytest.fixture
def live(studio, tmp_path):
    """A folder with a study of a run that has no checkpoint yet."""
    shutil.copy(studio / "heldout.txt", tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "run").mkdir()
    return tmp_path


def write(folder, source, step, *, seconds=0.0):
    """Write a checkpoint file by file and piece by piece, as a trainer on a slow disk does."""
    target = folder / "run" / f"step-{step}"
    target.mkdir()
    files = [file for file in sorted(source.iterdir()) if file.name != "training.json"]
    for file in files:
        data = changed(file, step) if file.name == "model.safetensors" else file.read_bytes()
        with (target / file.name).open("wb") as out:
            for part in np.array_split(np.frombuffer(data, np.uint8), 4):
                out.write(part.tobytes())
                out.flush()
                time.sleep(seconds / len(files) / 4)
    return target


def changed(file, step):
    """The weights with one number of their own, so that steps differ."""
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].flat[0] += step * 1e-3
    save_file(tensors, name := file.parent.parent / f".{step}.safetensors", {"format": "pt"})
    data = name.read_bytes()
    name.unlink()
    return data


# ---- what is whole


def look(live, arrivals):
    points = list(find(Study.load(live / "study.toml"), so_far=True))
    return [arrived.point.checkpoint.step for arrived in arrivals.look(points)]


def test_a_checkpoint_counts_when_two_looks_found_it_whole_and_unchanged(live, weights):
    arrivals = Arrivals(0.2)
    folder = write(live, weights, 1)
    assert look(live, arrivals) == [] and arrivals.waiting == ["f/m@1"]
    time.sleep(0.25)
    assert look(live, arrivals) == [1] and not arrivals.waiting
    (folder / "model.safetensors").touch()  # written again
    assert look(live, arrivals) == []


def test_what_a_trainer_writes_last_tells_at_once_that_a_checkpoint_is_whole(live, weights):
    for name in ("training.json", "trainer_state.json"):
        step = len(name)
        folder = write(live, weights, step)
        (folder / name).write_text("{}")
        assert step in look(live, Arrivals(100))
    (folder / "config.json").touch()  # something is written after the marker
    os.utime(folder / "config.json", ns=(0, (folder / name).stat().st_mtime_ns + 1))
    assert step not in look(live, Arrivals(100))


def test_half_a_checkpoint_waits_and_counts_as_broken_when_nothing_comes_any_more(live, weights):
    arrivals = Arrivals(0.1)
    folder = write(live, weights, 1)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (folder / "training.json").write_text("{}")  # whoever wrote this did not look
    assert look(live, arrivals) == []
    time.sleep(0.15)
    assert look(live, arrivals) == []
    time.sleep(0.1 * PATIENCE)
    assert look(live, arrivals) == [1]


def test_files_from_the_future_and_from_long_ago_count_like_any_other(live, weights):
    arrivals = Arrivals(0.2)
    for step, offset in ((1, 86_400), (2, -86_400)):  # a clock that was set by a day
        for file in write(live, weights, step).iterdir():
            os.utime(file, (time.time() + offset,) * 2)
    assert look(live, arrivals) == []
    time.sleep(0.25)
    assert look(live, arrivals) == [1, 2]


# ---- a run that is followed


def test_a_run_is_followed_while_it_writes_slowly_breaks_mends_and_deletes(live, weights):
    """One checkpoint comes slowly, one is broken and mended, one is deleted when measured."""
    study, out = Study.load(live / "study.toml"), live / "RUN"

    def measured(step):
        if not (out / "checkpoints.parquet").exists():
            return False
        return step in Store(out).measurements().collect()["step"]

    def wait(condition):
        end = time.monotonic() + 120
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        assert condition()

    def train():
        try:
            first = write(live, weights, 1)
            wait(lambda: measured(1))
            shutil.rmtree(first)
            write(live, weights, 2, seconds=1.0)
            broken = write(live, weights, 3) / "model.safetensors"
            whole = broken.read_bytes()
            broken.write_bytes(whole[:-10])
            wait(lambda: Store(out).failures().collect().height == 1)
            broken.write_bytes(whole)
            wait(lambda: measured(3) and Store(out).failures().collect().height == 0)
        finally:
            write(live, weights, 4)

    notes, trainer = Notes(), threading.Thread(target=train)
    trainer.start()
    summary = follow_runs(study, out=out, every=0.2, until=4, progress=notes)
    trainer.join()
    assert (summary.done, summary.failed) == (8, 0)  # four checkpoints: a fingerprint and a loss
    store = Store(out)
    assert store.measurements().collect()["step"].unique().sort().to_list() == [1, 2, 3, 4]
    assert store.failures().collect().height == 0
    assert notes.failures == ["f/m@3"]
    assert "f/m@1 was deleted; what was measured of it is kept" in notes.notes
    assert any(note == "f/m@2 is still being written" for note in notes.notes)
    # and the numbers are those of a run that came when all was there
    write(live, weights, 1)
    run(study, out=live / "AFTER")
    assert_equal_tables(out, live / "AFTER")


def test_the_newest_checkpoint_comes_first_and_then_the_older_ones(live, weights):
    for step in (1, 2, 3):
        write(live, weights, step)
    notes = Notes()
    follow_runs(
        Study.load(live / "study.toml"), out=live / "RUN", every=0.1, until=3, progress=notes
    )
    assert notes.checkpoints == ["f/m@3", "f/m@2", "f/m@1"]


def test_listed_steps_that_are_to_come_are_waited_for(live, weights):
    text = (live / "study.toml").read_text()
    (live / "study.toml").write_text(
        text.replace('"run/step-*"', '"run/step-*"\n  steps = [2, 900]')
    )
    for step in (1, 2):
        write(live, weights, step)
    notes = Notes()
    follow_runs(
        Study.load(live / "study.toml"), out=live / "RUN", every=0.1, until=2, progress=notes
    )
    assert notes.checkpoints == ["f/m@2"]


def test_from_the_command_line_news_reach_a_command_and_an_interrupt_keeps_the_state(live, weights):
    write(live, weights, 1)
    (live / "notify.py").write_text(
        "import json, pathlib, sys\n"
        "record = json.load(sys.stdin)\n"
        "with pathlib.Path('news.jsonl').open('a') as file: print(json.dumps(record), file=file)\n"
        "sys.exit('no room in the channel')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "isoloss.cli", "run", "study.toml", "--out", "RUN", "--follow",
         "--every", "0.2s", "--on-change", f"{sys.executable} notify.py"],
        cwd=live, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (live / "news.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what is finished is kept. To go on: isoloss run study.toml" in errors
    assert "--on-change ended with status 1, the run goes on: no room in the channel" in errors
    (record,) = map(json.loads, (live / "news.jsonl").read_text().splitlines())
    assert (record["event"], record["checkpoint"], record["step"]) == ("new_point", "f/m@1", 1)
    values = {row["metric"]: row["value"] for row in record["measurements"]}
    assert 0 < values["loss_nats_per_token"] < 10
    assert len(Store(live / "RUN").finished()) == 2


# ---- news


@pytest.fixture
def losses(tmp_path):
    """Files the held-out losses of one run: a value a step, 0.01 nats each way."""
    store = Store.create(tmp_path / "RUN")

    def put(values):
        rows = []
        with store.writing():
            for i, value in enumerate(values, start=1):
                weights = f"w{i}"
                rows.append({"family": "f", "model": "m", "run": "r", "step": i, "source": weights,
                             "tokens_seen": 1000 * i, "weights_hash": weights})  # fmt: skip
                cell = Cell(weights_hash=weights, probe="token_loss", subject="text",
                            settings={"source": "measured", "context": 8}, numerics=1)  # fmt: skip
                store.put_cell(
                    cell,
                    [{"metric": "loss_nats_per_token", "value": value, "stderr": 0.002, "n": 9,
                      "unit": "nats/token"}],
                    {"code_version": "0"},
                )  # fmt: skip
            store.put_checkpoints(rows)
        last = store.checkpoints().collect().row(-1, named=True)
        return news_of(store, last)

    return put


def falling(n, seed=0):
    rng = np.random.default_rng(seed)
    return 2 + 3 * (1 + np.arange(n)) ** -0.5 + 0.002 * rng.standard_normal(n)


def test_a_healthy_new_point_is_all_the_news_there_is(losses):
    (record,) = losses(falling(30))
    assert record["event"] == "new_point"
    assert sentence(record).startswith("f/r@30: text 2.5") and "nats/token" in sentence(record)


def test_a_loss_that_leaves_its_forecast_is_news_with_the_interval(losses):
    values = falling(30)
    values[-1] += 0.1
    (record,) = [r for r in losses(values) if r["event"] == "outside_forecast"]
    assert record["low"] < values[-1] - 0.1 < record["high"] < record["value"]
    assert "outside its forecast" in sentence(record)


def test_a_verdict_that_changes_is_news_with_both_verdicts(losses):
    rng = np.random.default_rng(0)
    steps = np.arange(24)
    turned = 2 + np.where(steps < 18, 2 * np.exp(-steps / 6), 2 * np.exp(-3) + 0.05 * (steps - 18))
    turned += 0.002 * rng.standard_normal(24)
    found = []
    for n in range(20, 25):
        found += [r for r in losses(turned[:n]) if r["event"] == "verdict"]
    assert found and found[-1]["after"] == "saturated"
    assert found[-1]["before"] != "saturated" and "saturated" in sentence(found[-1])


def test_a_forecast_of_the_next_value_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    steps, outside, asked = np.arange(1, 41) * 1000.0, 0, 0
    for _ in range(40):
        values = 2 + 8 * (steps + 30) ** -0.3 + 0.005 * rng.standard_normal(len(steps))
        for k in range(8, len(steps)):
            band = expect_next(steps[:k], values[:k], steps[k], level=0.95)
            outside += not band.low <= values[k] <= band.high
            asked += 1
    # 1,280 forecasts of which 5% miss: binomial sd 0.6%, doubled for those that share points
    assert outside / asked == pytest.approx(0.05, abs=0.025)


def test_too_few_or_constant_values_have_no_forecast():
    steps = np.arange(1, 13)
    assert expect_next(steps[:7], steps[:7], 8) is None
    assert expect_next(steps, np.zeros(12), 13) is None
    assert expect_next(steps, np.zeros(12), 13, stderr=0.1).high > 0.1


# ---- requests


def test_a_command_that_cannot_be_run_is_told_and_one_that_cannot_be_read_is_refused():
    notes = Notes()
    Command("/nowhere/at/all --now", notes)({"event": "new_point"})
    assert "the run goes on" in notes.notes[0]
    for text in ("", "echo 'open"):
        with pytest.raises(BadRequest):
            Command(text, notes)


def test_times_are_read_as_they_are_written():
    assert [parse_seconds(t) for t in ("60s", "5m", "1h", "0.5")] == [60, 300, 3600, 0.5]
    for text in ("", "0", "1d", "-5s"):
        with pytest.raises(BadRequest, match="between looks"):
            parse_seconds(text)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--follow", "--shard", "1/2"], "one process follows"),
        (["--follow", "--every", "soon"], "between looks"),
        (["--on-change", "true"], "say how to follow"),
    ],
)
def test_options_that_do_not_go_together_are_one_clear_error(live, words, what):
    run_words = ["run", str(live / "study.toml"), "--out", str(live / "RUN"), *words]
    done = CliRunner().invoke(cli.app, run_words)
    assert isinstance(done.exception, BadRequest) and what in done.exception.what
    assert done.exception.remedy and not (live / "RUN").exists()


# ---- the docs


def test_the_page_on_following_holds_what_works(request, live):
    text = (request.config.rootpath / "docs" / "follow.md").read_text()
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))
    (live / "followed.toml").write_text(blocks["toml"])
    assert list(find(Study.load(live / "followed.toml"), so_far=True)) == []
    command = typer.main.get_command(cli.app).commands["run"]
    for line in blocks["console"].strip().splitlines():
        assert command.make_context("run", shlex.split(line)[2:]).params["follow"]
    (live / "notify.py").write_text(blocks["python"])
    about = {"checkpoint": "f/m@9", "subject": "text", "metric": "accuracy"}
    for record in (
        {"event": "new_point", **about, "measurements": []},
        {"event": "verdict", **about, "before": "undetermined", "after": "saturated"},
        {"event": "outside_forecast", **about, "value": 0.5},
    ):
        subprocess.run(
            [sys.executable, "notify.py"], input=json.dumps(record), cwd=live, text=True, check=True
        )
    assert (live / "news.txt").read_text().splitlines() == [
        "f/m@9 text: undetermined -> saturated",
        "f/m@9 text: accuracy = 0.5",
    ]
