"""Whatever a dataset holds, what is missing about it is measured, and there is a page."""

import datetime
import json
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from genesis_lab import reports as made
from genesis_lab.bias import check_bias
from genesis_lab.dataset import read_reports, write_report
from genesis_lab.errors import InvalidInput
from genesis_lab.files import output_root, write_atomically
from genesis_lab.generation import config_for, generate, open_or_generate
from genesis_lab.notebooks import find_notebook, read_notebook
from genesis_lab.reporting.page import page_html
from genesis_lab.reporting.views import view
from genesis_lab.training.config import train_config
from genesis_lab.training.models import save_model
from genesis_lab.training.train import train
from records import conversation, write


def student(name: str, data_hash: str, at: int = 0) -> dict[str, Any]:
    info = {"student": f"outputs/models/{name}", "made_with": {"data_hash": data_hash}}
    file = output_root() / "models" / name / "training_info.json"
    write_atomically(file, json.dumps(info))
    os.utime(file, (at, at))
    return info


def test_the_page_about_series_shows_some_of_them_drawn() -> None:
    data = generate(config_for("timeseries")(total=8, length=48, quality_shares={"missing_values": 1.0}))
    page = page_html(made.page(data, {"bias": check_bias(data)}))
    drawn = re.findall(r'<svg viewBox="0 0 600 130"[^>]*>(.*?)</svg>', page)
    assert len(drawn) == 3 and all(path.count("L") > 20 and path.count("M") > 1 for path in drawn), "with their gaps"
    assert page.count("48 values from") == 6, "each says its range, for those who do not see it too"


@pytest.mark.parametrize("role", ["requirements", "vision"])
def test_what_is_missing_of_teacher_examples_is_made_and_kept(role) -> None:
    data = generate(config_for(role)(total=12))
    assert made.needed(data) == ("teaching", "bias") and not read_reports(data)
    reports = made.complete(data)
    assert set(read_reports(data)) == {"teaching", "bias"} == set(reports)
    page = made.page(data, reports, title="Mine")
    assert page.title == "Mine" and page.subtitle.startswith("12 examples")
    assert made.metrics(page, reports) == {"score": 1.0, "issues": 0, "bias": "none", "verdict": None}


def test_reports_that_are_there_are_taken_as_they_are() -> None:
    data = generate(config_for("requirements")(total=12))
    write_report(data, "teaching", made.complete(data)["teaching"] | {"min_score": 0.5})
    assert made.complete(data)["teaching"]["min_score"] == 0.5


def test_the_student_is_the_one_that_was_examined_or_the_newest_that_this_data_taught() -> None:
    data = generate(config_for("requirements")(total=12))
    student("of_other_data", "other")
    assert "student" not in made.complete(data)
    first, second = (student(name, data.content_hash, at) for name, at in (("first", 1), ("second", 2)))
    assert made.complete(data)["student"] == second
    write_report(data, "evaluation", {"cards": [{"model": "local:smollm2"}, {"model": "local:outputs/models/first"}]})
    write_atomically(output_root() / "students" / "x" / "export.json", json.dumps({"student": first["student"]}))
    reports = made.complete(data)
    assert reports["student"] == first and reports["export"]["student"] == first["student"]


def test_records_of_others_that_cannot_be_read_are_named_and_stop_no_report() -> None:
    data = generate(config_for("requirements")(total=12))
    mine = student("mine", data.content_hash)
    broken = {
        "models/theirs/training_info.json": "{",
        "models/old/training_info.json": "[1]",
        "x/y/export.json": "half",
    }
    for name, text in broken.items():
        write_atomically(output_root() / name, text)
    write_atomically(output_root() / "x" / "z" / "export.json", json.dumps({"student": mine["student"]}))
    reports = made.complete(data)
    assert reports["student"] == mine
    page = made.page(data, reports)
    assert all(name in str(page.provenance["left out"]) for name in broken)
    assert "not measured: the record that is kept of it is not whole" in page_html(page)


def test_a_report_of_the_dataset_that_cannot_be_read_is_named() -> None:
    data = generate(config_for("requirements")(total=12))
    write_atomically(data.path / "reports" / "bias.json", '{"sev')
    with pytest.raises(InvalidInput, match=r"bias\.json can't be read: delete it"):
        made.complete(data)


def test_a_classifier_of_other_data_has_no_say_in_the_verdict() -> None:
    data = generate(config_for()(total=154))
    foreign = {"sources": [{"content_hash": "other"}], "chosen": "theirs"}
    write_report(data, "training", foreign)
    reports = made.complete(data, reference="none", embeddings=False)
    assert "training" not in reports and read_reports(data)["training"] == foreign
    assert "not measured: no classifier was trained" in page_html(made.page(data, reports))


