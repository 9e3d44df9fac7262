"""Checks that need no test runner: the order of the rooms, and the examples in docstrings.

Run by ``make check``; the tests in test_architecture.py call the same functions.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dependencies
import isoloss

PACKAGE = Path(isoloss.__file__).parent

ROOMS = (
    "safe_text",
    "errors",
    "places",
    "interrupt",
    "steps",
    "shown",
    "estimate",
    "config",
    "family",
    "study_probes",
    "study",
    "store",
    "models",
    "scoring",
    "corpora",
    "tasks",
    "probes",
    "laws",
    "pretrain",
    "monitor",
    "engine",
    "studies",
    "report",
    "console",
    "demo",
    "cli_words",
    "cli_group",
    "cli_import",
    "cli_init",
    "cli_train",
    "cli_check",
    "cli_compare",
    "cli_export",
    "cli_forecast",
    "cli_run",
    "cli_serve",
    "cli_study",
    "cli_fit",
    "cli",
)
"""From top to bottom: a room imports only those before it, and itself."""

OWNERS = {
    "transformers": {"models", "pretrain", "monitor"},
    "lm_eval": {"scoring", "tasks"},
    "ray": {"engine"},
}
"""Packages that only these rooms may import."""

HEAVY = ("torch", "transformers", "polars", "scipy", "lm_eval", "altair")
"""Packages that ``import isoloss`` must not load."""


def room_of(file: Path) -> str:
    """The room a source file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, also inside functions, as (line, dotted name)."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "isoloss":
                yield from ((node.lineno, f"isoloss.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def misplaced_imports() -> list[str]:
    """Imports that go up the order of the rooms or take a package another room owns."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        room = room_of(file)
        if room == "__init__":
            continue
        for line, name in imports_of(file):
            where = f"{file.relative_to(PACKAGE)}:{line}"
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == "isoloss" and target in ROOMS and ROOMS.index(target) > ROOMS.index(room):
                found.append(f"{where}: {room} imports {target}, which lies below it")
            if room not in OWNERS.get(top, {room}):
                found.append(f"{where}: {top} belongs to {', '.join(sorted(OWNERS[top]))}")
    return found


def unknown_rooms() -> set[str]:
    """Files and folders of the package that no room is named after."""
    entries = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix in {"", ".py"}}
    return entries - set(ROOMS) - {"__init__", "__pycache__"}


def heavy_imports() -> str:
    """The heavy packages that ``import isoloss`` loads, in a fresh interpreter."""
    code = f"import sys, isoloss; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def modules() -> Iterator[str]:
    """Every module of the package."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "isoloss."):
        yield module.name


def failed_examples() -> int:
    """Run the examples of every docstring; the number that failed."""
    return sum(doctest.testmod(importlib.import_module(name)).failed for name in modules())


def main() -> int:
    """Run all checks; the exit status."""
    faults = misplaced_imports()
    faults += [f"{name} is no room of ROOMS" for name in sorted(unknown_rooms())]
    if (heavy := heavy_imports()) != "[]":
        faults.append(f"import isoloss loads {heavy}")
    faults += dependencies.faults()
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if failed_examples() or faults else 0


if __name__ == "__main__":
    sys.exit(main())
