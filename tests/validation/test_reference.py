"""Where the reference is found, what it says of itself, and what happens when it is nowhere."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.files import output_root
from genesis_lab.settings import get_settings
from genesis_lab.validation.reference import Reference, fetch_reference, for_worth, load_reference


def write_csv(
    folder: Path, split: str, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "category")
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that GENESIS_REFERENCE_DIR names."""
    folder = tmp_path / "real"
    monkeypatch.setenv("GENESIS_REFERENCE_DIR", str(folder))
    get_settings.cache_clear()
    return folder / "banking77"


def loaded(split=None) -> Reference:
    found = load_reference(split=split, fetch=False)
    assert found is not None
    return found


def test_the_test_split_is_preferred_and_the_result_says_which_it_is(given: Path) -> None:
    write_csv(given, "dev", [("where is it", "card_arrival")])
    assert str(loaded()) == "banking77 dev (n = 1)"
    write_csv(given, "test", [("where, is it?\nsay", "card_arrival"), ("¿cuánto?", "exchange_rate")])
    found = loaded()
    assert str(found) == "banking77 test (n = 2)"
    assert found.texts == ("where, is it?\nsay", "¿cuánto?")
    assert found.intents == ("card_arrival", "exchange_rate")
    assert str(loaded("dev")) == "banking77 dev (n = 1)"


def test_the_training_pool_is_the_whole_training_split_when_it_is_there(given: Path) -> None:
    write_csv(given, "train_pool", [("a", "x")])
    assert loaded("train").split == "train_pool"
    write_csv(given, "train", [("a", "x"), ("b", "y")])
    assert (loaded("train").split, len(loaded("train"))) == ("train", 2)


def test_the_local_copy_is_used_when_no_folder_is_given(own_output_root: Path) -> None:
    write_csv(own_output_root / "reference" / "banking77", "test", [("a", "x")])
    assert loaded().source == "outputs/reference/banking77/test.csv"


def test_where_nothing_real_is_to_be_had_worth_is_measured_on_a_stand_in_that_says_so() -> None:
    items, pool = for_worth()
    assert items is not None and pool is not None and {items.kind, pool.kind} == {"stand-in"}
    assert str(items) == "stand-in test (n = 924, stand-in: written by a language model, not by customers)"
    assert items.source == "shipped with Genesis Lab" and items.language == "en"
    assert len(items.intents) == 77 and items.intents == pool.intents and not {*items.texts} & {*pool.texts}
    assert load_reference() is None, "never where real data is meant"


def test_real_items_are_never_mixed_with_a_stand_in(given: Path) -> None:
    write_csv(given, "test", [("a", "x")])
    items, pool = for_worth()
    assert items is not None and items.kind == "real" and pool is None


def test_a_report_names_the_reference_but_never_holds_its_sentences(given: Path) -> None:
    write_csv(given, "dev", [("a very private sentence", "x")])
    shown = json.dumps(loaded().to_dict())
    assert '"split": "dev"' in shown and '"n": 1' in shown
    assert "private" not in shown and str(given) not in shown


def test_the_digest_tells_other_items_apart(given: Path) -> None:
    write_csv(given, "dev", [("a", "x"), ("b", "y")])
    whole = loaded()
    assert whole.digest == loaded().digest != whole.select(["x"]).digest
    assert whole.select(["x"]).texts == ("a",) and len(whole.select([])) == 0


def test_without_reference_the_answer_is_none() -> None:
    assert load_reference(fetch=False) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "clinc"}, "Reference 'clinc' is unknown: there is banking77, and every folder with test.csv"),
        ({"name": "../secret"}, "named by the name of its folder"),
    ],
)
def test_an_unknown_name_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_reference(**arguments)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            ("when", "price"),
            [("2024-01-01", "3"), ("2024-01-02", "4")],
            "texts and one of labels, got `when`, `price`: none",
        ),
        (
            ("question", "answer"),
            [("what is a?", "b it is"), ("what is b?", "a it is")],
            "`question` is the utterance .by its name.; `answer` is the answer to it",
        ),
        (("text", "category"), [], "no rows"),
    ],
)
def test_a_broken_file_is_named(given: Path, header: tuple[str, str], rows: list, message: str) -> None:
    write_csv(given, "test", rows, header)
    with pytest.raises(InvalidInput, match=f"test.csv .*{message}"):
        loaded()


@pytest.mark.parametrize(
    "header", [("Utterance", "INTENT"), ("mensaje", "etiqueta"), ("x1", "x2"), ("text", "category")]
)
def test_columns_of_ones_own_are_told_as_an_import_tells_them(given: Path, header: tuple[str, str]) -> None:
    rows = [
        ("where is my card now", "card"),
        ("my card is not here", "card"),
        ("what is the rate", "rate"),
        ("a rate", "rate"),
    ]
    write_csv(given, "test", rows, header)
    assert list(zip(loaded().texts, loaded().labels, strict=True)) == rows


