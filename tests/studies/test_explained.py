"""What is said about any store: planted laws are found, and nothing is said beyond a verdict."""

import time
from dataclasses import replace

import numpy as np
import pytest

from isoloss.errors import BadRequest
from isoloss.laws.emergence_points import make_points
from isoloss.store import Store
from isoloss.store.axis import choose
from isoloss.store.imports import import_lm_eval, import_table
from isoloss.studies import findings
from isoloss.studies.explained import findings as explained
from isoloss.studies.explained.findings import explain
from isoloss.studies.explained.laws import ask, score_errors, weight_items
from isoloss.studies.explained.points import read
from report import stores
from shared_data import SHARED, needs_shared
from studies import planted_store
from studies.planted_store import ETA, drawn, family, finished, guess, row, smooth, three_scores


def rows_of(found, table):
    """Rows of a table by their first two cells."""
    one = next(t for t in found.tables if t.id == table)
    return {r[:2]: dict(zip(one.columns, r, strict=True)) for r in one.rows}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return planted_store.planted(tmp_path_factory.mktemp("planted") / "store")


@pytest.fixture(scope="module")
def found(store):
    return explain(store)


def test_an_ability_that_is_a_function_of_the_loss_is_said_to_collapse(found):
    told = rows_of(found, "correlation")
    verdicts = {key[0]: one["one curve?"] for key, one in told.items()}
    assert verdicts["smooth"] == verdicts["kinked"] == "collapses"
    assert verdicts["guessing"] == "no signal"
    assert told["smooth", "accuracy"]["Spearman"] < -0.99
    assert found.answers[0].startswith("At equal loss the runs score alike")
    assert "smooth" in found.answers[0] and "by_size" not in found.answers[0]


def test_an_ability_that_goes_with_size_is_said_to_differ_and_by_how_much(found):
    told = rows_of(found, "correlation")["by_size", "accuracy"]
    assert told["one curve?"] == "differs"
    # 2 points a doubling over 8 runs: the ends lie about 8 from the curve of the others
    assert abs(float(told["largest offset (points)"])) > 4
    offsets = rows_of(found, "offsets")
    assert offsets["by_size", "m7"]["offset (points)"] > 4 > -4 > (
        offsets["by_size", "m0"]["offset (points)"]
    )  # fmt: skip


def test_a_real_threshold_stands_at_the_same_loss_under_three_scores(found):
    told = rows_of(found, "thresholds")
    for metric in ("accuracy", "correct_choice_prob", "brier_sum"):
        one = told["kinked", metric]
        assert one["verdict"] == "threshold"
        low, high = map(float, one["95% interval"].split(" to "))
        assert low < ETA < high
        assert one["same place under all scores?"] == "same"
    assert told["smooth", "accuracy"]["verdict"] == "smooth"
    assert told["guessing", "accuracy"]["verdict"] == "absent"
    assert any("kinked at 2." in answer for answer in found.answers)


def test_what_lies_below_the_lowest_loss_is_said_to_be_unknown(found, store):
    lowest = min(one.main.loss.min() for one in read(store, choose(store)).abilities)
    assert any(f"Nothing is known below loss {lowest:.3g}" in text for text in found.answers)


def test_an_ability_on_the_documents_of_the_loss_is_refused_by_name(found):
    assert any("heldout" in line and "circular" in line for line in found.not_run)
    assert any(text.startswith("Refused: heldout") for text in found.answers)
    assert not any(key[0] == "heldout" for key in rows_of(found, "correlation"))


def test_a_collection_enters_as_its_mean_alone(found, store):
    titles = {key[0] for key in rows_of(found, "correlation")}
    assert "exam (mean of 5)" in titles and not any(t.startswith("exam-") for t in titles)
    mean = next(a for a in read(store, choose(store)).abilities if a.name.startswith("exam"))
    assert set(mean.main.items) == {2500.0}
    parts = store.measurements().collect().filter(metric="accuracy")
    own = parts.filter(parts["subject"].str.starts_with("exam-"))
    # a mean of five float64 numbers a checkpoint
    assert mean.main.score.mean() == pytest.approx(own["value"].mean(), rel=1e-12)


