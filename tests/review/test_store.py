"""The review store on SQLite: labels and decisions, the chain, forgetting, the Parquet copy."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from genesis_lab.cli_review import review_app
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.review import store as st
from genesis_lab.review import tables
from genesis_lab.review.forgetting import forget, hashed, sender_key
from genesis_lab.review.labelling import add, decide, mark_exported, remove
from genesis_lab.review.numbers import messages_parquet, open_messages
from genesis_lab.review.store import audit_faults, audit_head
from trackers import annotate, frame


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GENESIS_REVIEW_NAME", "ana")
    from genesis_lab.settings import get_settings

    get_settings.cache_clear()
    opened = st.open_store(tmp_path / "review.sqlite")
    put(opened, "m1", sender="a")
    put(opened, "m2", sender="b")
    return opened


def put(store, key, *, sender, text="hola\u2400", source="bot"):
    row = {
        "key": key,
        "source": source,
        "sender": sender,
        "session": f"s{sender}",
        "position": 0,
        "timestamp": 1000.0,
        "raw": '{"text": "hola\\u0000"}',
        "text": text,
        "lossy": True,
        "typed": True,
        "undone": False,
        "intent": "saludar",
        "confidence": 0.9,
        "fallback": False,
        "ranking": [{"name": "saludar", "confidence": 0.9}],
        "entities": [],
        "actions": ["utter_saludar"],
        "events": [],
    }
    with store.begin() as connection:
        if not connection.execute(sa.select(tables.sources).where(tables.sources.c.name == source)).first():
            connection.execute(sa.insert(tables.sources).values(name=source, kind="tracker", address="x", state={}))
        run = connection.execute(sa.insert(tables.ingests).values(source=source, started_at=0.0)).inserted_primary_key[
            0
        ]
        connection.execute(sa.insert(tables.messages).values(row | {"ingest": run}))


def audited(folder, *options):
    done = CliRunner().invoke(review_app, ["audit", "--store", str(folder / "review.sqlite"), *options])
    return done.exit_code, done.stdout


def test_a_label_is_saved_changed_seen_and_decided_once(store):
    first = annotate(store, "m1", "saludar", seconds=2.5)
    second = annotate(store, "m1", "despedir", [{"entity": "persona", "start": 0, "end": 4}])
    assert (first["id"], first["version"], second["version"], second["status"]) == (second["id"], 1, 2, "pending")
    with pytest.raises(InvalidInput, match="version 2, what was seen is version 1"):
        decide(store.by("luis"), second["id"], 1, "approved")
    row = decide(store.by("luis"), second["id"], 2, "approved")
    assert (row["status"], row["decided_by"], row["intent"]) == (
        "approved",
        "luis",
        "despedir",
    ) and "warning" not in row
    with pytest.raises(InvalidInput, match="was approved by luis"):
        decide(store.by("eva"), second["id"], 2, "rejected", "no")
    assert (mark_exported(store, [row["id"]]), mark_exported(store, [row["id"]])) == (1, 0)
    assert frame(store, tables.activity.select())["seconds"].tolist()[0] == 2.5


def test_four_eyes_are_a_warning_and_the_banner_says_that_names_are_declared(store):
    row = annotate(store, "m1", "saludar")
    assert "own" in decide(store, row["id"], 1, "approved")["warning"]
    found = st.whoami(store)
    assert (found["name"], found["roles"]) == ("ana", None) and "declared, not enforced" in found["banner"]


@pytest.mark.parametrize("arguments, says", [
    ((1, 1, "maybe"), "approved or rejected"), ((1, 1, "rejected"), "needs a reason"), ((9, 1, "approved"), "no annotation 9"),
])  # fmt: skip
def test_a_decision_that_is_none_is_refused(store, arguments, says):
    with pytest.raises(InvalidInput, match=says):
        decide(store, *arguments)


def test_a_label_for_a_message_that_is_gone_is_refused(store):
    with pytest.raises(InvalidInput, match="no message 'gone'"):
        annotate(store, "gone", "saludar")
    assert frame(store, tables.labels.select()).empty


def test_the_chain_shows_a_changed_row_a_missing_one_and_a_rewritten_end(store, tmp_path):
    for key in ("m1", "m2"):
        annotate(store, key, "saludar")
    head = audit_head(store)
    assert audit_faults(store, head) == [] and head["number"] == 2
    told = f"2:{head['hash']}"
    assert audited(tmp_path, "--head", told) == (0, f"0 faults; the chain's head is {told}\n")
    code, said = audited(tmp_path, "--head", "2:" + 64 * "0")
    assert code == 1 and said.startswith("the chain no longer holds the head 000000000000 (row 2) that was exported\n")
    assert audited(tmp_path, "--head", "yesterday") == (1, "")
    with store.begin() as connection:
        connection.execute(sa.update(tables.audit).where(tables.audit.c.number == 1).values(who="eva"))
    assert audit_faults(store) == ["row 1 is not what was written"]
    with store.begin() as connection:
        connection.execute(sa.delete(tables.audit).where(tables.audit.c.number == 1))
    assert any("missing" in fault for fault in audit_faults(store))
    with store.begin() as connection:
        connection.execute(sa.delete(tables.audit))
    assert any("no longer holds the head" in fault for fault in audit_faults(store, head))


def test_remarks_are_kept_with_their_author_and_removed(store):
    row = add(store, "tags", message="m1", tag="raro")
    case = add(store, "cases", text="hola", intent="saludar")
    assert frame(store, f"SELECT author, tag FROM tags WHERE id = {row}").values.tolist() == [["ana", "raro"]]
    assert frame(store, tables.cases.select())["min_confidence"].tolist() == [0.7] and case == 1
    remove(store, "tags", row)
    with pytest.raises(InvalidInput, match="no row"):
        remove(store, "tags", row)
    with pytest.raises(InvalidInput, match="one of cases, tags"):
        add(store, "audit", number=1)


def test_forgetting_takes_texts_and_leaves_counts_and_the_chain(store):
    put(store, "m3", sender=hashed(sender_key(store), "+502 5555"), text="mi nombre es Ana")
    annotate(store, "m3", "saludar", [{"entity": "persona", "value": "Ana"}], "se llama Ana")
    add(store, "notes", message="m3", note="Ana otra vez")
    add(store, "flags", message="m3", reason="es Ana")
    add(store, "cases", message="m3", text="mi nombre es Ana", intent="saludar")
    path = messages_parquet(store, "bot")
    assert forget(store, "+502 5555") == 1
    assert audit_faults(store) == [] and len(frame(store, tables.messages.select())) == 3
    store.engine.dispose()
    assert b"Ana" not in store.folder.with_suffix(".sqlite").read_bytes()
    dump = "\n".join(sqlite3.connect(store.folder.with_suffix(".sqlite")).iterdump())
    assert "Ana" not in dump and "502 5555" not in dump and b"Ana" not in path.read_bytes()
    with pytest.raises(InvalidInput, match="No message"):
        forget(store, "somebody else")


def test_the_parquet_copy_follows_the_store_and_holds_no_raw_text(store):
    assert sorted(open_messages(store).sql("SELECT key FROM messages").fetchall()) == [("m1",), ("m2",)]
    put(store, "m4", sender="c")
    with store.begin() as connection:
        connection.execute(
            sa.update(tables.messages).where(tables.messages.c.key == "m1").values(gold="despedir", ingest=3)
        )
    database = open_messages(store)
    assert database.sql("SELECT key, gold FROM messages ORDER BY key").fetchall() == [
        ("m1", "despedir"),
        ("m2", None),
        ("m4", None),
    ]
    assert "raw" not in database.sql("SELECT * FROM messages").columns
    assert database.sql("SELECT ranking->>'$[0].name' FROM messages LIMIT 1").fetchall() == [("saludar",)]


@pytest.mark.parametrize("url, says", [
    ("mysql://somewhere/x", "a SQLite file or postgresql"),
    ("postgresql://me:not-a-real-password@localhost/x", "holds a password"),
])  # fmt: skip
def test_an_address_that_can_not_be_a_store_is_refused_without_its_password(url, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        st.open_store(url)
    assert "not-a-real" not in str(caught.value)


def test_a_place_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenesisError, match="can't be written"):
        st.open_store(tmp_path / "file" / "review.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.sqlite").write_text("no database, only text of some length " * 40)
    with pytest.raises(InvalidInput, match="not a database"):
        st.open_store(tmp_path / "x.sqlite")
