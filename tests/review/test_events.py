"""What a bot's events mean: sessions, what was typed, the real prediction, entities, what was taken back."""

from __future__ import annotations

import json

import pytest

from genesis_lab.review.events import as_json, conversation
from trackers import action, event, payload, rows, start, user


def read(*events, gap_s=3_600, **options):
    return conversation("bot", "ana", rows(*events), gap_s=gap_s, **options)


def sessions(*events, **options):
    """How many messages each session has."""
    return [session["messages"] for session in read(*events, **options).sessions]


@pytest.mark.parametrize("events, counts", [
    ([*start(), user("a"), *start(), user("b")], [1, 1]),
    ([action("action_session_start"), event("session_started"), user("a")], [1]),
    ([user("a"), action("action_session_start"), event("session_started"), user("b"), user("c")], [1, 2]),
    ([event("session_started"), user("a"), event("session_started"), user("b")], [1, 1]),
    ([user("a"), user("b")], [2]),
    ([*start(), user("a"), payload("/session_start"), *start(), user("b")], [2, 1]),
    ([*start(), user("a"), payload("/restart"), action("action_restart"), event("restart"), user("b")], [3]),
    ([*start(), *start(), user("a")], [0, 1]),
    ([event("slot", name="session_started_metadata", value={}), user("a"), *start(), user("b")], [1, 1]),
    ([action("action_session_start"), event("slot", name="x", value=1), event("session_started"), user("a")], [1]),
    ([], []),
])  # fmt: skip
def test_where_sessions_begin(events, counts):
    assert sessions(*events) == counts


def test_a_tracker_that_never_expires_is_cut_at_long_silence_before_a_message():
    late = user("b", timestamp=99_999.0)
    assert sessions(*start(), user("a"), late) == [1, 1]
    assert sessions(*start(), user("a"), late, gap_s=0) == [2]
    assert sessions(*start(), user("a"), late, gap_s=200_000) == [2]
    assert sessions(*start(), user("a"), *start(), user("c"), late) == [1, 2], "one that expires says itself where"


@pytest.mark.parametrize("one, typed, what", [
    (user("hola"), True, "typed"),
    (user("hola", confidence=1.0), True, "typed"),
    (payload("/saludar"), False, "payload"),
    (payload('/saludar{"persona": "Ana"}'), False, "payload"),
    (user("/desconocido"), True, "typed"),  # the domain does not know it, so it was tokenized and ranked
    (user("/x", intent_ranking=[{"name": "x", "confidence": 0.4}]), True, "typed"),
    (user("/x", "x", 1.0, intent_ranking=None, text_tokens=None), False, "payload"),
    (user("EXTERNAL: aviso", metadata={"is_external": True}), False, "external"),
    (user("EXTERNAL: así empiezo yo"), True, "typed"),
    (user(None), False, "without text"),
    (user("  \n"), False, "without text"),
    ({"event": "user", "text": "hola", "timestamp": 1.0}, True, "typed, without parse_data"),
    ({"event": "user", "text": "hola", "timestamp": 1.0, "parse_data": None}, True, "typed, without parse_data"),
])  # fmt: skip
def test_what_was_typed(one, typed, what):
    found = read(one)
    assert (found.messages[0]["typed"], found.kinds) == (typed, [f"user: {what}"])


def ranked(*pairs):
    return [{"name": name, "confidence": confidence} for name, confidence in pairs]


SELECTOR = {"all_retrieval_intents": ["faq"], "faq": {"response": {"intent_response_key": "faq/precio"}, "ranking": []}}
EVERY = {
    "default": {
        "response": {"intent_response_key": "charla/clima"},
        "ranking": [{"intent_response_key": "charla/clima"}, {"intent_response_key": "faq/horario"}],
    }
}


