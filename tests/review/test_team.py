"""A team's store on PostgreSQL, as the notebooks use it: what is looked through, remarked, saved; labels of a file."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")
import psycopg

from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.browser import Browser
from genesis_lab.review import conversations
from genesis_lab.review import store as st
from genesis_lab.review.ingest import ingest
from genesis_lab.review.labelling import decide, people
from genesis_lab.review.loop import real_messages, take_labels
from genesis_lab.review.numbers import dashboard
from genesis_lab.review.queue import queue
from genesis_lab.settings import get_settings
from trackers import SAMPLE, annotate

BOT = SAMPLE.with_name("bot")
PERIOD = {"since": "2026-09-01", "until": "2026-09-30"}


@pytest.fixture
def team(new_database, monkeypatch, tmp_path):
    """Opens the store of a team that holds the sample as one of its members."""
    monkeypatch.setenv("GENESIS_REVIEW_SECRET", "a key of the tests")
    get_settings.cache_clear()
    where, roles = new_database(), {"nora": "qa_analyst", "leo": "qa_lead", "ines": "ingest"}
    with psycopg.connect(f"postgresql://postgres@{where}", autocommit=True) as server:
        for person in roles:
            server.execute(f"DO $$ BEGIN CREATE ROLE {person} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        st.init_db(f"postgresql://postgres@{where}")
        for person, role in roles.items():
            st.grant(st.open_store(f"postgresql://postgres@{where}"), person, role)

    def open_as(person: str) -> st.Store:
        return st.open_store(f"postgresql://{person}@{where}")

    ingest(open_as("ines"), str(SAMPLE))
    yield open_as
    get_settings.cache_clear()


def browser(store, unit="conversations"):
    given = conversations.opened(store, dashboard(store, **PERIOD), unit, str(BOT))
    return Browser(**given, preview=lambda row: "")


def test_a_team_looks_through_remarks_and_undoes_only_its_own(team):
    nora, leo = team("nora"), team("leo")
    one = browser(nora)
    assert one.act(0, "success")["mark"] == "success"
    assert (
        one.act(0, "tag", "vip")["mark"] == "success, vip"
        and one.act(0, "note", "call")["mark"] == "success, vip, note"
    )
    one.act(1, "flag", why="odd")
    theirs = browser(leo)
    with pytest.raises(InvalidInput, match="no remark of yours"):
        theirs.act(1, "undo")
    assert theirs.act(1, "fail")["mark"] == "flag, fail"
    assert theirs.act(1, "undo")["mark"] == "flag"
    assert one.act(0, "undo")["mark"] == "success, vip"
    assert dashboard(leo, **PERIOD)["verdicts"]["success"] == 1
    one.save("falls back", {"where": {"fallback": ["yes"]}})
    assert list(browser(nora).about()["saved"]) == ["falls back"] == list(browser(leo).about()["saved"])
    with pytest.raises(InvalidInput, match="leo may remove"):
        browser(leo).save("falls back", None)
    assert one.save("falls back", None) == {} == browser(nora).about()["saved"]
    rows = browser(nora, "messages")
    row = rows.ask(rows._chosen({"fallback": ["yes"]}))["rows"][0]
    assert rows.act(row["row"], "case", "saludar")["mark"] == "case"


def test_the_numbers_of_a_team_are_those_of_one_person(team, sample):
    ours, theirs = dashboard(team("nora"), **PERIOD), dashboard(sample, **PERIOD)
    assert ours == theirs
    assert len(queue(team("nora"), BOT).items) == len(queue(sample, BOT).items)


def test_labels_of_a_file_need_two_people_in_a_team(team):
    with pytest.raises(InvalidInput, match="two people"):
        take_labels(team("nora"), SAMPLE.with_name("labels.csv"))
    message = queue(team("nora"), BOT).items[0].message
    label = annotate(team("nora"), message, "saludar")
    decide(team("leo"), label["id"], label["version"], "approved")
    assert real_messages(team("leo"))["intents"].sum() == 1
    assert [row["person"] for row in people(team("leo"))["people"]] == ["nora"]
