"""Conversations into the store: every row accounted for, only what is new, sources not as they should be."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.review import ingest as module
from genesis_lab.review import store as st
from genesis_lab.review import tables
from genesis_lab.review.forgetting import forget
from genesis_lab.review.ingest import ingest, report_table
from genesis_lab.review.numbers import open_messages
from genesis_lab.review.store import init_db
from genesis_lab.settings import get_settings
from trackers import BROKER, FIXTURE, TRACKER, action, event, frame, put, start, tracker, user

REFERENCE = Path(os.environ.get("GENESIS_REFERENCE_DIR") or "none") / "rasa" / "rasa_tracker.sqlite"


@pytest.fixture
def store(tmp_path):
    return st.open_store(tmp_path / "review.sqlite")


@pytest.fixture
def database(new_database, monkeypatch):
    """A PostgreSQL database with a review store, a login that reads and writes it, and a superuser's connection."""
    import psycopg

    where = new_database()
    monkeypatch.setenv("GENESIS_REVIEW_SECRET", "a key of the tests")
    get_settings.cache_clear()
    init_db(f"postgresql://postgres@{where}")
    with psycopg.connect(f"postgresql://postgres@{where}") as connection:
        yield where, connection


def contents(store):
    """Everything in the store, to see whether a run has written."""
    return {table.name: st.records(store, table.select()) for table in tables.metadata.sorted_tables}


def texts(store):
    return [row["text"] for row in st.records(store, "SELECT text FROM messages ORDER BY timestamp, event_id")]


@pytest.mark.skipif(not REFERENCE.exists(), reason="GENESIS_REFERENCE_DIR holds no rasa/rasa_tracker.sqlite")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_event_of_a_real_tracker_is_accounted_for_in_either_database(kind, request, store):
    source = str(REFERENCE)
    if kind == "postgresql":
        where, connection = request.getfixturevalue("database")
        connection.execute(TRACKER.format("SERIAL PRIMARY KEY"))
        copy_table(source, connection)
        source = f"postgresql://postgres@{where}"
        store = st.open_store(source)
    report = ingest(store, source)
    assert report["rows"] == sum(report["kinds"].values()) == 3_136 and report["written"]["new messages"] == 505
    sessions = frame(store, tables.sessions.select())
    assert (len(sessions), int((sessions["typed"] > 0).sum())) == (157, 145)
    messages = frame(store, tables.messages.select())
    assert messages["typed"].sum() == 459 and messages["lossy"].sum() == 1
    raw = dict(sqlite3.connect(REFERENCE).execute("SELECT id, data FROM events WHERE type_name = 'user'"))
    assert dict(zip(messages["event_id"], messages["raw"], strict=True)) == raw
    before = contents(store)
    again = ingest(store, source)
    assert contents(store) == before and (again["known"], again["rows"], again["kinds"]) == (3_136, 3_136, {})


