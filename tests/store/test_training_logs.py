"""Logs of every kind become the same table, and what is doubtful is counted or refused."""

import builtins
import json

import numpy as np
import polars as pl
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from isoloss.errors import BadData, DependencyMissing
from isoloss.store.imports.training_logs import COLUMNS, read_training_log
from shared_data import SHARED, needs_shared

STEPS, LOSSES, RATES = [0, 10, 20], [3.5, 2.25, 1.125], [0.0, 0.5, 0.25]
# all dyadic, so that float32 event files give them back exactly


def expected(**columns) -> pl.DataFrame:
    columns = {"step": STEPS, "loss": LOSSES} | columns
    return pl.DataFrame({name: columns.get(name, [None] * 3) for name in COLUMNS}, schema=COLUMNS)


def test_csv_with_usual_names(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(
        "iteration,train/lm_loss,consumed_train_tokens\n0,3.5,0\n10,2.25,1e3\n20, 1.125,2000\n"
    )
    log = read_training_log(file)
    assert log.frame.equals(expected(tokens_seen=[0, 1000, 2000]))
    assert log.names == {
        "step": "iteration",
        "tokens_seen": "consumed_train_tokens",
        "loss": "train/lm_loss",
    }
    assert log.notes == ()


def test_jsonl_merges_the_records_of_a_step_and_skips_evaluations(tmp_path):
    records = [
        {"step": 0, "loss": 3.5, "lr": 0.0},
        {"step": 10, "loss": "2.25"},  # some loops log numbers as text
        {"step": 10, "lr": 0.5},
        {"step": 15, "eval_loss": 9.0},
        {"step": 20, "loss": 1.125, "lr": 0.25},
    ]
    file = tmp_path / "log.jsonl"
    file.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    assert read_training_log(file).frame.equals(expected(lr=RATES))


def trainer_state() -> str:
    history = [
        {"epoch": 0.1, "step": s, "loss": x, "learning_rate": r, "grad_norm": 1.0}
        for s, x, r in zip(STEPS, LOSSES, RATES, strict=True)
    ]
    history.insert(1, {"step": 0, "eval_loss": 4.0})
    # what the Trainer writes last: the mean over the run, which is no loss of step 20
    history.append({"step": 20, "train_loss": 99.0, "train_runtime": 1.0})
    return json.dumps({"global_step": 20, "log_history": history})


def test_trainer_state_of_transformers_and_its_folder(tmp_path):
    (tmp_path / "trainer_state.json").write_text(trainer_state())
    for path in (tmp_path, tmp_path / "trainer_state.json"):
        assert read_training_log(path).frame.equals(expected(lr=RATES))


def test_parquet_keeps_its_own_numbers(tmp_path):
    file = tmp_path / "log.parquet"
    pl.DataFrame({"Step": STEPS, "Loss": LOSSES}).write_parquet(file)
    assert read_training_log(file).frame.equals(expected())


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_event_files_of_torch(tmp_path, prefix):
    with SummaryWriter(tmp_path) as writer:
        for s, x in zip(STEPS, LOSSES, strict=True):
            writer.add_scalar(f"{prefix}loss", x, s)
            writer.add_scalar("eval/loss", 9.0, s)
            writer.add_scalar("train/global_step", 7.0, s)
        for s, r in zip(STEPS, RATES, strict=True):
            writer.add_scalar(f"{prefix}learning_rate", r, s)
        writer.add_histogram("weights", np.arange(3.0), 0)
    (file,) = tmp_path.iterdir()
    for path in (tmp_path, file):
        assert read_training_log(path).frame.equals(expected(lr=RATES))


def test_event_files_in_the_newer_tensor_form(tmp_path):
    kind = SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    writer = EventFileWriter(str(tmp_path))
    for i, (s, x) in enumerate(zip(STEPS, LOSSES, strict=True)):
        # TensorFlow 2 writes what a tag is with its first value alone
        known = {"metadata": kind} if i == 0 else {}
        value = Summary.Value(tag="loss", tensor=make_tensor_proto(np.float32(x)), **known)
        writer.add_event(Event(step=s, summary=Summary(value=[value])))
    writer.close()
    assert read_training_log(tmp_path).frame.equals(expected())


def test_a_restart_replaces_the_steps_it_repeats_and_is_counted(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("step,loss\n0,3.5\n10,8\n20,9\n10,2.25\n20,1.125\n")
    log = read_training_log(file)
    assert log.frame.equals(expected())
    assert log.notes == (
        "2 records replaced by a later one of the same step (steps go back 1 times)",
    )


def test_unknown_and_diverged_values_are_kept_apart_and_counted(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("step,loss,tokens\n0,3.5,nan\n10,nan,\n20,,5\n,1.0,6\n30,inf,7\n")
    log = read_training_log(file)
    assert log.frame["step"].to_list() == [0, 10, 30]
    assert log.frame["tokens_seen"].to_list() == [None, None, 7]
    assert np.isnan(log.frame["loss"][1])
    assert log.notes == ("1 records without a step, left out", "2 losses that are not finite")


def test_columns_can_be_named(tmp_path):
    file = tmp_path / "log.tsv"
    file.write_text(
        "step\tbatch\tloss\ttrain_loss\n1\t0\t9\t3.5\n2\t10\t9\t2.25\n3\t20\t9\t1.125\n"
    )
    assert read_training_log(file, step="batch", loss="train_loss").frame.equals(expected())
    with pytest.raises(BadData, match="several columns of the training log could be the loss") as e:
        read_training_log(file)
    assert e.value.nearest == "loss, train_loss"
    with pytest.raises(BadData, match="no column 'los'") as e:
        read_training_log(file, loss="los")
    assert e.value.nearest == "loss"


def test_a_missing_column_names_those_there_are(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("when,loss\n0,1\n")
    with pytest.raises(BadData, match="called like a step") as error:
        read_training_log(file)
    assert error.value.nearest == "its columns are when, loss"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.csv", "", "cannot be read"),
        ("x.csv", "step,loss\n1,2,3\n", "cannot be read"),
        ("x.csv", "step,loss\n1,abc\n", "no number"),
        ("x.csv", "step,loss\n1.5,2\n", "no whole number"),
        ("x.csv", "step,loss\ninf,2\n", "no whole number"),
        ("x.csv", "step,loss\n1e30,2\n", "no whole number"),
        ("x.csv", "step,loss\n-1,2\n", "no whole number"),
        ("x.csv", "step,loss\n1,\n", "no loss at any step"),
        ("x.jsonl", '{"step": 1}\n{"step": \n', "line 2 is not valid JSON"),
        ("x.jsonl", "3\n", "line 1 is no JSON object"),
        ("x.jsonl", '{"step": 1, "loss": [2]}\n', "no number"),
        ("x.json", '{"step": 1}', "no log_history"),
        ("x.parquet", "PAR1", "cannot be read"),
        ("x.log", "step 1 loss 2", "not known"),
        ("events.out.tfevents.1", "garbage", "holds no scalars"),
    ],
)
def test_what_is_no_training_log_is_refused_with_the_place(tmp_path, name, content, what):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadData, match=what) as error:
        read_training_log(tmp_path / name)
    assert name in str(error.value)


def test_a_missing_log_names_the_nearest(tmp_path):
    (tmp_path / "train.csv").write_text("step,loss\n0,1\n")
    with pytest.raises(BadData, match="no training log at") as error:
        read_training_log(tmp_path / "tain.csv")
    assert error.value.nearest == "train.csv"
    with pytest.raises(BadData, match="holds no training log") as error:
        read_training_log(tmp_path)
    assert error.value.nearest == "train.csv"


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1").write_text("")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyMissing) as error:
        read_training_log(tmp_path)
    assert error.value.remedy == "pip install 'isoloss[tensorboard]'"


@needs_shared
def test_pythias_training_loss_has_its_published_minimum_and_end():
    frame = read_training_log(SHARED / "pythia-trainloss/70m-0.csv").frame
    assert frame.height == 143_000
    means = frame["loss"].to_numpy()[:141_000].reshape(-1, 3000).mean(1)
    # half of the last digit given
    assert means.min() == pytest.approx(2.831, abs=5e-4)
    assert 3000 * (means.argmin() + 1) == 51_000
    assert means[-1] == pytest.approx(2.880, abs=5e-4)
