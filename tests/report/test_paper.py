"""Figures for a paper: what is in the files, and what stands beside them."""

import json

import pytest

from isoloss.errors import BadRequest
from isoloss.report import paper_figures, write_figures
from isoloss.studies.findings import save
from report import found, stores


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = stores.trained(tmp_path_factory.mktemp("paper") / "store")
    for study in (found.STUDY, found.HOSTILE_STUDY):
        save(study, made)
    return made


@pytest.fixture(scope="module")
def drawn(store):
    return paper_figures(store, x="perplexity", laws=False)


def named(drawn, text):
    return next(one for one in drawn if text in one.name)


def points(chart):
    return next(s for s in chart.to_dict()["datasets"].values() if s and "run" in s[0])


def test_every_figure_says_what_it_was_made_from(drawn):
    one = named(drawn, "piqa-0-shot")
    assert one.facts["query"].startswith("SELECT") and "num_fewshot = 0" in one.facts["query"]
    assert (one.facts["checkpoints"], one.facts["runs"]) == (6, 2)
    assert one.facts["seeds of the runs"] == [0]
    assert one.facts["bars and bands"] == "one standard error either way"
    assert one.facts["measured by"] == ["0.1.0"]


def test_abilities_stand_against_the_axis_asked_for(drawn, store):
    one = named(drawn, "piqa-0-shot")
    assert "perplexity, held-out heldout" in json.dumps(one.chart.to_dict())
    # e to the 2.5th, as the loss was planted
    assert points(one.chart)[0]["x"] == pytest.approx(2.718281828459045**2.5, rel=1e-12)
    with pytest.raises(BadRequest):
        paper_figures(store, x="watts", laws=False)


def test_abilities_on_the_documents_of_the_loss_are_named_and_not_drawn(tmp_path):
    proxied = stores.proxied(tmp_path / "store")
    written = write_figures(proxied, tmp_path / "figures", laws=False)
    assert written.refused == ("lambada (0-shot)",)
    assert not any(name.startswith("lambada") for name in written.files)


def test_a_finding_has_all_its_panels_and_a_legend(drawn):
    spec = named(drawn, "toys-How-far").chart.to_dict()
    assert [panel["title"] for panel in spec["concat"]] == ["red", "blue"]
    assert {len(rows) for rows in spec["datasets"].values()} == {5, 2}
    assert '"title": "who"' in json.dumps(spec)


@pytest.mark.parametrize(
    ("kind", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_files_are_what_their_names_say(tmp_path, kind, start):
    plain = stores.without_loss(tmp_path / "store")
    written = write_figures(plain, tmp_path / "figures", formats=[kind], laws=False)
    assert written.files == (f"piqa-accuracy-against-tokens-seen.{kind}",)
    assert (tmp_path / "figures" / written.files[0]).read_bytes().startswith(start)
    told = json.loads((tmp_path / "figures" / "piqa-accuracy-against-tokens-seen.json").read_text())
    assert told["x"] == "tokens_seen"


def test_names_of_files_are_safe_whatever_the_names_in_the_store(tmp_path):
    for one in paper_figures(stores.hostile(tmp_path / "store"), laws=False):
        assert one.name.replace("-", "").isalnum() and one.name.isascii()


def test_an_unknown_format_is_an_error_that_writes_nothing(store, tmp_path):
    with pytest.raises(BadRequest, match="format") as error:
        write_figures(store, tmp_path / "figures", formats=["pdff"])
    assert error.value.nearest == "pdf"
    assert not (tmp_path / "figures").exists()
