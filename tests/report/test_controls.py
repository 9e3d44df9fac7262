"""The controls of the page in a real browser: what they do, and the link that restores them."""

import csv
import io
import re
import urllib.parse

import pytest

from report.browsing import FRAMES, OVERFLOWING, ROWS, SERIES, pin, visiting


@pytest.fixture
def visit(browser, pages):
    with visiting(browser) as go:
        yield lambda name, **options: go(pages[name][0], **options)


def settle(page):
    page.evaluate(FRAMES)
    page.wait_for_function("() => document.querySelector('main').ariaBusy === 'false'")


def hash_of(page):
    return urllib.parse.parse_qs(page.evaluate("location.hash.slice(1)"))


def test_perplexity_is_the_exponential_of_the_loss(visit):
    page = visit("trained")
    loss = page.evaluate("() => window.isoloss.data.checkpoints.x.loss")
    grown = page.evaluate("() => window.isoloss.data.checkpoints.x.perplexity")
    # six digits are kept: half of the last one
    assert grown == pytest.approx([2.718281828459045**x for x in loss], rel=5e-6)


@pytest.mark.parametrize("width", ["3", "5", "9"])
def test_a_running_median_is_that_of_each_run_and_leaves_the_points(visit, width):
    page = visit("trained")
    page.select_option("#smooth", width)
    settle(page)
    points = page.evaluate(ROWS, ["series-2", "points"])
    lines = page.evaluate(ROWS, ["series-2", "lines"])
    # three checkpoints a run, one of the large ones flagged: windows shrink at the ends
    small = [row["y"] for row in points if row["run"] == "small"]
    drawn = [row["y"] for row in lines if row["run"] == "small"]
    assert drawn == [small[0], sorted(small)[1], small[2]]
    assert len(points) == 6 and len(lines) == 5
    faint = page.locator("#series-2 .mark-symbol.layer_3_marks path").first
    assert faint.get_attribute("opacity") == "0.25"


def test_a_local_fit_leaves_a_straight_line_as_it_is(visit):
    page = visit("trained")
    # small: accuracy 0.5, 0.57, 0.64 at losses 4, 3.5, 3: on one line
    page.select_option("#smooth", "local")
    settle(page)
    lines = page.evaluate(ROWS, ["series-2", "lines"])
    small = [row["y"] for row in lines if row["run"] == "small"]
    # the page keeps six digits: half of the last one
    assert small == pytest.approx([0.5, 0.57, 0.64], rel=5e-7)


def test_models_and_families_are_chosen_by_name_and_their_runs_follow(visit):
    page = visit("trained")
    page.locator("#models > summary").click()
    page.locator("#models [data-model=small]").uncheck()
    settle(page)
    assert {row["run"] for row in page.evaluate(ROWS, ["series-2", "points"])} == {"large"}
    assert page.locator(".runs button[data-run=small]").get_attribute("aria-pressed") == "false"
    family = page.locator("#models input:not([data-model])")
    assert family.evaluate("(one) => one.indeterminate")
    assert page.locator("#chosen").inner_text() == "1 of 2"
    page.locator("#all-models").click()
    settle(page)
    assert len(page.evaluate(ROWS, ["series-2", "points"])) == 6
    page.locator("#no-models").click()
    settle(page)
    assert "No checkpoint of the runs shown" in page.locator("#series-2 .message").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#models").evaluate("(one) => one.open")


def test_tasks_are_found_by_words_of_their_names(visit):
    page = visit("trained")
    page.fill("#find", "piqa 5-shot")
    settle(page)
    assert page.locator(SERIES).count() == 1
    assert "5-shot" in page.locator(SERIES).inner_text()
    assert "1 figures" in page.locator("#found").inner_text()
    assert page.locator("#best tbody tr:visible").count() == 1
    page.fill("#find", "")
    settle(page)
    assert page.locator(SERIES).count() == 4


def test_a_link_restores_the_whole_view(visit):
    page = visit("trained")
    page.select_option("#x", "step")
    page.select_option("#scale", "linear")
    page.select_option("#smooth", "5")
    page.select_option("#metric", "accuracy")
    page.select_option("#theme", "dark")
    page.fill("#find", "piqa")
    page.locator(".runs button[data-run=small]").click()
    settle(page)
    pin(page, "series-2", 1)
    settle(page)
    assert hash_of(page) == {
        "x": ["step"], "scale": ["linear"], "smooth": ["5"], "metric": ["accuracy"],
        "theme": ["dark"], "find": ["piqa"], "hide": ["small"], "pin": ["large@100"],
    }  # fmt: skip
    again = visit("trained", hash=page.evaluate("location.hash"))
    settle(again)
    for control in ("x", "scale", "smooth", "metric", "theme", "find"):
        assert (
            again.locator(f"#{control}").input_value() == page.locator(f"#{control}").input_value()
        )
    assert again.locator("#tray").inner_text() == page.locator("#tray").inner_text()
    assert again.evaluate(ROWS, ["series-2", "lines"]) == page.evaluate(ROWS, ["series-2", "lines"])
    assert (
        again.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    )
    again.locator("#reset").click()
    settle(again)
    assert set(hash_of(again)) == {"theme"}


