"""The command line: its surface, its exit statuses, and JSON that is nothing but JSON."""

import json
import shutil
import subprocess
import sys

import pytest
import typer

from isoloss import cli
from isoloss.console import plain, print_object

SURFACE = {
    "check": {"--against", "--bos", "--json", "--quiet", "--study"},
    "compare": {"--at", "--by", "--corpus", "--family", "--json", "--level", "--loss", "--metric",
                "--num-fewshot", "--params", "--quiet", "--task", "--tokens"},
    "demo": {"--out", "--quiet", "--verbose"},
    "export": {"--dry-run", "--json", "--out", "--quiet", "--to"},
    "forecast": {"--backtest", "--family", "--far", "--json", "--keep", "--keep-saturated",
                 "--level", "--loss", "--metric", "--num-fewshot", "--params", "--quiet", "--reach",
                 "--task", "--tokens", "--variant"},
    "fit emergence": {"--chance", "--constant-answer", "--exponent", "--json", "--loss",
                      "--lower-is-better", "--margin", "--n-items", "--quiet", "--run", "--score",
                      "--seed", "--where"},
    "fit loss-law": {"--fixed", "--form", "--interval", "--json", "--level", "--loss", "--params",
                     "--quiet", "--rule", "--run", "--schedule-progress", "--seed", "--starts",
                     "--tokens", "--unfinished", "--where"},
    "fit saturation": {"--alpha", "--draws", "--json", "--loss", "--margin", "--quiet", "--run",
                       "--seed", "--sibling", "--siblings", "--start", "--tokens", "--where"},
    "fit task-law": {"--form", "--interval", "--json", "--level", "--loss", "--n-items",
                     "--quiet", "--run", "--score", "--score-is", "--seed", "--through", "--where"},
    "import lm-eval": {"--dry-run", "--family", "--json", "--out", "--quiet", "--rename",
                       "--tokens-per-step"},
    "import log": {"--column", "--dry-run", "--family", "--json", "--model", "--out", "--quiet",
                   "--run", "--tokens-per-step"},
    "import table": {"--column", "--dry-run", "--family", "--json", "--loss", "--out", "--quiet",
                     "--score"},
    "init": set(),
    "ls": {"--json", "--revision"},
    "plan": {"--calibrate", "--gpu", "--json", "--only", "--out", "--price", "--quiet",
             "--workers"},
    "pretrain": {"--device", "--dry-run", "--json", "--out", "--processes", "--quiet"},
    "report": {"--figures", "--format", "--json", "--language", "--loss", "--no-laws", "--out",
               "--quiet"},
    "run": {"--address", "--context", "--corpus", "--device", "--devices", "--document",
            "--dry-run", "--dtype", "--engine", "--every", "--follow", "--follow-until",
            "--include-path", "--json", "--limit", "--model", "--num-fewshot", "--on-change",
            "--only", "--out", "--quiet", "--revision", "--set", "--shard", "--steps", "--tasks",
            "--verbose"},
    "serve": {"--host", "--loss", "--no-laws", "--port", "--token", "--token-file"},
    "sql": {"--json"},
    "status": {"--json"},
    "study": {"--dry-run", "--json", "--out", "--processes", "--quiet", "--scale", "--text",
              "--verbose"},
}  # fmt: skip


def surface(command, prefix=""):
    found = {}
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            found |= surface(inner, f"{prefix}{name} ")
        else:
            options = {o for p in inner.params for o in p.opts if o.startswith("--")}
            found[prefix + name] = options - {"--help"}
    return found


