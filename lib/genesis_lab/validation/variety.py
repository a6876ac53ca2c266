"""What was said, held against itself and against people's: diversity, realism, copies, manner, whether labels fit."""

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

from genesis_lab.domains.base import Domain
from genesis_lab.domains.conversations.openings import manner_of
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import GenesisError
from genesis_lab.stats import jensen_shannon, proportion_interval
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
FEWEST = 30
"""Openings below which nothing can be told of them."""
KINDS = {"question": "questions", "lower_case": "all in lower case", "greeting": "with a greeting"}
_QUANTILES = {
    0.05: "words, 5 %",
    0.25: "words, lower quartile",
    0.5: "words, median",
    0.75: "words, upper quartile",
    0.95: "words, 95 %",
}
_CLASSES = {"1–5": 5, "6–10": 10, "11–15": 15, "16–20": 20, "21–30": 30, "over 30": np.inf}
LEARNABLE = 10
"""Records of each label, on average, from which not being able to learn says something about the labels."""
_FOLDS = 3
_NO_BETTER = 0.1
"""Share of the way from guessing to perfect below which a classifier counts as no better than guessing."""
_MIN_TEXTS = 20
_MIN_WORDS = 4
"""Shorter reference sentences ("I lost my card") are what anyone would say and are no copies."""


