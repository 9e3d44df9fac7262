"""Findings on the page: every part is there, every name is text, every number is the finding's."""

import json
import re
from dataclasses import replace

import pytest

from isoloss.report import write
from isoloss.report.page import SCRIPTS, ReportSummary
from isoloss.report.section import sections
from isoloss.report.section_charts import draw
from isoloss.store import Store
from isoloss.studies.findings import save
from report import stores
from report.found import HOSTILE_STUDY, STUDY, figure
from report.test_page import Elements

IN_ALL = 3 + len(SCRIPTS)
"""Data, dictionaries, the bundle, and the page's own."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> tuple[str, ReportSummary]:
    folder = tmp_path_factory.mktemp("studied")
    store = stores.trained(folder / "store")
    save(STUDY, store)
    save(HOSTILE_STUDY, store)
    summary = write(store, folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8"), summary


def seen(html):
    return " ".join(" ".join(Elements(html).text).split())


def test_every_part_of_a_finding_stands_on_the_page(studied):
    html, summary = studied
    text = seen(html)
    for said in (
        "A study of toys", "scale: tiny", "Larger toys roll further.", "Toys roll. (Toy et al.)",
        "confirmed", "0.25 nats", "0.1 to 0.4 (95%)", "0.05 nats", "0.012", "shuffled: 0.01 nats",
        "all above", "Published numbers beside ours", "119.4", "0.02469", "A table of toys",
        "How far toys roll", "Read it from left to right.", "not enough toys",
    ):  # fmt: skip
        assert said in text, said
    assert summary.studies == ("explained", "loss-laws", HOSTILE_STUDY.study, STUDY.study)


def test_every_answer_of_a_law_stands_in_its_section_as_english(studied):
    html, summary = studied
    own = html.partition('<section class="study" id="explained">')[2].partition("</ul>")[0]
    items = re.findall(r'<li><bdi class="ours" lang="en">(.*?)</bdi>', own)
    assert items == [answer.replace("'", "&#39;") for answer in summary.answers]
    assert items
    assert "No law was asked" not in seen(html)


def test_without_laws_nothing_is_fitted_and_the_page_says_so(tmp_path):
    store = stores.trained(tmp_path / "store")
    summary = write(store, tmp_path / "page.html", laws=False)
    html = (tmp_path / "page.html").read_text()
    assert summary.studies == () == summary.answers
    assert 'id="explained"' not in html and "No law was asked" in html
    assert stores.embedded(html)["panels"] == []


def test_hostile_findings_are_text(studied):
    html, _ = studied
    page = Elements(html)
    assert sum(tag == "script" for tag, _ in page.found) == IN_ALL
    assert not any(key.startswith("on") and key != "onsubmit" for _, a in page.found for key in a)
    assert "\u202e" not in "".join(Elements(re.sub(r"<pre.*?</pre>", "", html, flags=re.S)).text)
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]+", one) for one in ids)
    # no key of a row becomes a name that an expression of the template reads
    for one in stores.embedded(html)["panels"]:
        assert all(re.fullmatch(r"[a-z_]+\d*", name) for name in one["rows"])


def test_the_rows_of_a_figure_are_those_of_the_finding(studied):
    html, _ = studied
    data = stores.embedded(html)
    drawing = draw(figure(), {})
    (found,) = [p["rows"] for p in data["panels"] if p["rows"].get("y") == [1.5, 3, None, 2, 5]]
    assert found == json.loads(json.dumps(dict(drawing.panels)["red"]))
    assert found["x"] == [1, 10, 2, 1, 10]
    assert found["low"] == [1, None, None, None, None]
    assert found["layer"] == [None, "runs", "rule", "fit", "fit"]


def test_values_are_kept_to_six_digits_and_a_constant_column_once():
    rows = [{"x": 1 / 3, "y": 2.0, "who": "a"}, {"x": 2 / 3, "y": 2.0, "who": "a"}]
    (panel,) = draw(figure(rows=rows, panel=None), {}).panels
    assert panel[1]["x"] == [0.333333, 0.666667]
    assert (panel[1]["y"], panel[1]["by"], panel[1]["n"]) == (2, "a", 2)


def test_runs_keep_the_colours_and_the_order_of_the_page():
    known = {"small": ("#111111", "#eeeeee"), "large": ("#222222", "#dddddd")}
    rows = [{"x": 1.0, "y": 2.0, "who": who} for who in ("large", "small")]
    colours = draw(figure(rows=rows), known).colours
    assert colours.names == ("small", "large")
    assert (colours.light, colours.dark) == (("#111111", "#222222"), ("#eeeeee", "#dddddd"))
    other = draw(figure(rows=[*rows, {"x": 1.0, "y": 2.0, "who": "else"}]), known).colours
    assert other.names == ("large", "small", "else") and "#111111" not in other.light


def test_a_straight_line_of_the_figure_stands_in_every_panel():
    drawing = draw(STUDY.figures[1], {})
    assert len(drawing.panels) == 2
    for _, rows in drawing.panels:
        assert rows["layer"][:2] == ["rule", "rule"]
        assert rows["label"][:2] == ["no effect", "start"]


def test_panels_that_span_much_the_same_share_x():
    def domain(ends):
        rows = [
            {"x": x, "y": 1.0, "who": "a", "toy": str(i)} for i, e in enumerate(ends) for x in e
        ]
        text = json.dumps(draw(figure(rows=rows), {}).spec)
        return '"domain": [1, 9]' in text

    assert domain([(1, 9), (2, 8)])
    assert not domain([(1, 9), (2, 2.5)])


def test_a_store_without_anything_has_a_page_that_says_why_no_law_was_asked(tmp_path):
    write(Store.create(tmp_path / "store"), tmp_path / "page.html")
    assert "holds no loss" in seen((tmp_path / "page.html").read_text())


def test_sections_of_no_findings_are_none():
    assert sections([], ()).parts == ()


def test_a_figure_without_points_says_so():
    empty = replace(STUDY, figures=(replace(figure(rows=()), note="Read it so."),))
    told = sections([empty], []).parts[0].figures[0]
    assert told.note == "Read it so. There is nothing to draw: no such value was found."
    assert told.panels == ()
