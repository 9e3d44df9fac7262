"""The page in a real browser: every control, three widths, no request, no error."""

import pytest

from isoloss.report import write
from isoloss.store import Store
from isoloss.studies.findings import save
from report import found, stores
from report.browsing import AT, DRAWN, FRAMES, ROWS, SERIES, axis_titles, point_at, visiting


@pytest.fixture(scope="module")
def pages(pages, tmp_path_factory):
    """The small stores' pages, and one with findings of every kind."""
    folder = tmp_path_factory.mktemp("findings")
    store = stores.trained(folder / "store")
    for study in (found.STUDY, found.HOSTILE_STUDY):
        save(study, store)
    return pages | {"findings": (folder / "page.html", write(store, folder / "page.html"))}


@pytest.fixture
def visit(browser, pages):
    with visiting(browser) as go:
        yield lambda name, **options: go(pages[name][0], **options)


def test_every_axis_can_be_chosen_and_stands_at_every_figure(visit):
    page = visit("trained")
    options = page.locator("#x option:not([disabled])")
    keys = options.evaluate_all("all => all.map((one) => [one.value, one.textContent.trim()])")
    assert [key for key, _ in keys] == [
        "loss", "bits_per_byte", "perplexity", "expected_loss:language",
        "distance:language", "tokens_seen", "flops", "params_total", "params_non_embedding", "step",
    ]  # fmt: skip
    for key, title in keys:
        page.select_option("#x", key)
        page.wait_for_function(AT, arg=key)
        for figure in page.locator(".panel[data-kind=series]").all():
            assert "".join(title.split()) in axis_titles(figure)


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_both_scales_draw_every_figure(visit, scale):
    page = visit("trained")
    page.select_option("#x", "flops")
    page.select_option("#scale", scale)
    page.wait_for_function(AT, arg="flops")
    page.wait_for_function(DRAWN)
    assert page.locator(".panel .message:visible").count() == 0


def test_loss_curves_stay_with_a_budget_when_x_is_a_loss(visit):
    page = visit("trained")
    curves = page.locator(".panel[data-kind=curve]")
    assert curves.count() == 4
    assert {figure.get_attribute("data-x") for figure in curves.all()} == {"tokens_seen"}
    page.select_option("#x", "step")
    page.wait_for_function(AT, arg="step")
    page.select_option("#x", "loss")
    page.wait_for_function(AT, arg="loss")
    page.wait_for_function(
        "() => !document.querySelector('.panel[data-kind=curve][data-x=tokens_seen]')"
    )
    assert {figure.get_attribute("data-x") for figure in curves.all()} == {"step"}


def test_a_score_hides_the_figures_that_lack_it_and_counts_them(visit):
    page = visit("trained")
    page.select_option("#metric", "brier_sum")
    page.wait_for_function("() => document.querySelectorAll('.panel[hidden]').length === 3")
    page.wait_for_function(
        f"() => document.querySelector('{SERIES}').dataset.metric === 'brier_sum'"
    )
    assert "3 figures without this score are hidden" in page.locator(".status").text_content()
    assert "lowerisbetter" in axis_titles(page.locator(SERIES).first)


def test_a_run_can_be_hidden_and_shown_with_the_keyboard(visit):
    page = visit("trained")
    count = "() => document.querySelectorAll('#series-2 .mark-symbol.layer_3_marks path').length"
    assert page.evaluate(count) == 6
    button = page.locator(".runs button").first
    button.focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"({count})() === 3")
    assert button.get_attribute("aria-pressed") == "false"
    page.keyboard.press("Space")
    page.wait_for_function(f"({count})() === 6")