def test_a_link_that_names_what_is_not_there_is_read_without_it(visit):
    page = visit("trained", hash="#x=watts&smooth=77&metric=nothing&hide=nobody&pin=ghost@1&find=")
    settle(page)
    assert page.locator("#x").input_value() == "loss"
    assert page.locator("#tray").is_hidden()


def test_a_link_within_the_page_keeps_the_view(visit):
    page = visit("trained")
    page.select_option("#x", "step")
    settle(page)
    page.evaluate("location.hash = '#best'")
    page.wait_for_function("() => location.hash.includes('at=best')")
    assert page.locator("#x").input_value() == "step"


def test_the_link_can_be_copied(visit):
    page = visit("trained", permissions=["clipboard-read", "clipboard-write"])
    page.select_option("#x", "step")
    page.locator("#link").click()
    page.wait_for_function("() => document.querySelector('#said').textContent !== ''")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_two_pinned_checkpoints_stand_side_by_side_with_their_differences(visit):
    page = visit("trained")
    pin(page, "series-2", 0)
    tray = page.locator("#tray")
    assert tray.locator(".pair").is_hidden()
    pin(page, "series-2", 3)
    settle(page)
    heads = tray.locator(".pinned thead th").all_inner_texts()
    assert ["large@10" in heads[1], "small@10" in heads[2]] == [True, True]
    assert "9 k" in tray.locator(".pinned").inner_text()
    # marked in every figure that has them
    for series in ("series-0", "series-1", "series-2", "series-3"):
        assert {row["pin"] for row in page.evaluate(ROWS, [series, "pinned"])} == {1, 2}
    rows = {
        tuple(row.locator("th, td").all_inner_texts()[:2]): row.locator("td").all_inner_texts()
        for row in tray.locator(".differences tbody tr").all()
    }
    # as `isoloss compare` does, the second less the first; two errors of 0.01 add up to 0.014
    assert rows["piqa, 0-shot", "accuracy"][1:] == ["0.71 ± 0.010", "0.5 ± 0.010", "-0.21 ± 0.014"]
    assert "Unpaired" in tray.locator(".how").inner_text()
    assert tray.locator(".command code").inner_text() == "isoloss compare RUN large@10 small@10"
    tray.locator(".swap").click()
    assert tray.locator(".command code").inner_text() == "isoloss compare RUN small@10 large@10"


def test_the_command_that_the_tray_gives_works(visit, pages):
    from isoloss.store import Store
    from isoloss.studies.comparison.chosen import choose_checkpoint

    page = visit("trained")
    pin(page, "series-2", 0)
    pin(page, "series-2", 3)
    words = page.locator("#tray .command code").inner_text().split()
    store = Store(pages["trained"][0].with_suffix(""))
    found = [choose_checkpoint(store, name) for name in words[3:]]
    assert [(one.run, one.step) for one in found] == [("large", 10), ("small", 10)]


def test_the_fifth_pin_takes_the_place_of_the_first_and_pins_are_undone(visit):
    page = visit("trained")
    for nth in range(5):
        pin(page, "series-2", nth)
    assert page.evaluate("() => window.isoloss.state.pins") == [
        "large@100", "large@1000", "small@10", "small@100",
    ]  # fmt: skip
    page.get_by_role("button", name="Unpin large@1000").click()
    pin(page, "series-2", 4)  # again: it is pinned no longer
    assert page.evaluate("() => window.isoloss.state.pins") == ["large@100", "small@10"]
    page.locator("#tray .clear").click()
    assert page.locator("#tray").is_hidden()


def download(page, figure, kind):
    page.locator(f"#{figure} button.menu").click()
    with page.expect_download() as waiting:
        page.locator(f"#figure-menu [data-as={kind}]").click()
    return waiting.value


def test_a_figure_is_downloaded_as_drawing_and_as_rows(visit):
    page = visit("trained", scheme="dark")
    page.select_option("#smooth", "3")
    settle(page)
    svg = download(page, "series-2", "svg")
    assert svg.suggested_filename == "piqa-0-shot-accuracy-against-loss.svg"
    drawing = svg.path().read_text(encoding="utf-8")
    # on white whatever the scheme, with its query and what the colours mean
    assert 'fill="white"' in drawing and "SELECT" in drawing and ">small<" in drawing
    png = download(page, "series-2", "png")
    assert png.path().read_bytes().startswith(b"\x89PNG")
    table = download(page, "series-2", "csv")
    assert table.suggested_filename == "piqa-0-shot-accuracy-against-loss.csv"
    text = table.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["checkpoint"] for row in rows][:2] == ["large@10", "large@100"]
    assert rows[0]["accuracy (fraction)"] == "0.71"
    assert rows[0]["loss, held-out heldout (nats per token)"] == "2.5"
    assert rows[0]["training tokens"] == "1000"
    assert rows[3]["accuracy (fraction), smoothed (running median of 3)"] == "0.5"


