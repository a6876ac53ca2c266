"""Which intents a set mixes up, on itself and on real messages, and what a round of contrasts gained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genesis_lab.domains.conversations.domain import ConversationsConfig
from genesis_lab.errors import InvalidInput
from genesis_lab.training.contrast import confusions, gain
from genesis_lab.training.examples import labelled_texts, make_examples
from labelled_texts import labelled, write_dataset
from validation.real_and_synthetic import INTENTS, utterances

pytestmark = pytest.mark.usefixtures("words_only")


def mixed_up() -> list[tuple[str, str, str]]:
    """Half of the English messages about a pin are said to be about a card."""
    rng = np.random.default_rng(0)
    wrong = {("change_pin", "en"): "card_arrival"}
    return [
        (text, wrong.get((intent, language), intent) if rng.random() < 0.5 else intent, language)
        for text, intent, language in labelled()
    ]


def test_the_pair_that_a_set_mixes_up_comes_first_from_both_sides(tmp_path) -> None:
    dataset = write_dataset(tmp_path / "d", mixed_up())
    first, second, *_ = confusions(dataset, top=1)
    assert [first["intent"], first["against"], first["language"]] == ["card_arrival", "change_pin", "en"]
    assert [second["intent"], second["against"]] == ["change_pin", "card_arrival"]
    assert first["n"] > 8 == len(first["mixed"]) and set(first["mixed"].values()) <= {"card_arrival", "change_pin"}
    asked = [row | {"n": 5} for row in (first, second)]
    assert ConversationsConfig(records="utterances", taxonomy=taxonomy(tmp_path), cells=asked, total=10)


def taxonomy(folder: Path) -> str:
    names = ("card_arrival", "change_pin", "exchange_rate")
    one = "  - name: {0}\n    category: cards\n    description: {{en: About {0}, es: Sobre {0}}}\n"
    path = folder / "mine.yaml"
    path.write_text("name: mine\ntitle: {en: a bank, es: un banco}\nintents:\n" + "".join(map(one.format, names)))
    return str(path)


def test_what_is_mixed_up_of_the_seeds_weighs_more_and_is_shown_first(tmp_path) -> None:
    dataset = write_dataset(tmp_path / "d", labelled())
    seeds = make_examples(["is my new pin at a fair rate"], ["exchange_rate"], ["en"])
    clean = confusions(dataset)
    found = confusions(dataset, seeds, top=1)
    assert len(clean) < 4, "texts of these intents are easily told apart"
    assert {found[0]["intent"], found[0]["against"]} == {"exchange_rate", "change_pin"}
    assert found[0]["mixed"] == {"is my new pin at a fair rate": "exchange_rate"}
    unknown = make_examples(["fly me to the moon"], ["travel"], ["en"])
    assert confusions(dataset, unknown) == clean


def test_seeds_come_from_a_file_a_dataset_or_lists(tmp_path) -> None:
    file = tmp_path / "seeds.csv"
    file.write_text("text,label\nwhere is my card,card_arrival\n¿dónde está mi tarjeta?,card_arrival\nok,change_pin\n")
    read = labelled_texts(str(file))
    assert read.labels.tolist() == ["card_arrival", "card_arrival", "change_pin"]
    assert read.languages.tolist()[:2] == ["en", "es"]
    dataset = write_dataset(tmp_path / "d", labelled())
    assert len(labelled_texts(dataset)) == len(labelled_texts(str(dataset.path))) == 216
    file.write_text("frase,clase\nhola,x\n")
    with pytest.raises(InvalidInput, match=r"seeds\.csv holds no labelled texts: it must have columns text and label"):
        labelled_texts(str(file))


def test_a_gain_is_held_against_the_set_before_on_messages_held_out() -> None:
    rng = np.random.default_rng(3)
    held_out = make_examples(*utterances(INTENTS, 40, rng), ["en"] * 160)
    few, more = (make_examples(*utterances(INTENTS, n, rng), ["en"] * 4 * n) for n in (1, 12))
    first = gain(None, few, held_out)
    assert (first["gain"], first["verdict"]) == (None, None) and first["accuracy"]["n"] == 160
    grown = gain(few, [few, more], held_out)
    assert grown["verdict"] == "better" and grown["gain"]["low"] > 0
    assert grown["accuracy"]["estimate"] - first["accuracy"]["estimate"] == pytest.approx(grown["gain"]["estimate"])
    assert gain(more, more, held_out)["verdict"] == "equivalent"


def test_each_language_is_measured_by_its_own_model() -> None:
    texts, labels, languages = zip(*labelled(), strict=True)
    whole = make_examples(texts, labels, languages)
    english = whole.take(whole.languages == "en")
    assert gain(english, whole, whole)["accuracy"]["estimate"] > 0.95
    assert gain(None, english, whole)["accuracy"]["estimate"] == pytest.approx(0.5, abs=0.05)
