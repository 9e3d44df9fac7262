"""What browser tests share: how a page is opened and watched, and where things lie on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRAWN = """() => [...document.querySelectorAll('.panel:not([hidden])')].every((figure) =>
    figure.closest('details:not([open])') ||
    (figure.dataset.x && !figure.textContent.includes('cannot be drawn')))"""
# text of the figures that reaches beyond its drawing
CLIPPED = """() => [...document.querySelectorAll('.chart svg')].flatMap((svg) => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter((text) => {
        const box = text.getBoundingClientRect();
        return text.style.opacity !== '0' && getComputedStyle(text).opacity !== '0' &&
            (box.left < frame.left - 1 || box.right > frame.right + 1);
    }).map((text) => text.textContent);
})"""
# boxes of text wider than their place, and not made to scroll or to be cut on purpose
OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter((one) => {
    if (one.closest('svg, .scroll, pre, .runs, select, .unseen, .sheet')) return false;
    const style = getComputedStyle(one);
    return one.clientWidth && one.scrollWidth > one.clientWidth + 1 && style.overflowX !== 'auto' &&
        style.display !== 'inline';
}).map((one) => `${one.tagName}.${one.className} ${one.textContent.slice(0, 60)}`)"""
SERIES = ".panel[data-kind=series]:not([hidden])"
AT = """(key) => [...document.querySelectorAll('.panel[data-kind=series]:not([hidden])')].every(
    (figure) => figure.dataset.x === key)"""
# where the i-th point of a figure lies on the screen
SPOT = """([id, i]) => {
    const figure = document.getElementById(id);
    figure.scrollIntoView({ block: 'center' });
    const { view, content } = window.isoloss.drawn.get(figure);
    const { x, y } = figure.querySelector('.chart svg, .chart canvas').getBoundingClientRect();
    const [left, top] = view.origin();
    const row = content.sets.points[i];
    return [x + left + view.scale('x')(row.x), y + top + view.scale('y')(row.y)];
}"""
FRAMES = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
ROWS = """([id, name]) =>
    window.isoloss.drawn.get(document.getElementById(id)).content.sets[name]"""


@contextmanager
def visiting(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open files; at the end nothing may have been asked for, warned of or gone wrong."""
    faults: list[str] = []
    contexts = []

    def go(
        file: Path, *, width: int = 1024, scheme: str = "light", hash: str = "", **options: Any
    ) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        bad = {"error", "warning"}
        page.on("console", lambda m: faults.append(m.text) if m.type in bad else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        own = (file.as_uri(), "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url[:200]))
        page.goto(file.as_uri() + hash)
        page.wait_for_function(DRAWN)
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def axis_titles(figure: Any) -> str:
    """All titles of a figure's axes, without the spaces that their lines swallow."""
    return "".join("".join(figure.locator(".role-axis-title").all_text_contents()).split())


def point_at(page: Any, figure: str, nth: int) -> None:
    """Move the mouse onto a point."""
    page.evaluate(SPOT, [figure, nth])
    page.evaluate(FRAMES)  # it scrolled there, which closes what was told
    x, y = page.evaluate(SPOT, [figure, nth])
    page.mouse.move(x + 1, y + 1)


def pin(page: Any, figure: str, nth: int) -> None:
    """Click on a point."""
    point_at(page, figure, nth)
    x, y = page.evaluate(SPOT, [figure, nth])
    page.mouse.click(x, y)
