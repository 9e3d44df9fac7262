"""Coloured texts in a real browser, and colours of numbers in an order."""

import math

import pytest

from isoloss.report import write
from isoloss.report.coloured import coloured_data, piece
from isoloss.report.runs import ramp_colours
from isoloss.report.section import sections
from isoloss.report.section_charts import draw
from isoloss.studies.findings import Figure, FigureAxis, save
from report import stores
from report.coloured_found import ATTACK, FIRST, LINES, READ, SECOND, STEPS

PIECE = "#study-0-text-0 .pieces .piece"
POINTS = "#study-0-text-0 .chart [aria-roledescription=circle]"
STYLE = (
    "(one) => [getComputedStyle(one).textDecorationLine, "
    "getComputedStyle(one).textDecorationStyle, getComputedStyle(one).backgroundColor]"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coloured")
    made = {}
    for name, found in (("read", READ), ("attack", ATTACK), ("lines", LINES)):
        store = stores.trained(folder / name)
        save(found, store)
        made[name] = folder / f"{name}.html"
        write(store, made[name], laws=False)
    return made


@pytest.fixture
def visit(browser, files):
    """Open a page at its coloured text; at the end nothing may have gone wrong."""
    faults, contexts = [], []

    def go(name, *, width=1400, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        file = files[name].as_uri()
        page.on("request", lambda r: None if r.url == file else faults.append(r.url[:200]))
        page.goto(file)
        if name != "lines":
            page.locator(".coloured .pieces").scroll_into_view_if_needed()
            page.wait_for_selector(POINTS, state="attached")
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def caption(page):
    return page.locator(".coloured figcaption").inner_text()


def drawn(page, text):
    """Wait for the curve of a piece, which is drawn a frame after the piece is told."""
    page.wait_for_function(
        "(text) => document.querySelector('.coloured figcaption').textContent.includes(text)",
        arg=text,
    )
    page.wait_for_timeout(150)


def test_pointing_at_a_piece_shows_its_curves_and_its_class(visit):
    page = visit("read")
    page.locator(PIECE).nth(1).hover()
    drawn(page, "words")
    assert caption(page) == "\u201c words\u201d, downward for large"
    # the second piece is planted at 2, 1 and .5; a value of large is unknown
    values = page.locator(POINTS).evaluate_all(
        "all => all.map((one) => [one.__data__.datum.run, one.__data__.datum.y])"
    )
    assert sorted((run, round(y, 6)) for run, y in values) == [
        ("large", 2.0), ("small", 0.5), ("small", 1.0), ("small", 2.0)
    ]  # fmt: skip


def test_a_click_holds_a_curve_and_escape_lets_it_go(visit):
    page = visit("read")
    page.locator(PIECE).nth(1).click()
    page.locator(PIECE).nth(6).hover()
    page.wait_for_timeout(100)
    assert caption(page) == "\u201c words\u201d, downward for large (held)"
    assert page.locator(PIECE).nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator(".pieces [aria-pressed=true]").count() == 0
    page.locator(PIECE).nth(0).hover()
    drawn(page, "Some")


def test_the_keyboard_goes_from_piece_to_piece_through_one_stop(visit):
    page = visit("read")
    assert page.locator(".pieces [tabindex='0']").count() == 1
    page.locator(PIECE).first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    drawn(page, "part 2 of \u201c\u4f60\u201d")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    drawn(page, "end")
    assert caption(page).endswith("unclassified for large (held)")
    assert page.locator(".pieces [tabindex='0']").count() == 1


def test_every_choice_changes_what_it_names(visit):
    page = visit("read")
    kinds = lambda: page.locator(PIECE).evaluate_all(  # noqa: E731
        "all => all.map((one) => one.className.match(/kind-(\\d)/)[1]).join('')"
    )
    text = lambda: page.locator(".pieces").text_content()  # noqa: E731
    assert kinds() == "1111100"
    assert text() == "".join(FIRST[:2]) + ",\u21b5\n\u4f60\u00b7\u00b7 end"
    page.select_option("[data-choice=run]", label="small")
    assert kinds() == "0123412"
    shares = page.locator(".share").all_text_contents()
    assert shares == ["14%", "29%", "29%", "14%", "14%"]
    page.select_option("[data-choice=rule]", label="another")
    assert kinds() == "0000000"
    page.select_option("[data-choice=axis]", label="training step")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.coloured .role-axis-title')]"
        ".some((one) => one.textContent.includes('training step'))"
    )
    page.select_option("[data-choice=document]", label="document 2")
    assert text() == "".join(SECOND)
    page.select_option("[data-choice=run]", label="large")
    assert "no class: too few checkpoints" in caption(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_classes_differ_by_their_line_and_not_by_their_colour_alone(visit, scheme):
    page = visit("read", scheme=scheme)
    page.select_option("[data-choice=run]", label="small")
    looks = [tuple(page.locator(PIECE).nth(i).evaluate(STYLE)) for i in range(5)]
    assert looks[0][0] == "none"
    assert len({style for _, style, _ in looks[1:]}) == 4
    assert len({ground for _, _, ground in looks}) == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1400])
