"""How fast a page of 1,300 checkpoints and 60 tasks answers in Chromium.

    python -m benchmarks.page PAGE.html

The page is one of ``benchmarks.large`` (``isoloss report RUN --no-laws``). Timed are the first
figures from the moment the file is opened, and a change of the axis until the figures in view are
painted. The processor's seconds of the page's own script stand beside: they vary less with the
machine's load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

CHROMIUM = "/usr/bin/chromium"
WINDOWS = ((1024, 900), (1920, 1080))
_KEYS = ("flops", "loss", "step", "tokens_seen", "loss", "flops")
_IN_VIEW = """(kind) => [...document.querySelectorAll(kind)].filter((figure) => {
    const box = figure.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
})"""
_READY = f"""() => {{
    const all = ({_IN_VIEW})('.panel');
    return all.length && all.every((figure) => figure.dataset.x);
}}"""
_SWITCH = f"""async (key) => {{
    const start = performance.now();
    const choice = document.getElementById('x');
    choice.value = key;
    choice.dispatchEvent(new Event('change', {{ bubbles: true }}));
    const all = ({_IN_VIEW})('.panel[data-kind=series]');
    while (!all.every((figure) => figure.dataset.x === key)) {{
        await new Promise((go) => setTimeout(go));
    }}
    await new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
    return [all.length, (performance.now() - start) / 1000];
}}"""


def rows(page: Path) -> Iterator[Row]:
    """Two rows a size of the window.

    Args:
        page: an HTML file.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, height in WINDOWS:
            opened = browser.new_page(viewport={"width": width, "height": height})
            yield from _timed(opened, page, f"{width} x {height}")
            opened.close()
        browser.close()


def _timed(opened: Any, page: Path, size: str) -> Iterator[Row]:
    start = time.perf_counter()
    opened.goto(page.as_uri(), wait_until="commit")
    opened.wait_for_selector("#abilities .panels", state="attached")
    opened.evaluate("document.getElementById('abilities').scrollIntoView()")
    opened.wait_for_function(_READY, polling=10)
    first = time.perf_counter() - start
    told = f"load {os.getloadavg()[0]:.1f}"
    yield Row(work=f"page, {size}: first figures", peer="-", pair=None, seconds=first, remarks=told)
    session = opened.context.new_cdp_session(opened)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened.wait_for_function("document.querySelector('main').ariaBusy === 'false'")
    taken, script = [], []
    for key in _KEYS:
        before = _script_seconds(session)
        count, seconds = opened.evaluate(_SWITCH, key)
        script.append(_script_seconds(session) - before)
        taken.append(seconds)
        opened.wait_for_function("document.querySelector('main').ariaBusy === 'false'")
    told = (
        f"median of {len(_KEYS)}, largest {max(taken):.2f} s; "
        f"{statistics.median(script):.2f} s of script; load {os.getloadavg()[0]:.1f}"
    )
    yield Row(
        work=f"page, {size}: change of axis, {count} figures in view", peer="-", pair=None,
        seconds=statistics.median(taken), remarks=told,
    )  # fmt: skip


def _script_seconds(session: Any) -> float:
    found = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in found if one["name"] == "ScriptDuration"))


def main() -> None:
    """Time one page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("page", type=Path)
    for row in rows(parser.parse_args().page):
        print(row, flush=True)


if __name__ == "__main__":
    main()
