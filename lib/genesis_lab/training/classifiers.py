"""The model zoo: features × algorithm, each an sklearn pipeline from text to intent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.svm import LinearSVC

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.training.config import Value

Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


class SentenceEmbedding(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Texts → unit-length vectors of the workbench's embedding model; nothing is fitted."""

    def fit(self, X: Sequence[str], y: Any = None) -> SentenceEmbedding:
        return self

    def transform(self, X: Sequence[str]) -> NDArray[np.float32]:
        from genesis_lab.validation.embeddings import embed

        return embed(list(X))

    def __sklearn_is_fitted__(self) -> bool:
        return True


class BoostedTrees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """XGBoost with intents as labels (its own classifier wants the integers 0…n-1)."""

    def __init__(
        self, n_estimators: int = 60, max_depth: int = 4, learning_rate: float = 0.2, random_state: int = 0
    ) -> None:
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> BoostedTrees:
        from xgboost import XGBClassifier

        self.encoder_ = LabelEncoder().fit(y)
        self.classes_ = self.encoder_.classes_
        self.model_ = XGBClassifier(
            **self.get_params(), tree_method="hist", subsample=0.8, colsample_bytree=0.3, n_jobs=1
        ).fit(X, self.encoder_.transform(y))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        return np.asarray(self.model_.predict_proba(X))

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def build(candidate: str, params: Mapping[str, Value], seed: int) -> Any:
    """An unfitted pipeline of steps ``features`` and ``classifier``.

    Parameters
    ----------
    candidate : ``features+algorithm``, as in `TrainConfig.candidates`.
    params : the algorithm's own settings, by scikit-learn's names.

    Raises
    ------
    InvalidInput : the algorithm has no such setting.
    MissingDependency : `candidate` needs XGBoost, which is not installed.
    """
    features, _, algorithm = candidate.partition("+")
    classifier = _classifier(algorithm, seed)
    known = classifier.get_params()
    for name in params:
        if name not in known:
            raise InvalidInput(f"{algorithm} has no setting {name!r}; it has {', '.join(sorted(known))}.")
    return Pipeline([("features", _features(features)), ("classifier", classifier.set_params(**params))])


def calibrated(pipeline: Any, folds: Folds, method: str) -> Any:
    """`pipeline` with probabilities calibrated on out-of-fold scores within the training records."""
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(pipeline, method=method, cv=list(folds), ensemble=False)


def calibration_method(chosen: str, algorithm: str) -> str | None:
    """The method that `TrainConfig.calibration` stands for, None for no calibration.

    Temperature scaling (Guo et al. 2017) fits one number; on scikit-learn before 1.8 `auto` means sigmoid (Platt).
    """
    import sklearn

    has_temperature = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 8)
    if chosen == "temperature" and not has_temperature:
        raise MissingDependency("scikit-learn 1.8", "calibration: temperature", "pip install -U scikit-learn")
    if algorithm == "linear_svm" and chosen in ("auto", "none"):
        return "temperature" if has_temperature else "sigmoid"
    return None if chosen in ("auto", "none") else chosen


def _features(name: str) -> Any:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    # A character n-gram seen once teaches nothing; without it logistic regression fits in a third of the time.
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2, max_df=1.0, dtype=np.float32
    )
    if name == "embeddings":
        return SentenceEmbedding()
    if name == "tfidf_words":
        return words
    return FeatureUnion([("words", words), ("characters", characters)])


def _classifier(algorithm: str, seed: int) -> Any:
    if algorithm == "logistic_regression":
        return LogisticRegression(C=10, max_iter=300, random_state=seed)
    if algorithm == "linear_svm":
        return LinearSVC(C=0.5, random_state=seed)
    if algorithm == "random_forest":
        return RandomForestClassifier(n_estimators=200, random_state=seed)
    if algorithm == "sgd":
        return SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=50, random_state=seed)
    if find_spec("xgboost") is None:
        raise MissingDependency("xgboost", "The algorithm xgboost", "pip install 'genesis-lab[xgboost]'")
    return BoostedTrees(random_state=seed)
