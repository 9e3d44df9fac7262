"""The folders in which the docs' commands are run, and the names that their Python finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from typer.testing import CliRunner

from docs_blocks import ROOT, Block, commands, missing
from isoloss import demo
from isoloss.cli import app
from isoloss.errors import IsolossError

STEPS = 24
"""Training steps of the demo here; 2,000 in the docs."""

SMALL = {
    "FAMILY": {"steps = 2000": f"steps = {STEPS}", "batch = 128": "batch = 8",
               "log = 12, first = 20": "log = 4, first = 4"},
    "STUDY": {"sentences = 500": "sentences = 20", "sentences = 2000": "sentences = 200"},
}  # fmt: skip


SHORTER = {
    "products=100": "products=8",
    "probes=10, products_per_probe=80": "probes=2, products_per_probe=8",
    "relative_error=0.02": "relative_error=1.0",
    "ranks=[32, 64, 128, 256]": "ranks=[2, 4]",
    "range(1, 20)": "range(1, 3)",
}
"""What the Python of the docs asks for, and what is enough to see it run."""


def shorter(code: str) -> str:
    """Python of the docs with fewer passes over the model."""
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


def shrink_demo(monkeypatch) -> None:
    """Let the demo train for seconds: fewer steps, sentences and questions, the same names."""
    for name, changes in SMALL.items():
        text = getattr(demo, name)
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        monkeypatch.setattr(demo, name, text)
    monkeypatch.setattr(demo, "SENTENCES", 40)
    monkeypatch.setattr(demo, "ITEMS", 40)


def told_here(words: list[str]) -> tuple[int, str]:
    """Exit status and all output of a command line, run in the current folder."""
    if words[0] != "isoloss":
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr
    result = CliRunner().invoke(app, words[1:])
    if isinstance(result.exception, IsolossError):
        told = f"{type(result.exception).__name__}: {result.exception}"
        return 2, f"{result.output}\n{told}"
    return result.exit_code, f"{result.output}\n{result.exception or ''}"


def run_block(block: Block, told: Callable[[list[str]], tuple[int, str]] = told_here) -> None:
    """Run a console block's commands and hold what is printed against the block behind it.

    A block whose output is an error of ours, with its remedy, must fail with status 2.
    """
    printed = ""
    wanted = 2 if block.printed is not None and "try:" in block.printed else 0
    for words in commands(block.text):
        if words[:2] == ["isoloss", "study"] and "--dry-run" not in words:
            words = [*words, "--dry-run"]  # the whole study takes half an hour
        status, output = told(words)
        assert status == wanted, f"{block.page}: {words}\n{output}"
        printed += output
    if block.printed is not None:
        assert missing(block.printed, printed) == [], printed


def prepare(page: str, folder: Path) -> None:
    """Put the files that a page speaks of into a folder which holds the demo."""
    if page in _MAKERS:
        _MAKERS[page](folder)


def _results(folder: Path) -> None:
    words = ["export", str(folder / "demo" / "RUN"), "--to", "lm-eval", "--out", "results"]
    assert CliRunner().invoke(app, words).exit_code == 0


def _log(folder: Path) -> None:
    steps = np.arange(400)
    frame = pl.DataFrame({"step": steps, "train/lm_loss": 3 + 10 / (steps + 9)})
    frame.write_csv(folder / "log.csv")


def _forecast(folder: Path) -> None:
    from forecast_families import family, store_of

    store_of(family(checkpoints=8), folder / "RUN")


def _digitised(folder: Path) -> None:
    rows = [
        {"model": f"m{i}", "tokens": 1e9 * k, "params": 1e9 * i, "loss": 3 - 0.2 * i - 0.1 * k,
         "loss_se": 0.01, "task": "quiz", "metric": "accuracy", "score": 0.2 * i + 0.05 * k,
         "score_se": 0.01}
        for i in (1, 2)
        for k in (1, 2, 3)
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "read.csv")


def _store(folder: Path) -> None:
    shutil.copytree(folder / "demo" / "RUN", folder / "RUN", dirs_exist_ok=True)


def _texts(folder: Path) -> None:
    for name in ("en.txt", "zh.txt", "darwin.txt", "input.txt"):
        passages = (f"{name} tells of {i} beetles in the wood.\n\n" for i in range(4000))
        (folder / name).write_text("".join(passages))


def _family(folder: Path) -> None:
    from studio import FAMILY

    # a single run is trained in this process
    (folder / "family.toml").write_text(FAMILY.replace("width = [8, 16]", "width = 8"))


def _examples(folder: Path) -> None:
    (folder / "examples").symlink_to(ROOT / "examples")


def _labelled(folder: Path) -> None:
    (folder / "sst2").mkdir()
    rows = [{"sentence": f"w{i % 12} w{i % 5} w{i % 7}", "label": i % 2} for i in range(80)]
    for name in ("train", "dev"):
        lines = (json.dumps(row) + "\n" for row in rows)
        (folder / "sst2" / f"{name}.jsonl").write_text("".join(lines))
    shutil.copytree(_last(folder, "llama-w16"), folder / "runs" / "step-01000")


_MAKERS: dict[str, Callable[[Path], None]] = {
    "lm-eval.md": _results,
    "stopped.md": _log,
    "forecast.md": _forecast,
    "page.md": _digitised,
    "store.md": _store,
    "last-layer.md": _store,
    "emergence.md": _texts,
    "trajectories.md": _texts,
    "saturation.md": _texts,
    "pretrain.md": _family,
    "plan.md": _examples,
    "transfer.md": _labelled,
}


def names_for(page: str, folder: Path) -> dict[str, Any]:
    """What the Python blocks of a page take as given: a model, batches, a store."""
    if page in {"tokens.md", "sequences.md"}:
        from isoloss.store import Store
        from token_stores import planted, put_run

        store = Store.create(folder / "TOKENS")
        for seed, model in enumerate(("small", "large")):
            put_run(store, planted(200, 16, seed), model=model, corpus="heldout")
        return {"store": store}
    if page not in {"flatness.md", "heads.md", "watch.md", "transfer.md"}:
        return {}
    from transformers import AutoModelForCausalLM

    from curvature_models import causal_batches, tiny_model

    small = AutoModelForCausalLM.from_pretrained(_last(folder, "llama-w16"))
    large = AutoModelForCausalLM.from_pretrained(_last(folder, "llama-w32"))
    rows = 40 if page == "heads.md" else 2  # its heads are trained on batches of 256 tokens
    batches = causal_batches((rows, rows))
    return {
        "model": tiny_model(width=4), "small": small, "large": large,
        "batches": batches, "other_batches": causal_batches((rows, rows), seed=2),
        "ids": batches[0]["input_ids"], "folder": folder, "loader": batches, "loss": 2.0,
        "Trainer": _trainer,
    }  # fmt: skip


def _trainer(*_: object, callbacks: list[Any]) -> list[Any]:
    return callbacks


def _last(folder: Path, run: str) -> Path:
    (found,) = (folder / "demo" / "family").glob(f"{run}*")
    return sorted(found.glob("step-*"))[-1]


DRIVER = """
import json, sys
from docs_workshop import told_here
print(json.dumps([told_here(words) for words in json.load(sys.stdin)]))
"""


def told_in_a_process(
    lines: list[list[str]], folder: Path, environment: dict[str, str]
) -> list[tuple[int, str]]:
    """Status and output of several command lines in one process that reads the environment anew."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(lines), cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return [(status, output) for status, output in json.loads(done.stdout)]
