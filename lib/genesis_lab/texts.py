"""Texts as people take them: one normal form to keep, one form to compare by, and fences that material can't end."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any

_NOT_WORD, _NOT_ASCII = re.compile(r"[\W_]+"), re.compile(r"[^\x00-\x7f]")
_UNSEEN = ("Mn", "Mc", "Me", "Cf")
"""Unicode categories that a comparison leaves out: accents and other marks, and characters without a width."""


def normal(value: Any) -> Any:
    """A text in NFC; in lists and mappings every text and key. Everything that comes in is brought to this form."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, (list, tuple)):
        return type(value)([normal(each) for each in value])
    if isinstance(value, Mapping):
        return {normal(key): normal(each) for key, each in value.items()}
    return value


def normal_sql(text: str) -> str:
    """`normal` and trimmed, NULL where nothing is left, as SQL of a SQL expression."""
    plain = rf"CASE WHEN regexp_matches({text}, '\pM') THEN nfc_normalize({text}) ELSE {text} END"
    return rf"nullif(regexp_replace({plain}, '^[\s\v\x1c-\x1f\x85\pZ]+|[\s\v\x1c-\x1f\x85\pZ]+$', '', 'g'), '')"


def unaccented(text: str) -> str:
    """A text without case, accents and characters that have no width: ``¿dónde NIÑO?`` is ``¿donde nino?``."""
    if text.isascii():
        return text.lower()
    return _NOT_ASCII.sub(lambda one: _plain(one[0]), text.lower())


@cache
def _plain(character: str) -> str:
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(part for part in spread if unicodedata.category(part) not in _UNSEEN)


def same_words(text: str) -> str:
    """What two texts share that say the same words: no case, no accents, blanks and punctuation as one space."""
    return _NOT_WORD.sub(" ", unaccented(text)).strip()


def fence(material: str, mark: str = "---") -> str:
    """`mark`, its last character repeated until `material` does not hold it: so material can't end its own fence."""
    while mark in material:
        mark += mark[-1]
    return mark


def indented(text: str) -> str:
    """`text` with every further line set in, so that none can be taken for a line of what stands round it."""
    return "\n    ".join(text.splitlines())
