"""Which of the two languages a text is in: English, Spanish, or not to be told."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from genesis_lab.yamls import shipped

NAMES = {"en": "English", "es": "Spanish"}
_WORD = re.compile(r"[a-záéíóúüñ']+")
_ENOUGH = (150, 600)
"""Characters that are looked at: at first, and where these don't settle it."""


def detect(text: str) -> str | None:
    """``"en"``, ``"es"``, or None when the text is too short or in neither.

    Function words settle most texts in a few microseconds: three more of one language, or two if the other has none.
    The rest goes to lingua, with a few neighbours of the two languages, so that a French text is not called Spanish.
    """
    is_english, is_spanish = (words.__contains__ for words in function_words())
    for enough in _ENOUGH:
        words = _WORD.findall(text[:enough].lower())
        english, spanish = sum(map(is_english, words)), sum(map(is_spanish, words))
        lead = abs(english - spanish)
        if lead >= (3 if english and spanish else 2) and lead * 8 >= len(words):
            return "en" if english > spanish else "es"
    if sum(map(len, words)) < 8:
        return None
    found = _detector().detect_language_of(text)
    code = found.iso_code_639_1.name.lower() if found else None
    return code if code in NAMES else None


@cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    first, *others = map(Language.from_str, ("ENGLISH", "SPANISH", "FRENCH", "PORTUGUESE", "GERMAN", "ITALIAN"))
    # Read bit by bit, by language and length: while lingua reads, no thread of Python runs and no interrupt is heard.
    for other, text in product(others, ("abc", "abcd", "abcde")):
        LanguageDetectorBuilder.from_languages(first, other).build().detect_language_of(text)
    return LanguageDetectorBuilder.from_languages(first, *others).build()


def forget() -> None:
    """Give back the 150 MB of lingua's models; the next text that needs them loads them again, in 2 s."""
    if _detector.cache_info().currsize:
        _detector().unload_language_models()
        _detector.cache_clear()


@cache
def function_words() -> tuple[frozenset[str], frozenset[str]]:
    """Words without content that only one of the languages has: English, Spanish."""
    words = shipped(Path(__file__).with_name("function_words.yaml"))
    return frozenset(words["en"]), frozenset(words["es"])
