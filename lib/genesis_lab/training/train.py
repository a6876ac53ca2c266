"""Train classifiers: choose among candidates, measure on held-out records, learn the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genesis_lab.errors import InvalidInput
from genesis_lab.settings import get_settings
from genesis_lab.training.classifiers import Folds, build, calibration_method, fitted
from genesis_lab.training.config import TrainConfig, Value, search_space, train_config
from genesis_lab.training.evaluation import Row, evaluate, share
from genesis_lab.training.examples import (
    Examples,
    check_learnable,
    hold_out,
    make_examples,
    make_folds,
    named,
    read_examples,
    subset,
)
from genesis_lab.training.models import IntentModel, model_of, save_model

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps there are."""

CALIBRATION_FOLDS = 3


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What was trained, on what, and how good it is: `rows`, the same for the same data and settings.

    ``config``, ``sources``; what was ``chosen`` with its ``params`` among the ``candidates`` (best first; none where there
    was nothing to choose); ``n_train``, ``n_test``, ``intents``; ``evaluation`` and ``reference`` as `evaluate` gives them;
    ``fold_accuracy`` (cross-validation only), ``learning_curve``; ``messages``, ``not_measured`` with why.
    """

    rows: Row
    model: IntentModel = field(repr=False)
    seconds: float = field(default=0.0, compare=False)

    def logged(self) -> dict[str, Any]:
        """What `registry.log_run` keeps of it."""
        rows = self.rows
        chosen = {"chosen": rows["chosen"]} | {f"chosen.{name}": value for name, value in rows["params"].items()}
        sizes = {name: rows[name] for name in ("n_train", "n_test", "intents")} | {"seconds_total": self.seconds}
        languages = {f"accuracy_{k}": one["estimate"] for k, one in rows["evaluation"]["per_language"].items()}
        curve = [(point["records"], point["accuracy"]["estimate"]) for point in rows["learning_curve"]]
        return {
            "params": rows["config"] | chosen,
            "metrics": self.model.card.metrics | sizes | languages,
            "sources": [(source["name"], source["content_hash"]) for source in rows["sources"]],
            "save": partial(save_model, self.model),
            "curves": {"learning_curve_accuracy": curve},
            "reports": {"training": rows},
            "tags": {"genesis.candidate": rows["chosen"]},
            "loader": save_model.__module__,
        }


class _Choice(NamedTuple):
    candidate: str
    params: dict[str, Value]
    results: list[Row]


class _Run(NamedTuple):
    """What the steps of one training share: its settings, what it has to say, and whom it tells that a step is done."""

    config: TrainConfig
    messages: list[str]
    step: Callable[[], None]


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
    source : a dataset whose records have a text and a label (`genesis_lab.dataset.Dataset`), or `Examples`.
    config : settings, by default the preset ``fast``.
    groups : near-duplicate cluster of each record, which no division separates; by default equal wording.
    reference : real labelled texts (``.texts``, ``.labels``, ``.language``, ``.name``) to test the model on as well.

    Raises
    ------
    InvalidInput : there is nothing to learn, or a setting does not exist.
    MissingDependency : a candidate needs a package that is not installed.
    """
    config, started = config or train_config(), perf_counter()
    if isinstance(source, Examples):
        if groups is not None:
            raise InvalidInput("groups belong into the examples (make_examples), not beside them.")
        examples, messages = source, list[str]()
    else:
        examples, messages = read_examples(source, groups=groups)
    run = _Run(config, messages, _steps(config, on_progress))
    examples = check_learnable(examples, messages, drop_rare=config.drop_rare)
    if config.max_records and config.max_records < len(examples):
        messages.append(f"{config.max_records} of {len(examples)} records were used (max_records).")
        examples = subset(examples, config.max_records, config.seed)
        examples = check_learnable(examples, messages, drop_rare=config.drop_rare)
    if config.evaluation == "cross_validation":
        if len(set(examples.split)) > 1:
            messages.append("The dataset's own splits are not used: cross-validation tests every record once.")
        evaluation, fold_accuracy, (learned, tested) = _cross_validate(examples, run)
        rest = examples
    else:
        rest, tested = learned, tested = divide(examples, config, messages)
        evaluation, fold_accuracy = {}, []
    choice = _choose(rest, run)
    estimator = _fit(choice, rest, config)
    run.step()
    evaluation = evaluation or evaluate_model(estimator, tested, "test", config.seed)
    curve = _learning_curve(choice, learned, tested, run)
    measured, not_measured = _on_reference(estimator, reference, run)
    metrics = _headline(evaluation) | {f"reference_{name}": value for name, value in _headline(measured or {}).items()}
    rows = {
        "config": config.model_dump(mode="json"),
        "sources": [asdict(one) for one in examples.sources],
        "chosen": choice.candidate,
        "params": choice.params,
        "n_train": len(rest),
        "n_test": evaluation["accuracy"]["n"],
        "intents": len(estimator.classes_),
        "evaluation": evaluation,
        "candidates": choice.results,
        "fold_accuracy": fold_accuracy,
        "learning_curve": curve,
        "reference": measured,
        "messages": list(dict.fromkeys(messages)),
        "not_measured": not_measured,
    }
    model = model_of(estimator, choice.candidate, choice.params, examples.sources, config.seed, metrics)
    return TrainingReport(rows, model, perf_counter() - started)


