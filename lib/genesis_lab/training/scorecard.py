"""What a dataset is worth: how well does a model taught only by it do on real data, and how much real data equals that?

Classifiers end in logistic regression. Measured on 5,005 openings of 77 intents: on sparse TF-IDF `saga` with a loose
tolerance is as accurate as a converged `lbfgs` in a fifth of the time; C from 5 to 30 moves accuracy by under a point.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from genesis_lab.dataset import Dataset, remembered
from genesis_lab.dataset.sources import real_records
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.parallel import spread
from genesis_lab.stats import CANT_TELL, Interval, paired, percentile_interval
from genesis_lab.training import forecasts
from genesis_lab.training.classifiers import build, fitted
from genesis_lab.training.config import Value
from genesis_lab.training.evaluation import Row, compared, equivalence_sentence, equivalent, share
from genesis_lab.training.examples import Examples, balanced_order, named, read_examples
from genesis_lab.validation.embeddings import Embedder, embedder_for
from genesis_lab.validation.reference import HUB_NAME, Reference, for_worth, load_reference

OnProgress = Callable[[int, int, str], None]
"""Told the models trained, those there are, and what was just done."""
Labels = NDArray[np.str_]
Correct = NDArray[np.bool_]
Weights = NDArray[np.float32]
"""How often each bootstrap replicate holds each item, shape (replicates, items)."""
Vectors = Mapping[str, NDArray[np.float32]]
"""Texts to their embeddings; empty for a classifier that reads TF-IDF."""
Shots = dict[float, list[NDArray[np.int_]]]
"""k real examples per label to the rows of the pool in each random draw; last the whole pool, with its mean k."""
Lesson = tuple[Sequence[str], Sequence[str], str]
"""Texts, their labels, and what they are in words."""

K_SHOTS = (1, 2, 5, 10, 20)
_SPARSE: Mapping[str, Value] = {"solver": "saga", "tol": 1e-2, "max_iter": 200}
_REPLICATES, _GAIN_DRAWS, _CONFUSIONS = 2000, 2, 20


def real_data(dataset: Dataset, reference: str) -> Any:
    """The labelled texts or series that the name of a reference means for such records; None where there is nothing."""
    domain = get_domain(dataset.domain)
    if domain.facets.worth == "forecast":  # of which no reference can be fetched
        return real_records(reference, domain) if reference not in ("", "none", HUB_NAME) else None
    return load_reference(reference) if reference != "none" else None


def scorecard(
    dataset: Dataset,
    *,
    reference: str = "banking77",
    taxonomy: str = "banking77",
    seed: int = 0,
    embeddings: bool = True,
    max_records: int = 20_000,
    on_progress: OnProgress | None = None,
) -> Row:
    """A dataset's worth by the learner that its facets name; made once with the same settings, and kept with it."""
    if get_domain(dataset.domain).facets.worth == "forecast":
        real = real_data(dataset, reference)
        make = partial(forecasts.scorecard, dataset, real, seed=seed, on_progress=on_progress)
        return remembered(dataset, "scorecard", {"reference": real and real.digest, "seed": seed}, make)
    items, pool = for_worth(reference) if reference != "none" else (None, None)
    whose: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain, taxonomy=taxonomy)
    labels = whose.taxonomy.names
    options: Row = {"embeddings": embeddings, "max_records": max_records}
    options["intents"] = labels if items and len(labels) < len(items.intents) else None
    settings = {"reference": [r and r.digest for r in (items, pool)], "seed": seed, **options}
    rng = np.random.default_rng(seed)
    make = partial(worth, dataset, items, pool=pool, rng=rng, on_progress=on_progress, **options)
    return remembered(dataset, "scorecard", settings, make)


