"""Realism: could it be told from what real customers write? Measured on openings, against a reference."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from genesis_lab.stats import jensen_shannon
from genesis_lab.validation.aggregate import Aggregate
from genesis_lab.validation.scores import Part, Score, mean_score, unmeasured
from genesis_lab.validation.view import normalised

_HALVINGS = 8
"""Random halvings of the reference over which divergences are averaged."""
_LENGTHS = np.array([0, 3, 5, 7, 9, 11, 13, 16, 20, 26, 35, 50, np.inf])
"""Edges of the length classes, in words."""
_MIN_TEXTS = 20


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


def finish(
    total: Aggregate, targets: Mapping[str, Mapping[str, float]], reference: ReferenceTexts | None, seed: int
) -> Score:
    """Mean of five parts: intents to the plan's target; length, words and characters to the reference; two-sample test.

    The three distances compare the dataset's openings with real ones *of the same intents* (a uniform plan is a choice,
    not a fault), and are scaled by what the reference is from itself: two samples of the same people already differ at
    these sizes. With S the synthetic sample and A, B halves of the reference, all of the same size and mix of intents,
    a part is (1 − JSD(S, A)) ÷ (1 − JSD(A, B)), at most 1, averaged over random halvings: 1 means as close to real
    openings as these are to each other, 0 means that nothing is shared.
    """
    intents = _intents(total, targets, reference)
    if reference is None:
        return mean_score("realism", 0, (intents,), reason="no reference was given")
    sample = total.sample[total.sample["language"] == reference.language]
    rng = np.random.default_rng(seed)
    ours, real = _matched(sample, reference, rng)
    if len(ours) < _MIN_TEXTS or len(real) < _MIN_TEXTS:
        reason = f"needs {_MIN_TEXTS} openings in {reference.language!r} on both sides, got {len(ours)} and {len(real)}"
        return mean_score("realism", len(ours), (intents,), reason=reason)
    parts = [
        intents,
        _distance("length", ours, real, _lengths, "number of words", rng),
        _distance("words", ours, real, _words, "words and word pairs", rng),
        _distance("characters", ours, real, _characters, "character 3- and 4-grams", rng),
        two_sample(ours, real, seed),
    ]
    return mean_score("realism", len(ours), parts)


def two_sample(ours: pd.DataFrame, real: pd.DataFrame, seed: int) -> Part:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): can a linear model tell synthetic from real openings?

    AUC of out-of-fold scores (5 folds; TF-IDF of words 1–2 and characters 2–4, logistic regression) on as many of each.
    The value is 2 · (1 − AUC), at most 1: 1 when they can't be told apart (AUC 0.5), 0 when always. Interval by
    Hanley and McNeil (1982).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    n = min(len(ours), len(real))
    rng = np.random.default_rng(seed)
    picked = [frame.iloc[np.sort(rng.permutation(len(frame))[:n])]["opening"].tolist() for frame in (ours, real)]
    texts, truth = [*picked[0], *picked[1]], np.repeat([1, 0], n)
    model = make_pipeline(_features(), LogisticRegression(C=10.0, max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    auc = float(roc_auc_score(truth, cross_val_predict(model, texts, truth, cv=folds, method="decision_function")))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    deviation = np.sqrt((auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / n**2)
    low, high = (float(np.clip(auc + z * deviation, 0, 1)) for z in (-1.96, 1.96))
    return Part(
        "two_sample",
        _indistinct(auc),
        2 * n,
        "openings, half of them real",
        "2 · (1 − AUC) of a linear classifier that tells synthetic from real openings, at most 1",
        (_indistinct(high), _indistinct(low)),
        detail={"auc": auc, "auc_low": low, "auc_high": high},
    )


def _intents(total: Aggregate, targets: Mapping[str, Mapping[str, float]], reference: ReferenceTexts | None) -> Part:
    observed = total.counts["intent"]
    unit, meaning = "records", "1 − Jensen–Shannon divergence (bits) of the intents to the plan's target"
    n = sum(observed.values())
    detail: dict[str, Any] = {}
    if reference is not None and n:
        detail["jsd_to_reference"] = _divergence(observed, Counter(reference.labels))
    if not n or "intent" not in targets:
        reason = "no record has an intent" if not n else "no target shares of intents were given"
        return unmeasured("intents", unit, meaning, reason, detail=detail)
    return Part("intents", 1 - _divergence(observed, targets["intent"]), n, unit, meaning, detail=detail)


def _matched(
    sample: pd.DataFrame, reference: ReferenceTexts, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Openings of both sides with the same number of each intent; all of both where they share no intent."""
    real = pd.DataFrame({"opening": list(reference.texts), "intent": list(reference.labels)})
    real = real[real["opening"].str.strip() != ""]
    real = real.iloc[rng.permutation(len(real))]
    ours = sample.sort_values(["key", "row"])
    shared = [intent for intent in dict.fromkeys(real["intent"]) if (ours["intent"] == intent).any()]
    if shared:
        take = np.minimum(ours["intent"].value_counts()[shared], real["intent"].value_counts()[shared])
        real, ours = (
            side[side["intent"].isin(shared)].loc[lambda f: f.groupby("intent").cumcount() < f["intent"].map(take)]
            for side in (real, ours)
        )
    words = normalised(pa.array(real["opening"], pa.string())).to_pylist()
    return ours[["opening", "intent", "words"]], real.assign(words=words)


def _distance(
    name: str, ours: pd.DataFrame, real: pd.DataFrame, counts: Any, what: str, rng: np.random.Generator
) -> Part:
    to_real, itself = [], []
    for _ in range(_HALVINGS):
        half = _halves(real, rng)
        other = _halves(ours, rng)
        a, b, s = (counts(side["words"]) for side in (half[0], half[1], other[0]))
        to_real += [_divergence(s, a), _divergence(s, b)]
        itself.append(_divergence(a, b))
    distance, floor = float(np.mean(to_real)), float(np.mean(itself))
    value = min(1.0, (1 - distance) / max(1 - floor, 1e-9))
    detail = {"jsd": distance, "jsd_of_the_reference_to_itself": floor, "openings_per_side": len(half[0])}
    meaning = (
        f"closeness of {what} to the reference: (1 − JSD) ÷ (1 − JSD between two halves of the reference), at most 1"
    )
    return Part(name, value, len(ours), "openings", meaning, detail=detail)


def _halves(frame: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two random halves with the same number of each intent; an odd one out is left out, but for single ones."""
    shuffled = frame.iloc[rng.permutation(len(frame))].sort_values("intent", kind="stable")
    return shuffled.iloc[::2], shuffled.iloc[1::2]


def _lengths(words: pd.Series) -> Counter[str]:
    classes = np.digitize(words.str.count(" ") + 1, _LENGTHS)
    return Counter(classes.astype(str).tolist())


def _words(words: pd.Series) -> Counter[str]:
    counts: Counter[str] = Counter()
    for tokens in map(str.split, words):
        counts.update(tokens)
        counts.update(map(" ".join, itertools.pairwise(tokens)))
    return counts


def _characters(words: pd.Series) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in words:
        padded = f" {text} "
        counts.update(padded[i : i + n] for n in (3, 4) for i in range(len(padded) - n + 1))
    return counts


def _divergence(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    values = list(dict.fromkeys([*p, *q]))
    return jensen_shannon([p.get(v, 0) for v in values], [q.get(v, 0) for v in values])


def _indistinct(auc: float) -> float:
    return min(1.0, 2 * (1 - auc))


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    )
