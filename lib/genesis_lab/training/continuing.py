"""Teach a trained model a further dataset."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from genesis_lab.errors import InvalidInput
from genesis_lab.stats import paired
from genesis_lab.training.config import TrainConfig, train_config
from genesis_lab.training.evaluation import share
from genesis_lab.training.examples import Examples, check_learnable, hold_out, join, read_examples
from genesis_lab.training.models import IntentModel
from genesis_lab.training.train import TrainingReport, train


def continue_training(
    model: IntentModel, dataset: Any, *, earlier: Any, config: TrainConfig | None = None, reference: Any = None
) -> TrainingReport:
    """`model`'s candidate, settings and seed, fitted anew on both datasets: nothing is forgotten, new intents are welcome.

    ``rows["continued"]`` says what that did on the new dataset's test records: accuracy ``before`` and ``after``, and both
    ``compared`` by `stats.paired`, near-duplicates counting once. `earlier` is what `model` was trained on (else
    `InvalidInput`); for a model that was continued before, what `join` makes of all of it.
    """
    card = model.card
    fixed = {
        "candidates": (card.candidate,),
        "params": {card.candidate.partition("+")[2]: card.params},
        "seed": card.seed,
    }
    fixed |= {"search": "none", "evaluation": "holdout"}
    config = (config or train_config()).model_copy(update=fixed)
    (new, messages), (old, more) = (
        (one, []) if isinstance(one, Examples) else read_examples(one) for one in (dataset, earlier)
    )
    if [source.content_hash for source in old.sources] != [source.content_hash for source in card.sources]:
        known = ", ".join(f"{source.name} ({source.content_hash[:12]})" for source in card.sources)
        given = f"{old.sources[0].name} ({old.sources[0].content_hash[:12]})"
        raise InvalidInput(f"{given} is not what the model was trained on: {known}.")
    messages, both = messages + more, join(old, new)
    check_learnable(both, messages, drop_rare=False)
    is_new = np.arange(len(both)) >= len(old)
    held = [hold_out(both.take(part), config.test_share, card.seed, messages) for part in (~is_new, is_new)]
    is_test = np.concatenate(held)
    report = train(replace(both, split=np.where(is_test, "test", "train")), config, reference=reference)
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
