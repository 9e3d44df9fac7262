"""The store: what is put comes back, in any order, through any interruption."""

import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from isoloss.errors import BadRequest, BadStore, IsolossError, StoreBusy
from isoloss.store import Cell, Store, query, schema
from isoloss.store.cell import Failure, Finished
from isoloss.store.files import write_parquet

EXECUTION = {"code_version": "1", "measured_at": "now", "seconds": 1.5, "peak_memory": 10}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "run")


def point(step: int, weights: str | None = None, **more) -> dict:
    return {
        "family": "f",
        "model": "m",
        "run": "m",
        "step": step,
        "source": f"folder-{step}",
        "weights_hash": weights or f"w{step}",
        **more,
    }


def cell(step: int = 1, subject: str = "piqa", probe: str = "task_score", **settings) -> Cell:
    settings = {"num_fewshot": 0, "source": "measured", **settings}
    return Cell(
        weights_hash=f"w{step}", probe=probe, subject=subject, settings=settings, numerics=1
    )


def numbers(value: float = 0.5, metric: str = "accuracy") -> list[dict]:
    return [{"metric": metric, "value": value, "stderr": 0.1, "n": 10, "unit": "fraction"}]


def put(store: Store, *cells: Cell, value: float = 0.5) -> None:
    with store.writing():
        for c in cells:
            store.put_cell(c, numbers(value), EXECUTION)


def put_batch(store: Store, *cells: Cell, value: float = 0.5) -> None:
    with store.writing():
        done = [Finished(cell=c, rows=numbers(value), execution=EXECUTION) for c in cells]
        store.put_cells(done)


# ---- cells


def test_a_cell_comes_back_with_its_checkpoint_and_settings(store):
    with store.writing():
        store.put_checkpoints([point(1, tokens_seen=100, params_total=7)])
    put(store, cell(docs_n=200, seeds="a-b"))
    (row,) = store.measurements().collect().to_dicts()
    assert (row["value"], row["stderr"], row["n"], row["unit"]) == (0.5, 0.1, 10, "fraction")
    assert (row["step"], row["tokens_seen"], row["params_total"]) == (1, 100, 7)
    assert (row["num_fewshot"], row["docs_n"], row["cell_source"]) == (0, 200, "measured")
    assert json.loads(row["extra"]) == {"seeds": "a-b"}
    assert row["source"] == "folder-1"
    (stored,) = store.cells().collect().to_dicts()
    assert {k: stored[k] for k in EXECUTION} == EXECUTION


def test_equal_content_has_equal_names_and_nothing_else_has():
    assert cell(docs_n=None).id == cell().id
    one = Cell(weights_hash="w", probe="p", subject="s", settings={"a": 1, "b": 2}, numerics=1)
    turned = Cell(weights_hash="w", probe="p", subject="s", settings={"b": 2, "a": 1}, numerics=1)
    assert one.id == turned.id
    others = [
        Cell(weights_hash="v", probe="p", subject="s", settings={"a": 1, "b": 2}, numerics=1),
        Cell(weights_hash="w", probe="q", subject="s", settings={"a": 1, "b": 2}, numerics=1),
        Cell(weights_hash="w", probe="p", subject="t", settings={"a": 1, "b": 2}, numerics=1),
        Cell(weights_hash="w", probe="p", subject="s", settings={"a": 1, "b": 3}, numerics=1),
        Cell(weights_hash="w", probe="p", subject="s", settings={"a": 1, "b": 2}, numerics=2),
        Cell(weights_hash="w", probe="p", subject="s", settings={"a": 1, "c": 2}, numerics=1),
    ]
    assert len({c.id for c in [one, *others]}) == len(others) + 1


def test_two_steps_of_equal_weights_both_get_the_row(store):
    with store.writing():
        store.put_checkpoints([point(0, "w1"), point(1, "w1")])
    put(store, cell())
    assert store.measurements().collect()["step"].to_list() == [0, 1]


def test_correcting_a_step_changes_no_measurement(store):
    with store.writing():
        store.put_checkpoints([point(1), point(2)])
    put(store, cell())
    with store.writing():
        store.put_checkpoints([point(1) | {"step": 10, "lr": 0.1}])
    assert store.checkpoints().collect()["step"].to_list() == [2, 10]
    (row,) = store.measurements().collect().to_dicts()
    assert (row["step"], row["lr"], row["value"]) == (10, 0.1, 0.5)


def test_rows_whose_weights_no_checkpoint_claims_are_left_out(store):
    put(store, cell())
    assert store.measurements().collect().height == 0
    assert store.cells().collect().height == 1


