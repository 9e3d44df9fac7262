"""Points of a store: one family, one setting, nothing flagged, nothing circular."""

import polars as pl
import pytest

from forecast_families import family, put, store_of, value
from isoloss.errors import BadRequest, Refused
from isoloss.studies.forecasts.ability_scores import abilities
from isoloss.studies.forecasts.points import read_each, read_points

SMALL = {"sizes": [1e8, 4e8], "checkpoints": 3}


@pytest.fixture
def planted():
    return family(0, **SMALL)


@pytest.fixture
def store(planted, tmp_path):
    return store_of(planted, tmp_path / "RUN")


def test_points_are_the_rows_that_were_planted(planted, store):
    read = read_points(store, task="quiz")
    assert read.frame.columns == [
        "family", "model", "run", "stage", "variant", "seed", "step", "tokens", "params",
        "params_non_embedding", "flops", "schedule", "schedule_progress", "flagged", "loss",
        "loss_stderr", "score", "stderr", "n", "chance",
    ]  # fmt: skip
    same = ["model", "step", "tokens", "params", "flops", "loss", "score", "n", "chance"]
    assert read.frame.select(same).equals(planted.frame.select(same))
    assert (read.ability.task, read.ability.metric, read.ability.num_fewshot) == (
        "quiz", "accuracy", 0,
    )  # fmt: skip
    assert read.axis.name == "heldout:loss_nats_per_token"


def test_without_a_task_the_loss_stands_alone(store):
    read = read_points(store)
    assert read.ability is None
    assert read.frame["score"].null_count() == read.frame.height == 6


def test_flagged_checkpoints_and_later_stages_are_left_out_and_counted(planted, tmp_path):
    late = planted.frame.with_columns(
        stage=pl.when(pl.col("step") == 3).then(pl.lit("anneal")).otherwise(pl.lit("pretrain"))
    )
    store = store_of(type(planted)(frame=late, axis=planted.axis, ability=planted.ability,
                                   notes=()), tmp_path / "RUN")  # fmt: skip
    with store.writing():
        store.put_flags([{"family": "toy", "model": "m0", "run": "m0", "stage": "pretrain",
                          "step": 1, "kind": "same_weights", "detail": ""}])  # fmt: skip
    read = read_points(store, task="quiz")
    assert read.frame.select("model", "step").rows() == [("m0", 2), ("m1", 1), ("m1", 2)]
    assert any(note.startswith("1 flagged") for note in read.notes)
    assert any(note.startswith("2 checkpoints of later stages") for note in read.notes)
    kept = read_points(store, task="quiz", keep_flagged=True)
    assert kept.frame.filter("flagged").select("model", "step").rows() == [("m0", 1)]


def test_two_numbers_of_shots_are_two_series(planted, tmp_path):
    store = store_of(planted, tmp_path / "RUN", shots=(0, 5))
    assert [one.num_fewshot for one in abilities(store)] == [0, 5]
    assert read_points(store, task="quiz", num_fewshot=5).ability.num_fewshot == 5
    with pytest.raises(BadRequest, match="several numbers of examples"):
        read_points(store, task="quiz")
    with pytest.raises(BadRequest, match="not asked with so many"):
        read_points(store, task="quiz", num_fewshot=3)


def test_of_two_settings_the_one_of_most_checkpoints_is_taken_and_it_is_said(planted, tmp_path):
    store = store_of(planted, tmp_path / "RUN")
    first = planted.frame.row(0, named=True)
    first["weights_hash"] = f"{first['model']}/{first['step']}"
    with store.writing():
        put(store, first, "task_score", "quiz", [value("accuracy", 0.9, 10)], num_fewshot=0,
            docs_n=10)  # fmt: skip
    read = read_points(store, task="quiz")
    assert read.frame["score"][0] == first["score"]
    assert any("differ in docs_n" in note for note in read.notes)


def test_an_ability_on_the_documents_of_the_loss_is_refused(planted, tmp_path):
    store = store_of(planted, tmp_path / "RUN")
    row = planted.frame.row(0, named=True)
    row["weights_hash"] = f"{row['model']}/{row['step']}"
    with store.writing():
        scores = [value("accuracy", 0.5), value("perplexity", 9.0)]
        put(store, row, "task_score", "lambada", scores, num_fewshot=0)
    with pytest.raises(Refused, match="circular"):
        read_points(store, task="lambada", loss="lambada:perplexity")


def test_scores_that_are_not_finite_are_unknown(planted, tmp_path):
    frame = planted.frame.with_columns(
        score=pl.when(pl.col("step") == 3).then(float("nan")).otherwise(pl.col("score"))
    )
    store = store_of(type(planted)(frame=frame, axis=planted.axis, ability=planted.ability,
                                   notes=()), tmp_path / "RUN")  # fmt: skip
    assert read_points(store, task="quiz").frame["score"].null_count() == 2


def test_several_tasks_are_read_as_each_alone(planted, tmp_path):
    store = store_of(planted, tmp_path / "RUN")
    both = read_each(store, ["quiz", "quiz"])
    assert both[0].frame.equals(read_points(store, task="quiz").frame)
    assert both[1].frame.equals(both[0].frame)


@pytest.mark.parametrize(
    ("asked", "what", "nearest"),
    [
        ({"task": "quizz"}, "no scores of this task", "quiz"),
        ({"task": "quiz", "metric": "brier_sum"}, "between 0 and 1", "accuracy"),
        ({"family": "tox"}, "no such family", "toy"),
        ({"variant": "web"}, "no such variant", None),
        ({"loss": "helout"}, "no such loss axis", "heldout:loss_nats_per_token"),
    ],
)
def test_a_name_that_is_not_there_is_an_error_with_the_nearest(store, asked, what, nearest):
    with pytest.raises(BadRequest, match=what) as caught:
        read_points(store, **asked)
    assert caught.value.nearest == nearest
    assert caught.value.remedy


def test_recipes_and_families_are_never_mixed(planted, tmp_path):
    for column in ("family", "variant"):
        other = planted.frame.with_columns(
            pl.col("model") + "x", pl.col("run") + "x", pl.lit("other").alias(column)
        )
        frame = pl.concat([planted.frame, other], how="vertical_relaxed")
        store = store_of(type(planted)(frame=frame, axis=planted.axis, ability=planted.ability,
                                       notes=()), tmp_path / column)  # fmt: skip
        with pytest.raises(BadRequest, match=f"one {column}"):
            read_points(store, task="quiz")
        chosen = read_points(store, task="quiz", **{column: "other"})
        assert set(chosen.frame[column]) == {"other"}
