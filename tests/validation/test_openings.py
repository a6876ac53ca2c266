"""Openings beside people's, from the data alone: what a language model wrote as stories, and what it wrote as a list."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genesis_lab.dataset import import_dataset, open_dataset
from genesis_lab.reporting.views import view
from genesis_lab.validation.gates import sentence
from genesis_lab.validation.quality import validate

RECORDED = Path(__file__).with_name("recorded_openings.csv")
"""Our own texts: for each of 77 intents an opening that a strong model wrote to prompt version 1, and one of a list it wrote."""


def recorded(tmp_path: Path, how: str) -> dict[str, Any]:
    """The quality of the recorded openings that were asked for so, imported as anybody's labelled texts."""
    with RECORDED.open(encoding="utf-8", newline="") as file:
        rows = [
            {"label": row["label"], "text": row["text"]} for row in csv.DictReader(file) if row["asked for as"] == how
        ]
    source = tmp_path / f"{how}.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return validate(import_dataset(source, how)[0])


def gate(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in report["gates"] if one["name"] == name)
    return found


def test_stories_are_told_from_what_people_write_in_words(tmp_path: Path) -> None:
    found = recorded(tmp_path, "conversation")
    length, manner = gate(found, "openings like people's"), gate(found, "manner of openings")
    assert length["outcome"] == "fail" and length["value"] > 2.5 and "short first messages" in length["todo"]
    assert "times as long as people's in short chats (documented default)" in length["says"]
    assert manner["outcome"] == "warn" and "of openings are with a greeting" in manner["says"]
    assert found["verdict"] == "FAIL" and "times as long" in sentence(found["gates"])
    assert found["openings"]["distance"] > 0.6 and found["openings"]["lengths"]["this dataset"]["over 30"] > 0.3
    assert "words, median" in view("quality", "openings", found).text
    json.dumps(found, allow_nan=False)


def test_a_list_of_short_messages_passes(tmp_path: Path) -> None:
    found = recorded(tmp_path, "list")
    assert {gate(found, name)["outcome"] for name in ("openings like people's", "manner of openings")} == {"pass"}
    assert gate(found, "unique ids")["outcome"] == "not measured", "labelled texts have none, which is no fault"
    assert found["completeness"]["value"] == 1.0, "nor is it that they have no endings and moods"
    assert not any(name in sentence(found["gates"]) for name in ("unique ids", "language ("))
    assert found["openings"]["against"] == "people's in short chats (documented default)"


def test_a_reference_says_what_is_expected_instead(tmp_path: Path) -> None:
    with RECORDED.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["asked for as"] == "conversation"]
    source = tmp_path / "own.csv"
    source.write_text("label,language,text\n" + "\n".join(f'a,en,"{text}"' for text in texts if '"' not in text))
    real = SimpleNamespace(texts=texts, labels=["a"] * len(texts), language="en", name="letters")
    found = validate(import_dataset(source, "own")[0], reference=real)
    assert found["openings"]["against"] == "those of letters"
    assert gate(found, "openings like people's")["value"] == pytest.approx(1, abs=0.05)
    assert found["openings"]["distance"] < 0.1
    made_up = validate(open_dataset("own"), reference=SimpleNamespace(**vars(real), kind="stand-in"))
    assert "documented default" in made_up["openings"]["against"], "what a model wrote is no measure of people"
    assert "not by customers" in made_up["not_measured"]["realism"] and made_up["contamination"]["failed"]


def test_the_whole_recorded_list_passes_and_people_do_too(real_banking77: Path) -> None:
    recordings = real_banking77.parent / "teacher_recordings" / "utterances_list_24.jsonl"
    found = validate(import_dataset(recordings, "list")[0])
    assert found["verdict"] == "PASS on form; worth not measured", sentence(found["gates"])
    people = validate(import_dataset(real_banking77 / "train_pool.csv", "people")[0])
    assert people["verdict"] == "PASS on form; worth not measured", sentence(people["gates"])
