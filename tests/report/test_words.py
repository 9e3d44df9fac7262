"""The page's opening: every sentence follows from a verdict, is linked and says how sure it is."""

import re
from dataclasses import replace
from typing import get_args

import pytest

from isoloss.laws.emergence_result import Verdict as EmergenceVerdict
from isoloss.laws.threshold_metrics import Answer as Tipping
from isoloss.report import answer_words, collect, write
from isoloss.report.answer import opening
from isoloss.report.page import findings_of
from isoloss.report.section import sections
from isoloss.report.sentences import Sentence
from isoloss.report.sureness import CLAIM, CURVE, RULES, SATURATION, THRESHOLD, TIPPING
from isoloss.report.words import Best, best_scores
from isoloss.store import Store
from isoloss.store.imports import import_lm_eval
from isoloss.studies.findings import Findings, FindingsTable, Verdict, save
from isoloss.studies.forecasts.loss_section import loss_findings
from report import found, stores
from shared_data import SHARED, needs_shared


def said(store, *, laws=True, studies=None):
    data = collect(store)
    told = sections(findings_of(store, data, laws=laws, seed=0) if studies is None else studies,
                    data.runs)  # fmt: skip
    return [one for answer in opening(data, best_scores(data), told) for one in answer.sentences]


def told(store, **options):
    return [one.text for one in said(store, **options)]


def only(texts, start):
    (one,) = [text for text in texts if text.startswith(start)]
    return one


def test_the_opening_of_a_small_store_is_this(tmp_path):
    store = stores.trained(tmp_path)
    save(found.STUDY, store)
    assert [(one.text, one.sure) for one in said(store)] == [
        ("6 checkpoints of 2 runs (2 models in 1 family): 36 cells on 1 corpus and 2 tasks.",
         "measured"),
        ("The models have 1 k to 9 k parameters.", "measured"),
        ("Whether the runs share one curve of the loss cannot be told in 4 of 4 abilities: coin; "
         "hidden_state of language; piqa, 0-shot; piqa, 5-shot.", "undetermined"),
        ("Whether there is a threshold cannot be told in coin; hidden_state of language; "
         "piqa, 0-shot; piqa, 5-shot.", "undetermined"),
        ("Whether all scores put it at the same loss cannot be told in piqa, 0-shot.",
         "undetermined"),
        ("Nothing is known below a loss of 2: the lowest that was fitted.", "measured"),
        ("Whether the loss has stopped improving cannot be told in 2 of 2 runs: small; large.",
         "undetermined"),
        ("large@100 has the lowest loss, held-out heldout (nats per token): 2.000 ± 0.020.",
         "estimate ± se"),
        ("The best checkpoint lies more than 2 standard errors above the baseline in 3 of 4 "
         "series: hidden_state of language; piqa (0-shot, 5-shot).", "measured"),
        ("The best checkpoint does not lie more than 2 standard errors above the baseline in 1 of "
         "4 series: coin.", "measured"),
        ("No forecast: No law of the loss for toy: a loss law needs 4 finished runs of 3 sizes.",
         "not asked"),
        ("In “A study of toys” the evidence confirms 1 of 2 claims: Toys roll.", "confirmed"),
        ("In “A study of toys” no runs were made for 1 of 2 claims: Toys fly.", "not asked"),
        ("1 cell could not be measured; the first is toy/small@9 task_score coin: the logits are "
         "NaN. To do: export it again", "measured"),
        ("1 of 6 checkpoints are flagged and crossed out: none of them is called lowest or best.",
         "measured"),
        ("4 facts are unknown for some checkpoint: variant; stage; parent; commit.", "measured"),
    ]  # fmt: skip


@needs_shared
def test_the_opening_of_an_imported_family_names_its_proxy_and_the_next_size(tmp_path):
    store = Store.create(tmp_path)
    import_lm_eval(SHARED / "pythia-evals", store)
    data = collect(store)
    losses = loss_findings(store, data.axes.loss.source, seed=0)
    texts = told(store, studies=[losses])
    assert texts[0].startswith("216 checkpoints of 8 runs (8 models in 1 family): 26,928 cells on")
    assert "No law was asked: isoloss report RUN." in texts
    assert "pythia-v1.1-12b@133000 has the lowest ln perplexity of lambada_openai, 0-shot" in (
        " ".join(texts)
    )
    assert only(texts, "This axis is a proxy").endswith("--corpus FILE --out RUN.")
    assert only(texts, "No: still improving").endswith("pythia-v1.1-1b-bf16; pythia-v1.1-1.4b.")
    assert "2e+10" not in (next_size := only(texts, "pythia: a run of"))
    assert next_size.startswith("pythia: a run of 20 B parameters on 299.89 B training tokens")
    # the runs that turn are left out of the law: it rests on six of the eight
    (forecast,) = [one for one in said(store, studies=[losses]) if one.text == next_size]
    assert (forecast.sure, forecast.n) == ("estimate ± se", 6)