def test_an_empty_store_has_empty_tables_with_all_their_columns(store):
    assert store.checkpoints().collect().schema == pl.Schema(schema.CHECKPOINTS)
    assert store.cells().collect().schema == pl.Schema(schema.CELLS)
    assert store.flags().collect().schema == pl.Schema(schema.FLAGS)
    assert store.failures().collect().height == 0
    assert set(schema.MEASUREMENTS) < set(store.measurements().collect_schema())
    assert store.items("piqa").collect().height == store.arrays("x").collect().height == 0
    assert store.token_losses("c").collect().height == 0
    assert store.finished() == set()


# ---- batches


def test_a_batch_reads_as_the_same_cells_one_by_one(tmp_path):
    cells = [cell(step, task, note="x") for step in (1, 2) for task in ("piqa", "sciq")]
    stores = Store.create(tmp_path / "single"), Store.create(tmp_path / "batch")
    for each, writer in zip(stores, (put, put_batch), strict=True):
        with each.writing():
            each.put_checkpoints([point(1), point(2)])
        writer(each, *cells)
    single, batch = stores
    assert single.measurements().collect().equals(batch.measurements().collect())
    assert single.cells().collect().equals(batch.cells().collect())
    assert single.finished() == batch.finished() == {c.id for c in cells}
    assert len(list((tmp_path / "batch").rglob("batch-*.parquet"))) == 1


def test_single_cells_and_batches_live_side_by_side_without_an_index(store):
    with store.writing():
        store.put_checkpoints([point(1), point(2)])
    put(store, cell(1))
    put_batch(store, cell(2), cell(2, "sciq"))
    before = store.cells().collect()
    (store.path / "cells.parquet").unlink()
    assert store.cells().collect().equals(before)
    assert store.measurements().collect().height == 3


def test_removed_cells_are_gone_and_the_rest_of_their_batch_stays(store):
    with store.writing():
        store.put_checkpoints([point(1)])
    put_batch(store, cell(1), cell(1, "sciq"))
    put(store, cell(1, "wsc"))
    with store.writing():
        store.remove([cell(1).id, cell(1, "wsc").id, "unknown"])
    assert store.finished() == {cell(1, "sciq").id}
    assert store.measurements().collect()["subject"].to_list() == ["sciq"]
    assert store.cells().collect()["cell"].to_list() == [cell(1, "sciq").id]
    with store.writing():
        store.remove(store.finished())
    assert not list(store.path.rglob("batch-*"))


def test_an_empty_batch_writes_nothing(store):
    put_batch(store)
    assert not (store.path / "measurements").exists()


# ---- items, token losses, arrays


def test_items_token_losses_and_arrays_come_back_with_their_weights(store):
    scored, read = cell(), cell(probe="token_loss", subject="wiki", tokenizer_hash="tok")
    tokens = pl.DataFrame({"token_id": [5, 6], "document": [0, 0], "position": [1, 2]})
    with store.writing():
        store.put_items(scored, pl.DataFrame({"doc": ["0"], "gold": [[1]]}))
        store.put_tokens("wiki", "layout", tokens.with_columns(bytes=pl.lit(3)))
        store.put_token_losses(read, "layout", np.array([1.5, 0.25]))
        store.put_arrays(read, {"spectrum": np.array([[3.0, 2.0], [1.0, 0.5]])})
        assert store.items("piqa").collect().height == 0  # not before the cell is finished
        store.put_cell(scored, numbers(), EXECUTION)
        store.put_cell(read, numbers(), EXECUTION)
    (item,) = store.items("piqa").collect().to_dicts()
    assert (item["doc"], item["gold"], item["cell"]) == ("0", [1], scored.id)
    assert item["weights_hash"] == "w1"
    losses = store.token_losses("wiki").collect()
    assert losses["loss_nats"].to_list() == [1.5, 0.25]
    assert losses["loss_nats"].dtype == pl.Float32
    assert losses.select("token", "token_id", "position", "bytes").rows() == [
        (0, 5, 1, 3),
        (1, 6, 2, 3),
    ]
    assert losses["layout"].unique().to_list() == ["layout"]
    assert store.token_losses("wiki", tokenizer="tok").collect().equals(losses)
    assert store.token_losses("wiki", tokenizer="other").collect().height == 0
    (array,) = store.arrays("token_loss").collect().to_dicts()
    assert (array["name"], array["values"]) == ("spectrum", [3.0, 2.0, 1.0, 0.5])


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a b/ç", "x" * 300, "."])
def test_hostile_subjects_stay_inside_the_folder(store, name):
    outside = sorted(store.path.parent.iterdir())
    hostile = cell(1, name)
    with store.writing():
        store.put_checkpoints([point(1)])
        store.put_items(hostile, pl.DataFrame({"doc": ["0"]}))
        store.put_cell(hostile, numbers(), EXECUTION)
    assert store.items(name).collect().height == 1
    assert store.measurements().collect()["subject"].to_list() == [name]
    assert sorted(store.path.parent.iterdir()) == outside


