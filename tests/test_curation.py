"""What people decide about records: kept beside the data, applied as a new version, asked for again; and the shelf."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from genesis_lab.asking_again import ask_again
from genesis_lab.cli import main
from genesis_lab.dataset import DatasetWriter, open_dataset, read_reports, write_report
from genesis_lab.dataset.curation import apply, decide, decisions, labels, put_away, standing, take, undo
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.generation import config_for, generate
from genesis_lab.validation.judge import load_rubric, read_labels
from genesis_lab.validation.reviewers import agreement, read_sheets
from records import conversation, write


@pytest.fixture
def data(tmp_path: Path):
    return write(tmp_path / "data", {"train": [conversation(i) for i in range(8)], "test": [conversation(8), conversation(9)]})  # fmt: skip


def test_decisions_become_a_new_version_and_the_original_stays(data) -> None:
    decide(data, 0, "drop", why="nonsense", by="ana")
    decide(data, 1, "relabel", "atm_support", by="luis")
    decide(data, 9, "fix", {"turns.0.text": "¿Y mi tarjeta?"})
    decide(data, 2, "keep")
    decide(data, 3, "drop")
    decide(data, 3, "undo")
    before = [path.read_bytes() for path in data.parts()]
    new = apply(data)
    assert new.name == "data_v2" and new.counts == {"train": 7, "test": 2} and new.content_hash != data.content_hash
    assert [path.read_bytes() for path in data.parts()] == before
    told = new.manifest["curation"]
    assert told["from"] == {"dataset": "data", "content_hash": data.content_hash, "curation": None}
    assert told["changed"] == {"dropped": 1, "relabelled": 1, "fixed": 1, "added": 0, "kept": 1}
    records = {row["conversation_id"]: row for row in new.frame().to_dict("records")}
    assert "conv_00000000" not in records
    moved, mended = records["conv_00000001"], records["conv_00000009"]
    assert (moved["intent"], moved["category"]) == ("atm_support", "cash_atm")
    assert mended["turns"][0]["text"] == "¿Y mi tarjeta?" and mended["provenance"] == data.frame()["provenance"][9]
    who = [(one["action"], one["by"], one["why"]) for one in read_reports(new)["curation"]["decisions"]]
    assert who[:2] == [("drop", "ana", "nonsense"), ("relabel", "luis", "")]
    again = apply(data)
    assert again.name == "data_v3" and again.content_hash == new.content_hash


def test_what_was_decided_outlives_a_replacement_and_stands_for_the_same_records_only(data) -> None:
    decide(data, 0, "drop", why="nonsense")
    same = {name: data.frame(name).to_dict("records") for name in data.counts}
    for records, stands in (({"train": same["test"]}, []), (same, ["nonsense"])):
        with DatasetWriter(data.path, data.domain, replace=True) as writer:
            for split, some in records.items():
                writer.write(some, split)
        assert [one["why"] for one in standing(open_dataset(data.path)).values()] == stands


def test_a_version_of_a_version_says_where_both_come_from(data) -> None:
    decide(data, 0, "drop")
    second = apply(data)
    decide(second, 0, "drop")
    third = apply(second)
    origin = third.manifest["curation"]["from"]
    assert third.name == "data_v3" and third.total == 8
    assert origin["content_hash"] == second.content_hash
    assert origin["curation"]["from"]["content_hash"] == data.content_hash


@pytest.mark.parametrize(
    ("row", "action", "value", "says"),
    [
        (10, "drop", None, "no such record at row 10"),
        (0, "delete", None, "Unknown action 'delete'"),
        (0, "relabel", " ", "A label is missing"),
        (0, "note", "", "The note is empty"),
        (0, "fix", {"turns.7.text": "x"}, "A fix gives new words to one of turns.0.text, turns.1.text"),
        (0, "fix", {"turns.0.text": " "}, "A fix gives new words"),
        (0, "fix", {"turns.0.text": "x" * 2000}, "turns.1.text"),
        (0, "fix", {"turns.0.speaker": "bot"}, "A fix gives new words"),
    ],
)
def test_a_decision_that_makes_no_sense_leaves_nothing(data, row, action, value, says) -> None:
    with pytest.raises(InvalidInput, match=says):
        decide(data, row, action, value)
    assert decisions(data) == [] and open_dataset(data.path).content_hash == data.content_hash


def test_nothing_to_apply_is_said_and_makes_nothing(data) -> None:
    with pytest.raises(InvalidInput, match="nothing has been decided"):
        apply(data)
    decide(data, 0, "keep")
    with pytest.raises(InvalidInput, match="1 records are marked, but none is to be"):
        apply(data)
    for row in range(data.total):
        decide(data, row, "drop")
    with pytest.raises(InvalidInput, match="nothing would be left"):
        apply(data)
    assert not data.path.with_name("data_v2").exists()


def test_a_line_torn_by_a_kill_loses_only_itself(data) -> None:
    decide(data, 0, "drop")
    file = data.path / "curation.jsonl"
    file.write_text(file.read_text() + '{"row": 1, "action": "dr')
    decide(data, 2, "drop")
    assert sorted(standing(data)) == [0, 2]


def test_decisions_about_other_content_do_not_count(data) -> None:
    decide(data, 0, "drop")
    file = data.path / "curation.jsonl"
    file.write_text(file.read_text().replace(data.content_hash, "0" * 64))
    assert standing(data) == {}


def test_what_the_page_was_left_with_is_taken_once_and_whole(data, tmp_path: Path) -> None:
    line = {"row": 1, "record": "conv_00000001", "action": "drop", "value": None, "why": "", "by": "ana", "at": "2026-01-01T00:00:00Z"}  # fmt: skip
    file = tmp_path / "decisions.jsonl"
    file.write_text(json.dumps(line) + "\n")
    assert take(data, file) == 1 and take(data, file) == 0 and standing(data)[1]["verdict"] == "drop"
    file.write_text(json.dumps(line | {"at": "2026-01-02"}) + "\n" + json.dumps(line | {"record": "conv_else"}) + "\n")
    with pytest.raises(InvalidInput, match="data has no such record at row 1"):
        take(data, file)
    assert len(decisions(data)) == 1


def test_what_was_dropped_is_asked_for_again_in_its_cells_and_joins_the_rest() -> None:
    made = generate(config_for()(dataset="chats", total=154))
    rows = made.frame()
    for row in (3, 40, 41):
        decide(made, row, "drop")
    config = ask_again(made)
    assert sum(part.requests for part in config.estimates().values()) == 3
    again = generate(config)
    names = ["intent", "language", "sentiment", "complexity", "resolution_status"]
    assert sorted(again.frame()[names].values.tolist()) == sorted(rows.iloc[[3, 40, 41]][names].values.tolist())
    new = apply(made, add=[again])
    assert new.total == 154 and set(new.frame()["conversation_id"]) & set(again.frame()["conversation_id"])
    assert new.manifest["curation"]["added"] == {"chats_again": again.content_hash}
    assert list(ask_again(made, teacher="ollama:llama3.1:8b").teachers) == ["ollama:llama3.1:8b"]
    with pytest.raises(InvalidInput, match="There is no label 'card_arival' here: did you mean card_arrival"):
        decide(made, 0, "relabel", "card_arival")
    assert "card_arrival" in labels(made)


def test_asking_again_says_when_it_cant(data) -> None:
    with pytest.raises(InvalidInput, match="Nothing of data was dropped"):
        ask_again(data)
    examples = generate(config_for("requirements")(total=20))
    decide(examples, 0, "drop")
    with pytest.raises(InvalidInput, match="Examples are not planned in cells"):
        ask_again(examples)


def test_a_series_that_was_dropped_is_asked_for_again_in_its_cell() -> None:
    series = generate(config_for("timeseries")(dataset="series", total=12, length=48))
    decide(series, 5, "drop")
    again = generate(ask_again(series))
    names = ["series_type", "language", "trend_type", "anomaly_count", "country"]
    assert again.frame()[names].values.tolist() == series.frame().iloc[[5]][names].values.tolist()
    assert apply(series, add=[again]).total == 12


def test_a_dataset_put_away_or_renamed_comes_back(data) -> None:
    made = write(dataset_path("one"), [conversation(0)])
    put_away("one")
    assert not made.path.exists()
    assert undo() == "outputs/datasets/one is there again" and open_dataset("one").content_hash == made.content_hash
    put_away("one", "two")
    write(dataset_path("one"), [conversation(1)])
    with pytest.raises(InvalidInput, match="outputs/datasets/one exists already"):
        undo()
    put_away("one")
    undo()
    with pytest.raises(InvalidInput, match="exists already"):
        put_away("one", "two")
    assert open_dataset("two").content_hash == made.content_hash
    with pytest.raises(InvalidInput, match="There is no dataset"):
        put_away("three")


def test_two_reviewers_sheets_become_agreement_and_the_judges_labels(data, tmp_path: Path, capsys) -> None:
    def genesis(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return ended.value.code

    assert genesis("dataset", "sample", data.path, tmp_path, "--reviewer", "ana", "--reviewer", "luis", "--records", 4) == 0  # fmt: skip
    sheets = [tmp_path / f"data_{who}.csv" for who in ("ana", "luis")]
    for sheet, score in zip(sheets, (5, 4), strict=True):
        rows = pd.read_csv(sheet, encoding="utf-8-sig")
        assert len(rows) == 4 and rows["text"].str.contains("mi tarjeta número|my card number").all()
        rows.assign(label_fit=score, natural=3).to_csv(sheet, index=False)
    assert genesis("dataset", "agreement", *sheets, "--out", tmp_path / "labels.csv") == 0
    said = capsys.readouterr().out
    assert "data_ana, data_luis" in said and "16 scores in labels.csv" in said
    found = {row["criterion"]: row for row in agreement(read_sheets(sheets, load_rubric()))}
    assert found["label_fit"]["same"] == 0 and found["label_fit"]["n"] == 4 and found["natural"]["same"] == 1
    assert len(read_labels(tmp_path / "labels.csv", load_rubric())) == 16


def test_the_terminal_shows_records_by_what_they_are(data, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "show", str(data.path), "--where", "intent=atm_support", "--search", "NUMBER 2"])
    said = capsys.readouterr().out
    assert "1 of 10 conversations" in said and re.search(r"Customer\W+Where is my card number 2\?", said)
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "show", str(data.path), "--where", "intnt=x"])
    assert ended.value.code == 1 and "Nothing is filtered by 'intnt'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["dataset", "show", str(data.path), "--where", "words=a..b"])
    assert "words is filtered by numbers" in capsys.readouterr().err


def test_the_shelf_is_listed_even_where_a_dataset_on_it_is_damaged(capsys) -> None:
    made = generate(config_for()(dataset="chats", total=10))
    broken = write(dataset_path("broken"), [conversation(0)])
    broken.parts()[0].unlink()
    dataset_path("begun.run").mkdir()
    forecast = {"title": "boosting", "mase": {"estimate": 0.8, "low": 0.7, "high": 0.9}}
    write_report(generate(config_for("timeseries")(dataset="loads", total=12)), "scorecard", {"students": [forecast]})
    decide(made, 0, "drop")
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "list"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "unfinished run" in said and "broken" in said
    assert "10 conversations not measured" in said and "offline:grammar" in said and "MASE 0.80 [0.70–0.90]" in said
    with pytest.raises(SystemExit):
        main(["dataset", "show", "chats", "--records", "0"])
    assert "decided by people: 1" in capsys.readouterr().out
