"""Words: what our own terms mean, and the texts of a page in another language (``templates/<language>.yaml``)."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.style import TEMPLATES
from genesis_lab.yamls import shipped

_SAID = re.compile(r'>([^<>]+)<|(?<= )((?:title|data-h|aria-label|alt)=")([^"]*)"')
"""A text of HTML: between tags, or in an attribute that people see."""
_THEIRS = re.compile(r'(<(\w+)[^>]* translate="no".*?</\2>|<(script|style|code)\b.*?</\3>)', re.DOTALL)
"""What is not ours to translate: a chat, an answer; code."""
_SHOWN = {"text", "title", "name", "y", "categoryarray", "ticktext", "customdata", "label", "below"}
"""Where a figure holds what people read."""
_LONGEST = 1_000
"""Characters that no text of ours has: what is longer is somebody else's."""


def languages() -> list[str]:
    """The languages that a page can be in."""
    return sorted(path.stem for path in TEMPLATES.glob("??.yaml"))


def term(name: str) -> tuple[str, str]:
    """A term in words, and what it means: itself and nothing, where it is none of ours."""
    found = shipped(TEMPLATES / "en.yaml").get(name, ())
    return (found[0], found[1]) if found else (name, "")


def translated(text: str, language: str) -> str:
    """One text of ours in another language, as it is where there is none for it.

    The YAML of a language maps English texts to its own; ``{}`` stands for what differs, which is translated by itself.
    """
    if language == "en" or not text.strip() or len(text) > _LONGEST:
        return text
    exact, patterns = _catalogue(language)
    core = text.strip()
    if core in exact:
        return text.replace(core, exact[core])
    for pattern, to in patterns:
        if found := pattern.fullmatch(core):
            ends = to.split("{}")
            parts = [translated(part, language) for part in found.groups()]
            return text.replace(core, "".join(a + b for a, b in zip(ends, [*parts, ""], strict=True)))
    pieces = re.split(r"(; | · |\. |, )", core)
    done = "".join(translated(piece, language) for piece in pieces) if len(pieces) > 1 else core
    # "1,540" is one and a half in much of the Spanish-speaking world; a space is read alike everywhere
    return text.replace(core, re.sub(r"(?<=\d),(?=\d{3}\b)", "\N{NARROW NO-BREAK SPACE}", done))


def translated_html(text: str, language: str) -> str:
    """Our texts of a piece of HTML in another language."""

    def said(found: re.Match[str]) -> str:
        own = html.escape(translated(html.unescape(found[1] or found[3]), language))
        return f">{own}<" if found[1] else f'{found[2]}{own}"'

    if language == "en":
        return text
    parts = _THEIRS.split(text)  # ours, theirs and its two groups, ours …
    return "".join(_SAID.sub(said, part) if i % 4 == 0 else part for i, part in enumerate(parts) if i % 4 < 2)


def translated_figure(given: Any, language: str, shown: bool = False) -> Any:
    """Our texts of a figure, as JSON, in another language."""
    if isinstance(given, dict):
        return {key: translated_figure(value, language, key in _SHOWN) for key, value in given.items()}
    if isinstance(given, list):
        return [translated_figure(value, language, shown) for value in given]
    if not shown or not isinstance(given, str):
        return given
    return html.escape(translated(html.unescape(given), language), quote=False)


@cache
def _catalogue(language: str) -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """The texts without and with something that differs, the most particular first."""
    if language not in languages():
        raise InvalidInput(f"A page is written in {' or '.join(languages())}, got language {language!r}.")
    texts: dict[str, str] = shipped(TEMPLATES / f"{language}.yaml")
    patterned = sorted((each for each in texts.items() if "{}" in each[0]), key=lambda each: -len(each[0]))
    patterns = [(re.compile("(.+?)".join(map(re.escape, one.split("{}"))), re.DOTALL), to) for one, to in patterned]
    return {one: to for one, to in texts.items() if "{}" not in one}, patterns
