"""README's commands and its ten lines run as printed."""

import subprocess
import sys

import pytest

from isoloss.store import Store
from readme import BLOCKS, ROOT
from shared_data import needs_shared

pytestmark = needs_shared


def test_the_commands_of_readme_write_their_pages(readme_folder):
    assert (readme_folder / "report.html").stat().st_size > 100_000
    page = (readme_folder / "pythia.html").read_text(encoding="utf-8")
    assert "proxy: perplexity on other documents" in page


def test_the_ten_lines_of_readme_print_the_table(readme_folder):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    assert len(code.strip().splitlines()) <= 12
    code = code.replace("examples/stories.toml", str(ROOT / "examples/stories.toml"))
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=readme_folder, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert "bits_per_byte" in result.stdout


def test_the_losses_of_the_two_stories_models_are_near_the_published_ones(readme_folder):
    table = Store(readme_folder / "RUN").measurements().collect()
    rows = table.filter(subject="tinystories", metric="loss_nats_per_token")
    loss = dict(zip(rows["model"], rows["value"], strict=True))
    # published: 1.25 and 1.92 on BOS + first 256 tokens of each story; here whole stories
    assert loss["stories-260k"] == pytest.approx(1.25, abs=0.05)
    assert loss["tinyllama-xs"] == pytest.approx(1.92, abs=0.05)