def test_noise_is_told_by_score(found):
    told = rows_of(found, "noise")
    assert told["smooth", "accuracy"]["runs"] == 8
    assert {key[1] for key in told if key[0] == "kinked"} == {
        "accuracy", "correct_choice_prob", "brier_sum",
    }  # fmt: skip


def test_the_figure_holds_curve_guess_and_threshold_of_every_panel(found):
    figure, places = found.figures
    # asked under three scores, the planted threshold stands in a figure of its own
    assert {row["ability"] for row in places.rows} == {"kinked"}
    assert all(row["low"] <= row["threshold"] <= row["high"] for row in places.rows)
    panels = {row["ability"] for row in figure.rows}
    assert "kinked: accuracy" in panels and len(panels) == 5
    kinked = [row for row in figure.rows if row["ability"] == "kinked: accuracy"]
    (kink,) = [row for row in kinked if row.get("layer") == "rule" and "loss" in row]
    assert kink["x_low"] < ETA < kink["x_high"]
    assert sum("run" in row for row in kinked) == 8 * 12
    curve = [row for row in kinked if row.get("layer") == "fit"]
    worst = max(abs(r["score"] - planted_store.kinked(r["loss"])) for r in curve)
    # a smooth curve rounds the kink; the scores' own error is .005
    assert worst < 0.02


def test_the_same_seed_gives_the_same_findings_and_they_survive_the_store(found, store):
    again = explain(store)
    assert again.record() == found.record()
    findings.save(again, store)
    (kept,) = findings.load(store)
    assert kept.record() == again.record()


def test_a_flagged_checkpoint_enters_nothing_and_is_counted(tmp_path):
    store, points, _ = family(tmp_path, {"t": drawn(1, smooth)}, runs=3, points=6)
    wrong = finished(points[0], "task_score", "t", [row("accuracy", 1.0), guess()])
    with store.writing():
        store.put_cells([wrong])
        store.put_flags([{**{k: points[0][k] for k in ("family", "model", "run", "step")},
                          "kind": "mixed_upload", "detail": ""}])  # fmt: skip
    found = explain(store)
    assert any("1 of 18 checkpoints are flagged" in line for line in found.not_run)
    assert not any(row.get("score") == 1.0 for row in found.figures[0].rows)


def test_one_run_is_undetermined_and_a_store_without_loss_says_so(tmp_path):
    store, _, _ = family(tmp_path / "one", {"t": drawn(1, smooth)}, runs=1)
    told = rows_of(explain(store), "correlation")["t", "accuracy"]
    assert told["one curve?"] == "undetermined" and "1 run" in told["why"]
    nothing = explain(stores.without_loss(tmp_path / "two"))
    assert nothing.answers == () and "holds no loss" in nothing.not_run[0]
    assert explain(Store.create(tmp_path / "three")).tables == ()


def test_corpora_of_several_tokenizers_are_compared_in_bits_per_byte(tmp_path):
    store, points, losses = family(tmp_path, {"t": drawn(1, smooth)}, runs=4, points=6, bits=False)
    other = {"corpus_hash": "text", "context": 64, "stride": 64, "bos": "yes"}
    cells = []
    for i, (point, loss) in enumerate(zip(points, losses, strict=True)):
        name = str(i % 2) * 32
        rows = [stores.row("loss_nats_per_token", loss * (1 + i % 2)),
                stores.row("bits_per_byte", loss / 3)]  # fmt: skip
        cells.append(finished(point, "token_loss", "both", rows, tokenizer_hash=name, **other))
    with store.writing():
        store.put_cells(cells)
    with pytest.raises(BadRequest, match="several loss axes"):
        explain(store)  # two corpora: one must be named
    found = explain(store, loss="both:bits_per_byte")
    assert found.facts["loss axis"] == "loss, held-out both (bits per byte)"
    assert any("--loss heldout:loss_nats_per_token" in text for text in found.answers)