# ---- failures


def test_a_failure_is_told_until_its_cell_succeeds(store):
    error = IsolossError("the weights hold NaN.", asked="layer 3", remedy="export them again")
    with store.writing():
        store.put_failure(Failure.of(error, "f/m@1", cell()))
    (failure,) = store.failures().collect().to_dicts()
    assert failure["checkpoint"] == "f/m@1" and failure["subject"] == "piqa"
    assert "NaN" in failure["reason"] and failure["remedy"] == "export them again"
    put(store, cell())
    assert store.failures().collect().height == 0


def test_a_broken_failure_file_is_named(store):
    (store.path / "failures").mkdir()
    (store.path / "failures" / "x.json").write_text('{"cell": ')
    with pytest.raises(BadStore, match=r"x\.json"):
        store.failures()


# ---- versions, damage, locks


def test_no_store_and_newer_stores_are_refused_with_what_to_do(tmp_path, store):
    with pytest.raises(BadStore, match="no store at"):
        Store(tmp_path / "nothing")
    shutil.copytree(store.path, tmp_path / "demo" / "RUN")
    for meant in ("demo", "demo/RNU"):  # the folder of a store, and a misspelt name
        with pytest.raises(BadStore) as error:
            Store(tmp_path / meant)
        assert error.value.nearest == str(tmp_path / "demo" / "RUN")
    table = store.path / "checkpoints.parquet"
    newer = {schema.VERSION_KEY: str(schema.STORE_VERSION + 1)}
    write_parquet(table, schema.empty(schema.CHECKPOINTS), newer)
    with pytest.raises(BadStore, match="newer isoloss") as error:
        Store(store.path)
    assert "upgrade" in error.value.remedy
    table.write_bytes(b"PAR1")
    with pytest.raises(BadStore, match=r"checkpoints\.parquet"):
        Store(store.path)


@pytest.mark.parametrize("writer", [put, put_batch])
def test_a_damaged_measurement_file_is_named(store, writer):
    writer(store, cell())
    (file,) = (store.path / "measurements").glob("*/*.parquet")
    (store.path / "cells.parquet").unlink()
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BadStore, match=file.name):
        store.cells()


def test_opening_an_existing_store_keeps_it(store):
    put(store, cell())
    assert Store.create(store.path).finished() == {cell().id}


def test_the_index_is_rebuilt_from_the_files_alone(store, tmp_path):
    put(store, cell(1), cell(2))
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    (copy / "cells.parquet").unlink()
    with Store(copy).writing():
        pass
    assert (copy / "cells.parquet").read_bytes() == (store.path / "cells.parquet").read_bytes()


def test_the_index_is_rebuilt_though_the_writer_failed(store):
    with pytest.raises(RuntimeError), store.writing():
        store.put_cell(cell(), numbers(), EXECUTION)
        raise RuntimeError
    assert pl.read_parquet(store.path / "cells.parquet").height == 1


def test_a_second_writer_is_told_who_holds_the_store_and_readers_are_not_kept(store):
    script = (
        "import sys; from isoloss.store import Store\n"
        f"with Store({str(store.path)!r}).writing():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            assert store.cells().collect().height == 0
            with pytest.raises(StoreBusy, match="another run") as error, store.writing():
                pass
            assert f"process {process.pid}" in str(error.value)
        finally:
            process.kill()
    with store.writing():  # the lock died with its holder
        pass


# ---- SQL


def test_sql_reads_what_python_reads(store):
    with store.writing():
        store.put_checkpoints([point(1)])
        store.put_items(cell(), pl.DataFrame({"doc": ["0"]}))
    put(store, cell())
    found = query(store, "SELECT subject, avg(value) AS v FROM measurements GROUP BY subject")
    assert found.rows() == [("piqa", 0.5)]
    assert query(store, "SELECT task, doc FROM items").rows() == [("piqa", "0")]
    for view in ("checkpoints", "cells", "failures", "flags"):
        query(store, f"SELECT * FROM {view}")


def test_sql_names_the_nearest_table(store):
    with pytest.raises(BadRequest) as error:
        query(store, "SELECT * FROM measurement")
    assert error.value.nearest == "measurements"
    with pytest.raises(BadRequest):
        query(store, "DROP measurements; --")
