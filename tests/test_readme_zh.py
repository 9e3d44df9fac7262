"""README.zh.md keeps step with README.md: the same commands, tables, links and headings in order.

README's own blocks are run by test_readme.py, so that equal blocks are tested with them. Where a
test here fails, README.md has changed: say the same in README.zh.md.
"""

import re

import pytest

from readme import ROOT

ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
)


def blocks(text):
    return re.findall(r"((?:<!-- [^\n]* -->\n)?```.*?```)", text, re.DOTALL)


def commands(text):
    return re.findall(r"^\| `.*$", text, re.MULTILINE)


def links(text):
    """What is pointed at, once each: a language may name it in another order."""
    return {link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")}


def levels(text):
    return re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


@pytest.mark.parametrize("part", [blocks, commands, links, levels])
def test_both_readmes_have_the_same(part):
    assert part(CHINESE) == part(ENGLISH)


def test_every_paragraph_of_the_chinese_readme_is_chinese():
    prose = re.sub(r"```.*?```|<!--.*?-->|^\|.*$", "", CHINESE, flags=re.DOTALL | re.MULTILINE)
    paragraphs = [p for p in prose.split("\n\n") if p.strip() and not p.startswith("# isoloss")]
    for paragraph in paragraphs:
        if paragraph.strip() != "[English](README.md)":
            assert re.search(r"[\u4e00-\u9fff]", paragraph), paragraph


def test_every_paragraph_has_its_numbers():
    """Numbers outside code are the same, Chinese counting in tens of thousands apart."""
    own, other = (
        re.findall(r"\d+\.\d+|\d+%", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for text in (CHINESE, ENGLISH)
    )
    assert sorted(set(own) - {"27.9"}) == sorted(set(other))
