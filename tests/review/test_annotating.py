"""A person's way through the queue, labels made elsewhere, decisions, what people did, and training data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from chromium import opened
from genesis_lab.cli import app
from genesis_lab.dataset.columns import safe_cell
from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.browser import answering
from genesis_lab.reporting.views import view, views
from genesis_lab.review import store as st
from genesis_lab.review import tables
from genesis_lab.review.ingest import ingest
from genesis_lab.review.labelling import annotate_texts, approved, decide, mark_exported, pending, people, read_examples
from genesis_lab.review.nlu_merge import plan_merge
from genesis_lab.review.queue import Annotating, queue
from genesis_lab.settings import get_settings
from genesis_lab.validation.reviewers import named_alike
from trackers import FIXTURE, annotate

BOT = Path(__file__).resolve().parents[2] / "params" / "samples" / "bot"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GENESIS_REVIEW_NAME", "ana")
    get_settings.cache_clear()
    opened = st.open_store(tmp_path / "review.sqlite")
    ingest(opened, str(FIXTURE))
    return opened


def key_of(store, text):
    return st.records(store, sa.select(tables.messages.c.key).where(tables.messages.c.text == text))[0]["key"]


def say(store, old, new, **parse):
    """Another text in place of a message's."""
    with store.begin() as connection:
        values = {"text": new, "raw": json.dumps({"text": new, "parse_data": parse})}
        connection.execute(sa.update(tables.messages).where(tables.messages.c.text == old).values(values))


def session(store, *, only=None, **options):
    ticks = iter(range(0, 10_000, 3))
    found = queue(store, BOT / "nlu.yml", **options)
    found = (
        found
        if only is None
        else type(found)(tuple(i for i in found.items if i.text == only), found.counts, found.intents, found.entities)
    )
    return Annotating(store, found, clock=lambda: float(next(ticks)))


def labels_in(store):
    rows = st.records(store, sa.select(tables.labels).order_by(tables.labels.c.id))
    return [(row["intent"], row["note"], row["version"]) for row in rows]


def test_one_call_labels_saves_and_goes_on_and_the_seconds_are_kept(store):
    mine = session(store)
    first = mine.act("show")
    assert [one["name"] for one in first["ranking"]][:2] == ["saludar", "transferir"] and len(first["ranking"]) == 5
    then = mine.act("label", first["ranking"][0]["name"])
    assert then["at"] == 1 and then["done"] == 1 and then["text"] != first["text"]
    assert labels_in(store) == [(first["ranking"][0]["name"], None, 1)]
    assert st.records(store, sa.select(tables.activity.c.seconds))[0]["seconds"] == 3.0
    assert [one["key"] == then["message"] for one in then["context"]].count(True) == 1


def test_what_was_done_is_taken_back_and_done_again(store):
    mine = session(store)
    text = mine.act("show")["text"]
    mine.act("label", "despedir")
    assert (mine.act("undo")["text"], labels_in(store)) == (text, [(None, None, 2)])
    assert mine.act("redo")["at"] == 1 and labels_in(store) == [("despedir", None, 3)]
    assert mine.act("previous")["said"] == "despedir"
    mine.act("label", "saludar")
    assert mine.act("undo")["said"] == "despedir"
    with pytest.raises(InvalidInput, match="nothing to undo"):
        [mine.act("undo") for _ in range(3)]


def test_ignore_out_of_scope_and_flag_are_said_without_an_intent(store):
    mine = session(store)
    for does in ("ignore", "out_of_scope"):
        mine.act(does)
    mine.act("flag", "is this fraud?")
    assert [note for _, note, _ in labels_in(store)] == ["ignored", "out of scope", "flagged: is this fraud?"]
    assert approved(store) == [] and len(pending(store)) == 3


def test_a_new_intent_is_offered_from_then_on_and_a_name_that_rasa_refuses_is_refused(store):
    mine = session(store)
    assert "bloquear_tarjeta" in mine.act("label", "bloquear_tarjeta")["intents"]
    with pytest.raises(InvalidInput, match="at most one /"):
        mine.act("label", "a/b/c")
    assert len(labels_in(store)) == 1


