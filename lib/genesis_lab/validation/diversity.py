"""Diversity: is it said in many ways? Measured on openings, each cell of intent × language for itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.domains.language import NAMES
from genesis_lab.validation import duplicates
from genesis_lab.validation.aggregate import LISTED, Aggregate
from genesis_lab.validation.scores import Part, Score, mean_score, share, unmeasured
from genesis_lab.validation.view import hashed, normalised
from genesis_lab.yamls import read_yaml

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SEMANTIC_THRESHOLD = 0.95
"""Cosine of sentence embeddings from which two openings of a cell say the same in the same way."""
_WINDOW = 80
"""n-grams of a window: distinct-n falls with length, so it is always taken over the same length."""
_PAIRED = 20
"""Openings of a cell that are compared pairwise."""


def finish(total: Aggregate, embed: Embed | None = None) -> Score:
    """Mean of exact and near duplicates, distinct-n, self-similarity, opening patterns and (with `embed`) paraphrases.

    Distinct-n, self-similarity and pattern concentration of real people aren't 1 or 0 either, so these parts are on a
    scale where 1 is the level of real customers (``human_levels.yaml``) or better, and 0 is the same words every time.
    They are measured on the records in a language whose level is known: another language has another one.
    """
    if not total.n:
        return mean_score("diversity", 0, (), reason="the dataset has no records")
    opening, language, spoken = total.column("opening"), total.column("language"), total.column("opening") != 0
    known = np.isin(language, hashed(pa.array(sorted(human_levels()))))
    told = total.sample[total.sample["language"].isin(human_levels())]
    cells = {cell: group["words"].tolist() for cell, group in told.groupby("cell")}
    parts = [
        _unique(total, opening),
        _near(total, opening),
        *(_distinct(cells, n) for n in (1, 2, 3)),
        _self_similarity(cells),
        _patterns(total.column("cell"), total.column("prefix"), spoken & known),
        _semantic(total, embed),
    ]
    if others := sorted(set(total.sample["language"]) - set(human_levels())):
        said = f"no human level for {', '.join(NAMES.get(one, one) or 'records without a language' for one in others)}"
        parts = [_left_out(part, said) if part.name in human_levels()["en"] else part for part in parts]
    return mean_score("diversity", total.n, parts)


def _left_out(part: Part, said: str) -> Part:
    """A part that says which records it does not rest on; or why it rests on none."""
    if part.value is None:
        return replace(part, reason=said)
    return replace(part, meaning=f"{part.meaning}; the others left out: {said}")


def distinct_ngrams(cells: Mapping[str, Sequence[str]], n: int) -> NDArray[np.float64]:
    """Different n-grams ÷ n-grams in windows of 80, cell by cell.

    Distinct-n (Li et al. 2016) at a fixed length, as the moving-average type/token ratio does for n = 1 (Covington
    and McFall 2010): so it depends neither on the dataset's size nor on how long its texts are.
    """
    values = []
    for texts in cells.values():
        tokens = [text.split() for text in texts]
        grams = [gram for words in tokens for gram in zip(*(words[i:] for i in range(n)), strict=False)]
        for start in range(0, len(grams) - _WINDOW + 1, _WINDOW):
            values.append(len(set(grams[start : start + _WINDOW])) / _WINDOW)
    return np.array(values)


def self_similarity(cells: Mapping[str, Sequence[str]]) -> tuple[float | None, int]:
    """Mean Jaccard similarity of the words and word pairs of two openings of a cell, and the number of pairs.

    The role of self-BLEU (Zhu et al. 2018, Texygen), without its dependence on the size of the sample.
    """
    means, pairs = [], 0
    for texts in cells.values():
        sets = [{*words, *itertools.pairwise(words)} for words in map(str.split, texts[:_PAIRED])]
        values = [len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i]]
        if values:
            means.append(float(np.mean(values)))
            pairs += len(values)
    return (float(np.mean(means)) if means else None), pairs


def pattern_concentration(cell: NDArray[np.uint64], prefix: NDArray[np.uint64]) -> float | None:
    """Chance that two openings of a cell start with the same three words (Simpson 1949), mean over cells."""
    counts = pd.DataFrame({"cell": cell, "prefix": prefix}).value_counts(sort=False).rename("c").reset_index()
    pairs = (counts["c"] * (counts["c"] - 1)).groupby(counts["cell"]).sum()
    n = counts.groupby("cell")["c"].sum()
    able = n > 1
    return float((pairs[able] / (n[able] * (n[able] - 1))).mean()) if able.any() else None


def levels(texts: Sequence[str], labels: Sequence[str]) -> dict[str, float | None]:
    """The measures that are compared with people's, for any labelled texts: each label is a cell."""
    words = normalised(pa.array(list(texts), pa.string()))
    cells = pd.Series(words.to_pylist()).groupby(list(labels)).agg(list).to_dict()
    distinct = {f"distinct_{n}": distinct_ngrams(cells, n) for n in (1, 2, 3)}
    return {name: float(values.mean()) if len(values) else None for name, values in distinct.items()} | {
        "self_similarity": self_similarity(cells)[0],
        "opening_patterns": pattern_concentration(hashed(pa.array(list(labels), pa.string())), first_words(words)),
    }


