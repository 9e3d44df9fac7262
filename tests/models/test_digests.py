"""sha256 of files, found again while the file is the same."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from isoloss.models import digests
from isoloss.models.digests import cache_folder, sha256_of

OLD = time.time() - 3600


def write(path, data, mtime=OLD):
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))
    return path


def count_reads(monkeypatch):
    reads = []
    real = hashlib.file_digest

    def counting(file, kind):
        reads.append(file.name)
        return real(file, kind)

    monkeypatch.setattr(digests.hashlib, "file_digest", counting)
    return reads


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    file = write(tmp_path / "w", b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert [sha256_of(file), sha256_of(file)] == [expected] * 2
    assert len(reads) == 1


@pytest.mark.parametrize("change", ["bytes", "mtime", "inode"])
def test_a_changed_file_is_read_again(tmp_path, monkeypatch, change):
    file = write(tmp_path / "w", b"abc")
    sha256_of(file)
    if change == "bytes":
        write(file, b"abcd")
    elif change == "mtime":
        write(file, b"abd", mtime=OLD + 1)
    else:
        write(tmp_path / "new", b"abd").replace(file)
    assert sha256_of(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_written_just_now_is_not_remembered(tmp_path):
    file = write(tmp_path / "w", b"abc", mtime=time.time())
    first = sha256_of(file)
    stat = file.stat()
    file.write_bytes(b"xyz")  # the same size, and within the clock's tick the same mtime
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sha256_of(file) != first


@pytest.mark.parametrize("damage", ["garbage", "another schema", "truncated"])
def test_a_broken_cache_is_rebuilt(tmp_path, monkeypatch, damage):
    file = write(tmp_path / "w", b"abc")
    expected = sha256_of(file)
    database = cache_folder() / "digests.sqlite3"
    if damage == "garbage":
        database.write_bytes(b"no database at all, and longer than a header" * 10)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[:5000])
    else:
        database.unlink()
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE digests (other TEXT)")
    reads = count_reads(monkeypatch)
    assert [sha256_of(file) for _ in range(3)] == [expected] * 3
    assert len(reads) == 1


def test_an_unwritable_cache_costs_time_only(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOLOSS_CACHE", "/dev/null/nowhere")
    file = write(tmp_path / "w", b"abc")
    assert sha256_of(file) == hashlib.sha256(b"abc").hexdigest()


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ISOLOSS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("ISOLOSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "isoloss"


def test_several_processes_share_one_cache(tmp_path):
    for i in range(20):
        write(tmp_path / f"w{i}", bytes([i]) * 100)
    code = (
        "import pathlib, sys; from isoloss.models.digests import sha256_of\n"
        "print([sha256_of(p) for p in sorted(pathlib.Path(sys.argv[1]).iterdir())])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    expected = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(tmp_path.iterdir())]
    assert outputs == {f"{expected}\n"}
    with sqlite3.connect(cache_folder() / "digests.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM digests").fetchone() == (20,)