@pytest.mark.parametrize(
    "text", ["💩 saldo de Juanita mañana", "👨🏻‍🚒 saldo de Juanita mañana", "saldo de Juanita mañana"]
)
def test_a_selection_of_a_browser_becomes_code_points_at_the_borders_of_words(store, text):
    say(store, "asdf", text)
    mine = session(store, only=text)
    units = len(text[: text.index("uanit")].encode("utf-16-le")) // 2
    shown = mine.act("mark", {"entity": "persona", "start": units, "end": units + 5})
    (span,) = shown["spans"]
    assert text[span["start"] : span["end"]] == span["text"] == "Juanita"
    mine.act("label", "consultar_saldo")
    row = st.records(store, sa.select(tables.labels.c.entities))[0]["entities"][0]
    assert (text[row["start"] : row["end"]], row["entity"]) == ("Juanita", "persona")


def test_blanks_around_a_selection_are_not_marked(store):
    say(store, "asdf", "pago a Ana ya", text_tokens=[[0, 4], [5, 6], [7, 10], [11, 13]])
    mine = session(store, only="pago a Ana ya")
    (span,) = mine.act("mark", {"entity": "persona", "start": 6, "end": 11})["spans"]
    assert span["text"] == "Ana"


def test_half_an_emoji_is_never_marked_and_tokens_are_those_of_the_bot(store):
    say(store, "asdf", "pago 👨🏻‍🚒, Q75", text_tokens=[[0, 4], [12, 14], [12, 15]])
    mine = session(store, only="pago 👨🏻‍🚒, Q75")
    text = mine.act("show")["text"]
    units = len(text[: text.index("🚒")].encode("utf-16-le")) // 2
    (span,) = mine.act("mark", {"entity": "oficio", "start": units, "end": units + 1})["spans"]
    assert text[span["start"] : span["end"]].startswith("👨🏻‍🚒")
    assert mine.act("unmark", 0)["spans"] == []


def test_a_predicted_entity_is_kept_without_its_synonym_and_those_no_example_teaches_are_not(store):
    found = [
        {"entity": "cuenta", "start": 6, "end": 15, "text": "monetaria", "value": "cheques"},
        {"entity": "numero", "start": 0, "end": 5, "extractor": "DucklingEntityExtractor"},
    ]
    with store.begin() as connection:
        connection.execute(
            sa.update(tables.messages).where(tables.messages.c.text == "saldo monetaria").values(entities=found)
        )
    session(store, only="saldo monetaria").act("label", "consultar_saldo")
    row = st.records(store, sa.select(tables.labels.c.entities))[0]
    assert row["entities"] == [{"start": 6, "end": 15, "entity": "cuenta", "text": "monetaria"}]


def test_all_near_duplicates_are_labelled_with_one_key_and_taken_back_with_one(store):
    long = "quiero abrir una cuenta de ahorros nueva por favor"
    say(store, "asdf", long)
    say(store, "saldo", f"{long}cito")
    mine = session(store)
    while not mine.item.like:
        mine.act("next")
    assert mine.act("label", "abrir_cuenta", every=True)["done"] == 2
    assert [row[0] for row in labels_in(store)] == ["abrir_cuenta"] * 2
    mine.act("undo")
    assert [row[0] for row in labels_in(store)] == [None, None]
    total = len(mine.items)
    mine.act("label", "abrir_cuenta")
    assert len(mine.items) == total + 1 and mine.item.text.startswith("quiero abrir"), (
        "the other one is asked by itself"
    )


def test_a_rejection_is_shown_to_its_author_with_the_reason(store):
    mine = session(store)
    text = mine.act("show")["text"]
    mine.act("label", "saludar")
    (row,) = pending(store)
    assert (row["version"], row["text"]) == (1, text)
    decide(store.by("luis"), row["id"], row["version"], "rejected", "it is no greeting")
    assert session(store).act("show")["reason"] == "rejected: saludar by ana, it is no greeting"


