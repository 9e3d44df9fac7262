"""What a plan counts is what a run does, what it costs follows, and nothing is fetched."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from isoloss.engine.calibration import _not_negative, calibrate, load_throughput
from isoloss.engine.jobs import Bench
from isoloss.engine.plan import plan
from isoloss.engine.resolve import resolve
from isoloss.engine.subjects import Subjects
from isoloss.engine.throughput import GPUS, ONE_CORE, named_gpu, rough
from isoloss.engine.worklist import worklist
from isoloss.engine.workload import Load, Shape, flops, load_of, shape_of, traffic
from isoloss.errors import BadRequest, IsolossError
from isoloss.models.inspect import describe
from isoloss.models.load import load
from isoloss.study import Study
from isoloss.tasks.published_hub import fetch

LARGE = Shape(layers=36, width=5120, heads=40, body=11_300_000_000, vocabulary=50_304, window=2048,
              masked=False)  # fmt: skip


@pytest.fixture
def study(studio):
    return Study.load(studio / "study.toml")


@pytest.fixture
def figures(monkeypatch, tmp_path):
    monkeypatch.setenv("ISOLOSS_CACHE", str(tmp_path / "cache"))
    return replace(ONE_CORE, name="planted")


def works_of(study):
    subjects = Subjects(study)
    return subjects, worklist(study, subjects, resolve(study))


def test_the_work_counted_is_the_work_the_scorer_does(study):
    subjects, works = works_of(study)
    work = works[-1]
    shape = shape_of(work.resolved.description)
    source = work.resolved.checkpoint.source
    bench = Bench(load(source, dtype="float32", device="cpu"), memory_budget=1 << 30)
    assert bench.scorer.path in ("shared", "plain")  # what it tries first is no work of a cell
    for job in work.jobs:
        if job.cell.probe not in ("token_loss", "task_score"):
            continue
        counted = load_of(job, work, shape, subjects)
        with FlopCounterMode(display=False) as counter:
            job.measure(bench)
        # torch counts no attention on a CPU; biases and norms are parameters and no products:
        # 13 d beside 12 d^2, 7% at width 16
        assert flops(counted._replace(pairs=0), shape) == pytest.approx(
            counter.get_total_flops(), rel=0.08
        )


def test_a_plan_reads_the_shape_of_a_model_from_its_config(studio):
    folder = next(p for p in sorted((studio / "family").iterdir()) if p.name.endswith("seed0"))
    known = describe_step(folder)
    shape = shape_of(known)
    assert (shape.layers, shape.width) == (
        known.config["num_hidden_layers"],
        known.config["hidden_size"],
    )
    assert shape.body == known.params_non_embedding
    assert not shape.masked
    # a config that tells neither: a block of width d has 12 d^2 parameters
    guessed = shape_of(replace(known, config={"num_hidden_layers": 3}, params_non_embedding=2304))
    assert guessed.width == 8


def describe_step(folder):
    from isoloss.family import Folder

    return describe(Folder(path=folder / "step-00000006"))


def test_nothing_is_fetched_and_what_is_unknown_is_named(study, studio, monkeypatch, tmp_path):
    from huggingface_hub import constants

    asked = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    fetch.cache_clear()
    text = (studio / "study.toml").read_text() + '[task.h]\npublished = "hellaswag"\n'
    asking = Study.from_text(text, folder=studio)
    try:
        made = plan(asking, out=tmp_path / "RUN", throughput=ONE_CORE)
        assert asked == []
        assert constants.HF_HUB_OFFLINE is False  # as it was
        with pytest.raises(IsolossError):  # a run would ask
            Subjects(asking)
        assert asked
    finally:
        server.shutdown()
        fetch.cache_clear()
    assert [line.split(":")[0] for line in made.unknown] == ["task.h"]
    assert any("task.h" in line and "fetches nothing" in line for line in made.lines())
    known = plan(study, out=tmp_path / "RUN", throughput=ONE_CORE)
    assert made.items == known.items


def test_an_unknown_corpus_is_left_out_of_every_probe_that_reads_it(studio, tmp_path):
    text = (studio / "study.toml").read_text() + (
        '[corpus.far]\ndataset = "nobody/nothing"\n'
        '[probe.anisotropy]\ncorpus = ["far", "heldout"]\n'
        '[probe.fisher_trace]\ncorpus = "far"\n[probe.head_spectrum]\ncorpus = "far"\n'
    )
    made = plan(Study.from_text(text, folder=studio), out=tmp_path / "RUN", throughput=ONE_CORE)
    assert list(made.unknown)[0].startswith("corpus.far")
    assert {i.subject for i in made.items if i.probe == "anisotropy"} == {"heldout"}
    assert not {"fisher_trace", "head_spectrum"} & {i.probe for i in made.items}


def test_the_time_is_the_sum_of_its_terms(figures):
    load = Load(passes=10, tokens=20_000, pairs=4_000_000, scored=0, requests=100)
    alone = figures.cell_seconds + 100 * figures.request_seconds
    alone += 10 * LARGE.layers * figures.layer_seconds
    alone += 4_000_000 * LARGE.heads * LARGE.layers * figures.attention_seconds
    alone += flops(load, LARGE) / figures.flops_per_second
    alone += traffic(load, LARGE, "float32") / figures.bytes_per_second
    assert figures.seconds(load, LARGE, "float32", "token_loss") == pytest.approx(alone, rel=1e-12)
    # a backward pass is two forward ones
    once, trace = (
        figures.seconds(load, LARGE, "float32", p) - figures.cell_seconds
        for p in ("token_loss", "fisher_trace")
    )
    assert trace == pytest.approx(3 * once, rel=1e-12)


def test_cost_is_the_price_of_the_devices_while_they_work(study, figures, tmp_path):
    one = plan(study, out=tmp_path / "RUN", throughput=figures, workers=1, price=2.5)
    assert one.cost == pytest.approx(2.5 * one.worker_hours)
    assert one.worker_hours * 3600 == pytest.approx(one.seconds, rel=0.3)  # changes of shape
    many = plan(study, out=tmp_path / "RUN", throughput=figures, workers=4, price=2.5)
    assert one.shortest_seconds >= many.shortest_seconds
    assert many.shortest_seconds <= many.seconds <= one.seconds
    # every worker starts
    assert many.worker_hours > one.worker_hours
    assert json.dumps(many.record())
    assert any("4 workers" in line for line in many.lines())


def test_a_model_larger_than_a_device_takes_several(study, tmp_path):
    small = replace(ONE_CORE, memory_bytes=400 << 20)  # the budget of activations is 1 GiB
    made = plan(study, out=tmp_path / "RUN", throughput=small)
    assert made.devices_per_worker == 3
    assert made.worker_hours > plan(study, out=tmp_path / "RUN", throughput=ONE_CORE).worker_hours


def test_figures_of_gpus_are_shares_of_what_is_published():
    h100 = named_gpu("H100", "bfloat16")
    assert h100.flops_per_second == pytest.approx(0.4 * 989e12)
    assert h100.bytes_per_second == pytest.approx(0.6 * 3.35e12)
    assert "40% of 989 TFLOP/s" in h100.name
    assert named_gpu("h100", "float32").flops_per_second == pytest.approx(0.4 * 67e12)
    # 12 billion parameters, 10 million tokens: 2.3e17 operations, ten minutes
    load = Load(passes=5000, tokens=10_000_000, pairs=0, scored=0, requests=0)
    assert 400 < h100.seconds(load, LARGE, "bfloat16", "token_loss") < 1600
    for name in GPUS:
        assert named_gpu(name, "float16").memory_bytes >= 16e9


def test_what_cannot_be_planned_is_refused_with_what_can(study, tmp_path):
    with pytest.raises(BadRequest, match="no figures of a GPU named h10") as unknown:
        named_gpu("h10", "float32")
    assert unknown.value.nearest in GPUS
    with pytest.raises(BadRequest, match="float64"):
        named_gpu("h100", "float64")
    with pytest.raises(BadRequest, match="one worker or more"):
        plan(study, out=tmp_path / "RUN", workers=0)


def test_planted_figures_are_found_again_from_exact_times():
    rng = np.random.default_rng(0)
    work = rng.lognormal(size=(20, 4)) * [1, 1e3, 1e9, 1e6]
    planted = np.array([2e-2, 1e-5, 1e-11, 2e-10])
    found = _not_negative(work, work @ planted)
    np.testing.assert_allclose(found, planted, rtol=1e-6)
    # a term that costs nothing is taken as fast, not free
    free = planted * [1, 1, 1, 0]
    assert 0 < _not_negative(work, work @ free)[3] < 1e-3 * planted[3] * 1e6


def test_this_machine_is_timed_once_and_found_again(study, figures):
    assert load_throughput(study.run) is None
    found = calibrate(study.run)
    assert load_throughput(study.run) == found
    assert load_throughput(study.run.model_copy(update={"threads": 7})) is None
    # any machine that runs these tests; the time of others' work on it included
    assert 1e9 < found.flops_per_second < 1e13
    assert 0 < found.start_seconds < 120
    assert set(found.factors) == {"optimum", "hidden_state"}
    assert "calibrated" in plan(study, out="nowhere").throughput


def test_an_uncalibrated_machine_gets_rough_figures_that_say_so(study, figures, tmp_path):
    made = plan(study, out=tmp_path / "RUN")
    assert "factor of two" in made.throughput
    assert rough(1).flops_per_second > 0
