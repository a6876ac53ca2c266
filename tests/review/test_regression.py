"""Cases, who answers them, folders of rasa test, and what can be said of two models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.review.cases import add_cases, list_cases, make_case, read_cases
from genesis_lab.review.predictors import Predictor, of_classifier, predictor
from genesis_lab.review.regression import compare
from genesis_lab.review.retraining import train_classifier
from genesis_lab.review.store import open_store

BOT = Path(__file__).resolve().parents[2] / "params" / "samples" / "bot"
TESTED = BOT / "test_nlu.yml"


def answers(name="a model", **said):
    """A predictor that says these intents of these texts, and nothing of others."""

    def one(intent):
        return {"intent": intent, "confidence": 0.9, "fallback": False, "entities": None}

    return Predictor(name, lambda cases, told: [one(said[c["text"]]) if c["text"] in said else None for c in cases])


def cases(**texts):
    return [make_case("here", text=text, intent=intent) for text, intent in texts.items()]


def test_our_classifier_and_a_folder_of_rasa_answer_the_bots_own_test_set():
    given = read_cases(TESTED)
    ours = of_classifier("ours", train_classifier(BOT).model)
    report = compare(given, ours, predictor(BOT / "results", training=BOT))
    assert [side["accuracy"]["n"] for side in report["sides"]] == [6, 6] and report["pair"][
        "verdict"
    ] == "can't be told"
    assert report["sides"][0]["entities"] is None and report["sides"][1]["entities"]["n"] == 6
    assert len(json.dumps(report)) > 100


def test_what_broke_and_what_was_mended_is_listed_and_judged_by_the_interval():
    texts = {f"t{i}": "a" for i in range(30)}
    worse = compare(
        cases(**texts), answers(**{t: "b" if i < 12 else "a" for i, t in enumerate(texts)}), answers(**texts)
    )
    assert worse["verdict"].startswith("it broke more than it mended: 12 broke, 0 mended, of 30")
    assert [row["what"] for row in worse["changes"]] == ["broke"] * 12 and worse["changes"][0]["was understood"] == "a"
    few = compare(cases(**texts), answers(**texts | {"t3": "b"}), answers(**texts | {"t4": "b"}))
    assert "can be told" in few["verdict"] and [row["what"] for row in few["changes"]] == ["broke", "mended"]


def test_a_case_that_one_side_did_not_answer_is_left_out_and_said():
    report = compare(cases(x="a", y="a"), answers(x="a"), answers(x="a", y="b"))
    assert report["sides"][0]["accuracy"]["n"] == 1 and "1 of 2 cases were not answered by both" in report["notes"][0]
    assert "no case was answered by both" in compare(cases(x="a"), answers(x="a"), answers())["verdict"]


def test_a_text_is_one_case_and_a_contradiction_writes_nothing():
    store = open_store()
    ids = add_cases(store, [*cases(hola="saludar"), *cases(hola="saludar", adios="despedir")])
    assert ids == [1, 1, 2] and add_cases(store, cases(adios="despedir")) == [2]
    with pytest.raises(InvalidInput, match="despedir and of saludar"):
        add_cases(store, cases(nuevo="x", adios="saludar"))
    assert [one["text"] for one in list_cases(store)] == ["hola", "adios"]
