"""Who and where: the names, gendered words and places that a conversation mentions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.validation.view import View

KINDS = {
    "name_gender": "gender of given names",
    "name_origin": "origin of given names",
    "gendered_word": "gendered words",
    "place": "region of places",
}
SEVERAL = "several"
"""Group of a conversation that mentions more than one group of a kind."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_TEXTS = 25_000


@dataclass(frozen=True)
class Lexicon:
    """Word or phrase (lower case, words apart by one space) to its ``(kind, group, language)``; None: any language."""

    meanings: dict[str, tuple[tuple[str, str, str | None], ...]]
    longest: dict[str, int]
    """First word of an entry to the number of words of the longest one that starts with it."""
    pattern: str
    """RE2 pattern that finds texts with at least one entry, in lower case."""


def mentions(view: View, lexicon: Lexicon) -> pd.DataFrame:
    """What each record mentions, once: columns row, kind, group, word."""
    rows: list[int] = []
    words: list[str] = []
    for start in range(0, len(view.text), _TEXTS):
        texts = pc.utf8_lower(view.text.slice(start, _TEXTS))
        hits = np.flatnonzero(pc.match_substring_regex(texts, lexicon.pattern).fill_null(False))
        for row, text in zip(view.turn_row[start + hits], texts.take(pa.array(hits)).to_pylist(), strict=True):
            found = set(_found(text, lexicon))
            rows += [int(row)] * len(found)
            words += found
    frame = pd.DataFrame({"row": np.array(rows, dtype=np.int64), "word": pd.Series(words, dtype=object)})
    frame = frame.drop_duplicates(ignore_index=True)
    meanings = pd.DataFrame(
        [(word, *meaning) for word, several in lexicon.meanings.items() for meaning in several],
        columns=["word", "kind", "group", "only_in"],
    )
    frame = frame.merge(meanings, on="word")
    languages = pd.Series(view.fields["language"].to_pylist(), dtype=object)
    spoken = frame["row"].map(languages)
    return frame.loc[frame["only_in"].isna() | (frame["only_in"] == spoken), ["row", "kind", "group", "word"]]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The word lists in ``words.yaml``."""
    from ruamel.yaml import YAML

    lists = YAML(typ="safe").load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    meanings: dict[str, list[tuple[str, str, str | None]]] = {}

    def add(entries: Iterable[str], *meant: tuple[str, str, str | None], plain: bool = True) -> None:
        for entry in entries:
            for spelling in dict.fromkeys((entry, _without_accents(entry)) if plain else (entry,)):
                known = meanings.setdefault(spelling, [])
                known += [meaning for meaning in meant if meaning not in known]

    for origin, genders in lists["names"].items():
        for gender, names in genders.items():
            from_where = () if origin == "shared" else (("name_origin", origin, None),)
            add(names, ("name_gender", gender, None), *from_where)
    for language, genders in lists["gendered"].items():
        for gender, words in genders.items():
            add(words, ("gendered_word", gender, language), plain=False)
    for region, places in lists["places"].items():
        add(places, ("place", region, None))
    longest: dict[str, int] = {}
    for entry in meanings:
        parts = entry.split()
        longest[parts[0]] = max(longest.get(parts[0], 1), len(parts))
    # First words only: far fewer states than all entries, and only a phrase's first word can lead on in vain.
    alternatives = "|".join(re.escape(word).replace("'", "['’]") for word in sorted(longest))
    return Lexicon(
        {entry: tuple(meant) for entry, meant in meanings.items()},
        longest,
        rf"(?:^|[^\pL])(?:{alternatives})(?:[^\pL]|$)",
    )


def _found(text: str, lexicon: Lexicon) -> Iterable[str]:
    words = [word.replace("’", "'") for word in _WORD.findall(text)]
    i = 0
    while i < len(words):
        word = words[i]
        if word not in lexicon.longest and "'" in word:
            word = word.split("'")[0]
        for length in range(lexicon.longest.get(word, 0), 0, -1):
            entry = " ".join([word, *words[i + 1 : i + length]])
            if entry in lexicon.meanings:
                yield entry
                i += length - 1
                break
        i += 1


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c) or c == "\u0303"))
