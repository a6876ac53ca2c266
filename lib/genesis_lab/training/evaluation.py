"""What a classifier got right: per language and intent, with intervals, confusions and calibration."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.stats import Interval, percentile_interval, proportion_interval

if TYPE_CHECKING:
    import pandas as pd

Strings = NDArray[Any]

BINS = 10
_REPLICATES = 1000


@dataclass(frozen=True, slots=True)
class IntentResult:
    """One intent: how many of its records were found, and how many of its predictions were right."""

    intent: str
    recall: Interval
    precision: float | None
    """None when the intent was never predicted."""
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` records of `intent` were taken for `predicted`."""

    intent: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions whose probability lies in [low, high): their mean probability, and how many were right."""

    low: float
    high: float
    confidence: float
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A classifier's results on one set of records."""

    name: str
    accuracy: Interval
    macro_f1: Interval
    per_language: dict[str, Interval]
    per_intent: tuple[IntentResult, ...]
    """From the lowest recall to the highest."""
    confusions: tuple[Confusion, ...]
    """The most frequent first; every pair that occurred."""
    ece: float
    """Expected calibration error in [0, 1] (Guo et al. 2017, section 2), over ten bins of equal width."""
    reliability: tuple[ReliabilityBin, ...]

    @property
    def n(self) -> int:
        """Records tested."""
        return self.accuracy.n

    def confusion_matrix(self) -> pd.DataFrame:
        """Counts with the true intents as rows and the predicted ones as columns."""
        import pandas as pd

        missed = Counter({(c.intent, c.predicted): c.count for c in self.confusions})
        names = sorted({result.intent for result in self.per_intent} | {c.predicted for c in self.confusions})
        table = pd.DataFrame(0, index=names, columns=names)
        for result in self.per_intent:
            table.loc[result.intent, result.intent] = round(result.recall.estimate * result.recall.n)
        for (intent, predicted), count in missed.items():
            table.loc[intent, predicted] = count
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)


def evaluate(
    name: str, labels: Strings, predicted: Strings, confidence: NDArray[Any], languages: Strings, *, seed: int
) -> Evaluation:
    """Results of `predicted` intents, given with their probability, against `labels`.

    Accuracies carry Wilson intervals, macro-F1 a percentile bootstrap over records.

    Parameters
    ----------
    labels, predicted, languages : strings, shape ``(n,)``, n ≥ 1.
    confidence : probability of the predicted intent, shape ``(n,)``.
    """
    right = labels == predicted
    names, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    true, guess = codes[: len(labels)], codes[len(labels) :]
    size = len(names)
    present = np.flatnonzero(np.bincount(true, minlength=size))
    f1 = _f1(true, guess, size)
    rng = np.random.default_rng(seed)
    replicates = []
    for _ in range(_REPLICATES):
        rows = rng.integers(len(true), size=len(true))
        there = np.bincount(true[rows], minlength=size) > 0
        replicates.append(_f1(true[rows], guess[rows], size)[there].mean())
    said = np.bincount(guess, minlength=size)
    hits = np.bincount(true[right], minlength=size)
    per_intent = [
        IntentResult(
            intent=str(names[code]),
            recall=share(right[true == code]),
            precision=float(hits[code] / said[code]) if said[code] else None,
            f1=float(f1[code]),
        )
        for code in present
    ]
    missed = Counter(zip(labels[~right].tolist(), predicted[~right].tolist(), strict=True))
    bins = _reliability(confidence, right)
    return Evaluation(
        name=name,
        accuracy=share(right),
        macro_f1=percentile_interval(float(f1[present].mean()), replicates, len(labels)),
        per_language={str(language): share(right[languages == language]) for language in np.unique(languages)},
        per_intent=tuple(sorted(per_intent, key=lambda result: (result.recall.estimate, result.intent))),
        confusions=tuple(
            Confusion(*pair, count) for pair, count in sorted(missed.items(), key=lambda i: (-i[1], i[0]))
        ),
        ece=sum(b.accuracy.n * abs(b.accuracy.estimate - b.confidence) for b in bins) / len(labels),
        reliability=bins,
    )


def share(right: NDArray[np.bool_]) -> Interval:
    """Share of records that are right, with its Wilson interval."""
    hits, n = int(right.sum()), len(right)
    return Interval(hits / n, *proportion_interval(hits, n), n)


def _f1(true: NDArray[Any], guess: NDArray[Any], size: int) -> NDArray[np.float64]:
    hits = np.bincount(true[true == guess], minlength=size)
    either = np.bincount(true, minlength=size) + np.bincount(guess, minlength=size)
    return np.asarray(2 * hits / np.maximum(either, 1))


def _reliability(confidence: NDArray[Any], right: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    number = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    return tuple(
        ReliabilityBin(
            low=code / BINS,
            high=(code + 1) / BINS,
            confidence=float(confidence[number == code].mean()),
            accuracy=share(right[number == code]),
        )
        for code in np.unique(number).tolist()
    )
