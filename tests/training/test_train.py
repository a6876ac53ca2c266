from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.training import classifiers
from genesis_lab.training import train as training
from genesis_lab.training.config import presets, train_config
from genesis_lab.training.evaluation import evaluate
from genesis_lab.training.examples import make_examples, make_folds, read_examples, subset
from genesis_lab.training.models import load_model, save_model
from genesis_lab.training.train import continue_training, train
from labelled_texts import labelled, write_dataset


def examples(rows=None, **options):
    texts, labels, languages = zip(*(rows or labelled()), strict=True)
    return make_examples(texts, labels, languages, **options)


def test_a_dataset_is_learned_and_measured_by_language_and_intent(tmp_path):
    dataset = write_dataset(tmp_path / "small", labelled())
    report = train(dataset, train_config("fast", learning_curve=(0.3, 1.0)))
    rows, found = report.rows, report.rows["evaluation"]
    assert rows["n_train"] + rows["n_test"] == dataset.total
    assert rows["sources"][0]["content_hash"] == dataset.content_hash
    assert set(found["per_language"]) == {"en", "es"}
    assert sum(row["recall"]["n"] for row in found["per_label"]) == rows["n_test"]
    assert found["accuracy"]["low"] <= found["accuracy"]["estimate"] <= found["accuracy"]["high"]
    assert found["accuracy"]["estimate"] > 0.8
    assert rows["learning_curve"][-1]["accuracy"] == found["accuracy"]
    assert rows["not_measured"] == {"reference": "no reference was given"}
    json.dumps(rows, allow_nan=False)


def test_the_same_seed_gives_the_same_report():
    config = train_config("fast", candidates=["tfidf+linear_svm"], learning_curve=(0.5,))
    assert train(examples(), config).rows == train(examples(), config).rows


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_a_valid_configuration(preset):
    config = train_config(preset).model_dump()
    assert {name: config[name] for name in presets()[preset]} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in presets()[preset].items()
    }


@pytest.mark.parametrize("algorithm", ["logistic_regression", "linear_svm", "random_forest", "xgboost"])
def test_every_algorithm_learns(algorithm):
    if algorithm == "xgboost":
        pytest.importorskip("xgboost")
    few = {"random_forest": {"n_estimators": 20}, "xgboost": {"n_estimators": 5}}.get(algorithm, {})
    report = train(examples(), train_config(candidates=[f"tfidf_words+{algorithm}"], params={algorithm: few}))
    assert report.rows["evaluation"]["accuracy"]["estimate"] > 0.6
    chances = report.model.probabilities(["my card has not arrived"])
    assert chances.sum() == pytest.approx(1, abs=1e-5)


