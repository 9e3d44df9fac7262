"""Result files of lm-evaluation-harness: the real Pythia ones and files that go wrong."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from isoloss.errors import BadData, BadRequest
from isoloss.store import Store
from isoloss.store.imports import import_lm_eval
from isoloss.store.imports.names import MMLU_SUBJECTS
from shared_data import SHARED, needs_shared

PYTHIA = SHARED / "pythia-evals"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


def old_file(
    path: Path, results: dict, *, args="pretrained=lab/toy-10m,revision=step100", shots=0, **config
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "results": results,
        "versions": dict.fromkeys(results, 0),
        "config": {"model": "hf-causal", "model_args": args, "num_fewshot": shots, "limit": None},
    }
    content["config"].update(config)
    path.write_text(json.dumps(content))
    return path


def new_file(path: Path, results: dict, *, args, shots: dict, n: dict, **more) -> Path:
    content = {
        "results": {t: {"alias": t, **r} for t, r in results.items()},
        "group_subtasks": {},
        "configs": {},
        "versions": dict.fromkeys(results, 1.0),
        "n-shot": shots,
        "n-samples": {t: {"original": k, "effective": k} for t, k in n.items()},
        "config": {"model": "hf", "model_args": args, "limit": None, "fewshot_seed": 1234},
        "date": 1_700_000_000.5,
        **more,
    }
    path.write_text(json.dumps(content))
    return path


def rows(store: Store, **wanted) -> list[dict]:
    frame = store.measurements().collect()
    for name, value in wanted.items():
        frame = frame.filter(pl.col(name).eq_missing(pl.lit(value)))
    return frame.to_dicts()


def value(store: Store, subject: str, metric: str) -> float:
    (row,) = rows(store, subject=subject, metric=metric)
    return row["value"]


# ---- the real files


@needs_shared
def test_every_file_and_number_of_the_real_results_arrives(imported):
    store, report = imported
    assert (report.files, report.skipped, report.checkpoints) == (336, (), 8 * 27)
    # 87 tasks in each zero-shot file, 65 in each five-shot file, and the mean of MMLU
    assert report.cells_added == 8 * 27 * (87 + 1) + 8 * 15 * (65 + 1)
    assert report.without_step == report.without_tokens == report.without_params == 0
    assert report.nominal_params == () and report.not_finite == 0
    table = store.measurements().filter(pl.col("metric") != "chance").collect()
    recorded = 0
    for file in PYTHIA.rglob("*.json"):
        results = json.loads(file.read_text())["results"]
        recorded += sum("_stderr" not in key for r in results.values() for key in r)
    assert table.filter(pl.col("metric") != "accuracy_macro").height == recorded
    assert table.filter(pl.col("metric") == "accuracy_macro").height == 336


@needs_shared
def test_values_errors_and_counts_are_the_recorded_ones(pythia):
    file = PYTHIA / "pythia-12b" / "five-shot" / "12b-5shot_step143000.json"
    recorded = json.loads(file.read_text())["results"]
    at = {"model": "pythia-v1.1-12b", "step": 143_000, "num_fewshot": 5}
    (lambada,) = rows(pythia, subject="lambada_openai", metric="perplexity", **at)
    assert lambada["value"] == recorded["lambada_openai"]["ppl"]
    assert lambada["stderr"] == recorded["lambada_openai"]["ppl_stderr"]
    assert lambada["n"] == 5153  # told by the accuracy and its standard error
    assert lambada["tokens_seen"] == 143_000 * 2_097_152
    assert lambada["params_total"] == 11_846_072_320
    assert lambada["flops"] == pytest.approx(6 * 11_846_072_320 * 143_000 * 2_097_152, rel=1e-15)
    assert lambada["cell_source"] == "lm-eval" and lambada["task_version"] == "0"
    (piqa,) = rows(pythia, subject="piqa", metric="accuracy_per_char", **at)
    assert piqa["value"] == recorded["piqa"]["acc_norm"]
    assert (piqa["n"], piqa["unit"]) == (1838, "fraction")
    (chance,) = rows(pythia, subject="piqa", metric="chance", **at)
    assert chance["value"] == 0.5


@needs_shared
def test_shots_come_from_the_config_never_from_file_names(pythia):
    lying = sorted((PYTHIA / "pythia-1b-bf16" / "zero-shot").glob("*5shot*"))
    assert len(lying) == 4
    for file in lying:
        content = json.loads(file.read_text())
        step = int(content["config"]["model_args"].rpartition("step")[2])
        found = rows(pythia, model="pythia-v1.1-1b-bf16", step=step, subject="sciq")
        assert {row["num_fewshot"] for row in found} == {0}
        assert content["results"]["sciq"]["acc"] in {row["value"] for row in found}


@needs_shared
def test_zero_shot_and_five_shot_are_two_series_of_one_checkpoint(pythia):
    found = rows(pythia, model="pythia-v1.1-70m", step=143_000, subject="piqa", metric="accuracy")
    assert sorted(row["num_fewshot"] for row in found) == [0, 5]
    assert len({row["weights_hash"] for row in found}) == 1
    assert len({row["cell"] for row in found}) == 2
    counts = pythia.measurements().filter(
        pl.col("subject") == "piqa", pl.col("metric") == "accuracy"
    )
    by_shots = counts.group_by("num_fewshot").len().sort("num_fewshot").collect()
    assert by_shots.rows() == [(0, 8 * 27), (5, 8 * 15)]


@needs_shared
def test_mmlu_is_the_mean_of_its_57_subjects(pythia):
    # zero-shot finals of the eight sizes, printed to three digits in the science notes
    finals = pythia.measurements().filter(
        pl.col("subject") == "mmlu",
        pl.col("metric") == "accuracy_macro",
        pl.col("step") == 143_000,
        pl.col("num_fewshot") == 0,
    )
    found = finals.sort("params_total").collect()
    published = [0.253, 0.244, 0.255, 0.259, 0.269, 0.261, 0.283, 0.268]
    assert found["value"].round(3).to_list() == published
    assert found["n"].unique().to_list() == [14_042]
    # 14,042 documents: an accuracy of a quarter is known to .0037 when documents are pooled
    assert found["stderr"].is_between(0.003, 0.005).all()


@needs_shared
def test_importing_again_changes_nothing(tmp_path):
    folder = PYTHIA / "pythia-70m" / "zero-shot"
    store = Store.create(tmp_path)
    import_lm_eval(folder, store)
    before = store.measurements().collect(), store.cells().collect(), store.checkpoints().collect()
    files = sorted(tmp_path.rglob("*.parquet"))
    report = import_lm_eval(folder, store)
    assert (report.cells_added, report.cells_removed) == (0, 0)
    assert report.cells_unchanged == 27 * 88
    after = store.measurements().collect(), store.cells().collect(), store.checkpoints().collect()
    assert all(a.equals(b) for a, b in zip(before, after, strict=True))
    assert sorted(tmp_path.rglob("*.parquet")) == files


# ---- formats


def test_old_and_new_keys_give_the_same_rows(tmp_path):
    numbers = {"acc": 0.6, "acc_stderr": 0.0490, "acc_norm": 0.7, "acc_norm_stderr": 0.0458}
    today = {f"{key},none": number for key, number in numbers.items()}
    old, new = Store.create(tmp_path / "old"), Store.create(tmp_path / "new")
    args = "pretrained=lab/toy-10m,revision=step100"
    import_lm_eval(old_file(tmp_path / "o.json", {"piqa": numbers}, args=args), old)
    import_lm_eval(
        new_file(
            tmp_path / "n.json",
            {"piqa": today},
            args={"pretrained": "lab/toy-10m", "revision": "step100"},
            shots={"piqa": 0},
            n={"piqa": 101},
        ),
        new,
    )
    columns = ["family", "model", "run", "step", "weights_hash", "subject", "num_fewshot"]
    columns += ["metric", "value", "stderr", "unit"]
    one, other = (s.measurements().select(columns).collect() for s in (old, new))
    assert one.equals(other)
    assert set(one["metric"]) == {"accuracy", "accuracy_per_char", "chance"}


def test_todays_format_shots_samples_filters_and_settings(store, tmp_path):
    results = {
        "gsm8k": {
            "exact_match,flexible-extract": 0.3,
            "exact_match_stderr,flexible-extract": 0.01,
            "exact_match,strict-match": 0.2,
            "exact_match_stderr,strict-match": "N/A",
        },
        "wikitext": {
            "word_perplexity,none": 30.0,
            "word_perplexity_stderr,none": "N/A",
            "bits_per_byte,none": 0.9,
        },
        "lambada_openai": {"perplexity,none": 12.5, "perplexity_stderr,none": 0.4},
    }
    new_file(
        tmp_path / "results.json",
        results,
        args="pretrained=lab/toy-10m,revision=step100,dtype=bfloat16",
        shots={"gsm8k": 8, "wikitext": 0, "lambada_openai": 0},
        n={"gsm8k": 1319, "wikitext": 62, "lambada_openai": 5153},
    )
    import_lm_eval(tmp_path, store)
    assert value(store, "gsm8k", "exact_match") == 0.2
    assert value(store, "gsm8k", "exact_match/flexible-extract") == 0.3
    (strict,) = rows(store, metric="exact_match")
    assert strict["stderr"] is None and strict["n"] == 1319
    assert (strict["num_fewshot"], strict["fewshot_seed"], strict["dtype"]) == (8, 1234, "bfloat16")
    (lambada,) = rows(store, metric="perplexity")
    assert (lambada["num_fewshot"], lambada["fewshot_seed"], lambada["n"]) == (0, None, 5153)
    assert value(store, "wikitext", "bits_per_byte") == 0.9
    assert value(store, "wikitext", "lm_eval/word_perplexity") == 30.0
    measured = store.cells().collect()["measured_at"].unique().to_list()
    assert measured == ["2023-11-14T22:13:20+00:00"]


def test_a_groups_accuracy_is_named_by_how_it_was_averaged(store, tmp_path):
    parts = {"mmlu_virology": {"acc,none": 0.2}, "mmlu_anatomy": {"acc,none": 0.5}}
    pooled = (0.2 * 100 + 0.5 * 300) / 400
    groups = {"pooled": ["mmlu_virology", "mmlu_anatomy"], "odd": ["mmlu_virology"]}
    groups["mean"] = groups["pooled"]
    results = {**parts, "pooled": {"acc,none": pooled}, "mean": {"acc,none": 0.35}}
    results["odd"] = {"acc,none": 0.9}
    new_file(
        tmp_path / "r.json",
        results,
        args="pretrained=lab/toy",
        shots={},
        n={"mmlu_virology": 100, "mmlu_anatomy": 300},
        group_subtasks={**groups, "mmlu_virology": []},
    )
    import_lm_eval(tmp_path, store)
    assert value(store, "pooled", "accuracy_micro") == pooled
    assert value(store, "mean", "accuracy_macro") == 0.35
    assert value(store, "odd", "lm_eval/group_accuracy") == 0.9
    assert not rows(store, subject="mmlu")  # two subjects are not MMLU


def test_mmlu_of_todays_names_joins_its_group(store, tmp_path):
    subjects = {f"mmlu_{s}": {"acc,none": 0.25, "acc_stderr,none": 0.04} for s in MMLU_SUBJECTS}
    new_file(
        tmp_path / "r.json",
        {**subjects, "mmlu": {"acc,none": 0.25}},
        args="pretrained=lab/toy",
        shots={"mmlu": 5},
        n=dict.fromkeys(subjects, 100),
        group_subtasks={"mmlu": sorted(subjects)},
    )
    import_lm_eval(tmp_path, store)
    assert {r["metric"] for r in rows(store, subject="mmlu")} == {
        "accuracy_micro",
        "accuracy_macro",
        "chance",
    }
    (macro,) = rows(store, metric="accuracy_macro")
    assert macro["stderr"] == pytest.approx(0.04 / math.sqrt(57), rel=1e-12)
    assert (macro["n"], macro["num_fewshot"]) == (5700, 5)


def test_a_limited_evaluation_is_a_series_of_its_own(store, tmp_path):
    old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5, "acc_stderr": 0.5 / math.sqrt(999)}})
    limited = {"acc": 0.4, "acc_stderr": math.sqrt(0.4 * 0.6 / 99)}
    old_file(tmp_path / "b.json", {"sciq": limited}, limit=100)
    import_lm_eval(tmp_path, store)
    found = rows(store, subject="sciq", metric="accuracy")
    assert {(row["docs_n"], row["n"]) for row in found} == {(None, 1000), (100, 100)}


def test_places_of_other_suites_and_local_folders(store, tmp_path):
    args = {
        "olmo": "pretrained=allenai/OLMo-2-1124-7B,revision=stage1-step140000-tokens588B",
        "local": "pretrained=/runs/lab/toy/step-250",
        "named": "pretrained=lab/toy-30m-step500",
        "main": "pretrained=lab/other",
    }
    for name, arg in args.items():
        old_file(tmp_path / f"{name}.json", {"sciq": {"acc": 0.5}}, args=arg)
    report = import_lm_eval(tmp_path, store, tokens_per_step=None)
    found = {c["model"]: c for c in store.checkpoints().collect().to_dicts()}
    assert found["OLMo-2-1124-7B"]["step"] == 140_000
    assert found["OLMo-2-1124-7B"]["tokens_seen"] == 588_000_000_000
    assert found["OLMo-2-1124-7B"]["stage"] == "pretrain"
    assert (found["toy"]["step"], found["toy"]["family"]) == (250, "lab")
    assert (found["toy-30m"]["step"], found["toy-30m"]["params_total"]) == (500, 30_000_000)
    assert found["other"]["step"] is None
    assert (report.without_step, report.without_tokens, report.without_params) == (1, 3, 2)
    assert report.nominal_params == ("OLMo-2-1124-7B", "toy-30m")


def test_family_names_and_tokens_can_be_told(store, tmp_path):
    old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5}})
    import_lm_eval(tmp_path, store, family="f", tokens_per_step=1000, rename={"toy-10m": "ten"})
    (row,) = store.checkpoints().collect().to_dicts()
    assert (row["family"], row["model"], row["run"]) == ("f", "ten", "ten")
    assert (row["tokens_seen"], row["params_total"], row["flops"]) == (100_000, 10**7, 6e12)
    # what was once told stays known when it is not told again
    import_lm_eval(tmp_path, store, family="f", rename={"toy-10m": "ten"})
    assert store.checkpoints().collect()["tokens_seen"].to_list() == [100_000]
    with pytest.raises(BadRequest, match="toy-10m"):
        import_lm_eval(tmp_path, store, rename={"toy-10n": "ten"})


def test_logged_samples_become_items(store, tmp_path):
    date = "2024-05-01T12-00-00.123456"
    new_file(
        tmp_path / f"results_{date}.json",
        {"piqa": {"acc,none": 0.5}},
        args="pretrained=lab/toy,revision=step1",
        shots={"piqa": 0},
        n={"piqa": 2},
    )
    lines = [
        {
            "doc_id": i,
            "target": str(i),
            "arguments": {
                f"gen_args_{k}": {"arg_0": "Q", "arg_1": text}
                for k, text in enumerate([" yes", " né"])
            },
            "filtered_resps": [["-1.5", "False"], ["-2.25", "True"]],
            "filter": "none",
            "acc": 1.0,
        }
        for i in (0, 1)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / f"samples_piqa_{date}.jsonl").write_text(text)
    (tmp_path / f"samples_../../piqa_{date}.jsonl".replace("/", "_")).write_text("not read")
    report = import_lm_eval(tmp_path, store)
    assert report.items == 2
    first, second = store.items("piqa").sort("doc").collect().to_dicts()
    assert first["option_loglik"] == [-1.5, -2.25]
    assert (first["gold"], second["gold"]) == ([0], [1])
    assert first["option_chars"] == [3, 2] and first["option_bytes"] == [4, 4]
    assert import_lm_eval(tmp_path, store).items == 0


# ---- corrections and contradictions


def test_a_corrected_file_replaces_its_numbers_and_no_others(store, tmp_path):
    file = old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5}, "wsc": {"acc": 0.4}})
    old_file(tmp_path / "b.json", {"sciq": {"acc": 0.6}}, shots=5)
    import_lm_eval(tmp_path, store)
    old_file(file, {"sciq": {"acc": 0.55}, "wsc": {"acc": 0.4}})
    report = import_lm_eval(tmp_path, store)
    assert (report.cells_added, report.cells_unchanged, report.cells_removed) == (2, 1, 2)
    found = rows(store, metric="accuracy")
    assert sorted((r["subject"], r["num_fewshot"], r["value"]) for r in found) == [
        ("sciq", 0, 0.55),
        ("sciq", 5, 0.6),
        ("wsc", 0, 0.4),
    ]


def test_files_may_repeat_each_other_but_never_contradict(store, tmp_path):
    old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5}})
    old_file(tmp_path / "b.json", {"sciq": {"acc": 0.5, "acc_norm": 0.7}, "wsc": {"acc": 0.4}})
    old_file(tmp_path / "later.json", {"sciq": {"x": 3.0}})
    assert import_lm_eval(tmp_path, store).cells_added == 2
    assert value(store, "sciq", "accuracy_per_char") == 0.7
    assert value(store, "sciq", "lm_eval/x") == 3.0
    assert import_lm_eval(tmp_path, store).cells_unchanged == 2
    old_file(tmp_path / "c.json", {"sciq": {"acc": 0.51}})
    with pytest.raises(BadData, match=r"contradict") as error:
        import_lm_eval(tmp_path, store)
    assert "a.json and 0.51" in str(error.value) and "c.json" in str(error.value)
    assert value(store, "sciq", "accuracy") == 0.5  # nothing was written


# ---- what cannot be right


def test_a_folder_without_result_files_says_what_is_looked_for(store, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "weights.pkl").write_bytes(b"\x80\x04.")
    (empty / "config.json").write_text("{}")
    with pytest.raises(BadData, match="no result file"):
        import_lm_eval(empty, store)
    with pytest.raises(BadData, match="no file or folder") as error:
        import_lm_eval(tmp_path / "emptx", store)
    assert error.value.nearest == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b'{"results": {"sciq": {"acc": 0.5',
        b"\xff\xfe",
        b'{"results": ' + b"[" * 100_000,
        b'{"results": {"a": {"acc": ' + b"9" * 5000 + b"}}}",
        b"",
    ],
)
def test_a_file_that_is_no_json_is_named(store, tmp_path, data):
    (tmp_path / "broken.json").write_bytes(data)
    old_file(tmp_path / "good.json", {"sciq": {"acc": 0.5}})
    with pytest.raises(BadData, match=r"broken\.json"):
        import_lm_eval(tmp_path, store)
    assert store.cells().collect().height == 0


def test_other_json_files_are_skipped_and_named(store, tmp_path):
    old_file(tmp_path / "good.json", {"sciq": {"acc": 0.5}})
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text('{"results": 3}')
    assert import_lm_eval(tmp_path, store).skipped == ("list.json", "other.json")


def test_nan_and_endless_values_are_kept_and_counted(store, tmp_path):
    text = '{"results": {"t": {"ppl": Infinity, "acc": NaN, "x": 1e999, "y": 1%s, "z": true}},'
    text += '"config": {"model_args": "pretrained=a/b"}}'
    (tmp_path / "a.json").write_text(text % ("0" * 400))
    assert import_lm_eval(tmp_path, store).not_finite == 4
    found = {row["metric"]: row["value"] for row in rows(store, subject="t")}
    assert math.isnan(found["accuracy"]) and found["perplexity"] == math.inf
    assert set(found) == {"accuracy", "perplexity", "lm_eval/x", "lm_eval/y"}


def test_a_percentage_is_refused_with_a_hint(store, tmp_path):
    old_file(tmp_path / "a.json", {"sciq": {"acc": 55.0}})
    with pytest.raises(BadData, match="divide by 100") as error:
        import_lm_eval(tmp_path, store)
    assert "a.json" in str(error.value) and "sciq" in str(error.value)


def test_a_file_that_names_no_model_is_refused(store, tmp_path):
    old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5}}, args="revision=step1")
    with pytest.raises(BadData, match="which model"):
        import_lm_eval(tmp_path, store)


def test_hostile_names_stay_plain_data(store, tmp_path):
    names = ["../../etc/passwd", "<script>", "a\x00b", "\ud800", "'; DROP TABLE", "*", "x" * 5000]
    results = {name: {"acc": 0.5, "__class__": 1.0} for name in names}
    old_file(tmp_path / "a.json", results, args="pretrained=../../..//evil<b>,revision=../../x")
    before = sorted(p for p in tmp_path.rglob("*"))
    import_lm_eval(tmp_path / "a.json", store)
    new = [p for p in tmp_path.rglob("*") if p not in before]
    assert all(store.path in p.parents for p in new)
    found = {row["subject"] for row in rows(store, metric="accuracy")}
    assert found == {*names} - {"\ud800"} | {"\\ud800"}
    (point,) = store.checkpoints().collect().to_dicts()
    assert (point["model"], point["step"]) == ("evil<b>", None)


def test_absurd_numbers_in_settings_become_unknown(store, tmp_path):
    args = f"pretrained=lab/toy,revision=step{10**30}"
    old_file(tmp_path / "a.json", {"sciq": {"acc": 0.5}}, args=args, shots=10**30)
    report = import_lm_eval(tmp_path, store)
    assert report.without_step == 1
    assert rows(store, metric="accuracy")[0]["num_fewshot"] is None
    with pytest.raises(BadRequest, match="tokens per step"):
        import_lm_eval(tmp_path, store, tokens_per_step=0)