def copy_table(source, connection):
    rows = sqlite3.connect(source).execute("SELECT * FROM events").fetchall()
    with connection.cursor().copy("COPY events FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()


COLUMNS = "text, lossy, typed, undone, intent, confidence, fallback, ranking, entities, model, assistant, channel, actions, events, raw, sender"


@pytest.mark.parametrize(
    "kind", ["postgresql tracker", "sqlite broker", "postgresql broker", "lines", "trackers", "server"]
)
def test_all_sources_say_the_same_of_the_same_conversations(kind, request, tmp_path, monkeypatch, store):
    monkeypatch.setenv("GENESIS_REVIEW_SECRET", "a key of the tests")
    get_settings.cache_clear()
    ingest(store, str(FIXTURE))
    rows = sqlite3.connect(FIXTURE).execute("SELECT sender_id, data FROM events ORDER BY id").fetchall()
    options = {}
    if "postgresql" in kind:
        where, connection = request.getfixturevalue("database")
        source = f"postgresql://postgres@{where}"
        connection.execute((TRACKER if "tracker" in kind else BROKER).format("SERIAL PRIMARY KEY"))
        if "tracker" in kind:
            copy_table(FIXTURE, connection)
        else:
            connection.cursor().executemany("INSERT INTO events (sender_id, data) VALUES (%s, %s)", rows)
            connection.commit()
        other = st.open_store(source)
    else:
        other = st.open_store(tmp_path / "other.sqlite")
    if kind == "sqlite broker":
        source = str(tmp_path / "broker.db")
        with sqlite3.connect(source) as connection:
            connection.execute(BROKER.format("INTEGER PRIMARY KEY"))
            connection.executemany("INSERT INTO events (sender_id, data) VALUES (?, ?)", rows)
    elif kind == "lines":
        source = str(tmp_path / "events.jsonl")
        Path(source).write_text(
            "\n".join(json.dumps(json.loads(data) | {"sender_id": sender}) for sender, data in rows)
        )
    elif kind in ("trackers", "server"):
        whole: dict[str, list] = {}
        for sender, data in rows:
            whole.setdefault(sender, []).append(json.loads(data))
        trackers = {sender: {"sender_id": sender, "events": events} for sender, events in whole.items()}
        if kind == "trackers":
            source = str(tmp_path / "trackers.json")
            Path(source).write_text(json.dumps(list(trackers.values()), ensure_ascii=False))
        else:
            source = request.getfixturevalue("rasa_server")(trackers)
            options = {"conversations": list(trackers)}
    report = ingest(other, source, **options)
    assert report["rows"] == sum(report["kinds"].values()) == 164
    columns = COLUMNS.replace("raw, ", "") if kind == "lines" else COLUMNS
    expected, found = (
        frame(one, f"SELECT {columns} FROM messages ORDER BY timestamp").values.tolist() for one in (store, other)
    )
    assert found == expected
    counts = "SELECT sender, number, messages, typed, started_at FROM sessions ORDER BY sender, number"
    assert frame(other, counts).values.tolist() == frame(store, counts).values.tolist()
    before = contents(other)
    assert ingest(other, source, **options)["written"] == {"new messages": 0, "changed messages": 0, "sessions": 0}
    assert contents(other) == before


@pytest.fixture
def rasa_server():
    """Starts a server that gives trackers as Rasa's does; its address."""
    servers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def __init__(self, trackers, *arguments):
            self.trackers = trackers
            super().__init__(*arguments)

        def do_GET(self):
            from urllib.parse import parse_qs, unquote, urlsplit

            parts = urlsplit(self.path)
            found = self.trackers.get(unquote(parts.path.split("/")[2]))
            asked = parse_qs(parts.query)
            code = 401 if asked.get("token", [""]) != [self.trackers.get("token", "")] else 200 if found else 404
            self.send_response(code)
            self.end_headers()
            self.wfile.write(
                json.dumps(found).encode() if code == 200 and asked["include_events"] == ["ALL"] else b"no"
            )

        def log_message(self, *arguments):
            pass

    def begin(trackers):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, trackers)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_gets_its_token_and_says_what_is_wrong(rasa_server, store, monkeypatch):
    address = rasa_server({"ana": {"sender_id": "ana", "events": [user("hola")]}, "token": "fake-token-of-a-test"})
    with pytest.raises(Unavailable, match="GENESIS_RASA_TOKEN"):
        ingest(store, address, conversations=["ana"])
    monkeypatch.setenv("GENESIS_RASA_TOKEN", "fake-token-of-a-test")
    get_settings.cache_clear()
    assert ingest(store, address, conversations=["ana"])["written"]["new messages"] == 1
    for wrong, options, says in [
        (address, {}, "does not list its conversations"),
        (address, {"conversations": ["eva"]}, "refuses /conversations/eva/tracker .404."),
        ("http://example.invalid", {"conversations": ["ana"]}, "over https or to this machine"),
    ]:
        with pytest.raises(GenesisError, match=says):
            ingest(store, wrong, **options)


