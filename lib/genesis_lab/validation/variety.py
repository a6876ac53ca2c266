"""Openings held against each other and against people's: diversity, realism and copies."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from genesis_lab.domains.language import NAMES
from genesis_lab.stats import jensen_shannon
from genesis_lab.validation.checks import Counted, Part, part, share
from genesis_lab.validation.text import copied_from, hashed, near_pairs, normalised, signatures
from genesis_lab.yamls import shipped

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SEMANTIC_THRESHOLD = 0.95
"""Cosine of sentence embeddings from which two openings of a cell say the same in the same way."""
_WINDOW = 80
"""n-grams of a window: distinct-n falls with length, so it is always taken over the same length."""
_PAIRED = 20
"""Openings of a cell that are compared pairwise."""
_HALVINGS = 8
"""Random halvings of the reference over which divergences are averaged."""
_LENGTHS = [0, 3, 5, 7, 9, 11, 13, 16, 20, 26, 35, 50, np.inf]
"""Edges of the length classes, in words."""
_MIN_TEXTS = 20
_MIN_WORDS = 4
"""Shorter reference sentences ("I lost my card") are what anyone would say and are no copies."""


def diversity(total: Counted, embed: Embed | None = None) -> list[Part]:
    """Exact and near duplicates, distinct-2, self-similarity, opening patterns and (with `embed`) paraphrases.

    What real people don't do perfectly either is on a scale where 1 is their level (``human_levels.yaml``) or better and 0 is the
    same words every time, and measured on records in a language whose level is known.
    """
    text, levels = total.column("text"), shipped(Path(__file__).with_name("human_levels.yaml"))
    rows = np.flatnonzero(text)
    exact = [(int(rows[i]), f"opens like row {rows[first]}") for i, first in repeated(text[rows])]
    near = [
        (int(row), f"opens nearly like row {of}")
        for of, row in zip(*near_pairs(total.column("signature"), text != 0), strict=True)
    ]
    known = np.isin(total.column("language"), hashed(pa.array([*levels]))) & (text != 0)
    cells = cells_of(total.sample[total.sample["language"].isin(levels)])
    distinct, (alike, pairs) = distinct_bigrams(cells), self_similarity(cells)
    measured = {
        "distinct_2": (float(distinct.mean()) if len(distinct) else None, len(distinct)),
        "self_similarity": (alike, pairs),
        "opening_patterns": (
            pattern_concentration(total.column("cell")[known], total.column("prefix")[known]),
            int(known.sum()),
        ),
    }
    others = ", ".join(
        NAMES.get(other, other) or "records without a language"
        for other in sorted(set(total.sample["language"]) - levels.keys())
    )
    return [
        share("unique_openings", len(rows), len(exact), offences=total.offences(exact)),
        share("near_duplicates", len(rows), len(near), offences=total.offences(near)),
        *(_to_people(name, value, n, levels["en"][name], others) for name, (value, n) in measured.items()),
        _semantic(total, embed),
    ]


def repeated(values: NDArray[Any]) -> list[tuple[int, int]]:
    """Each place whose value was there before, and the first place that had it."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    places = np.flatnonzero(first[inverse] != np.arange(len(values)))
    return list(zip(places.tolist(), first[inverse[places]].tolist(), strict=True))


def cells_of(sample: pd.DataFrame) -> dict[str, list[str]]:
    """The openings of each cell, as words."""
    return {str(cell): group["words"].tolist() for cell, group in sample.groupby("cell")}


def distinct_bigrams(cells: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """Different bigrams ÷ bigrams in windows of 80, cell by cell.

    Distinct-2 (Li et al. 2016) at a fixed length, as the moving-average type/token ratio does (Covington and McFall 2010):
    so it depends neither on the dataset's size nor on how long its texts are.
    """
    values = []
    for texts in cells.values():
        grams = [gram for text in texts for gram in itertools.pairwise(text.split())]
        windows = range(0, len(grams) - _WINDOW + 1, _WINDOW)
        values += [len(set(grams[start : start + _WINDOW])) / _WINDOW for start in windows]
    return np.array(values)


def self_similarity(cells: Mapping[str, Sequence[str]]) -> tuple[float | None, int]:
    """Mean Jaccard similarity of the words and word pairs of two openings of a cell, and the number of pairs.

    The role of self-BLEU (Zhu et al. 2018, Texygen), without its dependence on the size of the sample.
    """
    means, pairs = [], 0
    for texts in cells.values():
        sets = [{*words, *itertools.pairwise(words)} for words in map(str.split, texts[:_PAIRED])]
        if values := [len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2)]:
            means.append(float(np.mean(values)))
            pairs += len(values)
    return (float(np.mean(means)) if means else None), pairs


