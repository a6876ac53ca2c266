"""What a classifier got right, by language and label, and how much real data teaches as much: JSON-safe rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.stats import Interval, percentile_interval, proportion_interval

Strings = NDArray[Any]
Numbers = NDArray[np.floating]
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
    """Accuracy, macro-F1 over the labels that occur, results per label (lowest recall first), the commonest confusions.

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


_BOUNDS = (("k", "below"), ("low", "low_below"), ("high", "high_below"))


def equivalent(reached: float, curve: Numbers, own: Numbers, curves: Numbers, ks: Numbers) -> Row:
    """The k at which the `curve` over `ks` of real data has what synthetic data has `reached`; higher is better.

    Interpolated linearly on log k. Outside the `ks` that were tried ``k``, ``low`` and ``high`` are None, and ``below``
    … say on which side. `own`, of shape (replicates,), and `curves`, (replicates, ks), are the same in a bootstrap.
    """
    k = _inverse(reached, curve, ks)
    bootstrap = [_inverse(float(a), c, ks) for a, c in zip(own, curves, strict=True)]
    low, high = np.quantile(bootstrap, [0.025, 0.975], method="inverted_cdf")
    found: Row = {"smallest_k": float(ks[0]), "largest_k": float(ks[-1])}
    for (name, below), value in zip(_BOUNDS, (k, low, high), strict=True):
        found |= {name: float(value) if 0 < value < np.inf else None, below: bool(value == 0)}
    return found


def _inverse(accuracy: float, curve: Numbers, ks: Numbers) -> float:
    """The k at which the curve reaches `accuracy`: 0 when its first point is above, infinity when it never does.

    A dip in the curve is noise (more real data does not teach less), so its running maximum is used.
    """
    rising = np.maximum.accumulate(curve)
    return float(np.exp(np.interp(accuracy, rising, np.log(ks), left=-np.inf, right=np.inf)))


def equivalence_sentence(found: Row, kind: str = "real", of: str = "labelled examples per intent") -> str:
    """What `equivalent` found, for example "worth 2.0 [1.5–2.6] real labelled examples per intent"."""

    def shown(k: float | None, below: bool) -> str:
        if k is not None:
            return f"{k:.1f}"
        return f"fewer than {found['smallest_k']:g}" if below else f"more than {found['largest_k']:g}"

    k, low, high = (shown(found[name], found[below]) for name, below in _BOUNDS)
    interval = "" if k == low == high else f" [{low}–{high}]"
    return f"worth {k}{interval} {kind} {of}"