@pytest.mark.parametrize("lines, texts_, sessions", [
    ([{"id": "c1", "messages": [{"role": "user", "content": "hola"}, {"role": "assistant", "content": "¡Hola!"},
                                {"role": "user", "content": "hola"}]}], ["hola", "hola"], 1),
    ([{"messages": [{"from": "human", "value": "a"}]}, {"messages": [{"from": "human", "value": "a"}]}], ["a", "a"], 2),
    ([{"user_id": "u", "turns": [{"speaker": "Cliente", "text": "a", "timestamp": "2026-01-01T10:00:00"}]},
      {"user_id": "u", "turns": [{"speaker": "Cliente", "text": "b", "timestamp": "2026-01-01T10:05:00Z"}]}], ["a", "b"], 2),
    ([{"conversation_id": "x", "role": "user", "text": "a", "time": 1_767_261_600_000},
      {"conversation_id": "x", "role": "bot", "text": "A", "time": 1_767_261_601_000},
      {"conversation_id": "x", "role": "user", "text": "b", "time": 1_767_290_000_000}], ["a", "b"], 2),
    ([{"chat": [{"who": "C", "said": "a"}], "id": 7}], None, None),
])  # fmt: skip
def test_chats_of_other_systems(lines, texts_, sessions, tmp_path, store):
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    report = ingest(store, str(source))
    if texts_ is None:
        assert report["kinds"] == {"broken row": 1}
        assert "neither an event" in frame(store, tables.ingest_errors.select())["reason"][0]
        return
    assert texts(store) == texts_ and len(frame(store, tables.sessions.select())) == sessions
    assert ingest(store, str(source))["written"]["changed messages"] == 0


