"""Nothing is lost: whatever breaks, the tables are in the end those of an undisturbed run."""

import errno
import multiprocessing
import os
import random
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine_tables import assert_equal_tables
from fault_workers import CONTEXT, fault_file, run_driver, run_without_claims, start_server
from isoloss.engine.local import run
from isoloss.engine.plan import plan
from isoloss.engine.shards import Shard
from isoloss.engine.throughput import ONE_CORE
from isoloss.errors import BadStore, NotWritable
from isoloss.store import Store
from isoloss.store.wholeness import examine
from isoloss.studies.checkup.checking import check
from isoloss.study import Study

CELLS = 24


@pytest.fixture(scope="module", autouse=True)
def server():
    start_server()


@pytest.fixture(scope="module")
def whole(studio, tmp_path_factory):
    """The store of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "RUN"
    run(Study.load(studio / "study.toml"), out=out)
    return out


@pytest.fixture
def study(studio):
    return Study.load(studio / "study.toml")


@pytest.fixture
def copy(studio, tmp_path):
    """A copy of the studio that a test may break."""
    return shutil.copytree(studio, tmp_path / "studio")


def measured(store):
    return len(list(store.glob("measurements/*/*.parquet")))


def failures(store):
    return Store(store).failures().collect().to_dicts()


# ---- the process that drives


@pytest.mark.parametrize(
    ("kills", "apart"), [(6, 1), pytest.param(200, 40, marks=pytest.mark.soak)]
)
def test_killed_at_random_moments_the_tables_are_those_of_an_undisturbed_run(
    kills, apart, studio, whole, tmp_path
):
    out, rng, killed = tmp_path / "RUN", random.Random(0), 0
    while killed < kills:
        # some have a process for their cells, which must not outlive them
        overrides = ["run.cell_timeout='1h'"] if killed < apart else []
        driver = CONTEXT.Process(target=run_driver, args=(studio / "study.toml", out, overrides))
        driver.start()
        before, end = measured(out), time.monotonic() + 120
        # some time after the next cell: a random place in the loading, computing or writing
        while driver.is_alive() and measured(out) == before and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        killed += driver.is_alive()
        driver.kill()
        driver.join()
        if measured(out) == measured(whole):
            run(Study.load(studio / "study.toml"), out=out)
            assert_equal_tables(whole, out)
            shutil.rmtree(out, ignore_errors=True)
    run(Study.load(studio / "study.toml"), out=out)
    assert_equal_tables(whole, out)


def test_two_drivers_that_know_nothing_of_each_other_measure_twice_and_equal(
    studio, whole, tmp_path
):
    out = tmp_path / "RUN"
    drivers = [
        CONTEXT.Process(target=run_without_claims, args=(studio / "study.toml", out))
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    looks = 0
    while any(driver.is_alive() for driver in drivers):
        if Store.stands_at(out):  # a reader never sees half a cell
            found = Store(out).measurements().collect()
            assert not found["value"].is_null().any()
            looks += 1
        time.sleep(0.02)
    assert looks > 3 and [driver.exitcode for driver in drivers] == [0, 0]
    run(Study.load(studio / "study.toml"), out=out)
    assert_equal_tables(whole, out)


# ---- the process that measures


class Told:
    """Progress that is kept."""

    def __init__(self):
        self.notes, self.labels = [], []

    def start(self, *, cells, finished):
        pass

    def checkpoint(self, name):
        pass

    def done(self, label):
        self.labels.append(label)

    def failed(self, label, reason):
        self.labels.append(label)

    def note(self, text):
        self.notes.append(text)

    def stop(self):
        pass


def faulty(studio, out, faults, timeout, shard=None):
    """Run a study in whose process the next forward passes end like that."""
    file = fault_file(os.getpid())
    file.write_text(faults)
    told = Told()
    try:
        study = Study.load(studio / "study.toml", [f"run.cell_timeout='{timeout}'"])
        summary = run(study, out=out, progress=told, shard=shard)
        assert file.read_text() == ""
    finally:
        file.unlink()
    assert not multiprocessing.active_children()
    return summary, told


def test_a_cell_whose_process_is_killed_is_measured_again(studio, whole, tmp_path):
    summary, told = faulty(studio, tmp_path / "RUN", "kill", "1h")
    assert (summary.done, summary.failed) == (CELLS, 0)
    assert any("status -9; it is done again" in note for note in told.notes)
    assert_equal_tables(whole, tmp_path / "RUN")


def test_a_cell_that_kills_twice_is_a_failure_and_the_next_run_measures_it(
    studio, whole, study, tmp_path
):
    out = tmp_path / "RUN"
    summary, told = faulty(studio, out, "kill kill", "1h", shard=Shard(index=1, count=1))
    assert (summary.done, summary.failed) == (CELLS - 1, 1)
    assert len(told.labels) == CELLS
    (failure,) = failures(out)
    assert (failure["error"], failure["probe"]) == ("CellFatal", "token_loss")
    assert "2 processes died of it" in failure["reason"] and "memory" in failure["remedy"]
    assert run(study, out=out).done == 1
    assert_equal_tables(whole, out)


def test_a_cell_that_hangs_is_stopped_and_the_next_run_measures_it(studio, whole, study, tmp_path):
    out = tmp_path / "RUN"
    summary, _ = faulty(studio, out, "stop", "8s")
    assert (summary.done, summary.failed) == (CELLS - 1, 1)
    (failure,) = failures(out)
    assert failure["error"] == "CellFatal" and "not done after 8 s" in failure["reason"]
    assert "cell_timeout" in failure["remedy"]
    assert run(study, out=out).done == 1
    assert_equal_tables(whole, out)


@contextmanager
def room_for(rows):
    """A device on which a pass of more rows finds no memory."""

    def look(module, inputs):
        if isinstance(module, torch.nn.Embedding) and len(inputs[0]) > rows:
            raise torch.OutOfMemoryError(f"no room for {len(inputs[0])} rows")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


def test_a_cell_that_runs_out_of_memory_is_measured_in_passes_half_as_large(studio, tmp_path):
    study = Study.load(studio / "study.toml", ["probe.optimum.sentences=200"])
    run(study, out=tmp_path / "WHOLE", only=["optimum"])
    told = Told()
    with room_for(128):  # of 256 that a pass may have
        assert run(study, out=tmp_path / "RUN", only=["optimum"], progress=told).failed == 0
    assert any("half as large" in note for note in told.notes)
    assert_equal_tables(tmp_path / "WHOLE", tmp_path / "RUN")


def test_a_cell_for_which_there_is_never_enough_memory_is_a_failure_that_says_so(
    study, whole, tmp_path
):
    out = tmp_path / "RUN"
    with room_for(0):
        summary = run(study, out=out)
    assert (summary.failed, summary.done) == (18, 6)  # a fingerprint needs no pass
    assert {failure["error"] for failure in failures(out)} == {"OutOfMemory"}
    assert all("no room for" in f["reason"] and "memory" in f["remedy"] for f in failures(out))
    assert run(study, out=out).failed == 0
    assert_equal_tables(whole, out)


# ---- files


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.EACCES])
def test_a_store_that_takes_nothing_any_more_stops_the_run_and_loses_nothing(
    code, study, whole, tmp_path, monkeypatch
):
    out, written, real = tmp_path / "RUN", 0, os.fsync

    def refuse(descriptor):
        nonlocal written
        written += 1
        if written > 60:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(NotWritable, match=os.strerror(code)) as error:
        run(study, out=out, shard=Shard(index=1, count=1))
    assert "writable" in error.value.remedy
    monkeypatch.undo()
    assert 0 < len(Store(out).finished()) < CELLS
    run(study, out=out)
    assert_equal_tables(whole, out)


def test_a_cut_measurement_is_named_set_aside_by_a_check_and_measured_again(copy, whole, tmp_path):
    study, out = Study.load(copy / "study.toml"), tmp_path / "RUN"
    run(study, out=out)
    (out / "cells.parquet").unlink()
    file = sorted(out.glob("measurements/task_score/*.parquet"))[2]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadStore, match=file.name) as error:
        run(study, out=out)
    assert "isoloss check" in error.value.remedy
    found = check(out, study=copy / "study.toml")
    assert [fault.where for fault in found.faults] == [f"measurements/task_score/{file.name}"]
    assert run(study, out=out).done == found.cells_forgotten == 1
    assert_equal_tables(whole, out)


def test_a_checkpoint_that_changed_between_two_runs_is_refused_with_both_digests(
    copy, whole, tmp_path
):
    study, out = Study.load(copy / "study.toml"), tmp_path / "RUN"
    run(study, out=out, only=["token_loss"])
    first, second = sorted((copy / "family").glob("*w8-*/step-*/model.safetensors"))[1:]
    old = first.read_bytes()
    before = Store(out).checkpoints().collect()
    shutil.copy(second, first)
    (told,) = plan(study, out=out, throughput=ONE_CORE).unreadable
    assert "not those that were measured before" in told
    summary = run(study, out=out)
    assert (summary.failed, summary.done) == (1, 15)  # of five checkpoints three cells
    (failure,) = failures(out)
    assert (failure["error"], failure["probe"]) == ("BadCheckpoint", None)
    for file in (first, second):
        (digest,) = (
            row["weights_hash"]
            for row in before.iter_rows(named=True)
            if row["source"].endswith("/".join(file.parts[-3:-1]))
        )
        assert digest in failure["reason"]
    assert Store(out).checkpoints().collect().equals(before)  # what was measured is kept
    first.write_bytes(old)
    assert run(study, out=out).failed == 0
    assert_equal_tables(whole, out)


def test_a_clock_that_is_set_back_by_a_year_changes_nothing(study, whole, tmp_path):
    out = tmp_path / "RUN"
    run(study, out=out, only=["token_loss"])
    later = time.time_ns() + 365 * 86_400_000_000_000
    for file in [*out.rglob("*"), out]:  # as they look after that
        os.utime(file, ns=(later, later))
    run(study, out=out, shard=Shard(index=2, count=2))
    assert run(study, out=out).finished_before == CELLS
    assert_equal_tables(whole, out)


# ---- power


class PowerLoss(BaseException):
    """Nothing runs any more."""


class Disk:
    """What of a folder outlives a loss of power: what was flushed, and nothing else.

    Args:
        root: the folder, which is there for good.
        flushes: after so many the power goes.
    """

    def __init__(self, root: Path, flushes: int) -> None:
        self.root, self.left, self._real = root, flushes, os.fsync
        self._names: dict[int, list[tuple[str, int, bool]]] = {}
        self._contents: dict[int, bytes] = {}
        self._kept: list[int] = []  # so that no file gets the number of one that is gone

    def fsync(self, descriptor: int) -> None:
        if self.left <= 0:
            raise PowerLoss
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self.root not in (path, *path.parents):
            return
        self.left -= 1
        number = os.fstat(descriptor).st_ino
        self._kept.append(os.dup(descriptor))
        if path.is_dir():
            self._names[number] = [(e.name, e.inode(), e.is_dir()) for e in os.scandir(path)]
        else:
            self._contents[number] = path.read_bytes()

    def after(self, target: Path, *, names_at_once: bool) -> None:
        """Write what is left.

        Args:
            target: where to.
            names_at_once: names outlive without a flush, as they may, and contents do not.
        """
        self._restore(self.root, target, names_at_once)
        for descriptor in self._kept:
            os.close(descriptor)

    def _restore(self, folder: Path, target: Path, names_at_once: bool) -> None:
        target.mkdir()
        if not folder.is_dir():  # removed since its name was flushed: it may come back empty
            return
        live = [(e.name, e.inode(), e.is_dir()) for e in os.scandir(folder)]
        kept = live if names_at_once else self._names.get(folder.stat().st_ino, [])
        for name, number, is_folder in kept:
            if is_folder:
                self._restore(folder / name, target / name, names_at_once)
            else:
                (target / name).write_bytes(self._contents.get(number, b""))


@pytest.mark.parametrize("names_at_once", [False, True])
@pytest.mark.parametrize("losses", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_after_a_loss_of_power_every_cell_is_whole_or_absent_and_the_run_goes_on(
    losses, names_at_once, study, whole, tmp_path, monkeypatch
):
    rng, disk = random.Random(1), Disk(tmp_path / "all", 10**6)
    disk.root.mkdir()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    run(study, out=disk.root / "RUN")
    monkeypatch.undo()
    disk.after(tmp_path / "kept", names_at_once=names_at_once)
    assert_equal_tables(whole, tmp_path / "kept" / "RUN")  # what has ended is there for good
    flushes = 10**6 - disk.left
    for i in range(losses):
        disk = Disk(tmp_path / f"disk-{i}", rng.randrange(1, flushes))
        disk.root.mkdir()
        monkeypatch.setattr(os, "fsync", disk.fsync)
        with pytest.raises(PowerLoss):
            run(study, out=disk.root / "RUN")
        monkeypatch.undo()
        left = tmp_path / f"left-{i}"
        disk.after(left, names_at_once=names_at_once)
        out = left / "RUN"
        if Store.stands_at(out):
            assert examine(Store(out)).damaged == ()
        run(study, out=out)
        assert_equal_tables(whole, out)
        shutil.rmtree(disk.root)
        shutil.rmtree(left)
