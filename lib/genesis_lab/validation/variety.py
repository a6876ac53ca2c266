"""Openings held against each other and against people's: diversity, realism, copies, and whether labels can be told apart."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from genesis_lab.domains.language import NAMES
from genesis_lab.stats import jensen_shannon, proportion_interval
from genesis_lab.validation.checks import Counted, part, share
from genesis_lab.validation.text import THRESHOLD, copied_from, first_words, hashed, near_pairs, normalised, signatures
from genesis_lab.yamls import read_yaml

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Part = dict[str, Any]

SEMANTIC_THRESHOLD = 0.95
"""Cosine of sentence embeddings from which two openings of a cell say the same in the same way."""
LEARNABLE = 10
"""Records of each label, on average, from which not being able to learn says something about the labels."""
_WINDOW = 80
"""n-grams of a window: distinct-n falls with length, so it is always taken over the same length."""
_PAIRED = 20
"""Openings of a cell that are compared pairwise."""
_HALVINGS = 8
"""Random halvings of the reference over which divergences are averaged."""
_LENGTHS = np.array([0, 3, 5, 7, 9, 11, 13, 16, 20, 26, 35, 50, np.inf])
"""Edges of the length classes, in words."""
_MIN_TEXTS = 20
_MIN_WORDS = 4
"""Shorter reference sentences ("I lost my card") are what anyone would say and are no copies."""
_FOLDS = 3
_NO_BETTER = 0.1
"""Share of the way from guessing to perfect below which a classifier counts as no better than guessing."""
_NO_TEXT = "no record has an opening"


class ReferenceTexts(Protocol):
    """What is needed of a reference: real utterances with their labels, in one language."""

    @property
    def name(self) -> str: ...
    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def language(self) -> str: ...


def diversity(total: Counted, embed: Embed | None = None) -> list[Part]:
    """Exact and near duplicates, distinct-2, self-similarity, opening patterns and (with `embed`) paraphrases.

    Distinct-2, self-similarity and pattern concentration of real people aren't 1 or 0 either, so these parts are on a
    scale where 1 is the level of real customers (``human_levels.yaml``) or better, and 0 is the same words every time.
    They are measured on the records in a language whose level is known: another language has another one.
    """
    text, human = total.column("text"), human_levels()["en"]
    rows = np.flatnonzero(text)
    _, first, inverse = np.unique(text[rows], return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    exact = [(int(rows[i]), f"opens like row {rows[first[inverse[i]]]}") for i in repeats]
    near = [
        (int(row), f"opens nearly like row {of}")
        for of, row in zip(*near_pairs(total.column("signature"), text != 0), strict=True)
    ]
    known = np.isin(total.column("language"), hashed(pa.array(sorted(human_levels())))) & (text != 0)
    told = total.sample[total.sample["language"].isin(human_levels())]
    cells = {cell: group["words"].tolist() for cell, group in told.groupby("cell")}
    distinct, (alike, pairs) = distinct_bigrams(cells), self_similarity(cells)
    patterns = pattern_concentration(total.column("cell")[known], total.column("prefix")[known])
    mean = float(distinct.mean()) if len(distinct) else None
    held = [
        ("distinct_2", mean, mean and mean / human["distinct_2"], len(distinct), f"windows of {_WINDOW} 2-grams",
         f"distinct-2 within intent and language ÷ people's {human['distinct_2']:.2f}, at most 1",
         f"no intent has {_WINDOW} 2-grams in its openings"),
        ("self_similarity", alike, alike and _below(alike, human["self_similarity"]), pairs, "pairs of openings",
         f"1 at people's mean Jaccard similarity within intent and language ({human['self_similarity']:.2f}) or less, 0 when "
         "all are alike", "no intent has two openings"),
        ("opening_patterns", patterns, patterns and _below(patterns, human["opening_patterns"]), int(known.sum()), "records",
         "1 when two openings of an intent and language start with the same three words as rarely as people's "
         f"({human['opening_patterns']:.3f}) or less, 0 when always", "no intent has two openings"),
    ]  # fmt: skip
    others = sorted(set(total.sample["language"]) - set(human_levels()))
    left = f"no human level for {', '.join(NAMES.get(o, o) or 'records without a language' for o in others)}" * bool(
        others
    )
    return [
        share("unique_openings", len(rows), len(exact), "records", "share whose opening, without case, accents and "
              "punctuation, is no earlier record's", _NO_TEXT, offences=total.offences(exact)),
        share("near_duplicates", len(rows), len(near), "records", "share whose opening is the first of those linked by a "
              f"Jaccard similarity of {THRESHOLD} or more (character 5-grams, estimated by MinHash)", _NO_TEXT,
              offences=total.offences(near)),
        *(
            part(name, None, 0, unit, meaning, reason=left or empty)
            if measured is None
            else part(name, min(1.0, value or 0.0), n, unit, f"{meaning}; the others left out: {left}" if left else meaning,
                      detail={"measured": measured, "people": human[name]})
            for name, measured, value, n, unit, meaning, empty in held
        ),
        _semantic(total, embed),
    ]  # fmt: skip


def distinct_bigrams(cells: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """Different bigrams ÷ bigrams in windows of 80, cell by cell.

    Distinct-2 (Li et al. 2016) at a fixed length, as the moving-average type/token ratio does (Covington and McFall 2010):
    so it depends neither on the dataset's size nor on how long its texts are.
    """
    values = []
    for texts in cells.values():
        grams = [gram for text in texts for gram in itertools.pairwise(text.split())]
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
    words = normalised(texts)
    cells = pd.Series(words.to_pylist()).groupby(list(labels)).agg(list).to_dict()
    return {
        "distinct_2": float(distinct_bigrams(cells).mean()),
        "self_similarity": self_similarity(cells)[0],
        "opening_patterns": pattern_concentration(hashed(pa.array(list(labels), pa.string())), first_words(words)),
    }


@lru_cache(maxsize=1)
def human_levels() -> dict[str, dict[str, float]]:
    """The same measures on openings that people wrote, by language."""
    return dict(read_yaml(Path(__file__).with_name("human_levels.yaml")))


def _semantic(total: Counted, embed: Embed | None) -> Part:
    name, unit = "semantic_duplicates", "openings of the sample"
    meaning = f"share without an earlier one of its cell at cosine ≥ {SEMANTIC_THRESHOLD}"
    sample = total.sample.sort_values("row", ignore_index=True)
    if embed is None or sample.empty:
        return part(name, None, 0, unit, meaning, reason=_NO_TEXT if embed else "no sentence embedder was given")
    vectors = np.asarray(embed(sample["text"].tolist()), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    failures = []
    for members in sample.groupby("cell").indices.values():
        cosine = np.tril(vectors[members] @ vectors[members].T, -1)
        for place in np.flatnonzero((cosine >= SEMANTIC_THRESHOLD).any(axis=1)):
            original = sample["row"][members[int(cosine[place].argmax())]]
            failures.append((int(sample["row"][members[place]]), f"says the same as row {original}"))
    return share(name, len(sample), len(failures), unit, meaning, offences=total.offences(sorted(failures)))


def _below(value: float, human: float) -> float:
    return 1.0 - max(0.0, (value - human) / (1 - human))


def copies(total: Counted, texts: Sequence[str] | None) -> Part:
    """Openings that are a reference sentence, or nearly one (Jaccard of character 5-grams ≥ 0.8 by MinHash)."""
    meaning = f"share of openings that are no near-copy (Jaccard ≥ {THRESHOLD}) of a reference sentence of {_MIN_WORDS} words or more"
    if texts is None:
        return part("contamination", None, 0, "records", meaning, reason="no reference was given")
    words = normalised(texts)
    long = np.array([text.count(" ") + 1 >= _MIN_WORDS for text in words.to_pylist()], dtype=bool)
    opening = total.column("text")
    ours, place = np.flatnonzero(opening != 0), np.flatnonzero(long)
    copied = copied_from(total.column("signature")[ours], signatures(words)[long])
    rows, source = ours[copied >= 0], place[copied[copied >= 0]]
    exact = np.isin(opening[rows], hashed(words)[long] | np.uint64(1))
    failures = [
        (int(row), f"{'is' if same else 'is nearly'} sentence {sentence} of the reference")
        for row, sentence, same in zip(rows, source, exact, strict=True)
    ]
    detail = {"exact": int(exact.sum()), "near": int((~exact).sum()), "reference_sentences": int(long.sum())}
    return share(
        "contamination", len(ours), len(rows), "records", meaning, _NO_TEXT, offences=total.offences(failures), detail=detail
    )  # fmt: skip


def realism(total: Counted, reference: ReferenceTexts | None, seed: int) -> tuple[list[Part], int, str | None]:
    """Three parts, on how many openings, and why there are none: length and words to the reference, and a two-sample test.

    The distances compare the dataset's openings with real ones *of the same intents* (a uniform plan is a choice, not a
    fault), and are scaled by what the reference is from itself: two samples of the same people already differ at these
    sizes. With S the synthetic sample and A, B halves of the reference, all of the same size and mix of intents, a part is
    (1 − JSD(S, A)) ÷ (1 − JSD(A, B)), at most 1, averaged over random halvings: 1 means as close to real openings as these
    are to each other, 0 means that nothing is shared.
    """
    if reference is None:
        return [], 0, "no reference was given"
    rng = np.random.default_rng(seed)
    ours, real = _matched(total.sample[total.sample["language"] == reference.language], reference, rng)
    if len(ours) < _MIN_TEXTS or len(real) < _MIN_TEXTS:
        why = f"needs {_MIN_TEXTS} openings in {reference.language!r} on both sides, got {len(ours)} and {len(real)}"
        return [], len(ours), why
    distances = [
        _distance("length", ours, real, _lengths, "number of words", rng),
        _distance("words", ours, real, _words, "words and word pairs", rng),
    ]
    return [*distances, two_sample(ours, real, seed)], len(ours), None


def two_sample(ours: pd.DataFrame, real: pd.DataFrame, seed: int) -> Part:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): can a linear model tell synthetic from real openings?

    AUC of out-of-fold scores (5 folds; TF-IDF of words 1–2 and characters 2–4, logistic regression) on as many of each.
    The value is 2 · (1 − AUC), at most 1: 1 when they can't be told apart (AUC 0.5), 0 when always. Interval by
    Hanley and McNeil (1982).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_union

    n = min(len(ours), len(real))
    rng = np.random.default_rng(seed)
    picked = [frame.iloc[np.sort(rng.permutation(len(frame))[:n])]["text"].tolist() for frame in (ours, real)]
    truth = np.repeat([1, 0], n)
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
    told = _out_of_fold([features, _regression(10.0, 300)], picked[0] + picked[1], truth, seed, 5, "decision_function")
    auc = float(roc_auc_score(truth, told))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    deviation = np.sqrt((auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / n**2)
    low, high = (float(np.clip(auc + z * deviation, 0, 1)) for z in (-1.96, 1.96))
    value, least, most = (min(1.0, 2 * (1 - each)) for each in (auc, high, low))
    meaning = "2 · (1 − AUC) of a linear classifier that tells synthetic from real openings, at most 1"
    detail = {"auc": auc, "auc_low": low, "auc_high": high}
    return part(
        "two_sample", value, 2 * n, "openings, half of them real", meaning, interval=(least, most), detail=detail
    )


def _matched(
    sample: pd.DataFrame, reference: ReferenceTexts, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Openings of both sides with the same number of each intent; all of both where they share no intent."""
    real = pd.DataFrame({"text": list(reference.texts), "label": list(reference.labels)})
    real = real[real["text"].str.strip() != ""]
    real = real.iloc[rng.permutation(len(real))]
    ours = sample.sort_values(["key", "row"])
    shared = [label for label in dict.fromkeys(real["label"]) if (ours["label"] == label).any()]
    if shared:
        take = np.minimum(ours["label"].value_counts()[shared], real["label"].value_counts()[shared])
        real, ours = (
            side[side["label"].isin(shared)].loc[lambda f: f.groupby("label").cumcount() < f["label"].map(take)]
            for side in (real, ours)
        )
    return ours[["text", "label", "words"]], real.assign(words=normalised(real["text"]).to_pylist())


