import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest

from isoloss.errors import BadRequest
from isoloss.report import collect, write
from isoloss.report.pack import to_json
from isoloss.report.pack_columns import unpacked, unpacked_places
from isoloss.store import Store
from isoloss.store.cell import Finished
from isoloss.store.imports.lm_eval_results import import_lm_eval
from report import stores
from shared_data import SHARED, needs_shared


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text, self._inside = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in {"script", "style"}:
            self.text.append(data)


def read(pages, name):
    return pages[name][0].read_text(encoding="utf-8")


def test_the_numbers_of_the_page_are_those_of_the_store(pages):
    data = stores.embedded(read(pages, "trained"))
    store = Store(pages["trained"][0].with_suffix(""))
    rows = store.measurements().filter(pl.col("subject") == "piqa", pl.col("num_fewshot") == 0)
    told = rows.filter(pl.col("metric") == "accuracy").collect()
    score = data["series"][2]["metrics"]["accuracy"]
    # six digits are kept: half of the last one
    assert unpacked(score["value"], 6) == pytest.approx(told["value"].to_list(), rel=5e-7)
    assert score["stderr"] == 0.01 and score["n"] == 100  # one value for all: kept once
    assert {rule["name"]: rule["value"] for rule in score["rules"]} == {
        "chance": 0.5, "constant_answer": 0.52,
    }  # fmt: skip
    points = unpacked_places(data["pointSets"][score["points"]])
    places = [data["checkpoints"]["x"]["loss"][p] for p in points]
    assert places == [2.5, 2.0, 1.5, 4.0, 3.5, 3.0]  # large, then small, each by step


def test_values_are_kept_to_six_digits(tmp_path):
    store = stores.without_loss(tmp_path / "store")
    with store.writing():
        rows = [stores.row("accuracy", 2 / 3, 1 / 300)]
        stores.put(store, stores.checkpoint(5), "task_score", "thirds", rows)
    write(store, tmp_path / "page.html")
    data = stores.embedded((tmp_path / "page.html").read_text())
    score = data["series"][1]["metrics"]["accuracy"]
    assert (score["value"], score["stderr"]) == (0.666667, 0.003333)


@pytest.mark.parametrize("name", ["trained", "hostile", "proxied", "without_loss"])
def test_nothing_is_loaded_from_elsewhere(pages, name):
    html = read(pages, name)
    loads = {"src", "href", "action", "data", "poster", "srcset", "style"}
    for tag, attributes in Elements(html).found:
        for key in loads & attributes.keys():
            assert "//" not in attributes[key], (tag, attributes)
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in html


def test_hostile_names_are_text(pages):
    html = read(pages, "hostile")
    page = Elements(html)
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    # as many as on a page without attacks
    own = [tag for tag, _ in Elements(read(pages, "trained")).found if tag == "script"]
    assert len(scripts) == len(own)
    assert '<script>alert("x")</script>' in "".join(page.text)
    assert not any(key.startswith("on") and key != "onsubmit" for _, a in page.found for key in a)
    data = html.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data and "alert" in data
    # exact names stand in the queries alone, where a browser keeps to their direction
    seen = Elements(re.sub(r"<pre.*?</pre>", "", html, flags=re.DOTALL))
    assert "\u202e" not in "".join(seen.text)


def test_the_bundle_cannot_end_its_own_script(pages):
    html = read(pages, "trained")
    assert html.count("</script") == html.count("<script")


def test_a_circular_panel_is_refused_on_the_loss_and_not_on_tokens(pages):
    data = stores.embedded(read(pages, "proxied"))
    lambada, piqa = data["series"]
    # and not on the same loss in other words either
    assert (
        set(lambada["refused"]) == {"loss", "perplexity"}
        and "circular" in lambada["refused"]["loss"]
    )
    assert piqa["refused"] == {}
    assert pages["proxied"][1].refused == ("lambada (0-shot)",)


def test_the_page_counts_what_was_measured_and_what_went_wrong(pages):
    text = " ".join(" ".join(Elements(read(pages, "trained")).text).split())
    for said in ("checkpoints 6", "cells 36", "corpus 1", "tasks 2", "the logits are NaN",
                 "export it again", "same_weights", "variant 6 of 6"):  # fmt: skip
        assert said in text, said
    assert "context 64" in text and "loss, held-out heldout (nats per token)" in text


def test_the_path_of_the_store_is_not_told(pages):
    page, _ = pages["trained"]
    assert str(page.parent) not in page.read_text()


def test_the_summary_is_one_json_object(pages):
    page, summary = pages["trained"]
    record = json.loads(json.dumps(summary.record()))
    assert record["page"] == str(page)
    assert record["bytes"] == page.stat().st_size
    assert (record["checkpoints"], record["cells"], record["series"]) == (6, 36, 4)
    assert (record["kind"], record["failures"], record["flagged"]) == ("held-out", 1, 1)


def test_an_empty_store_has_a_page(tmp_path):
    write(Store.create(tmp_path / "store"), tmp_path / "page.html")
    assert "Nothing has been measured yet" in (tmp_path / "page.html").read_text()


def test_an_unknown_language_is_an_error_that_writes_nothing(tmp_path):
    with pytest.raises(BadRequest, match="language"):
        write(Store.create(tmp_path / "store"), tmp_path / "page.html", language="tlh")
    assert not (tmp_path / "page.html").exists()


def test_the_same_store_gives_the_same_bytes(pages, tmp_path):
    page, _ = pages["trained"]
    write(Store(page.with_suffix("")), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_json_in_a_script_is_ascii_without_angle_brackets():
    text = to_json({"name": "</script><!--\u2028&"})
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == {"name": "</script><!--\u2028&"}


def test_twenty_tasks_at_a_thousand_checkpoints_stay_below_five_megabytes(tmp_path):
    # 20 tasks of 11 scores each: what a study of own checkpoints measures
    store = Store.create(tmp_path / "store")
    points = [stores.checkpoint(s, model=f"m{m}") for m in range(10) for s in range(100)]
    names = [f"score{k}" for k in range(11)]
    cells = [
        Finished(
            cell=stores.Cell(weights_hash=p["weights_hash"], probe="task_score",
                             subject=f"{t}task", settings=stores.MEASURED, numerics=1),
            rows=[stores.row(m, (i * 7919 + k * 104729 + t) % 999983 / 999983,
                             (i + k * 31 + t) % 9973 / 99730) for k, m in enumerate(names)],
            execution={},
        )
        for i, p in enumerate(points) for t in range(20)
    ]  # fmt: skip
    with store.writing():
        store.put_checkpoints(points)
        store.put_cells(cells)
    # eleven bytes a number at the most with its error, the library of figures, the checkpoints
    assert write(store, tmp_path / "page.html").bytes < 5e6


@needs_shared
def test_the_published_pythia_results_make_a_page(tmp_path):
    store = Store.create(tmp_path / "store")
    for model in ("pythia-70m", "pythia-160m"):
        import_lm_eval(SHARED / "pythia-evals" / model, store)
    summary = write(store, tmp_path / "page.html")
    assert summary.kind == "proxy" and "lambada_openai" in summary.loss_axis
    assert summary.refused == ("lambada_openai (0-shot)", "lambada_openai (5-shot)")
    data = collect(store)
    main = {s.title for s in data.abilities.series if s.group is None}
    assert {"piqa", "arc_easy", "sciq", "mmlu"} <= main
    grouped = {s.group for s in data.abilities.series}
    assert grouped == {None, "hendrycksTest", "crows_pairs"}
