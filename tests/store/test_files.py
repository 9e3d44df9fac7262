"""Files that are either whole or absent."""

import errno
import os
import subprocess
import sys
import textwrap

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.errors import BadStore, DiskFull
from isoloss.store.files import read_parquet, slug, write_bytes, write_parquet, write_text


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    write_text(path, "one é")
    write_text(path, "two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_parquet_file_returns_its_rows_and_metadata(tmp_path):
    path = tmp_path / "[x]*.parquet"  # a name that looks like a pattern is a name
    frame = pl.DataFrame({"a": [1, None], "b": [float("nan"), 2.5]})
    write_parquet(path, frame, {"key": "value"})
    assert read_parquet(path).equals(frame)
    assert read_parquet(path, columns=["b"]).columns == ["b"]
    assert pl.read_parquet_metadata(path)["key"] == "value"


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no room to write file") as error:
        write_bytes(path, b"new")
    assert "finished cells are kept" in str(error.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_faults_of_the_system_are_not_disguised(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_real_limit_on_file_size_is_a_full_disk(tmp_path):
    script = textwrap.dedent(
        f"""
        import resource, signal
        from pathlib import Path
        from isoloss.errors import DiskFull
        from isoloss.store.files import write_bytes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        path = Path({str(tmp_path)!r}) / "file"
        write_bytes(path, b"x" * 500)
        try:
            write_bytes(path, b"y" * 5000)
        except DiskFull:
            print([p.name for p in path.parent.iterdir()], len(path.read_bytes()))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['file'] 500"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all" * 100])
def test_a_broken_parquet_file_is_named_with_its_remedy(tmp_path, data):
    path = tmp_path / "cell.parquet"
    path.write_bytes(data)
    with pytest.raises(BadStore, match=r"cell\.parquet") as error:
        read_parquet(path)
    assert "delete this file" in error.value.remedy


def test_a_truncated_parquet_file_is_broken(tmp_path):
    path = tmp_path / "cell.parquet"
    write_parquet(path, pl.DataFrame({"a": range(1000)}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadStore):
        read_parquet(path)


@given(st.text(max_size=100))
def test_a_slug_is_one_safe_folder_name(name):
    folder = slug(name)
    assert folder and len(folder.encode()) <= 100
    assert "/" not in folder and "\x00" not in folder and folder not in {".", ".."}
    assert not folder.startswith(".")


@given(st.text(max_size=20), st.text(max_size=20))
def test_two_names_never_share_a_slug(one, other):
    assert (slug(one) == slug(other)) == (one == other)
