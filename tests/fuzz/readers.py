"""The readers of files that may be anyone's, each with valid files to begin from."""

from __future__ import annotations

import functools
import io
import json
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from isoloss.errors import IsolossError
from isoloss.store import Store


class Reader(NamedTuple):
    """How a file is read.

    Attributes:
        name: of the file, with the ending by which its reader is found.
        seeds: valid files.
        read: reads the file in an empty folder; errors of ours alone may leave it.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]


def attempt(reader: Reader, data: bytes, folder: Path) -> str | None:
    """Read a variant; the name of our error, None where it was read, and else what was raised."""
    file = folder / reader.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    try:
        reader.read(file)
    except IsolossError as error:
        text = str(error)
        text.encode()  # every terminal and every store can hold it
        assert len(text) < 100_000
        return type(error).__name__
    return None


def _study(file: Path) -> None:
    from isoloss.study import Study

    Study.load(file)


def _family(file: Path) -> None:
    from isoloss.pretrain.family_file import FamilyConfig

    FamilyConfig.load(file).runs(tokens_per_sequence=12.0)


def _trained_family(file: Path) -> None:
    from isoloss.pretrain.families import read_family

    read_family(file.parent)


def _task(file: Path) -> None:
    from isoloss.tasks import TaskSpec, load_task

    for shots in (None, 2):
        load_task("task", TaskSpec(path=file, num_fewshot=shots, limit=3))


def _results(file: Path) -> None:
    from isoloss.store.imports import import_lm_eval

    store = _new_store(file)
    import_lm_eval(file, store)
    store.measurements().collect()


def _samples(file: Path) -> None:
    from isoloss.store.imports import harness_samples

    harness_samples.read(file)


def _table(file: Path) -> None:
    from isoloss.store.imports import import_table

    columns = {"model": "model", "step": "step", "task": "task", "metric": "metric",
               "value": "value", "n": "n", "params": "params"}  # fmt: skip
    store = _new_store(file)
    import_table(file, store, family="f", columns=columns)
    store.measurements().collect()


def _plain_table(file: Path) -> None:
    from isoloss.store.plain_tables import read_tables, rows_of

    table = read_tables([file])
    rows_of(table, {"loss": "value", "size": "params * 6"}, {}, run="model", where="step >= 1")


def _log(file: Path) -> None:
    from isoloss.store.imports import put_training_log, read_training_log

    log = read_training_log(file)
    put_training_log(_new_store(file), log.frame, family="f", model="m")


def _findings(file: Path) -> None:
    """What a study found, and the section of the page that is made from it."""
    from isoloss.report.section import sections
    from isoloss.studies.findings import load

    store = _new_store(file)
    folder = store.path / "findings"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "toys.json")
    sections(load(store), ())


def _toys() -> bytes:
    from report import found

    return _json(found.STUDY.record())


def _event_file() -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    plugin = SummaryMetadata.PluginData(plugin_name="scalars")
    said = [
        Summary.Value(
            tag=tag, metadata=SummaryMetadata(plugin_data=plugin),
            tensor=TensorProto(dtype=1, float_val=[value]),
        )
        for tag, value in (("train/loss", 2.5), ("lr", 1e-3))
    ]  # fmt: skip
    data = b""
    for step in (1, 2):
        event = Event(step=step, wall_time=step, summary=Summary(value=said)).SerializeToString()
        size = struct.pack("<Q", len(event))
        checks = [struct.pack("<I", masked_crc32c(part)) for part in (size, event)]
        data += size + checks[0] + event + checks[1]
    return data


def _store_file(file: Path) -> None:
    """Any file of a store; the others of it are valid."""
    from isoloss.store.wholeness import examine, set_aside

    kept, kind = file.read_bytes(), file.name.partition(".")[0]
    root = file.parent / "store"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(_valid_store(), root)
    (root / STORE_FILES[kind]).write_bytes(kept)
    store = Store(root)
    damaged = examine(store).damaged
    if damaged:  # what `isoloss check` does: then the rest must be readable
        set_aside(store, damaged)
    for view in (store.checkpoints(), store.cells(), store.measurements(), store.items("piqa"),
                 store.flags(), store.failures()):  # fmt: skip
        view.collect()


@functools.cache
def _valid_store() -> Path:
    from report import stores

    store = stores.trained(Path(tempfile.mkdtemp()) / "store")
    with store.writing():
        cell = stores.Cell(weights_hash="toy/small/None/10", probe="task_score", subject="piqa",
                           settings={**stores.MEASURED, "num_fewshot": 0}, numerics=1)  # fmt: skip
        store.put_items(cell, pl.DataFrame([{"doc": "0", "gold": [1], "option_loglik": [-1.0, -2.0],
                                             "option_tokens": [1, 2]}]))  # fmt: skip
    patterns = {"measurement": "measurements/*/*.parquet", "items": "items/*/*.parquet",
                "failure": "failures/*.json"}  # fmt: skip
    for name, pattern in patterns.items():
        first = min(store.path.glob(pattern))
        STORE_FILES[name] = str(first.relative_to(store.path))
    return store.path


STORE_FILES = {
    "checkpoints": "checkpoints.parquet", "cells": "cells.parquet", "flags": "flags.parquet",
}  # fmt: skip
"""Where the files of a store lie; the names of cells are known when it is made."""


def _seed_of(kind: str) -> Callable[[], list[bytes]]:
    return lambda: [(_valid_store() / STORE_FILES[kind]).read_bytes()]


def _header(file: Path) -> None:
    from isoloss.models.files import LocalFiles
    from isoloss.models.headers import read_header

    read_header(LocalFiles(file.parent), file.name)


def _metadata(file: Path) -> None:
    from isoloss.models.dcp import read_metadata

    read_metadata(file.parent)


def _new_store(file: Path) -> Store:
    shutil.rmtree(file.parent / "store", ignore_errors=True)
    return Store.create(file.parent / "store")


STUDY = """\
name = "stories"
seed = 0
[run]
dtype = "float32"
memory_budget = "1GiB"
[[family]]
name = "tiny"
  [[family.model]]
  name = "a"
  checkpoints = [{ path = "models/a", step = 2000, tokens = 1_000_000 }]
  [[family.model]]
  name = "b"
  run = "b-seed1"
  checkpoints = "runs/b/step-*"
  convert = "python c.py {src} {dst}"
  [[family.model]]
  name = "c"
  hub = "owner/name"
  revision = "step{step}"
  steps = "log:20"