def test_without_xgboost_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(classifiers, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install"):
        train(examples(), train_config(candidates=["tfidf+xgboost"]))


@pytest.mark.parametrize("how", ["random", "halving"])
def test_a_search_reports_its_choice_and_never_sees_the_test_split(how, monkeypatch):
    seen = set()
    original = classifiers.Pipeline.fit

    def spy(self, X, y=None, **rest):
        seen.update(X)
        return original(self, X, y, **rest)

    rows = labelled()
    held = [("hidden " + text, intent, language) for text, intent, language in rows[::5]]
    split = ["train"] * len(rows) + ["test"] * len(held)
    monkeypatch.setattr(classifiers.Pipeline, "fit", spy)
    config = train_config(candidates=["tfidf_words+linear_svm"], search=how, search_trials=4, folds=2)
    report = train(examples(rows + held, split=split), config)
    assert report.rows["n_test"] == len(held)
    assert not any(text.startswith("hidden") for text in seen)
    best = report.rows["candidates"][0]
    assert best["params"] == report.rows["params"] and best["measured_on"] == "search folds"
    assert "C" in best["params"]


def test_several_candidates_are_compared_on_validation_records():
    poor = {"random_forest": {"n_estimators": 1, "max_depth": 1}}
    english = examples([row for row in labelled() if row[2] == "en"])
    report = train(english, train_config(candidates=["tfidf_words+random_forest", "tfidf+linear_svm"], params=poor))
    best, other = report.rows["candidates"]
    assert best["measured_on"] == other["measured_on"] == "validation"
    assert report.rows["chosen"] == best["candidate"] == "tfidf+linear_svm"
    assert best["interval"]["estimate"] > other["interval"]["estimate"]


class English(classifiers.SentenceEmbedding):
    """Vectors of a model that reads English and nothing else."""

    def transform(self, X):
        words = ["card", "post", "sent", "rate", "dollars", "fair", "pin", "code", "reset"]
        return np.array([[word in text for word in words] for text in X], dtype=float)


def test_each_language_is_answered_by_what_works_in_it(monkeypatch):
    monkeypatch.setattr(training, "COMPARED", 150)
    monkeypatch.setattr(classifiers, "SentenceEmbedding", English)
    weak = {"random_forest": {"n_estimators": 5, "max_depth": 3}}
    candidates = ["embeddings+logistic_regression", "tfidf_words+random_forest"]
    report = train(examples(), train_config(candidates=candidates, params=weak))
    assert report.rows["chosen"] == "en: embeddings+logistic_regression, es: tfidf_words+random_forest"
    assert report.rows["params"] == {f"random_forest.{name}": value for name, value in weak["random_forest"].items()}
    assert "Candidates were compared on 150 of 173 records." in report.rows["messages"]
    said = [message for message in report.rows["messages"] if "does best" in message]
    assert len(said) == 2 and "In Spanish tfidf_words+random_forest does best: embeddings" in said[1]
    assert [row["measured_on"] for row in report.rows["candidates"]] == ["folds by language"] * 3
    assert report.rows["evaluation"]["per_language"]["es"]["estimate"] > 0.4


def test_a_model_with_a_candidate_by_language_is_kept_and_continued(monkeypatch, tmp_path):
    chosen = "en: tfidf_words+logistic_regression, es: tfidf+linear_svm"
    report = train(examples(), chosen=(chosen, {"linear_svm.C": 2.0}))
    assert report.rows["chosen"] == chosen and report.rows["params"] == {"linear_svm.C": 2.0}
    parts = report.model.estimator.parts
    assert parts["es"].estimator.steps[-1][1].C == 2.0 and list(parts) == ["en", "es"]
    asked = ["where is my card", "dónde está mi tarjeta", "??"]
    again = load_model(save_model(report.model, tmp_path / "m"))
    np.testing.assert_allclose(again.probabilities(asked), report.model.probabilities(asked), rtol=1e-5)
    assert [one.intent for one in again.predict(asked[:2])] == ["card_arrival"] * 2
    more = examples([row for row in labelled() if row[1] != "change_pin"][::2], name="more")
    assert continue_training(again, more, earlier=examples()).rows["chosen"] == chosen


def test_cross_validation_tests_every_record_once():
    data = examples()
    report = train(data, train_config("cross_validation", folds=3))
    assert report.rows["evaluation"]["accuracy"]["n"] == len(data) == report.rows["n_train"]
    assert report.rows["evaluation"]["name"] == "3-fold cross-validation"


def test_groups_never_straddle_a_fold():
    rows = labelled()
    groups = np.arange(len(rows)) // 4
    for kept, held in make_folds(examples(rows, groups=groups), 3, 1, []):
        assert not set(groups[kept]) & set(groups[held])


def test_equal_wording_is_one_group_even_across_given_splits():
    rows = labelled()
    copies = [(text.upper() + "!", intent, language) for text, intent, language in rows[:30:3]]
    split = ["train"] * len(rows) + ["test"] * len(copies)
    report = train(examples(rows + copies, split=split), train_config("quick_test"))
    assert report.rows["n_train"] == len(rows) - len(copies)
    assert any("repeat a test record" in message for message in report.rows["messages"])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("per_group", [1, 4])
def test_the_test_split_is_as_large_as_asked_for(share, per_group):
    rows = labelled()
    report = train(
        examples(rows, groups=np.arange(len(rows)) // per_group), train_config("quick_test", test_share=share)
    )
    assert abs(report.rows["n_test"] - share * len(rows)) <= per_group
    assert len({result["label"] for result in report.rows["evaluation"]["per_label"]}) == 3


def test_many_intents_with_one_wording_leave_the_split_of_the_others_as_it_was():
    single = [(f"note {number}{mark}", f"note_{number}", "en") for number in range(40) for mark in ("", "!")]
    report = train(examples([*labelled(), *single]), train_config("fast", test_share=0.5))
    assert report.rows["n_test"] == pytest.approx(108, abs=1)


@pytest.mark.parametrize("openings", [["close it"], ["close it", "shut my account"]])
def test_a_scarce_intent_leaves_the_split_of_the_others_as_it_was(openings):
    scarce = [(text, "close_account", "en") for text in openings] + [(f"{openings[0].upper()}!", "close_account", "en")]
    report = train(examples([*labelled(), *scarce]), train_config("quick_test", test_share=0.2))
    others = [
        result["recall"]["n"] for result in report.rows["evaluation"]["per_label"] if result["label"] != "close_account"
    ]
    assert len(others) == 3 and sum(others) == pytest.approx(0.2 * 216, abs=1)
    assert "close_account" in report.model.card.labels


def test_an_intent_that_can_not_be_tested_is_learned_and_named():
    rows = [*labelled(), ("close it", "close_account", "en"), ("Close it!", "close_account", "en")]
    report = train(examples(rows), train_config("quick_test"))
    assert "close_account" in report.model.card.labels
    assert [
        result["label"] for result in report.rows["evaluation"]["per_label"] if result["label"] == "close_account"
    ] == []
    assert "Learned but not tested, for want of distinct openings: close_account." in report.rows["messages"]


def test_no_intent_is_only_in_the_test_split():
    """Large groups of copies and an even share are what could take an intent as a whole."""
    names = ["apples", "bread", "cheese", "dates", "eggs"]
    rows = [(f"buy {name} {'now' if number < 7 else 'later'}", name, "en") for name in names for number in range(14)]
    for seed in range(5):
        report = train(examples(rows), train_config("quick_test", test_share=0.5, seed=seed))
        assert report.model.card.labels == names and report.rows["n_test"] == 35


@pytest.mark.parametrize("options", [{"evaluation": "cross_validation"}, {"search": "random"}])
def test_a_scarce_intent_costs_the_others_no_fold(options):
    scarce = [("close it", "close_account", "en"), ("shut my account", "close_account", "en")]
    config = train_config("fast", candidates=["tfidf+linear_svm"], folds=5, search_trials=2, **options)
    report = train(examples([*labelled(), *scarce]), config)
    assert report.rows["evaluation"]["name"] in ("test", "5-fold cross-validation")
    assert any("close_account" in message for message in report.rows["messages"])
    assert "close_account" in report.model.card.labels


@pytest.mark.parametrize("intents", [2, 3])
def test_an_intent_with_one_wording_spoils_no_calibration(intents):
    known = ["card_arrival", "change_pin", "exchange_rate"][:intents]
    rows = [row for row in labelled() if row[1] in known]
    rows += [("close it", "close_account", "en"), ("Close it!", "close_account", "en")]
    report = train(examples(rows), train_config(candidates=["tfidf+linear_svm"], test_share=0.4))
    assert report.rows["evaluation"]["accuracy"]["estimate"] > 0.9 and report.rows["evaluation"]["ece"] < 0.1


def test_too_few_openings_to_hold_any_out_is_one_sentence():
    rows = [
        ("how do I pay", "pay", "en"),
        ("How do I pay?", "pay", "en"),
        ("my pin", "pin", "en"),
        ("My pin!", "pin", "en"),
    ]
    with pytest.raises(InvalidInput, match="4 records are too few to hold some out"):
        train(examples(rows), train_config("quick_test"))


def test_a_real_reference_is_measured_beside_the_test_split():
    reference = SimpleNamespace(
        name="real",
        language="en",
        texts=["card is not here yet", "new pin", "what?"],
        labels=["card_arrival", "change_pin", "x"],
    )
    report = train(examples(), reference=reference)
    assert report.rows["reference"]["accuracy"]["n"] == 2
    assert any("1 of 3 reference texts" in message for message in report.rows["messages"])


def test_calibration_lowers_the_error_of_an_underconfident_model():
    rows = labelled()
    plain = train(examples(rows), train_config(params={"logistic_regression": {"C": 0.05}}))
    scaled = train(examples(rows), train_config(params={"logistic_regression": {"C": 0.05}}, calibration="temperature"))
    assert scaled.rows["evaluation"]["ece"] < plain.rows["evaluation"]["ece"]
    bins = scaled.rows["evaluation"]["reliability"]
    assert sum(b["accuracy"]["n"] for b in bins) == scaled.rows["n_test"]


def test_results_and_confusions_count_every_record():
    found = train(
        examples(), train_config("cross_validation", candidates=["tfidf_words+logistic_regression"], folds=2)
    ).rows["evaluation"]
    right = sum(row["recall"]["estimate"] * row["recall"]["n"] for row in found["per_label"])
    wrong = sum(row["count"] for row in found["confusions"])
    assert right == pytest.approx(found["accuracy"]["estimate"] * found["accuracy"]["n"])
    assert right + wrong == pytest.approx(216)


def test_a_subset_keeps_two_of_each_intent():
    rare = [("close it", "close_account", "en"), ("shut my account", "close_account", "en")]
    small = subset(examples([*labelled(), *rare]), 12, 3)
    assert len(small) == 12
    assert min(np.unique(small.labels, return_counts=True)[1]) == 2 and "close_account" in small.labels


def test_figures_are_those_of_scikit_learn():
    labels = np.array(["a", "a", "a", "b", "b", "c"])
    predicted = np.array(["a", "b", "a", "b", "c", "d"])
    found = evaluate("t", labels, predicted, np.full(6, 0.75), np.array(["en"] * 4 + ["es"] * 2), seed=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=["a", "b", "c"], zero_division=0
    )
    by_intent = {row["label"]: row for row in found["per_label"]}
    assert [by_intent[name]["f1"] for name in "abc"] == pytest.approx(list(f1))
    assert [by_intent[name]["precision"] for name in "abc"] == pytest.approx(list(precision))
    assert [by_intent[name]["recall"]["estimate"] for name in "abc"] == pytest.approx(list(recall))
    assert found["macro_f1"]["estimate"] == pytest.approx(f1.mean()) and found["accuracy"]["estimate"] == 0.5
    assert {name: one["estimate"] for name, one in found["per_language"].items()} == {"en": 0.75, "es": 0.0}
    assert found["ece"] == pytest.approx(0.25)
    assert [tuple(row.values()) for row in found["confusions"]] == [("a", "b", 1), ("b", "c", 1), ("c", "d", 1)]


def test_another_seed_is_another_split():
    reports = [train(examples(), train_config("quick_test", seed=seed)) for seed in (1, 2, 3)]
    assert len({str(report.rows["evaluation"]) for report in reports}) > 1


def test_a_record_that_names_no_language_is_in_an_unknown_one(tmp_path):
    dataset = write_dataset(tmp_path / "some", [*labelled(), ("new pin please", "change_pin", None)])
    assert read_examples(dataset)[0].languages.tolist()[-1] == "unknown"


def test_records_without_text_or_intent_are_left_out_and_counted(tmp_path):
    rows = labelled()
    dataset = write_dataset(tmp_path / "broken", [*rows, ("", "change_pin", "en"), ("hello", None, None)])
    found, messages = read_examples(dataset)
    assert len(found) == len(rows)
    assert messages == [f"2 of {len(rows) + 2} records have no opening text or no intent and were left out."]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("hello", "a", "en"), ("bye", "a", "en")], "at least 2 intents, got only 'a'"),
        ([("hello", "a", "en")], "at least 2 intents"),
        ([("hello", "a", "en"), ("hi", "a", "en"), ("bye", "b", "en")], "at least 2 intents, got only 'a'"),
        ([("a", "a", "en"), ("b", "a", "en"), ("c", "b", "en"), ("d", "b", "en")], "share no words"),
    ],
)
def test_what_can_not_be_learned_is_one_sentence(rows, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        train(examples(rows), train_config("quick_test"))


def test_an_empty_dataset_is_one_sentence():
    with pytest.raises(InvalidInput, match="got none in 0 records"):
        train(make_examples([], []))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "quickest"}, "did you mean quick_test"),
        ({"fold": 3}, "fold is not known here"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"folds": "many"}, "folds must be a whole number"),
        ({"candidates": ["tfidf+lstm"]}, "'tfidf\\+lstm' is not features\\+algorithm"),
        ({"params": {"svm": {}}}, "params"),
    ],
)
def test_wrong_settings_are_one_sentence(options, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        train_config(**options)


def test_an_unknown_setting_of_an_algorithm_is_named():
    with pytest.raises(InvalidInput, match="logistic_regression has no setting 'depth'; it has C"):
        train(examples(), train_config(params={"logistic_regression": {"depth": 3}}))
