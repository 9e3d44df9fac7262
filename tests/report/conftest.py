"""Pages of the small stores, each written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoloss.report import ReportSummary, write
from report import stores


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ReportSummary]]:
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    builds = (stores.trained, stores.hostile, stores.proxied, stores.without_loss, stores.patchy)
    for build in builds:
        store = build(folder / build.__name__)
        page = folder / f"{build.__name__}.html"
        made[build.__name__] = (page, write(store, page))
    return made
