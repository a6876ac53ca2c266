from __future__ import annotations

import csv
import json
import threading
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genesis_lab.bias import check_bias
from genesis_lab.dataset import export_dataset, import_dataset, open_dataset
from genesis_lab.dataset.columns import plain_cell, safe_cell
from genesis_lab.domains.conversations.foreign import text_as_turns, turns_as_text
from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.generation import config_for, generate
from genesis_lab.settings import get_settings
from genesis_lab.validation.reference import load_reference
from hub_server import running_hub
from records import conversation, write

NASTY = [
    '=HYPERLINK("http://x")',
    "+1",
    "-2",
    "@SUM(A1)",
    "\ttab",
    "\rreturn",
    "'=quoted",
    "<script>alert('x')</script>",
    "a\x00b",
    "🙂 ñ ¿qué?",
    "agent: not the agent\ncustomer: nor the customer",
    "two\n    lines, \"quoted\"; 'apostrophes'\r\nand more",
    "[not json",
    "",
    " spaces ",
    "\u2028\x85",
]


def put(path, data) -> str:
    path.write_text(data if isinstance(data, str) else json.dumps(data, default=str), encoding="utf-8")
    return str(path)


def reasons(report) -> list[tuple[int, str]]:
    return [(problem.row, problem.reason) for problem in report.problems]


def nasty_dataset(tmp_path):
    turns = [{"speaker": "customer" if i % 2 else "agent", "text": text} for i, text in enumerate(NASTY)]
    records = [conversation(i, turns=[turn], turn_count=1) for i, turn in enumerate(turns)]
    records.append(conversation(90, turns=turns, turn_count=len(turns), intent="=1+1", category="'@x"))
    records.append(conversation(91, turns=[{"speaker": None, "text": "x"}, {"speaker": "Agent: Bob", "text": None}]))
    records.append(conversation(92, turns=None, sentiment=None, provenance=None, turn_count=-3))
    records.append(conversation(93, turns=[], turn_count=0))
    return write(tmp_path / "nasty", records)


# Import: whole files


def test_a_json_list_and_an_object_with_conversations_are_the_same(tmp_path):
    records = [conversation(i) for i in range(3)]
    a, report = import_dataset(put(tmp_path / "a.json", records), tmp_path / "a")
    b, _ = import_dataset(put(tmp_path / "b.json", {"version": 1, "conversations": records}), tmp_path / "b")
    assert a.content_hash == b.content_hash == write(tmp_path / "c", records).content_hash
    assert (report.read, report.kept, report.problems, report.absent_fields) == (3, 3, (), ())
    assert str(tmp_path) not in (a.path / "manifest.json").read_text()


def test_bare_name_is_under_outputs(tmp_path, own_output_root):
    import_dataset(put(tmp_path / "a.json", [conversation(1)]), "mine")
    assert open_dataset("mine").path == own_output_root / "datasets" / "mine"


@pytest.mark.parametrize("records", [[conversation(0)], [conversation(i, intent="card_arrival") for i in range(5)]])
def test_one_record_or_one_class_only_is_a_dataset(tmp_path, records):
    dataset, report = import_dataset(put(tmp_path / "a.json", records), tmp_path / "d")
    assert dataset.total == len(records) and report.kept == len(records)


