"""A trained intent model: predict with it, write it to a folder, read it back.

A model folder holds ``model.skops`` (weights; no code runs when it is read) and ``model.json`` (`ModelCard`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pydoc import locate
from types import SimpleNamespace
from typing import Any, cast
from zipfile import ZIP_DEFLATED

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from genesis_lab.errors import InvalidInput
from genesis_lab.files import named, placed, recovered, shown
from genesis_lab.texts import normal
from genesis_lab.training.config import Source, Value

WEIGHTS, CARD = "model.skops", "model.json"

_TRUSTED = {
    "numpy.dtype",
    "genesis_lab.training.classifiers.SentenceEmbedding",
    "genesis_lab.training.classifiers.BoostedTrees",
    "genesis_lab.training.classifiers.ByLanguage",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
}
"""Types besides skops' own that a model folder may hold: none runs Python code that comes with the file."""
_TRIED = ("pandas", "rich.progress", "sklearn.ensemble._hist_gradient_boosting.binning")
_PACKAGES = ("genesis-lab", "scikit-learn", "skops", "numpy", "xgboost", "xgboost-cpu", "sentence-transformers")


class ModelCard(BaseModel):
    """What is known of a model; written as ``model.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: str
    """features+algorithm; of a model that has one by language ``en: features+algorithm, es: …``"""
    params: dict[str, Value]
    labels: list[str]
    sources: list[Source]
    """The exact data: name, content hash and records of each dataset learned from."""
    embedder: str | None
    """The embedding model that the features come from; None without one."""
    seed: int
    metrics: dict[str, float]
    versions: dict[str, str]
    """Of the packages that a saved model depends on."""
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
        """One `Prediction` per text, with `top` - 1 alternatives; `InvalidInput` where one of them is no text."""
        if isinstance(texts, str):
            raise InvalidInput("predict expects a list of texts, got a single string.")
        if not self.card.labels:
            raise InvalidInput(f"The model is a forecaster ({self.card.candidate}): it reads series, not texts.")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInput(f"predict expects texts, got {text!r} at position {row}.")
        found = []
        for row in self.probabilities(texts) if len(texts) else ():
            best = np.argsort(-row, kind="stable")[: max(1, top)]
            first, *others = [(self.card.labels[column], float(row[column])) for column in best]
            found.append(Prediction(*first, tuple(others)))
        return found

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities, shape ``(len(texts), len(card.labels))``, columns in the order of ``card.labels``."""
        return np.asarray(self.estimator.predict_proba(np.array(normal(list(texts)), dtype=object)), dtype=float)


def model_of(estimator: Any, candidate: str, **about: Any) -> IntentModel:
    """A fitted classifier or forecaster (which has no labels) with its card, the rest of which is given."""
    installed = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    labels = [str(label) for label in getattr(estimator, "classes_", ())]
    card = ModelCard(candidate=candidate, labels=labels, versions=installed, **about)
    return IntentModel(estimator, card)


def model_path(name: str | Path) -> Path:
    """The folder of a model given by bare name (under ``outputs/models``) or by path."""
    return recovered(named("models", name))


def check_place(name: str | Path, content_hash: str, *, replace: bool) -> None:
    """Refuse, before anything is trained, a name under which lies a model of other data, or something else."""
    _free(name, lambda there: [source.content_hash for source in there.sources] == [content_hash], replace)


