"""What the docs say that the code knows: metrics, public names, the studies' headings, lengths."""

import ast
import importlib
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from docs_blocks import PAGES, ROOT, blocks, documented, table
from isoloss import probes
from isoloss.probes.curvature import Kind
from isoloss.store.imports import names as imported
from isoloss.studies.claims import load_claims
from isoloss.tasks.metrics import UNITS

DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "isoloss"
HEADINGS = ["The claim", "The method", "The formula", "How to read the figures",
            "When not to trust it", "What we found", "The command"]  # fmt: skip
STUDIES = ("emergence", "implicit-bias", "trajectories", "saturation")
ROOMS = ("corpora", "laws", "monitor", "pretrain", "probes", "report", "scoring", "store", "tasks")
LONGEST = 250


# ---- metrics


def written(folder: Path) -> set[str]:
    """Metrics of the rows that a room's functions make; * stands for what is filled in.

    Read from the source: names given to ``Row(metric=...)``, and, where that is a variable, the
    names in the dictionaries and tuples of the function.
    """
    found = set()
    for file in folder.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                found |= names_of_rows(function)
    return found


def names_of_rows(function: ast.FunctionDef) -> set[str]:
    rows = [
        keyword.value
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Row"
        for keyword in call.keywords
        if keyword.arg == "metric"
    ]
    found = {told for value in rows if (told := as_text(value)) is not None}
    if any(isinstance(value, ast.Name) for value in rows):
        for node in ast.walk(function):
            firsts = node.keys if isinstance(node, ast.Dict) else []
            if isinstance(node, ast.Tuple) and len(node.elts) == 3:
                firsts = node.elts[:1]
            found |= {told for key in firsts if (told := as_text(key)) and told.islower()}
    return found - names_of_arrays(function)


def names_of_arrays(function: ast.FunctionDef) -> set[str]:
    """Vectors that are kept beside the rows."""
    given = [
        n.value for n in ast.walk(function) if isinstance(n, ast.keyword) and n.arg == "arrays"
    ]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "arrays":
            given.append(node.value)
    keys = [key for one in given if isinstance(one, ast.Dict) for key in one.keys]
    return {str(as_text(key)) for key in keys}


def as_text(node: ast.expr | None) -> str | None:
    """A string with * for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "*" for v in node.values)
    return None


def known() -> set[str]:
    from isoloss.monitor.watch_rows import UNITS as WATCHED

    return (
        written(Path(probes.__file__).parent)
        | set(get_args(Kind))
        | set(UNITS)
        | set(WATCHED)
        | set(imported.METRICS.values())
    )


def fits(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None


def test_every_metric_that_the_code_writes_stands_in_the_table():
    there, code = documented(), known()
    assert len(code) > 40
    for name in code:
        assert any(fits(one, name) for one in there), f"docs/metrics.md has no row for {name}"


def test_the_table_names_no_metric_that_the_code_cannot_write():
    folders = [SOURCE / room for room in ("probes", "tasks", "monitor", "store/imports")]
    trees = [ast.parse(file.read_text()) for one in folders for file in one.rglob("*.py")]
    code = {
        as_text(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr)
    }
    # a word at least is fixed: "*_*" would be any name
    patterns = [text for text in code if text is not None and len(text.replace("*", "")) > 4]
    for name in documented():
        assert any(fits(name.removeprefix("pseudo_"), one) for one in patterns), name


def test_every_row_of_the_table_says_unit_definition_range_and_which_way_is_better():
    assert len(table()) > 45
    for row in table():
        assert len(row) == 6, row
        assert all(row[1:4]), row
        assert row[4] in {"higher", "lower", "–", "as above"}, row


# ---- public names


def reference() -> set[str]:
    return set(re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text("utf-8"), re.M))


def home(module: str, name: str) -> str:
    return f"{getattr(importlib.import_module(module), name).__module__}.{name}"


def stands(path: str) -> bool:
    return any(path == entry or path.startswith(f"{entry}.") for entry in reference())


def imports_of_docs() -> set[tuple[str, str]]:
    found = set()
    for page in PAGES:
        for block in blocks(page):
            for node in ast.walk(ast.parse(block.text)) if block.kind == "python" else ():
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isoloss"):
                    found |= {(str(node.module), alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("module", ["isoloss", *(f"isoloss.{room}" for room in ROOMS)])
def test_every_public_name_stands_in_the_reference(module):
    names = importlib.import_module(module).__all__
    absent = [f"{module}.{name}" for name in names if not stands(home(module, name))]
    assert not absent


def test_every_name_that_the_docs_import_stands_in_the_reference():
    found = imports_of_docs()
    assert len(found) > 20
    assert not [pair for pair in found if not stands(home(*pair))]


def test_every_entry_of_the_reference_is_there_and_has_a_docstring():
    for path in sorted(reference()):
        module, _, name = path.rpartition(".")
        try:
            thing = importlib.import_module(path)
        except ModuleNotFoundError:
            thing = getattr(importlib.import_module(module), name)
        assert thing.__doc__, path


# ---- pages


@pytest.mark.parametrize("study", STUDIES)
def test_the_pages_of_the_studies_have_the_same_headings(study):
    text = (DOCS / f"{study}.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    command = text.partition("## The command")[2]
    assert f"isoloss study {study} --scale tiny" in command
    sources = {
        found for c in load_claims(study) for found in re.findall(r"arXiv:[\d.]+\d", c.source)
    }
    for source in sources:
        assert source in text or source.removeprefix("arXiv:") in text, source


def test_no_page_is_longer_than_a_reader_bears():
    for page in DOCS.glob("*.md"):
        lines = len(page.read_text("utf-8").splitlines())
        assert lines <= LONGEST, f"{page.name} has {lines} lines"


def test_the_examples_that_the_docs_name_are_there():
    for page in PAGES:
        for name in re.findall(r"\bexamples/[\w.-]+\.(?:toml|py)", page.read_text("utf-8")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
            if name.endswith(".toml"):
                tomllib.loads((ROOT / name).read_text("utf-8"))


def test_links_of_readme_lead_to_pages_and_headings_that_are_there():
    for page in (ROOT / "README.md", *ROOT.glob("README.*.md")):
        for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text("utf-8")):
            file, _, anchor = link.partition("#")
            assert (ROOT / file).exists(), link
            if anchor and file.endswith(".md"):
                titles = re.findall(r"^#+ (.*)$", (ROOT / file).read_text("utf-8"), re.M)
                assert anchor in {slug(title) for title in titles}, link


def slug(title: str) -> str:
    return re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-")
