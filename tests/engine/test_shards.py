"""Shards without a coordinator: any may be lost, late or repeated, and the tables are the same."""

import json
import multiprocessing
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engine_tables import assert_equal_tables, tables
from isoloss import cli
from isoloss.engine.local import Runner, run
from isoloss.engine.shards import Shard, measure_shard
from isoloss.engine.workers import _Order, _work, parse_devices, run_on_devices
from isoloss.errors import BadRequest, BadStudy, StoreBusy
from isoloss.store import Store
from isoloss.store.leases import Leases
from isoloss.store.place import LEASES_FOLDER
from isoloss.study import Study
from shard_workers import start_shards


@pytest.fixture(scope="module")
def whole(studio, tmp_path_factory):
    """The store of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "RUN"
    run(Study.load(studio / "study.toml"), out=out)
    return out


def measured(store):
    return len(list(store.glob("measurements/*/*.parquet")))


# ---- what is whose


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_shards_split_any_list_and_each_sees_all_of_it(count):
    works = list(range(11))
    shards = [Shard(index=i + 1, count=count) for i in range(count)]
    assert sorted(w for shard in shards for w in shard.own(works)) == works
    for shard in shards:
        assert sorted(shard.own(works) + shard.then(works)) == works


def test_auto_reads_what_slurm_and_kubernetes_say():
    slurm = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "4",
             "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2"}  # fmt: skip
    assert Shard.parse("auto", slurm) == Shard(index=3, count=4)
    assert (
        Shard.parse("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}).index == 1
    )
    assert Shard.parse("auto", {"JOB_COMPLETION_INDEX": "7", "JOB_COMPLETIONS": "8"}).index == 8


@pytest.mark.parametrize(
    ("text", "environ", "what"),
    [
        ("0/8", {}, "no such shard"),
        ("9/8", {}, "no such shard"),
        ("8", {}, "one of several"),
        ("auto", {}, "JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT"),
    ],
)
def test_a_shard_that_cannot_be_says_why(text, environ, what):
    with pytest.raises(BadRequest, match=what) as error:
        Shard.parse(text, environ)
    assert error.value.remedy


# ---- claims


def test_a_claim_is_held_by_one_until_it_is_given_back(tmp_path):
    a, b = Leases(tmp_path), Leases(tmp_path)
    assert a.claim("f/m@1") and a.holds("f/m@1")
    assert not b.claim("f/m@1") and not b.holds("f/m@1")
    assert b.claim("f/m@2")
    a.release("f/m@1")
    assert b.claim("f/m@1")
    a.release("f/m@1")  # not its own any more: nothing happens
    assert b.holds("f/m@1")


def test_a_claim_that_is_renewed_stays_and_one_that_is_not_is_taken_over_by_one(tmp_path):
    living, lost = Leases(tmp_path, seconds=0.4), Leases(tmp_path, seconds=0.4)
    others = [Leases(tmp_path, seconds=0.4) for _ in range(3)]
    with living.renewing():
        assert living.claim("living") and lost.claim("lost")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert not any(other.claim("living") for other in others)
            time.sleep(0.05)
        assert all(other.shown_alive("living") for other in others)
        assert sum(other.claim("lost") for other in others) == 1
        assert not lost.holds("lost")


def test_a_process_that_died_here_loses_its_claim_at_once(tmp_path):
    code = (
        "from pathlib import Path; from isoloss.store.leases import Leases\n"
        f"Leases(Path({str(tmp_path)!r})).claim('x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "x.json").exists()
    assert Leases(tmp_path).claim("x")


def test_a_clock_set_back_delays_a_take_over_by_one_lease_at_most(tmp_path):
    lost, other = Leases(tmp_path, seconds=0.5), Leases(tmp_path, seconds=0.5)
    lost.claim("x")
    path = next(tmp_path.glob("x.json"))
    # as a file server shows it whose clock was set back by a day after the claim
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 86_400_000_000_000))
    assert not other.claim("x")
    time.sleep(0.6)
    assert other.claim("x")


# ---- whole runs


def test_two_shards_in_turn_measure_all_and_the_second_finds_nothing_left(studio, whole, tmp_path):
    study = Study.load(studio / "study.toml")
    first = run(study, out=tmp_path / "RUN", shard=Shard(index=2, count=2))
    assert (first.done, first.failed) == (24, 0)  # its own and, alone, the other one's
    second = run(study, out=tmp_path / "RUN", shard=Shard(index=1, count=2))
    assert (second.done, second.finished_before) == (0, 12)
    assert_equal_tables(whole, tmp_path / "RUN")
    assert not list((tmp_path / "RUN" / LEASES_FOLDER).iterdir())


def test_eight_shards_three_of_them_killed_then_five_give_the_tables_of_one_run(
    studio, whole, tmp_path
):
    study, out = studio / "study.toml", tmp_path / "RUN"
    rng = random.Random(0)
    processes = start_shards(study, out, 8)
    for process in rng.sample(processes, 3):
        # some time after the next cell: a random place in the claiming, measuring or writing
        before, end = measured(out), time.monotonic() + 60
        while measured(out) == before and process.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
    for process in processes:
        process.join()
    assert sorted(p.exitcode for p in processes)[-5:] == [0] * 5
    for process in (again := start_shards(study, out, 5)):
        process.join()
    assert [p.exitcode for p in again] == [0] * 5
    assert_equal_tables(whole, out)
    cells = Store(out).cells().collect()["cell"]
    assert cells.n_unique() == len(cells)


def test_a_shard_leaves_what_a_living_one_holds_and_takes_what_a_lost_one_held(
    studio, whole, tmp_path
):
    study = Study.load(studio / "study.toml")
    store = Store.create(tmp_path / "RUN")
    names = [f"tiny/gpt-neox-w{width}-seed0@2" for width in (8, 16)]
    folder = store.path / LEASES_FOLDER
    living, lost = Leases(folder, seconds=1.0), Leases(folder, seconds=1.0)
    with living.renewing():
        assert living.claim(names[0]) and lost.claim(names[1])
        short = run_with(Leases(folder, seconds=1.0), study, store)
        assert short.done == 20  # all but the four cells of the one that is held
        living.release(names[0])
    run(study, out=store.path)
    assert_equal_tables(whole, store.path)


def run_with(leases, study, store):
    from isoloss.engine.local import file_facts, file_flags
    from isoloss.engine.progress import Silent
    from isoloss.engine.resolve import resolve
    from isoloss.engine.subjects import Subjects
    from isoloss.engine.worklist import worklist

    points = resolve(study)
    works = worklist(study, Subjects(study), points)
    with store.writing(together=True):
        file_facts(store, study, points)
        runner = Runner(store, study, Silent())
        measure_shard(runner, works, Shard(index=1, count=1), leases)
        file_flags(store, points)
    return runner


def test_a_broken_checkpoint_is_tried_and_told_by_one_shard_alone(studio, tmp_path):
    copy = shutil.copytree(studio, tmp_path / "studio")
    weights = next(copy.glob("family/gpt-neox-w8-seed0/step-00000002/model.safetensors"))
    whole_bytes = weights.read_bytes()
    weights.write_bytes(whole_bytes[:-100])
    study, out = Study.load(copy / "study.toml"), tmp_path / "RUN"
    assert run(study, out=out, shard=Shard(index=2, count=2)).failed == 1
    assert Store(out).failures().collect()["error"].to_list() == ["BadCheckpoint"]
    weights.write_bytes(whole_bytes)
    assert run(study, out=out, shard=Shard(index=1, count=2)).done == 4
    assert Store(out).failures().collect().height == 0


def test_shards_share_a_store_and_a_run_of_its_own_is_refused_meanwhile(studio, tmp_path):
    study = Study.load(studio / "study.toml")
    store, other = Store.create(tmp_path / "RUN"), Store(tmp_path / "RUN")
    with store.writing(together=True), other.writing(together=True):
        with pytest.raises(StoreBusy, match="another run"):
            run(study, out=store.path)
    with store.writing(), pytest.raises(StoreBusy, match="another run"):
        run(study, out=store.path, shard=Shard(index=1, count=2))


# ---- devices


def test_devices_are_read_as_they_are_written():
    assert parse_devices("0-7") == tuple(f"cuda:{i}" for i in range(8))
    assert parse_devices("3,cuda:1") == ("cuda:3", "cuda:1")
    assert parse_devices("cpu,cpu") == ("cpu", "cpu")
    for wrong in ("", "7-0", "a b", "0,0", "auto", "-1"):
        with pytest.raises(BadRequest, match="devices cannot be read|listed twice"):
            parse_devices(wrong)


def test_a_process_a_device_measures_what_one_process_does(studio, whole, tmp_path):
    study = Study.load(studio / "study.toml")
    summary = run_on_devices(study, ("cpu", "cpu"), out=tmp_path / "RUN")
    assert (summary.done, summary.failed) == (24, 0)
    assert_equal_tables(whole, tmp_path / "RUN")


def test_what_is_wrong_with_a_study_comes_back_from_a_process_as_it_is(studio, tmp_path):
    study = Study.load(studio / "study.toml", ["corpus.heldout.context=4096"])
    order = _Order(study, str(tmp_path / "RUN"), (), Shard(index=1, count=1))
    reader, writer = multiprocessing.Pipe(duplex=False)
    _work(order, writer)
    events = []
    while reader.poll():
        events.append(reader.recv())
    event, error = events[-1]
    assert event == "error" and isinstance(error, BadStudy) and error.remedy
    assert not (tmp_path / "RUN").exists()


def test_the_index_and_the_flags_are_those_of_all_shards(whole):
    index = tables(whole)
    assert len(index["cells"]) == 28  # 24 measured, and four points of two training logs
    assert Path(whole / "flags.parquet").exists()


# ---- the docs


def test_the_commands_of_the_page_on_clusters_are_ones_that_isoloss_takes(
    request, studio, whole, tmp_path, monkeypatch
):
    text = (request.config.rootpath / "docs" / "cluster.md").read_text()
    lines = re.findall(r"^(?:srun )?isoloss (run .*)$", text, re.MULTILINE)
    (container,) = re.findall(r"command: \[isoloss, (run, .*)\]", text)
    lines.append(container.replace(",", ""))
    assert len(lines) == 8
    command = typer.main.get_command(cli.app).commands["run"]
    for line in lines:
        parsed = command.make_context("run", shlex.split(line)[1:])
        chosen = parsed.params
        assert chosen["shard"] or chosen["devices"] or chosen["engine"] == "ray"
    shutil.copytree(whole, tmp_path / "RUN")
    for name, value in (("ID", "3"), ("COUNT", "8"), ("MIN", "1")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    words = ["run", str(studio / "study.toml"), "--out", str(tmp_path / "RUN"), "--json"]
    done = CliRunner().invoke(cli.app, [*words, "--shard", "auto"])
    assert done.exit_code == 0, done.output
    # the third of eight parts of six checkpoints, and nothing left anywhere
    assert json.loads(done.stdout.splitlines()[-1])["finished_before"] == 4