def test_a_parquet_file_with_half_the_columns(tmp_path):
    table = pa.table({"intent": ["card_arrival", None], "turns": [[{"speaker": "customer", "text": "hi"}], None]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset, report = import_dataset(tmp_path / "a.parquet", tmp_path / "d")
    assert dataset.frame()["category"].iloc[0] == "card_management" and dataset.frame()["turn_count"].iloc[0] == 1
    assert "sentiment" in report.absent_fields
    assert reasons(report) == [(2, "no field that is known")] and dataset.total == 1


def test_a_dataset_folder_keeps_its_splits(tmp_path):
    source = write(tmp_path / "s", {"train": [conversation(i) for i in range(4)], "test": [conversation(9)]})
    dataset, report = import_dataset(source.path, tmp_path / "d")
    assert dataset.counts == {"train": 4, "test": 1} and dataset.content_hash == source.content_hash
    assert report.problems == ()


# Import: other people's shapes


def test_labelled_sentences_become_conversations_of_one_turn(tmp_path):
    source = put(tmp_path / "a.csv", "text,label\nWhere is my card?,card_arrival\n¿Y mi dinero?,lost\n")
    dataset, report = import_dataset(source, tmp_path / "d", language="en")
    first = dataset.frame().iloc[0]
    assert first["turns"].tolist() == [{"speaker": "customer", "text": "Where is my card?"}]
    assert (first["intent"], first["category"], first["turn_count"], first["language"]) == (
        "card_arrival", "card_management", 1, "en",
    )  # fmt: skip
    assert report.kept == 2 and "2 sentences became conversations of one turn" in report.notes
    assert "sentiment" in report.absent_fields


def test_utterances_come_in_and_go_out_as_text_label_and_language(tmp_path):
    rows = [
        "Where is my card?,card_arrival,en",
        "=1+1 what is this,my_own_label,en",
        "¿Y mi tarjeta?,card_arrival,es",
        "¿Y mi tarjeta?,card_arrival,es",
        "no label here,,en",
    ]
    source = put(tmp_path / "a.csv", "\n".join(["text,label,language", *rows]))
    dataset, report = import_dataset(source, tmp_path / "d")
    assert (report.read, report.kept) == (5, 5) and dataset.frame()["language"].tolist() == [
        "en",
        "en",
        "es",
        "es",
        "en",
    ]
    assert (4, "record: the same as in row 3") in reasons(report) and (5, "intent: missing") in reasons(report)
    assert "emotion_arc" in report.absent_fields
    export_dataset(dataset, tmp_path / "out.csv", "labelled")
    written = (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()
    assert written[0] == "text,label,language" and written[1] == rows[0] and written[2].startswith("'=1+1")
    assert len(written) == 5, "what has no label is left out"
    again, _ = import_dataset(tmp_path / "out.csv", tmp_path / "again")
    assert [turns[0]["text"] for turns in again.frame()["turns"]] == [row.split(",")[0] for row in rows[:4]]


def test_utterances_of_a_split_are_a_file_that_a_reference_can_be(tmp_path, monkeypatch):
    one = conversation(0, turns=[{"speaker": "agent", "text": "hello"}, {"speaker": "customer", "text": "my card"}])
    dataset = write(tmp_path / "d", {"train": [one, conversation(2)], "test": [conversation(4)]})
    export_dataset(dataset, tmp_path / "out.csv", "labelled")
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"out-{split}.csv").rename(tmp_path / "mine" / f"{split}.csv")
    monkeypatch.setenv("GENESIS_REFERENCE_DIR", str(tmp_path))
    get_settings.cache_clear()
    assert load_reference("mine").texts == ("Where is my card number 4?",)
    assert load_reference("mine", "train").texts == ("my card", "Where is my card number 2?")


def test_labels_that_a_taxonomy_lacks_are_named_and_one_per_class_is_enough(tmp_path):
    rows = [f"{name.replace('_', ' ')}?,{name}" for name in ("card_arrival", "atm_support", "cards_arrival")]
    source = put(tmp_path / "a.csv", "\n".join(["text,label", *rows]))
    dataset, report = import_dataset(source, tmp_path / "d", taxonomy="banking77", language="en")
    assert dataset.total == 3 and dataset.manifest["import"]["problem_counts"]["intent: not in taxonomy banking77"] == 1
    assert (3, "intent: not in taxonomy banking77, got 'cards_arrival'") in reasons(report)
    export_dataset(dataset, tmp_path / "out.csv", "labelled")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8-sig").count("\n") == 4


def test_ten_thousand_utterances_are_a_dataset_and_come_out_as_they_were(tmp_path):
    lines = [f"where is card number {i}?,card_arrival,en" for i in range(10_000)]
    source = put(tmp_path / "a.csv", "\n".join(["text,label,language", *lines]) + "\n")
    dataset, report = import_dataset(source, tmp_path / "d")
    assert dataset.total == 10_000 and report.problems == ()
    export_dataset(dataset, tmp_path / "out.csv", "labelled")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()[1:] == lines


def test_what_has_no_text_and_label_is_not_exported_as_such(tmp_path):
    dataset = generate(config_for("requirements")(dataset="r", total=10))
    with pytest.raises(InvalidInput, match="requirements have none: give another dataset"):
        export_dataset(dataset, tmp_path / "out.csv", "labelled")
    assert not (tmp_path / "out.csv").exists()


def test_banking77_files_call_the_intent_category(tmp_path):
    dataset, _ = import_dataset(
        put(tmp_path / "a.csv", "text,category\nWhere?,Refund_not_showing_up\n"), tmp_path / "d"
    )
    first = dataset.frame().iloc[0]
    assert (first["intent"], first["category"]) == ("Refund_not_showing_up", "refunds")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "text", "text": {"value": "hi", "annotations": []}}]},
        {"role": "user", "content": {"content_type": "text", "parts": ["hi"]}},
        {"role": "user", "content": {"type": "text", "text": "hi"}},
        {"role": "user", "content": ["hi"]},
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "user", "text": None, "content": "hi"},
    ],
)
def test_the_text_of_a_message_in_parts_is_its_text(tmp_path, message):
    put(tmp_path / "a.jsonl", {"messages": [message, {"role": "assistant", "content": "hello"}]})
    dataset, _ = import_dataset(tmp_path / "a.jsonl", tmp_path / "d")
    assert [turn["text"] for turn in dataset.frame()["turns"][0]] == ["hi", "hello"]