def worth(
    source: Dataset | Examples,
    reference: Reference | None,
    *,
    pool: Reference | None = None,
    embeddings: bool = True,
    k_shots: Sequence[int] = K_SHOTS,
    draws: int = 5,
    intents: Sequence[str] | None = None,
    max_records: int = 20_000,
    rng: np.random.Generator | None = None,
    on_progress: OnProgress | None = None,
) -> Row:
    """What labelled texts in the language of the `reference` (or in none) are worth, JSON-safe.

    What could not be measured is in ``not_measured``, with why. `k_shots` real examples per label, from the `pool`,
    make the k-shot curve, in so many random `draws`, and the whole pool its last point. Only `intents` are scored,
    where a dataset is meant to cover a part. At most `max_records` texts, drawn at random, are trained on; a note says
    so.
    """
    rng, tell = rng or np.random.default_rng(0), on_progress or (lambda done, of, what: None)
    if reference is None:
        return _report(None, not_measured={"scorecard": "no reference"})
    notes = list[str]()
    if intents is not None:
        reference = reference.select(intents)
        notes.append(f"Scored on {len(reference.intents)} chosen intents of {reference.name} only.")
    try:
        texts, labels = _known(source, reference, max_records, notes, rng)
    except Unavailable as error:
        return _report(reference, notes=notes, not_measured={"scorecard": str(error)})
    why_not = dict[str, str]()
    pool = (pool and pool.select(reference.intents)) or None
    if pool is None:
        why = "no real training data beside the test items"
        why_not |= dict.fromkeys(("k_shots", "equivalence", "gains"), why)
    embed, titles = embedder_for({reference.language: 1}), {"tfidf": "TF-IDF words + characters, logistic regression"}
    vectors: Vectors = {}
    every = [*reference.texts, *texts, *(pool.texts if pool else ()), *map(_readable, reference.intents)]
    try:
        if not embeddings:
            raise Unavailable("embeddings were switched off")
        made = embed(every, on_progress=lambda done, todo: tell(0, 0, f"embedded {done:,} of {todo:,} texts"))
        vectors = dict(zip(every, made, strict=True))
        titles["embedding"] = f"{embed.name} embeddings, logistic regression"
    except (MissingDependency, Unavailable) as error:
        why_not["embedding"] = str(error)
    n = len(reference)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_REPLICATES).astype(np.float32)
    shots = _real_draws(np.asarray(pool.labels), k_shots, draws, rng) if pool else {}
    lessons = _lessons(texts, labels, pool, shots)
    steps, total, students = count(1), len(lessons) * len(titles), list[Row]()
    for name, title in titles.items():
        known = vectors if name == "embedding" else {}

        def step(what: str, name: str = name) -> None:
            tell(next(steps), total, f"{name}: {what}")

        answers = _taught(lessons, reference.texts, known, step)
        students.append({"student": name, "title": title} | _examined(answers, reference, shots, known, weights, rng))
    return _report(
        reference, pool, students, why_not, records=len(texts), notes=notes, embed=embed if vectors else None
    )


