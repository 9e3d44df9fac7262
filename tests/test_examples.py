"""The example notebooks run from top to bottom and print what their texts promise."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ("which_checkpoint", "follows_the_loss", "flat_or_saturated")


def ran(name, *words):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *words], capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_short_and_in_cells(name):
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert 3 <= text.count("\n# %%") <= 6
    assert len(text.splitlines()) < 90
    assert f"examples/{name}.py" in (ROOT / "docs" / "notebook.md").read_text()


def test_which_checkpoint_finds_the_later_one_better(tmp_path):
    out = ran("which_checkpoint", tmp_path)
    gap = re.search(r"heldout: (\S+) \+- (\S+) nats", out)
    # 100 more steps of training lower the loss by much more than the error of the difference
    assert float(gap[1]) < -3 * float(gap[2])
    assert (tmp_path / "ability.svg").stat().st_size > 1_000


def test_follows_the_loss_finds_the_planted_threshold_and_the_true_score():
    out = ran("follows_the_loss")
    assert out.startswith("collapses")
    assert "verdict=threshold" in out
    low, high = map(float, re.search(r"\bci=(\S+), (\S+),", out).groups())
    assert low < 2.5 < high and high - low < 0.2
    score, least, most = map(float, re.search(r"score (\S+) \[(\S+), (\S+)\]", out).groups())
    truth = float(re.search(r"truth (\S+)", out)[1])
    assert least < truth < most and least < score < most


def test_flat_or_saturated_prints_traces_with_their_errors_and_a_verdict(tmp_path):
    out = ran("flat_or_saturated", tmp_path)
    traces = re.findall(r"^│ (\d+) +┆ (\S+) +┆ (\S+) +┆ (\d+) ", out, re.M)
    # the last two checkpoints; up to 40 products of the Hessian with a random vector
    assert [step for step, *_ in traces] == ["60", "500"]
    assert all(
        float(value) > 0 and 0 < float(error) and int(n) <= 40 for _, value, error, n in traces
    )
    assert re.search(r"^(saturated|still improving|flat|undetermined) - ", out, re.M)


def test_the_code_of_the_page_on_notebooks_runs(studio, tmp_path):
    text = (ROOT / "docs" / "notebook.md").read_text()
    blocks = re.findall(r"<!-- tested: tests/test_examples.py -->\n```python\n(.*?)```", text, re.S)
    assert len(blocks) == 3
    for name in ("family", "study.toml", "heldout.txt", "continuation.jsonl"):
        (tmp_path / name).symlink_to(studio / name)
    code = "if __name__ == '__main__':\n" + indent("\n".join(blocks), "    ")
    (tmp_path / "cells.py").write_text(code)
    done = subprocess.run([sys.executable, "cells.py"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^asking the laws: 0 of \d+$", done.stdout, re.M)
    for name in ("ability.svg", "loss.svg", "report.html"):
        assert (tmp_path / name).stat().st_size > 1_000