[corpus.wiki]
path = "wiki.txt"
document = "blank-line"
context = 512
[task.arc]
path = "arc.jsonl"
num_fewshot = 0
limit = 200
[probe.token_loss]
[probe.task_score]
[probe.fisher_trace]
corpus = "wiki"
at = "last:3"
[axis]
loss = "wiki"
"""
FAMILY = """\
name = "hmm"
seed = 0
[language]
kind = "hmm"
vocab = 50
states = 20
length = 12
[train]
objective = "causal"
optimizer = "adamw"
lr = 1e-3
schedule = "wsd"
batch = 128
steps = 2_000
branches = [500]
checkpoints = { log = 12 }
[[grid]]
architecture = "gpt-neox"
width = [16, 32]
seed = [0, 1]
"""
TASKS: tuple[dict[str, Any], ...] = (
    {"query": "2 + 2 =", "choices": ["4", "5"], "gold": 0, "subject": "sums"},
    {"context_options": ["a is", "b is"], "continuation": "x.", "gold": 1},
    {"context": "once", "continuation": "upon"},
    {"context": "who?", "answer": "Ann", "aliases": ["Anna"]},
    {"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2"},
)
BIGBENCH = {
    "name": "t", "description": "d", "keywords": ["x"], "task_prefix": "p: ",
    "example_input_prefix": "\nQ: ", "append_choices_to_input": True,
    "examples": [{"input": f"i{k}", "target_scores": {"a": k % 2, "b": 1 - k % 2, "c": 0}}
                 for k in range(4)],
}  # fmt: skip
RECORD = {
    "name": "hmm", "language": "language", "language_fingerprint": "0" * 16,
    "runs": [{"name": "r", "model": "m", "seed": 0, "schedule": "wsd", "params_total": 9,
              "checkpoint_steps": [0, 1, 10], "settings": {"history": []}}],
}  # fmt: skip
RESULTS = {
    "results": {"piqa": {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": "piqa"},
                "mmlu_virology": {"acc": 0.25, "acc_stderr": 0.02}},
    "versions": {"piqa": 1.0}, "n-shot": {"piqa": 0},
    "n-samples": {"piqa": {"original": 100, "effective": 100}},
    "group_subtasks": {"mmlu": ["mmlu_virology"]}, "date": 1.7e9,
    "config": {"model_args": "pretrained=EleutherAI/pythia-70m,revision=step1000",
               "limit": None, "num_fewshot": 0, "model_dtype": "torch.float32"},
}  # fmt: skip
SAMPLES = (
    {"doc_id": 0, "target": "1", "filter": "none", "acc": 1.0,
     "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": " a"},
                   "gen_args_1": {"arg_0": "q", "arg_1": " bb"}},
     "filtered_resps": [["-2.5", "False"], ["-1.0", "True"]]},
    {"doc_id": 1, "target": "18", "filter": "strict", "exact_match": 0.0,
     "filtered_resps": ["17"]},
)  # fmt: skip
TABLE = b"model,step,task,metric,value,n,params\na,1,arc,accuracy,0.5,100,1000\na,2,arc,acc,0.6,,\n"
LOG = b"step,loss,lr,tokens_seen\n1,3.5,0.1,100\n2,3.25,0.1,200\n2,nan,,\n3,3.0,0.05,300\n"
STATE = {
    "log_history": [
        {"step": 1, "loss": 3.5, "learning_rate": 1e-3}, {"step": 2, "loss": 3.2},
        {"step": 2, "eval_loss": 3.0}, {"train_loss": 3.1, "step": 2},
    ]
}  # fmt: skip


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def _lines(values: Iterable[object]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _several(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Records that differ in every text."""

    def changed(value: Any, i: int) -> Any:
        if isinstance(value, list):
            return [changed(one, i) for one in value]
        return f"{value} {i}" if isinstance(value, str) else value

    return [{key: changed(value, i) for key, value in record.items()} for i in range(4)]