def test_a_folder_of_ones_own_serves_any_name_and_says_its_language(given: Path) -> None:
    own = given.parent / "soporte"
    write_csv(own, "test", [("¿dónde está mi tarjeta?", "tarjeta")])
    found = load_reference("soporte")
    assert found is not None and (str(found), found.language) == ("soporte test (n = 1)", "en")
    (own / "reference.yaml").write_text("language: es\n")
    found = load_reference("soporte")
    assert found is not None and found.language == "es" and load_reference("soporte", split="train") is None
    (own / "reference.yaml").write_text("language: fr\nkind: stand-in\n")
    write_csv(own, "train", [("¿y mi tarjeta?", "tarjeta")], ("text", "label"))
    found = load_reference("soporte", split="train")
    assert found is not None and (found.language, found.kind, found.to_dict()["kind"]) == ("fr", "stand-in", "stand-in")
    assert str(found) == "soporte train (n = 1, stand-in: written by a language model, not by customers)"


@pytest.mark.parametrize("said", ["language: klingon", "kind: invented", "[es]"])
def test_what_a_reference_says_of_itself_wrongly_is_one_sentence(given: Path, said: str) -> None:
    own = given.parent / "soporte"
    write_csv(own, "test", [("¿dónde está mi tarjeta?", "tarjeta")])
    (own / "reference.yaml").write_text(said)
    with pytest.raises(InvalidInput, match=r"reference.yaml must say language: a code such as en or es, and kind"):
        load_reference("soporte")


def test_a_reference_that_can_not_be_tested_on_is_no_silent_gap(given: Path) -> None:
    write_csv(given.parent / "soporte", "train", [("¿dónde está mi tarjeta?", "tarjeta")])
    with pytest.raises(InvalidInput, match=r"'soporte' is a folder without test\.csv"):
        load_reference("soporte")


def test_fetching_keeps_a_local_copy_of_both_splits(tmp_path: Path, own_output_root: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["Refund_not_showing_up", "exchange_rate"])}
    )
    hub = tmp_path / "hub"
    for split, labels in (("train", [0, 1, 1]), ("test", [1])):
        (hub / "data").mkdir(parents=True, exist_ok=True)
        rows = Dataset.from_dict({"text": [f"{split} {i}" for i in range(len(labels))], "label": labels}, features)
        rows.to_parquet(hub / "data" / f"{split}-00000-of-00001.parquet")
    folder = fetch_reference(repo=str(hub))
    assert sorted(f.name for f in folder.iterdir()) == ["FETCHED.txt", "test.csv", "train.csv"]
    assert fetch_reference(repo=str(hub)) == folder, "what was fetched may be fetched again"
    assert loaded().labels == ("exchange_rate",)
    items, pool = for_worth()
    assert (items, pool) == (loaded(), loaded("train")) and items.kind == "real"
    assert items.source.startswith("fetched from the Hugging Face hub") and "kept in outputs/reference" in items.source
    assert loaded("train").labels == ("Refund_not_showing_up", "exchange_rate", "exchange_rate")


def test_a_reference_of_ones_own_is_not_fetched_over(tmp_path: Path) -> None:
    own = output_root() / "reference" / "banking77" / "test.csv"
    own.parent.mkdir(parents=True)
    own.write_text("text,category\nmine,card_arrival\n")
    with pytest.raises(InvalidInput, match="were not fetched: move them away first"):
        fetch_reference(repo=str(tmp_path))
    assert "mine" in own.read_text()


def test_without_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from genesis_lab.validation.reference import fetch_reference, load_reference\n"
        "print(load_reference())\n"
        "try: fetch_reference()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    lib = str(Path(__file__).parents[2] / "lib")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "GENESIS_"))} | {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "GENESIS_OUTPUT_ROOT": str(tmp_path),
        "PYTHONPATH": lib,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first == "None"
    assert second.startswith("Unavailable Reference 'banking77' could not be fetched") and "test.csv" in second


def test_a_reference_is_read_in_any_encoding_and_unicode_form(given: Path) -> None:
    given.mkdir(parents=True)
    apart = unicodedata.normalize("NFD", "¿Dónde está?")
    for data in (
        ("\ufefftext,category\n" + apart + ",devolución\n").encode(),
        "text;category\n¿Dónde está?;devolución\n".encode("cp1252"),
    ):
        (given / "dev.csv").write_bytes(data)
        assert (loaded("dev").texts, loaded("dev").labels) == (("¿Dónde está?",), ("devolución",))
