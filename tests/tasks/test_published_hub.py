"""Published data sets on the hub: its files, its library's cache, a stand-in on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import polars as pl
import pytest

from isoloss.engine.subjects import Subjects
from isoloss.errors import BadData
from isoloss.models.hub import HubUnreachable
from isoloss.study import Study
from isoloss.tasks import TaskSpec, load_task
from isoloss.tasks.published_hub import fetch
from isoloss.tasks.published_task import find_files
from tasks.published_files import (
    C3,
    CEVAL,
    CLOZET,
    CLUEWSC,
    HELLASWAG,
    RACE,
    TRIVIAQA,
    WINOGRANDE,
    write_all,
    write_lines,
)  # fmt: skip

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(name, path=None, *, expected=3, **settings):
    return load_task(name, TaskSpec(path=path, **settings), published=name, expected=expected)


@pytest.fixture
def written(tmp_path):
    return write_all(tmp_path / "written")


def csv_record(text):
    header, *lines = text.splitlines()
    rows = [line.replace('""', "'").replace('"', "").split(",") for line in lines]
    record = [dict(zip(header.split(","), row, strict=True)) for row in rows]
    return [r | {k: r[k].replace("'", '"') for k in r} for r in record]


def on_hub():
    """The written items as the hub's files hold them: file name to records."""
    files = {
        "mandarjoshi/trivia_qa": {"unfiltered.nocontext/validation-00000-of-00001.parquet": [
            {"question": r["Question"], "question_id": r["QuestionId"],
             "answer": {"aliases": r["Answer"]["Aliases"], "value": r["Answer"]["Value"],
                        "normalized_aliases": r["Answer"]["NormalizedAliases"]}}
            for r in TRIVIAQA]},
        "Rowan/hellaswag": {"data/validation-00000-of-00001.parquet": [
            r | {"label": str(r["label"])} for r in HELLASWAG]},
        "ehovy/race": {"all/test-00000-of-00001.parquet": [
            {"example_id": r["id"], "article": r["article"], "question": q, "options": o,
             "answer": a}
            for _, r in sorted(RACE.items())
            for q, o, a in zip(r["questions"], r["options"], r["answers"], strict=True)]},
        "allenai/winogrande": {"winogrande_xl/validation-00000-of-00001.parquet": WINOGRANDE},
        "Jiann/LOT": {"clozet/train.jsonl": CLOZET[:1], "clozet/val.jsonl": CLOZET[1:]},
        "clue/clue": {
            "cluewsc2020/train-00000-of-00001.parquet": [
                r | {"label": ["true", "false"].index(r["label"])} for r in CLUEWSC[:2]],
            "cluewsc2020/validation-00000-of-00001.parquet": [
                r | {"label": ["true", "false"].index(r["label"])} for r in CLUEWSC[2:]],
            "c3/validation-00000-of-00001.parquet": [
                {"id": k, "context": passage, **question}
                for k, (passage, questions, _) in enumerate(C3) for question in questions],
            "c3/train-00000-of-00001.parquet": [
                {"id": 9, "context": ["甲来了。"], "question": "谁?", "choice": ["甲", "乙"],
                 "answer": "甲"}],
        },
        "ceval/ceval-exam": {
            f"{name.split('/')[1].rpartition('_')[0]}/{name.split('/')[0]}-00000-of-00001.parquet":
            csv_record(text) for name, text in CEVAL.items()},
    }  # fmt: skip
    files["ehovy/race"]["all/validation-00000-of-00001.parquet"] = [
        {"example_id": "high9.txt", "article": "It rained.", "question": "What?",
         "options": ["Rain", "Sun", "Snow", "Wind"], "answer": "A"}]  # fmt: skip
    return files


def write_hub(folder, files):
    for name, records in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pl.DataFrame(records).write_parquet(folder / name)
        else:
            write_lines(folder / name, records)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The library's own cache, filled as after a download; the tests are offline."""
    import huggingface_hub.constants as constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for repo, files in on_hub().items():
        folder = cache / f"datasets--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text(COMMIT)
        write_hub(folder / "snapshots" / COMMIT, files)
    fetch.cache_clear()
    yield cache
    fetch.cache_clear()


