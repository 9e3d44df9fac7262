"""A store at a URL is the store that a folder would have been, over roads that break."""

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
from concurrent.futures import ThreadPoolExecutor

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from isoloss import Study, run
from isoloss.cli import app
from isoloss.engine.ray_engine import run_on_ray
from isoloss.engine.shards import Shard
from isoloss.errors import BadRequest, DependencyMissing, NotWritable, StoreBusy
from isoloss.places import cache_folder, remote
from isoloss.places.remote import Entry, PlaceUnreachable, RemoteFolder
from isoloss.store import Cell, Store
from isoloss.store.claims import RemoteClaims
from isoloss.store.leases import Leases
from isoloss.store.schema import VOLATILE
from readme import ROOT
from store.servers import PASSWORD, S3, SECRET, Road, Sftp


@pytest.fixture(scope="module")
def s3():
    with S3() as server:
        yield server


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with Sftp(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, s3, sftp):
    """A machine with an empty cache that may use both servers."""
    monkeypatch.setenv("ISOLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fsspec.config.conf", {"sftp": {"known_hosts": str(sftp.hosts)}})
    for name, value in {**s3.environment(), **sftp.environment()}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def study(studio):
    return Study.load(studio / "study.toml")


@pytest.fixture(scope="module")
def folder_here(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "run"
    run(study, out=folder)
    return folder


@pytest.fixture(scope="module")
def tables_here(folder_here):
    return tables(Store(folder_here))


def tables(store):
    return {
        "checkpoints": store.checkpoints().collect(),
        "cells": store.cells().collect().drop(*VOLATILE).sort("cell"),
        "measurements": store.measurements().collect(),
        "items": store.items("continuation").collect().sort("cell", "doc"),
        "losses": store.token_losses("heldout").collect().sort("cell", "token"),
        "arrays": store.arrays("fingerprint").collect().sort("cell", "name"),
        "flags": store.flags().collect(),
    }


def assert_equal(got, wanted):
    for name, table in wanted.items():
        assert got[name].equals(table), name


def another_machine(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ISOLOSS_CACHE", str(tmp_path / name))


SHORT_LEASES = """
import sys
from isoloss.store.leases import Leases
Leases.__init__.__kwdefaults__["seconds"] = 4.0  # or one waits long for the other to end
from isoloss.cli import main
main()
"""


def command(words, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", SHORT_LEASES, *words], env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def place_of(kind, sftp, name):
    return f"s3://bucket/{name}" if kind == "s3" else sftp.url(name)


@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_a_run_to_a_url_gives_the_tables_of_a_local_run_on_every_machine(
    kind, sftp, study, tables_here, tmp_path, monkeypatch
):
    url = place_of(kind, sftp, "whole")
    summary = run(study, out=url)
    assert_equal(tables(Store(url)), tables_here)
    another_machine(tmp_path, monkeypatch, "second")
    assert_equal(tables(Store(url)), tables_here)
    another_machine(tmp_path, monkeypatch, "third")
    again = run(study, out=url)
    assert (again.done, again.finished_before) == (0, summary.done)


def test_a_killed_run_goes_on_from_an_empty_cache_and_runs_no_finished_cell_again(
    s3, studio, study, tables_here, tmp_path, monkeypatch
):
    url = "s3://bucket/killed"
    with Road(s3.port) as road:
        road.pause = 0.01  # or it would be done before it can be killed
        driver = command(
            ["run", str(studio / "study.toml"), "--out", url, "--quiet"],
            AWS_ENDPOINT_URL=s3.environment(road.port)["AWS_ENDPOINT_URL"],
        )
        while len(finished := measured(s3, "killed")) < 6:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    finished = measured(s3, "killed")
    assert len(finished) < 24
    another_machine(tmp_path, monkeypatch, "second")
    summary = run(study, out=url)
    assert summary.finished_before == len(finished)
    assert summary.done == 24 - len(finished)
    now = measured(s3, "killed")
    assert {name: now[name] for name in finished} == finished  # not put again either
    assert_equal(tables(Store(url)), tables_here)


def measured(s3, name):
    """Finished cells of the one store, with the time at which each was put."""
    listed = s3.client().list_objects_v2(Bucket="bucket", Prefix=f"{name}/measurements/")
    objects = {one["Key"]: one["LastModified"] for one in listed.get("Contents", ())}
    return {key: when for key, when in objects.items() if "/batch-" not in key}


def test_two_machines_share_a_study_and_measure_every_cell_once(s3, studio, tables_here, tmp_path):
    url = "s3://bucket/shared"
    words = ["run", str(studio / "study.toml"), "--out", url, "--json", "--quiet"]
    machines = [
        command([*words, "--shard", f"{i}/2"], ISOLOSS_CACHE=str(tmp_path / f"machine-{i}"))
        for i in (1, 2)
    ]
    ended = [machine.communicate(timeout=120) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ended
    # each cell once: no claim ran out, and none was made by both
    assert sum(json.loads(out)["done"] for out, _ in ended) == 24
    assert_equal(tables(Store(url)), tables_here)
    assert not s3.names("shared/leases") and not s3.names("shared/locks")


def test_of_many_that_claim_one_name_one_gets_it(sftp):
    for url in ("s3://bucket/claims", sftp.url("claims")):
        writers = [Leases(RemoteClaims(RemoteFolder(url), "leases")) for _ in range(6)]
        for name in ("a/b@1", "a/b@2"):
            with ThreadPoolExecutor(len(writers)) as pool:
                got = list(pool.map(lambda writer: writer.claim(name), writers))  # noqa: B023
            assert got.count(True) == 1
            assert [writer.holds(name) for writer in writers] == got
            writers[got.index(True)].release(name)
            assert writers[0].claim(name)


def test_a_claim_that_ran_out_is_taken_over_by_one_alone_and_a_renewed_one_by_none():
    place = RemoteFolder("s3://bucket/late")
    lost, living = (Leases(RemoteClaims(place, "leases"), seconds=2.0) for _ in range(2))
    assert lost.claim("gone") and living.claim("kept")
    others = [Leases(RemoteClaims(place, "leases"), seconds=2.0) for _ in range(4)]
    with living.renewing():
        assert not any(other.claim("gone") or other.claim("kept") for other in others)
        time.sleep(3.2)  # S3 tells times in whole seconds
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda other: other.claim("gone"), others))
        assert got.count(True) == 1
        assert not lost.holds("gone")
        assert not any(other.claim("kept") for other in others)


def test_a_store_that_another_process_writes_is_busy(study, sftp):
    for url in ("s3://bucket/busy", sftp.url("busy")):
        store = Store.create(url)
        other = Leases(RemoteClaims(RemoteFolder(url), "locks"))
        assert other.claim("alone")
        for together in (False, True):
            with pytest.raises(StoreBusy, match="another run is writing"):
                with store.writing(together=together):
                    pass
        other.release("alone")
        assert other.claim("together-1")
        with store.writing(together=True):
            pass
        with pytest.raises(StoreBusy), store.writing():
            pass


def test_what_could_not_be_sent_is_kept_and_sent_by_the_next_run(
    s3, study, tables_here, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    url = "s3://bucket/outage"
    with Road(s3.port) as road:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")
        watcher = threading.Thread(target=close_after, args=(road, s3, "outage", 6))
        watcher.start()
        with pytest.raises(NotWritable, match="sent first"):
            run(study, out=url)
        watcher.join()
        road.closed = False
        mirror = next((cache_folder() / "stores").glob("*/"))
        local = {file.stem for file in mirror.glob("measurements/*/*.parquet")}
        summary = run(study, out=url)
        assert summary.finished_before == len([name for name in local if len(name) == 32])
        another_machine(tmp_path, monkeypatch, "second")  # which sees what was sent alone
        assert_equal(tables(Store(url)), tables_here)


def test_a_cell_that_only_this_machine_holds_is_sent_when_the_store_is_next_held(s3, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    cell = Cell(weights_hash="w", probe="p", subject="s", settings={}, numerics=1)
    with Road(s3.port) as road:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")
        store = Store.create("s3://bucket/unsent")
        with pytest.raises(NotWritable), store.writing():
            road.closed = True
            road.cut()
            store.put_cell(cell, [], {})
        road.closed = False
        name = f"measurements/p/{cell.id}.parquet"
        assert (store.path / name).exists() and name not in s3.names("unsent")
        with store.writing():
            assert name in s3.names("unsent")


def close_after(road, s3, name, cells):
    while len(measured(s3, name)) < cells:
        time.sleep(0.01)
    road.closed = True
    road.cut()


def test_files_are_fetched_and_put_whole_over_connections_that_break(s3, monkeypatch, tmp_path):
    data = os.urandom(20_000_000)
    with Road(s3.port) as road:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")
        place = RemoteFolder("s3://bucket/broken")
        place.put("big.bin", data)
        entry = place.entry("big.bin")
        place = RemoteFolder("s3://bucket/broken")
        road.cut_after = [3_000_000, 100_000, 5_000_000]
        place.fetch("big.bin", entry, tmp_path / "big.bin")
        assert road.breaks == 3
        assert (tmp_path / "big.bin").read_bytes() == data
        assert not list(tmp_path.glob(".big*"))
        road.cut_after = [0, 0]  # the answers to a put are lost: it is put once more
        road.cut()
        place.put("small.bin", b"small")
        assert place.read("small.bin") == b"small"
        road.pause = 0.05  # slow is not broken
        assert place.read("big.bin", 7, 1_000_000) == data[7:1_000_007]


def test_over_sftp_no_reader_sees_half_a_file(sftp):
    place, reader = RemoteFolder(sftp.url("whole-files")), RemoteFolder(sftp.url("whole-files"))
    reader.listing()
    seen, done = [], threading.Event()

    def look():
        while not done.is_set():
            seen.append(reader.listing().get("file.bin", Entry(bytes=0, tag="")).bytes)

    watcher = threading.Thread(target=look)
    watcher.start()
    for size in (30_000_000, 20_000_000):
        place.put("file.bin", bytes(size))
    done.set()
    watcher.join()
    assert len(seen) > 5 and set(seen) <= {0, 30_000_000, 20_000_000}


def test_names_that_lead_out_of_the_store_are_not_seen(s3, tmp_path):
    Store.create("s3://bucket/hostile")
    for key in ("measurements/../../../evil.parquet", "measurements/p/.hidden", "a\\b"):
        s3.client().put_object(Bucket="bucket", Key=f"hostile/{key}", Body=b"evil")
    Store("s3://bucket/hostile")
    held = [file for file in tmp_path.rglob("*") if file.is_file() and b"evil" in file.read_bytes()]
    assert not held


def test_no_login_is_in_store_cache_page_or_message(sftp, studio, tmp_path):
    url, secret = sftp.url("private"), PASSWORD.encode()
    runner = CliRunner()
    told = []
    for words in (
        ["run", str(studio / "study.toml"), "--out", url, "--only", "token_loss"],
        ["status", url],
        ["report", url, "--no-laws"],
        ["check", url],
    ):
        result = runner.invoke(app, words)
        assert result.exit_code == 0, (words, result.exception)
        told.append(result.output)
    wrong = url.replace(PASSWORD, "wrong-word-17")
    result = runner.invoke(app, ["status", wrong])
    assert isinstance(result.exception, PlaceUnreachable)
    told.append(str(result.exception))
    for text in told:
        assert PASSWORD not in text and "wrong-word-17" not in text and SECRET not in text
    for folder in (sftp.root / "private", tmp_path / "cache"):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert len(files) > 10
        for file in files:
            assert secret not in file.read_bytes() and PASSWORD not in str(file)
    assert (sftp.root / "private" / "report.html").stat().st_size > 100_000


def test_the_reading_commands_take_a_url(s3, folder_here, tmp_path, tables_here):
    url, runner = "s3://bucket/read", CliRunner()
    s3.put_folder(folder_here, "read")  # a copy of a store is a store

    def asked(*words):
        result = runner.invoke(app, [*words, "--json"])
        assert result.exit_code == 0, (words, result.output, result.exception)
        return json.loads(result.stdout)

    assert asked("status", url)["cells"] == tables_here["cells"].height
    assert asked("sql", url, "SELECT count(*) AS n FROM items")[0]["n"] > 0
    runs = sorted(set(tables_here["checkpoints"]["run"]))
    assert asked("compare", url, f"{runs[0]}@6", f"{runs[1]}@6", "--corpus", "heldout")
    asked("report", url, "--no-laws")
    assert "report.html" in s3.names("read")
    assert asked("export", url, "--to", "csv", "--out", str(tmp_path / "csv"))["numbers"] > 0
    assert asked("check", url)["faults"] is not None
    assert len(asked("ls", url)) == 6
    scores = tmp_path / "scores.csv"
    scores.write_text("name,step,arc\nm,1,0.5\nm,2,0.6\n")
    words = ["--family", "f", "--column", "model=name", "--column", "step=step"]
    asked("import", "table", str(scores), "--out", "s3://bucket/imported", *words,
          "--score", "arc=arc_easy:accuracy")  # fmt: skip
    assert asked("status", "s3://bucket/imported")["checkpoints"] == 2


def test_a_damaged_file_is_put_aside_there_and_its_cell_measured_again(
    s3, study, folder_here, tables_here
):
    url = "s3://bucket/damaged"
    s3.put_folder(folder_here, "damaged")
    name = next(n for n in sorted(s3.names("damaged")) if n.startswith("items/"))
    s3.client().put_object(Bucket="bucket", Key=f"damaged/{name}", Body=b"PAR1 cut short")
    result = CliRunner().invoke(app, ["check", url, "--json"])
    assert json.loads(result.stdout)["cells_forgotten"] == 1
    assert f"damaged/{name}" in s3.names("damaged")  # the folder of that name in the store
    assert name not in s3.names("damaged")
    assert run(study, out=url).done == 1
    assert_equal(tables(Store(url)), tables_here)


def test_the_commands_of_the_documentation_work_as_printed(s3, studio, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "object-stores.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    trained = min(p for p in (studio / "family").iterdir() if p.name.startswith("gpt"))
    s3.put_folder(trained, "7b")
    for name in ("study.toml", "heldout.txt", "continuation.jsonl"):
        shutil.copy(studio / name, tmp_path)
    (tmp_path / "family").symlink_to(studio / "family")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks for line in block.strip().splitlines()]
    assert len(lines) == 6
    for line in lines:
        program, *words = shlex.split(line)
        result = CliRunner().invoke(app, words)
        assert (program, result.exit_code) == ("isoloss", 0), (line, result.exception)
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert Store(tmp_path / "RUN").checkpoints().collect().height == 3


class OneWriter(MemoryFileSystem):
    """A protocol of which nothing is known but that it keeps files."""

    protocol = "onewriter"


def test_where_no_claim_can_be_held_shards_keep_to_their_own_part_and_ray_is_refused(
    study, tables_here, monkeypatch
):
    import fsspec

    fsspec.register_implementation("onewriter", OneWriter, clobber=True)
    url = "onewriter://run"
    parts = [run(study, out=url, shard=Shard(index=i, count=2)) for i in (1, 2)]
    assert [part.done > 0 for part in parts] == [True, True]
    assert sum(part.done for part in parts) == 24
    assert_equal(tables(Store(url)), tables_here)
    with pytest.raises(BadRequest, match="one writer"):
        Store(url).place.leases()
    assert run_on_ray  # its driver asks for the same claims


def test_a_protocol_without_its_package_is_told_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DependencyMissing) as missing:
        Store("gs://bucket/run")
    assert "pip install gcsfs" in str(missing.value)
    with pytest.raises(BadRequest) as unknown:
        Store("s4://bucket/run")
    assert "s3://" in str(unknown.value)


def test_a_wrong_address_is_told_soon_and_not_written_as_a_folder(tmp_path, monkeypatch, study):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(PlaceUnreachable):
        run(study, out="s3://bucket/nowhere")
    assert time.monotonic() - started < 20
    result = CliRunner().invoke(app, ["demo", "--out", "s3://bucket/demo"])
    assert isinstance(result.exception, BadRequest)
    assert not list(tmp_path.glob("s3:*"))


def test_a_store_in_a_folder_loads_no_library_of_file_systems(tmp_path):
    code = (
        "import sys; from isoloss.store import Store; store = Store.create(sys.argv[1])\n"
        "with store.writing(): store.put_study('x')\n"
        "assert not {'fsspec', 'isoloss.store.mirror'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)
