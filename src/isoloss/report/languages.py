"""The languages of the page: one dictionary of fixed words a language, English being the key.

A key in braces, such as ``{n} more``, stands for any text in that place. Names, commands and
sentences of studies are never looked up.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping

from isoloss.errors import BadRequest

LANGUAGES = ("en", "zh")


def check_language(language: str) -> None:
    """Refuse a language that the page does not speak.

    Raises:
        BadRequest: it does not.
    """
    if language not in LANGUAGES:
        raise BadRequest(
            "the page does not speak that language.",
            asked=language,
            nearest=", ".join(LANGUAGES),
            remedy="take one of these",
        )


@functools.cache
def dictionaries() -> Mapping[str, Mapping[str, str]]:
    """The words of every language but English: English to its own, sections of the file joined."""
    return {language: _read(language) for language in LANGUAGES if language != "en"}


def _read(language: str) -> dict[str, str]:
    assets = importlib.resources.files("isoloss.report") / "assets"
    sections = tomllib.loads((assets / f"{language}.toml").read_text("utf-8"))
    words: dict[str, str] = {}
    for section in sections.values():
        assert not words.keys() & section.keys(), sorted(words.keys() & section.keys())
        words |= section
    return words
