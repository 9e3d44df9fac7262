"""Hostile names in files, tables, pages and terminals; paths that would lead away; secrets."""

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoloss import cli
from isoloss.console import plain, print_object, print_table
from isoloss.errors import BadCheckpoint, BadRequest, IsolossError
from isoloss.models.files import LocalFiles, weight_names
from isoloss.report import write
from isoloss.report.page import SCRIPTS
from isoloss.safe_text import HIDDEN, message, redacted, visible
from isoloss.store import Failure, Store
from isoloss.store.files import slug
from isoloss.store.imports import import_lm_eval
from isoloss.studies.checkup.checking import check
from isoloss.study import Study
from report import stores

ATTACK = (
    '=cmd|"/C calc"!A0 <script>alert(1)</script> {{ 7*7 }} [red]x[/red] \x1b]0;owned\x07\x1b[2J'
    "\r\n\u202egnp.exe\u2066 \ufeff\x9b31m '; DROP TABLE -- ../../" + "x" * 5000
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A store in which every name is an attack."""
    monkeypatch.setattr(stores, "HOSTILE", ATTACK)
    return stores.hostile(tmp_path / "store")


def run(monkeypatch, capsys, *words):
    """Standard output and standard error of a command, and its exit status."""
    monkeypatch.setattr(sys, "argv", ["isoloss", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return said.out, said.err, end.value.code or 0


def everything_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- the terminal


@pytest.mark.parametrize(
    "words",
    [
        ("status", "STORE"),
        ("ls", "STORE"),
        ("sql", "STORE", "SELECT * FROM measurements"),
        ("sql", "STORE", "SELECT * FROM failures"),
        ("sql", "STORE", f"SELECT {ATTACK} FROM items"),
        ("report", "STORE"),
        ("check", "STORE"),
        ("forecast", "STORE", "--params", "1e9", "--tokens", "1e9"),
        ("export", "STORE", "--to", "csv"),
        ("export", "STORE", "--to", ATTACK),
        ("compare", "STORE", ATTACK, "other"),
        ("fit", "loss-law", ATTACK, "--params", "a", "--tokens", "b", "--loss", "c"),
    ],
    ids=lambda words: " ".join(words)[:30],
)  # fmt: skip
def test_no_name_reaches_the_terminal_as_it_is(words, hostile, monkeypatch, capsys):
    words = [str(hostile.path) if word == "STORE" else word for word in words]
    out, err, code = run(monkeypatch, capsys, *words)
    assert code in {0, 1, 2}
    assert not UNSEEN.search(out), UNSEEN.search(out)
    assert not UNSEEN.search(err), UNSEEN.search(err)


def test_json_for_programs_is_exact_and_ascii(hostile, monkeypatch, capsys):
    out, _, code = run(
        monkeypatch, capsys, "sql", hostile.path, "SELECT model FROM checkpoints", "--json"
    )
    assert code == 0 and out.isascii() and not UNSEEN.search(out)
    assert json.loads(out) == [{"model": ATTACK}]


@given(st.text())
def test_every_text_is_made_visible_on_one_line(text):
    shown = visible(text)
    assert len(shown) == len(text) and not UNSEEN.search(shown) and "\n" not in shown
    shown.encode()


@given(st.text(), st.text(), st.text())
def test_every_error_can_be_printed_and_kept(what, asked, remedy):
    text = str(IsolossError(what, asked=asked, remedy=remedy))
    assert not UNSEEN.search(text)
    text.encode()


def test_markup_in_a_name_colours_nothing(capsys):
    print_table([{"[bold]name[/bold]": "[red]x[/red]\x1b[31m"}], title="[red]t[/red]")
    print_object({"a": ["[red]x\x1b[0m"], "b": "\x1b[0m"}, False, "next: \x1b[0m")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[red]x" in out and "[bold]name" in out
    assert plain("[red]") == r"\[red]"


# ---- the page and the tables


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_a_hostile_name_is_text_on_the_page(hostile, tmp_path):
    write(hostile, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    tags = Tags(html).tags
    ours = 3 + len(SCRIPTS)  # dictionaries, data, the drawing library, and what uses them
    assert sum(tag == "script" for tag, _ in tags) == html.count("</script") == ours
    assert not [t for t in tags if t[0] in {"iframe", "object", "embed", "link", "base", "img"}]
    assert not [k for _, a in tags for k in a if k.startswith("on") and k != "onsubmit"]
    text = re.sub(r"<(script|style|pre)\b.*?</\1>", "", html, flags=re.DOTALL)
    text = re.sub(r'<option value="[^"]*"', "", text)  # what scripts look a metric up by
    assert not UNSEEN.search(text), UNSEEN.search(text)
    assert "49" not in re.findall(r"<h1>.*?</h1>", html, re.DOTALL)[0]  # 7*7: no template is run


def test_no_cell_of_a_csv_is_a_formula(hostile, monkeypatch, capsys, tmp_path):
    run(monkeypatch, capsys, "export", hostile.path, "--to", "csv", "--out", tmp_path / "out")
    with (tmp_path / "out" / "measurements.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{ATTACK}" in cells
    for cell in cells:
        assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell[:20]
        assert not cell.startswith("-") or float(cell) < 0


# ---- paths


@given(st.text())
def test_a_folders_name_never_leads_away(name):
    made = slug(name)
    assert Path("store", made).parent == Path("store") and made not in {"", ".", ".."}
    made.encode("ascii")
    assert len(made) <= 80


@given(st.text(), st.text())
def test_two_names_never_share_a_folder(a, b):
    assert (slug(a) == slug(b)) == (a == b)


def test_an_import_writes_into_its_store_alone(tmp_path):
    names = ["../../away", "/etc/away", "..\\away", "a/b", ".", "..", "nul\x00", "\ud800"]
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        stamp = f"_2024-01-01T00-00-0{i}.000000"
        model = {"pretrained": f"{name}/m{i}", "revision": f"{name}-step{i}"}
        results = {"results": {name: {"acc": 0.5}}, "config": {"model_args": model}}
        (tmp_path / "in" / f"results{stamp}.json").write_text(json.dumps(results))
        sample = {"doc_id": name, "target": "0", "filtered_resps": [["-1.0", "x"], ["-2.0", "x"]],
                  "arguments": [["q", " a"], ["q", " b"]]}  # fmt: skip
        if "/" not in name and "\x00" not in name and name.isprintable():
            file = tmp_path / "in" / f"samples_{name}{stamp}.jsonl"
            file.write_text(json.dumps(sample) + "\n")
    before = everything_below(tmp_path)
    store = Store.create(tmp_path / "store")
    report = import_lm_eval(tmp_path / "in", store)
    assert report.cells_added == len(names)
    new = everything_below(tmp_path) - before
    assert all(path.split("/")[0] == "store" for path in new)
    assert store.measurements().collect().height == len(names)


def test_an_export_writes_into_its_folder_alone(hostile, monkeypatch, capsys, tmp_path):
    before = everything_below(tmp_path)
    for kind in ("lm-eval", "csv", "parquet", "model-card"):
        _, err, code = run(
            monkeypatch, capsys, "export", hostile.path, "--to", kind, "--out", tmp_path / "out"
        )
        assert code == 0, err
    new = everything_below(tmp_path) - before
    assert new and all(path.split("/")[0] == "out" for path in new)
    assert all(path.isprintable() and len(Path(path).name) < 200 for path in new)


def test_a_failures_name_does_not_lead_to_another_file(tmp_path):
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    store = Store.create(tmp_path / "store")
    with store.writing():
        store.put_failure(Failure(cell="f" * 32, checkpoint="c", probe=None, subject=None,
                                  error="E", reason="r", remedy="m", failed_at=""))  # fmt: skip
        store.clear_failures(["../../precious", str(precious.with_suffix("")), "a\0b", "f" * 32])
    assert precious.exists() and not list((tmp_path / "store" / "failures").iterdir())


def test_an_index_of_shards_names_files_of_its_folder(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (tmp_path / "away.safetensors").write_bytes(b"")
    index = {"weight_map": {"w": "../away.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadCheckpoint, match="is missing"):
        weight_names(LocalFiles(folder))


# ---- what a store that came from elsewhere would run

STUDY = """\
name = "s"
[[family]]
name = "toy"
[[family.model]]
name = "small"
checkpoints = "small/step-*"
convert = "touch {place} {{src}} {{dst}}"
[task.evil]
path = "evil.yaml"
allow_task_code = true
[probe.task_score]
"""


def test_a_stores_own_study_runs_no_command_and_no_code(tmp_path):
    store = stores.trained(tmp_path / "store")
    sprung = tmp_path / "sprung"
    (store.path / "study.toml").write_text(STUDY.format(place=sprung))
    (store.path / "evil.yaml").write_text("task: evil\nprocess_docs: !function utils.docs\n")
    (store.path / "utils.py").write_text(f"open({str(sprung)!r}, 'w')\ndef docs(d): return d\n")
    (tmp_path / "text.txt").write_text("some words\n")
    with pytest.raises(IsolossError, match="would run code of its own"):
        check(store.path, against=[tmp_path / "text.txt"])
    check(store.path)
    write(store, tmp_path / "page.html")
    assert not sprung.exists()


def test_a_study_without_code_is_otherwise_the_same(tmp_path):
    study = Study.from_text(STUDY.format(place="x"), folder=tmp_path)
    safe = study.without_code()
    assert study.family[0].model[0].convert and safe.family[0].model[0].convert is None
    assert study.task["evil"].allow_task_code and not safe.task["evil"].allow_task_code
    assert safe.path("a") == study.path("a") and safe.probe == study.probe


# ---- secrets

TOKEN = "hf_" + "a1B2" * 9
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"https://me:{SECRET}@host/x", "https://[hidden]@host/x"),
        (f"s3://b/k?X-Amz-Signature={SECRET}&a=1", "s3://b/k?X-Amz-Signature=[hidden]&a=1"),
        (f"https://h/x?access_token={SECRET}", "https://h/x?access_token=[hidden]"),
        (f"https://h/x?a=1&AWSAccessKeyId={SECRET}", "https://h/x?a=1&AWSAccessKeyId=[hidden]"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer [hidden]"),
        ("AKIAIOSFODNN7EXAMPLE", "[hidden]"),
        (f"value {SECRET}", "value [hidden]"),
        ("hub:owner/name@step10", "hub:owner/name@step10"),
        ("https://host/a@b?page=2", "https://host/a@b?page=2"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(text, kept):
    environ = {"AWS_SECRET_ACCESS_KEY": SECRET, "TOKENIZERS_PARALLELISM": "value", "HOME": "/x"}
    assert redacted(text, environ) == kept
    assert redacted(kept, environ) == kept


def test_no_secret_is_kept_in_a_store_or_on_its_page(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    told = f"401 for https://u:{SECRET}@hub/x?X-Amz-Credential={SECRET} with {TOKEN}"
    store = stores.trained(tmp_path / "store")
    with store.writing():
        store.put_study(stores.STUDY + f"# export HF_TOKEN={TOKEN}\n")
        for name, error in (("a", OSError(told)), ("b", BadRequest(told, asked=told, remedy=told))):
            store.put_failure(Failure.of(error, checkpoint=name))
    write(store, tmp_path / "page.html")
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    for file in files:
        data = file.read_bytes()
        assert TOKEN.encode() not in data and SECRET.encode() not in data, file
    assert HIDDEN in (store.path / "study.toml").read_text()
    assert HIDDEN in store.failures().select(pl.col("reason").str.join()).collect().item()


def test_no_secret_is_told_at_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    _, err, code = run(monkeypatch, capsys, "status", f"/nowhere/{TOKEN}")
    assert code == 2 and TOKEN not in err and HIDDEN in err


def test_a_very_long_message_is_cut():
    assert len(message("x" * 10**6)) < 25_000
