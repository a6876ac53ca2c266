"""The dataset's worth: how well does a model trained only on it do on real data, and how much real data equals that?

Classifiers end in logistic regression. Measured on 5,005 openings of 77 intents: on sparse TF-IDF `saga` with a loose
tolerance is as accurate as a converged `lbfgs` in a fifth of the time; C from 5 to 30 moves accuracy by less than a point.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from genesis_lab.dataset.folder import Dataset, labelled
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.parallel import spread
from genesis_lab.stats import Interval, paired, percentile_interval
from genesis_lab.training.classifiers import build, fitted
from genesis_lab.training.config import Value
from genesis_lab.training.evaluation import Row, compared, share
from genesis_lab.training.examples import named
from genesis_lab.validation.embeddings import Embedder, embedder_for
from genesis_lab.validation.reference import Reference

OnProgress = Callable[[int, int, str], None]
Labels = NDArray[np.str_]
Correct = NDArray[np.bool_]
Weights = NDArray[np.float32]
Numbers = NDArray[np.floating]
Shots = list[tuple[float, bool, list[NDArray[np.int_]]]]
"""k real examples per label, whether they are the whole pool (with its mean k), and for each draw the rows of the pool."""
Lesson = tuple[Sequence[str], Sequence[str], str]
"""Texts, their labels, and what they are in words."""

K_SHOTS = (1, 2, 5, 10, 20)
CLASSIFIERS = ("tfidf", "embedding")
_SPARSE: Mapping[str, Value] = {"solver": "saga", "tol": 1e-2, "max_iter": 200}
_CANDIDATES: Mapping[str, tuple[str, str, Mapping[str, Value]]] = {
    "tfidf": ("TF-IDF words + characters, logistic regression", "tfidf+logistic_regression", _SPARSE),
    "tfidf_words": ("TF-IDF words, logistic regression", "tfidf_words+logistic_regression", _SPARSE),
    "embedding": ("{} embeddings, logistic regression", "embeddings+logistic_regression", {"max_iter": 500}),
}
"""Name in reports to title, candidate (see `classifiers.build`) and settings."""
_REPLICATES, _GAIN_DRAWS, _CONFUSIONS = 2000, 2, 20


def worth(
    dataset: Dataset,
    reference: Reference | None,
    *,
    pool: Reference | None = None,
    max_records: int = 20_000,
    rng: np.random.Generator | None = None,
    **options: Any,
) -> Row:
    """What a dataset is worth: `worth_of` its texts in the language of the `reference` (or in none), with their labels.

    Without real items to test on, the report says that it was not measured; those of the `pool` are trained on for k-shot
    curve, label equivalence and gain. At most `max_records` texts, drawn at random, are trained on; a note says so.
    """
    rng = rng or np.random.default_rng(0)
    if reference is None:
        return _report(None, not_measured={"scorecard": "no reference"})
    rows, language, notes = labelled(dataset), reference.language, []
    mine = rows[rows["language"].isna() | (rows["language"] == language)]
    if len(rows) and mine.empty:
        others = " or ".join(sorted(NAMES.get(code, code) for code in rows["language"].unique()))
        return _report(None, not_measured={"scorecard": f"no reference in {others}"})
    usable = mine[mine["text"].notna() & mine["label"].notna()]
    if len(usable) < len(mine):
        notes.append(f"{len(mine) - len(usable):,} records without an opening or an intent were left out.")
    for other, number in rows["language"].dropna().value_counts().items():
        if other != language:
            left = f"{number:,} records in {NAMES.get(str(other), other)} were left out"
            notes.append(f"{left}: the reference is in {NAMES.get(language, language)}.")
    if len(usable) > max_records:
        notes.append(f"Trained on {max_records:,} of {len(usable):,} openings, drawn at random.")
        usable = usable.iloc[np.sort(rng.choice(len(usable), max_records, replace=False))]
    texts, labels = usable["text"].tolist(), usable["label"].tolist()
    return worth_of(texts, labels, reference, pool=pool, rng=rng, notes=notes, **options)


def worth_of(
    texts: Sequence[str],
    labels: Sequence[str],
    reference: Reference,
    *,
    pool: Reference | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    embeddings: bool = True,
    k_shots: Sequence[int] = K_SHOTS,
    draws: int = 5,
    intents: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    rng: np.random.Generator | None = None,
    on_progress: OnProgress | None = None,
) -> Row:
    """What labelled texts are worth, JSON-safe; what could not be measured is in ``not_measured``, with why.

    `classifiers` are of ``tfidf``, ``tfidf_words``, ``embedding`` (not without `embeddings`); `k_shots` real examples per label
    make the k-shot curve, in so many random `draws`, and the whole pool its last point. Only `intents` are scored, where a
    dataset is meant to cover a part. `on_progress` is told the models trained, those there are, and what was just done.
    """
    rng, tell = rng or np.random.default_rng(0), on_progress or (lambda done, of, what: None)
    remarks, why_not = list(notes), dict[str, str]()
    if intents is not None:
        reference = reference.select(intents)
        remarks.append(f"Scored on {len(reference.intents)} chosen intents of {reference.name} only.")
    known = set(reference.intents)
    kept = [i for i, label in enumerate(labels) if label in known]
    if strangers := sorted(set(labels) - known):
        left = f"{len(labels) - len(kept):,} records of {len(strangers)} intents"
        remarks.append(f"{left} unknown to the reference were left out: {named(list(map(repr, strangers)), 3)}.")
    if missing := len(known.difference(labels)):
        remarks.append(
            f"{missing} of the reference's {len(known)} intents have no record: their items count as errors."
        )
    if not kept:
        language = NAMES.get(reference.language, reference.language)
        why = f"no record in {language} has an intent of {reference.name}"
        return _report(reference, notes=remarks, not_measured={"scorecard": why})
    order = _balanced_order([labels[i] for i in kept], rng)
    texts, labels = [texts[kept[i]] for i in order], [labels[kept[i]] for i in order]
    pool = (pool and pool.select(tuple(known))) or None
    if pool is None:
        why = "no real training data beside the test items"
        why_not |= dict.fromkeys(("k_shots", "equivalence", "gains"), why)
    embed = embedder_for({reference.language: 1}) if "embedding" in classifiers and embeddings else Embedder()
    if "embedding" in classifiers:
        given = [*reference.texts, *texts, *(pool.texts if pool else ())]
        try:
            if not embeddings:
                raise Unavailable("embeddings were switched off")
            embed(given, on_progress=lambda done, todo: tell(0, 0, f"embedded {done:,} of {todo:,} texts"))
        except (MissingDependency, Unavailable) as error:
            why_not["embedding"] = str(error)
            classifiers = [name for name in classifiers if name != "embedding"]
    n = len(reference)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_REPLICATES).astype(np.float32)
    shots = _real_draws(np.asarray(pool.labels), k_shots, draws, rng) if pool else []
    lessons = _lessons(texts, labels, pool, shots)
    steps, total = count(1), len(lessons) * len(classifiers)

    def step(what: str) -> None:
        tell(next(steps), total, what)

    students = []
    for name in classifiers:
        answers = _taught(name, embed, lessons, reference.texts, step)
        students.append(_examined(name, embed, answers, reference, shots, weights, rng))
    about = {"embedder": embed.name, "embedder_note": embed.note} if "embedding" in classifiers else {}
    return _report(reference, pool, students, why_not, records=len(texts), notes=remarks, **about)


def _lessons(texts: Sequence[str], labels: Sequence[str], pool: Reference | None, shots: Shots) -> dict[Any, Lesson]:
    """What each classifier is taught, by a number of synthetic texts; k and draw of real examples; k, draw and ``"both"``."""
    sizes = sorted({max(1, len(texts) // 2**power) for power in range(7)})
    lessons: dict[Any, Lesson] = {n: (texts[:n], labels[:n], f"{n:,} synthetic records") for n in sizes}
    for k, is_all, draws in shots:
        assert pool is not None
        what = "all real examples" if is_all else f"{k:g} real examples per intent"
        for draw, rows in enumerate(draws):
            given, taught = [pool.texts[i] for i in rows], [pool.labels[i] for i in rows]
            lessons[k, draw] = given, taught, what
            if draw < _GAIN_DRAWS:
                lessons[k, draw, "both"] = [*texts, *given], [*labels, *taught], f"synthetic and {what}"
    return lessons


def _taught(
    name: str, embed: Embedder, lessons: Mapping[Any, Lesson], items: Sequence[str], step: Callable[[str], None]
) -> dict[Any, Labels]:
    """What a classifier of that name answers to `items` after each lesson."""
    vectors: dict[str, Any] = {}
    if name == "embedding":
        every = list({*items, *(text for texts, *_ in lessons.values() for text in texts)})
        vectors = dict(zip(every, embed(every), strict=True))
    jobs = [(name, texts, labels, items, vectors) for texts, labels, _ in lessons.values()]
    found: dict[Any, Labels] = {}
    # Once for all threads: warnings go, and each does its own algebra, so that they don't wait for each other's
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
        answers = spread(learn_and_answer, jobs, "threads", os.cpu_count() or 1)
        for key, found[key] in zip(lessons, answers, strict=True):
            step(f"{name}: {lessons[key][2]}")
    return found


def learn_and_answer(
    name: str,
    texts: Sequence[str],
    labels: Sequence[str],
    items: Sequence[str],
    vectors: Mapping[str, Any] | None = None,
) -> Labels:
    """What a classifier of that name, taught these texts, answers to `items`; `vectors` saves embedding them once more."""
    if len(set(labels)) == 1:  # a single label needs no learning
        return np.full(len(items), labels[0])
    _, candidate, settings = _CANDIDATES[name]
    model, given, asked = build(candidate, settings, 0, min_df=1), texts, items
    if vectors:
        model, given, asked = model[-1], [vectors[text] for text in texts], [vectors[text] for text in items]
    return np.asarray(fitted(model, given, np.asarray(labels, dtype=str)).predict(asked), dtype=str)


def _examined(
    name: str,
    embed: Embedder,
    answers: Mapping[Any, Labels],
    reference: Reference,
    shots: Shots,
    weights: Weights,
    rng: np.random.Generator,
) -> Row:
    """One classifier's results on the real items, from its answers after each lesson; ``correct`` has a ``1`` or ``0`` per item.

    ``floor`` is what the same kind of classifier reaches with the label names alone. ``beats_floor`` is None where that can't
    be told; a dataset that is proven to be worse, or the same within 5 points, is worth nothing to it.
    """
    truth = np.asarray(reference.labels)
    right = {key: said == truth for key, said in answers.items()}
    *_, whole = sizes = [key for key in answers if isinstance(key, int)]
    correct, real, k_shots, gains = right[whole], dict[float, Correct](), list[Row](), list[Row]()
    for k, is_all, draws in shots:
        alone = real[k] = np.array([right[k, draw] for draw in range(len(draws))])
        accuracy = share(alone[0]) if len(alone) == 1 else _mean(alone, weights, rng)
        k_shots.append({"k": k, "is_all": is_all, "draws": len(alone), "accuracy": accuracy.to_dict()})
        if both := [right[key] for draw in range(len(draws)) if (key := (k, draw, "both")) in right]:
            only, added = alone[: len(both)], np.array(both)
            difference = _mean(added.astype(np.float32) - only, weights, rng, (-1.0, 1.0)).to_dict()
            means = {"real_only": float(only.mean()), "with_synthetic": float(added.mean())}
            gains.append({"k": k, "is_all": is_all, **means, "difference": difference})
    found, n_of = compared(truth, answers[whole]), Counter(reference.labels)
    readable = [label.replace("_", " ").strip("? ") for label in reference.intents]
    if name == "embedding":  # the nearest name
        near = (embed(reference.texts) @ embed(readable).T).argmax(axis=1)
        by_names = np.asarray(reference.intents, dtype=str)[near] == truth
    else:
        by_names = learn_and_answer(name, readable, reference.intents, reference.texts) == truth
    against_names = paired(correct, by_names)
    told = {"better": True, "better but small": True, "can't be told": None}
    return {
        "student": name,
        "title": _CANDIDATES[name][0].format(embed.name),
        "accuracy": found["accuracy"],
        "macro_f1": found["macro_f1"],
        "labels": [
            {"label": row["label"], "recall": row["recall"]["estimate"]}
            | {end: row["recall"][end] for end in ("low", "high", "n")}
            for row in found["per_label"]
        ],
        "confusions": [
            {"label": row["label"], "taken_for": row["predicted"], "count": row["count"], "n": n_of[row["label"]]}
            for row in found["confusions"][:_CONFUSIONS]
        ],
        "k_shots": k_shots,
        "equivalence": label_equivalence(correct, real, weights, rng) if real else None,
        "gains": gains,
        "learning_curve": [
            # What the last records gave, item by item: by it the page says whether more would pay
            {
                "records": size,
                "accuracy": share(right[size]).to_dict(),
                "gain": paired(right[size], right[before]).difference.to_dict() if before else None,
            }
            for before, size in zip([0, *sizes], sizes, strict=False)
        ],
        "floor": share(by_names).to_dict(),
        "above_floor": against_names.difference.to_dict(),
        "beats_floor": told.get(against_names.verdict, False),
        "correct": "".join("1" if one else "0" for one in correct),
    }


def _report(
    reference: Reference | None,
    pool: Reference | None = None,
    students: Sequence[Row] = (),
    not_measured: Mapping[str, str] | None = None,
    **more: Any,
) -> Row:
    """The whole, with its sentences. `records` counts the texts trained on."""
    why_not, worth = dict(not_measured or {}), dict[str, str]()
    for one in students:
        if one["beats_floor"] is False:
            worth[one["student"]] = "worth nothing"
        elif one["equivalence"]:
            worth[one["student"]] = equivalence_sentence(one["equivalence"], reference.kind if reference else "real")
    verdict = f"not measured: {why_not.get('scorecard', 'no classifier could be trained')}"
    if students:
        best = max(students, key=lambda one: one["accuracy"]["estimate"])
        accuracy, floor, title = Interval(**best["accuracy"]), Interval(**best["floor"]), best["title"]
        equal = f": {worth[best['student']]}" if best["student"] in worth else ""
        verdict = f"Accuracy {accuracy} on {reference} with {title}{equal}."
        if best["beats_floor"] is None:
            verdict += f" Whether that is more than its label names alone ({floor}) can't be told."
        elif not best["beats_floor"]:
            reached = f"the best classifier, {title}, reaches {accuracy}"
            verdict = f"Worth nothing: on {reference} {reached}, and with the label names alone {floor}."
    return {
        "reference": reference and reference.to_dict(),
        "pool": pool and pool.to_dict(),
        "students": list(students),
        "not_measured": why_not,
        "verdict": verdict,
        "worth": worth,
    } | {"embedder": None, "embedder_note": None, "records": 0, "notes": [], **more}


_BOUNDS = (("k", "below"), ("low", "low_below"), ("high", "high_below"))


def label_equivalence(
    synthetic: Correct, real: Mapping[float, Correct], weights: Weights, rng: np.random.Generator
) -> Row:
    """How many real examples per label give the same accuracy: the k-shot curve, interpolated linearly on log k.

    Outside the k that were tried ``k``, ``low`` and ``high`` are None, and ``below`` … say on which side. Percentile bootstrap
    over draws and items, of which `weights` (replicates, items) say how often each holds each item; `synthetic` (items,) and,
    for each k, `real` (draws, items) are whether an item is answered correctly.
    """
    ks = np.array(sorted(real))
    curves = np.array([_replicates(real[k], weights, rng) for k in ks]).T
    own = weights @ synthetic.astype(np.float32) / len(synthetic)
    return equivalent(float(synthetic.mean()), np.array([real[k].mean() for k in ks]), own, curves, ks)


def equivalent(reached: float, curve: Numbers, own: Numbers, curves: Numbers, ks: Numbers) -> Row:
    """Where the `curve` over `ks` has what synthetic data has `reached`, higher being better, see `label_equivalence`; `own`, of
    shape (replicates,), and `curves`, (replicates, ks), are the same in a bootstrap."""
    k = _inverse(reached, curve, ks)
    bootstrap = [_inverse(float(a), c, ks) for a, c in zip(own, curves, strict=True)]
    low, high = np.quantile(bootstrap, [0.025, 0.975], method="inverted_cdf")
    found: Row = {"smallest_k": float(ks[0]), "largest_k": float(ks[-1])}
    for (name, below), value in zip(_BOUNDS, (k, low, high), strict=True):
        found |= {name: float(value) if 0 < value < np.inf else None, below: bool(value == 0)}
    return found


def _inverse(accuracy: float, curve: NDArray[np.floating], ks: NDArray[np.floating]) -> float:
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


def _real_draws(labels: Labels, k_shots: Sequence[int], draws: int, rng: np.random.Generator) -> Shots:
    """For each k, `draws` random draws of k rows per label; then the whole pool.

    A k beyond the smallest label of the pool is left out: the draw would not be k per label.
    """
    rows_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    smallest, everything = min(map(len, rows_of)), np.concatenate(rows_of)
    mean = len(everything) / len(rows_of)

    def draw(k: int) -> NDArray[np.int_]:
        return np.concatenate([rng.choice(rows, k, replace=False) for rows in rows_of])

    ks = [k for k in sorted(set(k_shots)) if 1 <= k <= smallest and k < mean]
    return [*((float(k), False, [draw(k) for _ in range(draws)]) for k in ks), (mean, True, [everything])]


def _balanced_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """A random order whose every prefix holds about as many records of each label as it can."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for i in rng.permutation(len(labels)):
        ranked.append((seen[labels[i]], len(ranked), int(i)))
        seen[labels[i]] += 1
    return [i for _, _, i in sorted(ranked)]


def _mean(
    rows: Correct | Weights, weights: Weights, rng: np.random.Generator, scale: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Mean of `rows` (draws, items) on `scale` with a bootstrap over items and draws."""
    return percentile_interval(float(rows.mean()), _replicates(rows, weights, rng), rows.shape[1], scale=scale)


def _replicates(rows: Correct | Weights, weights: Weights, rng: np.random.Generator) -> NDArray[np.floating]:
    """The mean of `rows` (draws, items) in each bootstrap replicate of items and draws."""
    per_draw = weights @ rows.astype(np.float32).T
    chosen = rng.integers(len(rows), size=per_draw.shape)
    return np.asarray(np.take_along_axis(per_draw, chosen, axis=1).mean(axis=1) / rows.shape[1])
