"""The classifiers: features × algorithm, each an sklearn pipeline from text to label."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.svm import LinearSVC

from genesis_lab.domains.language import detect
from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.training.config import Value

Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


class SentenceEmbedding(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Texts → unit-length vectors of an embedding model (empty: see `embed`); nothing is fitted."""

    model = ""  # of one that was saved before models were named

    def __init__(self, model: str = "") -> None:
        self.model = model

    def fit(self, X: Sequence[str], y: Any = None) -> SentenceEmbedding:
        return self

    def transform(self, X: Sequence[str]) -> NDArray[np.float32]:
        from genesis_lab.validation.embeddings import embed

        return embed(list(X), model=self.model)

    def __sklearn_is_fitted__(self) -> bool:
        return True


class BoostedTrees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """XGBoost with names as labels (its own classifier wants the integers 0…n-1)."""

    def __init__(
        self, n_estimators: int = 60, max_depth: int = 4, learning_rate: float = 0.2, random_state: int = 0
    ) -> None:
        self.n_estimators, self.max_depth = n_estimators, max_depth
        self.learning_rate, self.random_state = learning_rate, random_state

    def fit(self, X: Any, y: Any) -> BoostedTrees:
        from xgboost import XGBClassifier

        fixed = {"tree_method": "hist", "subsample": 0.8, "colsample_bytree": 0.3, "n_jobs": 1}
        encoder = LabelEncoder()
        self.model_ = XGBClassifier(**self.get_params(), **fixed).fit(X, encoder.fit_transform(y))
        self.classes_ = encoder.classes_
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        return np.asarray(self.model_.predict_proba(X))

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class ByLanguage(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Fitted classifiers of the same labels: each answers texts in its language, the first also those in none."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts

    @property
    def classes_(self) -> NDArray[Any]:
        return np.asarray(next(iter(self.parts.values())).classes_)

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float64]:
        first, texts = next(iter(self.parts)), np.asarray(X, dtype=object)
        language = np.array([told if (told := detect(text)) in self.parts else first for text in X])
        chances = np.zeros((len(texts), len(self.classes_)))
        for name in np.unique(language).tolist():
            chances[language == name] = self.parts[name].predict_proba(texts[language == name])
        return chances


def build(candidate: str, params: Mapping[str, Value], seed: int, *, min_df: int = 2, embedder: str = "") -> Any:
    """An unfitted pipeline of steps ``features`` and ``classifier``, from a candidate of `TrainConfig`.

    The algorithm's `params` go by scikit-learn's names (`InvalidInput` for one that it has not). A character n-gram
    must occur in `min_df` texts: one seen once teaches nothing, and takes two thirds of the time.
    """
    features, _, algorithm = candidate.partition("+")
    if algorithm == "xgboost" and find_spec("xgboost") is None:
        raise MissingDependency("xgboost", "The algorithm xgboost", "pip install 'genesis-lab[xgboost]'")
    classifier = {
        "logistic_regression": LogisticRegression(C=10, max_iter=300, random_state=seed),
        "linear_svm": LinearSVC(C=0.5, random_state=seed),
        "random_forest": RandomForestClassifier(n_estimators=200, random_state=seed),
        "xgboost": BoostedTrees(random_state=seed),
    }[algorithm]
    known = classifier.get_params()
    for name in params:
        if name not in known:
            raise InvalidInput(f"{algorithm} has no setting {name!r}; it has {', '.join(sorted(known))}.")
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=min_df, dtype=np.float32
    )
    tfidf, meaning = [("words", words), ("characters", characters)], SentenceEmbedding(embedder)
    read = {
        "tfidf": FeatureUnion(tfidf),
        "tfidf_words": words,
        "embeddings": meaning,
        "tfidf_embeddings": FeatureUnion([*tfidf, ("meaning", meaning)]),
    }[features]
    return Pipeline([("features", read), ("classifier", classifier.set_params(**params))])


def fitted(estimator: Any, texts: Sequence[Any] | NDArray[Any], labels: NDArray[Any]) -> Any:
    """`estimator`, fitted; without scikit-learn's warnings on scarce labels, which are put in words elsewhere."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return estimator.fit(texts, labels)
    except ValueError as error:
        if "vocabulary" not in str(error) and "no terms remain" not in str(error):
            raise
        raise InvalidInput(
            f"The {len(texts)} training texts share no words or characters to learn from: check which field is read as "
            "the text."
        ) from None


def calibration_method(chosen: str, candidate: str) -> str | None:
    """How a candidate is calibrated under `TrainConfig.calibration`; None: its probabilities stay as they are.

    By temperature (Guo et al. 2017), before scikit-learn 1.8, which brought that, by Platt's sigmoid.
    """
    import sklearn

    if chosen == "auto" and not candidate.endswith("+linear_svm"):
        return None
    return "temperature" if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 8) else "sigmoid"
