"""Files of people who do this job, each told by what stands in it and said; the texts are invented."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest
from typer.testing import CliRunner

from genesis_lab.cli import app
from genesis_lab.dataset import import_dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.validation.reference import load_reference

PAIRS = [
    ("where is my card", "card/arrival"),
    ("has my card been sent", "card/arrival"),
    ("what is the rate", "Größe"),
    ("which rate do you use today", "Größe"),
    ("tell me the price", "faq/ask price"),
    ("how much for two", "faq/ask price"),
]


def table(head: str, mark: str = ",", end: str = "") -> str:
    return "".join(f"{line}{end}\n" for line in [head, *(mark.join(pair) for pair in PAIRS)] if line)


def lines(*records) -> str:
    return "\n".join(json.dumps(record) for record in records)


def labels(frame) -> list[tuple[str, str]]:
    return sorted((turns[0]["text"], intent) for turns, intent in zip(frame["turns"], frame["intent"], strict=True))


TABLES = {
    "upper case": ("a.csv", table("Text,INTENT")),
    "Spanish, cp1252": ("a.csv", table("Frase;Intención", ";").encode("cp1252")),
    "UTF-16": ("a.csv", table("utterance\tetiqueta", "\t").encode("utf-16")),
    "UTF-16 without mark": ("a.csv", table("query,class").encode("utf-16-le")),
    "bars": ("a.csv", table("utt|tag", "|")),
    "tabs in a text": ("a.txt", table("pattern\tdomain", "\t")),
    "sep line": ("a.csv", "sep=;\r\n" + table("Sentence;Label", ";")),
    "title lines": ("a.csv", "Our phrases of 2025;\n;\n" + table("texto;clase", ";")),
    "trailing semicolons": ("a.csv", table("mensaje;etiqueta", ";", ";;")),
    "no header": ("a.csv", table("")),
    "header that nobody knows": ("a.csv", table("foo,bar")),
    "any ending": ("a.dat", table("phrase;label", ";")),
    "gz": ("a.csv.gz", gzip.compress(table("text,label").encode())),
    "nested JSON lines in a text": ("a.txt", lines(*({"q": {"utt": t}, "meta": {"class": i}} for t, i in PAIRS))),
    "JSON lines in .json": ("a.json", lines(*({"pregunta": t, "categoría": i} for t, i in PAIRS))),
    "a list under some key": ("a.json", lines({"result": {"found": [{"said": "", "texto": t, "tag": i} for t, i in PAIRS]}})),
    "pairs, label first": ("a.jsonl", lines(*([i, t] for t, i in PAIRS))),
    "codes with names": ("a.csv", table("text,label_text").replace("\n", ",1.0\n").replace("label_text,1.0", "label_text,x")),
    "Rasa JSON": ("a.json", lines({"rasa_nlu_data": {"common_examples": [{"text": t, "intent": i} for t, i in PAIRS]}})),
    "LUIS": ("a.json", lines({"intents": [{"name": "x"}], "utterances": [{"text": t, "intent": i} for t, i in PAIRS]})),
    "doccano": ("a.jsonl", lines(*({"id": 1, "data": t, "label": [i]} for t, i in PAIRS))),
    "Label Studio": (
        "a.json",
        lines([{"id": 1, "data": {"text": t}, "annotations": [{"result": [{"value": {"choices": [i]}}]}]} for t, i in PAIRS]),
    ),
    "Argilla": ("a.jsonl", lines(*({"fields": {"text": t}, "responses": {"q": [{"value": i}]}} for t, i in PAIRS))),
    "Argilla, older": ("a.jsonl", lines(*({"fields": {"text": t}, "responses": [{"values": {"q": {"value": i}}}]} for t, i in PAIRS))),
    "intents.json": ("a.json", lines({"intents": [{"tag": i, "patterns": [t], "responses": ["ok"]} for t, i in PAIRS]})),
    "Watson": ("a.json", lines({"intents": [{"intent": i, "examples": [{"text": t}]} for t, i in PAIRS], "dialog_nodes": []})),
    "MASSIVE": ("a.jsonl", lines(*({"id": "1", "locale": "en-US", "scenario": "x", "intent": i, "utt": t, "annot_utt": t} for t, i in PAIRS))),
    "nlu.yml": ("nlu.yml", "nlu:\n" + "".join(f"- intent: {i}\n  examples: |\n    - {t}\n" for t, i in PAIRS) + "- lookup: x\n  examples: |\n    - y\n"),
    "fastText": ("a.txt", "".join(f"__label__{i.replace(' ', '_')} {t}\n" for t, i in PAIRS)),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_text_and_label_are_found_and_said(tmp_path, name):
    file, content = TABLES[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset, report = import_dataset(tmp_path / file, tmp_path / "d")
    found = [(text, intent.replace("_", " ")) for text, intent in labels(dataset.frame())]
    assert found == sorted(PAIRS) and report.kept == len(PAIRS)
    assert any("is the utterance (" in note for note in report.notes)
    assert any("is the label (" in note for note in report.notes)


HI = [("customer", "hi there"), ("agent", "hello")]
SPOKEN = [{"speaker": "USER", "text": "hi there"}, {"speaker": "SYSTEM", "text": "hello"}]
CHATS = {
    "SGD": ("a.json", lines([{"dialogue_id": "1", "services": ["x"], "turns": [
        {"speaker": "USER", "utterance": "hi there", "frames": [{"state": {"active_intent": "Greet"}}]},
        {"speaker": "SYSTEM", "utterance": "hello", "frames": []}]}])),
    "MultiWOZ": ("a.json", lines({"P.json": {"goal": {}, "log": [{"text": "hi there"}, {"text": "hello"}]}})),
    "Taskmaster": ("a.json", lines([{"conversation_id": "1", "instruction_id": "x", "utterances": SPOKEN}])),
    "ABCD": ("a.json", lines({"train": [{"convo_id": 1, "scenario": {"subflow": "x"}, "original": [
        ["customer", "hi there"], ["action", "looked up"], ["agent", "hello"]]}]})),
    "TWCS": ("a.csv", "tweet_id,author_id,inbound,text,in_response_to_tweet_id\n2,shop,False,hello,7\n7,9,True,hi there,\n"),
    "DailyDialog": ("a.txt", "hi there __eou__ hello __eou__\n"),
    "strings in turn": ("a.jsonl", lines({"dialog": ["hi there", "hello"], "act": [1, 2], "emotion": [0, 0]})),
    "persona chat": ("a.json", lines({"train": [{"personality": ["x"], "utterances": [{"history": ["hi there"], "candidates": ["no", "hello"]}]}]})),
    "instruction and output": ("a.json", lines([{"instruction": "hi there", "input": "", "output": "hello"}])),
    "prompt and completion": ("a.jsonl", lines({"prompt": "hi there", "completion": "hello"})),
    "preference": ("a.jsonl", lines({"prompt": "hi there", "chosen": "hello", "rejected": "no"})),
    "preference of transcripts": ("a.jsonl", lines({"chosen": "\n\nHuman: hi there\n\nAssistant: hello", "rejected": "\n\nHuman: x\n\nAssistant: y"})),
    "pairs of speaker and text": ("a.json", lines([{"dialogue": [["user", "hi there"], ["bot", "hello"]]}])),
    "a transcript in one line": ("a.csv", 'id,transcript\n1,"Customer: hi there Agent: hello"\n'),
    "a text file": ("a.txt", "Cliente: hi there\nAgente: hello\n"),
    "rows with an id": ("a.csv", "session_id,turn,sender,message\nx,2,bot,hello\nx,1,user,hi there\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_dialogues_are_found_and_said(tmp_path, name):
    file, content = CHATS[name]
    (tmp_path / file).write_text(content)
    dataset, report = import_dataset(tmp_path / file, tmp_path / "d")
    assert [(turn["speaker"], turn["text"]) for turn in dataset.frame()["turns"][0]] == HI
    assert dataset.total == 1 and report.notes


def test_splits_and_what_is_out_of_scope_are_kept(tmp_path):
    (tmp_path / "clinc.json").write_text(lines({"train": PAIRS, "oos_train": [["why", "oos"]], "test": PAIRS[:2]}))
    dataset, _ = import_dataset(tmp_path / "clinc.json", tmp_path / "d")
    assert dataset.counts == {"test": 2, "train": 7} and ("why", "oos") in labels(dataset.frame("train"))


def test_snips_hwu64_and_dialogflow_are_told_by_their_shape(tmp_path):
    (tmp_path / "s.json").write_text(
        lines({"Weather": [{"data": [{"text": "rain in "}, {"text": "Paris", "entity": "x"}]}]})
    )
    (tmp_path / "h.csv").write_text(
        "scenario;intent;answer_annotation;answer_normalised;answer;question\nalarm;set;x;wake me;Wake me!;Say it\n"
    )
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("agent.json", lines({"description": "x"}))
        archive.writestr("intents/Order it.json", lines({"name": "Order it", "responses": [{"messages": ["ok"]}]}))
        phrase = [{"data": [{"text": "a "}, {"text": "pizza", "meta": "@x"}], "isTemplate": False}]
        archive.writestr("intents/Order it_usersays_en.json", lines(phrase))
    found = [labels(import_dataset(tmp_path / f, tmp_path / f[0])[0].frame())[0] for f in ("s.json", "h.csv", "d.zip")]
    assert found == [("rain in Paris", "Weather"), ("wake me", "alarm_set"), ("a pizza", "Order it")]


@pytest.mark.parametrize("name", ["greet.txt", "greet/1.txt", "greet.csv"])
def test_a_folder_of_one_file_per_intent(tmp_path, name):
    for intent in ("greet", "bye bye"):
        file = tmp_path / "all" / name.replace("greet", intent)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"text\n{intent} now\n" if name.endswith("csv") else f"{intent} now\n")
    dataset, report = import_dataset(tmp_path / "all", tmp_path / "d")
    assert labels(dataset.frame()) == [("bye bye now", "bye bye"), ("greet now", "greet")]
    assert "the names of the files are the labels" in report.notes


def test_a_workbook_and_an_archive_of_splits(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    for row in [["Our phrases"], [], ["Utterance", "Intent"], *PAIRS]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert labels(import_dataset(tmp_path / "a.xlsx", tmp_path / "x")[0].frame()) == sorted(PAIRS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"deep/{split}.csv", table("text,label"))
    assert import_dataset(tmp_path / "a.zip", tmp_path / "z")[0].counts == {"test": 6, "train": 6}


def test_class_codes_of_a_parquet_file_of_the_hub_become_their_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"info": {"features": {"label": {"names": ["a/b", "c"], "_type": "ClassLabel"}}}}
    held = pa.table({"text": ["where is it", "what is it"], "label": [1, 0]})
    pq.write_table(held.replace_schema_metadata({"huggingface": json.dumps(about)}), tmp_path / "a.parquet")
    dataset, _ = import_dataset(tmp_path / "a.parquet", tmp_path / "d")
    assert labels(dataset.frame()) == [("what is it", "a/b"), ("where is it", "c")]


ANN = "chat_id,who,text\n1,Ann,hi there\n1,Bob,hello\n2,Ann,my card\n2,Bob,ok\n"


def test_who_is_the_customer_is_asked_where_it_cannot_be_told(tmp_path):
    (tmp_path / "a.csv").write_text(ANN)
    with pytest.raises(InvalidInput, match=r"'Ann' and 'Bob' is the customer.*--field customer='Ann'"):
        import_dataset(tmp_path / "a.csv", tmp_path / "d")
    for who, first in (("Ann", "customer"), ("Bob", "agent"), ("first", "customer")):
        dataset, _ = import_dataset(tmp_path / "a.csv", tmp_path / who, field_map={"customer": who})
        assert [turns[0]["speaker"] for turns in dataset.frame()["turns"]] == [first, first]
    (tmp_path / "b.csv").write_text(ANN.replace("Bob", "Agent 7"))
    dataset, _ = import_dataset(tmp_path / "b.csv", tmp_path / "e")
    assert [turn["speaker"] for turn in dataset.frame()["turns"][0]] == ["customer", "agent"]


def test_two_texts_are_asked_about_and_several_labels_said(tmp_path):
    rows = [f"{text} {i},{text} or so {i},{label}" for i, (text, label) in enumerate(PAIRS)]
    (tmp_path / "a.csv").write_text("\n".join(["foo,bar,baz", *rows]))
    with pytest.raises(InvalidInput, match=r"`foo`.*may all be what the customer says: say which with --field text="):
        import_dataset(tmp_path / "a.csv", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    (tmp_path / "b.csv").write_text(
        "text,country,via\n" + "".join(f"{t},{c},web\n" for (t, _), c in zip(PAIRS, "aabbcc", strict=True))
    )
    _, report = import_dataset(tmp_path / "b.csv", tmp_path / "e")
    assert any("no label was taken: `country`, `via` may be it" in note for note in report.notes)


def test_other_languages_are_kept_and_said(tmp_path):
    (tmp_path / "a.csv").write_text("texte,étiquette,langue\nbonjour à vous,salut,français\nau revoir,fin,fr-FR\n")
    dataset, report = import_dataset(tmp_path / "a.csv", tmp_path / "d")
    assert dataset.frame()["language"].tolist() == ["fr", "fr"] and not report.problem_counts
    assert any("2 records in 'fr', kept" in note for note in report.notes)


def test_a_preview_shows_records_and_the_command_and_writes_nothing(tmp_path):
    (tmp_path / "a.csv").write_text(table("Text,INTENT"))
    done = CliRunner().invoke(app, ["dataset", "import", str(tmp_path / "a.csv"), str(tmp_path / "d"), "--preview"])
    assert done.exit_code == 0 and "customer: where is my card" in done.output and not (tmp_path / "d").exists()
    assert "--field text=Text --field intent=INTENT" in done.output


def test_a_problem_that_comes_again_is_said_once_with_its_count(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,sentiment\n" + "".join(f"where is {i},x,bad\n" for i in range(50)))
    _, report = import_dataset(tmp_path / "a.csv", tmp_path / "d")
    assert len(report.said()) == 1 and report.said()[0].endswith("(and 49 more like it)")


def test_a_reference_is_named_by_its_path_too(tmp_path):
    for split in ("test", "train"):
        (tmp_path / f"{split}.csv").write_text(table("text,label"))
    found = load_reference(str(tmp_path), "train")
    assert found and len(found) == len(PAIRS) and found.name == tmp_path.name


CODED = (
    "text,label\nwhere is my card,0\nwhat is the rate,2\nI lost my card,1\nmy card is late,0\n",
    ["a/b", "lost", "rate"],
)
CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "a/b\nlost\nrate\n"),
        ("categories.json", '["a/b", "lost", "rate"]'),
        ("config.json", '{"model_type": "bert", "id2label": {"0": "a/b", "1": "lost", "2": "rate"}}'),
        ("README.md", CARD + "          '0': a/b\n          '1': lost\n          '2': rate\n---\n# Ours\n"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["the file", "its folder"])
def test_codes_of_labels_get_the_names_that_a_file_beside_them_says(tmp_path, name, content, whole):
    source = tmp_path / "ours"
    source.mkdir()
    (source / name).write_text(content)
    (source / "data.csv").write_text(CODED[0])
    dataset, report = import_dataset(source if whole else source / "data.csv", tmp_path / "d")
    assert dict(labels(dataset.frame()))["what is the rate"] == "rate" and report.kept == 4
    assert f"labels are codes, of the 3 names in {name}" in report.notes


def test_codes_from_one_on_are_told_and_others_stay_and_are_said(tmp_path):
    (tmp_path / "classes.txt").write_text("a/b\nlost\nrate\n")
    told = {}
    for first in (1, 2):
        lines = CODED[0].splitlines()
        rows = [lines[0], *(f"{line[:-1]}{int(line[-1]) + first}" for line in lines[1:])]
        (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
        dataset, report = import_dataset(tmp_path / "data.csv", tmp_path / f"d{first}")
        told[dict(labels(dataset.frame()))["I lost my card"]] = [note for note in report.notes if "codes" in note]
    assert told == {
        "lost": ["labels are codes, of the 3 names in classes.txt"],
        "3": ["labels are codes, not of the 3 names in classes.txt"],
    }
