"""The emergence study: planted truths are told apart, and the smallest scale runs end to end."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from isoloss.console import Terminal
from isoloss.corpora import Hmm
from isoloss.corpora.abilities import AbilityLanguage, PlantedTask
from isoloss.corpora.language import from_text
from isoloss.errors import BadData, BadRequest
from isoloss.report import write
from isoloss.store import Store
from isoloss.studies.claims import load_claims
from isoloss.studies.emergence.curves import LOSS, compare, error_gap, mean_offset, worst_offset
from isoloss.studies.emergence.families import SIZES, family_files, study_file
from isoloss.studies.emergence.findings import emergence_findings
from isoloss.studies.emergence.languages import CLAIMS, PART, cloze, languages_part
from isoloss.studies.emergence.points import Points
from isoloss.studies.emergence.study import NO_TEXTS, RECIPE
from isoloss.studies.emergence.tasks import (
    PREDICTED,
    SHOWN,
    copies,
    predictable,
    random_answers,
)
from isoloss.studies.emergence.thresholds import before_saturation, find_thresholds, half_way
from isoloss.studies.findings import load
from isoloss.studies.recipe import Order, run_recipe
from isoloss.study import Study

CLAIM = {claim.id: claim for claim in load_claims("emergence")}
ITEMS = 400


def table(*, shift=0.0, copy_at=2.2, seed=0):
    """Points as a store gives them: 3 long runs of 14 checkpoints, 24 finished runs, one arm.

    ``shift`` moves the arm's ability at equal loss; the copy begins at ``copy_at`` under every
    metric; a predictable word is smooth, and five of them at once are its fifth power.
    """
    rng = np.random.default_rng(seed)
    rows = []

    def add(family, run, params, tokens, loss, moved=0.0):
        copy = np.clip(1.4 * (copy_at - loss), 0.0, 1.0)
        step = np.clip(0.95 - 0.28 * (loss - 1.6) + moved, 0.01, 0.99)

        def share(p, n=ITEMS):
            return rng.binomial(n, np.clip(p, 0, 1)) / n

        def near(p):
            return p + 0.004 * rng.standard_normal()

        prob = {"copy": 0.25 + 0.75 * copy, "predictable": 0.25 + 0.7 * step, "random": 0.25}
        row = {
            "family": family, "run": run, "seed": 0, "step": tokens, "params_total": params,
            "tokens_seen": tokens, "flops": 6.0 * params * tokens, "schedule_progress": 1.0,
            LOSS: loss, "plain:loss_nats_per_token": loss,
            "copy:exact_match": share(copy**5), "predictable:exact_match": share(step**5),
            "copy_step:exact_match": share(copy + moved, 2_000),
            "predictable_step:exact_match": share(step, 2_000),
            "random_answers:accuracy": share(0.25, 1_600),
        }  # fmt: skip
        for name, task in (("copy", "copy_choice"), ("predictable", "predictable_choice"),
                           ("random", "random_answers")):  # fmt: skip
            row[f"{task}:accuracy"] = share(prob[name])
            row[f"{task}:correct_choice_prob"] = near(prob[name])
            row[f"{task}:brier_sum"] = 0.75 * (1 - (near(prob[name]) - 0.25) / 0.75)
        for task in ("copy", "predictable", "copy_choice", "predictable_choice", "random_answers"):
            row[f"{task}:n"] = float(ITEMS)
        rows.append(row)

    for size, params in enumerate((1_000, 3_000, 9_000)):
        for i, at in enumerate(np.linspace(0, 1, 14)):
            add(
                "long",
                f"w{size}",
                params,
                100 * (i + 1),
                3.0 - 0.1 * size - (1.0 + 0.2 * size) * at,
            )
    for i in range(24):
        params = (1_000, 2_000, 5_000, 9_000)[i % 4]
        add("grid", f"g{i}", params, 200 * (1 + i // 4), rng.uniform(1.7, 2.8))
    for i, at in enumerate(np.linspace(0, 1, 14)):
        add("architecture", "other", 3_000, 100 * (i + 1), 2.9 - 1.1 * at, moved=shift)
    return Points(pl.DataFrame(rows))


@pytest.fixture(scope="module")
def planted():
    return table()


def test_a_real_threshold_and_one_that_a_metric_made_are_told_apart(planted):
    real = find_thresholds(planted, "copy", seed=0)
    assert real.nature == "real"
    law = real.under("correct_choice_prob")
    assert law.threshold == pytest.approx(2.2, abs=0.1)
    made = find_thresholds(planted, "predictable", seed=0)
    assert made.nature == "metric-made"
    assert made.under("correct_choice_prob").verdict == "smooth"
    none = find_thresholds(planted, "random_answers", seed=0)
    assert none.nature == "none"


def test_an_arm_off_the_curve_is_seen_and_one_on_it_is_confirmed():
    claim, ability = CLAIM["architecture-on-the-curve"], "predictable_choice:correct_choice_prob"
    for shift, far in ((0.0, False), (0.15, True)):
        found = compare(table(shift=shift), "architecture", ability)
        evidence = worst_offset(claim, [found])
        # 14 probabilities with errors of .4 points each; .7 of a step's shift is the choice's
        assert evidence.estimate == pytest.approx(70 * shift, abs=0.8)
        assert (evidence.low > claim.smallest_effect) == far
        assert evidence.n == 4


def test_finished_runs_on_the_curve_have_no_mean_offset(planted):
    claim = CLAIM["finished-runs-on-the-curve"]
    found = mean_offset(
        claim, [compare(planted, "grid", "predictable_choice:correct_choice_prob")], seed=0
    )
    assert abs(found.estimate) < 1.0
    assert found.n >= 20


def test_loss_beats_compute_where_loss_is_what_counts(planted):
    claim, abilities = CLAIM["loss-beats-flops"], ["predictable_choice:correct_choice_prob"]
    runs = planted.of("long", "grid")
    found = error_gap(claim, runs, "flops", LOSS, abilities, seed=0)
    assert found.low > claim.smallest_effect
    same = error_gap(claim, runs, LOSS, LOSS, abilities, seed=0)
    assert same.estimate == 0.0


def test_what_is_mastered_is_cut_off_at_one_loss_for_all_runs(planted):
    early = table(copy_at=2.5).of("long", "grid")
    kept = before_saturation(early, "copy_choice:correct_choice_prob")
    # .25 + .75 x 1.4 (2.5 - L) is .9 at L = 1.88; long runs come by every 0.08 nats
    lowest = kept.column(LOSS).min()
    assert 1.75 <= lowest <= 1.95
    assert kept.frame.height == (early.column(LOSS) >= lowest).sum()
    assert before_saturation(planted, "random_answers:accuracy").frame.height == len(planted.run)


def test_half_way_is_read_between_checkpoints_and_not_before_the_first():
    loss, score = np.array([3.0, 2.0, 1.0]), np.array([0.0, 0.2, 0.8])
    # half of .8 lies a third of the way from .2 to .8
    assert half_way(loss, score) == pytest.approx(2.0 - 1 / 3)
    assert half_way(loss, np.array([0.5, 0.6, 0.8])) == 3.0
    assert half_way(loss[::-1], score[::-1]) == half_way(loss, score)


@pytest.fixture(scope="module")
def language():
    base = Hmm.random(24, 24, 16, 1, transition_concentration=0.02, emission_concentration=0.003)
    return AbilityLanguage(base, (PlantedTask(kind="copy", steps=5, symbols=48),), (0.15,))


def test_the_right_answers_are_those_of_the_language_itself(language):
    asked = predictable(language, 40)
    assert asked.shown.shape == (40, SHOWN) and asked.answers.shape == (40, PREDICTED)
    words = np.concatenate([asked.shown, asked.answers], axis=1)
    logs = language.base.next_token_logprobs(words)
    assert (logs[:, SHOWN:].argmax(axis=2) == asked.answers).all()
    copied = copies(language, 30)
    assert (copied.answers == copied.shown[:, :5]).all()


def test_equal_answers_come_up_about_equally_often(language):
    asked = predictable(language, 40)
    _, counts = np.unique(asked.answers, axis=0, return_counts=True)
    whole = len(np.unique(predictable(language, 10_000).answers, axis=0))
    assert len(counts) == min(whole, 40)
    # the first of every answer before the second of any: a rare one may have run out
    assert np.median(counts) >= counts.max() - 1


def test_random_answers_depend_on_nothing(language):
    rows = random_answers(language, 400)
    golds = np.bincount([row["gold"] for row in rows], minlength=4)
    # 4 sd of a binomial of 400 at 1/4
    assert np.abs(golds - 100).max() < 4 * np.sqrt(400 * 3 / 16)
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert all(len(from_text(row["query"])) == SHOWN for row in rows)


def test_the_families_and_the_study_of_every_scale_are_read_without_error(tmp_path):
    from isoloss.pretrain import FamilyConfig

    for size in SIZES.values():
        for name, text in family_files(size).items():
            file = tmp_path / f"{name}.toml"
            file.write_text(text)
            assert FamilyConfig.load(file).name == name
        Study.from_text(study_file(list(family_files(size))), folder=tmp_path)


def test_cloze_items_hold_the_true_piece_once():
    rng = np.random.default_rng(0)
    from isoloss.studies.emergence.languages import _SIGNS, _WORDS

    texts = ["".join(chr(0x4E00 + int(c)) for c in rng.integers(0, 500, 90)) for _ in range(12)]
    words = [" ".join(f"w{int(c)}" for c in rng.integers(0, 500, 90)) for _ in range(12)]
    for cut, passages in ((_SIGNS, texts), (_WORDS, words)):
        whole = [" ".join(p.split()) for p in passages]
        for row in cloze(passages, cut, rng):
            true = row["query"] + cut.delimiter + row["choices"][row["gold"]]
            assert any(true in passage for passage in whole)
            assert len(set(row["choices"])) == 4
    with pytest.raises(BadData, match="too short"):
        cloze(["short"], _SIGNS, rng)


def test_two_languages_need_two_texts(tmp_path):
    with pytest.raises(BadRequest, match="two texts"):
        languages_part(SIZES["tiny"], {"en": tmp_path / "en.txt"})


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(4)
    english = [" ".join(f"word{int(c)}" for c in rng.integers(0, 60, 80)) for _ in range(160)]
    chinese = ["".join(chr(0x4E00 + int(c)) for c in rng.integers(0, 60, 90)) for _ in range(160)]
    for name, passages in (("en", english), ("zh", chinese)):
        (folder / f"{name}.txt").write_text("\n\n".join(passages), encoding="utf-8")
    return {name: folder / f"{name}.txt" for name in ("en", "zh")}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, texts):
    out = tmp_path_factory.mktemp("study") / "RUN"
    order = Order(scale="_smoke", texts=texts, command="isoloss study emergence")
    summary = run_recipe(RECIPE, order, out, Terminal(quiet=True), write_page=write, processes=1)
    return out, order, summary


def test_the_smallest_scale_runs_from_files_to_a_page(smoke):
    out, _, summary = smoke
    assert summary.failed == 0
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / PART / "study.toml").is_file()
    (found,) = load(Store(out))
    assert [f.claim for f in found.claims] == [claim.id for claim in load_claims("emergence")]
    # so small a study decides next to nothing, and says so
    assert all(f.reason for f in found.claims)
    assert {f.claim: f.verdict for f in found.claims} == dict(summary.verdicts)
    assert "not run" not in summary.verdicts.values()
    ids = [figure.id for figure in found.figures]
    assert ids == ["ability-loss", "ability-flops", "thresholds-by-metric"]
    rows = found.figures[0].rows
    assert {row["who"] for row in rows} == {
        "long runs", "finished runs", "other architecture", "other optimizer", "other mixture",
    }  # fmt: skip


def test_findings_come_from_the_stores_alone(smoke, tmp_path):
    out, order, _ = smoke
    kept = (out / "findings" / "emergence.json").read_text()
    alone = shutil.copytree(
        out, tmp_path / "RUN", ignore=shutil.ignore_patterns("families", "texts", "tasks")
    )
    stores = {"": Store(alone), PART: Store(alone / PART)}
    found = RECIPE.findings(stores, order)
    assert json.loads(json.dumps(found.record())) == json.loads(kept)


def test_every_figure_and_table_holds_what_it_names(smoke):
    (found,) = load(Store(smoke[0]))
    for figure in found.figures:
        needed = [figure.x.column, figure.y.column, figure.panel, figure.by, figure.hollow]
        for row in figure.rows:
            assert {name for name in needed if name} <= set(row)
    for one in found.tables:
        assert all(len(row) == len(one.columns) for row in one.rows)
        assert one.rows


def test_without_texts_the_claims_on_languages_are_not_run(smoke):
    out, _, _ = smoke
    found = emergence_findings(
        Store(out), scale="_smoke", command="", other_claims={}, reason=NO_TEXTS
    )
    verdicts = {f.claim: f.verdict for f in found.claims}
    assert [verdicts[claim] for claim in CLAIMS] == ["not run", "not run"]
    assert found.not_run == (NO_TEXTS,)
