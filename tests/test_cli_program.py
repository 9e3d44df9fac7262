"""The command line as people expect it: help, completion, pipes, progress, Ctrl-C, dry runs."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import numpy as np
import pytest
import typer

from isoloss import cli, cli_words
from isoloss.console import Terminal
from isoloss.errors import BadRequest
from isoloss.steps import steps, watched
from terminal import on_terminal

PROGRAM = typer.main.get_command(cli.app)
TRAINED = """\
name = "tiny"
[language]
kind = "hmm"
vocab = 12
states = 3
length = 6
[train]
batch = 8
steps = 200_000
checkpoints = [0, 50]
[[grid]]
width = 8
depth = 1
seed = [0, 1]
"""


def commands(group, names=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


def isoloss(*words, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "isoloss.cli", *map(str, words)], cwd=cwd, capture_output=True,
        text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


# ---- help


@pytest.mark.parametrize(("names", "command"), list(commands(PROGRAM)), ids=lambda x: str(x)[:40])
def test_every_command_has_an_example_that_parses(names, command):
    examples = [" ".join(text.split()) for text in re.findall(r"`(isoloss [^`]+)`", command.help)]
    told = [example for example in examples if example.startswith(f"isoloss {' '.join(names)}")]
    assert "Example" in command.help and told
    for example in told:
        words = shlex.split(example)[1 + len(names) :]
        command.make_context(" ".join(names), words)  # raises where an option is none of its own


@pytest.mark.parametrize(("names", "command"), list(commands(PROGRAM)), ids=lambda x: str(x)[:40])
def test_every_argument_and_option_is_explained(names, command):
    assert [param.name for param in command.params if not param.help] == []


@pytest.mark.parametrize("names", [(), ("run",), ("fit", "emergence")])
def test_the_help_names_no_type_for_a_flag(names):
    told = isoloss(*names, "--help", COLUMNS="100").stdout
    assert "--help" in told and "<bool>" not in told


def test_sizes_are_read_as_people_write_them():
    assert [cli_words.quantity(text) for text in ("7e9", "7B", "410m", "0.5T", "20k")] == [
        7e9, 7e9, 410e6, 0.5e12, 20e3,
    ]  # fmt: skip
    for wrong in ("", "B", "7BB", "7 GB"):
        with pytest.raises(BadRequest) as error:
            cli_words.quantity(wrong)
        assert "7B" in error.value.nearest


def test_a_folder_that_is_not_there_is_looked_for_on_no_hub(tmp_path):
    (tmp_path / "runs" / "7b").mkdir(parents=True)
    for asked, meant in (("runs/7bb", "runs/7b"), ("rnus", "runs")):
        told = isoloss("ls", asked, cwd=tmp_path)
        assert told.returncode == 2
        assert f"there is no folder {asked}" in told.stderr and f"nearest: {meant}\n" in told.stderr


def test_version_and_help_alone_are_no_errors():
    told = isoloss("--version")
    assert (told.returncode, told.stdout) == (0, f"isoloss {cli.__version__}\n")
    alone = isoloss()
    assert alone.returncode == 0
    assert all(name in alone.stdout for name in ("demo", "init", "run", "report", "import"))


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["reprot"], "report"),
        (["fit", "emergance"], "emergence"),
        (["run", "--modle", "x"], "--model"),
        (["study", "emergnce"], "emergence"),
        (["export", "RUN", "--to", "lmeval"], "lm-eval"),
    ],
)
def test_what_is_misspelt_gets_the_nearest_name(words, nearest):
    result = isoloss(*words)
    assert result.returncode == 2
    assert f"  nearest: {nearest}" in result.stderr.splitlines() or "no store" in result.stderr
    assert "  try:" in result.stderr


def test_a_misspelt_key_of_a_study_gets_the_nearest_one(tmp_path):
    (tmp_path / "study.toml").write_text('nme = "x"\n')
    assert "  nearest: name" in isoloss("plan", "study.toml", cwd=tmp_path).stderr


@pytest.fixture(scope="module")
def measured(studio, tmp_path_factory):
    """A store of the studio's study, and the name of its first run."""
    from isoloss import Store, Study, run

    out = tmp_path_factory.mktemp("measured") / "RUN"
    run(Study.load(studio / "study.toml"), out=out)
    return out, Store(out).checkpoints().collect()["run"][0]


