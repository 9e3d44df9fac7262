"""Every code block of README and the docs is run here, by the test it names, or stands in NOT_RUN.

The commands run in a folder in which docs/index.md was followed word by word, with a smaller demo.
"""

import os
import shlex
import shutil
import tomllib

import click
import pytest
import typer

from docs_blocks import PAGES, ROOT, Block, blocks, commands, documented, missing
from docs_workshop import (
    names_for,
    prepare,
    run_block,
    shorter,
    shrink_demo,
    told_in_a_process,
)
from isoloss import cli
from isoloss.pretrain import FamilyConfig
from isoloss.store import Store, query
from isoloss.study import Study
from models.hub_stand_in import HubStandIn
from shared_data import SHARED

OTHERS = {
    "check.md": "tests/studies/test_checkup.py",
    "checkpoints.md": "tests/engine/test_convert.py",
    "cluster.md": "tests/engine/test_shards.py",
    "exchange.md": "tests/store/test_exports.py",
    "fit.md": "tests/test_cli_fit.py",
    "follow.md": "tests/engine/test_follow.py",
    "notebook.md": "tests/test_examples.py",
    "object-stores.md": "tests/store/test_object_stores.py",
    "serve.md": "tests/report/test_server.py",
}
"""Pages whose commands and Python have tests of their own, which read the page."""

NOT_RUN = {
    ("README.md", "make "): "sets up an environment of its own, or runs everything",
    ("README.md", "pip "): "installs into the environment of the tests",
    ("README.md", "python3 -m venv"): "the environment of the tests stands",
    ("README.md", "isoloss serve"): "runs until it is ended: tests/report/test_server.py",
    ("README.md", "isoloss report RUN --figures"): "tests/report/test_paper.py",
    ("README.md", "isoloss run --model runs/7b"): "asks tasks that lie on the hub",
    ("README.md", "isoloss run study.toml"): "run on the pages about following and clusters",
    ("README.md", "isoloss study"): "run on the studies' own pages",
    ("index.md", "pip "): "installs into the environment of the tests",
    ("commands.md", "isoloss --"): "writes the completion of a shell",
    ("commands.md", "isoloss compare"): "run on compare.md",
    ("commands.md", "isoloss forecast"): "run on forecast.md",
    ("commands.md", "isoloss study"): "run on the studies' own pages",
    ("plan.md", "isoloss plan examples/stories.toml --calibrate"): "tests/engine/test_plan.py",
    ("pretrain.md", "accelerate "): "several processes: tests/pretrain/test_parallel.py",
    ("security.md", "PYTHONPATH=tests "): "fuzzes for a minute: make soak",
}
"""Commands that cannot run here, by page and beginning, with the reason or the test that does."""

ALL = [block for page in PAGES for block in blocks(page)]
MINE = [block for block in ALL if block.page not in OTHERS and block.tested_by is None]
WITH_COMMANDS = sorted({block.page for block in MINE if block.kind == "console"})
WITH_PYTHON = sorted({block.page for block in MINE if block.kind == "python"})
HUB = "EleutherAI/pythia-70m"


def excused(page: str, line: str) -> bool:
    return any(page == p and line.startswith(start) for p, start in NOT_RUN)


def runnable(block: Block) -> Block:
    """The block without the lines that cannot run, asking the planted store for its one task."""
    lines = block.text.replace("\\\n", " ").splitlines()
    kept = [line for line in lines if not excused(block.page, line.removeprefix("$ "))]
    text = "".join(f"{line}\n" for line in kept)
    return block._replace(
        text=text.replace("piqa", "quiz") if block.page == "forecast.md" else text
    )


def run_page(page: str, folder, told=None) -> None:
    prepare(page, folder)
    for block in MINE:
        if block.page != page:
            continue
        if block.kind == "toml" and block.text.startswith("# study.toml\n"):
            (folder / "study.toml").write_text(block.text)
        if block.kind == "console":
            run_block(runnable(block), **({} if told is None else {"told": told}))


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder in which the commands of docs/index.md were run: demo/, runs/7b, RUN, the texts."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        shrink_demo(patch)
        patch.chdir(folder)
        run_page("index.md", folder)
    return folder


@pytest.fixture
def folder(workshop, tmp_path, monkeypatch):
    """The demo and what stands beside it, without the store of the last step."""
    made = tmp_path / "here"
    shutil.copytree(workshop, made, ignore=shutil.ignore_patterns("RUN.*", "report.html"))
    shutil.rmtree(made / "RUN")
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize("page", [p for p in WITH_COMMANDS if p not in {"hub.md", "README.md"}])
def test_the_commands_of_the_page_run_and_print_what_it_shows(page, request):
    if page == "plan.md" and not SHARED.is_dir():
        pytest.skip("examples/stories.toml reads the shared test material (../shared/data)")
    if page == "index.md":
        request.getfixturevalue("workshop")
        return
    run_page(page, request.getfixturevalue("folder"))


