"""README's code blocks that are marked as tested, and its table for users of lm-eval."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- tested: tests/test_readme.py -->\n```(\w+)\n(.*?)```", _TEXT, re.DOTALL)
HARNESS_ROWS = re.findall(r"^\| `(?:lm_eval|for s in)[^|]*\| `(isoloss [^`]*)` \|$", _TEXT, re.M)