@pytest.mark.parametrize("one, intent, confidence, fallback, first", [
    (user("a", "saludar", 0.8), "saludar", 0.8, False, "saludar"),
    (user("a", "nlu_fallback", 0.5, intent_ranking=ranked(("nlu_fallback", 0.5), ("pagar", 0.31))), "pagar", 0.31, True, "pagar"),
    (user("a", "nlu_fallback", 0.5, intent_ranking=ranked(("nlu_fallback", 0.5))), None, None, True, None),
    (user("a", "nlu_fallback", 0.5, intent_ranking=None), None, None, True, None),
    (user("a", "saludar", 0.8, intent_ranking=None), "saludar", 0.8, False, None),
    (user("a", "faq", 0.7, intent_ranking=ranked(("faq", 0.7)), response_selector=SELECTOR), "faq/precio", 0.7, False, "faq/precio"),
    (user("a", "faq", 0.7, intent_ranking=ranked(("faq", 0.7)), response_selector=EVERY), "faq/horario", 0.7, False, "faq/horario"),
    (user("a", "nlu_fallback", 0.5, intent_ranking=ranked(("nlu_fallback", 0.5), ("faq", 0.2)), response_selector=SELECTOR),
     "faq/precio", 0.2, True, "faq/precio"),
    (user("a", intent={"name": "faq", "confidence": 0.6, "full_retrieval_intent_name": "faq/envio"},
          intent_ranking=ranked(("faq", 0.6))), "faq/envio", 0.6, False, "faq/envio"),
    (user("a", None, 0.0, intent_ranking=[]), None, None, False, None),
    (user("a", intent=None, intent_ranking="nonsense"), None, None, False, None),
    (user("a", intent={"name": 7, "confidence": "much"}, intent_ranking=[7, {"name": None}]), None, None, False, None),
    ({"event": "user", "text": "a"}, None, None, False, None),
])  # fmt: skip
def test_the_real_prediction(one, intent, confidence, fallback, first):
    message = read(one).messages[0]
    assert (message["intent"], message["confidence"], message["fallback"]) == (intent, confidence, fallback)
    assert (message["ranking"][0]["name"] if message["ranking"] else None) == first


def test_a_ranking_of_eleven_is_kept_by_full_names():
    names = [("faq", 0.5), *((f"i{n}", 0.05) for n in range(10))]
    message = read(user("a", "faq", 0.5, intent_ranking=ranked(*names), response_selector=SELECTOR)).messages[0]
    assert [one["name"] for one in message["ranking"]] == ["faq/precio", *(f"i{n}" for n in range(10))]


def entity(text, part, **more):
    begin = text.index(part)
    return {
        "entity": "persona",
        "start": begin,
        "end": begin + len(part),
        "value": part,
        "extractor": "DIETClassifier",
    } | more


def test_entities_stand_at_code_points_and_keep_what_was_written():
    text = "💩 dale a 👨🏻‍🚒 Ana Q5"
    tokens = [[0, 1], [2, 6], [7, 8], [9, 13], [14, 17], [18, 20]]
    found = read(
        user(
            text,
            text_tokens=tokens,
            entities=[
                entity(text, "👨🏻‍🚒", role="quien", group="1"),
                entity(text, "👨🏻‍🚒", role="otro"),
                entity(text, "An", value="Anita"),
                entity(text, "Q5", extractor="RegexEntityExtractor"),
                {
                    "entity": "hora",
                    "value": {"grain": "day"},
                    "extractor": "DucklingEntityExtractor",
                    "start": 99,
                    "end": 120,
                },
                "nonsense",
                {"value": "without a name"},
            ],
        )
    ).messages[0]["entities"]
    assert [one.get("text") for one in found] == ["👨🏻‍🚒", "👨🏻‍🚒", "Ana", "Q5", None]
    assert [(one.get("role"), one.get("group")) for one in found[:2]] == [("quien", "1"), ("otro", None)]
    assert "value" not in found[0] and found[2]["value"] == "Anita" and (found[2]["start"], found[2]["end"]) == (14, 17)
    assert [one.get("confirm", False) for one in found] == [False, False, False, True, True]
    assert found[4]["value"] == {"grain": "day"} and "start" not in found[4]


def test_what_rewind_and_undo_take_back_stays_and_is_marked():
    found = read(
        user("a"),
        action("utter_a"),
        event("bot", text="A"),
        action("action_listen"),
        user("b"),
        action("utter_b"),
        event("rewind"),
        action("action_listen"),
        user("c"),
        action("utter_c"),
        event("undo"),
        action("utter_d"),
    )
    assert [(message["text"], message["undone"]) for message in found.messages] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert [(one["action"], one.get("undone", False)) for one in found.messages[2]["events"] if "action" in one] == [
        ("utter_c", True),
        ("utter_d", False),
    ]
    again = read(user("a"), user("b"), event("rewind"), event("rewind"))
    assert [message["undone"] for message in again.messages] == [True, True]
    kept = read(user("a"), event("restart"), event("rewind"))
    assert [message["undone"] for message in kept.messages] == [False], "nothing is taken back across a restart"


