"""Train classifiers: choose among candidates, measure on held-out records, learn the rest; learn further datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from joblib import Memory
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV

from genesis_lab.domains.language import NAMES
from genesis_lab.errors import InvalidInput
from genesis_lab.settings import get_settings
from genesis_lab.stats import paired
from genesis_lab.training.classifiers import ByLanguage, Folds, build, calibration_method, fitted
from genesis_lab.training.config import TrainConfig, Value, train_config
from genesis_lab.training.evaluation import Row, evaluate, share
from genesis_lab.training.examples import (
    Examples,
    check_learnable,
    hold_out,
    join,
    make_examples,
    make_folds,
    named,
    read_examples,
    subset,
)
from genesis_lab.training.models import IntentModel, model_of, save_model
from genesis_lab.yamls import shipped

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps there are."""
Chosen = tuple[str, dict[str, Value]]
"""A candidate and its settings."""

CALIBRATION_FOLDS = LANGUAGE_FOLDS = 3
COMPARED = 4_000
"""Records, at most, on which candidates are compared by language: three fits of each."""
_ENOUGH = 20
"""Records of a language that tell which candidate works in it."""
_VALIDATION_SHARE = 0.15
"""Of the training records, on which candidates are compared."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What was trained, on what, and how good it is: `rows`, the same for the same data and settings.

    ``config``, ``sources``; what was ``chosen`` with its ``params`` among the ``candidates`` (best first; none
    without a choice); ``n_train``, ``n_test``, ``intents``; ``evaluation`` and ``reference`` as `evaluate` gives them;
    ``learning_curve``, ``messages``, ``not_measured`` with why; ``continued`` (see `continue_training`).
    """

    rows: Row
    model: IntentModel = field(repr=False)
    seconds: float = field(default=0.0, compare=False)
    answers: list[Row] = field(default_factory=list, repr=False, compare=False)
    """Each text tested on: ``text``, ``label``, ``understood as``, how ``sure``, ``language``, ``tested on``."""

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


@dataclass(frozen=True, slots=True)
class _Run:
    """What the steps of one training share: settings, what to say, whom to tell of a step that is done, the choice."""

    config: TrainConfig
    messages: list[str]
    step: Callable[[], None]
    chosen: Chosen | None = None
    answers: list[Row] = field(default_factory=list)


def train(
    source: Any,
    config: TrainConfig | None = None,
    *,
    chosen: Chosen | None = None,
    reference: Any = None,
    on_progress: Progress | None = None,
) -> TrainingReport:
    """Train on a dataset whose records have a text and a label, or on `Examples`.

    Reports on records that the model never saw, and on those of a `reference` (``.texts``, ``.labels``, ``.language``,
    ``.name``). What is already `chosen`, a candidate and its settings, is taken instead of the config's candidates.
    """
    config, started = config or train_config(), perf_counter()
    examples, messages = read_examples(source)
    run = _Run(config, messages, _steps(config, on_progress, choosing=chosen is None), chosen)
    examples = check_learnable(examples, messages)
    if config.max_records and config.max_records < len(examples):
        messages.append(f"{config.max_records} of {len(examples)} records were used (max_records).")
        examples = check_learnable(subset(examples, config.max_records, config.seed), messages)
    embedder = None
    if any("embeddings+" in name for name in ([chosen[0]] if chosen else config.candidates)):
        from genesis_lab.validation.embeddings import embedder_for

        embedder = embedder_for(Counter(examples.languages.tolist()))
        examples = replace(examples, embedder=embedder.model)
    evaluation, rest = None, examples
    if config.evaluation == "cross_validation":
        evaluation, (learned, tested) = _cross_validate(examples, run)
    else:
        rest, tested = learned, tested = _divide(examples, config, messages)
    chosen, results = _choose(rest, run)
    estimator = _fit(chosen, rest, config)
    run.step()
    evaluation = evaluation or _measured("test", tested, *_predict(estimator, tested), run)
    metrics = {name: evaluation[name]["estimate"] for name in ("accuracy", "macro_f1")} | {"ece": evaluation["ece"]}
    on_real, not_measured = None, {"reference": "no reference was given"}
    if real := _known_to(estimator, reference, messages):
        on_real = _measured(reference.name, real, *_predict(estimator, real), run)
        on_real |= {"kind": getattr(reference, "kind", "real")}
        metrics |= {f"reference_{name}": on_real[name]["estimate"] for name in ("accuracy", "macro_f1")}
        metrics["reference_ece"], not_measured = on_real["ece"], {}
    elif reference is not None:
        not_measured = {"reference": f"{reference.name} has none of the intents learned"}
    candidate, params = chosen
    rows = {
        "config": config.model_dump(mode="json"),
        "sources": [asdict(one) for one in examples.sources],
        "chosen": candidate,
        "params": params,
        "n_train": len(rest),
        "n_test": evaluation["accuracy"]["n"],
        "intents": len(estimator.classes_),
        "evaluation": evaluation,
        "candidates": results,
        "learning_curve": _learning_curve(chosen, learned, tested, run),
        "reference": on_real,
        "messages": list(dict.fromkeys(messages)),
        "embedder": embedder and embedder.name,
        "embedder_note": embedder and embedder.note,
        "not_measured": not_measured,
    }
    model = model_of(
        estimator,
        candidate,
        params=params,
        sources=list(examples.sources),
        seed=config.seed,
        metrics=metrics,
        embedder=embedder.name if embedder and "embeddings+" in candidate else None,
    )
    return TrainingReport(rows, model, perf_counter() - started, run.answers)


