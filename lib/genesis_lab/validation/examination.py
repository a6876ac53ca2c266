"""One student's examination: accuracy, k-shot curve, gain, learning curve, each with its uncertainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from genesis_lab.stats import Interval, paired, percentile_interval, proportion_interval
from genesis_lab.validation.equivalence import Equivalence, label_equivalence
from genesis_lab.validation.reference import Reference
from genesis_lab.validation.students import Student

Correct = NDArray[np.bool_]
Weights = NDArray[np.float32]

N_BOOT = 2000


@dataclass(frozen=True, slots=True)
class KShot:
    """Accuracy of the student trained on `k` real examples per intent; `is_all` marks the whole pool (mean k)."""

    k: float
    is_all: bool
    draws: int
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Gain:
    """What the synthetic set adds to `k` real examples per intent, on the same real items."""

    k: float
    is_all: bool
    real_only: float
    with_synthetic: float
    difference: Interval


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """Accuracy when only `records` synthetic records are used, and what they add to the point before."""

    records: int
    accuracy: Interval
    gain: Interval | None


@dataclass(frozen=True, slots=True)
class IntentRecall:
    """How often the real items of an intent are recognised; `taken_for` is what they are most often mistaken for."""

    intent: str
    recall: float
    low: float
    high: float
    n: int
    taken_for: str | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` real items of `intent`, of `n`, were taken for `taken_for`."""

    intent: str
    taken_for: str
    count: int
    n: int


@dataclass(frozen=True, slots=True)
class StudentCard:
    """One student's results. `correct` holds a ``1`` or ``0`` per reference item, for paired comparison.

    `floor` is what the same kind of classifier reaches with the label names alone, `above_floor` the paired difference to
    it; `beats_floor` is None where that difference can't be told. A dataset that is proven to be no better (worse, or the
    same within 5 points) is worth nothing to this student.
    """

    student: str
    title: str
    accuracy: Interval
    macro_f1: Interval
    intents: tuple[IntentRecall, ...]
    confusions: tuple[Confusion, ...]
    k_shots: tuple[KShot, ...]
    equivalence: Equivalence | None
    gains: tuple[Gain, ...]
    learning_curve: tuple[LearningPoint, ...]
    floor: Interval
    above_floor: Interval
    beats_floor: bool | None
    correct: str


@dataclass(frozen=True, slots=True)
class Shots:
    """`k` real examples per intent: for each draw, the rows of the pool. `is_all` marks the whole pool, with its mean k."""

    k: float
    is_all: bool
    draws: tuple[NDArray[np.int_], ...]


@dataclass(frozen=True)
class Exam:
    """What every student is given: the synthetic set in an order whose prefixes are balanced, and the real items.

    `weights[b, i]` is how often bootstrap replicate b holds test item i. `gain_draws` real draws of each size are
    also added to the synthetic set.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    reference: Reference
    pool: Reference | None
    shots: tuple[Shots, ...]
    gain_draws: int
    weights: Weights

    @property
    def truth(self) -> NDArray[np.str_]:
        return np.asarray(self.reference.labels)

    @property
    def sizes(self) -> list[int]:
        """Sizes for the learning curve: all records, halved up to six times, smallest first."""
        return sorted({max(1, len(self.texts) // 2**power) for power in range(7)})

    @property
    def trainings(self) -> int:
        """How many models one student trains."""
        return len(self.sizes) + sum(len(s.draws) + min(self.gain_draws, len(s.draws)) for s in self.shots)


def set_exam(
    texts: Sequence[str],
    labels: Sequence[str],
    reference: Reference,
    pool: Reference | None,
    *,
    k_shots: Sequence[int],
    draws: int,
    gain_draws: int,
    rng: np.random.Generator,
) -> Exam:
    """The exam of these synthetic texts; see `Exam`."""
    order = _balanced_order(labels, rng)
    n = len(reference)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=N_BOOT).astype(np.float32)
    return Exam(
        texts=tuple(texts[i] for i in order),
        labels=tuple(labels[i] for i in order),
        reference=reference,
        pool=pool,
        shots=_real_draws(np.asarray(pool.labels), k_shots, draws, rng) if pool else (),
        gain_draws=gain_draws,
        weights=weights,
    )


def examine(one: Student, exam: Exam, *, rng: np.random.Generator, tick: Callable[[str], None]) -> StudentCard:
    """Train the student on the synthetic set, on real examples, on both and on parts, and test it on the real items.

    Parameters
    ----------
    tick : called after each training with what was trained on; `Exam.trainings` calls in all.
    """
    truth, weights = exam.truth, exam.weights

    def answers(texts: Sequence[str], labels: Sequence[str], what: str) -> NDArray[np.str_]:
        given = one.train(texts, labels)(exam.reference.texts)
        tick(what)
        return given

    predicted = answers(exam.texts, exam.labels, f"{len(exam.texts):,} synthetic records")
    correct = predicted == truth
    real: dict[float, Correct] = {}
    k_shots, gains = [], []
    for shots in exam.shots:
        assert exam.pool is not None
        alone, both = [], []
        for number, rows in enumerate(shots.draws):
            texts, labels = [exam.pool.texts[i] for i in rows], [exam.pool.labels[i] for i in rows]
            what = f"{shots.k:.4g} real examples per intent"
            alone.append(answers(texts, labels, what) == truth)
            if number < exam.gain_draws:
                both.append(answers([*exam.texts, *texts], [*exam.labels, *labels], f"synthetic and {what}") == truth)
        real[shots.k] = np.array(alone)
        k_shots.append(KShot(shots.k, shots.is_all, len(alone), _accuracy(real[shots.k], weights, rng)))
        if both:
            gains.append(_gain(shots, real[shots.k][: len(both)], np.array(both), weights, rng))
    parts = [
        answers(exam.texts[:size], exam.labels[:size], f"{size:,} synthetic records") == truth
        for size in exam.sizes[:-1]
    ]
    accuracy = _accuracy(correct, weights)
    by_names = one.floor(exam.reference.intents, exam.reference.texts) == truth
    against_names = paired(correct, by_names)
    return StudentCard(
        student=one.name,
        title=one.title,
        accuracy=accuracy,
        macro_f1=_macro_f1(truth, predicted, weights),
        intents=_recalls(truth, predicted),
        confusions=_confusions(truth, predicted),
        k_shots=tuple(k_shots),
        equivalence=label_equivalence(correct, real, weights, rng) if real else None,
        gains=tuple(gains),
        learning_curve=_curve(exam.sizes, [*parts, correct], weights),
        floor=_accuracy(by_names, weights),
        above_floor=against_names.difference,
        beats_floor={"better": True, "better but small": True, "can't be told": None}.get(against_names.verdict, False),
        correct="".join("1" if c else "0" for c in correct),
    )


def _real_draws(
    labels: NDArray[np.str_], k_shots: Sequence[int], draws: int, rng: np.random.Generator
) -> tuple[Shots, ...]:
    """For each k, `draws` random draws of k rows per intent; then the whole pool.

    A k beyond the smallest intent of the pool is left out: the draw would not be k per intent.
    """
    rows_of = [np.flatnonzero(labels == intent) for intent in np.unique(labels)]
    smallest, everything = min(map(len, rows_of)), np.concatenate(rows_of)
    mean = len(everything) / len(rows_of)

    def draw(k: int) -> NDArray[np.int_]:
        return np.concatenate([rng.choice(rows, k, replace=False) for rows in rows_of])

    return (
        *(
            Shots(float(k), False, tuple(draw(k) for _ in range(draws)))
            for k in sorted(set(k_shots))
            if 1 <= k <= smallest and k < mean
        ),
        Shots(mean, True, (everything,)),
    )


def _curve(sizes: Sequence[int], answers: Sequence[Correct], weights: Weights) -> tuple[LearningPoint, ...]:
    steps = [None, *(paired(b, a).difference for a, b in pairwise(answers))]
    return tuple(
        LearningPoint(size, _accuracy(now, weights), step)
        for size, now, step in zip(sizes, answers, steps, strict=True)
    )


def _balanced_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """A random order whose every prefix holds about as many records of each label as it can."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for i in rng.permutation(len(labels)):
        ranked.append((seen[labels[i]], len(ranked), int(i)))
        seen[labels[i]] += 1
    return [i for _, _, i in sorted(ranked)]


