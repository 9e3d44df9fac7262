"""Steps whose results are the same numbers."""

import pytest

from isoloss.store import Store
from isoloss.store.cell import Cell, Finished
from isoloss.store.imports.identical import flag_identical, identical_results
from shared_data import needs_shared

METRICS = 6


def scored(store: Store, scores: dict[int, list[float]], *, weights=None, run="m") -> None:
    """A run with one task a number, of value scores[step][task]."""
    rows, cells = [], []
    for step, values in scores.items():
        name = (weights or {}).get(step, f"{run}-{step}")
        rows.append(
            {"family": "f", "model": run, "run": run, "step": step}
            | {"weights_hash": name, "source": f"{run}{step}"}
        )
        for task, value in enumerate(values):
            settings = {"num_fewshot": 0, "source": "lm-eval", "source_digest": name}
            cell = Cell(
                weights_hash=name,
                probe="task_score",
                subject=f"t{task}",
                settings=settings,
                numerics=1,
            )
            numbers = [
                {"metric": "accuracy", "value": value, "stderr": None, "n": None, "unit": None},
                {"metric": "chance", "value": 0.5, "stderr": None, "n": None, "unit": None},
            ]
            cells.append(Finished(cell=cell, rows=numbers, execution={}))
    known = store.finished()
    with store.writing():
        store.put_checkpoints(rows)
        store.put_cells([c for c in cells if c.cell.id not in known])


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path)


def values(seed: float) -> list[float]:
    return [seed + i / 100 for i in range(METRICS)]


def test_both_of_two_identical_steps_are_flagged_and_name_each_other(store):
    scored(store, {10: values(0.1), 20: values(0.2), 30: values(0.2), 40: values(0.3)})
    flags = identical_results(store)
    assert [(f["step"], f["detail"].rpartition(" ")[2]) for f in flags] == [(20, "30"), (30, "20")]
    assert {f["kind"] for f in flags} == {"identical_results"}


def test_the_untrained_step_is_kept_where_nothing_was_learned_yet(store):
    scored(store, {0: values(0.1), 1: values(0.1), 2: values(0.3)})
    assert [f["step"] for f in identical_results(store)] == [1]


def test_four_equal_numbers_or_one_other_are_no_evidence(store):
    scored(store, {10: values(0.1)[:4], 20: values(0.1)[:4]}, run="few")
    scored(store, {10: values(0.1), 20: [*values(0.1)[:-1], 0.9]}, run="near")
    scored(store, {10: values(0.1)}, run="one")
    scored(store, {20: values(0.1)}, run="other")  # another run is another trajectory
    assert identical_results(store) == []


def test_missing_numbers_are_not_compared(store):
    scored(store, {10: values(0.1), 20: values(0.1)[:5]})
    assert [f["step"] for f in identical_results(store)] == [10, 20]


def test_steps_that_share_their_weights_share_their_rows_by_right(store):
    scored(store, {10: values(0.1), 20: values(0.1)}, weights={10: "w", 20: "w"})
    assert identical_results(store) == []


def test_flagging_again_keeps_other_flags_and_forgets_old_ones(store):
    other = {"family": "f", "model": "m", "run": "m", "stage": None, "step": 7, "kind": "outlier"}
    with store.writing():
        store.put_flags([other | {"detail": "far away"}])
    scored(store, {10: values(0.1), 20: values(0.1)})
    for _ in range(2):
        with store.writing():
            assert flag_identical(store) == 2
        assert sorted(store.flags().collect()["kind"]) == [
            "identical_results",
            "identical_results",
            "outlier",
        ]


@needs_shared
def test_in_the_real_results_step_1_equals_step_0_at_every_size_and_no_other_does(imported):
    store, report = imported
    flags = store.flags().collect()
    assert report.flagged == flags.height == 8
    assert flags["step"].unique().to_list() == [1]
    assert flags["model"].n_unique() == 8
    assert flags["detail"].unique().to_list() == ["every score equals that of step 0"]