def test_parts_that_are_left_out_are_counted(tmp_path):
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "here"},
    ]
    records = [{"text": "where?"}, {"text": parts}, {"messages": [{"role": "user", "content": parts[1:2]}]}]
    dataset, report = import_dataset(put(tmp_path / "a.json", records), tmp_path / "d")
    turns = dataset.frame()["turns"]
    assert [turn["text"] for turn in turns[1]] == ["look\nhere"]
    assert not turns[2][0]["text"]
    assert "2 parts of turns without text left out" in report.notes


def test_chat_messages_by_role(tmp_path):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    dataset, report = import_dataset(put(tmp_path / "a.jsonl", {"messages": messages}), tmp_path / "d")
    assert [t["speaker"] for t in dataset.frame()["turns"].iloc[0]] == ["customer", "agent"]
    assert "1 turns of 'user' read as 'customer'" in report.notes


def test_a_field_map_reaches_into_nested_records_and_odd_columns(tmp_path):
    record = {"uid": 7, "meta": {"labels": ["atm_support"]}, "a.b": "es", "log": [{"who": "customer", "said": "hola"}]}
    field_map = {
        "conversation_id": "uid", "intent": "meta.labels.0", "language": "a.b",
        "turns": "log", "turns.speaker": "who", "turns.text": "said",
    }  # fmt: skip
    dataset, report = import_dataset(put(tmp_path / "a.json", [record]), tmp_path / "d", field_map=field_map)
    found = dataset.frame().iloc[0]
    assert (found["conversation_id"], found["intent"], found["language"]) == ("7", "atm_support", "es")
    assert found["turns"].tolist() == [{"speaker": "customer", "text": "hola"}]
    assert reasons(report) == []


@pytest.mark.parametrize(
    ("field_map", "sentence"),
    [
        ({"intnt": "label"}, "field_map: there is no field 'intnt' in conversations: expected .*intent"),
        ({"intent": "klass"}, "field_map: no record has 'klass' for 'intent'; the columns are label, text"),
    ],
)
def test_a_wrong_field_map_is_one_sentence_and_leaves_nothing(tmp_path, field_map, sentence):
    source = put(tmp_path / "a.csv", "text,label\nhi,card_arrival\n")
    with pytest.raises(InvalidInput, match=sentence):
        import_dataset(source, tmp_path / "d", field_map=field_map)
    assert not (tmp_path / "d").exists()