def continue_training(
    model: IntentModel, dataset: Any, *, earlier: Any, config: TrainConfig | None = None, reference: Any = None
) -> TrainingReport:
    """`model`'s candidate, settings and seed, fitted anew on both datasets: nothing is forgotten, new intents may come.

    ``rows["continued"]`` says what that did on the new dataset's test records: accuracy ``before`` and ``after``, both
    ``compared`` by `stats.paired`, near-duplicates counting once. `earlier` is what `model` was trained on (else
    `InvalidInput`); for a model that was continued before, what `join` makes of all of it.
    """
    card = model.card
    (new, messages), (old, more) = read_examples(dataset), read_examples(earlier)
    if [source.content_hash for source in old.sources] != [source.content_hash for source in card.sources]:
        known = ", ".join(f"{source.name} ({source.content_hash[:12]})" for source in card.sources)
        given = f"{old.sources[0].name} ({old.sources[0].content_hash[:12]})"
        raise InvalidInput(f"{given} is not what the model was trained on: {known}.")
    messages += more
    old, new = (replace(one, split=np.full(len(one), name)) for one, name in ((old, "old"), (new, "new")))
    both = check_learnable(join(old, new), messages)
    config = (config or train_config()).model_copy(update={"evaluation": "holdout", "seed": card.seed})
    is_new, is_test = both.split == "new", np.zeros(len(both), dtype=bool)
    for part in (~is_new, is_new):
        is_test[part] = hold_out(both.take(part), config.test_share, card.seed, messages)
    divided = replace(both, split=np.where(is_test, "test", "train"))
    report = train(divided, config, chosen=(card.candidate, card.params), reference=reference)
    test = both.take(is_new & is_test)
    was, now = (
        np.asarray([one.intent for one in each.predict(test.texts.tolist())]) == test.labels
        for each in (model, report.model)
    )
    compared = paired(now, was, test.groups.tolist())
    learned = " and ".join(f"{source.name} ({source.records})" for source in both.sources)
    continued = {
        "how": f"{card.candidate} fitted anew on {learned}",
        "before": share(was).to_dict(),
        "after": share(now).to_dict(),
        "compared": asdict(compared) | {"verdict": compared.verdict},
    }
    said = list(dict.fromkeys(messages + report.rows["messages"]))
    return replace(report, rows=report.rows | {"messages": said, "continued": continued})


def _divide(examples: Examples, config: TrainConfig, messages: list[str]) -> tuple[Examples, Examples]:
    """Training and test records: the dataset's own test split where it has one, else ``test_share`` held out."""
    own = examples.split == "test"
    if not own.any() or own.all():
        own = hold_out(examples, config.test_share, config.seed, messages)
    leaked = ~own & np.isin(examples.groups, examples.groups[own])
    if leaked.any():
        messages.append(f"{int(leaked.sum())} training records repeat a test record and were left out.")
    rest, test = examples.take(~own & ~leaked), examples.take(own)
    if len(unknown := np.setdiff1d(test.labels, rest.labels)):
        messages.append(f"In the test split but not in training, so never right: {named(unknown.tolist())}.")
    return rest, test


def _predict(estimator: Any, examples: Examples) -> tuple[NDArray[Any], NDArray[Any]]:
    chances = estimator.predict_proba(examples.texts)
    return estimator.classes_[chances.argmax(axis=1)], chances.max(axis=1)


def _measured(name: str, examples: Examples, said: NDArray[Any], sure: NDArray[Any], run: _Run) -> Row:
    """`evaluate`, and what was answered to each text."""
    told = {"text": examples.texts, "label": examples.labels, "understood as": said, "language": examples.languages}
    lists = (map(str, column) for column in told.values())
    rows = (dict(zip(told, row, strict=True)) for row in zip(*lists, strict=True))
    run.answers.extend(row | {"sure": round(float(p), 3), "tested on": name} for row, p in zip(rows, sure, strict=True))
    return evaluate(name, examples.labels, said, sure, examples.languages, seed=run.config.seed)


