"""Settings every test relies on: no network, no progress bars; and README's commands, run once."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from readme import BLOCKS, ROOT
from shared_data import SHARED
from studio import make_studio

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def readme_folder(tmp_path_factory) -> Path:
    """A folder in which README's commands were run, one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    for kind, text in BLOCKS:
        for line in text.strip().splitlines() if kind == "console" else ():
            program, *words = shlex.split(line)
            assert program == "isoloss"
            words = [str(ROOT / w) if w.startswith("examples/") else w for w in words]
            words = [w.replace("../shared/data", str(SHARED)) for w in words]
            result = subprocess.run(
                [sys.executable, "-m", "isoloss.cli", *words],
                cwd=folder, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            assert result.returncode == 0, f"{line}\n{result.stderr}"
    return folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """A folder with a trained family of two sizes, a text, a task and study.toml."""
    return make_studio(tmp_path_factory.mktemp("studio"))