def test_a_csv_with_semicolons_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufefftext;label\n¿Dónde, dónde?;card_arrival\n".encode())
    dataset, _ = import_dataset(tmp_path / "a.csv", tmp_path / "d")
    assert dataset.frame()["turns"].iloc[0][0]["text"] == "¿Dónde, dónde?"


# Import: broken records


def test_everything_wrong_with_a_record_is_named_and_stays_visible(tmp_path):
    records = [
        conversation(0),
        conversation(0),
        conversation(1, turn_count=9),
        conversation(2, intent="refund_not_showing_up"),
        conversation(3, emotion_arc="Frustrated → happy", language="EN"),
        {key: value for key, value in conversation(4).items() if key != "sentiment"},
        conversation(5, turns="hello"),
        conversation(6, turn_count="many", complexity=["simple"]),
        conversation(7, turns=[{"speaker": "customer", "text": "a\x00b"}, "and then", 5], turn_count=3),
    ]
    dataset, report = import_dataset(put(tmp_path / "a.json", records), tmp_path / "d")
    frame = dataset.frame()
    assert report.read == report.kept == 9
    found = reasons(report)
    assert (2, "conversation_id: the same as in row 1") in found
    assert (3, "turn_count: declared 9, but there are 2 turns") in found and frame["turn_count"].iloc[2] == 9
    assert any(row == 4 and "it has 'Refund_not_showing_up'" in reason for row, reason in found)
    assert frame["intent"].iloc[3] == "refund_not_showing_up"
    assert {reason.split(":")[0] for row, reason in found if row == 5} == {"emotion_arc"}
    assert frame["language"].iloc[4] == "en" and "1 languages 'EN' read as 'en'" in report.notes
    assert (6, "sentiment: missing") in found
    assert {reason.split(",")[0] for row, reason in found if row == 7} >= {
        'turns: line 1 of the turns is not "speaker: text"'
    }
    assert {"turn_count", "complexity"} <= {reason.split(":")[0] for row, reason in found if row == 8}
    assert {"turns.1.text", "turns.2.speaker", "turns.3"} <= {reason.split(":")[0] for row, reason in found if row == 9}
    assert all(problem.record_id for problem in report.problems)
    assert not [row for row, _ in found if row == 1]
    assert sum(report.problem_counts.values()) == len(report.problems)
    assert dataset.manifest["import"]["problem_counts"] == report.problem_counts
    json.dumps(report.to_dict())


def test_torn_lines_and_other_rubbish_are_named_by_line(tmp_path):
    good = json.dumps(conversation(0), default=str)
    lines = [
        good,
        good[:80],
        "",
        "[1, 2]",
        '"text"',
        "[" * 100_000,
        json.dumps({"a": 1}),
        '{"text": "\\ud83d"}',
        good[:-1],
    ]
    dataset, report = import_dataset(put(tmp_path / "a.jsonl", "\n".join(lines)), tmp_path / "d")
    assert (report.read, report.kept, dataset.total) == (8, 2, 2)
    assert {2, 4, 5, 6, 7, 8, 9} <= {problem.row for problem in report.problems}
    assert dataset.frame()["turns"].iloc[1][0]["text"] == "\ufffd"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_of_any_spreadsheet_keeps_its_accents_in_texts_and_labels(tmp_path, encoding):
    text = "text,label\n¿dónde está? – 5 €,devolución\n" + f"{'a' * 1_050_000},x\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    dataset, report = import_dataset(tmp_path / "a.csv", tmp_path / "d")
    first = next(dataset.batches()).slice(0, 1).to_pylist()[0]
    assert (first["turns"][0]["text"], first["intent"]) == ("¿dónde está? – 5 €", "devolución")
    assert not [reason for _, reason in reasons(report) if "broken" in reason]