def _accuracy(
    correct: Correct | Weights,
    weights: Weights,
    rng: np.random.Generator | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean accuracy (or difference) on `scale` with a bootstrap over items, and over draws where `correct` has one row per draw."""
    rows = np.atleast_2d(correct).astype(np.float32)
    replicates = weights @ rows.T / rows.shape[1]
    if rng is not None and len(rows) > 1:
        replicates = np.take_along_axis(replicates, rng.integers(len(rows), size=replicates.shape), axis=1)
    return percentile_interval(float(rows.mean()), replicates.mean(axis=1), rows.shape[1], scale=scale)


def _gain(shots: Shots, alone: Correct, both: Correct, weights: Weights, rng: np.random.Generator) -> Gain:
    difference = _accuracy(both.astype(np.float32) - alone, weights, rng, (-1.0, 1.0))
    return Gain(shots.k, shots.is_all, float(alone.mean()), float(both.mean()), difference)


def _macro_f1(truth: NDArray[np.str_], predicted: NDArray[np.str_], weights: Weights) -> Interval:
    """Mean F1 over the intents that occur among the items (or the resampled items)."""
    names = np.unique(truth)
    real = (truth[:, None] == names).astype(np.float32)
    said = (predicted[:, None] == names).astype(np.float32)

    def score(w: Weights) -> Weights:
        hits, in_truth, in_answers = w @ (real * said), w @ real, w @ said
        present = in_truth > 0
        f1 = 2 * hits / np.maximum(in_truth + in_answers, 1)
        return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1))

    estimate = score(np.ones((1, len(truth)), dtype=np.float32))[0]
    return percentile_interval(float(estimate), score(weights), len(truth))


def _confusions(truth: NDArray[np.str_], predicted: NDArray[np.str_], most: int = 20) -> tuple[Confusion, ...]:
    n_of = Counter(truth.tolist())
    pairs = Counter(zip(truth.tolist(), predicted.tolist(), strict=True))
    wrong = sorted(((count, pair) for pair, count in pairs.items() if pair[0] != pair[1]), key=lambda x: (-x[0], x[1]))
    return tuple(Confusion(a, b, count, n_of[a]) for count, (a, b) in wrong[:most])


def _recalls(truth: NDArray[np.str_], predicted: NDArray[np.str_]) -> tuple[IntentRecall, ...]:
    found = []
    for intent in np.unique(truth):
        answers = Counter(predicted[truth == intent].tolist())
        n, hits = answers.total(), answers.pop(str(intent), 0)
        low, high = proportion_interval(hits, n)
        found.append(
            IntentRecall(
                str(intent), hits / n, low, high, n, min(answers, key=lambda a: (-answers[a], a), default=None)
            )
        )
    return tuple(sorted(found, key=lambda r: (r.recall, r.intent)))