def test_chats_whose_fields_have_other_names_are_read_by_a_map(tmp_path, store):
    source = tmp_path / "chats.jsonl"
    source.write_text(json.dumps({"chat": {"lines": [{"who": "client", "said": "hola"}]}, "person": "Ana"}))
    ingest(store, str(source), fields={"messages": "chat.lines", "speaker": "who", "text": "said", "sender": "person"})
    assert texts(store) == ["hola"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_characters_that_a_database_can_not_hold_are_kept_raw_and_marked_where_they_are_shown(
    kind, request, tmp_path, store
):
    odd = "a\0b \ud83d c 🙂 \udc00"
    events = [
        event("bot", text=odd),
        user(
            odd,
            odd,
            metadata={"model_id": odd},
            input_channel=odd,
            entities=[{"entity": odd, "start": 0, "end": 3, "value": odd}],
        ),
        event("slot", name=odd, value={odd: [odd, float("nan")]}),
        action(odd),
        event(odd),
    ]
    tracker(tmp_path / "bot.sqlite", []).close()
    with sqlite3.connect(tmp_path / "bot.sqlite") as connection:
        rows = [("ana", one["event"].encode("utf-8", "replace").decode(), json.dumps(one)) for one in events]
        connection.executemany("INSERT INTO events (sender_id, type_name, data) VALUES (?, ?, ?)", rows)
    if kind == "postgresql":
        store = st.open_store(f"postgresql://postgres@{request.getfixturevalue('database')[0]}")
    assert ingest(store, str(tmp_path / "bot.sqlite"))["rows"] == 5
    message = contents(store)["messages"][0]
    shown = "a␀b \ufffd c 🙂 \ufffd"
    assert json.loads(message["raw"])["text"] == odd
    assert (message["text"], message["lossy"], message["intent"], message["model"]) == (shown, True, shown, shown)
    assert message["events"][0] == {"slot": shown, "value": {shown: [shown, None]}} and message["actions"] == [shown]
    found = (
        open_messages(store).sql("SELECT text, events->>'$[0].slot', entities->>'$[0].text' FROM messages").fetchall()
    )
    assert found == [(shown, shown, shown)]


def test_a_field_that_chats_do_not_have_is_refused(store):
    with pytest.raises(InvalidInput, match="no field 'who': say where messages, speaker"):
        ingest(store, str(FIXTURE), fields={"who": "x"})


def test_time_stamps_that_lost_their_seconds_are_said_and_the_events_own_are_taken(tmp_path, store):
    connection = tracker(tmp_path / "mysql.sqlite", [("ana", user(str(n))) for n in range(8)])
    connection.execute("UPDATE events SET timestamp = 1795237632.0")
    connection.commit()
    assert "MySQL" in ingest(store, str(tmp_path / "mysql.sqlite"))["notes"][0]
    assert (
        texts(store) == [str(n) for n in range(8)]
        and len({row["timestamp"] for row in contents(store)["messages"]}) == 8
    )


def test_only_what_is_new_is_read_and_what_it_changes_is_changed(tmp_path, store):
    source = tmp_path / "bot.sqlite"
    connection = tracker(
        source, [("ana", one) for one in [*start(), user("a")]] + [("eva", one) for one in [*start(), user("x")]]
    )
    ingest(store, str(source))
    put(connection, [("ana", action("utter_a")), ("ana", user("b")), ("ana", event("rewind")), ("luz", user("n"))])
    report = ingest(store, str(source))
    assert (report["known"], report["rows"], sum(report["kinds"].values())) == (12, 16, 4)
    assert report["written"] == {"new messages": 2, "changed messages": 1, "sessions": 2}
    found = frame(store, "SELECT text, actions, undone FROM messages ORDER BY event_id").values.tolist()
    assert found == [["a", '["utter_a"]', False], ["x", "[]", False], ["b", "[]", True], ["n", "[]", False]]
    assert open_messages(store).sql("SELECT count(*), sum(undone::int) FROM messages").fetchall() == [(4, 1)]


def test_rows_that_are_committed_late_are_found_near_and_far(tmp_path, store, monkeypatch):
    monkeypatch.setattr(module, "OVERLAP", 5)
    source = tmp_path / "bot.sqlite"
    connection = tracker(source, [("ana", user(str(n))) for n in range(20)])
    for gone in (3, 18):
        connection.execute("DELETE FROM events WHERE id = ?", (gone,))
    connection.commit()
    ingest(store, str(source))
    connection.execute(
        "INSERT INTO events (id, sender_id, type_name, data) VALUES (18, 'ana', 'user', ?)", (json.dumps(user("near")),)
    )
    connection.commit()
    assert ingest(store, str(source))["kinds"] == {"user: typed": 1}
    connection.execute(
        "INSERT INTO events (id, sender_id, type_name, data) VALUES (3, 'ana', 'user', ?)", (json.dumps(user("far")),)
    )
    connection.commit()
    report = ingest(store, str(source))
    assert "came in late" in report["notes"][0] and {"near", "far"} <= set(texts(store)) and len(texts(store)) == 20
    assert ingest(store, str(source))["notes"] == []


def test_a_row_that_is_committed_while_one_reads_is_found_by_the_next_run(database, new_database):
    import psycopg

    source = f"postgresql://postgres@{new_database()}"
    store = st.open_store(f"postgresql://postgres@{database[0]}")
    with psycopg.connect(source) as slow, psycopg.connect(source) as quick:
        quick.execute(TRACKER.format("SERIAL PRIMARY KEY"))
        quick.commit()
        slow.execute(
            "INSERT INTO events (sender_id, type_name, data) VALUES ('ana', 'user', %s)", (json.dumps(user("slow")),)
        )
        put(quick, [("eva", user("quick"))], mark="%s")
        ingest(store, source, on_progress=lambda done, total: slow.commit())
        assert texts(store) == ["quick"]
        assert ingest(store, source)["kinds"] == {"user: typed": 1} and set(texts(store)) == {"slow", "quick"}


@pytest.mark.parametrize("rows", [3, 12, 40])
def test_ids_that_start_again_are_a_new_generation_and_nothing_old_is_lost(rows, tmp_path, store):
    source = tmp_path / "bot.sqlite"
    tracker(source, [("ana", user(f"old {n}")) for n in range(12)]).close()
    ingest(store, str(source))
    source.unlink()
    tracker(source, [("ana", user(f"new {n}")) for n in range(rows)]).close()
    report = ingest(store, str(source))
    assert "generation 2" in report["notes"][0] and report["written"]["new messages"] == rows
    assert len(texts(store)) == 12 + rows and sum(report["kinds"].values()) == report["rows"] == rows
    assert ingest(store, str(source))["notes"] == []


def test_a_source_that_is_emptied_is_read_from_its_first_row_when_there_is_one_again(tmp_path, store):
    connection = tracker(tmp_path / "bot.sqlite", [("ana", user(str(n))) for n in range(3)])
    ingest(store, str(tmp_path / "bot.sqlite"))
    connection.execute("DELETE FROM events")
    connection.commit()
    assert "generation 2" in ingest(store, str(tmp_path / "bot.sqlite"))["notes"][0]
    before = contents(store)
    assert ingest(store, str(tmp_path / "bot.sqlite"))["rows"] == 0 and contents(store) == before
    put(connection, [("ana", user("nuevo"))])
    assert ingest(store, str(tmp_path / "bot.sqlite"))["kinds"] == {"user: typed": 1} and len(texts(store)) == 4


def test_rows_that_the_source_deletes_stay_in_the_store_and_that_is_said(tmp_path, store):
    source = tmp_path / "bot.sqlite"
    connection = tracker(source, [("ana", user(str(n))) for n in range(12)])
    ingest(store, str(source))
    connection.execute("DELETE FROM events WHERE id < 5")
    put(connection, [("ana", user("later"))])
    report = ingest(store, str(source))
    assert "4 rows are gone" in report["notes"][0] and len(texts(store)) == 13


def test_what_is_not_as_it_should_be_is_counted_named_and_leaves_the_rest_alone(tmp_path, store):
    source, good, twice = tmp_path / "bot.sqlite", user("bien"), user("dos veces")
    bare = {"event": "user", "timestamp": 9.0, "text": "sin parse"}
    odd = [
        good,
        '{"event": "user", "te',
        bare,
        twice,
        twice,
        event("flow_started"),
        user("x" * 10_000_000),
        user("sin", intent_ranking=None),
    ]
    tracker(source, [("ana", one) for one in odd]).close()
    report = ingest(store, str(source))
    assert report["kinds"] == {
        "broken row": 1,
        "duplicate row": 1,
        "flow_started": 1,
        "user: typed": 4,
        "user: typed, without parse_data": 1,
    }
    errors = frame(store, tables.ingest_errors.select())
    assert errors["event_id"].tolist() == [2] and "no JSON" in errors["reason"][0]
    assert {len(text) for text in texts(store)} == {4, 9, 10_000_000, 3}
    table = report_table(report)
    assert "duplicate row" in table and "rows in the source" in table
    put(sqlite3.connect(source), [("ana", user("más"))])
    ingest(store, str(source))
    assert len(frame(store, tables.ingest_errors.select())) == 1


def test_a_column_of_type_json_is_read_with_a_warning_and_never_written(database, tmp_path, store):
    where, connection = database
    connection.execute(TRACKER.format("SERIAL PRIMARY KEY").replace("data TEXT", "data JSONB"))
    put(connection, [("ana", user("¿cuánto? 💩")), ("ana", action("utter_a"))], mark="%s")
    before = connection.execute("SELECT * FROM events ORDER BY id").fetchall()
    report = ingest(store, f"postgresql://postgres@{where}", name="jsonb")
    assert "JSONB" in report["notes"][0] and "TEXT" in report["notes"][0]
    assert frame(store, tables.messages.select())["raw"][0].isascii() and texts(store) == ["¿cuánto? 💩"]
    assert connection.execute("SELECT * FROM events ORDER BY id").fetchall() == before
    source = tmp_path / "json.sqlite"
    with sqlite3.connect(source) as other:
        other.execute(TRACKER.format("INTEGER PRIMARY KEY").replace("data TEXT", "data JSON"))
    put(sqlite3.connect(source), [("ana", user("hola"))])
    assert "JSON" in ingest(store, str(source))["notes"][0]


def test_a_schema_of_its_own_is_a_parameter(database, store):
    where, connection = database
    connection.execute("CREATE SCHEMA bot; SET search_path = bot")
    connection.execute(TRACKER.format("SERIAL PRIMARY KEY"))
    put(connection, [("ana", user("hola"))], mark="%s")
    with pytest.raises(InvalidInput, match="no events of Rasa"):
        ingest(store, f"postgresql://postgres@{where}")
    assert ingest(store, f"postgresql://postgres@{where}", schema="bot")["source"].endswith("_bot")


@pytest.mark.parametrize("made, says", [
    ("CREATE TABLE events (id int, title text, starts_at text)", "columns are id, title, starts_at"),
    ("CREATE TABLE visits (id int)", "among visits"), ("", "among no tables"),
])  # fmt: skip
def test_another_table_events_is_refused(made, says, tmp_path, store):
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute(made)
    with pytest.raises(InvalidInput, match=says):
        ingest(store, str(tmp_path / "x.sqlite"))
    assert contents(store)["sources"] == []


def test_what_is_no_source_is_refused_in_one_sentence(tmp_path, store):
    (tmp_path / "notes.txt").write_text("hola")
    (tmp_path / "broken.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 3_000)
    for source, error, says in [
        (tmp_path / "notes.txt", InvalidInput, "no SQLite database"),
        (tmp_path, InvalidInput, "is a folder"),
        (tmp_path / "none.db", InvalidInput, "no file"),
        (tmp_path / "broken.sqlite", Unavailable, "can't be read"),
        ("postgresql://nobody@127.0.0.1:1/x", Unavailable, "can't be read"),
        ("postgresql://me:not-a-real-password@host/x", InvalidInput, "holds a password"),
        ("http://me:not-a-real-password@host/x", InvalidInput, "no credentials"),
        ("mysql://host/x", InvalidInput, "got mysql://"),
    ]:
        with pytest.raises(error, match=says) as caught:
            ingest(store, str(source))
        assert "\n" not in str(caught.value) and "not-a-real" not in str(caught.value)


def test_a_file_that_was_cut_off_or_gives_rows_one_id_is_refused_and_nothing_is_kept(tmp_path, store):
    tracker(tmp_path / "whole.db", [("ana", user(str(n))) for n in range(8)]).close()
    (tmp_path / "cut.db").write_bytes((tmp_path / "whole.db").read_bytes()[:6_000])
    with sqlite3.connect(tmp_path / "twice.db") as connection:
        connection.execute("CREATE TABLE events (id INTEGER, sender_id TEXT, data TEXT)")
        rows = [(1, "ana", json.dumps(user("a"))), (1, "eva", json.dumps(user("b")))]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    for name in ("cut.db", "twice.db"):
        with pytest.raises(GenesisError, match="can't be read"):
            ingest(store, str(tmp_path / name))
    assert contents(store)["messages"] == []


def test_a_source_is_never_written_and_may_be_read_only(tmp_path, store):
    source = tmp_path / "bot" / "tracker.sqlite"
    source.parent.mkdir()
    source.write_bytes(FIXTURE.read_bytes())
    source.chmod(0o444)
    source.parent.chmod(0o555)
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    try:
        assert ingest(store, str(source))["rows"] == 164
        assert [path.name for path in source.parent.iterdir()] == ["tracker.sqlite"]
        assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    finally:
        source.parent.chmod(0o755)


def test_a_source_that_is_being_written_is_read_as_it_is(tmp_path, store):
    source = tmp_path / "bot.sqlite"
    connection = tracker(source, [("ana", user("a"))])
    connection.execute("PRAGMA journal_mode = WAL")
    put(connection, [("ana", user("b"))])
    connection.execute("INSERT INTO events (sender_id, type_name, data) VALUES ('ana', 'user', '{}')")  # not committed
    assert ingest(store, str(source))["rows"] == 2


@pytest.mark.parametrize("what", ["source", "store"])
def test_a_database_that_goes_away_in_the_middle_leaves_whole_batches_and_the_next_run_adds_the_rest(
    what, database, new_database, monkeypatch
):
    import psycopg

    monkeypatch.setattr(module, "BATCH", 30)
    monkeypatch.setattr(module, "OVERLAP", 5)
    place, _ = database
    elsewhere = new_database()
    source, url = f"postgresql://postgres@{elsewhere}", f"postgresql://postgres@{place}"
    with psycopg.connect(source) as connection:
        connection.execute(TRACKER.format("SERIAL PRIMARY KEY"))
        copy_table(FIXTURE, connection)
    store, ended = st.open_store(url), []

    gone, server = (
        (elsewhere if what == "source" else place).rpartition("/")[2],
        f"{source.rpartition('/')[0]}/postgres",
    )

    def end(done, total):
        if done >= 60:
            with psycopg.connect(server, autocommit=True) as other:
                other.execute(f"ALTER DATABASE {gone} ALLOW_CONNECTIONS false")
                ended.extend(
                    other.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (gone,)
                    ).fetchall()
                )

    with pytest.raises(Unavailable):
        ingest(store, source, on_progress=end)
    with psycopg.connect(server, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {gone} ALLOW_CONNECTIONS true")
    assert ended
    of_sender = "SELECT count(*) FROM events WHERE type_name = 'user' GROUP BY sender_id"
    whole = [n for (n,) in sqlite3.connect(FIXTURE).execute(of_sender)]
    half = [row["n"] for row in st.records(store, "SELECT count(*) AS n FROM messages GROUP BY sender")]
    assert 0 < len(half) < len(whole) and set(half) <= set(whole), "whole conversations only"
    report = ingest(store, source)
    assert report["rows"] == 164 and report["written"]["new messages"] == sum(whole) - sum(half)
    assert len(texts(store)) == sum(whole)
    assert ingest(store, source)["written"]["new messages"] == 0


def test_who_is_forgotten_does_not_come_back_even_when_all_is_read_again(tmp_path, store):
    source = tmp_path / "bot.sqlite"
    connection = tracker(
        source,
        [
            ("+502 5555", user("soy Ana Secreta")),
            ("+502 5555", event("bot", text="hola Ana Secreta")),
            ("eva", user("hola")),
        ],
    )
    ingest(store, str(source))
    assert forget(store, "+502 5555", now=10_000_000.0) == 1
    ingest(store, str(source), full=True)
    put(connection, [("+502 5555", action("utter_a"))])
    ingest(store, str(source))
    source.unlink()
    tracker(source, [("x", user("otra cosa")), ("+502 5555", user("soy Ana Secreta"))]).close()  # a copy with other ids
    report = ingest(store, str(source))
    assert (
        "generation 2" in report["notes"][0]
        and "Secreta" not in str(contents(store))
        and "502 5555" not in str(contents(store))
    )
    assert frame(store, "SELECT count(*) AS n FROM messages")["n"][0] == 4
    assert not any(b"Secreta" in path.read_bytes() for path in store.folder.rglob("*.parquet"))


def test_texts_older_than_the_retention_are_deleted_and_stay_so(tmp_path, store):
    import time

    source = tmp_path / "bot.sqlite"
    tracker(source, [("ana", user("viejo")), ("ana", user("nuevo", timestamp=time.time()))]).close()
    assert ingest(store, str(source), retention_days=30)["expired"] == 1
    before = contents(store)
    ingest(store, str(source), full=True)
    assert ingest(store, str(source), retention_days=30)["expired"] == 0
    assert texts(store) == [None, "nuevo"] and contents(store)["messages"] == before["messages"]


def test_sender_ids_are_hashed_unless_one_says_otherwise_and_a_source_stays_with_it(tmp_path, store, monkeypatch):
    ingest(store, str(FIXTURE))
    assert "50250" not in str([row["sender"] for row in contents(store)["messages"]])
    with pytest.raises(InvalidInput, match="begun with sender ids hashed"):
        ingest(store, str(FIXTURE), hash_senders=False)
    ingest(store, str(FIXTURE), name="plain", hash_senders=False)
    assert "502-5555 1234" in frame(store, "SELECT sender FROM messages WHERE source = 'plain'")["sender"].tolist()
    monkeypatch.setenv("GENESIS_REVIEW_SECRET", "another key")
    get_settings.cache_clear()
    with pytest.raises(InvalidInput, match="another GENESIS_REVIEW_SECRET"):
        ingest(store, str(FIXTURE))


def test_two_sources_of_one_name_are_not_mixed(tmp_path, store):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        tracker(tmp_path / folder / "rasa.db", [("ana", user(f"hola {folder}"))]).close()
    ingest(store, str(tmp_path / "a" / "rasa.db"))
    with pytest.raises(InvalidInput, match="give this one a name"):
        ingest(store, str(tmp_path / "b" / "rasa.db"))
    assert ingest(store, str(tmp_path / "b" / "rasa.db"), name="other")["rows"] == 1
    moved = (tmp_path / "a" / "rasa.db").rename(tmp_path / "moved.db")
    assert ingest(store, str(moved), name="rasa")["known"] == 1
    with pytest.raises(InvalidInput, match="source's name"):
        ingest(store, str(FIXTURE), name="../x")


def test_a_bot_that_is_read_twice_is_noticed(tmp_path, store):
    assert ingest(store, str(FIXTURE))["notes"] == []
    with sqlite3.connect(tmp_path / "broker.db") as connection:
        connection.execute(BROKER.format("INTEGER PRIMARY KEY"))
        rows = sqlite3.connect(FIXTURE).execute("SELECT sender_id, data FROM events ORDER BY id")
        connection.executemany("INSERT INTO events (sender_id, data) VALUES (?, ?)", rows)
    assert "Source tracker has the same messages" in ingest(store, str(tmp_path / "broker.db"))["notes"][0]


def test_a_store_that_is_made_anew_does_not_answer_from_the_old_ones_copy(tmp_path):
    (path := tmp_path / "review.sqlite").unlink(missing_ok=True)
    tracker(tmp_path / "bot.sqlite", [("ana", user("viejo"))]).close()
    ingest(st.open_store(path), str(tmp_path / "bot.sqlite"))
    for file in tmp_path.glob("review.sqlite*"):
        file.unlink()
    (tmp_path / "bot.sqlite").unlink()
    tracker(tmp_path / "bot.sqlite", [("ana", user("nuevo"))]).close()
    ingest(store := st.open_store(path), str(tmp_path / "bot.sqlite"))
    assert open_messages(store).sql("SELECT text FROM messages").fetchall() == [("nuevo",)]


def test_the_command_reads_says_what_it_read_and_forgets(capsys):
    from genesis_lab.cli import main

    def genesis(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["review", *arguments])
        return ended.value.code, capsys.readouterr()

    code, said = genesis("ingest", str(FIXTURE))
    assert code == 0 and "164" in said.out and "new messages" in said.out
    code, said = genesis("forget", "user-005")
    assert code == 0 and said.out == "9 messages have lost their text\n"
    assert genesis("ingest", str(FIXTURE), "--full")[0] == 0
    code, said = genesis("forget", "nobody")
    assert code == 1 and said.err.startswith("genesis: No message")
    code, said = genesis("grant", "ana", "viewer")
    assert code == 1 and "SQLite" in said.err