def test_the_commands_on_a_hub_repository_run_against_a_stand_in(folder):
    steps = sorted((folder / "runs" / "7b").glob("step-*"))
    revisions = {"step0": steps[0], "step1000": steps[-2], "step143000": steps[-1]}
    with HubStandIn(HUB, revisions) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(folder / "hf"),
            "ISOLOSS_CACHE": str(folder / "cache"),
        }
        lines = [
            w for b in MINE if (b.page, b.kind) == ("hub.md", "console") for w in commands(b.text)
        ]
        results = iter(told_in_a_process(lines, folder, environment))
        run_page("hub.md", folder, told=lambda words: next(results))


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_the_page_runs(page, folder):
    prepare(page, folder)
    names = names_for(page, folder)
    for block in MINE:
        if (block.page, block.kind) == (page, "python"):
            exec(compile(shorter(block.text), page, "exec"), names)


def test_every_metric_in_the_store_of_the_demo_stands_in_the_table_of_metrics(workshop):
    found = set(Store(workshop / "demo" / "RUN").measurements().collect()["metric"])
    assert len(found) > 15
    assert found <= documented()


def test_the_sql_of_the_pages_is_understood(folder):
    texts = [block.text for block in MINE if block.kind == "sql"]
    assert texts
    for text in texts:
        query(Store("demo/RUN"), text)


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.kind == "toml"], ids=lambda b: f"{b.page}:{b.text.split()[0]}"
)
def test_every_toml_block_is_a_study_or_a_family_or_a_part_of_one(block, tmp_path):
    given = tomllib.loads(block.text)
    if given.keys() & {"grid", "train", "language"}:
        base = tomllib.loads('name = "f"\n[language]\nkind = "hmm"\n[train]\nsteps = 2\n')
        FamilyConfig.model_validate(base | {"grid": [{"width": 8}]} | given)
        return
    if isinstance(given.get("family"), dict):  # a model without the line of its family
        block = block._replace(text=f'[[family]]\nname = "f"\n{block.text}')
        given = tomllib.loads(block.text)
    rest = "" if "family" in given else '[[family]]\npretrained = "family"\n'
    for name in named(given) - given.get("corpus", {}).keys():
        rest += f'[corpus.{name}]\npath = "text.txt"\n'
    text = block.text if "name" in given else f'name = "docs"\n{block.text}'
    if "probe" not in given:
        rest += '[corpus.other]\npath = "text.txt"\n[probe.token_loss]\n'
    Study.from_text(f"{text}\n{rest}", folder=tmp_path)


def named(given) -> set[str]:
    """Corpora that the probes of a part of a study speak of."""
    corpora = [one.get("corpus", ()) for one in given.get("probe", {}).values()]
    return {name for one in corpora for name in ([one] if isinstance(one, str) else one)}


def test_every_command_of_the_docs_is_one_that_isoloss_takes():
    group = typer.main.get_command(cli.app)
    lines = [w for b in ALL if b.kind in {"console", "bash"} for w in commands(b.text)]
    lines = [w for w in lines if w[0] == "isoloss" and not w[1].startswith("--")]
    assert len(lines) > 60
    for words in lines:
        command, rest = group, words[1:]
        while isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[1], rest)


def test_no_block_is_left_out_without_a_reason():
    for page, test in OTHERS.items():
        assert page in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {page}"
    for block in ALL:
        if block.tested_by:
            assert (ROOT / block.tested_by).is_file(), block
    lines = [
        (b.page, line.removeprefix("$ "))
        for b in MINE
        if b.kind == "console"
        for line in b.text.replace("\\\n", " ").splitlines()
    ]
    for key in NOT_RUN:
        assert any(p == key[0] and line.startswith(key[1]) for p, line in lines), f"stale: {key}"
    for page, line in lines:
        program = (shlex.split(line, comments=True) or ["isoloss"])[0]
        assert excused(page, line) or program in {"isoloss", "mkdir", "cp"}, line
    left = {p for p, line in lines if p == "README.md" and not excused(p, line)}
    assert not left
    assert {b.kind for b in MINE} <= {"console", "python", "toml", "sql", "text", ""}


def test_a_line_that_is_not_printed_is_noticed():
    printed = "a 12   loss 0.3\nnext: isoloss report RUN\n"
    assert missing("a 40   loss 0.25\n...\n", printed) == []
    assert missing("next: isoloss status RUN\n", printed) == ["next: isoloss status RUN"]
