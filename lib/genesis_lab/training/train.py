"""Train intent classifiers: choose among candidates, measure on held-out records, learn the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.errors import InvalidInput
from genesis_lab.stats import Interval, Paired, proportion_interval
from genesis_lab.training.classifiers import build, calibrated, calibration_method
from genesis_lab.training.config import TrainConfig, Value, train_config
from genesis_lab.training.evaluation import Evaluation, evaluate
from genesis_lab.training.examples import (
    Examples,
    Source,
    check_learnable,
    hold_out,
    make_examples,
    make_folds,
    named,
    quiet,
    read_examples,
    subset,
)
from genesis_lab.training.saving import IntentModel, ModelCard, installed_versions
from genesis_lab.training.search import Trial, search

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps there are."""

CALIBRATION_FOLDS = 3


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """How one candidate did where candidates are compared; the test split has no part in it."""

    candidate: str
    params: dict[str, Value]
    measured_on: str
    """``validation`` or ``search folds``."""
    score: float
    interval: Interval | None
    """None for macro-F1 over search folds."""
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """Accuracy of the chosen candidate when it learns from `records` of the training records."""

    records: int
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Continued:
    """How a model learned a further dataset, and what that did on the new dataset's test records."""

    how: str
    before: Interval
    after: Interval
    compared: Paired
    """After less before on the same records; near-duplicates count once."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What was trained, on what, and how good it is. `to_dict` leaves `model` and `timings_s` out."""

    sources: tuple[Source, ...]
    config: TrainConfig
    chosen: str
    params: dict[str, Value]
    n_train: int
    n_test: int
    intents: int
    evaluation: Evaluation
    candidates: tuple[CandidateResult, ...]
    """Best first; empty when there was nothing to choose."""
    fold_accuracy: tuple[float, ...]
    """Per fold, in cross-validation only."""
    learning_curve: tuple[LearningPoint, ...]
    reference: Evaluation | None
    messages: tuple[str, ...]
    not_measured: dict[str, str]
    continued: Continued | None = None
    timings_s: dict[str, float] = field(default_factory=dict, compare=False)
    model: IntentModel = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # set by train

    def metrics(self) -> dict[str, float]:
        """The headline figures, flat."""
        found = {
            "accuracy": self.evaluation.accuracy.estimate,
            "macro_f1": self.evaluation.macro_f1.estimate,
            "ece": self.evaluation.ece,
        }
        if self.reference:
            found |= {
                "reference_accuracy": self.reference.accuracy.estimate,
                "reference_macro_f1": self.reference.macro_f1.estimate,
                "reference_ece": self.reference.ece,
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields, the same for the same data and settings."""
        left_out = ("model", "config", "timings_s")
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        return {"config": self.config.model_dump(mode="json")} | {name: _json(value) for name, value in rest.items()}


@dataclass(frozen=True, slots=True)
class _Choice:
    candidate: str
    params: dict[str, Value]
    results: tuple[CandidateResult, ...]


def train(
    source: Any,
    config: TrainConfig | None = None,
    *,
    groups: Sequence[int] | None = None,
    reference: Any = None,
    on_progress: Progress | None = None,
) -> TrainingReport:
    """Train on a dataset and report on records that the model never saw.

    Parameters
    ----------
    source : a dataset of conversations (`genesis_lab.dataset.Dataset`), or `Examples`.
    config : settings, by default the preset ``fast``.
    groups : near-duplicate cluster of each record, which no division separates; by default equal wording.
    reference : real labelled texts (``.texts``, ``.labels``, ``.language``, ``.name``) to test the model on as well.

    Raises
    ------
    InvalidInput : there is nothing to learn, or a setting does not exist.
    MissingDependency : a candidate needs a package that is not installed.
    """
    config = config or train_config()
    started = perf_counter()
    steps = _Steps(config, on_progress)
    messages: list[str] = []
    if isinstance(source, Examples):
        if groups is not None:
            raise InvalidInput("groups belong into the examples (make_examples), not beside them.")
        examples = source
    else:
        examples, messages = read_examples(source, groups=groups)
    examples, more = check_learnable(examples, drop_rare=config.drop_rare)
    messages += more
    if config.max_records and config.max_records < len(examples):
        messages.append(f"{config.max_records} of {len(examples)} records were used (max_records).")
        examples, more = check_learnable(subset(examples, config.max_records, config.seed), drop_rare=config.drop_rare)
        messages += more

    fold_accuracy: tuple[float, ...] = ()
    if config.evaluation == "cross_validation":
        rest = examples
        if len(set(examples.split)) > 1:
            messages.append("The dataset's own splits are not used: cross-validation tests every record once.")
        evaluation, fold_accuracy, curve_sets = _cross_validate(examples, config, messages, steps)
    else:
        rest, test = divide(examples, config, messages)
        curve_sets = (rest, test)
    choice = _choose(rest, config, messages, steps)
    estimator = _fit(choice, rest, config)
    steps.step()
    if config.evaluation == "holdout":
        evaluation = evaluate_model(estimator, test, "test", config.seed)
    curve = _learning_curve(choice, *curve_sets, config, messages, steps)
    measured, not_measured = on_reference(estimator, reference, config, messages)
    report = TrainingReport(
        sources=examples.sources,
        config=config,
        chosen=choice.candidate,
        params=choice.params,
        n_train=len(rest),
        n_test=evaluation.n,
        intents=len(estimator.classes_),
        evaluation=evaluation,
        candidates=choice.results,
        fold_accuracy=fold_accuracy,
        learning_curve=curve,
        reference=measured,
        messages=tuple(dict.fromkeys(messages)),
        not_measured=not_measured,
        timings_s={"total": perf_counter() - started},
    )
    return with_model(report, estimator)


def with_model(report: TrainingReport, estimator: Any) -> TrainingReport:
    """`report` with its model, whose card tells what the report tells."""
    embedder = None
    if report.chosen.startswith("embeddings+"):
        from genesis_lab.validation.embeddings import embedder_name

        embedder = embedder_name()
    card = ModelCard(
        candidate=report.chosen,
        params=report.params,
        labels=[str(label) for label in estimator.classes_],
        sources=list(report.sources),
        embedder=embedder,
        seed=report.config.seed,
        metrics=report.metrics(),
        versions=installed_versions(),
    )
    return replace(report, model=IntentModel(estimator, card))


def divide(examples: Examples, config: TrainConfig, messages: list[str]) -> tuple[Examples, Examples]:
    """Training and test records: the dataset's own test split where it has one, else ``test_share`` held out."""
    own = examples.split == "test"
    if own.any() and not own.all():
        leaked = ~own & np.isin(examples.groups, examples.groups[own])
        if leaked.any():
            messages.append(f"{int(leaked.sum())} training records repeat a test record and were left out.")
        rest, test = examples.take(~own & ~leaked), examples.take(own)
        unknown = sorted(set(test.labels.tolist()) - set(rest.labels.tolist()))
        if unknown:
            messages.append(f"In the test split but not in training, so never right: {named(unknown)}.")
        return rest, test
    kept, held, more = hold_out(examples, config.test_share, config.seed)
    messages += more
    return examples.take(kept), examples.take(held)


def evaluate_model(estimator: Any, examples: Examples, name: str, seed: int) -> Evaluation:
    """Results of a fitted classifier on `examples`."""
    predicted, confidence = _predict(estimator, examples)
    return evaluate(name, examples.labels, predicted, confidence, examples.languages, seed=seed)


def _predict(estimator: Any, examples: Examples) -> tuple[NDArray[Any], NDArray[Any]]:
    chances = estimator.predict_proba(examples.texts)
    return estimator.classes_[chances.argmax(axis=1)], chances.max(axis=1)


def _choose(examples: Examples, config: TrainConfig, messages: list[str], steps: _Steps) -> _Choice:
    """The best candidate with its settings, judged on `examples` alone."""
    given = {name: dict(config.params.get(name.partition("+")[2], {})) for name in config.candidates}  # type: ignore[call-overload]
    results = []
    if config.search != "none":
        folds, more = make_folds(examples, config.folds, config.seed)
        messages += more
        for name in config.candidates:
            params, trials = search(name, examples, folds, config)
            best = next(trial for trial in trials if given[name] | trial.params == params)
            interval = None
            if config.metric == "accuracy":
                interval = Interval(
                    best.score, *proportion_interval(round(best.score * best.records), best.records), best.records
                )
            results.append(CandidateResult(name, params, "search folds", best.score, interval, tuple(trials)))
            steps.step()
    elif len(config.candidates) > 1:
        own = examples.split == "validation"
        if own.any() and not own.all():
            learned, tested = examples.take(~own), examples.take(own)
        else:
            kept, held, more = hold_out(examples, config.validation_share, config.seed, "validation")
            messages += more
            learned, tested = examples.take(kept), examples.take(held)
        for name in config.candidates:
            estimator = _fit(_Choice(name, given[name], ()), learned, config)
            seen = evaluate_model(estimator, tested, "validation", config.seed)
            interval = seen.accuracy if config.metric == "accuracy" else seen.macro_f1
            results.append(CandidateResult(name, given[name], "validation", interval.estimate, interval, ()))
            steps.step()
    else:
        only = config.candidates[0]
        return _Choice(only, given[only], ())
    results.sort(key=lambda result: -result.score)
    return _Choice(results[0].candidate, results[0].params, tuple(results))


def _fit(choice: _Choice, examples: Examples, config: TrainConfig) -> Any:
    """`choice` fitted on `examples`, calibrated where the settings say so."""
    if len(set(examples.labels.tolist())) < 2:
        raise InvalidInput(
            f"The {len(examples)} training records are all of intent {examples.labels[0]!r}: 2 are needed."
        )
    estimator = build(choice.candidate, choice.params, config.seed)
    method = calibration_method(config.calibration, choice.candidate.partition("+")[2])
    if method:
        folds, _ = make_folds(examples, CALIBRATION_FOLDS, config.seed)
        # An intent with one wording would be unknown to the fold it is scored in, with a score of minus infinity that
        # spoils everybody's calibration; it is learned in every fold instead.
        folds = [
            (np.union1d(kept, np.flatnonzero(~np.isin(examples.labels, examples.labels[kept]))), held)
            for kept, held in folds
        ]
        estimator = calibrated(estimator, folds, method)
    try:
        with quiet():
            estimator.fit(examples.texts, examples.labels)
    except ValueError as error:
        if "vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        raise InvalidInput(f"The {len(examples)} training texts share no words or characters to learn from.") from None
    return estimator.set_params(cv=None) if method else estimator


def _cross_validate(
    examples: Examples, config: TrainConfig, messages: list[str], steps: _Steps
) -> tuple[Evaluation, tuple[float, ...], tuple[Examples, Examples]]:
    """Results over all records, each predicted by a model that was chosen and fitted without its fold."""
    folds, more = make_folds(examples, config.folds, config.seed)
    messages += more
    predicted = np.empty(len(examples), dtype=object)
    confidence = np.zeros(len(examples))
    for kept, held in folds:
        learned = examples.take(kept)
        estimator = _fit(_choose(learned, config, [], steps), learned, config)
        predicted[held], confidence[held] = _predict(estimator, examples.take(held))
        steps.step()
    right = predicted == examples.labels
    evaluation = evaluate(
        f"{len(folds)}-fold cross-validation",
        examples.labels,
        predicted.astype(str),
        confidence,
        examples.languages,
        seed=config.seed,
    )
    first = (examples.take(folds[0][0]), examples.take(folds[0][1]))
    return evaluation, tuple(float(right[held].mean()) for _, held in folds), first


def _learning_curve(
    choice: _Choice, rest: Examples, test: Examples, config: TrainConfig, messages: list[str], steps: _Steps
) -> tuple[LearningPoint, ...]:
    points, fewest = [], 2 * len(set(rest.labels.tolist()))
    for fraction in sorted(config.learning_curve):
        size = round(fraction * len(rest))
        if size < fewest:
            messages.append(
                f"The learning curve starts above {fraction:.0%}: {size} records are fewer than two per intent."
            )
        else:
            estimator = _fit(choice, subset(rest, size, config.seed), config)
            points.append(LearningPoint(size, evaluate_model(estimator, test, "learning curve", config.seed).accuracy))
        steps.step()
    return tuple(points)


def on_reference(
    estimator: Any, reference: Any, config: TrainConfig, messages: list[str]
) -> tuple[Evaluation | None, dict[str, str]]:
    """Results on real labelled texts, or why there are none."""
    if reference is None:
        return None, {"reference": "no reference was given"}
    known = set(estimator.classes_.tolist())
    rows = [row for row, label in enumerate(reference.labels) if label in known]
    if not rows:
        return None, {"reference": f"{reference.name} has none of the intents learned"}
    if len(rows) < len(reference.labels):
        left = len(reference.labels) - len(rows)
        messages.append(f"{left} of {len(reference.labels)} reference texts have intents not learned; left out.")
    real = make_examples(
        [reference.texts[row] for row in rows],
        [reference.labels[row] for row in rows],
        [reference.language] * len(rows),
        name=reference.name,
    )
    return evaluate_model(estimator, real, reference.name, config.seed), {}


class _Steps:
    """Counts the fits of a run, so that progress has an end."""

    def __init__(self, config: TrainConfig, on_progress: Progress | None) -> None:
        choices = len(config.candidates) if config.search != "none" or len(config.candidates) > 1 else 0
        rounds = config.folds if config.evaluation == "cross_validation" else 0
        self.total = (choices + 1) * (rounds + 1) + len(config.learning_curve)
        self.done = 0
        self.on_progress = on_progress

    def step(self) -> None:
        self.done += 1
        if self.on_progress:
            self.on_progress(min(self.done, self.total), self.total)


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