def pattern_concentration(cell: NDArray[np.uint64], prefix: NDArray[np.uint64]) -> float | None:
    """Chance that two openings of a cell start with the same three words (Simpson 1949), mean over cells."""
    counts = pd.DataFrame({"cell": cell, "prefix": prefix}).value_counts(sort=False).groupby("cell").agg(list)
    chances = [sum(c * (c - 1) for c in each) / (sum(each) * (sum(each) - 1)) for each in counts if sum(each) > 1]
    return float(np.mean(chances)) if chances else None


def _to_people(name: str, measured: float | None, n: int, people: float, others: str) -> Part:
    """A measure on a scale on which people's level or better is 1."""
    found = part(name, None, n)
    if others:
        found["meaning"] += f"; the others left out: no human level for {others}" if measured is not None else ""
        found["reason"] = f"no human level for {others}"
    if measured is None:
        return found | {"n": 0}
    value = measured / people if name == "distinct_2" else 1 - (measured - people) / (1 - people)
    detail = {"measured": measured, "people": people}
    return found | {"value": min(1.0, value), "reason": None, "detail": detail}


def _semantic(total: Counted, embed: Embed | None) -> Part:
    sample = total.sample.sort_values("row", ignore_index=True)
    if embed is None or sample.empty:
        return part("semantic_duplicates", None, 0, **({"reason": "no record has an opening"} if embed else {}))
    vectors = np.asarray(embed(sample["text"].tolist()), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    failures = []
    for members in sample.groupby("cell").indices.values():
        cosine = np.tril(vectors[members] @ vectors[members].T, -1)
        for place in np.flatnonzero((cosine >= SEMANTIC_THRESHOLD).any(axis=1)):
            original = sample["row"][members[int(cosine[place].argmax())]]
            failures.append((int(sample["row"][members[place]]), f"says the same as row {original}"))
    return share("semantic_duplicates", len(sample), len(failures), offences=total.offences(sorted(failures)))


def copies(total: Counted, texts: Sequence[str] | None) -> Part:
    """Openings that are a reference sentence, or nearly one (Jaccard of character 5-grams ≥ 0.8 by MinHash)."""
    if texts is None:
        return part("contamination", None, 0, reason="no reference was given")
    words = normalised(texts)
    place = np.flatnonzero([text.count(" ") + 1 >= _MIN_WORDS for text in words.to_pylist()])
    words = words.take(pa.array(place, pa.int64()))
    opening = total.column("text")
    ours = np.flatnonzero(opening)
    copied = copied_from(total.column("signature")[ours], signatures(words))
    rows, source = ours[copied >= 0], place[copied[copied >= 0]]
    exact = np.isin(opening[rows], hashed(words) | np.uint64(1))
    failures = [
        (int(row), f"{'is' if same else 'is nearly'} sentence {sentence} of the reference")
        for row, sentence, same in zip(rows, source, exact, strict=True)
    ]
    detail = {"exact": int(exact.sum()), "near": int((~exact).sum()), "reference_sentences": len(place)}
    return share("contamination", len(ours), len(rows), offences=total.offences(failures), detail=detail)


def realism(total: Counted, reference: Any, seed: int) -> tuple[list[Part], int, str | None]:
    """Three parts, on how many openings, and why there are none: length and words to the reference, and a two-sample test.

    With S the synthetic sample and A, B halves of the reference, all of the same size and mix of intents (a uniform plan is no
    fault), a distance is (1 − JSD(S, A)) ÷ (1 − JSD(A, B)), at most 1: two samples of the same people differ already.
    """
    if reference is None:
        return [], 0, "no reference was given"
    rng = np.random.default_rng(seed)
    ours, real = _matched(total.sample[total.sample["language"] == reference.language], reference, rng)
    if len(ours) < _MIN_TEXTS or len(real) < _MIN_TEXTS:
        why = f"needs {_MIN_TEXTS} openings in {reference.language!r} on both sides, got {len(ours)} and {len(real)}"
        return [], len(ours), why
    distances = [_distance(name, ours, real, counts, rng) for name, counts in (("length", _lengths), ("words", _words))]
    return [*distances, two_sample(ours, real, seed)], len(ours), None


def two_sample(ours: pd.DataFrame, real: pd.DataFrame, seed: int) -> Part:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): can a linear model tell synthetic from real openings?

    2 · (1 − AUC) of out-of-fold scores on as many of each, at most 1. Interval by Hanley and McNeil (1982).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline, make_union

    n = min(len(ours), len(real))
    rng = np.random.default_rng(seed)
    picked = [frame.iloc[np.sort(rng.permutation(len(frame))[:n])]["text"].tolist() for frame in (ours, real)]
    truth = np.repeat([1, 0], n)
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
    model = make_pipeline(features, LogisticRegression(C=10.0, max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    told = cross_val_predict(model, picked[0] + picked[1], truth, cv=folds, method="decision_function")
    auc = float(roc_auc_score(truth, told))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    deviation = np.sqrt((auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / n**2)
    low, high = (float(np.clip(auc + z * deviation, 0, 1)) for z in (-1.96, 1.96))
    value, least, most = (min(1.0, 2 * (1 - each)) for each in (auc, high, low))
    detail = {"auc": auc, "auc_low": low, "auc_high": high}
    return part("two_sample", value, 2 * n, interval=(least, most), detail=detail)


def _matched(sample: pd.DataFrame, reference: Any, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Openings of both sides with the same number of each intent; all of both where they share no intent."""
    real = pd.DataFrame({"text": list(reference.texts), "label": list(reference.labels)})
    real = real[real["text"].str.strip() != ""]
    real = real.iloc[rng.permutation(len(real))]
    ours = sample.sort_values(["key", "row"])
    counts = [side["label"].value_counts() for side in (ours, real)]
    take = pd.concat(counts, axis=1).min(axis=1, skipna=False).dropna()
    if len(take):
        real, ours = (
            side[side.groupby("label").cumcount() < side["label"].map(take).fillna(0)] for side in (real, ours)
        )
    return ours[["text", "label", "words"]], real.assign(words=normalised(real["text"]).to_pylist())


def _distance(name: str, ours: pd.DataFrame, real: pd.DataFrame, counts: Any, rng: np.random.Generator) -> Part:
    def halves(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """With the same number of each label; an odd one out is left out, but for single ones."""
        shuffled = frame.iloc[rng.permutation(len(frame))].sort_values("label", kind="stable")
        return shuffled.iloc[::2], shuffled.iloc[1::2]

    to_real, itself = [], []
    for _ in range(_HALVINGS):
        half, other = halves(real), halves(ours)
        a, b, s = (counts(side["words"]) for side in (*half, other[0]))
        to_real += [_divergence(s, a), _divergence(s, b)]
        itself.append(_divergence(a, b))
    distance, floor = float(np.mean(to_real)), float(np.mean(itself))
    detail = {"jsd": distance, "jsd_of_the_reference_to_itself": floor, "openings_per_side": len(half[0])}
    return part(name, min(1.0, (1 - distance) / max(1 - floor, 1e-9)), len(ours), detail=detail)


def _lengths(words: pd.Series) -> Counter[str]:
    return Counter(np.digitize(words.str.count(" ") + 1, _LENGTHS).astype(str).tolist())


def _words(words: pd.Series) -> Counter[str]:
    counts: Counter[str] = Counter()
    for tokens in map(str.split, words):
        counts.update(tokens)
        counts.update(map(" ".join, itertools.pairwise(tokens)))
    return counts


def _divergence(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    values = list(dict.fromkeys([*p, *q]))
    return jensen_shannon([p.get(v, 0) for v in values], [q.get(v, 0) for v in values])