@pytest.mark.parametrize("build", [stores.trained, stores.proxied, stores.without_loss,
                                   stores.patchy, stores.hostile, Store.create])  # fmt: skip
@pytest.mark.parametrize("laws", [True, False])
def test_every_sentence_leads_somewhere_and_says_how_sure_it_is(build, laws, tmp_path):
    store = build(tmp_path / "run")
    if build is stores.trained:
        save(found.STUDY, store)
        save(found.HOSTILE_STUDY, store)
    write(store, tmp_path / "page.html", laws=laws)
    html = (tmp_path / "page.html").read_text("utf-8")
    opened = html.partition('<section id="words">')[2].partition("</header>")[0]
    anchors = re.findall(r'<a href="#([^"]+)">', opened)
    sure = re.findall(r'<span class="sure" data-sure="([^"]+)" title="([^"]+)">', opened)
    assert len(anchors) == len(sure) == opened.count("<li>") > 0
    ids = re.findall(r'\bid="([^"]+)"', html.partition("<script")[0])
    assert set(anchors) <= set(ids)
    assert len(ids) == len(set(ids))
    assert {word for word, _ in sure} <= set(RULES)


TOTAL = [
    (THRESHOLD, {name.replace("_", " ") for name in get_args(EmergenceVerdict)} | {"not asked"}),
    (TIPPING, {name.replace("_", " ") for name in get_args(Tipping)} - {"none"}),
    (CLAIM, set(get_args(Verdict))),
    (CURVE, {"collapses", "differs", "no signal", "undetermined"}),
    (SATURATION, {"saturated", "still improving", "flat", "undetermined"}),
]


@pytest.mark.parametrize(("rule", "verdicts"), TOTAL)
def test_every_verdict_has_one_word_and_only_the_strongest_is_called_confirmed(rule, verdicts):
    assert set(rule) == verdicts
    (strongest,) = [verdict for verdict, word in rule.items() if word == "confirmed"]
    assert strongest in {"collapses", "threshold", "same", "saturated", "confirmed"}
    assert rule["undetermined"] == "undetermined"


TABLES = {
    "collapses": "foretells left-out runs better", "differs": "do not score alike",
    "no signal": "nothing can be told", "undetermined": "cannot be told",
    "threshold": "appears at a loss", "smooth": "without a threshold",
    "absent": "Not there at any loss",
    "below baseline": "no threshold", "answers constant": "says nothing",
    "not asked": "No threshold was looked for", "same": "at the same loss in",
    "different": "at different losses", "some metrics only": "the score may have made it",
    "saturated": "has turned and risen", "still improving": "No: still improving",
    "flat": "Neither a rise nor a fall",
}  # fmt: skip
"""What the sentence of a verdict has to say."""


@pytest.mark.parametrize(
    ("rule", "words"),
    [(CURVE, answer_words.FOLLOWS), (THRESHOLD, answer_words.THRESHOLDS),
     (TIPPING, answer_words.TIPPINGS), (SATURATION, answer_words.SATURATES)],
)  # fmt: skip
def test_no_sentence_says_more_than_its_verdict(rule, words):
    for verdict, sure in rule.items():
        assert TABLES[verdict] in words[verdict]
        if sure == "undetermined":
            doubt = ("cannot be told", "nothing", "no threshold", "may have")
            assert any(word in words[verdict] for word in doubt), words[verdict]


def judged(name, columns, rows):
    """Findings of one table, as the laws give it."""
    study = "loss-laws" if name == "loss-turns" else "explained"
    table = FindingsTable(id=name, title="t", columns=columns, rows=rows)
    return [Findings(study=study, title="t", tables=(table,), figures=(
        replace(found.figure(), id="ability-vs-loss"),))]  # fmt: skip


@pytest.mark.parametrize(("verdict", "sure"), CURVE.items())
def test_a_sentence_repeats_the_verdict_on_the_curve(verdict, sure, tmp_path):
    studies = judged("correlation", ("ability", "one curve?", "runs"), [("piqa", verdict, 7)])
    one = said(stores.trained(tmp_path), studies=studies)[2]
    assert (one.sure, one.n) == (sure, 7)
    assert one.template == answer_words.FOLLOWS[verdict]


