"""README's code blocks that are marked as tested."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"<!-- tested: tests/test_readme.py -->\n```(\w+)\n(.*?)```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