def _choose(examples: Examples, run: _Run) -> tuple[Chosen, list[Row]]:
    """The best candidate with its settings, judged on `examples` alone, and how each did (best first)."""
    config = run.config
    if run.chosen:
        return run.chosen, []
    params = {str(algorithm): dict(settings) for algorithm, settings in config.params.items()}
    given: list[Chosen] = [(name, params.get(name.partition("+")[2], {})) for name in config.candidates]
    if config.search != "none":
        folds = make_folds(examples, config.folds, config.seed, run.messages)
        results = [_search(candidate, examples, folds, run) for candidate in given]
    elif len(given) > 1:
        results = _tried(given, examples, run)
    else:
        return given[0], []
    results.sort(key=lambda result: -result["interval"]["estimate"])
    return (results[0]["candidate"], results[0]["params"]), results


def _tried(given: list[Chosen], examples: Examples, run: _Run) -> list[Row]:
    """How the candidates do on validation records, or, in several languages, in cross-validation over all of them.

    Where another candidate is best in another language, a model that has one by language is a candidate too.
    """
    config, languages = run.config, [one for one in NAMES if (examples.languages == one).sum() >= _ENOUGH]
    own = examples.split == "validation"
    if len(languages) > 1:
        if len(examples) > COMPARED:
            run.messages.append(f"Candidates were compared on {COMPARED:,} of {len(examples):,} records.")
            examples = subset(examples, COMPARED, config.seed)
        folds, measured_on = make_folds(examples, LANGUAGE_FOLDS, config.seed, run.messages), "folds by language"
    else:
        if not own.any() or own.all():
            own = hold_out(examples, _VALIDATION_SHARE, config.seed, run.messages, "validation")
        folds, measured_on = [(np.flatnonzero(~own), np.flatnonzero(own))], "validation"
    tested = examples.take(np.concatenate([held for _, held in folds]))
    right = []
    for candidate in given:
        learned = [(_fit(candidate, examples.take(kept), config), held) for kept, held in folds]
        said = np.concatenate([_predict(one, examples.take(held))[0] for one, held in learned])
        right.append(said == tested.labels)
        run.step()
    best = dict[str, int]()
    for language in languages if len(languages) > 1 else []:
        scores = [one[tested.languages == language].mean() for one in right]
        best[language] = int(np.argmax(scores))
        others = ", ".join(f"{name} {score:.2f}" for (name, _), score in zip(given, scores, strict=True))
        run.messages.append(f"In {NAMES[language]} {given[best[language]][0]} does best: {others}.")
    if len(set(best.values())) > 1:
        chosen = {language: given[place] for language, place in best.items()}
        every = ((name.partition("+")[2], params) for name, params in chosen.values())
        joined = {f"{algorithm}.{key}": value for algorithm, params in every for key, value in params.items()}
        given = [*given, (", ".join(f"{language}: {name}" for language, (name, _) in chosen.items()), joined)]
        first, *_ = best.values()
        right.append(np.choose([best.get(language, first) for language in tested.languages.tolist()], right))
    return [
        {"candidate": name, "params": params, "measured_on": measured_on, "interval": share(one).to_dict()}
        for (name, params), one in zip(given, right, strict=True)
    ]


def _search(candidate: Chosen, examples: Examples, folds: Folds, run: _Run) -> Row:
    """The best settings for a candidate, by cross-validation within `examples`."""
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the next import possible
    from sklearn.model_selection import HalvingRandomSearchCV, RandomizedSearchCV

    (name, fixed), config, trials = candidate, run.config, run.config.search_trials
    space = shipped(Path(__file__).with_name("search_spaces.yaml"))[name.partition("+")[2]]
    draws = {f"classifier__{key}": _drawn(options) for key, options in space.items() if key not in fixed}
    if all(isinstance(options, list) for options in draws.values()):
        trials = min(trials, int(np.prod([len(options) for options in draws.values()])))
    settings = {"scoring": "accuracy", "cv": list(folds), "refit": False, "random_state": config.seed}
    settings["n_jobs"] = get_settings().workers
    with TemporaryDirectory() as folder:
        pipeline = build(name, fixed, config.seed, embedder=examples.embedder)
        pipeline.set_params(memory=Memory(folder, verbose=0))
        if config.search == "random":
            searcher = RandomizedSearchCV(pipeline, draws, n_iter=trials, **settings)
        else:
            searcher = HalvingRandomSearchCV(pipeline, draws, n_candidates=trials, min_resources="exhaust", **settings)
        found = fitted(searcher, examples.texts, examples.labels).cv_results_
    at, score = searcher.best_index_, float(searcher.best_score_)
    n = int(found["n_resources"][at]) if "n_resources" in found else len(examples)
    interval = share(round(score * n), n).to_dict() | {"estimate": score}
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in sorted(searcher.best_params_.items())}
    best = {key.removeprefix("classifier__"): value for key, value in plain.items()}
    run.step()
    return {"candidate": name, "params": fixed | best, "measured_on": "search folds", "interval": interval}


