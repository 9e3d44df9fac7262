"""The page in a real browser while a run goes on: what is new arrives, what was chosen stays."""

import shutil

import pytest

from isoloss.engine.beacon import Lit
from isoloss.engine.progress import Silent
from isoloss.store import Failure, Store
from report import stores
from report.serving import served

DRAWN = """() => [...document.querySelectorAll('.panel:not([hidden])')].every(
    (figure) => figure.dataset.x && !figure.textContent.includes('cannot be drawn'))"""
PIQA = "#series-2"
POINTS = f"""() => window.isoloss.drawn.get(document.querySelector('{PIQA}'))
    ?.view.data('points').length"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    store = stores.trained(tmp_path_factory.mktemp("kept") / "trained")
    return store.path


@pytest.fixture
def store(kept, tmp_path):
    return Store(shutil.copytree(kept, tmp_path / "trained"))


@pytest.fixture
def visit(browser):
    """Open an address; at the end nothing may have gone wrong, and nobody else been asked."""
    faults, contexts = [], []

    def go(address, *, path="/", width=1024):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        context.set_default_timeout(90_000)  # ms; a machine that is busy with other tests
        page = context.new_page()
        page.on(
            "console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith((address, "blob:", "data:")) else faults.append(r.url)
            ),
        )
        page.goto(address + path)
        page.wait_for_function(DRAWN)
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def add(store, step, *, model="small", params=1000, i=9):
    """A checkpoint measured on all that the others were, as a run writes it."""
    point = stores.checkpoint(step, model=model, params_total=params, schedule_progress=0.2,
                              lr=1e-3, seed=0, schedule="cosine")  # fmt: skip
    task = [stores.row("accuracy", 0.5 + 0.03 * i), stores.row("brier_sum", 0.4),
            stores.row("chance", 0.5, 0.0), stores.row("constant_answer", 0.52)]  # fmt: skip
    with store.writing():
        store.put_checkpoints([point])
        stores.put_loss(store, point, 3.1)
        stores.put(store, point, "task_score", "piqa", task, num_fewshot=0)


def test_a_new_point_arrives_and_what_was_chosen_stays(store, visit, tmp_path):
    lit = Lit(Silent(), "toy", every=0.2)
    with served(store.path) as address:
        page = visit(address)
        assert page.evaluate(POINTS) == 6
        page.select_option("#x", "step")
        page.locator(".runs button").first.focus()
        page.evaluate("scrollTo(0, 400)")
        lit.begin(store.path, cells=44, finished=36, in_store=36)
        lit.checkpoint("toy/small@300")
        page.wait_for_function(
            "() => document.querySelector('#live .facts').textContent.startsWith('Running')"
        )
        assert "36 of 44 cells" in page.locator("#live .facts").inner_text()
        assert "toy/small@300" in page.locator("#live .at").inner_text()
        before = page.evaluate("() => [document.activeElement.dataset.run, scrollY]")
        for _ in range(2):
            lit.done("a cell")
        add(store, 300)
        page.wait_for_function(f"({POINTS})() === 7")
        page.wait_for_function(DRAWN)
        page.wait_for_function(
            "() => document.querySelector('#live .facts').textContent.includes('38 of 44')"
        )
        assert page.locator("#x").input_value() == "step"
        assert page.evaluate("() => [document.activeElement.dataset.run, scrollY]") == before
        assert page.locator(".measured div").nth(3).inner_text().split() == ["checkpoints", "7"]
        assert page.locator("#live .offer").inner_text() == ""
        page.screenshot(path=tmp_path / "running.png")
        lit.stop()
        page.wait_for_function(
            "() => document.querySelector('#live .facts').textContent.startsWith('Not running')"
        )
        assert not (store.path / "progress").exists()


def test_pins_stay_and_two_are_compared_by_the_server(store, visit):
    with served(store.path) as address:
        page = visit(address, path="/runs/trained/#pin=small%4010&pin=large%40100")
        tray = page.locator("#tray")
        page.wait_for_function(
            "() => document.querySelector('#tray .how').textContent.startsWith('Paired')"
        )
        assert "undetermined" in tray.inner_text() and "b is higher" in tray.inner_text()
        add(store, 300)
        page.wait_for_function(f"({POINTS})() === 7")
        assert "small@10" in tray.inner_text() and "large@100" in tray.inner_text()


def test_what_arrives_is_told_in_the_language_chosen(store, visit):
    with served(store.path) as address:
        page = visit(address)
        page.locator("[data-language=zh]").click()
        words = page.locator("#words")
        before = words.inner_text()
        assert "\u4e2a" in before and "What was measured" not in before
        add(store, 300)
        page.wait_for_function(f"({POINTS})() === 7")
        page.wait_for_function(
            "(old) => document.querySelector('#words').innerText !== old", arg=before
        )
        told = words.inner_text()
        assert "38" in told and "What was measured" not in told and "shown here" not in told


def test_what_the_page_has_no_place_for_is_offered_and_the_view_is_kept(store, visit):
    with served(store.path) as address:
        page = visit(address)
        page.select_option("#x", "step")
        point = stores.checkpoint(10)
        with store.writing():
            stores.put(store, {**point, "weights_hash": "toy/small/None/10"}, "task_score",
                       "a new task", [stores.row("accuracy", 0.3)])  # fmt: skip
        button = page.locator("#live .offer button")
        button.wait_for(state="visible")
        assert page.locator(".panel[data-kind=series]").count() == 4
        button.click()
        page.wait_for_function(
            "() => document.querySelectorAll('.panel[data-kind=series]').length === 5"
        )
        page.wait_for_function(DRAWN)
        assert page.locator("#x").input_value() == "step"


def test_a_failure_is_told_with_its_remedy_and_goes_when_it_succeeds(store, visit):
    with served(store.path) as address:
        page = visit(address)
        page.wait_for_function("() => !document.querySelector('#live details').hidden")
        page.locator("#live details summary").click()
        assert "What to do: export it again" in page.locator("#live details").inner_text()
        late = Failure(cell="e" * 32, checkpoint=stores.HOSTILE, probe="task_score", subject="coin",
                       error="OutOfMemory", reason=stores.HOSTILE, remedy="buy more",
                       failed_at="2026-01-01T00:00:00")  # fmt: skip
        with store.writing():
            store.put_failure(late)
        page.wait_for_function("() => document.querySelectorAll('#live details li').length === 2")
        assert "<script>alert" in page.locator("#live details li").first.inner_text()
        assert page.locator("#live details").get_attribute("open") is not None
        with store.writing():
            store.clear_failures(["e" * 32, "f" * 32])
        page.wait_for_function("() => document.querySelector('#live details').hidden")
        page.wait_for_function(
            "() => document.querySelector('#failures').textContent.includes('Nothing failed')"
        )


def test_a_server_that_ends_leaves_the_page_as_it_was(store, browser):
    context = browser.new_context()
    with served(store.path) as address:
        page = context.new_page()
        page.goto(address)
        page.wait_for_function(DRAWN)
    page.wait_for_function(
        "() => document.querySelector('#live .trouble').textContent.includes('does not answer')"
    )
    page.select_option("#x", "step")
    page.wait_for_function(f"() => document.querySelector('{PIQA}').dataset.x === 'step'")
    context.close()


@pytest.mark.parametrize("width", [375, 1024])
def test_hostile_names_are_text_on_the_live_page_and_in_the_list(width, tmp_path, visit):
    name = "a & <b>b"
    store, other = stores.hostile(tmp_path / name), stores.trained(tmp_path / "RUN")
    lit = Lit(Silent(), stores.HOSTILE, every=0.2)
    lit.begin(store.path, cells=10, finished=2, in_store=2)
    lit.checkpoint(stores.HOSTILE)
    with served(store.path, other.path) as address:
        page = visit(address, width=width)
        assert name in page.locator("table").inner_text()
        assert "<script>alert" in page.locator("table").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("tbody a").first.click()
        page.wait_for_function(DRAWN)
        page.wait_for_function(
            "() => document.querySelector('#live .at').textContent.includes('<script>alert')"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    lit.stop()
