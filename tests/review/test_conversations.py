"""Conversations and messages to look through: filters, remarks, cases, saved filters, the conversation itself, CSV."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from genesis_lab.cli import app
from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.browser import Browser, conversation
from genesis_lab.review import conversations
from genesis_lab.review.forgetting import forget
from genesis_lab.review.numbers import dashboard
from genesis_lab.review.store import records
from trackers import SAMPLE, action, event, tell, user

BOT = SAMPLE.with_name("bot")
PERIOD = {"since": "2026-09-01", "until": "2026-09-30"}


def browser(store, unit="conversations", **period):
    report = dashboard(store, **(period or PERIOD))
    given = conversations.opened(store, report, unit, str(BOT))
    return Browser(**given, preview=lambda row: conversation(conversations.turns(store, row["_session"], "UTC")))


def left(one, words="", either=False, **where):
    return one.ask(one._chosen(where), words, either=either, limit=200)["rows"]


def test_what_a_chart_counts_is_what_its_click_opens(sample):
    report, one = dashboard(sample, **PERIOD), browser(sample)
    for row in report["funnel"]:
        assert len(left(one, reached=row["step"])) == row["n"]
    for row in report["days"]:
        assert len(left(one, day={"from": row["day"], "to": row["day"]})) == row["conversations"]
    for row in report["models"]:
        assert len(left(one, model=row["model"])) == row["conversations"]
    for row in report["markers"]:
        assert len(left(one, marker=row["marker"])) == row["conversations"]
    for row in report["hours"]:
        assert 1 <= len(left(one, **{"weekday and hour": f"{row['day']} {row['from']}"})) <= row["messages"]
    for row in report["histogram"]:
        assert 1 <= len(left(one, **{"model and confidence": f"{row['model']} {row['from']}"})) <= row["messages"]
    for heading, rows, name in (
        ("unsure of", "unsure", "intent"),
        ("confused", "confused", "pair"),
        ("intent", "top", "intent"),
    ):
        assert report[rows] and all(left(one, **{heading: row[name]}) for row in report[rows])


def test_messages_are_filtered_by_what_they_are_and_what_followed(sample):
    one = browser(sample, "messages")
    assert one.total == 96 and len(left(one, fallback="yes")) == 8
    assert {row["text"] for row in left(one, "MARIA")} == {"transferir Q500 a María"}
    assert left(one, action="utter_default") == left(one, fallback="yes", policy="RulePolicy")
    assert left(one, slot="monto", entity="monto") and left(one, channel="rest", confidence={"to": 0.5})
    both = {"intent": "despedir", "fallback": "yes"}
    assert len(left(one, **both)) == 0 and len(left(one, either=True, **both)) == 8 + len(left(one, intent="despedir"))
    known = left(one, **{"not in the training data": "no"})
    assert known and len(known) + len(left(one, **{"not in the training data": "yes"})) == 96


def test_remarks_are_kept_shown_filtered_by_and_undone(sample):
    one = browser(sample)
    assert one.act(0, "success")["mark"] == "success"
    assert one.act(0, "tag", "vip")["mark"] == "success, vip"
    assert one.act(0, "note", "=call back")["mark"] == "success, vip, note"
    one.act(1, "flag", why="odd")
    again = browser(sample)
    assert [row["mark"] for row in left(again, mark="vip")] == [["success", "vip", "note"]]
    assert len(left(again, mark="flag")) == 1 and len(left(again, verdict="success")) == 1
    assert records(sample, "SELECT reason FROM flags")[0]["reason"] == "odd"
    assert again.act(0, "undo")["mark"] == "success, vip" and again.act(0, "undo")["mark"] == "success"
    with pytest.raises(InvalidInput, match="no remark of yours"):
        again.act(2, "undo")
    assert dashboard(sample, **PERIOD)["verdicts"]["success"] == 1


def test_a_message_becomes_a_case_with_the_intent_it_must_get(sample):
    one = browser(sample, "messages")
    row = left(one, fallback="yes")[0]
    assert one.act(row["row"], "case", "bloquear_tarjeta")["mark"] == "case"
    [case] = records(sample, "SELECT text, intent, min_confidence FROM cases")
    assert case == {"text": row["text"], "intent": "bloquear_tarjeta", "min_confidence": 0.7}
    with pytest.raises(InvalidInput, match="is a case of bloquear_tarjeta, not of saludar"):
        one.act(row["row"], "case", "saludar")
    forgotten = browser(sample, "messages")
    sender = forgotten.record(row["row"])["sender"]
    forget(sample, sender)
    with pytest.raises(InvalidInput, match="deleted"):
        forgotten.act(row["row"], "case", "bloquear_tarjeta")


def test_filters_are_saved_for_the_next_time(sample):
    one = browser(sample)
    chosen = {"where": {"fallback": ["yes"]}, "words": "hola", "either": True}
    one.save("falls back", chosen)
    assert browser(sample).about()["saved"]["falls back"] == chosen | {"unit": "conversations"}
    assert browser(sample, "messages").about()["saved"] == {}
    with pytest.raises(InvalidInput, match="under a name"):
        one.save(" ", chosen)
    one.save("another", chosen)
    one.save("falls back", {"where": {}})
    assert list(one.save("falls back", None)) == ["another"] == list(browser(sample).about()["saved"])


def test_a_conversation_shows_entities_folded_events_and_what_was_taken_back(store, tmp_path):
    span = {"entity": "monto", "start": 7, "end": 11, "value": "Q500"}
    told = [
        user(
            "<b>mandá Q500",
            "pagar",
            timestamp=1_790_000_000.0,
            entities=[span | {"start": 9, "end": 13}],
            text_tokens=[[0, 8], [9, 13]],
        ),
        event("slot", name="monto", value="Q500"),
        action("utter_pay"),
        event("bot", text="<i>ok</i>"),
        user("no", "negar", timestamp=1_790_000_001.0),
        event("rewind"),
    ]
    for number, one in enumerate(told):
        one["timestamp"] = 1_790_000_000.0 + number
    one = browser(tell(store, tmp_path, {"a": told}))
    html = one.open(0)["html"]
    assert "&lt;b&gt;mandá <mark>Q500<small> monto</small></mark>" in html and "&lt;i&gt;ok&lt;/i&gt;" in html
    assert "<summary>monto, utter_pay</summary>" in html and html.count("turn undone") == 1 and "· undone" in html
    assert "2026-09-21" in html and "<b>pagar</b> 0.90" in html


def test_a_long_conversation_opens_at_its_end_fifty_turns_at_a_time(store, tmp_path):
    one = browser(
        tell(store, tmp_path, {"a": [user(f"number {n}", timestamp=1_790_000_000.0 + n) for n in range(120)]})
    )
    first, last = one.open(0), one.open(0, page=2)
    assert (
        first["more"]
        and "number 119" in first["html"]
        and "number 70" in first["html"]
        and "number 69" not in first["html"]
    )
    assert not last["more"] and last["html"].count('class="turn"') == 20 and "number 0<" in last["html"]


def test_csv_is_safe_in_spreadsheets_and_utf_8(store, tmp_path):
    tell(
        store,
        tmp_path,
        {"a": [user("=cmd|' /C calc'!A0", timestamp=1_790_000_000.0), user("¿año 😀?", timestamp=1_790_000_001.0)]},
    )
    report = dashboard(store, **PERIOD)
    path = tmp_path / "out.csv"
    assert conversations.write_csv(store, report, path, "messages") == 2
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert [row["text"] for row in rows] == ["¿año 😀?", "'=cmd|' /C calc'!A0"]
    assert conversations.write_csv(store, report, path, "conversations", replace=True) == 1
    with pytest.raises(InvalidInput, match="conversations and messages"):
        conversations.write_csv(store, report, path, "people", replace=True)


def test_the_command_writes_the_csv_and_says_of_which_days(sample, tmp_path):
    out = tmp_path / "messages.csv"
    given = ["review", "export-csv", str(out), "--store", str(tmp_path / "review.sqlite"), "--days", "14"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0 and "96 messages, 2026-09-14 to 2026-09-27" in done.output
    assert len(out.read_text(encoding="utf-8").splitlines()) > 96


def test_what_a_click_opens_is_said_by_the_chart_itself(sample):
    from genesis_lab.reporting.views import view

    report = dashboard(sample, **PERIOD)
    headings = set(browser(sample)._names.values())
    for name in ("funnel", "intents", "days", "hours", "confidence", "unsure", "confused"):
        meta = view("dashboard", name, report).layout.meta
        assert meta["unit"] == "conversations" and set(meta["where"]) <= headings
    assert json.dumps(view("dashboard", "hours", report).to_plotly_json()["layout"]["meta"])