FILES = {
    "labels.csv": 'text,intent,entities\nasdf,despedir,\nsaldo monetaria,consultar_saldo,"[{""start"": 6, ""end"": 15, ""entity"": ""cuenta""}]"\n',
    "labels.jsonl": '{"text": "asdf", "intent": "despedir"}\n{"text": "saldo monetaria", "intent": "consultar_saldo"}\n',
    "doccano.jsonl": '{"id": 1, "text": "asdf", "label": ["despedir"]}\n{"id": 2, "text": "saldo monetaria", "label": ["consultar_saldo"]}\n',
    "studio.json": json.dumps([{"data": {"text": text}, "annotations": [{"result": [{"value": {"choices": [intent]}, "type": "choices"}]}]}
                               for text, intent in (("asdf", "despedir"), ("saldo monetaria", "consultar_saldo"))]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_labels_made_elsewhere_wait_for_a_decision(store, tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    made = annotate_texts(store, read_examples(tmp_path / name), BOT)
    assert [(row["intent"], row["status"]) for row in made] == [("despedir", "pending"), ("consultar_saldo", "pending")]
    assert made[0]["message"] == key_of(store, "asdf")
    assert bool(made[1]["entities"]) == (name == "labels.csv")


@pytest.mark.parametrize(
    "kind, name", [("rows", "l.csv"), ("rows", "l.jsonl"), ("label-studio", "l.json"), ("doccano", "l.jsonl")]
)
def test_labels_are_written_in_files_that_are_read_back(store, tmp_path, kind, name):
    (tmp_path / "in.csv").write_text(FILES["labels.csv"])
    annotate_texts(store, read_examples(tmp_path / "in.csv"), BOT)
    annotate(store, key_of(store, "saldo"), None, note="ignored")
    out = tmp_path / name
    words = ["review", "export-labels", str(out), "--as", kind, "--store", str(tmp_path / "review.sqlite")]
    assert ("3 labels" if kind == "rows" else "2 labels") in CliRunner().invoke(app, words).output
    read = {one["text"]: one for one in read_examples(out)}
    assert read["asdf"]["intent"] == "despedir" and read["saldo monetaria"]["intent"] == "consultar_saldo"
    if kind == "rows":
        assert (read["saldo"]["note"], read["asdf"]["status"]) == ("ignored", "pending")
        assert read["saldo monetaria"]["entities"] == [{"start": 6, "end": 15, "entity": "cuenta"}]
    else:
        assert '"cuenta"' in out.read_text()
    assert "exists already" in str(CliRunner().invoke(app, words).exception)


def test_an_apostrophe_that_keeps_a_spreadsheet_from_running_a_text_goes_once_only(tmp_path):
    said = ["=2+2", "'=2+2", "'tis"]
    rows = [f"{safe_cell(text)},despedir" for text in said]
    (tmp_path / "l.csv").write_text("\n".join(["text,intent", *rows]))
    assert [one["text"] for one in read_examples(tmp_path / "l.csv")] == said


def test_the_same_file_again_says_nothing_new_even_when_a_label_was_decided(store, tmp_path):
    (tmp_path / "l.jsonl").write_text(FILES["labels.jsonl"])
    first = annotate_texts(store.by("eva"), read_examples(tmp_path / "l.jsonl"), BOT)
    decide(store, first[0]["id"], 1, "approved")
    assert annotate_texts(store.by("eva"), read_examples(tmp_path / "l.jsonl"), BOT) == []
    (tmp_path / "l.jsonl").write_text(FILES["labels.jsonl"].replace("consultar_saldo", "transferir"))
    (changed,) = annotate_texts(store.by("eva"), read_examples(tmp_path / "l.jsonl"), BOT)
    assert (changed["intent"], changed["version"], len(pending(store))) == ("transferir", 2, 1)


def test_labels_of_messages_that_are_gone_and_unknown_intents_are_named_and_nothing_is_saved(store, tmp_path):
    (tmp_path / "l.csv").write_text("text,intent\nasdf,despedir\nnobody said this,despedir\nsaldo,comprar\n")
    with pytest.raises(InvalidInput, match=r"Nothing was saved.*no message 'nobody said this'.*no intent 'comprar'"):
        annotate_texts(store, read_examples(tmp_path / "l.csv"), BOT)
    for name, empty in (("empty.csv", ""), ("empty.yml", "nlu: []")):
        (tmp_path / name).write_text(empty)
        with pytest.raises(InvalidInput, match="holds no case or label"):
            read_examples(tmp_path / name)
    bad = [
        {"text": "asdf", "intent": "despedir"},
        {"text": "saldo", "intent": "despedir", "entities": [{"start": 0, "end": 99, "entity": "x"}]},
    ]
    with pytest.raises(InvalidInput, match="lies outside the text"):
        annotate_texts(store, bad, BOT)
    assert labels_in(store) == []


def test_the_way_of_a_label_by_commands(store, tmp_path, monkeypatch):
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(tmp_path / "outputs"))
    get_settings.cache_clear()
    bot = shutil.copytree(BOT, tmp_path / "bot")

    def run(*words):
        return CliRunner().invoke(app, ["review", *map(str, words), "--store", str(tmp_path / "review.sqlite")])

    (tmp_path / "l.csv").write_text("text,intent\nbloquear tarjeta,bloquear\nnull \u2400 char,despedir\n")
    assert run("annotate", tmp_path / "l.csv", bot).exit_code == 1
    assert "2 labels wait" in run("annotate", tmp_path / "l.csv", bot, "--new-intent", "bloquear").output
    assert "needs a reason" in str(run("decide", 1, 1, "rejected").exception)
    assert "label 1 is approved. ana decided on an annotation of their own." in run("decide", 1, 1, "approved").output
    run("decide", 2, 1, "approved")
    assert [row["text"] for row in approved(store)] == ["bloquear tarjeta", "null \0 char"]
    before = (bot / "nlu.yml").read_text()
    assert "2 added" in run("nlu", "merge", bot).output and (bot / "nlu.yml").read_text() == before
    assert "2 files written" in run("nlu", "merge", bot, "--write").output, "the domain names the new intent"
    assert (
        "    - bloquear tarjeta\n" in (bot / "nlu.yml").read_text()
        or "  - bloquear tarjeta\n" in (bot / "nlu.yml").read_text()
    )
    assert approved(store) == [] and plan_merge(bot, approved(store)).added == []


def test_entities_of_a_text_that_was_typed_otherwise_are_not_put_where_they_do_not_belong(store, tmp_path):
    said = {"text": "¡Saldo! monetaria", "cats": ["consultar_saldo"], "entities": [[8, 17, "cuenta"]]}
    (tmp_path / "l.jsonl").write_text(json.dumps(said))
    with pytest.raises(InvalidInput, match="was typed as 'saldo monetaria'"):
        annotate_texts(store, read_examples(tmp_path / "l.jsonl"), BOT)
    said |= {"text": "saldo monetaria", "entities": [[6, 15, "cuenta"]]}
    (tmp_path / "l.jsonl").write_text(json.dumps(said))
    (made,) = annotate_texts(store, read_examples(tmp_path / "l.jsonl"), BOT)
    assert made["entities"] == [{"start": 6, "end": 15, "entity": "cuenta"}]


def test_what_people_did_is_counted_with_reasons_and_intervals(store):
    one = annotate(store, key_of(store, "asdf"), "despedir", seconds=4.0)
    two = annotate(store, key_of(store, "saldo"), "consultar_saldo", seconds=8.0)
    annotate(store, key_of(store, "asdf"), "saludar", author="luis")
    decide(store.by("eva"), one["id"], 1, "rejected", "not a word")
    decide(store.by("eva"), two["id"], 1, "approved")
    report = people(store)
    ana, luis = report["people"]
    assert (ana["annotations"], ana["seconds"], ana["approved"]["n"], ana["approved"]["estimate"]) == (2, 6.0, 2, 0.5)
    assert luis["seconds"] is None and luis["approved"] is None
    assert [(row["author"], row["reason"]) for row in report["rejections"]] == [("ana", "not a word")]
    assert report["agreement"]["n"] == 1 and report["disagreements"][0]["said"] == ["ana: despedir", "luis: saludar"]


def test_agreement_is_what_the_literature_gives():
    """Krippendorff (2011), section C, the nominal example: alpha 0.743; AC1 of the same data by Gwet's irrCAC: 0.775."""
    table = ["11.1", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", ".555", "..11", ".3.."]
    given = {f"u{n}": {f"o{i}": v for i, v in enumerate(unit) if v != "."} for n, unit in enumerate(table)}
    found = named_alike(given)
    assert found["measure"] == "Krippendorff's alpha" and found["n"] == 11
    assert found["coefficient"]["estimate"] == pytest.approx(0.743, abs=0.001)
    assert found["ac1"]["estimate"] == pytest.approx(0.775, abs=0.001)


def test_ac1_holds_where_one_name_prevails_and_kappa_collapses():
    """Gwet (2008), table 1 of the paradox of Feinstein and Cicchetti: 118 and 5 agree, 2 do not."""
    pairs = [("+", "+")] * 118 + [("+", "-")] * 5 + [("-", "+")] * 2
    found = named_alike({str(n): {"a": a, "b": b} for n, (a, b) in enumerate(pairs)})
    assert found["measure"] == "Cohen's kappa"
    assert found["coefficient"]["estimate"] < 0 and found["ac1"]["estimate"] > 0.9 and found["same"]["estimate"] > 0.9
    assert named_alike({"x": {"a": "+", "b": "+"}})["reading"] == "everything got one name"
    assert named_alike({"x": {"a": "+"}})["coefficient"] is None


def test_the_report_on_people_can_be_shown_with_and_without_anything_to_measure(store):
    empty = people(store)
    assert "nobody has annotated" in str(view("people", "people", empty))
    for person in ("ana", "luis", "eva"):
        annotate(store, key_of(store, "asdf"), "despedir", author=person, seconds=2.0)
        annotate(store, key_of(store, "saldo"), "<b>saldo" if person == "eva" else "consultar_saldo", author=person)
    report = people(store)
    assert "Krippendorff" in view("people", "agreement", report).text
    assert (
        "&lt;b&gt;saldo" in view("people", "disagreements", report).html
        and "<b>saldo" not in view("people", "disagreements", report).html
    )
    assert "none was decided" in view("people", "people", report).text
    assert len(views("people", report)) > 0


def test_a_message_costs_one_key_and_no_key_reaches_the_notebook(store, tmp_path):
    mine = Annotating(store, queue(store, BOT))
    widget = answering("annotating", {"banner": ""}, {"act": mine.act})
    page = tmp_path / "page.html"
    model = """const heard = {}, model = { get: () => ({}), on: (event, does) => { heard[event] = does; }, off: () => 0, send: (given) => { (window.sent ??= []).push(given); } };
    window.answer = (message) => heard["msg:custom"](message);
    window.leaked = []; document.addEventListener("keydown", (event) => leaked.push(event.key));
    annotating.render({ model, el: document.body });"""
    page.write_text(f"<!doctype html><body><script type=module>{widget._esm}{model}</script>")
    with opened(page, tmp_path / "profile") as tab:

        def answered():
            tab.until("(window.sent || []).length", 1)
            (asked,) = tab.js("sent.splice(0)")
            tab.js(f"answer({json.dumps({'number': asked['number'], 'answer': mine.act(**asked['with'])})})")

        answered()  # what is first in the queue
        for key, done in (("1", 1), ("2", 2), ("i", 3), ("u", 2), ("r", 3)):
            tab.js("document.querySelector('.gla').focus()")
            tab.press(key)
            answered()
            tab.until("document.querySelector('.glb-count').textContent.split(' ')[0]", str(done))
        assert tab.js("leaked") == []
    assert [row["intent"] is not None for row in pending(store)] == [True, True, False]


def test_how_far_labels_have_come_and_what_was_done_is_told(store):
    first, second = (row["key"] for row in st.records(store, sa.select(tables.messages).limit(2)))
    annotate(store, first, "saludar", author="eva")
    annotate(store, second, "despedir", author="eva")
    decide(store.by("leo"), 1, 1, "approved")
    mark_exported(store, [1])
    report = people(store)
    assert report["stages"] == {"pending": 1, "approved": 1, "rejected": 0, "exported": 1, "in use": 0}
    assert [(row["author"], row["action"]) for row in report["log"]] == [("eva", "annotated")] * 2
    with store.begin() as connection:  # a model that is first seen after the export
        last = sa.select(sa.func.max(tables.messages.c.timestamp)).scalar_subquery()
        newest = tables.messages.c.timestamp == last
        connection.execute(sa.update(tables.messages).where(newest).values(model=None, timestamp=4e9))
    assert people(store)["stages"]["in use"] == 0, "a source that names no model does not tell"
    with store.begin() as connection:
        connection.execute(sa.update(tables.messages).where(tables.messages.c.timestamp == 4e9).values(model="new"))
    assert people(store)["stages"]["in use"] == 1
    assert "annotated" in view("people", "log", report).text and "exported" in view("people", "stages", report).text