def test_the_hubs_files_and_the_authors_give_the_same_task(hub, written):
    for name in ("triviaqa", "hellaswag", "race", "winogrande", "clozet", "cluewsc", "c3", "ceval"):
        shots = 1 if name in ("triviaqa", "ceval") else 0
        ours = load(name, num_fewshot=shots)
        theirs = load(name, written[name], num_fewshot=shots)
        # human answers are no part of the hub's TriviaQA
        if name != "triviaqa":
            assert ours.settings == theirs.settings, name
        assert ours.docs_hash == theirs.docs_hash, name


def test_the_commit_that_was_read_is_told_and_enters_no_cell(hub, written):
    files = find_files("hellaswag", TaskSpec())
    assert files.source == f"Rowan/hellaswag@main, commit {COMMIT}"
    assert COMMIT not in json.dumps(load("hellaswag").settings)
    text = '[task.h]\npublished = "hellaswag"\ndocuments = 3\n[probe.task_score]\n'
    family = 'name = "x"\n[[family]]\npretrained = "none"\n'
    study = Study.from_text(family + text, folder=hub)
    assert Subjects(study).sources == {"h": files.source}


def test_examples_come_from_the_files_the_definition_names(hub):
    for name, shown in (("race", "It rained."), ("c3", "甲来了。")):
        for document in load(name, num_fewshot=1).documents:
            assert document.options[0].context.count(shown) == 1


def test_examples_missing_offline_are_an_error_and_no_other_setting(hub):
    (file,) = hub.glob("*race*/snapshots/*/all/validation*")
    file.unlink()
    with pytest.raises(BadData, match="holds no files of RACE"):
        load("race")


def test_a_set_never_fetched_says_what_to_do_offline(hub):
    with pytest.raises(HubUnreachable, match="cannot be fetched") as told:
        load("gsm8k")
    assert "openai/gsm8k@main" in str(told.value) and "path = FILE" in str(told.value)


class _Served(BaseHTTPRequestHandler):
    """What a client of one hub data set asks for."""

    repo, folder = "", None

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path = unquote(self.path.partition("?")[0])
        names = [str(p.relative_to(self.folder)) for p in self.folder.rglob("*.parquet")]
        file = self.folder / path.rpartition(f"/datasets/{self.repo}/resolve/{COMMIT}/")[2]
        headers = {}
        if path == f"/api/datasets/{self.repo}/revision/main":
            siblings = [{"rfilename": name} for name in names]
            data = json.dumps({"id": self.repo, "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith(f"/api/datasets/{self.repo}/tree/"):
            data = json.dumps([
                {"type": "file", "path": n, "oid": "0", "size": (self.folder / n).stat().st_size}
                for n in names]).encode()  # fmt: skip
        elif "/resolve/" in path and file.is_file():
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            code = "RevisionNotFound" if self.repo in path else "RepoNotFound"
            return self.reply(404, b"", {"X-Error-Code": code}, body=body)
        return self.reply(200, data, headers, body=body)

    def reply(self, status, data, headers, *, body):
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def test_a_set_is_fetched_from_a_hub_on_loopback(tmp_path):
    repo = "Rowan/hellaswag"
    write_hub(tmp_path / "served", on_hub()[repo])
    handler = type("Handler", (_Served,), {"repo": repo, "folder": tmp_path / "served"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """
from isoloss.errors import IsolossError
from isoloss.tasks import TaskSpec
from isoloss.tasks.published_task import find_files
for name in ("hellaswag", "hellaswag@nowhere", "winogrande"):
    try:
        print(find_files(name, TaskSpec()).source)
    except IsolossError as error:
        print(type(error).__name__, error.what)
"""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "hf"),
    }  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    server.shutdown()
    server.server_close()
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        f"Rowan/hellaswag@main, commit {COMMIT}",
        "BadRequest The data set Rowan/hellaswag has no revision 'nowhere'.",
        "BadRequest There is no data set 'allenai/winogrande' on the hub, or your token may not"
        " read it.",
    ]
