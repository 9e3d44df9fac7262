import polars as pl

from isoloss.report import collect
from isoloss.report.methods import axis_query
from isoloss.store import Store, query
from isoloss.store.series import baseline_names, group_subjects
from report import stores


def named(data, title, detail=""):
    return next(s for s in data.abilities.series if (s.title, s.detail) == (title, detail))


def test_two_settings_of_a_task_are_two_series(tmp_path):
    data = collect(stores.trained(tmp_path))
    assert [(s.title, s.detail) for s in data.abilities.series] == [
        ("coin", ""),
        ("hidden_state of language", ""),
        ("piqa", "0-shot"),
        ("piqa", "5-shot"),
    ]


def test_a_series_of_many_files_is_one_series(tmp_path):
    # imported cells carry a digest of their file, which is no setting
    data = collect(stores.proxied(tmp_path))
    piqa = named(data, "piqa", "0-shot")
    assert data.abilities.values.filter(pl.col("series") == piqa.id).height == 3


def test_a_probe_with_an_accuracy_is_an_ability_with_its_own_baselines(tmp_path):
    data = collect(stores.trained(tmp_path))
    probe = named(data, "hidden_state of language")
    assert probe.baselines == {"bayes_accuracy": 0.7, "chance": 0.1}
    assert probe.metrics == ("accuracy",)


def test_rules_stand_only_beside_scores_of_their_scale():
    assert "constant_answer" in baseline_names("accuracy_per_char")
    assert baseline_names("correct_choice_prob") == ("chance",)
    assert baseline_names("brier_sum") == baseline_names("margin") == ()


def test_the_query_below_a_figure_gives_exactly_its_points(tmp_path):
    store = stores.trained(tmp_path)
    data = collect(store)
    for series in data.abilities.series:
        scores = query(store, series.sql).filter(pl.col("metric").is_in(list(series.metrics)))
        drawn = data.abilities.values.filter(pl.col("series") == series.id)
        assert sorted(scores["value"]) == sorted(drawn["value"])


def test_the_query_of_a_hostile_name_still_runs(tmp_path):
    store = stores.hostile(tmp_path)
    data = collect(store)
    assert query(store, data.abilities.series[0].sql).height == 2
    assert query(store, axis_query(data.axes.chosen))["value"].to_list() == [2.0]


def test_a_series_told_apart_by_a_setting_without_a_column_has_its_own_query(tmp_path):
    store = stores.trained(tmp_path)
    with store.writing():
        stores.put(store, stores.checkpoint(10), "hidden_state", "language",
                   [stores.row("accuracy", 0.9)], position=-2)  # fmt: skip
    data = collect(Store(tmp_path))
    last = named(data, "hidden_state of language", "position -2")
    assert query(store, last.sql)["value"].to_list() == [0.9]


def test_a_series_measured_again_shows_the_later_numbers_and_counts_the_others(tmp_path):
    store = stores.without_loss(tmp_path)
    point = stores.checkpoint(5)
    cell = stores.Cell(weights_hash=point["weights_hash"], probe="task_score", subject="piqa",
                       settings=stores.MEASURED, numerics=2)  # fmt: skip
    with store.writing():
        later = {"measured_at": "2026-01-01"}
        store.put_cell(cell, [stores.row("accuracy", 0.75)], later)
    data = collect(store)
    assert data.abilities.values["value"].to_list() == [0.75]
    assert data.odd == {"scores replaced by a later measurement of the same series": 1}


def test_values_that_are_not_numbers_are_counted_and_not_drawn(tmp_path):
    store = stores.without_loss(tmp_path)
    with store.writing():
        rows = [stores.row("accuracy", float("nan"), None)]
        stores.put(store, stores.checkpoint(5), "task_score", "other", rows)
    data = collect(store)
    assert data.odd == {"scores that are NaN or infinite": 1}
    assert [s.title for s in data.abilities.series] == ["piqa"]


def test_collections_are_grouped_and_a_task_of_the_same_name_is_not():
    parts = [f"mmlu_{s}" for s in ("law", "math", "art", "logic", "history")]
    assert group_subjects([*parts, "mmlu", "arc_easy"]) == dict.fromkeys(parts, "mmlu")
    assert group_subjects(["a_1", "a_2", "a_3", "a_4"]) == {}
    assert group_subjects(["-a", "-b", "-c", "-d", "-e"]) == {}
