"""Where the shared test material lies, and the mark that skips a test where it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared test material (../shared/data) is not on this machine"
)