def test_pointing_at_a_checkpoint_tells_its_facts_and_draws_its_run_strong(visit):
    page = visit("trained")
    point_at(page, "series-2", 0)
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    told = tip.inner_text()
    for fact in ("large@10", "± 0.010, n = 100", "loss (nats/token)", "schedule done", "9 k"):
        assert fact in told, told
    assert "undefined" not in told
    widths = page.locator("#series-2 .mark-line path").evaluate_all(
        "all => all.map((one) => one.getAttribute('stroke-width'))"
    )
    assert sorted(widths) == ["1.4", "2.8"]
    # the errors of that run alone, and nothing moved
    assert page.locator("#series-2 .mark-rule.layer_1_marks line").count() == 3
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


def test_points_can_be_read_and_pinned_with_the_keyboard(visit):
    page = visit("trained")
    chart = page.locator("#series-2 .chart")
    chart.focus()
    page.evaluate(FRAMES)  # it scrolls there, which closes what was told
    page.keyboard.press("ArrowRight")
    assert "large@10" in page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert "large@100" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    assert "large@100" in page.locator("#tray").inner_text()
    chart.focus()
    page.keyboard.press("End")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_circular_panel_is_refused_until_x_is_another(visit):
    page = visit("proxied")
    lambada = page.locator("#series-0")
    assert "Refused" in lambada.locator(".message").text_content()
    assert lambada.locator(".chart svg").count() == 0
    page.select_option("#x", "step")
    page.wait_for_function(AT, arg="step")
    assert lambada.locator(".chart svg").count() == 1
    assert "1 checkpoints at 0" in page.locator(".status").text_content()


def test_a_checkpoint_without_a_place_is_left_out_and_counted(visit):
    page = visit("patchy")
    assert len(page.evaluate(ROWS, ["series-0", "points"])) == 2
    status = page.locator(".status").text_content()
    assert status == "1 of 3 checkpoints have no value on this axis."
    assert "loss, held-out heldout (nats per token)" in page.locator("#left-out").text_content()


def test_hostile_names_run_nothing_and_are_seen_as_text(visit, pages):
    page = visit("hostile")
    own = pages["trained"][0].read_text(encoding="utf-8").count("<script")
    assert page.locator("script").count() == own
    assert "<script>alert" in page.locator("h1").inner_text()
    assert "<script>alert" in axis_titles(page.locator("#series-0"))


def test_a_store_without_loss_is_drawn_against_tokens(visit):
    page = visit("without_loss")
    assert page.locator("#series-0").get_attribute("data-x") == "tokens_seen"


def test_a_finding_shows_its_rules_fits_bars_and_hollow_points(visit):
    page = visit("findings")
    red = page.locator(".drawing", has_text="How far toys roll").last.locator(".panel").first
    words = red.locator(".chart svg text").all_text_contents()
    assert "bend" in words
    points = red.locator(".mark-symbol [aria-roledescription=point]")
    fills = [p.get_attribute("fill") for p in points.all()]
    assert len(fills) == 2 and fills.count("transparent") == 1
    # the fitted curve, and error bars along y
    assert red.locator("[aria-roledescription='line mark']").count() == 1
    target = red.locator("[aria-roledescription=circle]").last
    target.scroll_into_view_if_needed()
    target.hover()
    tooltip = page.locator("#tip")
    tooltip.wait_for(state="visible")
    assert "weight (kg)" in tooltip.inner_text() and "undefined" not in tooltip.inner_text()


def test_the_colours_of_findings_follow_the_scheme_and_the_controls_leave_them(visit):
    page = visit("findings")
    line = "#explained .panel [aria-roledescription=point]"
    light = page.locator(line).first.get_attribute("stroke")
    page.select_option("#x", "step")
    page.wait_for_function(AT, arg="step")
    page.wait_for_function(DRAWN)
    assert page.locator(line).first.get_attribute("stroke") == light
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        f"(old) => document.querySelector('{line}').getAttribute('stroke') !== old", arg=light
    )


def test_a_study_alone_is_drawn_where_no_checkpoint_has_a_place(browser, tmp_path):
    store = Store.create(tmp_path / "store")
    save(found.STUDY, store)
    write(store, tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function(DRAWN)
    assert page.locator(".chart svg").count() == 7
    page.close()
