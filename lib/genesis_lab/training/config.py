"""Settings of a training run, and the presets that fill them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from genesis_lab.errors import InvalidInput, instead, sentence
from genesis_lab.yamls import shipped

Features = Literal["tfidf", "tfidf_words", "embeddings", "tfidf_embeddings"]
"""TF-IDF of words (1–2) and characters (3–5), or of words only; sentence embeddings; the first and third together."""
Algorithm = Literal["logistic_regression", "linear_svm", "random_forest", "xgboost"]
Value = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where texts come from: a dataset's name, content hash and the number of its records used."""

    name: str
    content_hash: str
    records: int


class TrainConfig(BaseModel):
    """How intent classifiers are trained, chosen and measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: tuple[str, ...] = Field(
        ("tfidf+logistic_regression",),
        min_length=1,
        description="features+algorithm to try; with several, the best on validation (or in the search) is kept",
    )
    params: dict[Algorithm, dict[str, Value]] = Field(
        {}, description="settings of an algorithm, e.g. {logistic_regression: {C: 4}}; the others keep their defaults"
    )
    evaluation: Literal["holdout", "cross_validation"] = Field(
        "holdout",
        description="holdout: one test split; cross_validation: every record tested once, `folds` times the work",
    )
    test_share: float = Field(
        0.2, gt=0, le=0.5, description="share of records in the test split, unless the dataset has one"
    )
    folds: int = Field(5, ge=2, le=20, description="folds of cross-validation, search and calibration")
    search: Literal["none", "random", "halving"] = Field(
        "none", description="how settings are searched, by cross-validation within the training records"
    )
    search_trials: int = Field(16, ge=2, le=500, description="settings that random and halving search try")
    calibration: Literal["auto", "temperature"] = Field(
        "auto", description="whose probabilities are calibrated: auto: the linear SVM's; temperature: all candidates'"
    )
    learning_curve: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="shares of the training records at which accuracy is measured"
    )
    max_records: int | None = Field(None, ge=10, description="use a random part of this size (none: all records)")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same data: same model and figures")

    @field_validator("candidates")
    @classmethod
    def _known(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        for candidate in candidates:
            features, _, algorithm = candidate.partition("+")
            if features not in get_args(Features) or algorithm not in get_args(Algorithm):
                raise ValueError(
                    f"{candidate!r} is not features+algorithm with features {', '.join(get_args(Features))} "
                    f"and algorithm {', '.join(get_args(Algorithm))}"
                )
        if len(set(candidates)) < len(candidates):
            raise ValueError("each candidate may be listed once")
        return candidates


def presets() -> dict[str, dict[str, Any]]:
    """The fields that each preset sets, by preset name; ``presets.yaml`` says why."""
    return dict(shipped(Path(__file__).with_name("presets.yaml")))


def train_config(preset: str = "fast", **fields: Any) -> TrainConfig:
    """The settings of `preset`, with `fields` of `TrainConfig` set differently; `InvalidInput` for a wrong one.

    >>> train_config("cross_validation", folds=3).folds
    3
    """
    known = presets()
    if preset not in known:
        raise InvalidInput(f"There is no preset {preset!r}: {instead(preset, known)}")
    try:
        return TrainConfig(**known[preset] | fields)
    except ValidationError as error:
        raise InvalidInput(sentence(error)) from None