# ---- completion


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The program under its own name, which decides the variable that shells set."""
    path = tmp_path_factory.mktemp("bin") / "isoloss"
    path.write_text(f"#!{sys.executable}\nfrom isoloss.cli import main\nmain()\n")
    path.chmod(0o755)
    return path


def complete(script, line, cwd=None):
    words = line.split(" ")
    done = subprocess.run(
        [script], cwd=cwd, capture_output=True, text=True, timeout=60,
        env={**os.environ, "_ISOLOSS_COMPLETE": "complete_bash", "COMP_WORDS": line,
             "COMP_CWORD": str(len(words) - 1)},
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("isoloss re", ["report"]),
        ("isoloss fit em", ["emergence"]),
        ("isoloss study e", ["emergence"]),
        ("isoloss study emergence --scale s", ["small"]),
        ("isoloss run s.toml --only token", ["token_loss"]),
        ("isoloss run s.toml --dry", ["--dry-run"]),
        ("isoloss export RUN --to lm", ["lm-eval"]),
        ("isoloss fit task-law f.csv --form s", ["sigmoid"]),
    ],
)
def test_names_are_completed(script, line, offered):
    assert complete(script, line) == offered


def test_checkpoints_and_tasks_of_a_store_are_completed(script, measured):
    store, run = measured
    assert complete(script, f"isoloss compare {store} {run}@", store.parent) == [
        f"{run}@{step}" for step in (0, 2, 6)
    ]
    assert complete(script, f"isoloss forecast {store} --task con") == ["continuation"]
    assert complete(script, "isoloss compare nowhere a") == []


def test_completed_names_are_those_that_exist():
    from isoloss.engine.throughput import GPUS
    from isoloss.studies import recipe

    assert set(cli_words.STUDY_NAMES) == set(recipe.STUDIES)
    assert cli_words.SCALES == recipe.SCALES
    assert set(cli_words.GPUS) <= set(GPUS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_asks_the_program(script, shell):
    done = subprocess.run([script, "--show-completion", shell], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_"
                                           "DETECTION": "1"})  # fmt: skip
    assert f"_ISOLOSS_COMPLETE=complete_{shell}" in done.stdout


def test_help_and_completion_load_nothing_heavy():
    code = (
        "import sys; sys.argv = ['isoloss', '--help']\nfrom isoloss import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'polars', 'scipy', 'lm_eval', 'altair', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


# ---- progress


def test_steps_are_told_only_where_somebody_watches():
    told = []
    assert list(steps("squares", [1, 2])) == [1, 2]
    with watched(lambda *words: told.append(words)):
        assert list(steps("squares", [1, 2])) == [1, 2]
        assert list(steps("nothing", [])) == []
        assert list(steps("nothing", np.zeros(0))) == []  # an array has no truth of its own
    assert told == [("squares", 0, 2), ("squares", 1, 2), ("squares", 2, 2)]


def test_without_a_terminal_there_is_a_line_at_times_with_the_time_left(capsys):
    with Terminal(every=0.05):
        for _ in steps("asking the laws", range(4)):
            time.sleep(0.03)
    lines = capsys.readouterr().err.splitlines()
    # told at 0, 30, 60, 90 ms: the first line comes after 50 ms, the second 50 ms later
    assert 1 <= len(lines) <= 2
    assert re.fullmatch(r"asking the laws: [23] of 4, about \d s left", lines[0])


def test_quiet_says_nothing_but_failures(capsys):
    with Terminal(quiet=True, every=0) as terminal:
        terminal.start(cells=2, finished=0)
        terminal.checkpoint("a@1")
        terminal.done("a@1 loss")
        terminal.failed("a@1 task", "no room")
    assert capsys.readouterr().err.split() == ["failed", "a@1", "task:", "no", "room"]


def test_a_run_on_a_terminal_draws_a_bar_and_its_result_stays_clean(studio, tmp_path):
    words = ["run", studio / "study.toml", "--out", "RUN", "--json"]
    shown = on_terminal(*words, cwd=tmp_path)
    assert shown.status == 0, shown.screen
    assert json.loads(shown.stdout)["done"] == 24
    assert "24 cells to measure" in shown.screen
    assert re.search(r"\d+/24", shown.screen) and "left" in shown.screen
    assert "\x1b[" in shown.screen
    again = on_terminal(*words, cwd=tmp_path, TERM="dumb", NO_COLOR="1")
    assert again.status == 0
    assert "\x1b[" not in again.screen
    assert "\x1b[" not in again.stdout


def test_colour_is_left_out_where_it_is_not_wanted(tmp_path):
    for wish in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = on_terminal("reprot", cwd=tmp_path, **wish)
        assert (shown.status, "\x1b[3" in shown.screen) == (2, False)


# ---- dry runs


def test_a_dry_run_tells_and_writes_nothing(studio, measured, tmp_path):
    store, _ = measured
    before = sorted(p for p in store.rglob("*"))
    (tmp_path / "family.toml").write_text(TRAINED)
    (tmp_path / "scores.csv").write_text("model,step,arc\na,1,0.5\na,2,0.6\n")
    table = ["scores.csv", "--family", "f", "--column", "model=model", "--column", "step=step",
             "--score", "arc=arc:accuracy", "--out", "RUN"]  # fmt: skip
    here = sorted(tmp_path.iterdir())
    trained = json.loads(
        isoloss("pretrain", "family.toml", "--dry-run", "--json", cwd=tmp_path).stdout
    )
    # 200,000 steps of 8 sentences of 6 words
    assert [run["tokens"] for run in trained["runs"]] == [9_600_000] * 2
    imported = json.loads(
        isoloss("import", "table", *table, "--dry-run", "--json", cwd=tmp_path).stdout
    )
    assert imported["cells_added"] == 2
    exported = json.loads(
        isoloss("export", store, "--to", "csv", "--out", "there", "--dry-run", "--json",
                cwd=tmp_path).stdout
    )  # fmt: skip
    assert (exported["out"], exported["files"]) == ("there", 1)
    planned = isoloss("study", "emergence", "--dry-run", cwd=tmp_path)
    assert "runs," in planned.stdout
    assert sorted(tmp_path.iterdir()) == here
    assert sorted(p for p in store.rglob("*")) == before
