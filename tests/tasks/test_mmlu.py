from collections import Counter

import pytest

from isoloss.errors import BadData, BadRequest
from isoloss.tasks import TaskSpec, load_task
from shared_data import SHARED, needs_shared

ROWS = "1 + 1 =,2,3,4,5,A\n2 + 2 =,2,3,4,5,C\n"


def load(path, **settings):
    return load_task("mmlu", TaskSpec(path=path, **settings))


def folder(path, *, dev=True):
    (path / "test").mkdir(parents=True)
    (path / "test" / "sums_of_two_test.csv").write_text(ROWS)
    (path / "test" / "art_test.csv").write_text("Who?,a,b,c,d,B\n")
    if dev:
        (path / "dev").mkdir()
        (path / "dev" / "sums_of_two_dev.csv").write_text("0 + 1 =,1,2,3,4,A\n0 + 2 =,1,2,3,4,B\n")
        (path / "dev" / "art_dev.csv").write_text("What?,a,b,c,d,D\n")
    return path


def test_letters_are_asked_as_published(tmp_path):
    task = load(folder(tmp_path), num_fewshot=1)
    assert [d.doc for d in task.documents] == ["art/0", "sums_of_two/0", "sums_of_two/1"]
    document = task.documents[1]
    assert document.options[0].context == (
        "The following are multiple choice questions (with answers) about sums of two.\n\n"
        "0 + 1 =\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: A\n\n"
        "1 + 1 =\nA. 2\nB. 3\nC. 4\nD. 5\nAnswer:"
    )
    assert [o.continuation for o in document.options] == [" A", " B", " C", " D"]
    assert (document.gold, document.subject, task.form) == ((0,), "sums_of_two", "letters")


def test_cloze_weighs_the_choices(tmp_path):
    document = load(folder(tmp_path), form="cloze", num_fewshot=1).documents[2]
    assert document.options[0].context == (
        "The following are questions (with answers) about sums of two.\n\n"
        "Question: 0 + 1 =\nAnswer: 1\n\nQuestion: 2 + 2 =\nAnswer:"
    )
    assert [o.continuation for o in document.options] == [" 2", " 3", " 4", " 5"]


def test_published_examples_come_in_their_order_and_are_not_drawn(tmp_path):
    path = folder(tmp_path)
    (path / "dev" / "art_dev.csv").write_text("What?,a,b,c,d,D\nWhy?,a,b,c,d,A\n")
    task = load(path, num_fewshot=2)
    asked = task.documents[1].options[0].context
    assert asked.index("0 + 1 =") < asked.index("0 + 2 =") < asked.index("1 + 1 =")
    assert task.settings["fewshot_seed"] is None


def test_without_a_development_file_examples_are_drawn_from_the_rest(tmp_path):
    path = folder(tmp_path, dev=False)
    (path / "test" / "art_test.csv").unlink()
    task = load(path, num_fewshot=1)
    assert "2 + 2 =" in task.documents[0].options[0].context
    assert task.settings["fewshot_seed"] == 1234


def test_more_examples_than_published_are_refused(tmp_path):
    with pytest.raises(BadRequest, match="1 published examples") as caught:
        load(folder(tmp_path), num_fewshot=2)
    assert caught.value.nearest == "num_fewshot = 1"


def test_headers_marks_and_places_are_read(tmp_path):
    (tmp_path / "sums_test.csv").write_text(
        '\ufeffquestion,c0,c1,answer\n"1, or\n2?",1,2,1\n\n', encoding="utf-8"
    )
    (document,) = load(tmp_path).documents
    assert "1, or\n2?\nA. 1\nB. 2" in document.options[0].context
    assert document.gold == (1,)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("q,a,b,E", "names no choice"),
        ("q,a,b,2", "names no choice"),
        ("q,a,b,", "names no choice"),
        ("q,a", "fewer than three"),
        ("q,a,,A", "choice is empty"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path, row, what):
    (tmp_path / "sums_test.csv").write_text(f"q,a,b,A\n{row}\n")
    with pytest.raises(BadData, match=what) as caught:
        load(tmp_path)
    assert "line 2" in caught.value.asked


def test_an_empty_folder_and_invalid_utf8_are_refused(tmp_path):
    with pytest.raises(BadData, match="no CSV"):
        load(tmp_path)
    (tmp_path / "sums_test.csv").write_bytes(b"q,\xff,b,A\n")
    with pytest.raises(BadData, match="UTF-8"):
        load(tmp_path)


@needs_shared
def test_the_published_files_load_and_a_sample_follows_the_subjects():
    path = SHARED / "eval-sets" / "mmlu"
    task = load(path, num_fewshot=5)
    assert len(task.documents) == 14_042
    sizes = Counter(d.subject for d in task.documents)
    assert len(sizes) == 57
    assert all(len(d.options) == 4 and len(d.gold) == 1 for d in task.documents)
    part = load(path, limit=500)
    for subject, n in Counter(d.subject for d in part.documents).items():
        assert abs(n - 500 * sizes[subject] / 14_042) < 1
    first = load(path, limit=3, sample="first")
    assert Counter(d.subject for d in first.documents) == dict.fromkeys(sizes, 3)


@needs_shared
def test_the_published_examples_load():
    assert len(load(SHARED / "eval-sets" / "mmlu" / "dev").documents) == 285
