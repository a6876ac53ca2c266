"""Conversations into the store: every row accounted for, sessions, what was typed, what the model really predicted."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from genesis_lab.review import store as st
from genesis_lab.review.ingest import ingest, report_table

REFERENCE = Path(os.environ.get("GENESIS_REFERENCE_DIR") or "none") / "rasa" / "rasa_tracker.sqlite"


@pytest.fixture
def store(tmp_path):
    return st.open_store(tmp_path / "review.sqlite")


def contents(store):
    """Everything in the store, to see whether a run has written."""
    store.engine.dispose()
    return list(sqlite3.connect(store.folder.with_suffix(".sqlite")).iterdump())


@pytest.mark.skipif(not REFERENCE.exists(), reason="GENESIS_REFERENCE_DIR holds no rasa/rasa_tracker.sqlite")
def test_every_event_of_a_real_tracker_is_accounted_for_and_a_second_run_writes_nothing(store):
    report = ingest(store, str(REFERENCE))
    assert report["rows"] == sum(report["kinds"].values()) == 3_136 and report["written"]["new messages"] == 505
    sessions = st.frame(store, st.sessions.select())
    assert (len(sessions), int((sessions["typed"] > 0).sum())) == (157, 145)
    messages = st.frame(store, st.messages.select())
    assert messages["typed"].sum() == 459 and messages["lossy"].sum() == 1
    source = dict(sqlite3.connect(REFERENCE).execute("SELECT id, data FROM events WHERE type_name = 'user'"))
    assert dict(zip(messages["event_id"], messages["raw"], strict=True)) == source
    before = contents(store)
    again = ingest(store, str(REFERENCE))
    assert contents(store) == before and (again["known"], again["rows"]) == (3_136, 3_136)
    assert "3,136" in report_table(again)
