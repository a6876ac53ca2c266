"""Whether labels can be told from what was said: records that read like another label, and labels that are hardly apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.stats import proportion_interval
from genesis_lab.validation.checks import Counted, Part, part, share
from genesis_lab.validation.variety import Embed

LEARNABLE = 10
"""Records of each label, on average, from which not being able to learn says something about the labels."""
_FOLDS = 3
_NO_BETTER = 0.1
"""Share of the way from guessing to perfect below which a classifier counts as no better than guessing."""


def label_fidelity(total: Counted, unit: str, seed: int, embed: Embed | None = None) -> Part:
    """The share of the sample whose label is likely right; the rest by id with the label it looks like.

    All words of a record are read: of openings alone a small model lists mostly its own errors, so read ``out_of_fold_accuracy``
    beside the value. Where it is proven no better than naming the most common label, the labels are as good as random: 0.
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
    """How many openings of the sample are told from their label's nearest neighbour, and which labels are least.

    The neighbour is the other label that gets most probability on its openings: chosen so, labels at random reach 0.4, not 0.5.
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
    """The sample's records of labels with enough of them for every fold, these labels, which is whose, and how many are left out."""
    sample = total.sample[total.sample["label"] != ""].sort_values("row", ignore_index=True)
    enough = sample["label"].map(sample["label"].value_counts()) >= _FOLDS
    kept = sample[enough].reset_index(drop=True)
    names, labels = np.unique(kept["label"].to_numpy(dtype=str), return_inverse=True)
    return kept, names, labels, int((~enough).sum())


def _out_of_fold(
    items: Any, labels: NDArray[np.int64], seed: int, *, min_df: int, strength: float
) -> NDArray[np.float64] | None:
    """Probabilities (n, labels) of texts, or of vectors where `min_df` is 0; None where a fold holds no words to learn from."""
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
