"""Plain tables and training logs into a store."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from isoloss.errors import BadData, BadRequest
from isoloss.store import Store, axis
from isoloss.store.imports import import_lm_eval, import_table, put_training_log
from isoloss.store.imports.logs import loss_at
from shared_data import SHARED, needs_shared

LONG = {"model": "m", "step": "s", "task": "t", "metric": "k", "value": "v"}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# ---- tables


def test_the_long_form_files_every_number_with_its_error(store, tmp_path):
    text = "m,s,t,k,v,e,docs,shots\na,10,piqa,acc,0.5,0.05,100,0\na,10,piqa,margin,-1.5,,100,0\n"
    text += "a,10,piqa,acc,0.625,0.04,100,5\na,20,piqa,acc,,,100,0\n"
    columns = LONG | {"stderr": "e", "n": "docs", "num_fewshot": "shots"}
    report = import_table(table(tmp_path, text), store, family="f", columns=columns)
    assert (report.checkpoints, report.cells_added, report.empty) == (2, 2, 1)
    assert (report.without_tokens, report.without_params) == (2, 2)
    keys = ["model", "run", "step", "num_fewshot", "metric", "value", "stderr", "n", "cell_source"]
    found = store.measurements().sort("num_fewshot", "metric").select(keys).collect()
    assert found.rows() == [
        ("a", "a", 10, 0, "accuracy", 0.5, 0.05, 100, "table"),
        ("a", "a", 10, 0, "margin", -1.5, None, 100, "table"),
        ("a", "a", 10, 5, "accuracy", 0.625, 0.04, 100, "table"),
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_the_wide_form_gives_the_same_rows_from_every_kind_of_file(store, tmp_path, kind):
    frame = pl.DataFrame(
        {
            "model": ["a", "a"],
            "seed": [0, 1],
            "tokens": [2_000_000_001, 2_000_000_001],
            "n_params": [10_000_000, 10_000_000],
            "hella": [0.25, 0.5],
            "c4": [3.5, 3.25],
            "c4_bpb": [1.1, 1.0],
        }
    )
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if kind == "tsv" else ",")
    report = import_table(
        path,
        store,
        family="f",
        columns={"model": "model", "seed": "seed", "tokens": "tokens", "params": "n_params"},
        scores={"hella": ("hellaswag", "acc")},
        losses={"c4": ("c4", "loss_nats_per_token"), "c4_bpb": ("c4", "bits_per_byte")},
    )
    assert (report.checkpoints, report.cells_added, report.without_step) == (2, 4, 2)
    points = store.checkpoints().collect()
    assert points["run"].to_list() == ["a-seed0", "a-seed1"]
    assert points["flops"].to_list() == [6.0 * 10_000_000 * 2_000_000_001] * 2
    chosen = axis.choose(store)
    assert (chosen.name, chosen.kind) == ("c4:loss_nats_per_token", "held-out")
    assert sorted(axis.losses(store, chosen)["loss"].to_list()) == [3.25, 3.5]
    assert axis.choose(store, "c4:bits_per_byte").label == "loss, held-out c4 (bits per byte)"


def test_a_loss_repeated_on_every_row_of_the_long_form_is_one_number(store, tmp_path):
    text = "m,s,t,k,v,l\na,1,piqa,acc,0.5,2.5\na,1,sciq,acc,0.5,2.5\n"
    columns = LONG | {"loss": "l"}
    path = table(tmp_path, text)
    import_table(path, store, family="f", columns=columns)
    losses = store.measurements().filter(pl.col("probe") == "token_loss").collect()
    assert losses.select("subject", "metric", "value").rows() == [
        ("loss", "loss_nats_per_token", 2.5)
    ]
    table(tmp_path, text.replace("0.5,2.5\n", "0.5,2.75\n", 1))
    with pytest.raises(BadData, match="stands twice"):
        import_table(path, store, family="f", columns=columns)


def test_a_table_adds_to_the_checkpoints_the_store_knows(store, tmp_path):
    (tmp_path / "r.json").write_text(
        json.dumps(
            {
                "results": {"piqa": {"acc": 0.6}},
                "config": {"model_args": "pretrained=lab/toy-10m,revision=step5"},
            }
        )
    )
    import_lm_eval(tmp_path, store, tokens_per_step=100)
    path = table(tmp_path, "m,s,l\ntoy-10m,5,3.5\ntoy-10m,6,3.25\n")
    report = import_table(
        path,
        store,
        family="lab",
        columns={"model": "m", "step": "s"},
        losses={"l": ("c4", "loss_nats_per_token")},
    )
    assert report.checkpoints == 2
    points = store.checkpoints().sort("step").collect()
    assert points["tokens_seen"].to_list() == [500, None]
    both = store.measurements().filter(pl.col("step") == 5).collect()
    assert set(both["subject"]) == {"piqa", "c4"}
    assert both["weights_hash"].n_unique() == 1


def test_importing_a_table_again_changes_nothing_and_a_mended_one_replaces(store, tmp_path):
    path = table(tmp_path, "m,s,t,k,v\na,1,piqa,acc,0.5\na,2,piqa,acc,0.75\n")
    import_table(path, store, family="f", columns=LONG)
    again = import_table(path, store, family="f", columns=LONG)
    assert (again.cells_added, again.cells_unchanged, again.cells_removed) == (0, 2, 0)
    table(tmp_path, "m,s,t,k,v\na,1,piqa,acc,0.625\na,2,piqa,acc,0.75\n")
    mended = import_table(path, store, family="f", columns=LONG)
    assert mended.cells_removed == 2
    found = store.measurements().sort("step").collect()["value"].to_list()
    assert found == [0.625, 0.75]


BAD_TABLES = {
    "m,s,t,k,v\na,1,piqa,acc,55.5\n": ["divide by 100", "'v'", "row 1 (line 2)"],
    "m,s,t,k,v\na,1,p,x,1\na,2,p,x,abc\n": ["'abc' is no finite number", "'v'", "row 2 (line 3)"],
    "m,s,t,k,v\na,1,p,x,inf\n": ["'inf' is no finite number"],
    "m,s,t,k,v\na,1.5,p,x,1\n": ["'1.5' is no whole number", "'s'"],
    "m,s,t,k,v\na,-1,p,x,1\n": ["negative count"],
    "m,s,t,k,v\na,1e30,p,x,1\n": ["too large"],
    "m,s,t,k,v\na,1,p,x,1\na,1,p,x,2\n": ["stands twice: 1 and 2", "row 1", "row 2"],
    "m,s,t,k,v\na,1,p,x,1\na,1,p,x,1\n": ["stands twice"],
    "m,s,t,k,v\n,1,p,x,1\n": ["names no model", "'m'"],
    "m,s,t,k,v\na,1,,x,1\n": ["names no task", "'t'"],
    "m,s,t,k\na,1,p,x\n": ["has no column 'v'", "its columns are m, s, t, k"],
    "m,s,t,k,w\na,1,p,x,1,2\n": ["cannot read table.csv"],
    "m,s,t,k,v\n": ["has no rows"],
    "": ["cannot read table.csv"],
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_wrong_table_is_refused_by_row_and_column_and_nothing_is_filed(store, tmp_path, text):
    with pytest.raises(BadData) as error:
        import_table(table(tmp_path, text), store, family="f", columns=LONG)
    for part in BAD_TABLES[text]:
        assert part in str(error.value)
    assert store.cells().collect().height == store.checkpoints().collect().height == 0


def test_a_misspelt_column_or_role_gets_the_nearest_one(store, tmp_path):
    path = table(tmp_path, "model,step,hellaswag\na,1,0.5\n")
    columns = {"model": "model", "step": "step"}
    with pytest.raises(BadData) as error:
        import_table(path, store, family="f", columns=columns, scores={"helaswag": ("h", "acc")})
    assert error.value.nearest == "hellaswag"
    with pytest.raises(BadRequest) as wrong:
        import_table(path, store, family="f", columns={"modle": "model"})
    assert wrong.value.nearest == "model"
    with pytest.raises(BadRequest, match="holds a result"):
        import_table(path, store, family="f", columns=columns)
    with pytest.raises(BadRequest, match="no metric of a loss axis") as metric:
        import_table(path, store, family="f", columns=columns, losses={"h": ("c4", "ppl")})
    assert "c4:loss_nats_per_token" in str(metric.value)


def test_rows_of_one_checkpoint_may_not_disagree_on_it(store, tmp_path):
    path = table(tmp_path, "m,s,t,k,v,p\na,1,piqa,acc,0.5,10\na,1,sciq,acc,0.5,11\n")
    with pytest.raises(BadData, match="disagree on its params"):
        import_table(path, store, family="f", columns=LONG | {"params": "p"})


def test_a_broken_parquet_and_an_unknown_kind_are_named(store, tmp_path):
    for name, text in (("t.parquet", "PAR1 nothing"), ("t.xlsx", "x"), ("t.pkl", "x")):
        with pytest.raises(BadData, match=name):
            import_table(table(tmp_path, text, name), store, family="f", columns=LONG)
    with pytest.raises(BadData, match=r"gone\.csv"):
        import_table(tmp_path / "gone.csv", store, family="f", columns=LONG)


def test_numbers_may_be_written_in_any_usual_way(store, tmp_path):
    path = table(tmp_path, "m,s,t,k,v\n a ,1e3,p,x, 2.5e-1 \nb,2000.0,p,x,NaN\nc,3,p,x,-\n")
    report = import_table(path, store, family="f", columns=LONG)
    assert report.empty == 2
    found = store.measurements().select("model", "step", "value").collect()
    assert found.rows() == [("a", 1000, 0.25)]
    assert store.checkpoints().sort("model").collect()["step"].to_list() == [1000, 2000, 3]


# ---- training logs


def log(steps, loss=None) -> pl.DataFrame:
    steps = np.asarray(steps)
    curve = 2.0 + 8.0 / np.sqrt(1.0 + steps) if loss is None else np.asarray(loss)
    return pl.DataFrame({"step": steps, "loss": curve})


def run_of(store: Store, steps, family="f", model="m") -> None:
    rows = [
        {
            "family": family,
            "model": model,
            "run": model,
            "step": step,
            "weights_hash": f"w{step}",
            "source": f"folder-{step}",
        }
        for step in steps
    ]
    with store.writing():
        store.put_checkpoints(rows)


def test_a_log_becomes_an_axis_at_the_checkpoints_of_its_run(store):
    run_of(store, [0, 50, 1000, 9000])
    report = put_training_log(store, log(range(2000)), family="f", model="m", tokens_per_step=7)
    assert (report.cells_added, report.empty) == (3, 1)  # the log ends before step 9000
    chosen = axis.choose(store)
    assert chosen.kind == "train-log"
    assert chosen.label == "loss, training log (nats per token)"
    losses = axis.losses(store, chosen).sort("step")
    assert losses["step"].to_list() == [0, 50, 1000]
    curve = log(range(2000))["loss"].to_numpy()
    expected = [curve[0], curve[45:51].mean(), curve[901:1001].mean()]
    assert losses["loss"].to_list() == pytest.approx(expected, rel=1e-12)
    assert store.checkpoints().sort("step").collect()["tokens_seen"].to_list() == [
        0,
        350,
        7000,
        63000,
    ]
    kept = store.arrays("train_log").collect()
    assert [len(values) for values in kept["values"]] == [2000, 2000]


def test_a_log_without_checkpoints_makes_them_at_log_spaced_steps(store):
    report = put_training_log(store, log(range(100_000)), family="f", model="m")
    assert 80 <= report.checkpoints <= 101  # the first steps are whole and coincide
    steps = store.checkpoints().collect()["step"].sort().to_list()
    assert steps[:4] == [0, 1, 2, 3] and steps[-1] == 99_999
    assert report.cells_added == report.checkpoints
    again = put_training_log(store, log(range(100_000)), family="f", model="m")
    assert (again.cells_added, again.cells_removed) == (0, 0)


def test_a_longer_log_replaces_the_shorter_ones_numbers(store):
    run_of(store, [500])
    put_training_log(store, log(range(600)), family="f", model="m")
    report = put_training_log(store, log(range(700)), family="f", model="m", window=10)
    assert (report.cells_added, report.cells_removed) == (1, 1)
    assert axis.losses(store, axis.choose(store)).height == 1
    assert store.arrays("train_log").collect().height == 2


def test_the_error_of_the_running_loss_is_honest():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(400):
        loss = 3.0 + 0.1 * rng.standard_normal(2000)
        here = loss_at(np.arange(2000), loss, 1999, window=100)
        assert here is not None and here.stderr is not None and here.n == 100
        z.append((here.value - 3.0) / here.stderr)
    assert abs(np.mean(z)) < 0.25  # 400 z-scores of sd 1.1: 4 standard errors are .23
    assert 0.95 < np.std(z) < 1.35  # Student t with 9 degrees of freedom: 1.13


def test_few_records_have_no_error_and_steps_outside_no_loss():
    steps = np.arange(0, 1000, 100)
    loss = np.linspace(5, 4, 10)
    here = loss_at(steps, loss, 950, window=100)
    assert here is not None and (here.value, here.stderr, here.n) == (4.0, None, 1)
    assert loss_at(steps, loss, 1001, window=100) is None
    assert loss_at(steps + 5, loss, 3, window=100) is None


def test_losses_that_are_not_finite_are_counted_and_left_out(store):
    run_of(store, [3])
    report = put_training_log(
        store, log([1, 2, 3], [4.0, float("nan"), 2.0]), family="f", model="m"
    )
    assert report.not_finite == 1
    assert axis.losses(store, axis.choose(store))["loss"].to_list() == [2.0]
    with pytest.raises(BadData, match="no finite loss"):
        put_training_log(store, log([1], [float("inf")]), family="f", model="m")
    with pytest.raises(BadData, match="no column 'loss'"):
        put_training_log(store, pl.DataFrame({"step": [1]}), family="f", model="m")


@needs_shared
def test_the_real_training_loss_of_pythia_70m(store):
    frame = pl.read_csv(SHARED / "pythia-trainloss" / "70m-0.csv")
    frame = frame.rename({"train/lm_loss": "loss"})
    import_lm_eval(SHARED / "pythia-evals" / "pythia-70m" / "zero-shot", store)
    put_training_log(
        store, frame, family="pythia", model="pythia-v1.1-70m", tokens_per_step=2_097_152
    )
    losses = axis.losses(store, axis.choose(store)).sort("step")
    assert losses.height == 27
    assert losses["loss"][-1] == pytest.approx(frame["loss"][-100:].mean(), rel=1e-12)
    # the manifest: means of 3,000 steps end at 2.880; from one such mean to the next the loss
    # moves by some hundredths with the data
    assert losses["loss"][-1] == pytest.approx(2.880, abs=0.03)
    assert losses["loss"][0] == pytest.approx(frame["loss"][0], rel=1e-12)
    assert losses["loss_stderr"][-1] < 0.01
