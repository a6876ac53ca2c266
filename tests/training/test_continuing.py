from __future__ import annotations

import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.training.config import train_config
from genesis_lab.training.examples import join, make_examples
from genesis_lab.training.train import continue_training, train
from labelled_texts import labelled

ENGLISH = [row for row in labelled() if row[2] == "en"]
SPANISH = [row for row in labelled() if row[2] == "es"]


def examples(rows, name):
    texts, labels, languages = zip(*rows, strict=True)
    return make_examples(texts, labels, languages, name=name)


OLD, NEW = examples(ENGLISH, "english"), examples(SPANISH, "spanish")


def test_with_the_earlier_data_the_model_is_fitted_anew_on_both():
    first = train(OLD, train_config(candidates=["tfidf+linear_svm"], params={"linear_svm": {"C": 2.0}}))
    second = continue_training(first.model, NEW, earlier=OLD)
    rows, continued = second.rows, second.rows["continued"]
    assert rows["chosen"] == "tfidf+linear_svm" and rows["params"] == {"C": 2.0}
    assert continued["how"] == "tfidf+linear_svm fitted anew on english (108) and spanish (108)"
    assert continued["after"]["estimate"] > continued["before"]["estimate"]
    assert continued["compared"]["verdict"] == "better"
    assert set(rows["evaluation"]["per_language"]) == {"en", "es"}
    assert [source.name for source in second.model.card.sources] == ["english", "spanish"]


def test_a_continued_model_can_be_continued_again():
    first = train(OLD, train_config("fast"))
    second = continue_training(first.model, NEW, earlier=OLD)
    third = continue_training(second.model, examples(ENGLISH[:9] + SPANISH[30:], "more"), earlier=join(OLD, NEW))
    assert len(third.model.card.sources) == 3


def test_what_can_not_be_continued_is_one_sentence():
    model = train(OLD, train_config("fast")).model
    with pytest.raises(InvalidInput, match=r"spanish \(.*\) is not what the model was trained on: english"):
        continue_training(model, OLD, earlier=NEW)


def test_an_intent_with_a_single_example_is_left_out_as_in_any_training():
    model = train(OLD, train_config("fast")).model
    rare = examples([("close it", "close_account", "en"), *SPANISH], "closing")
    continued = continue_training(model, rare, earlier=OLD)
    assert continued.rows["messages"] == ["Left out for having a single example: close_account."]
    assert continued.model.card.labels == model.card.labels