def isoloss(*words, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "isoloss.cli", *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_commands_and_options_are_the_listed_ones():
    assert surface(typer.main.get_command(cli.app)) == SURFACE


def test_every_command_stands_in_the_docs(request):
    text = (request.config.rootpath / "docs" / "commands.md").read_text()
    for name in SURFACE:
        assert f"isoloss {name}" in text, name


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["run"], "takes a study file, or --model"),
        (["run", "nowhere.toml"], "cannot read the file"),
        (["run", "--model", "nowhere/at/all", "--tasks", "a"], "no such model"),
        (["run", "--model", "."], "nothing to measure"),
        (["report", "nowhere"], "no store"),
        (["sql", "nowhere", "SELECT 1"], "no store"),
        (["ls", "nowhere-at-all"], ""),
        (["import", "table", "x.csv", "--family", "f", "--out", "R", "--column", "model"],
         "not understood"),
        (["init", "study.txt"], "the file to write"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_clear_error_with_status_2_and_writes_nothing(words, what, tmp_path):
    result = isoloss(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert what in result.stderr
    assert "Traceback" not in result.stderr
    assert "try:" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_studio_from_the_command_line(studio, tmp_path):
    study = studio / "study.toml"
    dry = isoloss("run", study, "--out", tmp_path / "RUN", "--dry-run", "--json")
    assert sum(item["pending"] for item in json.loads(dry.stdout)["items"]) == 24
    assert not (tmp_path / "RUN").exists()
    done = isoloss("run", study, "--out", tmp_path / "RUN", "--json")
    assert json.loads(done.stdout)["done"] == 24, done.stderr
    page = isoloss("report", tmp_path / "RUN", "--out", tmp_path / "page.html", "--json")
    assert page.returncode == 0, page.stderr
    assert json.loads(page.stdout)
    assert (tmp_path / "page.html").stat().st_size > 100_000
    rows = isoloss("sql", tmp_path / "RUN", "SELECT step, value FROM measurements", "--json")
    assert len(json.loads(rows.stdout)) > 24
    listed = isoloss("ls", tmp_path / "RUN", "--json")
    assert len(json.loads(listed.stdout)) == 6
    told = json.loads(isoloss("status", tmp_path / "RUN", "--json").stdout)
    # and the training loss at the two checkpoints after step 0 of both runs
    assert (told["checkpoints"], told["cells"], told["failed"]) == (6, 24 + 4, 0)


def test_the_form_without_a_file_measures_and_keeps_the_study_it_means(studio, tmp_path):
    run = next(p for p in sorted((studio / "family").iterdir()) if (p / "log.parquet").exists())
    words = ["run", "--model", f"{run}/step-*", "--steps", "2,6", "--corpus",
             studio / "heldout.txt", "--document", "line", "--tasks",
             studio / "continuation.jsonl", "--limit", "10", "--out", tmp_path / "RUN"]  # fmt: skip
    done = isoloss(*words, "--json")
    # 2 checkpoints x (fingerprint, token loss, task score)
    assert json.loads(done.stdout)["done"] == 6, done.stderr
    again = isoloss("run", tmp_path / "RUN" / "study.toml", "--out", tmp_path / "RUN", "--json")
    assert json.loads(again.stdout)["finished_before"] == 6, again.stderr


def test_a_failed_cell_gives_status_1_and_is_named(studio, tmp_path):
    copy = shutil.copytree(studio, tmp_path / "studio")
    run = next(p for p in sorted((copy / "family").iterdir()) if (p / "log.parquet").exists())
    (run / "step-00000002" / "config.json").write_text("{")
    result = isoloss("run", copy / "study.toml", "--out", tmp_path / "RUN", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["failed"] == 1
    assert f"{run.name}@2" in result.stderr
    again = isoloss("run", copy / "study.toml", "--out", tmp_path / "RUN")
    assert f"next: isoloss status {tmp_path / 'RUN'} (what failed" in again.stdout
    told = isoloss("status", tmp_path / "RUN").stdout
    assert "config.json" in told and "\ufffd" not in told


def test_init_writes_a_study_that_loads_and_never_overwrites(studio, tmp_path):
    run = next(p for p in sorted((studio / "family").iterdir()) if (p / "log.parquet").exists())
    for words in ([tmp_path / "a.toml"], [run, tmp_path / "b.toml"]):
        assert isoloss("init", *words).returncode == 0
    from isoloss.study import Study

    assert Study.load(tmp_path / "a.toml").family[0].model[0].hub == "EleutherAI/pythia-70m"
    study = Study.load(tmp_path / "b.toml")
    assert study.path(study.family[0].model[0].checkpoints).parent.samefile(run)
    assert isoloss("init", tmp_path / "a.toml").returncode == 2


FAMILY = """\
name = "tiny"
[language]
kind = "hmm"
vocab = 12
states = 3
length = 6
[train]
batch = 8
steps = 4
checkpoints = []
evaluate = 10
[[grid]]
width = 8
depth = 1
"""


def test_pretrain_tells_speed_distance_and_waiting_beside_its_json(tmp_path):
    (tmp_path / "family.toml").write_text(FAMILY)
    done = isoloss("pretrain", "family.toml", "--out", "family", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"family": "tiny", "runs": 1, "out": "family"}, done.stderr
    (line,) = done.stderr.strip().splitlines()
    for part in ("gpt-neox-w8-d1-seed0: ", " tokens/s ", " above the optimum, ", "waited for data"):
        assert part in line
    (tmp_path / "family.toml").write_text(FAMILY.replace("steps = 4", "steps = 6"))
    longer = isoloss("pretrain", "family.toml", "--out", "family", "--quiet", cwd=tmp_path)
    assert (longer.returncode, longer.stderr) == (0, "")
    assert (tmp_path / "family/gpt-neox-w8-d1-seed0/step-00000006").is_dir()


def test_lists_are_printed_one_item_a_line(capsys):
    record = {"answers": ["One thing.", "Another\x1b[31m thing."], "refused": (), "cells": 3}
    print_object(record, False, "next")
    assert capsys.readouterr().out.splitlines() == [
        "answers:", "  One thing.", f"  {plain('Another' + chr(27) + '[31m thing.')}",
        "refused: none", "cells: 3", "next",
    ]  # fmt: skip
