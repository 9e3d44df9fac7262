import json

import pytest

from isoloss.errors import BadRequest
from isoloss.tasks import TaskSpec, load_task


def test_the_reader_follows_the_path(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "q", "choices": ["a", "b"], "gold": 0}\n')
    (tmp_path / "b.json").write_text(
        json.dumps({"examples": [{"input": "q", "target_scores": {"a": 1, "b": 0}}]})
    )
    (tmp_path / "art_test.csv").write_text("q,a,b,A\n")
    versions = [
        load_task("t", TaskSpec(path=path, num_fewshot=0)).version
        for path in (tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path)
    ]
    assert [v.split("-")[0] for v in versions] == ["jsonl", "bigbench", "mmlu"]


def test_another_file_type_is_refused(tmp_path):
    with pytest.raises(BadRequest, match=r"type \.txt") as caught:
        load_task("t", TaskSpec(path=tmp_path / "a.txt"))
    assert ".jsonl" in caught.value.nearest


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"num_fewshot": -1}, "cannot be negative"),
        ({"limit": 0}, "must be positive"),
        ({"sample": "random"}, "no sample 'random'"),
        ({"form": "leters"}, "no form 'leters'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    with pytest.raises(BadRequest, match=what):
        TaskSpec(**settings)
