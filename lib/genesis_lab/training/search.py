"""Search for an algorithm's settings, by cross-validation within the records it is given."""

from __future__ import annotations

from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from genesis_lab.settings import get_settings
from genesis_lab.training.classifiers import Folds, build
from genesis_lab.training.config import TrainConfig, Value, read_yaml
from genesis_lab.training.examples import Examples, quiet


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried: mean and standard deviation of its score over the folds, on `records` records."""

    params: dict[str, Value]
    score: float
    spread: float
    records: int


def search(
    candidate: str, examples: Examples, folds: Folds, config: TrainConfig
) -> tuple[dict[str, Value], list[Trial]]:
    """The best settings for `candidate`, with every trial, best first.

    Parameters
    ----------
    examples : the training records; a test split must not be among them.
    folds : positions (train, test) within `examples`, free of leakage.
    """
    from joblib import Memory

    algorithm = candidate.partition("+")[2]
    fixed = config.params.get(algorithm, {})  # type: ignore[call-overload]  # a str that is an Algorithm
    space = {name: options for name, options in read_yaml("search_spaces.yaml")[algorithm].items() if name not in fixed}
    with TemporaryDirectory() as folder, quiet():
        pipeline = build(candidate, fixed, config.seed).set_params(memory=Memory(folder, verbose=0))
        searcher = _searcher(pipeline, space, folds, config)
        searcher.fit(examples.texts, examples.labels)
    results = searcher.cv_results_
    records = results.get("n_resources", [len(examples)] * len(results["params"]))
    trials = [
        Trial(_plain(params), float(score), float(spread), int(used))
        for params, score, spread, used in zip(
            results["params"], results["mean_test_score"], results["std_test_score"], records, strict=True
        )
    ]
    trials.sort(key=lambda trial: (-trial.records, -trial.score, str(trial.params)))
    return dict(fixed) | _plain(searcher.best_params_), trials


def _searcher(pipeline: Any, space: dict[str, Any], folds: Folds, config: TrainConfig) -> Any:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the next import possible
    from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV

    shared = {"scoring": config.metric, "cv": list(folds), "refit": False, "n_jobs": get_settings().workers}
    sized = 1
    grid = {f"classifier__{name}": _points(options) for name, options in space.items()}
    for options in grid.values():
        sized *= len(options)
    if config.search == "grid":
        return GridSearchCV(pipeline, grid, **shared)
    ranges = {f"classifier__{name}": _draws(options) for name, options in space.items()}
    endless = any(not isinstance(options, list) for options in ranges.values())
    trials = config.search_trials if endless else min(config.search_trials, sized)
    if config.search == "random":
        return RandomizedSearchCV(pipeline, ranges, n_iter=trials, random_state=config.seed, **shared)
    return HalvingRandomSearchCV(
        pipeline, ranges, n_candidates=trials, min_resources="exhaust", random_state=config.seed, **shared
    )


def _points(options: Any) -> list[Any]:
    if isinstance(options, list):
        return options
    values = np.geomspace(options["low"], options["high"], options["points"])
    return [round(value) if options.get("whole") else float(f"{value:.3g}") for value in values.tolist()]


def _draws(options: Any) -> Any:
    if isinstance(options, list):
        return options
    from scipy.stats import loguniform, randint

    low, high = options["low"], options["high"]
    return randint(low, high + 1) if options.get("whole") else loguniform(low, high)


def _plain(params: dict[str, Any]) -> dict[str, Value]:
    """Settings as JSON has them, by the algorithm's own names."""
    return {
        name.removeprefix("classifier__"): value.item() if isinstance(value, np.generic) else value
        for name, value in sorted(params.items())
    }