def _parquet() -> bytes:
    out = io.BytesIO()
    pl.read_csv(TABLE).write_parquet(out)
    return out.getvalue()


def _checkpoint_header() -> bytes:
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
              "__metadata__": {"format": "pt"}}  # fmt: skip
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


def _distributed() -> bytes:
    import torch
    from torch.distributed.checkpoint import metadata as kinds
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    index = kinds.MetadataIndex("w", (0,), 0)
    tensor = kinds.TensorStorageMetadata(
        properties=kinds.TensorProperties(dtype=torch.float32),
        size=torch.Size([4]),
        chunks=[kinds.ChunkStorageMetadata(offsets=torch.Size([0]), sizes=torch.Size([4]))],
    )
    about = kinds.Metadata(
        state_dict_metadata={"w": tensor},
        storage_data={index: _StorageInfo("__0_0.distcp", 0, 400)},
    )
    return pickle.dumps(about)


READERS = {
    "study": Reader("study.toml", lambda: [STUDY.encode()], _study),
    "family": Reader("family.toml", lambda: [FAMILY.encode()], _family),
    "family-record": Reader("family.json", lambda: [_json(RECORD)], _trained_family),
    "jsonl-task": Reader("task.jsonl", lambda: [_lines(_several(t)) for t in TASKS], _task),
    "bigbench-task": Reader("task.json", lambda: [_json(BIGBENCH)], _task),
    "lm-eval-results": Reader("results.json", lambda: [_json(RESULTS)], _results),
    "lm-eval-samples": Reader("samples_x.jsonl", lambda: [_lines([s] * 2) for s in SAMPLES],
                              _samples),
    "csv": Reader("table.csv", lambda: [TABLE], _table),
    "plain-csv": Reader("table.csv", lambda: [TABLE], _plain_table),
    "plain-jsonl": Reader("table.jsonl", lambda: [
        b'{"model":"a","step":1,"value":2.5,"params":10}\n{"model":"b","step":2,"value":"nan"}\n'
    ], _plain_table),
    "parquet": Reader("table.parquet", lambda: [_parquet()], _plain_table),
    "csv-log": Reader("log.csv", lambda: [LOG], _log),
    "jsonl-log": Reader("log.jsonl", lambda: [_lines(STATE["log_history"][:3])], _log),
    "trainer-state": Reader("trainer_state.json", lambda: [_json(STATE)], _log),
    **{
        f"store-{kind}": Reader(f"{kind}.file", _seed_of(kind), _store_file)
        for kind in ("checkpoints", "cells", "flags", "measurement", "items", "failure")
    },
    "tensorboard-log": Reader("events.out.tfevents.1.host", lambda: [_event_file()], _log),
    "findings": Reader("toys.json", lambda: [_toys()], _findings),
    "safetensors": Reader("model.safetensors", lambda: [_checkpoint_header()], _header),
    "distributed-metadata": Reader(".metadata", lambda: [_distributed()], _metadata),
}  # fmt: skip
"""By name."""