def _drawn(options: Any) -> Any:
    from scipy.stats import loguniform, randint

    if isinstance(options, list):
        return options
    low, high = options["low"], options["high"]
    return randint(low, high + 1) if options.get("whole") else loguniform(low, high)


def _fit(chosen: Chosen, examples: Examples, config: TrainConfig) -> Any:
    """The chosen candidate fitted on `examples`, calibrated where the settings say so."""
    if len(np.unique(examples.labels)) < 2:
        raise InvalidInput(
            f"The {len(examples)} training records are all of intent {examples.labels[0]!r}: 2 are needed."
        )
    candidate, params = chosen
    if ": " in candidate:
        parts = dict(part.split(": ") for part in candidate.split(", "))
        own = {name: f"{name.partition('+')[2]}." for name in parts.values()}
        fits = {
            name: _fit((name, {k.removeprefix(p): v for k, v in params.items() if k.startswith(p)}), examples, config)
            for name, p in own.items()
        }
        return ByLanguage({language: fits[name] for language, name in parts.items()})
    estimator = build(candidate, params, config.seed, embedder=examples.embedder)
    method = calibration_method(config.calibration, candidate)
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


def _cross_validate(examples: Examples, run: _Run) -> tuple[Row, tuple[Examples, Examples]]:
    """Results over all records, each by a model that was chosen and fitted without its fold; and the first fold."""
    if len(set(examples.split)) > 1:
        run.messages.append("The dataset's own splits are not used: cross-validation tests every record once.")
    folds = make_folds(examples, run.config.folds, run.config.seed, run.messages)
    predicted, confidence = np.empty(len(examples), dtype=object), np.zeros(len(examples))
    for kept, held in folds:
        learned = examples.take(kept)
        chosen, _ = _choose(learned, replace(run, messages=[]))
        predicted[held], confidence[held] = _predict(_fit(chosen, learned, run.config), examples.take(held))
        run.step()
    kept, held = folds[0]
    found = _measured(f"{len(folds)}-fold cross-validation", examples, predicted.astype(str), confidence, run)
    return found, (examples.take(kept), examples.take(held))


def _learning_curve(chosen: Chosen, rest: Examples, test: Examples, run: _Run) -> list[Row]:
    points, fewest, config = list[Row](), 2 * len(np.unique(rest.labels)), run.config
    for fraction in sorted(config.learning_curve):
        size = round(fraction * len(rest))
        if size < fewest:
            why = f"{size} records are fewer than two per intent"
            run.messages.append(f"The learning curve starts above {fraction:.0%}: {why}.")
        else:
            predicted, _ = _predict(_fit(chosen, subset(rest, size, config.seed), config), test)
            points.append({"records": size, "accuracy": share(predicted == test.labels).to_dict()})
        run.step()
    return points


def _known_to(estimator: Any, reference: Any, messages: list[str]) -> Examples | None:
    """Those of the real labelled texts whose intents were learned; None where there are none."""
    if reference is None:
        return None
    known = set(estimator.classes_.tolist())
    kept = [(text, label) for text, label in zip(reference.texts, reference.labels, strict=True) if label in known]
    if not kept:
        return None
    if left := len(reference.labels) - len(kept):
        messages.append(f"{left} of {len(reference.labels)} reference texts have intents not learned; left out.")
    texts, labels = zip(*kept, strict=True)
    return make_examples(texts, labels, [reference.language] * len(kept), name=reference.name)


def _steps(config: TrainConfig, on_progress: Progress | None, *, choosing: bool) -> Callable[[], None]:
    """Counts the fits of a run, so that progress has an end."""
    choices = len(config.candidates) if choosing and (config.search != "none" or len(config.candidates) > 1) else 0
    rounds = config.folds if config.evaluation == "cross_validation" else 0
    total, done = (choices + 1) * (rounds + 1) + len(config.learning_curve), count(1)

    def step() -> None:
        if on_progress:
            on_progress(min(next(done), total), total)

    return step