def diversity(total: Counted, embed: Embed | None = None) -> list[Part]:
    """Exact and near duplicates, distinct-2, self-similarity, opening patterns and (with `embed`) paraphrases.

    What real people don't do perfectly either is on a scale where 1 is their level (``human_levels.yaml``) or better
    and 0 is the same words every time, and measured on records in a language whose level is known.
    """
    text, levels = total.column("text"), shipped(Path(__file__).with_name("human_levels.yaml"))
    rows = np.flatnonzero(text)
    exact = [(int(rows[i]), f"opens like row {rows[first]}") for i, first in repeated(text[rows])]
    near = [
        (int(row), f"opens nearly like row {of}")
        for of, row in zip(*near_pairs(total.column("signature"), text != 0), strict=True)
    ]
    known = np.isin(total.column("language"), hashed(pa.array([*levels]))) & (text != 0)
    spoken = total.sample[total.sample["language"].isin(levels)]
    cells = {str(cell): group["words"].tolist() for cell, group in spoken.groupby("cell")}
    distinct, patterns = distinct_bigrams(cells), (total.column(name)[known] for name in ("cell", "prefix"))
    measured = {
        "distinct_2": (float(distinct.mean()) if len(distinct) else None, len(distinct)),
        "self_similarity": self_similarity(cells),
        "opening_patterns": (pattern_concentration(*patterns), int(known.sum())),
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


def distinct_bigrams(cells: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """Different bigrams ÷ bigrams in windows of 80, cell by cell: distinct-2 (Li et al. 2016) at a fixed length
    (Covington and McFall 2010), so that it depends neither on the dataset's size nor on how long its texts are.
    """
    values = []
    for texts in cells.values():
        grams = [gram for text in texts for gram in itertools.pairwise(text.split())]
        windows = range(0, len(grams) - _WINDOW + 1, _WINDOW)
        values += [len(set(grams[start : start + _WINDOW])) / _WINDOW for start in windows]
    return np.array(values)


def self_similarity(cells: Mapping[str, Sequence[str]]) -> tuple[float | None, int]:
    """Mean Jaccard similarity of the words and word pairs of two openings of a cell, and the number of pairs: self-BLEU
    (Zhu et al. 2018, Texygen) without its dependence on the size of the sample.
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
    """Length and words to the reference and a two-sample test, on how many openings, and why there are none.

    With S the synthetic sample and A, B halves of the reference, all of the same size and mix of intents (a uniform
    plan is no fault), a distance is (1 − JSD(S, A)) ÷ (1 − JSD(A, B)), at most 1: two samples of the same people differ
    already.
    """
    if reference is None:
        return [], 0, "no reference was given"
    rng = np.random.default_rng(seed)
    ours, real = _matched(total.sample[total.sample["language"] == reference.language], reference, rng)
    if len(ours) < _MIN_TEXTS or len(real) < _MIN_TEXTS:
        why = f"needs {_MIN_TEXTS} openings in {reference.language!r} on both sides, got {len(ours)} and {len(real)}"
        return [], len(ours), why
    distances = [_distance(name, ours, real, rng) for name in ("length", "words")]
    return [*distances, two_sample(ours, real, seed)], len(ours), None


def openings(total: Counted, domain: Domain, reference: Any) -> dict[str, Any] | str:
    """The sample's openings `against` real ones of their language, else what the domain documents of people's; or why
    not: `rows` of what was measured (with 95 % interval) and expected, the `distance` of the lengths and `lengths` in
    classes.
    """
    from scipy.stats import quantile_test

    sample, unit = total.sample.sort_values("row"), domain.facets.unit
    if reference is not None and (sample["language"] == reference.language).any():
        sample = sample[sample["language"] == reference.language]
        expected = manner_of(reference.texts) | {"whose": f"those of {reference.name}"}
    else:
        try:
            known = domain.manner
        except GenesisError as error:  # the real messages that it was planned after are gone
            return str(error)
        if known is None:
            return f"no reference was given, and how people write {unit} is not documented"
        expected = dict(known)
    n = len(sample)
    if n < FEWEST:
        return f"{n} openings are too few"
    texts = sample["text"].tolist()
    words = np.array([len(text.split()) for text in texts], dtype=float)
    ours = pd.Series(words).value_counts(normalize=True).sort_index()
    people = pd.Series({float(count): share for count, share in expected["words"].items()}).sort_index()
    rows: list[dict[str, Any]] = []
    for at, name in _QUANTILES.items():
        value, wanted = float(np.quantile(words, at)), float(people.index[(people.cumsum() < at - 1e-9).sum()])
        measured: Any = value
        if at == 0.5:  # with its interval by order statistics: exact, whatever the distribution (Conover 1999, 3.2)
            ends = quantile_test(words, p=0.5).confidence_interval()
            measured = {"estimate": value, "low": float(ends.low), "high": float(ends.high)}
        rows.append({"name": name, "measured": measured, "expected": wanted, "ratio": value / wanted})
    manner = manner_of(texts)
    for kind, name in KINDS.items():
        low, high = proportion_interval(round(manner[kind] * n), n)
        measured = {"estimate": manner[kind], "low": low, "high": high}
        rows.append({"name": name, "measured": measured, "expected": expected[kind], "ratio": None})
    both = pd.concat([ours, people], axis=1, keys=["ours", "people"]).sort_index().fillna(0.0).cumsum()
    distance = float((both["ours"] - both["people"]).abs().max())
    rows.append({"name": "distance of the lengths (KS)", "measured": distance, "expected": 0.0, "ratio": None})
    lengths = {"this dataset": _classes(ours), "people": _classes(people)}
    return {"against": expected["whose"], "n": n, "rows": rows, "distance": distance, "lengths": lengths}


def _classes(shares: pd.Series) -> dict[str, float]:
    classes = pd.cut(shares.index, [0, *_CLASSES.values()], labels=[*_CLASSES])
    return {str(name): float(share) for name, share in shares.groupby(classes, observed=False).sum().items()}


def two_sample(ours: pd.DataFrame, real: pd.DataFrame, seed: int) -> Part:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): 2 · (1 − AUC) of out-of-fold scores by which a linear
    model tells synthetic from real openings, as many of each, at most 1. Interval by Hanley and McNeil (1982).
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
        sides = (real, ours)
        real, ours = (side[side.groupby("label").cumcount() < side["label"].map(take).fillna(0)] for side in sides)
    return ours[["text", "label", "words"]], real.assign(words=normalised(real["text"]).to_pylist())


def _distance(name: str, ours: pd.DataFrame, real: pd.DataFrame, rng: np.random.Generator) -> Part:
    def counts(words: pd.Series) -> Counter[str]:
        if name == "length":
            return Counter(np.digitize(words.str.count(" ") + 1, _LENGTHS).astype(str).tolist())
        split = [text.split() for text in words]
        return Counter(gram for own in split for gram in (*own, *map(" ".join, itertools.pairwise(own))))

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


def _divergence(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    values = list(dict.fromkeys([*p, *q]))
    return jensen_shannon([p.get(v, 0) for v in values], [q.get(v, 0) for v in values])


def label_fidelity(total: Counted, unit: str, seed: int, embed: Embed | None = None) -> Part:
    """The share of the sample whose label is likely right; the rest by id with the label it looks like.

    Read ``out_of_fold_accuracy`` beside it: a small model lists mostly its own errors (so all words of a record are
    read). Where it is proven no better than naming the most common label, the labels are as good as random: 0.
    """
    name, what, records = "label_fidelity", f"{unit} of the sample", unit.split()[0]
    sample, names, labels, left_out = _learnable(total)
    if len(names) < 2:
        return part(name, None, 0, what, reason=f"needs two intents with {_FOLDS} {records} each")
    probabilities = _out_of_fold(sample["body"].tolist(), labels, seed, min_df=2, strength=20.0)
    if probabilities is None:
        return part(name, None, 0, what, reason=f"no word occurs in two {records}: nothing to learn from")
    if embed is not None:
        vectors = np.asarray(embed(sample["text"].tolist()), dtype=np.float64)
        by_meaning = _out_of_fold(vectors, labels, seed, min_df=0, strength=10.0)
        probabilities = probabilities if by_meaning is None else (probabilities + by_meaning) / 2
    looks_like = probabilities.argmax(axis=1)
    n, right = len(labels), int((looks_like == labels).sum())
    guess = float(np.bincount(labels).max() / n)
    detail: dict[str, Any] = {"out_of_fold_accuracy": right / n, "accuracy_of_guessing": guess, "left_out": left_out}
    low, high = proportion_interval(right, n)
    if low <= guess:
        said = f"a classifier gets {right / n:.0%} of the intents right, no better than guessing ({guess:.0%})"
        if n < LEARNABLE * len(names) or high > guess + _NO_BETTER * (1 - guess):
            reason = f"{said}: there may be too few {records} to learn from"
            return part(name, None, 0, what, reason=reason, detail=detail)
        return part(name, 0.0, n, what, detail=detail | {"finding": said})
    from cleanlab.filter import find_label_issues

    wrong = [
        (int(sample["row"][i]), f"labelled {names[labels[i]]}, reads like {names[looks_like[i]]}")
        for i in np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1))
    ]
    return share(name, n, len(wrong), what, offences=total.offences(wrong), detail=detail)


def separation(total: Counted, seed: int) -> Part:
    """How many openings of the sample are told from their label's nearest neighbour (the other label that gets most
    probability on its openings: labels at random reach 0.4, not 0.5), and which labels are least.
    """
    sample, names, labels, _ = _learnable(total)
    if len(names) < 2:
        return part("separation", None, 0, reason=f"needs two intents with {_FOLDS} records each")
    probabilities = _out_of_fold(sample["text"].tolist(), labels, seed, min_df=1, strength=20.0)
    if probabilities is None:
        return part("separation", None, 0)
    means = np.array([probabilities[labels == label].mean(axis=0) for label in range(len(names))])
    np.fill_diagonal(means, -1.0)
    neighbour = means.argmax(axis=1)
    told = probabilities[np.arange(len(labels)), labels] > probabilities[np.arange(len(labels)), neighbour[labels]]
    worst = int(np.argmin([told[labels == label].mean() for label in range(len(names))]))
    detail = {"least_apart": f"{names[worst]} and {names[neighbour[worst]]}"}
    return share("separation", len(labels), int((~told).sum()), detail=detail)


def _learnable(total: Counted) -> tuple[pd.DataFrame, NDArray[Any], NDArray[np.int64], int]:
    """The sample's records of labels with enough of them for every fold, these labels, which is whose, and the rest."""
    sample = total.sample[total.sample["label"] != ""].sort_values("row", ignore_index=True)
    enough = sample["label"].map(sample["label"].value_counts()) >= _FOLDS
    kept = sample[enough].reset_index(drop=True)
    names, labels = np.unique(kept["label"].to_numpy(dtype=str), return_inverse=True)
    return kept, names, labels, int((~enough).sum())


def _out_of_fold(
    items: Any, labels: NDArray[np.int64], seed: int, *, min_df: int, strength: float
) -> NDArray[np.float64] | None:
    """Probabilities (n, labels) of texts, or of vectors where `min_df` is 0; None where a fold holds no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    words = [TfidfVectorizer(min_df=min_df, sublinear_tf=True, strip_accents="unicode")] if min_df else []
    model = make_pipeline(*words, LogisticRegression(C=strength, max_iter=100))
    cv = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    try:
        return np.asarray(cross_val_predict(model, items, labels, cv=cv, method="predict_proba"), dtype=float)
    except ValueError as error:
        if "empty vocabulary" in str(error) or "no terms remain" in str(error).lower():
            return None
        raise
