"""Retrain a bot and put the new model in use: our own classifier, ``rasa train nlu`` here, or a server's training."""

from __future__ import annotations

from pathlib import Path

from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.nlu import read_data
from genesis_lab.training.config import TrainConfig, train_config
from genesis_lab.training.examples import make_examples
from genesis_lab.training.train import Progress, TrainingReport, train


def train_classifier(
    data: Path, config: TrainConfig | None = None, *, on_progress: Progress | None = None
) -> TrainingReport:
    """Our classifier (TF-IDF, by cross-validation, so that it learns from every example) of a bot's data folder."""
    sources = read_data(data)
    rows = [one for source in sources for one in source.examples if one["text"].strip()]
    if not rows:
        wrong = [f"{one['file']}: {one['problem']}" for source in sources for one in source.problems]
        raise InvalidInput(f"{shown(data)} holds no example to learn from{f' ({wrong[0]})' if wrong else ''}.")
    examples = make_examples([one["text"] for one in rows], [one["intent"] for one in rows], name=shown(data))
    return train(examples, config or train_config("cross_validation"), on_progress=on_progress)