def _known(
    source: Dataset | Examples, reference: Reference, max_records: int, notes: list[str], rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """At most `max_records` texts with their labels, in the language of the reference or in none, in a balanced order.

    `notes` get what was left out; `Unavailable` where the reference knows nothing of it.
    """
    examples, said = read_examples(source)
    language = NAMES.get(reference.language, reference.language)
    mine = np.isin(examples.languages, [reference.language, "unknown"])
    others = Counter(NAMES.get(other, other) for other in examples.languages[~mine].tolist())
    notes += said + [
        f"{n:,} records in {other} were left out: the reference is in {language}." for other, n in others.items()
    ]
    if others and not mine.any():
        raise Unavailable(f"no reference in {' or '.join(sorted(others))}")
    kept = np.flatnonzero(mine)
    if len(kept) > max_records:
        notes.append(f"Trained on {max_records:,} of {len(kept):,} openings, drawn at random.")
        kept = np.sort(rng.choice(kept, max_records, replace=False))
    labels, known = examples.labels[kept], set(reference.intents)
    is_known = np.isin(labels, reference.intents)
    if strangers := sorted(set(labels.tolist()) - known):
        left = f"{(~is_known).sum():,} records of {len(strangers)} intents"
        notes.append(f"{left} unknown to the reference were left out: {named(list(map(repr, strangers)), 3)}.")
    if missing := len(known.difference(labels.tolist())):
        notes.append(f"{missing} of the reference's {len(known)} intents have no record: their items count as errors.")
    if not is_known.any():
        raise Unavailable(f"no record in {language} has an intent of {reference.name}")
    kept = kept[is_known][balanced_order(labels[is_known].tolist(), rng)]
    return examples.texts[kept].tolist(), examples.labels[kept].tolist()


def _lessons(texts: Sequence[str], labels: Sequence[str], pool: Reference | None, shots: Shots) -> dict[Any, Lesson]:
    """What a classifier is taught, by: number of synthetic texts; k and draw of real ones; k, draw and ``"both"``."""
    sizes = sorted({max(1, len(texts) // 2**power) for power in range(7)})
    lessons: dict[Any, Lesson] = {n: (texts[:n], labels[:n], f"{n:,} synthetic records") for n in sizes}
    for k, draws in shots.items():
        assert pool is not None
        what = f"{k:g} real examples per intent"
        for draw, rows in enumerate(draws):
            given, taught = [pool.texts[i] for i in rows], [pool.labels[i] for i in rows]
            lessons[k, draw] = given, taught, what
            if draw < _GAIN_DRAWS:
                lessons[k, draw, "both"] = [*texts, *given], [*labels, *taught], f"synthetic and {what}"
    return lessons


def _taught(
    lessons: Mapping[Any, Lesson], items: Sequence[str], vectors: Vectors, step: Callable[[str], None]
) -> dict[Any, Labels]:
    """What a classifier answers to `items` after each lesson."""
    jobs = [(texts, labels, items, vectors) for texts, labels, _ in lessons.values()]
    found: dict[Any, Labels] = {}
    # Once for all threads: warnings go, and each does its own algebra, so that they don't wait for each other's
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
        answers = spread(learn_and_answer, jobs, "threads", os.cpu_count() or 1)
        for key, found[key] in zip(lessons, answers, strict=True):
            step(lessons[key][2])
    return found


def learn_and_answer(
    texts: Sequence[str], labels: Sequence[str], items: Sequence[str], vectors: Vectors | None = None
) -> Labels:
    """What a classifier that learned these texts answers to `items`; by `vectors` if there are any, else TF-IDF."""
    if len(set(labels)) == 1:  # a single label needs no learning
        return np.full(len(items), labels[0])
    model, given, asked = build("tfidf+logistic_regression", _SPARSE, 0, min_df=1), list[Any](texts), list[Any](items)
    if vectors:
        model = build("embeddings+logistic_regression", {"max_iter": 500}, 0)[-1]
        given, asked = [vectors[text] for text in texts], [vectors[text] for text in items]
    return np.asarray(fitted(model, given, np.asarray(labels, dtype=str)).predict(asked), dtype=str)


def _examined(
    answers: Mapping[Any, Labels],
    reference: Reference,
    shots: Shots,
    vectors: Vectors,
    weights: Weights,
    rng: np.random.Generator,
) -> Row:
    """One classifier's results on the real items, from its answers after each lesson.

    ``correct`` has a ``1`` or ``0`` per item. ``floor`` is what the same kind of classifier reaches with the label
    names alone. ``beats_floor`` is None where that can't be told; a dataset that is proven to be worse, or the same
    within 5 points, is worth nothing to it.
    """
    truth = np.asarray(reference.labels)
    right = {key: said == truth for key, said in answers.items()}
    *_, whole = sizes = [key for key in answers if isinstance(key, int)]
    correct, k_shots, gains = right[whole], list[Row](), list[Row]()
    real = {k: np.array([right[k, draw] for draw in range(len(draws))]) for k, draws in shots.items()}
    for k, alone in real.items():
        accuracy = share(alone[0]) if len(alone) == 1 else _mean(alone, weights, rng)
        k_shots.append({"k": k, "accuracy": accuracy.to_dict()})
        added = np.array([right[k, draw, "both"] for draw in range(min(len(alone), _GAIN_DRAWS))])
        only = alone[: len(added)]
        difference = _mean(added.astype(np.float32) - only, weights, rng, (-1.0, 1.0)).to_dict()
        means = {"real_only": float(only.mean()), "with_synthetic": float(added.mean())}
        gains.append({"k": k, **means, "difference": difference})
    found, n_of = compared(truth, answers[whole]), Counter(reference.labels)
    names = [_readable(label) for label in reference.intents]
    if vectors:  # the nearest name
        asked, told = (np.stack([vectors[text] for text in texts]) for texts in (reference.texts, names))
        by_names = np.asarray(reference.intents, dtype=str)[(asked @ told.T).argmax(axis=1)] == truth
    else:
        by_names = learn_and_answer(names, reference.intents, reference.texts) == truth
    against_names = paired(correct, by_names)
    return {
        "accuracy": found["accuracy"],
        "macro_f1": found["macro_f1"],
        "labels": [
            row["recall"] | {"label": row["label"], "recall": row["recall"]["estimate"]} for row in found["per_label"]
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
        "beats_floor": {"better": True, "better but small": True, CANT_TELL: None}.get(against_names.verdict, False),
        "correct": "".join("1" if one else "0" for one in correct),
    }


def _report(
    reference: Reference | None,
    pool: Reference | None = None,
    students: Sequence[Row] = (),
    not_measured: Mapping[str, str] | None = None,
    *,
    records: int = 0,
    notes: Sequence[str] = (),
    embed: Embedder | None = None,
) -> Row:
    """The whole, with its sentences. `records` counts the texts trained on."""
    why_not, worth = dict(not_measured or {}), dict[str, str]()
    for one in students:
        if one["beats_floor"] is False:
            worth[one["student"]] = "worth nothing"
        elif one["equivalence"]:
            worth[one["student"]] = equivalence_sentence(one["equivalence"], reference.kind if reference else "real")
    verdict = f"not measured: {why_not.get('scorecard')}"
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
        "embedder": embed and embed.name,
        "embedder_note": embed and embed.note,
        "records": records,
        "notes": list(notes),
    }


def label_equivalence(
    synthetic: Correct, real: Mapping[float, Correct], weights: Weights, rng: np.random.Generator
) -> Row:
    """How many real examples per label give the same accuracy, see `equivalent`; a bootstrap over draws and items.

    `synthetic` (items,) and, for each k, `real` (draws, items) are whether an item is answered correctly.
    """
    ks = np.array(sorted(real))
    curves = np.array([_replicates(real[k], weights, rng) for k in ks]).T
    own = weights @ synthetic.astype(np.float32) / len(synthetic)
    return equivalent(float(synthetic.mean()), np.array([real[k].mean() for k in ks]), own, curves, ks)


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
    return {float(k): [draw(k) for _ in range(draws)] for k in ks} | {mean: [everything]}


def _readable(label: str) -> str:
    return label.replace("_", " ").strip("? ")


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