def test_a_broken_byte_in_utf8_is_named_and_costs_the_others_nothing(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\ndónde está,card_arrival\nd".encode() + b"\xf3nde,lost\n")
    dataset, report = import_dataset(tmp_path / "a.csv", tmp_path / "d")
    assert [turns[0]["text"] for turns in dataset.frame()["turns"]] == ["dónde está", "d\ufffdnde"]
    assert any(row == 2 and "broken characters" in reason for row, reason in reasons(report))


def test_labels_and_texts_have_one_unicode_form_whatever_came_in(tmp_path):
    rows = [{"text": text, "label": "devolución"} for text in ("¿Dónde está?", "¿Y mi café?")]
    apart = [{key: unicodedata.normalize("NFD", value) for key, value in row.items()} for row in rows]
    one, _ = import_dataset(put(tmp_path / "a.json", rows), tmp_path / "one")
    other, _ = import_dataset(put(tmp_path / "b.json", apart), tmp_path / "other")
    assert one.content_hash == other.content_hash and set(other.frame()["intent"]) == {"devolución"}


def test_roles_are_found_however_spelt(tmp_path):
    messages = [{"role": "USER", "content": "hi"}, {"role": "Assistant", "content": "hello"}]
    spanish = [{"role": "Cliente", "content": "hola"}, {"role": "AGENTE:", "content": "buenas"}]
    source = put(tmp_path / "a.json", [{"messages": messages}, {"messages": spanish}])
    dataset, report = import_dataset(source, tmp_path / "d")
    assert [[t["speaker"] for t in turns] for turns in dataset.frame()["turns"]] == [["customer", "agent"]] * 2
    assert "1 turns of 'USER' read as 'customer'" in report.notes


def test_line_breaks_of_windows_are_no_control_characters(tmp_path):
    turns = [{"speaker": "customer", "text": "Hi,\r\nwhere is my card?"}]
    _, report = import_dataset(put(tmp_path / "a.json", [conversation(0, turns=turns, turn_count=1)]), tmp_path / "d")
    assert not [reason for _, reason in reasons(report) if "control" in reason]


# An edited copy


def planned(path, n: int = 24):
    config = {"total": n, "english_share": 0.25, "domain": "conversations"}
    return write(path, [conversation(i) for i in range(n)], config=config, generation={"provider": "offline"})


def edited_csv(dataset, path):
    export_dataset(dataset, path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    rows[0][header.index("sentiment")] = "negative"
    with path.open("w", encoding="cp1252", errors="replace", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows[:-2]])
    return path


@pytest.mark.parametrize("place", ["beside", "outputs"])
def test_an_edited_copy_keeps_the_plan_it_came_from(tmp_path, own_output_root, place):
    home = tmp_path / "lab" if place == "beside" else own_output_root / "datasets" / "mine"
    dataset = planned(home)
    other = write(home.parent / "other", [conversation(i) for i in range(100, 130)], config={"english_share": 0.9})
    (tmp_path / "lab-data").mkdir()
    source = edited_csv(dataset, tmp_path / ("" if place == "beside" else "lab-data") / "edited.csv")
    copy, report = import_dataset(source, "copy" if place == "outputs" else tmp_path / "copy")
    assert other.total == 30 and copy.total == 22 and copy.manifest["config"] == dataset.manifest["config"]
    assert copy.manifest["parent"] == {"name": dataset.name, "content_hash": dataset.content_hash}
    assert any("its plan is kept" in note for note in report.notes)
    targets = {fit["attribute"] for fit in check_bias(copy)["fits"]}
    assert "language" in targets and targets == {fit["attribute"] for fit in check_bias(dataset)["fits"]}


def test_foreign_records_get_nobodys_plan(tmp_path):
    planned(tmp_path / "lab")
    source = put(tmp_path / "a.json", [conversation(i) for i in range(20, 40)])
    copy, _ = import_dataset(source, tmp_path / "copy")
    assert "config" not in copy.manifest


def test_no_path_of_this_machine_is_pushed(tmp_path, hub):
    config = {"taxonomy": str(tmp_path / "mine.yaml"), "total": 10}
    dataset = write(tmp_path / "d", [conversation(0)], config=config)
    export_dataset(dataset, "me/mine", "hub")
    pushed = json.loads(hub.files["manifest.json"])
    assert pushed["config"]["taxonomy"] == "mine.yaml" and pushed["content_hash"] == dataset.content_hash
    assert str(tmp_path) not in "".join(data.decode("utf-8", "replace") for data in hub.files.values())


def test_ragged_csv_rows_are_named(tmp_path):
    source = put(tmp_path / "a.csv", "text,label\nhi,card_arrival\nonly one\na,b,c\n")
    _, report = import_dataset(source, tmp_path / "d")
    assert reasons(report)[:2] == [(2, "the row has 1 cells, the header 2"), (3, "the row has 3 cells, the header 2")]


def test_ten_thousand_turns_and_nasty_text_come_through_as_they_are(tmp_path):
    turns = [{"speaker": "customer", "text": NASTY[i % len(NASTY)]} for i in range(10_000)]
    source = put(tmp_path / "a.json", [conversation(0, turns=turns, turn_count=10_000)])
    dataset, report = import_dataset(source, tmp_path / "d")
    assert list(dataset.frame()["turns"].iloc[0]) == turns
    assert any("control characters" in reason for _, reason in reasons(report))
    export_dataset(dataset, tmp_path / "d.csv")
    again, _ = import_dataset(tmp_path / "d.csv", tmp_path / "again")
    assert list(again.frame()["turns"].iloc[0]) == turns


def test_a_given_taxonomy_names_foreign_intents(tmp_path):
    source = put(tmp_path / "a.csv", "text,label\nhi,my_own\n")
    _, free = import_dataset(source, tmp_path / "a")
    _, strict = import_dataset(source, tmp_path / "b", taxonomy="banking77")
    assert not any("taxonomy" in reason for _, reason in reasons(free))
    assert any("not in taxonomy banking77, got 'my_own'" in reason for _, reason in reasons(strict))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", "[]", "holds no records"),
        ("a.jsonl", "", "holds no records"),
        ("a.csv", "", "holds no records"),
        ("a.csv", "text,label\n", "holds no records"),
        ("a.json", '[{"text": "a"', "a.json is no JSON"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "None of the 2 rows.*row 1: no field that is known"),
        ("a.json", "3", "must hold a list of records, got int"),
        ("a.jsonl", "{\n{\n", "None of the 2 rows.*row 1: the line is no JSON"),
        ("a.csv", "foo,bar\n1,2\n", "its columns are bar, foo: say which is which with field_map"),
        ("a.csv", "foo,intent\n1,x\n", "has turns or a text; its columns are foo, intent"),
        ("a.parquet", "no parquet", "no readable Parquet"),
        ("a.xlsx", "", "no workbook that can be read"),
        ("a.zip", "", "can't be unpacked"),
        ("a.csv.gz", "x", "can't be unpacked"),
        ("a.bin", "\0\0\1", "unknown ending"),
    ],
)
def test_nothing_to_import_is_one_sentence_and_leaves_nothing(tmp_path, name, content, sentence):
    with pytest.raises(InvalidInput, match=sentence) as error:
        import_dataset(put(tmp_path / name, content), tmp_path / "d")
    assert str(tmp_path) not in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir() if path.name not in (name, "outputs")] == []


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match=r"no file or folder nothing\.csv"):
        import_dataset(tmp_path / "nothing.csv", tmp_path / "d")


