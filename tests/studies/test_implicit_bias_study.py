"""The study of implicit bias at its smallest scale, from families to the page."""

import json
import tomllib
from pathlib import Path

import polars as pl
import pytest

from isoloss.config import check
from isoloss.console import Terminal
from isoloss.pretrain import FamilyConfig
from isoloss.pretrain.languages import make_language
from isoloss.report import write
from isoloss.store import Store
from isoloss.studies.claims import load_claims
from isoloss.studies.findings import load
from isoloss.studies.implicit_bias.families import SIZES
from isoloss.studies.implicit_bias.study import NO_LM, RECIPE
from isoloss.studies.recipe import MAIN, Order, run_recipe

SMOKE = SIZES["_smoke"]


def run(out):
    order = Order(scale="_smoke", command="isoloss study implicit-bias --scale _smoke")
    return run_recipe(RECIPE, order, out, Terminal(quiet=True), write_page=write, processes=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out)


def test_every_model_is_measured_and_every_claim_judged(study):
    out, summary = study
    assert summary.failed == 0
    (found,) = load(Store(out))
    assert [c.claim for c in found.claims] == [c.id for c in load_claims("implicit-bias")]
    assert summary.verdicts == {c.claim: c.verdict for c in found.claims}
    verdicts = {c.claim: c for c in found.claims}
    # forty steps are no optimum: nothing is said of models, and two seeds are too few
    for name, claim in verdicts.items():
        if name.startswith(("hmm-", "pcfg-")):
            assert claim.verdict == "undetermined", (name, claim.reason)
    assert verdicts["dyck-flat-features-transfer"].verdict == "confirmed"
    assert "too few models" in verdicts["flatter-models-transfer-better"].reason
    assert found.not_run[0] == NO_LM


def test_tables_hold_what_the_store_holds(study):
    out, _ = study
    (found,) = load(Store(out))
    tables = {table.id: table for table in found.tables}
    for table in found.tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.id
    models = tables["models"].rows
    ends = {row[:4] for row in models}
    # two widths at two ends on each language; sgd at two ends, the adversary at the last early one
    assert ends == {
        *(
            (language, "adamw", width, steps)
            for language in ("hmm", "pcfg", "hmm-causal")
            for width in (16, 32)
            for steps in (20, 40)
        ),
        *(("hmm", "sgd", 32, steps) for steps in (20, 40)),
        ("hmm", "adversarial 1", 32, 20),
    }
    (row,) = [r for r in models if r[:4] == ("hmm", "adamw", 32, 40)]
    rows = Store(out).measurements().filter(
        (pl.col("family") == "hmm")
        & pl.col("run").is_in(["bert-w32-d1-seed0", "bert-w32-d1-seed1"])
        & (pl.col("step") == 40)
    ).collect()  # fmt: skip
    for column, metric, probe, digits in (
        (5, "distance_to_optimum_nats", "optimum", 4),
        (6, "fisher_trace", "fisher_trace", 2),
        (9, "accuracy", "transfer", 1),
    ):
        mean = rows.filter(metric=metric, probe=probe)["value"].mean()
        shown = 100 * mean if metric == "accuracy" else mean
        assert float(str(row[column]).split()[0]) == pytest.approx(shown, abs=0.51 * 10**-digits)


def test_narrow_traces_are_those_of_widened_checkpoints_of_the_same_loss(study):
    out, _ = study
    rows = Store(out).measurements().filter(metric="distance_to_optimum_nats").collect()
    losses = {(r["family"], r["run"], r["step"]): r["value"] for r in rows.iter_rows(named=True)}
    pairs = [(key, ("hmm-widened", *key[1:])) for key in losses if key[0] == "hmm"]
    same = [(losses[a], losses[b]) for a, b in pairs if b in losses]
    assert len(same) == 4  # two seeds, two ends
    for one, other in same:
        assert one == pytest.approx(other, abs=1e-4)


def test_a_second_call_measures_nothing_and_finds_the_same(study):
    out, before = study
    old = (out / "findings" / "implicit-bias.json").read_text()
    again = run(out)
    assert again.cells == 0 and again.verdicts == before.verdicts
    assert (out / "findings" / "implicit-bias.json").read_text() == old


def test_the_lookup_table_is_the_probe_on_the_true_conditionals(study):
    out, _ = study
    (found,) = load(Store(out))
    (table,) = [t for t in found.tables if t.id == "lookup"]
    kept = {
        name: json.loads((out / part / "lookup.json").read_text())["value"]
        for name, part in (("hmm", ""), ("pcfg", "pcfg"))
    }
    assert {row[0]: row[1] / 100 for row in table.rows} == pytest.approx(kept)


def test_the_page_stands_and_names_the_study(study):
    out, summary = study
    assert summary.page is not None
    assert "What the loss hides" in Path(summary.page).read_text(encoding="utf-8")


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_the_files_of_every_scale_are_valid_and_branches_meet_the_comparisons(scale):
    for part in RECIPE.parts(Order(scale=scale)):
        for name, text in part.families.items():
            config = check(tomllib.loads(text), FamilyConfig, text=text, source=name)
            runs = config.runs(tokens_per_sequence=6.0)
            assert len({run.seed for run in runs}) >= 3
            assert f'families/{name}"' in part.study
    if scale != "paper":
        size = SIZES[scale]
        files = RECIPE.parts(Order(scale=scale))[-1].families
        for weight in size.weights:
            assert f"steps = {size.early[-1]}\n" in files[f"hmm-adversarial-{weight:g}"]
        assert RECIPE.advice(Order(scale=scale)) is None
    else:
        assert "plan" in RECIPE.advice(Order(scale=scale))


def test_the_language_of_the_adversary_is_that_of_the_family_it_is_compared_with():
    files = RECIPE.parts(Order(scale="tiny"))[-1].families
    assert RECIPE.parts(Order(scale="tiny"))[-1].name == MAIN
    languages = set()
    for name, text in files.items():
        config = check(tomllib.loads(text), FamilyConfig, text=text, source=name)
        made = make_language(config.language, folder=Path(), seed=config.seed)
        languages.add(made.fingerprint())
    assert len(languages) == 1


def test_text_of_a_checkpoint_is_a_part_of_its_own_without_an_ability(tmp_path):
    parts = RECIPE.parts(Order(scale="tiny", texts={"lm": tmp_path / "model"}))
    assert [part.name for part in parts] == ["pcfg", "lm", MAIN]
    assert str(tmp_path / "model") in parts[1].families["lm"]
    assert "probe.transfer" not in parts[1].study
