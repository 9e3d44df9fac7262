"""Transfer in a study: languages' tasks and labelled files, a cell for each task and layer."""

import json

import pytest

from isoloss.engine.local import run
from isoloss.errors import BadData, BadStudy
from isoloss.store import Store
from isoloss.study import Study

STUDY = """\
name = "tiny"
[run]
threads = 1
[[family]]
pretrained = "family"
[labelled.mine]
path = "mine.jsonl"
[probe.transfer]
task = ["task-3", "mine"]
layers = [0, -1]
sentences = 60
seeds = 2
at = "last:1"
"""


@pytest.fixture
def mine(studio):
    rows = [{"text": f"w00{i % 9} w001", "label": i % 2} for i in range(40)]
    (studio / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return studio


def study_of(folder, text=STUDY) -> Study:
    return Study.from_text(text, folder=folder)


def test_every_task_and_layer_is_a_cell_and_a_second_run_has_nothing_to_do(mine, tmp_path):
    study = study_of(mine)
    summary = run(study, out=tmp_path / "RUN")
    # 2 sizes x (fingerprints of 3 checkpoints, 2 tasks x 2 layers at the last one)
    assert (summary.done, summary.failed) == (2 * (3 + 4), 0)
    table = Store(tmp_path / "RUN").measurements().collect().filter(probe="transfer")
    assert set(table["subject"]) == {"task-3", "mine"} and set(table["layer"]) == {0, -1}
    assert set(table.filter(metric="bayes_accuracy")["subject"]) == {"task-3"}
    accuracy = table.filter(metric="accuracy")
    assert len(accuracy) == 8 and accuracy["value"].is_between(0, 1).all()
    # 60 sentences and 40 texts, three eighths of which are the test, less labels that stand there
    # alone
    tested = dict(accuracy.select("subject", "n").unique().iter_rows())
    assert tested["mine"] == 15 and 18 <= tested["task-3"] <= 22
    assert run(study, out=tmp_path / "RUN").done == 0


def test_fine_tuning_has_one_cell_without_a_layer(mine, tmp_path):
    text = STUDY.replace('["task-3", "mine"]', '"mine"') + 'method = "fine-tune"\n'
    summary = run(study_of(mine, text), out=tmp_path / "RUN")
    table = Store(tmp_path / "RUN").measurements().collect().filter(probe="transfer")
    assert summary.failed == 0 and table["layer"].null_count() == len(table) == 2 * 4


def test_names_that_are_no_task_and_files_that_are_not_there_are_refused(mine):
    with pytest.raises(BadStudy, match="no \\[labelled.other\\]"):
        study_of(mine, STUDY.replace('"mine"]', '"other"]'))
    with pytest.raises(BadData, match="mine.jsonl"):
        run(study_of(mine, STUDY.replace("mine.jsonl", "mine.json")), out=mine / "NO")
