"""``isoloss init`` on a terminal: what it finds, what it asks, what it writes."""

import shutil
import subprocess
import sys

import pytest

from isoloss import plan
from isoloss.engine.nearby import look_around, text_of
from isoloss.engine.template import study_text
from isoloss.errors import BadData
from isoloss.study import Study
from terminal import on_terminal


def pending(folder, file="study.toml"):
    """Cells that the plan of a study counts; it must not fail."""
    made = plan(Study.load(folder / file), out=folder / "RUN")
    assert not made.unreadable
    return sum(item.pending for item in made.items)


@pytest.fixture(scope="module")
def place(studio, tmp_path_factory):
    """A folder as people have it: a run with its checkpoints, a text, a task, other files."""
    folder = tmp_path_factory.mktemp("place")
    run = next(p for p in sorted((studio / "family").iterdir()) if (p / "log.parquet").exists())
    shutil.copytree(run, folder / "runs" / "tiny")
    shutil.copy(studio / "heldout.txt", folder / "heldout.txt")
    shutil.copy(studio / "continuation.jsonl", folder / "continuation.jsonl")
    (folder / "README.txt").write_text("no text to measure on")
    (folder / "rows.jsonl").write_text('{"text": "no task"}\n')
    return folder


def test_enter_four_times_writes_a_study_that_plans(place, tmp_path):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    shown = on_terminal("init", cwd=tmp_path, answers=["", "", "", ""])
    assert shown.status == 0, shown.screen
    assert shown.stdout == "wrote study.toml; next: isoloss plan study.toml\n"
    study = Study.load(tmp_path / "study.toml")
    assert study.family[0].model[0].checkpoints == "runs/tiny/*"
    assert (study.corpus["heldout"].document, study.axis.name) == ("line", "heldout")
    assert study.task["continuation"].path == "continuation.jsonl"
    # 3 checkpoints x (fingerprint, token loss, task score)
    assert pending(tmp_path) == 9


def test_a_wrong_answer_is_told_at_once_and_asked_again(place, tmp_path):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (tmp_path / "taken.toml").write_text("")
    answers = ["runs/absent", "runs/tiny", "absent.txt", "none", "none", "absent.jsonl",
               "continuation.jsonl", "taken.toml", "mine.toml"]  # fmt: skip
    shown = on_terminal("init", cwd=tmp_path, answers=answers)
    assert shown.status == 0, shown.screen
    for told in ("there is no folder runs/absent", "absent.txt is no text", "nothing to measure",
                 "absent.jsonl", "taken.toml exists already"):  # fmt: skip
        assert told in shown.screen, told
    study = Study.load(tmp_path / "mine.toml")
    assert (study.corpus, study.axis, list(study.task)) == ({}, None, ["continuation"])
    assert pending(tmp_path, "mine.toml") == 6


def test_a_trained_family_is_found_first_and_needs_no_text(studio, tmp_path):
    shutil.copytree(studio / "family", tmp_path / "families" / "tiny")
    shown = on_terminal("init", cwd=tmp_path, answers=["", "", "", ""])
    assert shown.status == 0, shown.screen
    study = Study.load(tmp_path / "study.toml")
    assert (study.family[0].pretrained, study.axis.name) == ("families/tiny", "train_log")
    assert pending(tmp_path) > 0


def test_ctrl_c_at_a_question_writes_nothing(place):
    shown = on_terminal("init", cwd=place, interrupt_at="Checkpoints")
    assert shown.status == 130, shown.screen
    assert "Traceback" not in shown.screen
    assert not (place / "study.toml").exists()


def test_without_a_terminal_it_says_what_to_write(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "isoloss.cli", "init"],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert "try:     isoloss init STUDY.toml" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_lies_about_is_found_by_its_kind(place):
    near = look_around(place)
    found = [[str(p.relative_to(place)) for p in part]
             for part in (near.checkpoints, near.texts, near.tasks)]  # fmt: skip
    assert found == [["runs/tiny"], ["heldout.txt"], ["continuation.jsonl"]]


@pytest.mark.parametrize(
    ("content", "rule"),
    [("one\ntwo\n", "line"), ("one\n\ntwo\n", "blank-line"), ("one\r\n\r\ntwo", "blank-line")],
)
def test_the_rule_that_parts_documents_is_read_from_the_text(content, rule, tmp_path):
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert text_of(tmp_path / "a.txt").document == rule


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match="no text"):
        text_of(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["my text (1).txt", "é.txt", "a.b.txt"])
def test_any_file_name_makes_a_study_that_loads(name, place, tmp_path):
    (tmp_path / name).write_text("one\n\ntwo\n")
    text = study_text(
        place / "runs" / "tiny", text=text_of(tmp_path / name), relative_to=tmp_path,
        tasks=["hellaswag", "some_task", place / "continuation.jsonl"],
    )  # fmt: skip
    study = Study.from_text(text, folder=tmp_path)
    assert study.axis.name in study.corpus
    assert study.path(study.corpus[study.axis.name].path) == (tmp_path / name).resolve()
    assert study.task["hellaswag"].published == "hellaswag"
    assert study.task["some_task"].path is None


def test_a_hub_repository_is_taken_by_its_name(tmp_path):
    study = Study.from_text(
        study_text("someone/tiny-1b", tasks=["hellaswag"], relative_to=tmp_path), folder=tmp_path
    )
    (model,) = study.family[0].model
    assert (model.name, model.hub, model.steps) == ("tiny-1b", "someone/tiny-1b", "log:20")


def test_init_without_questions_says_which_text_is_still_to_be_given(place, tmp_path):
    command = [sys.executable, "-m", "isoloss.cli", "init", str(place / "runs" / "tiny")]
    told = subprocess.run([*command, "study.toml"], cwd=tmp_path, capture_output=True, text=True)
    assert "next: put your own text in the place of heldout.txt" in told.stdout