def test_the_menu_is_reached_and_left_with_the_keyboard(visit):
    page = visit("trained", permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("#series-2 button.menu")
    button.focus()
    page.keyboard.press("Enter")
    focused = "() => document.activeElement.dataset.as ?? document.activeElement.className"
    assert page.evaluate(focused) == "svg"
    for key, there in (("ArrowDown", "png"), ("End", "query"), ("ArrowDown", "svg")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == there
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "menu" and page.locator("#figure-menu").is_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#said').textContent !== ''")
    assert page.evaluate("navigator.clipboard.readText()").startswith("SELECT")


def test_the_scheme_can_be_chosen_against_that_of_the_system(visit):
    page = visit("trained")
    stroke = "() => document.querySelector('#series-2 .mark-line path').getAttribute('stroke')"
    light = page.evaluate(stroke)
    page.select_option("#theme", "dark")
    page.wait_for_function(f"(old) => ({stroke})() !== old", arg=light)
    assert (
        page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    )
    page.select_option("#theme", "light")
    page.wait_for_function(f"(old) => ({stroke})() === old", arg=light)


def test_paper_has_every_figure_in_light_colours_and_no_controls(visit, tmp_path):
    page = visit("trained", scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function(
        "() => getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"
    )
    assert (
        page.locator(".choices").first.is_hidden() and page.locator("button.menu").first.is_hidden()
    )
    light = page.evaluate("() => window.isoloss.data.runs.map((run) => run.light)")
    drawn = page.locator(".panel[data-kind=series] .mark-line path").evaluate_all(
        "all => [...new Set(all.map((one) => one.getAttribute('stroke')))]"
    )
    assert set(drawn) == set(light)
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_moves_by_itself(visit):
    page = visit("trained", reduced_motion="reduce")
    page.select_option("#x", "step")
    assert page.evaluate("() => document.getAnimations().length") == 0


def test_the_legend_says_what_hollow_and_crossed_out_mean(visit):
    page = visit("trained")
    told = page.locator(".signs").inner_text()
    assert "schedule not finished" in told and "flagged: crossed out" in told
    fills = page.locator("#series-2 .mark-symbol.layer_3_marks path").evaluate_all(
        "all => all.map((one) => one.getAttribute('fill'))"
    )
    assert sum(fill is None or fill == "none" for fill in fills) == 4  # of each run, two of three
    assert page.locator("#series-2 .mark-symbol.layer_4_marks path").count() == 1


def test_every_control_has_a_name_and_is_reached_by_tabs(visit):
    page = visit("trained")
    nameless = page.evaluate("""() => [...document.querySelectorAll(
        '.controls select, .controls input, .controls button, .controls summary, button.menu')]
        .filter((one) => !one.getAttribute('aria-label') && !one.labels?.length)
        .filter((one) => !one.textContent.trim())
        .map((one) => one.outerHTML)""")
    assert nameless == []
    page.locator("#x").focus()
    reached = []
    for _ in range(8):
        reached.append(
            page.evaluate("() => document.activeElement.id || document.activeElement.tagName")
        )
        page.keyboard.press("Tab")
    assert reached == ["x", "scale", "smooth", "metric", "find", "SUMMARY", "link", "reset"]


@pytest.mark.parametrize("name", ["trained", "hostile"])
@pytest.mark.parametrize("width", [375, 1024, 1920])
def test_no_text_is_cut_and_the_page_does_not_scroll_sideways(visit, name, width, tmp_path):
    page = visit(name, width=width, scheme="dark" if width == 1024 else "light")
    figure = "series-2" if name == "trained" else "series-0"
    count = len(page.evaluate(ROWS, [figure, "points"])) if name == "trained" else 1
    for nth in range(min(count, 4)):
        pin(page, figure, nth)
    page.locator("#models > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sheet = page.locator("#models .sheet").bounding_box()
    assert sheet["x"] >= 0 and sheet["x"] + sheet["width"] <= width
    page.locator("h1").click()
    assert page.evaluate(OVERFLOWING) == []
    for panel in page.locator(".panel").all():
        frame, chart = panel.bounding_box(), panel.locator(".chart svg").bounding_box()
        assert chart["x"] + chart["width"] <= frame["x"] + frame["width"]
    page.screenshot(path=tmp_path / f"{name}-{width}.png", full_page=True)


def test_names_in_a_table_of_rows_cannot_become_formulas(visit):
    page = visit("hostile")
    table = download(page, "series-0", "csv")
    assert re.fullmatch(r"[A-Za-z0-9-]+\.csv", table.suggested_filename)
    rows = list(csv.reader(io.StringIO(table.path().read_text(encoding="utf-8"))))
    assert len({len(row) for row in rows}) == 1
    assert not any(re.match(r"[=+@\t\r\n]", cell) for row in rows for cell in row)
