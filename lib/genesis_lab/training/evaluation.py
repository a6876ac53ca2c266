"""What a classifier got right: per language and label, with intervals, confusions and calibration, as JSON-safe rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.stats import Interval, percentile_interval, proportion_interval

Strings = NDArray[Any]
Row = dict[str, Any]

BINS = 10
_REPLICATES = 2000


def evaluate(
    name: str, labels: Strings, predicted: Strings, confidence: NDArray[Any], languages: Strings, *, seed: int
) -> Row:
    """`compared` with the accuracy by language and, from the probability of each predicted label, calibration.

    ``ece`` is the expected calibration error in [0, 1] (Guo et al. 2017, section 2) over ten bins of equal width.
    """
    right = labels == predicted
    number = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    reliability = [
        {
            "low": code / BINS,
            "high": (code + 1) / BINS,
            "confidence": float(confidence[number == code].mean()),
            "accuracy": share(right[number == code]).to_dict(),
        }
        for code in np.unique(number).tolist()
    ]
    gaps = [one["accuracy"]["n"] * abs(one["accuracy"]["estimate"] - one["confidence"]) for one in reliability]
    return {
        "name": name,
        **compared(labels, predicted, seed=seed),
        "per_language": {str(one): share(right[languages == one]).to_dict() for one in np.unique(languages)},
        "ece": sum(gaps) / len(labels),
        "reliability": reliability,
    }


def compared(labels: Strings, predicted: Strings, *, seed: int = 0) -> Row:
    """Accuracy and macro-F1 over the labels that occur, results per label (lowest recall first), confusions by frequency.

    Accuracies carry Wilson intervals, macro-F1 a percentile bootstrap over records. The precision of a label that was
    never predicted is None.
    """
    found, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    names, table = found.tolist(), np.zeros((len(found), len(found)), dtype=int)
    np.add.at(table, (codes[: len(labels)], codes[len(labels) :]), 1)
    hits, n, said = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    f1, present = 2 * hits / (n + said), np.flatnonzero(n)
    per_label = [
        {
            "label": names[i],
            "recall": share(hits[i], n[i]).to_dict(),
            "precision": float(hits[i] / said[i]) if said[i] else None,
            "f1": float(f1[i]),
        }
        for i in present
    ]
    confusions = [
        {"label": names[i], "predicted": names[j], "count": int(table[i, j])} for i, j in np.argwhere(table) if i != j
    ]
    return {
        "accuracy": share(labels == predicted).to_dict(),
        "macro_f1": _macro_f1(table, float(f1[present].mean()), seed).to_dict(),
        "per_label": sorted(per_label, key=lambda row: (row["recall"]["estimate"], row["label"])),
        "confusions": sorted(confusions, key=lambda row: -row["count"]),
    }


def share(right: NDArray[Any] | int, n: int | None = None) -> Interval:
    """Share of records that are right, with Wilson's interval; `right` says it of each, or counts them of `n`."""
    hits, n = int(np.sum(right)), int(n) if n is not None else len(np.atleast_1d(right))
    return Interval(hits / n, *proportion_interval(hits, n), n)


def _macro_f1(table: NDArray[Any], estimate: float, seed: int) -> Interval:
    """Mean F1 over the labels that occur among the records (or the resampled records), from the confusion matrix."""
    n, (true, said) = int(table.sum()), np.nonzero(table)
    drawn = np.random.default_rng(seed).multinomial(n, table[true, said] / n, size=_REPLICATES)
    real, answers = (np.eye(len(table), dtype=np.float32)[codes] for codes in (true, said))
    occurs = drawn @ real
    f1 = 2 * (drawn @ (real * answers)) / np.maximum(occurs + drawn @ answers, 1)
    present = occurs > 0
    return percentile_interval(estimate, (f1 * present).sum(axis=1) / present.sum(axis=1), n)