def divide(examples: Examples, config: TrainConfig, messages: list[str]) -> tuple[Examples, Examples]:
    """Training and test records: the dataset's own test split where it has one, else ``test_share`` held out."""
    own = examples.split == "test"
    if not own.any() or own.all():
        kept, held = hold_out(examples, config.test_share, config.seed, messages)
        return examples.take(kept), examples.take(held)
    leaked = ~own & np.isin(examples.groups, examples.groups[own])
    if leaked.any():
        messages.append(f"{int(leaked.sum())} training records repeat a test record and were left out.")
    rest, test = examples.take(~own & ~leaked), examples.take(own)
    if unknown := sorted(set(test.labels.tolist()) - set(rest.labels.tolist())):
        messages.append(f"In the test split but not in training, so never right: {named(unknown)}.")
    return rest, test


def evaluate_model(estimator: Any, examples: Examples, name: str, seed: int) -> Row:
    """Results of a fitted classifier on `examples`."""
    predicted, confidence = _predict(estimator, examples)
    return evaluate(name, examples.labels, predicted, confidence, examples.languages, seed=seed)


def _predict(estimator: Any, examples: Examples) -> tuple[NDArray[Any], NDArray[Any]]:
    chances = estimator.predict_proba(examples.texts)
    return estimator.classes_[chances.argmax(axis=1)], chances.max(axis=1)


def _headline(evaluation: Row) -> dict[str, float]:
    names = ("accuracy", "macro_f1") if evaluation else ()
    return {name: evaluation[name]["estimate"] for name in names} | ({"ece": evaluation["ece"]} if evaluation else {})