@pytest.mark.parametrize(("verdict", "sure"), THRESHOLD.items())
def test_a_sentence_repeats_the_verdict_on_the_threshold(verdict, sure, tmp_path):
    columns = ("ability", "score", "verdict", "threshold (loss)", "95% interval",
               "same place under all scores?", "nothing known below loss")  # fmt: skip
    rows = [("piqa", "accuracy", verdict, 2.345, "2.3 to 2.4", None, 1.5),
            # under another score the verdict differs: the first one speaks for the ability
            ("piqa", "brier_sum", "undetermined", None, None, None, 1.5)]  # fmt: skip
    sentences = said(stores.trained(tmp_path), studies=judged("thresholds", columns, rows))
    (one,) = [s for s in sentences if s.template == answer_words.THRESHOLDS[verdict]]
    assert one.sure == sure
    assert ("piqa: 2.345 [2.3 to 2.4]" in one.text) == (verdict == "threshold")


@pytest.mark.parametrize(("verdict", "sure"), SATURATION.items())
def test_a_sentence_repeats_the_verdict_on_the_loss(verdict, sure, tmp_path):
    columns = ("run", "verdict", "onset (tokens)", "95% interval")
    rows = [("small", verdict, 2.5e9, "2e+09 to 3e+09")]
    sentences = said(stores.trained(tmp_path), studies=judged("loss-turns", columns, rows))
    (one,) = [s for s in sentences if s.template == answer_words.SATURATES[verdict]]
    assert one.sure == sure
    assert ("small: 2.5 B [2 B, 3 B]" in one.text) == (verdict == "saturated")


@pytest.mark.parametrize(("verdict", "sure"), CLAIM.items())
def test_a_sentence_repeats_the_verdict_on_a_claim(verdict, sure, tmp_path):
    claim = replace(found.STUDY.claims[0], verdict=verdict)
    studies = [replace(found.STUDY, claims=(claim,))]
    (one,) = [s for s in said(stores.trained(tmp_path), studies=studies) if "toys" in s.text]
    assert one.template == answer_words.CLAIMS[verdict]
    assert one.sure == sure
    assert one.n == (None if verdict == "not run" else claim.n)


def test_the_lowest_loss_is_never_that_of_a_flagged_checkpoint(tmp_path):
    text = " ".join(told(stores.trained(tmp_path), laws=False))
    assert "large@100 has the lowest loss" in text
    assert "large@1000" not in text


def test_losses_within_a_hundredth_nat_are_a_tie_that_is_not_broken(tmp_path):
    store = stores.trained(tmp_path)
    near, far = (stores.checkpoint(s, model="third", params_total=20000) for s in (1, 2))
    with store.writing():
        store.put_checkpoints([near, far])
        stores.put_loss(store, near, 2.0099)
        stores.put_loss(store, far, 2.0101)
    text = only(told(store, laws=False), "2 checkpoints share the lowest")
    assert "none is preferred: large@100; third@1; the lowest" in text


def test_the_baseline_is_the_higher_of_chance_and_the_constant_answer(tmp_path):
    scores = best_scores(collect(stores.trained(tmp_path)))
    best = {(b.series.title, b.series.detail): b for b in scores}
    piqa = best["piqa", "0-shot"]
    assert (piqa.baseline, piqa.baseline_name) == (0.52, "constant answer")
    # the best that is not flagged: 0.5 + 0.07 * 4
    assert piqa.stderrs == pytest.approx((0.78 - 0.52) / 0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("stderrs", "checkpoints", "verdict"),
    [(None, 9, "unknown"), (2.0, 1, "not above"), (2.1, 1, "above"), (2.1, 200, "within luck"),
     (3.0, 200, "above")],
)  # fmt: skip
def test_the_best_of_many_guesses_is_not_called_above(stderrs, checkpoints, verdict):
    best = Best(series=None, metric="accuracy", checkpoint="a", score="", baseline=0.5,
                baseline_name="chance", stderrs=stderrs, checkpoints=checkpoints)  # fmt: skip
    assert best.verdict == verdict


def test_what_was_not_measured_is_said_with_the_command_that_would(tmp_path):
    texts = told(stores.without_loss(tmp_path / "a"))
    assert only(texts, "No loss is in the store").endswith("--corpus FILE --out RUN.")
    assert "Nothing has been measured yet: isoloss run" in told(Store.create(tmp_path / "b"))[0]


def test_a_sentence_whose_slots_do_not_fit_its_template_is_a_mistake():
    with pytest.raises(AssertionError):
        Sentence(template="{a}", slots={"b": "x"}, anchor="x", sure="measured")