def test_the_second_copy_of_interactive_learning_is_a_persons_label_for_the_first():
    first = user("mándale 5 a Ana", "saludar", 0.62)
    label = {"name": "transferir", "confidence": 1.0}
    copy = {
        **first,
        "parse_data": {"intent": label, "entities": [entity("mándale 5 a Ana", "Ana")], "text": "mándale 5 a Ana"},
    }
    found = read(user("hola"), first, event("rewind"), action("action_listen"), copy, action("utter_hecho"))
    assert len(found.messages) == 2 and found.kinds[4] == "user: a person's correction of the message before"
    message = found.messages[1]
    assert (message["gold"], message["intent"], message["confidence"], message["undone"]) == (
        "transferir",
        "saludar",
        0.62,
        False,
    )
    assert message["gold_entities"][0]["text"] == "Ana" and message["actions"] == ["action_listen", "utter_hecho"]
    assert found.messages[0]["gold"] is None


def test_a_row_that_is_there_twice_counts_once():
    one = user("hola")
    found = read(one, one, action("utter_a"))
    assert found.kinds == ["user: typed", "duplicate row", "action"] and len(found.messages) == 1


@pytest.mark.parametrize("data, reason", [
    ('{"event": "user", "te', "no JSON"), ("", "no data"), (None, "no data"), ("[1]", "list, expected an object"), ("NaN", "float"),
    ("[" * 100_000, "no JSON"),
])  # fmt: skip
def test_a_broken_row_is_named_and_the_rest_is_read(data, reason):
    found = read(user("hola"), data, user("adiós"))
    assert [message["text"] for message in found.messages] == ["hola", "adiós"] and found.kinds[1] == "broken row"
    assert [(number, reason in why) for number, why, _ in found.errors] == [(2, True)]


def test_unknown_kinds_of_events_are_kept_and_counted():
    found = read(user("a"), event("flow_started", flow_id="x"), {"timestamp": 1.0})
    assert found.kinds == ["user: typed", "flow_started", "unknown"]
    assert found.messages[0]["events"][0] == {"event": "flow_started"}


def test_nothing_of_nul_and_lone_surrogates_is_lost():
    text = "a\0b \ud83d c 🙂"
    message = read(user(text, "in\0tent")).messages[0]
    assert (message["text"], message["lossy"], message["intent"]) == ("a␀b \ufffd c 🙂", True, "in␀tent")
    assert message["raw"].isascii() and json.loads(message["raw"])["text"] == text
    for value in message.values():
        json.dumps(value, ensure_ascii=False).encode()


def test_numbers_that_json_does_not_have_are_no_numbers():
    found = read(
        '{"event": "user", "text": "a", "timestamp": NaN, "parse_data": {"intent": {"name": "x", "confidence": Infinity}}}'
    )
    assert (found.messages[0]["timestamp"], found.messages[0]["confidence"]) == (None, None)


def test_time_stamps_that_lost_their_seconds_are_noticed():
    equal = [(n, "user", 1_795_237_632.0, json.dumps(user("a"))) for n in range(1, 9)]
    assert conversation("bot", "ana", equal, gap_s=0).equal_times
    own = [(n, "user", float(n), row[3]) for n, row in enumerate(equal)]
    assert not conversation("bot", "ana", own, gap_s=0).equal_times


def test_what_follows_a_message_is_kept_for_its_conversation():
    button = {"buttons": [{"title": "Saldo", "payload": "/saldo"}], "image": "x.png", "custom": None}
    found = read(
        *start(),
        event("bot", text="¡Hola!"),
        user("a", input_channel="rest", metadata={"model_id": "m2", "assistant_id": "b"}),
        action("utter_a"),
        event("bot", text="sí\0", data=button),
        event("slot", name="cuenta", value="x"),
        action("action_listen"),
    )
    message, session = found.messages[0], found.sessions[0]
    assert message["actions"] == ["utter_a", "action_listen"] and (
        message["model"],
        message["assistant"],
        message["channel"],
    ) == (
        "m2",
        "b",
        "rest",
    )
    assert message["events"][1:-1] == [
        {"bot": "sí␀", "buttons": ["Saldo"], "sent": ["image"]},
        {"slot": "cuenta", "value": "x"},
    ]
    assert {"bot": "¡Hola!"} in session["opening"] and (session["model"], session["channel"]) == ("m2", "rest")


def test_what_is_kept_as_json_is_json_for_every_reader():
    value = [{"slot": "x\0", "value": {"a": float("nan"), "b": ["\ud83d", "🙂"]}}]
    assert as_json(value).isascii()
    assert json.loads(as_json(value)) == [{"slot": "x␀", "value": {"a": None, "b": ["\ufffd", "🙂"]}}]