def _choose(examples: Examples, run: _Run) -> _Choice:
    """The best candidate with its settings, judged on `examples` alone."""
    config, results = run.config, list[Row]()
    given = {name: dict(config.params.get(name.partition("+")[2], {})) for name in config.candidates}  # type: ignore[call-overload]
    if config.search != "none":
        folds = make_folds(examples, config.folds, config.seed, run.messages)
        for name in config.candidates:
            params, trials = _search(name, given[name], examples, folds, config)
            best = next(trial for trial in trials if given[name] | trial["params"] == params)
            by_share = config.metric == "accuracy"
            interval = share(round(best["score"] * best["records"]), best["records"]).to_dict() if by_share else None
            interval = interval and interval | {"estimate": best["score"]}
            results.append(_result(name, params, "search folds", best["score"], interval, trials))
            run.step()
    elif len(config.candidates) > 1:
        own = examples.split == "validation"
        if own.any() and not own.all():
            learned, tested = examples.take(~own), examples.take(own)
        else:
            kept, held = hold_out(examples, config.validation_share, config.seed, run.messages, "validation")
            learned, tested = examples.take(kept), examples.take(held)
        for name in config.candidates:
            estimator = _fit(_Choice(name, given[name], []), learned, config)
            seen = evaluate_model(estimator, tested, "validation", config.seed)
            interval = seen["accuracy" if config.metric == "accuracy" else "macro_f1"]
            results.append(_result(name, given[name], "validation", interval["estimate"], interval, []))
            run.step()
    else:
        return _Choice(config.candidates[0], given[config.candidates[0]], [])
    results.sort(key=lambda result: -result["score"])
    return _Choice(results[0]["candidate"], results[0]["params"], results)


def _result(
    name: str, params: dict[str, Value], measured_on: str, score: float, interval: Row | None, trials: list[Row]
) -> Row:
    """How one candidate did where candidates are compared; the test split has no part in it."""
    found = {"candidate": name, "params": params, "measured_on": measured_on}
    return found | {"score": score, "interval": interval, "trials": trials}


def _search(
    candidate: str, fixed: dict[str, Value], examples: Examples, folds: Folds, config: TrainConfig
) -> tuple[dict[str, Value], list[Row]]:
    """The best settings for `candidate`, by cross-validation within `examples`, with every trial, best first."""
    from joblib import Memory
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the next import possible
    from sklearn.model_selection import HalvingRandomSearchCV, RandomizedSearchCV

    space = search_space(candidate.partition("+")[2])
    draws = {f"classifier__{name}": _drawn(options) for name, options in space.items() if name not in fixed}
    settings = {"scoring": config.metric, "cv": list(folds), "refit": False, "n_jobs": get_settings().workers}
    settings["random_state"], trials = config.seed, config.search_trials
    if all(isinstance(options, list) for options in draws.values()):
        trials = min(trials, int(np.prod([len(options) for options in draws.values()])))
    with TemporaryDirectory() as folder:
        pipeline = build(candidate, fixed, config.seed).set_params(memory=Memory(folder, verbose=0))
        if config.search == "random":
            searcher = RandomizedSearchCV(pipeline, draws, n_iter=trials, **settings)
        else:
            searcher = HalvingRandomSearchCV(pipeline, draws, n_candidates=trials, min_resources="exhaust", **settings)
        found = fitted(searcher, examples.texts, examples.labels).cv_results_
    used = found.get("n_resources", [len(examples)] * len(found["params"]))
    rows: list[Row] = [
        {"params": _plain(params), "score": float(score), "spread": float(spread), "records": int(records)}
        for params, score, spread, records in zip(
            found["params"], found["mean_test_score"], found["std_test_score"], used, strict=True
        )
    ]
    rows.sort(key=lambda row: (-row["records"], -row["score"], str(row["params"])))
    return fixed | _plain(searcher.best_params_), rows


def _drawn(options: Any) -> Any:
    if isinstance(options, list):
        return options
    from scipy.stats import loguniform, randint

    low, high = options["low"], options["high"]
    return randint(low, high + 1) if options.get("whole") else loguniform(low, high)


def _plain(params: Mapping[str, Any]) -> dict[str, Value]:
    """Settings as JSON has them, by the algorithm's own names."""
    return {
        name.removeprefix("classifier__"): value.item() if isinstance(value, np.generic) else value
        for name, value in sorted(params.items())
    }