def test_a_store_of_many_abilities_is_asked_less_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(explained, "MOST_SIDE_BY_SIDE", 1)
    monkeypatch.setattr(explained, "MOST_THRESHOLDS", 2)
    monkeypatch.setattr(explained, "MOST_ABILITIES", 3)
    tasks = {name: three_scores(i) for i, name in enumerate("abcd")}
    store, _, _ = family(tmp_path, tasks, runs=3, points=6)
    found = explain(store)
    assert {key[0] for key in rows_of(found, "correlation")} == {"a", "b", "c"}
    asked = [(k, one["verdict"] != "not asked") for k, one in rows_of(found, "thresholds").items()]
    assert asked == [
        (("a", "accuracy"), True),
        (("b", "accuracy"), True),
        (("c", "accuracy"), False),
    ]
    assert any("first 3 of 4 abilities" in line for line in found.not_run)
    assert any("under one score each, in the first 2" in line for line in found.not_run)


# ---- numbers read off published figures


def read_off(folder, *, error=0.004, later=True):
    """Four sizes, their curves read off two figures: a score that follows the loss, with errors."""
    rng = np.random.default_rng(0)
    lines = ["model,params,tokens,stage,loss,loss_se,task,metric,score,score_se"]
    for r, (size, params) in enumerate([("7B", 7), ("13B", 13), ("33B", 33), ("65B", 65)]):
        for k in range(1, 15):
            loss = 1.45 + 0.9 * k**-0.45 + 0.14 * (3 - r)
            for task in ("questions", "stories"):
                score = 0.3 + 0.35 * (2.8 - loss) + rng.normal(0, error)
                lines.append(f"{size},{params}e9,{k}e11,,{loss + rng.normal(0, 0.004):.4f},0.004,"
                             f"{task},accuracy,{score:.4f},{error}")  # fmt: skip
    if later:
        loss = 1.45 + 0.9 * 14**-0.45 + 0.14
        score = 0.3 + 0.35 * (2.8 - loss) + 0.06
        lines.append(f"33B,33e9,15e11,posttrain,{loss:.4f},0.004,questions,accuracy,{score:.4f},"
                     f"{error}")  # fmt: skip
    text = "\n".join(lines).replace("e9", "000000000").replace("e11", "00000000000")
    # one loss a checkpoint, whatever the task
    table, losses = [], {}
    for line in text.splitlines():
        cells = line.split(",")
        cells[4] = losses.setdefault((cells[0], cells[2], cells[3]), cells[4])
        table.append(",".join(cells))
    (folder / "read.csv").write_text("\n".join(table) + "\n")
    columns = {"model": "model", "params": "params", "tokens": "tokens", "stage": "stage",
               "loss": "loss", "loss_stderr": "loss_se", "task": "task", "metric": "metric",
               "value": "score", "stderr": "score_se"}  # fmt: skip
    store = Store.create(folder / "store")
    import_table(folder / "read.csv", store, family="read", columns=columns)
    return store


def test_read_off_errors_of_loss_and_score_enter_the_laws(tmp_path):
    store = read_off(tmp_path)
    one = next(a for a in read(store, choose(store)).abilities if a.name == "questions")
    told = ask(one, thresholds=3, seed=0)
    scores = one.main.where(~one.main.is_later)
    assert scores.is_read and set(scores.loss_stderr) == {0.004}
    # effective variance: the planted slope is -0.35, so .004^2 + (.35 * .004)^2
    errors = score_errors(scores, told.curve)
    assert np.median(errors) == pytest.approx(0.004 * np.hypot(1, 0.35), rel=0.05)
    p = scores.score
    assert weight_items(scores, told.curve) == pytest.approx(p * (1 - p) / errors**2, rel=1e-12)
    assert told.collapse is not None
    assert told.collapse.noise >= np.median(errors) * (1 - 1e-12)


