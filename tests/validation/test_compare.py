"""Two datasets side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genesis_lab.dataset import Dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.training.examples import make_examples
from genesis_lab.training.scorecard import worth
from genesis_lab.validation.compare import compare
from validation.real_and_synthetic import INTENTS, dataset, reference, utterances


def made(
    path: Path, each: int, clear: float = 0.25, seed: int = 3, intents: tuple[str, ...] = INTENTS
) -> tuple[Dataset, dict]:
    """A dataset and its scorecard."""
    texts, labels = utterances(intents, each, np.random.default_rng(seed), clear)
    card = worth(make_examples(texts, labels), reference(each=25), embeddings=False)
    return dataset(path, texts, labels), card


def test_the_dataset_that_teaches_better_is_named_with_its_corrected_p(tmp_path: Path) -> None:
    (good, card), (poor, poor_card) = made(tmp_path / "good", 20), made(tmp_path / "poor", 20, clear=0.02)
    found = compare(good, poor, scorecards=(card, poor_card))
    assert [one["verdict"] for one in found["worth"]] == ["a is better"]
    first = found["worth"][0]
    assert first["difference"]["low"] > 0 and first["p"] <= first["p_holm"] < 0.05
    assert first["difference"]["estimate"] == pytest.approx(first["accuracy_a"] - first["accuracy_b"])
    assert found["verdict"].startswith("good teaches better on errands test (n = 100) (TF-IDF")
    assert compare(poor, good, scorecards=(poor_card, card))["verdict"].startswith("good teaches better")


def test_a_dataset_does_not_differ_from_itself(tmp_path: Path) -> None:
    one, card = made(tmp_path / "one", 8)
    found = compare(one, one, scorecards=(card, card))
    assert [w["verdict"] for w in found["worth"]] == ["equivalent"]
    assert found["verdict"].startswith("Both teach equally well")
    intent = found["attributes"][0]
    assert (intent["total_variation"], intent["differs"], intent["p_holm"]) == (0.0, False, 1.0)


def test_distributions_that_differ_are_told_apart(tmp_path: Path) -> None:
    (all_four, _), (two, _) = made(tmp_path / "a", 30), made(tmp_path / "b", 30, intents=INTENTS[:2])
    found = {one["attribute"]: one for one in compare(all_four, two)["attributes"]}
    assert found["intent"]["differs"] and found["intent"]["total_variation"] == pytest.approx(0.5)
    assert found["language"]["p"] is None and not found["language"]["differs"]


def test_few_records_that_differ_by_chance_do_not_differ(tmp_path: Path) -> None:
    a = dataset(tmp_path / "a", [f"a {i}" for i in range(5)], [*INTENTS[:1] * 3, *INTENTS[1:2] * 2])
    b = dataset(tmp_path / "b", [f"b {i}" for i in range(5)], [*INTENTS[1:2] * 5])
    (intent,) = (one for one in compare(a, b)["attributes"] if one["attribute"] == "intent")
    assert intent["p"] == pytest.approx(1 / 6) and not intent["differs"]  # Fisher's; chi-square would say 0.04


def test_sizes_and_quality_stand_side_by_side(tmp_path: Path) -> None:
    (a, _), (b, _) = made(tmp_path / "a", 3), made(tmp_path / "b", 5)
    reports = (
        {"overall": 91.5, "diversity": {"value": 0.8}, "verdict": "PASS"},
        {"overall": 84, "diversity": {"value": None}},
    )
    found = compare(a, b, quality=reports)
    assert found["sizes"] == {"all": (12, 20), "train": (12, 20)}
    assert found["quality"] == {"overall": (91.5, 84.0), "diversity.value": (0.8, None)}
    json.dumps(found)


def test_what_can_not_be_compared_says_why(tmp_path: Path) -> None:
    one, card = made(tmp_path / "one", 3)
    found = compare(one, one, scorecards=(card, None))
    assert found["not_measured"]["worth"] == "no scorecard of one"
    assert found["not_measured"]["quality"] == "no quality report of one"
    assert found["not_measured"]["sentiment"] == "no values on one side"
    assert found["verdict"] == "Worth not compared: no scorecard of one."
    few = make_examples(*utterances(INTENTS, 3, np.random.default_rng(0)))
    other = worth(few, reference(seed=9), embeddings=False)
    assert "different reference items" in compare(one, one, scorecards=(card, other))["not_measured"]["worth"]


def test_datasets_of_different_domains_are_refused(tmp_path: Path) -> None:
    one, _ = made(tmp_path / "one", 1)
    series = Dataset(one.path, one.manifest | {"domain": "timeseries"})
    with pytest.raises(InvalidInput, match="got 'conversations' and 'timeseries'"):
        compare(one, series)