def _distance(
    name: str, ours: pd.DataFrame, real: pd.DataFrame, counts: Any, what: str, rng: np.random.Generator
) -> Part:
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
    meaning = (
        f"closeness of {what} to the reference: (1 − JSD) ÷ (1 − JSD between two halves of the reference), at most 1"
    )
    return part(name, min(1.0, (1 - distance) / max(1 - floor, 1e-9)), len(ours), "openings", meaning, detail=detail)


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


def label_fidelity(total: Counted, unit: str, seed: int, embed: Embed | None = None) -> Part:
    """The share of the sample whose label is likely right; the rest by id with the label it looks like.

    All words of a record are read, because an opening alone is too little for a small model: with labels swapped at
    random in 3 % and 10 % of 10,010 offline conversations, the list's precision was 0.94 and 0.99 and its recall 0.74
    and 0.82; from openings alone the precision was 0.10 and 0.28. So read ``out_of_fold_accuracy`` beside the value:
    where it is low (single-turn data, few records), much of the list is the classifier's fault and the value is a lower
    bound: of people's own labels, 10 per intent, TF-IDF lists a quarter and embeddings list 6 %. Where words were written
    *from* the label, as by the offline grammar, a value near 1 is what one should see: it shows that no labels were mixed
    up since, not that people would use those words.

    A label with fewer than three records can't be learned from others and is left out. Where the classifier is not shown
    to be better than naming the most common label, it can't judge single ones: with ten records of each or more, and
    proof that it is no better, the value is 0 (the labels are as good as random), else the part is not measured.
    """
    name, unit = "label_fidelity", f"{unit} of the sample"
    meaning = (
        "share of records that confident learning does not list as likely mislabelled (Northcutt, Jiang and Chuang 2021; "
        "cleanlab on out-of-fold probabilities of TF-IDF and logistic regression over all their words, averaged with those "
        "from embeddings of the opening where there is an embedder)"
    )
    sample, names, labels, left_out = _learnable(total)
    if len(names) < 2:
        return part(name, None, 0, unit, meaning, reason=f"needs two intents with {_FOLDS} {unit.split()[0]} each")
    probabilities = _out_of_fold([_tfidf(2), _regression(20.0)], sample["body"].tolist(), labels, seed)
    if probabilities is None:
        why = f"no word occurs in two {unit.split()[0]}: nothing to learn from"
        return part(name, None, 0, unit, meaning, reason=why)
    if embed is not None:
        vectors = np.asarray(embed(sample["text"].tolist()), dtype=np.float64)
        by_meaning = _out_of_fold([_regression(10.0)], vectors, labels, seed)
        probabilities = probabilities if by_meaning is None else (probabilities + by_meaning) / 2
    looks_like = probabilities.argmax(axis=1)
    n, right = len(labels), int((looks_like == labels).sum())
    guess = float(np.bincount(labels).max() / n)
    detail: dict[str, Any] = {"out_of_fold_accuracy": right / n, "accuracy_of_guessing": guess, "left_out": left_out}
    low, high = proportion_interval(right, n)
    if low <= guess:
        said = f"a classifier gets {right / n:.0%} of the intents right, no better than guessing ({guess:.0%})"
        if n < LEARNABLE * len(names) or high > guess + _NO_BETTER * (1 - guess):
            reason = f"{said}: there may be too few {unit.split()[0]} to learn from"
            return part(name, None, 0, unit, meaning, reason=reason, detail=detail)
        return part(name, 0.0, n, unit, meaning, detail=detail | {"finding": said})
    from cleanlab.filter import find_label_issues

    wrong = [
        (int(sample["row"][i]), f"labelled {names[labels[i]]}, reads like {names[looks_like[i]]}")
        for i in np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1))
    ]
    return share(name, n, len(wrong), unit, meaning, offences=total.offences(wrong), detail=detail)


