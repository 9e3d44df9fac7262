"""What is installed beside isoloss: every package pinned, every licence known. Needs no network.

A list of known weaknesses cannot be had offline: ``pip-audit -r constraints.txt`` asks for one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

# they come with the environment and bring themselves up to date
_INSTALLERS = {"pip", "setuptools", "wheel"}

# permissive ones, and the weak copyleft of libraries that are used as they are
_KNOWN = re.compile(
    r"0?BSD|MIT|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|LGPL|Lesser General"
    r"|EPL|Zlib|CC0|BSL-1\.0|LLVM-exception|CNRI-Python|HPND|Unlicense|Public Domain",
    re.IGNORECASE,
)


def faults() -> list[str]:
    """What an audit of the environment finds wrong, a line each."""
    pins = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    found = []
    for name, distribution in sorted(installed().items()):
        version = distribution.version.partition("+")[0]  # a build for one kind of hardware
        if pins.get(name) != version:
            at = pins.get(name, "nothing")
            found.append(f"{name} {version} is installed and constraints.txt pins {at}")
        if unknown := [one for one in licences(distribution.metadata) if not _KNOWN.search(one)]:
            found.append(f"{name} has a licence nobody looked at: {', '.join(unknown)}")
    return found


def pinned(lines: Iterable[str]) -> dict[str, str]:
    """Package to version, from lines of ``constraints.txt``.

    >>> pinned(["# note", "Py_YAML==6.0"])
    {'py-yaml': '6.0'}
    """
    pins = {}
    for line in lines:
        name, sign, version = line.partition("#")[0].strip().partition("==")
        if sign:
            pins[_normal(name)] = version
    return pins


def installed() -> dict[str, metadata.Distribution]:
    """What isoloss and its extras need, as far as it is installed, and what these need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    there = {_normal(d.metadata["Name"]): d for d in metadata.distributions()}
    found: dict[str, metadata.Distribution] = {}
    waiting, seen = [Requirement(text) for text in asked], set()
    while waiting:
        one = waiting.pop()
        name = _normal(one.name)
        if (name, *sorted(one.extras)) in seen or name not in there or name in _INSTALLERS:
            continue
        seen.add((name, *sorted(one.extras)))
        found[name] = there[name]
        waiting += _needed(there[name], one.extras)
    return found


def licences(about: metadata.PackageMetadata) -> list[str]:
    """The licences a package names, one by one; of alternatives one that is known."""
    named = [c.split(" :: ") for c in about.get_all("Classifier") or []]
    # "License :: OSI Approved" by itself does not say which
    classified = [c[-1] for c in named if c[0] == "License" and c[1:] != ["OSI Approved"]]
    text = about.get("License-Expression") or "; ".join(classified)
    text = text or (about.get("License") or "none at all").strip().splitlines()[0]
    parts = re.split(r";|\bAND\b|\bWITH\b|[()]{2}", text)
    return [_one_of([one.strip() for one in re.split(r"\bOR\b", part)]) for part in parts]


def _one_of(alternatives: list[str]) -> str:
    return next((one for one in alternatives if _KNOWN.search(one)), alternatives[0])


def _needed(distribution: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras | {""}):
            yield one


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