def test_the_hub_without_network_is_one_sentence(tmp_path, monkeypatch):
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(GenesisError, match=r"hub's dataset owner/name can't be (reached|used)"):
        import_dataset("hf:owner/name:train", tmp_path / "d")
    with pytest.raises(InvalidInput, match="expected hf:owner/name"):
        import_dataset("hf:../../etc", tmp_path / "d")


# Export


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_every_format_comes_back_as_it_was(tmp_path, format):
    dataset = write(tmp_path / "d", [conversation(i) for i in range(20)])
    target = tmp_path / f"out.{format}"
    export_dataset(dataset, target, format)
    again, report = import_dataset(target, tmp_path / "again")
    assert again.content_hash == dataset.content_hash and report.problems == ()


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_nasty_text_comes_back_as_it_was(tmp_path, format):
    dataset = nasty_dataset(tmp_path)
    export_dataset(dataset, tmp_path / f"out.{format}", format)
    again, _ = import_dataset(tmp_path / f"out.{format}", tmp_path / "again")
    for ours, theirs in zip(dataset.frame().itertuples(), again.frame().itertuples(), strict=True):
        assert str(ours.turns) == str(theirs.turns) and str(ours.intent) == str(theirs.intent)
        assert str(ours.category) == str(theirs.category)


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    dataset = nasty_dataset(tmp_path)
    export_dataset(dataset, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and cell != "-3"]
    assert "-3" in cells, "a number stays a number"
    assert "'=1+1" in cells


