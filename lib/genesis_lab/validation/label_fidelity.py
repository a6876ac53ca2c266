"""Labels and words: which records probably carry the wrong intent, and can the intents be told apart at all?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.stats import proportion_interval
from genesis_lab.validation.aggregate import LISTED, Aggregate
from genesis_lab.validation.diversity import Embed
from genesis_lab.validation.scores import Part, share, unmeasured

_FOLDS = 3
LEARNABLE = 10
"""Conversations of each intent, on average, from which not being able to learn says something about the labels."""
_NO_BETTER = 0.1
"""Share of the way from guessing to perfect below which a classifier counts as no better than guessing."""
_UNIT = "conversations of the sample"
_MEANING = (
    "share of records that confident learning does not list as likely mislabelled (Northcutt, Jiang and Chuang 2021; "
    "cleanlab on out-of-fold probabilities of TF-IDF and logistic regression over the whole conversation, averaged with "
    "those from embeddings of the opening where there is an embedder)"
)
_TOO_FEW = f"needs two intents with {_FOLDS} conversations each"
_APART = (
    "share of openings whose own intent is likelier than the one that its intent is taken for most (out-of-fold TF-IDF and "
    "logistic regression); 0.5 is a coin"
)


def finish(total: Aggregate, seed: int, embed: Embed | None = None) -> Part:
    """The share of the sample whose intent is likely right; the rest by id with the intent it looks like.

    The whole conversation is read, because an opening alone is too little for a small model: with labels swapped at
    random in 3 % and 10 % of 10,010 offline conversations, the list's precision was 0.94 and 0.99 and its recall 0.74
    and 0.82; from openings alone the precision was 0.10 and 0.28. So read ``out_of_fold_accuracy`` beside the value:
    where it is low (single-turn data, few records), much of the list is the classifier's fault and the value is a lower
    bound: of people's own labels, 10 per intent, TF-IDF lists a quarter and embeddings list 6 %. Where words were written
    *from* the label, as by the offline grammar, a value near 1 is what one should see: it shows that no labels were mixed
    up since, not that people would use those words.

    An intent with fewer than three conversations can't be learned from others and is left out. Where the classifier is
    not shown to be better than naming the most common intent, it can't judge single labels: with ten conversations of
    each intent or more, and proof that it is no better, the value is 0 (the labels are as good as random), else the part
    is not measured.
    """
    sample, left_out = _learnable(total)
    if sample["intent"].nunique() < 2:
        return unmeasured("label_fidelity", _UNIT, _MEANING, _TOO_FEW)
    names, labels = np.unique(sample["intent"].to_numpy(dtype=str), return_inverse=True)
    probabilities = _out_of_fold(_words(min_df=2), sample["text"].tolist(), labels, seed)
    if probabilities is None:
        return unmeasured(
            "label_fidelity", _UNIT, _MEANING, "no word occurs in two conversations: nothing to learn from"
        )
    if embed is not None:
        vectors = np.asarray(embed(sample["opening"].tolist()), dtype=np.float64)
        by_meaning = _out_of_fold(_regression(10.0), vectors, labels, seed)
        probabilities = probabilities if by_meaning is None else (probabilities + by_meaning) / 2
    looks_like = probabilities.argmax(axis=1)
    right, guess = int((looks_like == labels).sum()), float(np.bincount(labels).max() / len(labels))
    detail = {"out_of_fold_accuracy": right / len(labels), "accuracy_of_guessing": guess, "left_out": left_out}
    low, high = proportion_interval(right, len(labels))
    if low <= guess:
        said = (
            f"a classifier gets {right / len(labels):.0%} of the intents right, no better than guessing ({guess:.0%})"
        )
        if len(labels) < LEARNABLE * len(names) or high > guess + _NO_BETTER * (1 - guess):
            reason = f"{said}: there may be too few conversations to learn from"
            return unmeasured("label_fidelity", _UNIT, _MEANING, reason, detail=detail)
        return Part("label_fidelity", 0.0, len(labels), _UNIT, _MEANING, detail=detail | {"finding": said})
    wrong = _issues(labels, probabilities)
    failures = tuple(
        (int(sample["row"][i]), f"labelled {names[labels[i]]}, reads like {names[looks_like[i]]}") for i in wrong
    )
    offences = total.offences(failures[:LISTED])
    return share("label_fidelity", len(sample), len(wrong), _UNIT, _MEANING, empty="", offences=offences, detail=detail)


def separation(total: Aggregate, seed: int) -> Part:
    """How many openings of the sample are told from their intent's nearest neighbour, and which intents are least.

    The neighbour of an intent is the other one that gets most probability on its openings. Chosen so, labels at random
    reach 0.4 rather than 0.5.
    """
    name, unit = "separation", "openings of the sample"
    sample, _ = _learnable(total)
    if sample["intent"].nunique() < 2:
        return unmeasured(name, unit, _APART, _TOO_FEW)
    names, labels = np.unique(sample["intent"].to_numpy(dtype=str), return_inverse=True)
    probabilities = _out_of_fold(_words(min_df=1), sample["opening"].tolist(), labels, seed)
    if probabilities is None:
        return unmeasured(name, unit, _APART, "the openings hold no words")
    means = np.array([probabilities[labels == label].mean(axis=0) for label in range(len(names))])
    np.fill_diagonal(means, -1.0)
    neighbour = means.argmax(axis=1)
    rows = np.arange(len(labels))
    told = probabilities[rows, labels] > probabilities[rows, neighbour[labels]]
    worst = int(np.argmin([told[labels == label].mean() for label in range(len(names))]))
    detail = {"least_apart": f"{names[worst]} and {names[neighbour[worst]]}"}
    return share(name, len(labels), int((~told).sum()), unit, _APART, empty="", detail=detail)


def _learnable(total: Aggregate) -> tuple[pd.DataFrame, int]:
    """The sample's records of intents with enough of them for every fold, and how many were left out."""
    sample = total.sample[total.sample["intent"] != ""].sort_values("row", ignore_index=True)
    sizes = sample["intent"].map(sample["intent"].value_counts())
    return sample[sizes >= _FOLDS].reset_index(drop=True), int((sizes < _FOLDS).sum())


def _words(*, min_df: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(min_df=min_df, sublinear_tf=True, strip_accents="unicode")
    return make_pipeline(features, _regression(20.0))


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=100)


def _out_of_fold(
    model: Any, features: Sequence[str] | NDArray[np.float64], labels: NDArray[np.int64], seed: int
) -> NDArray[np.float64] | None:
    """Probabilities of shape (n, intents); None where a fold holds no features to learn from."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    try:
        return np.asarray(cross_val_predict(model, features, labels, cv=folds, method="predict_proba"), dtype=float)
    except ValueError as error:
        if "empty vocabulary" in str(error) or "no terms remain" in str(error).lower():
            return None
        raise


def _issues(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[int]:
    from cleanlab.filter import find_label_issues

    return [int(i) for i in np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1))]
