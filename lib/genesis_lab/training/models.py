"""A trained intent model: predict with it, write it to a folder, read it back.

A model folder holds ``model.skops`` (weights; no code runs when it is read) and ``model.json`` (`ModelCard`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from genesis_lab import files
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, recovered
from genesis_lab.texts import normal
from genesis_lab.training.config import Value
from genesis_lab.training.examples import Source

WEIGHTS, CARD = "model.skops", "model.json"

_TRUSTED = {
    "genesis_lab.training.classifiers.SentenceEmbedding",
    "genesis_lab.training.classifiers.BoostedTrees",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
}
"""Types besides skops' own that a model folder may hold: none runs Python code that comes with the file."""


class ModelCard(BaseModel):
    """What is known of a model; written as ``model.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: str
    """features+algorithm"""
    params: dict[str, Value]
    labels: list[str]
    sources: list[Source]
    """The exact data: name, content hash and records of each dataset learned from."""
    embedder: str | None
    """The embedding model that the features come from; None without one."""
    seed: int
    metrics: dict[str, float]
    versions: dict[str, str]
    weights_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable intent of a text, and the ones after it."""

    intent: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class IntentModel:
    """A fitted classifier and its card."""

    estimator: Any
    card: ModelCard

    def predict(self, texts: Sequence[str], *, top: int = 3) -> list[Prediction]:
        """One `Prediction` per text, with `top` - 1 alternatives.

        Raises
        ------
        InvalidInput : `texts` is a single string, or holds something that is not one.
        """
        if isinstance(texts, str):
            raise InvalidInput("predict expects a list of texts, got a single string.")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInput(f"predict expects texts, got {text!r} at position {row}.")
        if not len(texts):
            return []
        chances = self.probabilities(texts)
        best = np.argsort(-chances, axis=1, kind="stable")[:, : max(1, top)]
        labels = self.card.labels
        return [
            Prediction(
                labels[columns[0]],
                float(row[columns[0]]),
                tuple((labels[column], float(row[column])) for column in columns[1:]),
            )
            for row, columns in zip(chances, best, strict=True)
        ]

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities, shape ``(len(texts), len(card.labels))``, columns in the order of ``card.labels``."""
        array = np.empty(len(texts), dtype=object)
        array[:] = normal(list(texts))
        return np.asarray(self.estimator.predict_proba(array), dtype=float)


def model_of(
    estimator: Any,
    candidate: str,
    params: dict[str, Value],
    sources: Sequence[Source],
    seed: int,
    metrics: dict[str, float],
) -> IntentModel:
    """A fitted classifier with its card."""
    embedder = None
    if candidate.startswith("embeddings+"):
        from genesis_lab.validation.embeddings import embedder_name

        embedder = embedder_name()
    labels = [str(label) for label in estimator.classes_]
    told = {"candidate": candidate, "params": params, "labels": labels, "sources": list(sources), "embedder": embedder}
    return IntentModel(estimator, ModelCard(**told, seed=seed, metrics=metrics, versions=_installed()))


def model_path(name: str | Path) -> Path:
    """The folder of a model given by bare name (under ``outputs/models``) or by path."""
    return recovered(files.named("models", name))


def check_place(name: str | Path, content_hash: str, *, replace: bool) -> None:
    """Refuse, before anything is trained, a name under which lies what `save_model` would not replace.

    Parameters
    ----------
    content_hash : of the dataset to be learned.
    replace : whether a model of other data may be replaced.

    Raises
    ------
    InvalidInput : see `save_model`.
    """
    _check(model_path(name), replace, lambda there: [s.content_hash for s in there.sources] == [content_hash])


def save_model(model: IntentModel, name: str | Path, *, replace: bool = False) -> Path:
    """Write the model folder and return it; a folder with the same model is written anew.

    Parameters
    ----------
    replace : whether another model of this name may be replaced.

    Raises
    ------
    InvalidInput : there is another model of this name, or something that is no model folder.
    """
    from skops import io

    target = model_path(name)
    _check(target, replace, lambda there: _identity(there) == _identity(model.card))
    with placed(target, replace=True, ours=_is_model) as scratch:
        scratch.mkdir()
        io.dump(model.estimator, scratch / WEIGHTS, compression=ZIP_DEFLATED)
        card = model.card.model_copy(update={"weights_sha256": _sha256(scratch / WEIGHTS)})
        (scratch / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return target


def _check(target: Path, replace: bool, same: Callable[[ModelCard], bool]) -> None:
    if target.exists() and not _is_model(target):
        raise InvalidInput(f"{files.shown(target)} exists and is not a model folder: choose another name.")
    there = _card_of(target)
    if there and not replace and not same(there):
        learned = " and ".join(f"{source.name} ({source.content_hash[:12]})" for source in there.sources)
        raise InvalidInput(
            f"{files.shown(target)} holds another model, {there.candidate} trained on {learned}: choose another name, or "
            "set replace."
        )


def _identity(card: ModelCard) -> dict[str, Any]:
    """What tells two models apart, whichever versions of which packages wrote them."""
    figures = {name: round(value, 6) for name, value in card.metrics.items()}
    return card.model_dump(exclude={"versions", "weights_sha256", "metrics"}) | {"metrics": figures}


def _card_of(folder: Path) -> ModelCard | None:
    try:
        return ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_model(folder: Path) -> bool:
    """Whether a folder holds a model that was saved here, be it damaged, and nothing else."""
    try:
        files = {file.name for file in folder.iterdir() if file.name[0] != "."}
    except OSError:
        return False
    return files <= {WEIGHTS, CARD} and (WEIGHTS in files or _card_of(folder) is not None)


def load_model(name: str | Path) -> IntentModel:
    """The model in a folder written by `save_model`.

    Raises
    ------
    InvalidInput : no model folder, weights that are not the ones on the card or hold types that a model doesn't
        need, or features from another embedding model than ``GENESIS_EMBEDDER``.
    """
    from skops import io

    folder = model_path(name)
    try:
        card = ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except OSError:
        raise InvalidInput(f"{files.shown(folder)} holds no model ({CARD}): train one, or check the name.") from None
    except ValueError:
        raise InvalidInput(f"{CARD} in {files.shown(folder)} is not a model's card: save the model anew.") from None
    weights = folder / WEIGHTS
    if not weights.is_file() or _sha256(weights) != card.weights_sha256:
        raise InvalidInput(
            f"{WEIGHTS} in {files.shown(folder)} is not the file its card describes: save the model anew."
        )
    strange = set(io.get_untrusted_types(file=weights)) - _TRUSTED
    if strange:
        raise InvalidInput(
            f"{files.shown(weights)} holds {sorted(strange)[0]}, which no intent model needs: not loaded."
        )
    if card.embedder:
        from genesis_lab.validation.embeddings import embedder_name

        if card.embedder != embedder_name():
            raise InvalidInput(
                f"The model was trained on embeddings of {card.embedder}, but GENESIS_EMBEDDER is {embedder_name()}: "
                "set it to the model's."
            )
    try:
        return IntentModel(io.load(weights, trusted=sorted(_TRUSTED)), card)
    except Exception as error:
        saved = ", ".join(f"{package} {number}" for package, number in card.versions.items())
        raise InvalidInput(
            f"{files.shown(weights)} can't be read here ({type(error).__name__}); it was written with {saved}."
        ) from None


def _installed() -> dict[str, str]:
    """Versions of the packages that a saved model depends on."""
    found = {}
    for package in ("genesis-lab", "scikit-learn", "skops", "numpy", "xgboost", "xgboost-cpu", "sentence-transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _load_pyfunc(folder: str) -> SimpleNamespace:
    """MLflow's entry: the model in `folder`; it answers intent and probability to a list, a series or a table's first column."""
    model = load_model(Path(folder).resolve())

    def predict(data: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        column = data.iloc[:, 0] if getattr(data, "ndim", 1) == 2 else data
        found = model.predict([str(text) for text in column])
        return [{"intent": one.intent, "probability": one.probability} for one in found]

    return SimpleNamespace(predict=predict)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