@given(st.text("'=+-@12.,e\t\r\n a") | st.text())
def test_any_cell_comes_back_and_none_is_a_formula(text):
    cell = safe_cell(text)
    assert plain_cell(cell) == text
    assert cell[:1] not in ("=", "+", "@", "\t", "\r") and (cell[:1] != "-" or float(cell) < 1)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["customer", "agent", "a b", "O'Brien", "x:y", ""]),
            st.text(st.characters(exclude_categories=["Cs"])),
        )
    )
)
def test_any_turns_survive_a_cell(pairs):
    turns = [{"speaker": speaker, "text": text} for speaker, text in pairs]
    assert text_as_turns(plain_cell(safe_cell(turns_as_text(turns)))) == turns


def test_several_splits_become_several_files(tmp_path):
    dataset = write(tmp_path / "d", {"train": [conversation(0)], "test": [conversation(1)]})
    assert export_dataset(dataset, tmp_path / "out.jsonl") == [
        f"1 conversations in {tmp_path}/out-train.jsonl", f"1 conversations in {tmp_path}/out-test.jsonl"
    ]  # fmt: skip
    assert export_dataset(dataset, tmp_path / "one.jsonl", split="test") == [f"1 conversations in {tmp_path}/one.jsonl"]
    assert json.loads((tmp_path / "one.jsonl").read_text())["conversation_id"] == "conv_00000001"


def test_a_folder_that_is_missing_is_not_made_up(tmp_path):
    dataset = write(tmp_path / "d", [conversation(0)])
    with pytest.raises(InvalidInput, match=r"There is no folder .*typo to write out\.csv to"):
        export_dataset(dataset, tmp_path / "typo" / "out.csv")
    assert not (tmp_path / "typo").exists()


def test_of_several_files_none_is_written_if_one_is_in_the_way(tmp_path):
    dataset = write(tmp_path / "d", {"train": [conversation(0)], "test": [conversation(1)]})
    (tmp_path / "out-test.csv").write_text("precious")
    with pytest.raises(InvalidInput, match=r"out-test\.csv exists already"):
        export_dataset(dataset, tmp_path / "out.csv")
    assert not (tmp_path / "out-train.csv").exists() and (tmp_path / "out-test.csv").read_text() == "precious"