def separation(total: Counted, seed: int) -> Part:
    """How many openings of the sample are told from their label's nearest neighbour, and which labels are least.

    The neighbour of a label is the other one that gets most probability on its openings. Chosen so, labels at random
    reach 0.4 rather than 0.5.
    """
    name, unit = "separation", "openings of the sample"
    meaning = (
        "share of openings whose own intent is likelier than the one that its intent is taken for most (out-of-fold TF-IDF "
        "and logistic regression); 0.5 is a coin"
    )
    sample, names, labels, _ = _learnable(total)
    if len(names) < 2:
        return part(name, None, 0, unit, meaning, reason=f"needs two intents with {_FOLDS} records each")
    probabilities = _out_of_fold([_tfidf(1), _regression(20.0)], sample["text"].tolist(), labels, seed)
    if probabilities is None:
        return part(name, None, 0, unit, meaning, reason="the openings hold no words")
    means = np.array([probabilities[labels == label].mean(axis=0) for label in range(len(names))])
    np.fill_diagonal(means, -1.0)
    neighbour = means.argmax(axis=1)
    told = probabilities[np.arange(len(labels)), labels] > probabilities[np.arange(len(labels)), neighbour[labels]]
    worst = int(np.argmin([told[labels == label].mean() for label in range(len(names))]))
    detail = {"least_apart": f"{names[worst]} and {names[neighbour[worst]]}"}
    return share(name, len(labels), int((~told).sum()), unit, meaning, detail=detail)