def save_model(model: IntentModel, name: str | Path, *, replace: bool = False) -> Path:
    """Write the model folder and return it; another model is replaced only where that is said, other things never."""
    io, target = _skops(), _free(name, lambda there: _identity(there) == _identity(model.card), replace)
    with placed(target, replace=True, ours=_is_model) as scratch:
        scratch.mkdir()
        io.dump(model.estimator, scratch / WEIGHTS, compression=ZIP_DEFLATED)
        card = model.card.model_copy(update={"weights_sha256": sha256((scratch / WEIGHTS).read_bytes()).hexdigest()})
        (scratch / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return target


def _free(name: str | Path, same: Callable[[ModelCard], bool], replace: bool) -> Path:
    """The model's folder, unless something else is in it, or a model that is not the `same` and not to be replaced."""
    target = model_path(name)
    if target.exists() and not _is_model(target):
        raise InvalidInput(f"{shown(target)} exists and is not a model folder: choose another name.")
    if (there := _card_of(target)) and not replace and not same(there):
        learned = " and ".join(f"{source.name} ({source.content_hash[:12]})" for source in there.sources)
        what = f"holds another model, {there.candidate} trained on {learned}"
        raise InvalidInput(f"{shown(target)} {what}: choose another name, or set replace.")
    return target


def _identity(card: ModelCard) -> dict[str, Any]:
    """What tells two models apart, whatever packages wrote them and whatever real data they were tested on."""
    figures = {name: round(value, 6) for name, value in card.metrics.items() if not name.startswith("reference_")}
    return card.model_dump(exclude={"versions", "weights_sha256", "metrics"}) | {"metrics": figures}


def _card_of(folder: Path) -> ModelCard | None:
    try:
        return ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_model(folder: Path) -> bool:
    """Whether a folder holds a model that was saved here, be it damaged, and nothing else."""
    held = {file.name for file in folder.iterdir() if file.name[0] != "."} if folder.is_dir() else {"a file"}
    return held <= {WEIGHTS, CARD} and (WEIGHTS in held or _card_of(folder) is not None)


def load_model(name: str | Path) -> IntentModel:
    """The model in a folder of `save_model`; `InvalidInput` where its weights or embedder are not the card's."""
    folder = model_path(name)
    weights, card = folder / WEIGHTS, _card_of(folder)
    if not (folder / CARD).exists():
        raise InvalidInput(f"{shown(folder)} holds no model ({CARD}): train one, or check the name.")
    if card is None:
        raise InvalidInput(f"{CARD} in {shown(folder)} is not a model's card: save the model anew.")
    if not weights.is_file() or sha256(weights.read_bytes()).hexdigest() != card.weights_sha256:
        raise InvalidInput(f"{WEIGHTS} in {shown(folder)} is not the file its card describes: save the model anew.")
    io = _skops()
    kinds = sorted(io.get_untrusted_types(file=weights))
    known = [k for k in kinds if k in _TRUSTED or (k.startswith("sklearn.") and hasattr(locate(k), "get_params"))]
    if strange := sorted({*kinds} - {*known}):
        raise InvalidInput(f"{shown(weights)} holds {strange[0]}, which no intent model needs: not loaded.")
    if card.embedder:
        from genesis_lab.validation.embeddings import MULTILINGUAL, embedder_name

        if card.embedder not in (embedder_name(), embedder_name(MULTILINGUAL)):
            other = f"embeddings of {card.embedder}, but GENESIS_EMBEDDER is {embedder_name()}"
            raise InvalidInput(f"The model was trained on {other}: set it to the model's.")
    try:
        return IntentModel(io.load(weights, trusted=kinds), card)
    except Exception as error:
        saved = ", ".join(f"{package} {number}" for package, number in card.versions.items())
        why = f"can't be read here ({type(error).__name__}); it was written with {saved}"
        raise InvalidInput(f"{shown(weights)} {why}.") from None


def _skops() -> Any:
    """skops' io without all of scikit-learn, whose estimators `load_model` knows, and without what both try in vain."""
    hidden = [name for name in _TRIED if sys.modules.setdefault(name, cast(Any, None)) is None]
    from sklearn import utils

    walk, utils.all_estimators = utils.all_estimators, list
    from skops import io

    utils.all_estimators = walk
    for name in hidden:
        del sys.modules[name]
    return io


def _load_pyfunc(folder: str) -> SimpleNamespace:
    """MLflow's entry: the model in `folder`, which answers a list, a series or a table's first column."""
    model = load_model(Path(folder).resolve())

    def predict(data: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        column = data.iloc[:, 0] if getattr(data, "ndim", 1) == 2 else data
        found = model.predict([str(text) for text in column])
        return [{"label": one.intent, "probability": one.probability} for one in found]

    return SimpleNamespace(predict=predict)