def test_an_existing_file_is_only_replaced_on_demand(tmp_path):
    dataset = write(tmp_path / "d", [conversation(0)])
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(InvalidInput, match=r"out\.csv exists already"):
        export_dataset(dataset, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"
    export_dataset(dataset, tmp_path / "out.csv", replace=True)
    assert import_dataset(tmp_path / "out.csv", tmp_path / "e")[0].content_hash == dataset.content_hash


@pytest.mark.parametrize(
    ("target", "format", "sentence"),
    [
        ("out.xlsx", None, "can't be told from its ending: say jsonl, csv, parquet, labelled, long, wide, hub"),
        ("out.csv", "xlsx", "Unknown format 'xlsx': expected jsonl, csv"),
        ("out", "folder", "Unknown format 'folder': expected jsonl, csv"),
        ("s3:///key", None, "names no bucket"),
        ("just-a-name", "hub", "expected owner/name"),
    ],
)
def test_a_wrong_target_is_one_sentence(tmp_path, target, format, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        export_dataset(write(tmp_path / "d", [conversation(0)]), target, format)


# S3


@pytest.fixture
def s3(monkeypatch):
    moto = pytest.importorskip("moto")
    import boto3

    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="lab")
        yield client


def test_the_dataset_folder_on_s3(tmp_path, s3):
    dataset = write(tmp_path / "d", {"train": [conversation(0)], "test": [conversation(1)]})
    urls = export_dataset(dataset, "s3://lab/sets/mine")
    assert urls[-1] == "s3://lab/sets/mine/manifest.json"
    for url in urls:
        path = tmp_path / "back" / url.removeprefix("s3://lab/sets/mine/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("lab", url.removeprefix("s3://lab/"), str(path))
    assert open_dataset(tmp_path / "back").content_hash == dataset.content_hash


def test_one_file_on_s3(tmp_path, s3):
    dataset = write(tmp_path / "d", [conversation(0)])
    assert export_dataset(dataset, "s3://lab/a/out.jsonl") == ["s3://lab/a/out.jsonl"]
    body = s3.get_object(Bucket="lab", Key="a/out.jsonl")["Body"].read()
    assert json.loads(body)["conversation_id"] == "conv_00000000"


def test_a_bucket_that_is_not_there_is_one_sentence(tmp_path, s3):
    with pytest.raises(Unavailable, match=r"s3://nowhere/x can't be written.*NoSuchBucket"):
        export_dataset(write(tmp_path / "d", [conversation(0)]), "s3://nowhere/x")


# Hub


def test_push_without_network_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match=r"hub did not take me/mine .* can it be reached"):
        export_dataset(write(tmp_path / "d", [conversation(0)]), "me/mine", "hub")


@pytest.fixture
def hub(monkeypatch):
    with running_hub(monkeypatch) as server:
        yield server


def test_push_sends_card_manifest_and_parts_and_nothing_else(tmp_path, hub):
    dataset = write(tmp_path / "d", {"train": [conversation(0)], "test": [conversation(1)]})
    (dataset.path / "reports").mkdir()
    (dataset.path / "reports" / "secret.json").write_text("{}")
    assert export_dataset(dataset, "me/mine", "hub")[0].endswith("/datasets/me/mine")
    assert "private" in (
        hub.created[0].get("visibility"),
        hub.created[0].get("private") and "private",
    ) and hub.tokens == {"Bearer hf_test"}
    parts = {f"data/{part.name}": part.read_bytes() for part in dataset.parts()}
    card = (dataset.path / "README.md").read_bytes()
    assert hub.files == parts | {"README.md": card, "manifest.json": (dataset.path / "manifest.json").read_bytes()}


def test_a_refused_token_is_one_sentence_without_the_token(tmp_path, hub):
    hub.refuse = True
    with pytest.raises(Unavailable, match="is GENESIS_HF_TOKEN a token with write access") as error:
        export_dataset(write(tmp_path / "d", [conversation(0)]), "me/mine", "hub")
    assert "hf_test" not in str(error.value)


def test_s3_is_written_with_the_profile_and_region_of_the_settings(tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    signed = []

    class Bucket(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            signed.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = tmp_path / "aws"
        config.write_text(
            "[profile lab]\naws_access_key_id = AKIALABLABLABLABLAB0\naws_secret_access_key = fake-secret-of-a-test\n"
            f"endpoint_url = http://127.0.0.1:{server.server_port}\n"
        )
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("GENESIS_AWS_PROFILE", "lab")
        monkeypatch.setenv("GENESIS_AWS_REGION", "eu-south-2")
        get_settings.cache_clear()
        dataset = write(tmp_path / "d", [conversation(0)])
        export_dataset(dataset, "s3://mine/out.jsonl")
        assert "AKIALABLABLABLABLAB0/" in signed[0] and "/eu-south-2/s3/" in signed[0]
        monkeypatch.setenv("GENESIS_AWS_PROFILE", "nobody")
        get_settings.cache_clear()
        with pytest.raises(InvalidInput, match=r"nobody.*GENESIS_AWS_PROFILE"):
            export_dataset(dataset, "s3://mine/out.jsonl")
        server.shutdown()