def test_a_report_of_an_older_version_is_made_anew() -> None:
    data = generate(config_for("conversations")(total=154))
    write_report(data, "quality", {"overall": 99.0})
    write_report(data, "scorecard", {"students": [{"student": "tfidf"}]})
    reports = made.complete(data, reference="none", embeddings=False)
    assert reports["quality"]["gates"] and not reports["scorecard"]["students"]
    assert read_reports(data)["scorecard"] == reports["scorecard"]


def test_a_report_on_conversations_changes_nothing_it_reports_on() -> None:
    data, other = (generate(config_for()(dataset=f"of_{n}", total=n)) for n in (154, 160))
    save_model(train(other, train_config("quick_test")).model, "intents")
    models = {path: path.read_bytes() for path in (output_root() / "models").rglob("*") if path.is_file()}
    reports = made.complete(data, reference="none", embeddings=False)
    page = made.page(data, reports, sentences=["where is my card?"])
    assert {path: path.read_bytes() for path in (output_root() / "models").rglob("*") if path.is_file()} == models
    assert "learned from other data" in page_html(page)
    assert page.status == "FAIL" and "enough examples per label" in page.summary and "classifier" in page.summary
    assert made.metrics(page, reports)["verdict"] == "FAIL"


def test_a_worth_on_a_stand_in_is_recorded_under_its_own_name() -> None:
    card = {"reference": {"kind": "stand-in"}}
    known: Any = {"bias": {"severity": "none"}, "quality": {"overall": 90.0}, "verdict": {"verdict": "PASS"}}
    page: Any = SimpleNamespace(status="PASS", figures={"stand-in worth": ("3.7", "stand-in: …")})
    found = made.metrics(page, known | {"scorecard": card})
    assert found["stand_in_worth"] == "3.7 (stand-in: written by a language model, not by customers)"
    assert "worth" not in found
    page = SimpleNamespace(status="PASS", figures={"worth": ("3.7", "")})
    assert made.metrics(page, known)["worth"] == "3.7"


def test_without_real_data_worth_is_measured_on_the_stand_in_that_ships_and_says_so() -> None:
    data = generate(config_for()(total=154))
    reports = made.complete(data, embeddings=False)
    assert (
        reports["scorecard"]["reference"] | {"n": 924, "kind": "stand-in", "language": "en"}
        == reports["scorecard"]["reference"]
    )
    assert any("Spanish" in note for note in reports["scorecard"]["notes"])
    page = made.page(data, reports)
    assert "stand-in worth" in page.figures and "worth" not in page.figures
    assert "written by a language model" in str(made.metrics(page, reports)["stand_in_worth"])
    assert not [
        gate for gate in reports["verdict"]["gates"] if gate["name"] == "worth" and gate["outcome"] != "not measured"
    ]
    assert not reports["quality"].get("reference"), "how people write is not asked of what no people wrote"


def test_records_of_one_message_each_are_called_utterances_on_the_page_with_the_date_of_today(tmp_path) -> None:
    chats = [conversation(i) for i in range(4)]
    both = write(tmp_path / "chats", chats)
    alone = write(tmp_path / "alone", [chat | {"turns": chat["turns"][:1], "turn_count": 1} for chat in chats])
    assert (both.unit, alone.unit) == ("conversations", "utterances")
    page = made.page(alone, {"bias": check_bias(alone)})
    assert page.subtitle.startswith("4 utterances · ") and page.date == datetime.date.today().isoformat()
    assert "conversations" not in page.subtitle


def test_conversations_need_their_own_reports(tmp_path) -> None:
    data = write(tmp_path / "chats", [conversation(0)])
    assert made.needed(data) == ("quality", "scorecard", "bias", "training")


def test_bias_of_teacher_examples_is_drawn_as_far_as_it_is_known() -> None:
    data = open_or_generate(generate(config_for("requirements")(total=60)).name, others=True)
    report = check_bias(data)
    assert view("bias", "targets", report) == [
        "As planned, as far as can be told: language, industry, emphasis (n = 60)."
    ]
    for nothing in (view("bias", name, report) for name in ("appearances", "coverage")):
        assert str(nothing).startswith("not measured: examples have no ")


@pytest.mark.parametrize(("number", "parameter"), [("20", "dataset"), ("21", "a"), ("21", "b"), ("40", "dataset")])
def test_notebooks_that_read_conversations_say_where_teacher_examples_belong(number, parameter) -> None:
    generate(config_for("requirements")(dataset="analyst", total=12))
    cells = [c for c in read_notebook(find_notebook(number)).cells if c.cell_type == "code" and "%pip" not in c.source]
    names: dict[str, Any] = {}
    with pytest.raises(
        InvalidInput,
        match=r"analyst (holds examples of requirements, this step reads|is a dataset of requirements: use genesis)",
    ):
        for cell in cells:
            exec(cell.source, names)  # noqa: S102 - our own notebooks
            if "parameters" in cell.metadata.get("tags", []):
                names[parameter] = "analyst"