def test_text_and_curves_fit_any_width(visit, width, scheme):
    page = visit("read", width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    text = page.locator(".pieces").bounding_box()
    curve = page.locator(".reader figure").bounding_box()
    assert curve["x"] >= 0 and curve["x"] + curve["width"] <= width
    # beside the text where there is room, above it where there is none
    if width == 375:
        assert curve["y"] + curve["height"] <= text["y"] + 1
    else:
        assert curve["x"] >= text["x"] + text["width"]


def test_hostile_pieces_and_names_are_text(visit):
    page = visit("attack")
    told = page.locator(".pieces").text_content()
    assert "<img src=x onerror=alert(1)>" in told and '<script>alert("x")</script>' in told
    assert "\u202e" not in page.locator(".coloured").text_content()
    assert page.locator(".coloured img, .coloured script").count() == 0
    assert page.locator("script").count() == visit("read").locator("script").count()
    page.locator(PIECE).nth(1).hover()
    drawn(page, "<img src=x")
    assert "__proto__ for <script>" in caption(page)


def test_line_ends_are_seen_and_kept_and_unseen_marks_are_seen():
    assert piece("\r") == "\u240d"  # a token by itself: the line feed that follows breaks the line
    assert piece("a\r\nb\n\tc\u2028d\x1b") == "a\u21b5\nb\u21b5\n\u21e5c\ufffdd\ufffd"
    assert len(piece("x" * 10_000)) == 400


def test_the_data_of_a_coloured_text_has_no_name_as_a_key():
    data = coloured_data(ATTACK.coloured[0], ())
    (document,) = data["documents"]
    assert set(document) == {"spans", "kinds", "curves"}
    assert document["kinds"] == [["010"]] and len(document["curves"]) == 1
    assert data["x"] == [[[1.0, 2.0]]]


def lines(numbers, scale):
    rows = [{"x": x, "y": 1.0, "n": n} for n in numbers for x in (1, 2)]
    return Figure(
        id="f", title="t", by="n", by_scale=scale, mark="curve",
        x=FigureAxis(column="x", title="x"), y=FigureAxis(column="y", title="y"), rows=tuple(rows),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "places"), [("log", (0, 0, 0.5, 1)), ("linear", (0, 0.01, 0.1, 1))]
)
def test_numbers_lie_in_order_along_one_ramp_and_zero_with_the_smallest(scale, places):
    colours = draw(lines((100, 1, 10, 0), scale), {}).colours
    assert colours.names == ("0", "1", "10", "100")
    assert colours.light == tuple(ramp_colours(place)[0] for place in places)
    assert colours.dark == tuple(ramp_colours(place)[1] for place in places)
    assert colours.ramp.ends == (("1", "10", "100") if scale == "log" else ("0", "50", "100"))


def test_a_single_number_and_names_have_colours_too():
    assert draw(lines((5,), "log"), {}).colours.light == (ramp_colours(0.5)[0],)
    named = draw(lines(("a", "b"), "log"), {}).colours
    assert named.names == ("a", "b") and named.ramp is None
    assert sections([LINES], ()).parts[0].figures[0].key == ()


def test_many_lines_are_drawn_in_the_colours_of_their_number(visit):
    page = visit("lines")
    line = "#study-0-figure-0 [aria-roledescription='line mark']"
    page.wait_for_function(f"() => document.querySelectorAll(`{line}`).length === 10")
    strokes = page.locator(f"#finding-0 {line.partition(' ')[2]}").evaluate_all(
        "all => all.map((one) => one.getAttribute('stroke'))"
    )
    places = [math.log10(max(step, 1)) / 3 for step in STEPS]
    assert sorted(strokes) == sorted(ramp_colours(place)[0] for place in places)
    ramp = page.locator("#study-0-figure-0 .ramp")
    assert ramp.locator(".ends").inner_text().split() == ["1", "32", "1000"]
    assert "linear-gradient" in ramp.locator(".bar").evaluate(
        "(one) => getComputedStyle(one).backgroundImage"
    )
