"""Every fixed word of the page, read from the files that say it."""

from __future__ import annotations

import ast
import importlib.resources
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import isoloss.report
from isoloss.report.answer_words import EVERY
from isoloss.report.sureness import RULES

PACKAGE = Path(isoloss.report.__file__).parents[1]
ASSETS = importlib.resources.files("isoloss.report") / "assets"
SCRIPTS = ("charts.js", "coloured.js", "controls.js", "downloads.js", "live.js", "pins.js",
           "pointing.js", "rows.js")  # fmt: skip
_SILENT = {"bdi", "code", "pre", "script", "style", "svg"}
_VOID = {"meta", "input", "link", "br"}
_CODE = {"disabled", "selected", "open", "{} wide", "rule", "axis", "by", "curves against",
         "{} connect-src 'self';"}  # fmt: skip
_SAYS = (r'\bsay\(\s*"((?:[^"\\]|\\.)*)"', r'\badd\([\w.]+, "([^"]*)"', r': "([A-Z][a-z]+[^"]*)"')
"""How scripts name what they say: at once, through a helper, or in a table of words."""

_ATTRIBUTES = ("aria-label", "title", "placeholder")


def plain(text: str) -> str:
    """A text with every slot written alike and spaces made single."""
    return " ".join(re.sub(r"\{[^{}]*\}", "{}", text).split())


def has_words(text: str) -> bool:
    """Whether there is something to say in another language."""
    return re.search(r"[A-Za-z]{2}", text.replace("{}", "")) is not None


class _Texts(HTMLParser):
    """Texts between elements and in attributes, names and code left out."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.found: list[str] = []
        self.text = ""

    def _flush(self) -> None:
        silent = any(is_silent for _, is_silent in self.open)
        if not silent and has_words(plain(self.text)):
            self.found.append(plain(self.text))
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._flush()
        own = dict(attrs)
        silent = tag in _SILENT or "english" in (own.get("class") or "")
        if "ours" in (own.get("class") or ""):
            silent = False
        if not silent:
            told = (plain(own[name] or "") for name in _ATTRIBUTES if own.get(name))
            self.found += [text for text in told if has_words(text)]
        if tag not in _VOID:
            self.open.append((tag, silent))

    def handle_endtag(self, tag: str) -> None:
        self._flush()
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data


def html_words(html: str) -> set[str]:
    """The fixed words of a page or of its template."""
    parser = _Texts()
    parser.feed(html)
    parser.close()
    return set(parser.found)


def template_words() -> set[str]:
    """The fixed words of page.html: its own, and those quoted in its expressions."""
    text = (ASSETS / "page.html").read_text("utf-8")
    text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    quoted = set()
    for expression in re.findall(r"\{\{(.*?)\}\}", text):
        if " if " in expression or " or " in expression:
            # what begins with a space goes on after a value
            quoted |= {re.sub("^ ", "{} ", one) for one in re.findall(r'"([^"]*)"', expression)}
    quoted -= _CODE
    quoted |= set(re.findall(r'choice\("\w+", "([^"]*)"', text))
    text = re.sub(r"\{%.*?%\}", "", text)
    text = re.sub(r"\{\{.*?\}\}", "{}", text)
    found = {part for whole in html_words(text) for part in sentences(whole)}
    return {one for one in found if one != "{}"} | {plain(one) for one in quoted if has_words(one)}


def sentences(text: str) -> list[str]:
    """As the page's script takes a text apart that is in no dictionary as a whole."""
    return re.split(r"(?<=[.!?]) (?=[A-Z\d{])", text)


def spoken_words() -> set[str]:
    """What scripts say through ``say``."""
    found = set()
    for name in SCRIPTS:
        text = (ASSETS / name).read_text("utf-8")
        found |= {plain(one) for how in _SAYS for one in re.findall(how, text)}
    return found


def opening_words() -> set[str]:
    """Templates of the opening, the words of sureness and their rules."""
    own = {text for texts in EVERY for text in texts.values()}
    return {plain(text) for text in own | set(RULES) | set(RULES.values())}


def constants(*folders: str) -> Iterator[str]:
    """Every text in Python files below the package, slots written alike."""
    for folder in folders:
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield plain(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = (
                        str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values
                    )
                    yield plain("".join(parts))


def in_words(text: str, words: dict[str, str]) -> str | None:
    """What a dictionary says for a text, by the rules of language.js; None where it has nothing."""
    if text in words:
        return words[text]
    for key in sorted((k for k in words if "{" in k), key=len, reverse=True):
        own = re.escape(key).replace(r"\{", "{").replace(r"\}", "}")
        # what scripts say is looked up with its slots, {} here
        own = re.sub(r"\{(n|all|total)\}", r"(?:[\\d.,]+|{})", own)
        if re.fullmatch(re.sub(r"\{\w+\}", "(.+?)", own), text, re.DOTALL):
            return words[key]
    parts = sentences(text)
    found = [in_words(part, words) for part in parts] if len(parts) > 1 else [None]
    return None if None in found else "".join(map(str, found))
