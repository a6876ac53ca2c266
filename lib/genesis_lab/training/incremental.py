"""Teach a trained model a further dataset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from genesis_lab.errors import InvalidInput
from genesis_lab.stats import paired
from genesis_lab.training.config import TrainConfig, train_config
from genesis_lab.training.evaluation import share
from genesis_lab.training.examples import Examples, check_learnable, hold_out, join, named, read_examples
from genesis_lab.training.saving import IntentModel
from genesis_lab.training.train import (
    Continued,
    TrainingReport,
    divide,
    evaluate_model,
    on_reference,
    train,
    with_model,
)

PASSES = 5
"""Times that `partial_fit` goes through the new records."""


def continue_training(
    model: IntentModel,
    dataset: Any,
    *,
    earlier: Any = None,
    config: TrainConfig | None = None,
    groups: Sequence[int] | None = None,
    reference: Any = None,
) -> TrainingReport:
    """`model`, with `dataset` learned as well; ``report.continued`` says how and what it changed.

    With `earlier` the same candidate and settings are fitted anew on both datasets together: nothing is forgotten,
    new intents are welcome. Without it, only an uncalibrated ``sgd`` model can go on, on the new records alone
    (`partial_fit` with the features it has), and only for intents it knows.

    Parameters
    ----------
    dataset, earlier : datasets of conversations, or `Examples`. `earlier` is what `model` was trained on; for a
        model that was continued before, `Examples` made by `genesis_lab.training.examples.join`.
    config : test share, seed, learning curve…; candidates, search and settings are the model's.

    Raises
    ------
    InvalidInput : `earlier` is not the data on the model's card, or is needed and not given.
    """
    config = config or train_config()
    algorithm = model.card.candidate.partition("+")[2]
    config = config.model_copy(
        update={
            "candidates": (model.card.candidate,),
            "params": {algorithm: model.card.params},
            "search": "none",
            "evaluation": "holdout",
            "seed": model.card.seed,
        }
    )
    new, messages = _read(dataset, groups)
    if earlier is not None:
        return _refit(model, new, earlier, config, messages, reference)
    if not hasattr(_last_step(model.estimator), "partial_fit"):
        raise InvalidInput(
            f"A {model.card.candidate} model can't learn new records alone: give earlier={model.card.sources[0].name!r} too, "
            "or train with algorithm sgd and no calibration."
        )
    unknown = sorted(set(new.labels.tolist()) - set(model.card.labels))
    if unknown:
        raise InvalidInput(
            f"The model doesn't know {named(unknown)}: give the earlier dataset too, to learn new intents."
        )
    return _go_on(model, new, config, messages, reference)


def _refit(
    model: IntentModel, new: Examples, earlier: Any, config: TrainConfig, messages: list[str], reference: Any
) -> TrainingReport:
    old, more = _read(earlier, None)
    known = [source.content_hash for source in model.card.sources]
    if [source.content_hash for source in old.sources] != known:
        raise InvalidInput(
            f"{old.sources[0].name} ({old.sources[0].content_hash[:12]}) is not what the model was trained on: "
            f"{', '.join(f'{source.name} ({source.content_hash[:12]})' for source in model.card.sources)}."
        )
    both = join(old, new)
    check_learnable(both, drop_rare=config.drop_rare)
    is_new = np.arange(len(both)) >= len(old)
    split = np.full(len(both), "train", dtype=object)
    for part in (~is_new, is_new):
        _, held, untested = hold_out(both.take(part), config.test_share, config.seed)
        more += untested
        split[np.flatnonzero(part)[held]] = "test"
    both = replace(both, split=split)
    report = train(both, config, reference=reference)
    tested = both.take(is_new & (split == "test"))
    how = f"{model.card.candidate} fitted anew on {' and '.join(f'{s.name} ({s.records})' for s in both.sources)}"
    return _told(report, model, tested, how, messages + more)


def _go_on(
    model: IntentModel, new: Examples, config: TrainConfig, messages: list[str], reference: Any
) -> TrainingReport:
    rest, test = divide(new, config, messages)
    estimator = deepcopy(model.estimator)
    features = estimator.named_steps["features"].transform(rest.texts)
    rng = np.random.default_rng(config.seed)
    for _ in range(PASSES):
        order = rng.permutation(len(rest))
        estimator.named_steps["classifier"].partial_fit(features[order], rest.labels[order])
    measured, not_measured = on_reference(estimator, reference, config, messages)
    report = TrainingReport(
        sources=(*model.card.sources, *new.sources),
        config=config,
        chosen=model.card.candidate,
        params=model.card.params,
        n_train=len(rest),
        n_test=len(test),
        intents=len(estimator.classes_),
        evaluation=evaluate_model(estimator, test, "test", config.seed),
        candidates=(),
        fold_accuracy=(),
        learning_curve=(),
        reference=measured,
        messages=(),
        not_measured=not_measured,
    )
    how = f"partial_fit of {model.card.candidate}: {PASSES} passes over {len(rest)} records of {new.sources[0].name} alone"
    return _told(with_model(report, estimator), model, test, how, messages)


def _told(report: TrainingReport, before: IntentModel, test: Examples, how: str, messages: list[str]) -> TrainingReport:
    was = np.asarray([p.intent for p in before.predict(list(test.texts))]) == test.labels
    now = np.asarray([p.intent for p in report.model.predict(list(test.texts))]) == test.labels
    continued = Continued(how, share(was), share(now), paired(now, was, test.groups.tolist()))
    return replace(report, continued=continued, messages=(*messages, *report.messages))


def _read(source: Any, groups: Sequence[int] | None) -> tuple[Examples, list[str]]:
    return (source, []) if isinstance(source, Examples) else read_examples(source, groups=groups)


def _last_step(estimator: Any) -> Any:
    return estimator.named_steps["classifier"] if hasattr(estimator, "named_steps") else None