def _fit(choice: _Choice, examples: Examples, config: TrainConfig) -> Any:
    """`choice` fitted on `examples`, calibrated where the settings say so."""
    if len(set(examples.labels.tolist())) < 2:
        raise InvalidInput(
            f"The {len(examples)} training records are all of intent {examples.labels[0]!r}: 2 are needed."
        )
    estimator = build(choice.candidate, choice.params, config.seed)
    method = calibration_method(config.calibration, choice.candidate.partition("+")[2])
    from sklearn.calibration import CalibratedClassifierCV

    if not method:
        return fitted(estimator, examples.texts, examples.labels)
    # An intent with one wording would be unknown to the fold it is scored in, with a score of minus infinity that
    # spoils everybody's calibration; it is learned in every fold instead.
    folds = [
        (np.union1d(kept, np.flatnonzero(~np.isin(examples.labels, examples.labels[kept]))), held)
        for kept, held in make_folds(examples, CALIBRATION_FOLDS, config.seed, [])
    ]
    calibrated = CalibratedClassifierCV(estimator, method=method, cv=folds, ensemble=False)
    return fitted(calibrated, examples.texts, examples.labels).set_params(cv=None)


def _cross_validate(examples: Examples, run: _Run) -> tuple[Row, list[float], tuple[Examples, Examples]]:
    """Results over all records, each predicted by a model that was chosen and fitted without its fold; and the first fold."""
    folds = make_folds(examples, run.config.folds, run.config.seed, run.messages)
    predicted, confidence = np.empty(len(examples), dtype=object), np.zeros(len(examples))
    for kept, held in folds:
        learned = examples.take(kept)
        estimator = _fit(_choose(learned, run._replace(messages=[])), learned, run.config)
        predicted[held], confidence[held] = _predict(estimator, examples.take(held))
        run.step()
    name, said = f"{len(folds)}-fold cross-validation", predicted.astype(str)
    found = evaluate(name, examples.labels, said, confidence, examples.languages, seed=run.config.seed)
    right = said == examples.labels
    first = tuple(examples.take(part) for part in folds[0])
    return found, [float(right[held].mean()) for _, held in folds], (first[0], first[1])


def _learning_curve(choice: _Choice, rest: Examples, test: Examples, run: _Run) -> list[Row]:
    points, fewest, config = [], 2 * len(set(rest.labels.tolist())), run.config
    for fraction in sorted(config.learning_curve):
        size = round(fraction * len(rest))
        if size < fewest:
            run.messages.append(
                f"The learning curve starts above {fraction:.0%}: {size} records are fewer than two per intent."
            )
        else:
            predicted, _ = _predict(_fit(choice, subset(rest, size, config.seed), config), test)
            points.append({"records": size, "accuracy": share(predicted == test.labels).to_dict()})
        run.step()
    return points


def _on_reference(estimator: Any, reference: Any, run: _Run) -> tuple[Row | None, dict[str, str]]:
    """Results on real labelled texts, or why there are none."""
    if reference is None:
        return None, {"reference": "no reference was given"}
    known = set(estimator.classes_.tolist())
    kept = [(text, label) for text, label in zip(reference.texts, reference.labels, strict=True) if label in known]
    if not kept:
        return None, {"reference": f"{reference.name} has none of the intents learned"}
    if left := len(reference.labels) - len(kept):
        run.messages.append(f"{left} of {len(reference.labels)} reference texts have intents not learned; left out.")
    texts, labels = zip(*kept, strict=True)
    real = make_examples(texts, labels, [reference.language] * len(kept), name=reference.name)
    return evaluate_model(estimator, real, reference.name, run.config.seed), {}


def _steps(config: TrainConfig, on_progress: Progress | None) -> Callable[[], None]:
    """Counts the fits of a run, so that progress has an end."""
    choices = len(config.candidates) if config.search != "none" or len(config.candidates) > 1 else 0
    rounds = config.folds if config.evaluation == "cross_validation" else 0
    total, done = (choices + 1) * (rounds + 1) + len(config.learning_curve), count(1)

    def step() -> None:
        if on_progress:
            on_progress(min(next(done), total), total)

    return step