def first_words(words: pa.StringArray) -> NDArray[np.uint64]:
    """Hash of the first three words of each normalised text."""
    return hashed(pc.extract_regex(words, r"^(?P<start>\S+(?: \S+){0,2})").field("start"))


@lru_cache(maxsize=1)
def human_levels() -> dict[str, dict[str, float]]:
    """The same measures on openings that people wrote, by language."""
    return dict(read_yaml(Path(__file__).with_name("human_levels.yaml")))


def _unique(total: Aggregate, opening: NDArray[np.uint64]) -> Part:
    rows = np.flatnonzero(opening)
    _, first, inverse = np.unique(opening[rows], return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    original = rows[first[inverse[repeats]]]
    failures = [(int(rows[i]), f"opens like row {o}") for i, o in zip(repeats[:LISTED], original[:LISTED], strict=True)]
    return share(
        "unique_openings",
        len(rows),
        len(repeats),
        "records",
        "share whose opening, without case, accents and punctuation, is no earlier record's",
        empty="no record has an opening",
        offences=total.offences(tuple(failures)),
    )


def _near(total: Aggregate, opening: NDArray[np.uint64]) -> Part:
    first, second = duplicates.near_pairs(total.column("signature"), opening != 0)
    failures = [(int(r), f"opens nearly like row {o}") for r, o in zip(second[:LISTED], first[:LISTED], strict=True)]
    return share(
        "near_duplicates",
        int((opening != 0).sum()),
        len(second),
        "records",
        f"share whose opening is the first of those linked by a Jaccard similarity of {duplicates.THRESHOLD} or more "
        "(character 5-grams, estimated by MinHash)",
        empty="no record has an opening",
        offences=total.offences(tuple(failures)),
    )


def _distinct(cells: Mapping[str, Sequence[str]], n: int) -> Part:
    human = human_levels()["en"][f"distinct_{n}"]
    unit, meaning = (
        f"windows of {_WINDOW} {n}-grams",
        f"distinct-{n} within intent and language ÷ people's {human:.2f}, at most 1",
    )
    values = distinct_ngrams(cells, n)
    if not len(values):
        return unmeasured(f"distinct_{n}", unit, meaning, f"no intent has {_WINDOW} {n}-grams in its openings")
    return _part(
        f"distinct_{n}", min(1.0, float(values.mean()) / human), len(values), unit, meaning, float(values.mean())
    )


def _self_similarity(cells: Mapping[str, Sequence[str]]) -> Part:
    human = human_levels()["en"]["self_similarity"]
    unit = "pairs of openings"
    meaning = (
        f"1 at people's mean Jaccard similarity within intent and language ({human:.2f}) or less, 0 when all are alike"
    )
    value, pairs = self_similarity(cells)
    if value is None:
        return unmeasured("self_similarity", unit, meaning, "no intent has two openings")
    return _part("self_similarity", _above(value, human), pairs, unit, meaning, value)


def _patterns(cell: NDArray[np.uint64], prefix: NDArray[np.uint64], usable: NDArray[np.bool_]) -> Part:
    human = human_levels()["en"]["opening_patterns"]
    meaning = (
        "1 when two openings of an intent and language start with the same three words as rarely as people's "
        f"({human:.3f}) or less, 0 when always"
    )
    value = pattern_concentration(cell[usable], prefix[usable])
    if value is None:
        return unmeasured("opening_patterns", "records", meaning, "no intent has two openings")
    return _part("opening_patterns", _above(value, human), int(usable.sum()), "records", meaning, value)


def _semantic(total: Aggregate, embed: Embed | None) -> Part:
    unit, meaning = (
        "openings of the sample",
        f"share without an earlier one of its cell at cosine ≥ {SEMANTIC_THRESHOLD}",
    )
    if embed is None:
        return unmeasured("semantic_duplicates", unit, meaning, "no sentence embedder was given")
    sample = total.sample.sort_values("row", ignore_index=True)
    if not len(sample):
        return unmeasured("semantic_duplicates", unit, meaning, "no record has an opening")
    vectors = np.asarray(embed(sample["opening"].tolist()), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    failures = []
    for members in sample.groupby("cell").indices.values():
        cosine = np.tril(vectors[members] @ vectors[members].T, -1)
        for place in np.flatnonzero((cosine >= SEMANTIC_THRESHOLD).any(axis=1)):
            original = sample["row"][members[int(cosine[place].argmax())]]
            failures.append((int(sample["row"][members[place]]), f"says the same as row {original}"))
    failures.sort()
    offences = total.offences(tuple(failures[:LISTED]))
    return share("semantic_duplicates", len(sample), len(failures), unit, meaning, empty="", offences=offences)


def _above(value: float, human: float) -> float:
    return 1.0 - max(0.0, (value - human) / (1 - human))


def _part(name: str, value: float, n: int, unit: str, meaning: str, measured: float) -> Part:
    detail: dict[str, Any] = {"measured": measured, "people": human_levels()["en"][name]}
    return Part(name, value, n, unit, meaning, detail=detail)
