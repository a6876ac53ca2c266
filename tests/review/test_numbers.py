"""The dashboard's numbers: periods and zones, what is resolved, who says so, what can't be told."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.views import view
from genesis_lab.review.conversations import opened, turns
from genesis_lab.review.labelling import add
from genesis_lab.review.numbers import dashboard, holds, open_messages, read_markers
from genesis_lab.review.queue import queue
from genesis_lab.yamls import dump_yaml
from trackers import SAMPLE, action, annotate, event, start, tell, user

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)


def said(at, name="saludar", confidence=0.9, **more):
    return user("hola", name, confidence, timestamp=at, **more)


def sessions(store):
    with open_messages(store) as database:
        return [
            key
            for (key,) in database.execute("SELECT DISTINCT session FROM messages WHERE typed ORDER BY 1").fetchall()
        ]


def test_the_numbers_of_the_sample_are_those_of_its_events(sample):
    report = dashboard(sample, now=NOW)
    assert (report["kind"], report["conversations"], report["messages"], report["intents"]) == ("dashboard", 32, 96, 5)
    assert report["fallback"]["n"] == 96 and round(report["fallback"]["estimate"] * 96) == 8
    assert [row["n"] for row in report["funnel"]] == [32, 30, 24]
    assert sum(row["messages"] for row in report["hours"]) == sum(row["messages"] for row in report["days"]) == 96
    assert sum(row["messages"] for row in report["histogram"]) == 96
    assert [row["day"] for row in report["deploys"]] == ["2026-09-14", "2026-09-21"]
    assert [row["day"] for row in dashboard(sample, since="2026-09-20", now=NOW)["deploys"]] == ["2026-09-21"]
    assert sum(row["conversations"] for row in report["models"]) == 32
    assert json.loads(json.dumps(report)) == report


def test_a_period_without_a_message_goes_back_to_the_newest_one_and_says_so(sample):
    assert dashboard(sample, days=14, now=NOW)["period"]["note"] == ""
    old = dashboard(sample, days=14, now=datetime(2027, 3, 1, tzinfo=UTC))
    assert old["period"]["until"] == "2026-09-27" and "newest message, of 2026-09-27" in old["period"]["note"]
    assert old["messages"] == 96
    asked = dashboard(sample, since="2027-02-01", until="2027-02-28")
    assert asked["messages"] == 0 and asked["fallback"] is None
    assert "nobody wrote" in view("dashboard", "numbers", asked).text
    assert asked["confidence"]["estimate"] is None and len(asked["days"]) == 28


def test_today_is_what_was_said_today_in_the_zone(store, tmp_path):
    # 05:30 UTC on 2 March is still 1 March in Guatemala (UTC-6)
    at = datetime(2026, 3, 2, 5, 30, tzinfo=UTC).timestamp()
    tell(store, tmp_path, {"a": [said(at)]})
    now = datetime(2026, 3, 2, 5, 45, tzinfo=UTC)
    here, there = dashboard(store, days=1, now=now), dashboard(store, days=1, zone="Europe/Madrid", now=now)
    assert here["days"] == [{"day": "2026-03-01", "messages": 1, "conversations": 1, "fallback": 0}]
    assert there["days"][0]["day"] == "2026-03-02"
    assert (here["hours"][0]["weekday"], here["hours"][0]["hour"]) == (6, 23)
    assert (there["hours"][0]["weekday"], there["hours"][0]["hour"]) == (0, 6)


def test_days_of_23_and_25_hours_hold_all_their_messages(store, tmp_path):
    autumn = datetime(2026, 11, 1, 4, 30, tzinfo=UTC).timestamp()  # New York: 00:30, then 01:30 twice
    spring = datetime(2026, 3, 8, 5, 30, tzinfo=UTC).timestamp()  # 00:30, then no 02:30
    people = {f"a{n}": [said(autumn + 3600 * n)] for n in range(25)} | {
        f"b{n}": [said(spring + 3600 * n)] for n in range(23)
    }
    tell(store, tmp_path, people)
    long = dashboard(store, since="2026-11-01", until="2026-11-01", zone="America/New_York")
    short = dashboard(store, since="2026-03-08", until="2026-03-08", zone="America/New_York")
    assert (long["messages"], short["messages"]) == (25, 23)
    assert {row["hour"]: row["messages"] for row in long["hours"]}[1] == 2
    assert 2 not in {row["hour"] for row in short["hours"]}


@pytest.mark.parametrize(
    "wrong",
    [{"zone": "Mars/Olympus"}, {"since": "gestern"}, {"days": 0}, {"since": "2026-02-02", "until": "2026-02-01"}],
)
def test_a_period_that_is_none_is_refused(sample, wrong):
    with pytest.raises(InvalidInput, match="period"):
        dashboard(sample, **wrong)


def test_a_persons_verdict_goes_before_the_marker_and_unknown_ones_are_in_no_mean(sample):
    first, second, third = sessions(sample)[:3]
    before = dashboard(sample, now=NOW)
    add(sample, "tags", session=first, tag="fail")
    add(sample, "tags", session=first, tag="success")  # changed their mind
    add(sample, "tags", session=second, tag="fail")
    add(sample, "tags", session=third, tag="vip")
    report = dashboard(sample, now=NOW)
    assert before["verdicts"]["share"] is None and "nobody has said" in view("dashboard", "verdicts", before).text
    verdicts = report["verdicts"]
    assert (verdicts["success"], verdicts["fail"], verdicts["unknown"]) == (1, 1, 30)
    assert verdicts["share"]["estimate"] == 0.5 and verdicts["share"]["n"] == 2
    for session in sessions(sample):
        add(sample, "tags", session=session, tag="fail")
    assert dashboard(sample, now=NOW)["funnel"][-1]["n"] == 0


def test_pending_is_what_the_queue_shows_and_waiting_what_is_labelled(sample):
    bot = SAMPLE.with_name("bot")
    first, *rest = queue(sample, bot).items
    annotate(sample, first.message, "saludar")
    report = dashboard(sample, now=NOW, queued=len(queue(sample, bot).items))
    assert (report["pending"], report["waiting"]) == (len(rest), 1)
    told = view("dashboard", "numbers", dashboard(sample, now=NOW)).html
    assert "the queue was not asked" in told


def test_confidence_is_that_of_the_real_prediction_and_shown_per_model(store, tmp_path):
    ranking = [
        {"name": "nlu_fallback", "confidence": 0.7},
        {"name": "pagar", "confidence": 0.4},
        {"name": "saldo", "confidence": 0.35},
    ]
    fallen = user("eh", "nlu_fallback", 0.7, timestamp=2e9, intent_ranking=ranking)
    sure = user("hola", "saludar", 0.96, timestamp=2e9 + 1, metadata={"model_id": "m2"})
    report = dashboard(tell(store, tmp_path, {"a": [fallen], "b": [sure]}), since="2033-05-01", until="2033-06-30")
    assert [(row["model"], row["from"], row["messages"]) for row in report["histogram"]] == [
        ("m1", "0.40", 1),
        ("m2", "0.95", 1),
    ]
    assert [row["confidence"] for row in report["models"]] == [{"estimate": 0.4, "n": 1}, {"estimate": 0.96, "n": 1}]
    assert report["confused"] == [{"intent": "pagar", "other": "saldo", "pair": "pagar / saldo", "messages": 1}]
    assert [row["intent"] for row in report["unsure"]] == ["pagar"]


MARKERS = {
    "saved": {"seq": [{"intent": "pagar"}, {"action": "utter_ask"}, {"intent": "affirm"}]},
    "never": {"never": [{"action": "handoff"}]},
    "with_amount": {"and": [{"slot_was_set": "amount"}, {"action": "pay"}]},
    "without": {"and": [{"slot_was_not_set": "amount"}, {"action": "pay"}]},
    "other": {"not": [{"or": [{"intent": "pagar"}, {"action": "pay"}]}]},
    "once": {"at_least_once": [{"intent": "faq"}]},
    "not_paying": {"not_intent": "pagar"},
}


@pytest.mark.parametrize(
    "told, met",
    [
        (
            ["intent pagar", "", "action utter_ask", "slot x", "intent affirm"],
            {"saved", "never", "other", "not_paying"},
        ),
        (["intent pagar", "intent affirm", "action utter_ask"], {"never", "other", "not_paying"}),
        (["intent pagar", "slot amount", "action pay"], {"never", "with_amount", "other", "not_paying"}),
        (["slot amount", "unset amount", "action pay"], {"never", "without", "other", "not_paying"}),
        (["intent faq/hours", "action handoff"], {"once", "other", "not_paying"}),
        (["intent pagar"], {"never"}),
    ],
)
def test_markers_mean_what_rasas_documentation_says(tmp_path, told, met):
    path = tmp_path / "markers.yml"
    path.write_text(dump_yaml(MARKERS), encoding="utf-8")
    assert {name for name, marker in read_markers(path).items() if any(holds(marker, told))} == met


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("a: {xor: [{intent: b}]}", "m.yml: a holds .*xor.*: expected intent, action"),
        ("a: {not: [{intent: b}, {intent: c}]}", "never with a list of one"),
        ("a: {and: []}", "seq with a list"),
        ("a: {seq: [{intent: [b]}]}", "intent, action, .* with a name"),
        ("a: {intent: b, action: c}", "expected"),
        ("a: {description: nothing else}", "expected"),
        ("[]", "holds no markers"),
    ],
)
def test_a_marker_that_says_nothing_is_refused_with_its_place(tmp_path, wrong, said):
    (tmp_path / "m.yml").write_text(wrong, encoding="utf-8")
    with pytest.raises(InvalidInput, match=said):
        read_markers(tmp_path / "m.yml")


def test_resolved_is_what_the_users_markers_say_slots_of_the_opening_included(store, tmp_path):
    opened = [*start()[:3], event("slot", name="account", value="7"), *start()[4:]]
    at = 1_700_000_000.0
    for number, one in enumerate(opened):
        one["timestamp"] = at + number
    paid = {**action("pay"), "timestamp": at + 20}
    tell(store, tmp_path, {"a": [*opened, said(at + 10), paid], "b": [said(at + 10), paid]})
    markers = {"has_paid": {"and": [{"slot_was_set": "account"}, {"action": "pay"}]}}
    (tmp_path / "markers.yml").write_text(dump_yaml(markers), encoding="utf-8")
    report = dashboard(store, since="2023-11-01", until="2023-11-30", resolved=tmp_path / "markers.yml")
    assert [row["n"] for row in report["funnel"]] == [2, 2, 1]


def test_markers_see_that_the_bot_listens_and_how_the_session_began_as_rasas_do(store, tmp_path):
    at = 1_700_000_000.0
    told = [*start(), said(at), action("utter_a"), action("action_listen")]
    for number, one in enumerate(told):
        one["timestamp"] = at + number
    tell(store, tmp_path, {"a": told})
    markers = {
        "heard_out": {"seq": [{"action": "utter_a"}, {"action": "action_listen"}]},
        "began": {"seq": [{"action": "action_session_start"}, {"intent": "saludar"}]},
        "waits": {"not": [{"or": [{"intent": "saludar"}, {"action": "utter_a"}, {"action": "action_session_start"}]}]},
        "never_listens": {"never": [{"action": "action_listen"}]},
    }
    (tmp_path / "markers.yml").write_text(dump_yaml(markers), encoding="utf-8")
    report = dashboard(store, since="2023-11-01", until="2023-11-30", resolved=tmp_path / "markers.yml")
    assert [row["marker"] for row in report["markers"]] == ["began", "heard_out", "waits"]
    one = opened(store, report)["rows"].to_arrow_table().to_pylist()[0]
    assert one["action"] == ["utter_a"]
    shown = turns(store, one["_session"], "UTC")
    assert not any(event.get("action") == "action_listen" for turn in shown for event in turn["events"])
