"""Damaged Parquet files are refused, whatever the damage; sound ones read as Polars reads them."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss.store.broken_parquet import read_any_parquet

FRAME = pl.DataFrame(
    {
        "n": [1, None, 3],
        "x": [0.5, float("nan"), None],
        "name": ["a", "", None],
        "values": [[1.0], [], None],
        "is": [True, None, False],
    }
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "table.parquet"
    FRAME.write_parquet(path)
    return path


def test_a_sound_file_reads_as_polars_reads_it(file):
    assert read_any_parquet(file).equals(pl.read_parquet(file), null_equal=True)
    assert read_any_parquet(file).schema == FRAME.schema


@given(st.data())
def test_whatever_is_changed_or_cut_the_file_is_read_or_refused(file, tmp_path_factory, data):
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    broken = tmp_path_factory.mktemp("broken") / "table.parquet"
    broken.write_bytes(whole[: cut or None])
    try:
        read_any_parquet(broken)
    except OSError as error:
        assert str(error)


def test_text_that_is_no_text_and_no_file_at_all_are_refused(tmp_path):
    with pytest.raises(OSError):
        read_any_parquet(tmp_path / "none.parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(OSError, match=r"size is 0|too small|empty"):
        read_any_parquet(tmp_path / "empty.parquet")
