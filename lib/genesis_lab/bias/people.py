"""Who and where: the names, gendered words and places that records mention."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from genesis_lab.texts import normal, unaccented
from genesis_lab.yamls import read_yaml

KINDS = {
    "name_gender": "gender of given names",
    "name_origin": "origin of given names",
    "gendered_word": "gendered words",
    "place": "region of places",
}
SEVERAL = "several"
"""Group of a record that mentions more than one group of a kind."""

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def meanings(texts: Iterable[str]) -> pa.Table:
    """The words that these texts hold, a row for each thing one stands for: kind, group, the only language it is of."""
    known = _lexicon()[0]
    rows = [(text, word, *meant) for text in texts for word in _entries(text) for meant in known[word]]
    columns = ("_text", "_word", "_kind", "_group", "_only")
    return pa.table([pa.array([row[i] for row in rows], pa.string()) for i in range(len(columns))], columns)


def pattern() -> str:
    """RE2 pattern of texts that may hold an entry, whatever the case: an entry's first word, or marks that are no part
    of a letter (the text may hold one once it is normalised). Far fewer states than all entries, and hardly ever in
    vain.
    """
    words = "|".join(re.escape(word).replace("'", "['’]") for word in sorted(_lexicon()[1]))
    return rf"(?:^|[^\pL])(?:{words})(?:[^\pL]|$)|\pM"


@lru_cache(maxsize=1)
def _lexicon() -> tuple[dict[str, list[tuple[str, str, str | None]]], dict[str, int]]:
    """Each word or phrase of ``words.yaml`` to the ``(kind, group, language)`` it stands for (None: in any language).

    And the first word of an entry to the words of the longest one that starts with it.
    """
    lists = read_yaml(Path(__file__).with_name("words.yaml"))
    meanings: dict[str, list[tuple[str, str, str | None]]] = {}

    def add(entries: Iterable[str], *meant: tuple[str, str, str | None], plain: bool = True) -> None:
        for entry in entries:
            for spelling in {entry, "ñ".join(map(unaccented, entry.split("ñ")))} if plain else {entry}:
                known = meanings.setdefault(spelling, [])
                known += [meaning for meaning in meant if meaning not in known]

    for origin, genders in lists["names"].items():
        for gender, names in genders.items():
            add(names, ("name_gender", gender, None), *(() if origin == "shared" else (("name_origin", origin, None),)))
    for language, genders in lists["gendered"].items():
        for gender, words in genders.items():
            add(words, ("gendered_word", gender, language), plain=False)
    for region, places in lists["places"].items():
        add(places, ("place", region, None))
    longest: dict[str, int] = {}
    for entry in meanings:
        first, *rest = entry.split()
        longest[first] = max(longest.get(first, 1), 1 + len(rest))
    return meanings, longest


@lru_cache(maxsize=10_000)
def _entries(text: str) -> frozenset[str]:
    """The words and phrases of the lists in a text: of those that begin at a word the longest, none within another."""
    meanings, longest = _lexicon()
    words = _WORD.findall(normal(text.lower()).replace("’", "'"))
    found, after = set(), 0
    for i, word in enumerate(words):
        first = word if word in longest else word.partition("'")[0]
        if i < after or first not in longest:
            continue
        for end in range(i + longest[first], i, -1):
            entry = " ".join([first, *words[i + 1 : end]])
            if entry in meanings:
                found.add(entry)
                after = end
                break
    return frozenset(found)