def _learnable(total: Counted) -> tuple[pd.DataFrame, NDArray[Any], NDArray[np.int64], int]:
    """The sample's records of labels with enough of them for every fold, these labels and which is whose; how many were
    left out.
    """
    sample = total.sample[total.sample["label"] != ""].sort_values("row", ignore_index=True)
    enough = sample["label"].map(sample["label"].value_counts()) >= _FOLDS
    kept = sample[enough].reset_index(drop=True)
    names, labels = np.unique(kept["label"].to_numpy(dtype=str), return_inverse=True)
    return kept, names, labels, int((~enough).sum())


def _tfidf(min_df: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(min_df=min_df, sublinear_tf=True, strip_accents="unicode")


def _regression(strength: float, steps: int = 100) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=steps)


def _out_of_fold(
    steps: Sequence[Any],
    items: Any,
    labels: NDArray[np.int64],
    seed: int,
    folds: int = _FOLDS,
    method: str = "predict_proba",
) -> NDArray[np.float64] | None:
    """Probabilities of shape (n, labels); None where a fold holds no features to learn from."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    cv = StratifiedKFold(folds, shuffle=True, random_state=seed)
    try:
        return np.asarray(cross_val_predict(make_pipeline(*steps), items, labels, cv=cv, method=method), dtype=float)
    except ValueError as error:
        if "empty vocabulary" in str(error) or "no terms remain" in str(error).lower():
            return None
        raise