def test_scores_read_off_with_a_larger_error_weigh_less():
    scores = np.full(6, 0.5)
    loss, run = np.linspace(2, 3, 6), np.array(["a", "b"] * 3)
    points = [make_points(loss, scores, 0.25, run, n_items=0.25 / s**2) for s in (0.01, 0.02)]
    ratio = points[0].precision(np.full(6, 0.5)) / points[1].precision(np.full(6, 0.5))
    # the inverse variance of a share is n / (p (1 - p))
    assert ratio == pytest.approx(4.0, rel=1e-9)


def test_numbers_read_off_are_drawn_with_bars_in_both_directions(tmp_path):
    found = explain(read_off(tmp_path))
    points = [row for row in found.figures[0].rows if "run" in row]
    assert all(row["high"] - row["low"] == pytest.approx(0.008, abs=1e-9) for row in points)
    assert all(row["x_high"] - row["x_low"] == pytest.approx(0.008, abs=1e-9) for row in points)
    assert any("the error they were read with" in text for text in found.answers)
    told = rows_of(found, "thresholds")["questions", "accuracy"]
    assert told["verdict"] == "not asked" and "guess" in told["why"]


def test_a_post_trained_checkpoint_enters_no_fit_and_its_shift_is_told(tmp_path):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    found, without = explain(read_off(tmp_path / "with")), explain(
        read_off(tmp_path / "without", later=False)
    )  # fmt: skip
    assert [t for t in found.tables if t.id == "correlation"] == [
        t for t in without.tables if t.id == "correlation"
    ]
    shift = rows_of(found, "later-stages")["questions", "33B"]
    low, high = map(float, shift["90% interval"].split(" to "))
    assert low < 6.0 < high and low > 2.0  # planted: 6 points
    hollow = [row for row in found.figures[0].rows if row.get("later stage")]
    assert len(hollow) == 1 and hollow[0]["stage"] == "posttrain"
    assert any("33B (posttrain) +" in text for text in found.answers)


def test_a_loss_without_a_read_off_error_and_counted_documents_keep_their_own_law(store):
    one = read(store, choose(store)).abilities[0]
    scores = one.main
    assert not scores.is_read and not scores.loss_stderr.any()
    curve = ask(one, thresholds=1, seed=0).curve
    assert np.array_equal(weight_items(scores, curve), scores.items)
    unknown = replace(scores, items=np.full_like(scores.items, np.nan))
    assert weight_items(unknown, curve) is None


# ---- the real results of eight Pythia sizes


@needs_shared
def test_the_published_pythia_scores_are_judged_as_the_laws_judge_them(tmp_path):
    store = Store.create(tmp_path / "store")
    for folder in sorted((SHARED / "pythia-evals").glob("pythia-*")):
        import_lm_eval(folder / "zero-shot", store, family="pythia", tokens_per_step=2_097_152)
    before = time.process_time()
    found = explain(store)
    # a page must not keep anybody waiting: 5 s on one core when this was written
    assert time.process_time() - before < 30
    shared = {key[0]: one["one curve?"] for key, one in rows_of(found, "correlation").items()}
    for task in ("sciq", "arc_easy", "piqa"):
        assert shared[f"{task}, 0-shot"] == "collapses"
    for task in ("winogrande", "arc_challenge"):
        assert shared[f"{task}, 0-shot"] == "undetermined"
    for task in ("logiqa", "wsc"):
        assert shared[f"{task}, 0-shot"] == "no signal"
    kinds = {key[0]: one["verdict"] for key, one in rows_of(found, "thresholds").items()}
    assert kinds["wsc, 0-shot"] == "answers constant"
    assert kinds["arc_challenge, 0-shot"] == "below baseline"
    assert not any("hendrycksTest" in title for title in shared)
    assert found.not_run[0].startswith("lambada_openai, 0-shot: ")
