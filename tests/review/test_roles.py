"""Who may do what on PostgreSQL: every role and action is tried on a real server, past Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from genesis_lab.errors import InvalidInput  # noqa: E402
from genesis_lab.review import store as st  # noqa: E402
from genesis_lab.review import tables  # noqa: E402
from genesis_lab.review.forgetting import forget  # noqa: E402
from genesis_lab.review.ingest import ingest  # noqa: E402
from genesis_lab.review.labelling import decide  # noqa: E402
from genesis_lab.review.numbers import open_messages  # noqa: E402
from genesis_lab.review.store import audit_faults, audit_head, grant, init_db  # noqa: E402  # noqa: E402
from genesis_lab.settings import get_settings  # noqa: E402
from trackers import TRACKER, annotate, frame, put, user  # noqa: E402

PEOPLE = {
    "vera": "viewer", "dani": "developer", "ana": "qa_analyst", "eva": "qa_analyst", "luis": "qa_lead", "lola": "qa_lead",
    "rosa": "admin", "iris": "ingest", "nadie": None,
}  # fmt: skip
MESSAGE = (
    "INSERT INTO messages (key, source, sender, session, position, timestamp, raw, text, lossy, typed, undone, fallback, ingest)"
    " VALUES ('{0}', 'bot', 'x', 's', 0, 1, '{{}}', 'secreto', false, true, false, false, 1)"
)


@pytest.fixture(scope="module")
def place(new_database) -> str:
    """A database with a review store, a login for each role, messages m1 … m4, pending labels and one approved."""
    where = new_database()
    with psycopg.connect(f"postgresql://postgres@{where}", autocommit=True) as server:
        for person in PEOPLE:
            server.execute(f"CREATE ROLE {person} LOGIN")
        server.execute("CREATE TABLE events (id int, sender_id text, data text); CREATE TABLE other (id int)")
        init_db(f"postgresql://postgres@{where}", events="public.events")
        store = st.open_store(f"postgresql://postgres@{where}")
        for person, role in PEOPLE.items():
            if role:
                grant(store, person, role)
        server.execute("SET search_path = review")
        for number in range(1, 5):
            server.execute(MESSAGE.format(f"m{number}"))
    for person, message in (("ana", "m1"), ("eva", "m2"), ("lola", "m3"), ("ana", "m4")):
        annotate(as_(where, person), message, "saludar", note="nota")
    decide(as_(where, "luis"), 4, 1, "approved")
    return where


def as_(where: str, person: str) -> st.Store:
    return st.open_store(f"postgresql://{person}@{where}")


def connected(where: str, person: str) -> psycopg.Connection:
    return psycopg.connect(f"postgresql://{person}@{where}", options="-csearch_path=review,public")


@pytest.fixture(scope="module")
def connections(place) -> Iterator[dict[str, psycopg.Connection]]:
    opened = {person: connected(place, person) for person in PEOPLE}
    yield opened
    for connection in opened.values():
        connection.close()


LABEL = "INSERT INTO annotations (message, intent) VALUES ('m2', 'x')"
READERS = ["vera", "dani", "ana", "luis", "rosa"]
ATTEMPTS = [
    # what, who can, and what happens to everyone else
    ("SELECT text FROM messages", [*READERS, "iris"], "permission denied"),
    ("SELECT * FROM annotations", READERS, "permission denied"),
    ("SELECT * FROM audit", READERS, "permission denied"),
    ("SELECT sender FROM forgotten", ["iris"], "permission denied"),
    ("INSERT INTO filters (name, filter) VALUES ('f', '{}')", READERS, "permission denied"),
    ("INSERT INTO filters (name, filter, author) VALUES ('f', '{}', 'eva')", [], "permission denied"),
    ("INSERT INTO cases (text, intent) VALUES ('a', 'b')", ["dani", "ana", "luis"], "permission denied"),
    ("DELETE FROM cases", ["dani", "luis"], "permission denied"),
    ("INSERT INTO tags (message, tag) VALUES ('m1', 't')", ["ana", "luis"], "permission denied"),
    ("INSERT INTO tags (message, tag, author) VALUES ('m1', 't', 'eva')", [], "permission denied"),
    ("INSERT INTO activity (person, action) VALUES ('x', 'y')", READERS, "permission denied"),
    ("INSERT INTO activity (person, action, author) VALUES ('x', 'y', 'eva')", [], "permission denied"),
    (LABEL, ["ana", "luis"], "permission denied"),
    ("INSERT INTO annotations (message, intent, author) VALUES ('m2', 'x', 'eva')", [], "permission denied"),
    ("INSERT INTO annotations (message, intent, status) VALUES ('m2', 'x', 'approved')", [], "permission denied"),
    ("INSERT INTO annotations (message, intent, created_at) VALUES ('m2', 'x', 1)", [], "permission denied"),
    ("UPDATE annotations SET status = 'approved'", [], "permission denied"),
    ("UPDATE annotations SET author = session_user", [], "permission denied"),
    ("UPDATE annotations SET version = 1", [], "permission denied"),
    ("DELETE FROM annotations", [], "permission denied"),
    ("TRUNCATE annotations", [], "permission denied"),
    ("SELECT decide(2, 1, 'approved', '')", ["luis"], "permission denied"),
    ("SELECT decide(2, 1, 'rejected', 'otra cosa')", ["luis"], "permission denied"),
    ("SELECT mark_exported(ARRAY[4])", ["dani", "luis"], "permission denied"),
    ("SELECT forget(ARRAY['x'], 'x', 5)", ["rosa", "iris"], "permission denied"),
    ("SELECT set_role('nadie', 'viewer', true)", ["rosa"], "permission denied"),
    ("GRANT review_qa_lead TO nadie", [], "permission denied|must have admin option"),
    ("SET ROLE review_owner", [], "permission denied"),
    ("SET SESSION AUTHORIZATION lola", [], "permission denied"),
    ("INSERT INTO audit VALUES (99, '', '', '', '', '', '', '')", [], "permission denied"),
    ("UPDATE audit SET who = 'eva'", [], "permission denied"),
    ("DELETE FROM audit", [], "permission denied"),
    ("TRUNCATE audit", [], "permission denied"),
    ("ALTER TABLE audit DISABLE TRIGGER ALL", [], "must be owner|permission denied"),
    ("ALTER TABLE annotations DISABLE ROW LEVEL SECURITY", [], "must be owner|permission denied"),
    ("SELECT append_audit('approved', 'annotation 2', '')", [], "permission denied"),
    ("CREATE TABLE review.mine (id int)", [], "permission denied"),
    ("CREATE OR REPLACE FUNCTION decide(int, int, text, text) RETURNS void LANGUAGE sql AS ''", [], "permission denied"),
    (MESSAGE.format("forged"), ["iris"], "permission denied"),
    ("UPDATE messages SET gold = 'x'", ["iris"], "permission denied"),
    ("DELETE FROM messages", [], "permission denied"),
    ("SELECT * FROM events", ["iris"], "permission denied"),
    ("UPDATE events SET data = ''", [], "permission denied"),
    ("DELETE FROM events", [], "permission denied"),
    ("SELECT * FROM other", [], "permission denied"),
]  # fmt: skip


@pytest.mark.parametrize("who", ["vera", "dani", "ana", "luis", "rosa", "iris", "nadie"])
@pytest.mark.parametrize("what, allowed, says", ATTEMPTS, ids=[attempt[0][:60] for attempt in ATTEMPTS])
def test_each_role_can_do_what_it_may_and_nothing_else(connections, who, what, allowed, says):
    connection = connections[who]
    try:
        if who in allowed:
            connection.execute(what)
        else:
            hidden = "|does not exist" if who == "nadie" else ""  # to whom the schema is closed it does not exist
            with pytest.raises(psycopg.Error, match=says + hidden):
                connection.execute(what)
    finally:
        connection.rollback()


@pytest.mark.parametrize("who, what, says", [
    ("luis", "decide(2, 7, 'approved', '')", "is at version 1, what was seen is version 7"),
    ("luis", "decide(2, NULL, 'approved', '')", "what was seen is version"),
    ("luis", "decide(4, 1, 'rejected', 'tarde')", "was approved by luis"),
    ("luis", "decide(99, 1, 'approved', '')", "there is no annotation 99"),
    ("luis", "decide(2, 1, 'rejected', '  ')", "needs a reason"),
    ("luis", "decide(2, 1, NULL, '')", "approved or rejected"),
    ("luis", "decide(2, 1, 'pending', '')", "approved or rejected"),
    ("lola", "decide(3, 1, 'approved', '')", "by lola, who can not decide on it"),
    ("rosa", "set_role('rosa', 'qa_lead', true)", "nobody changes their own"),
    ("rosa", "set_role('luis', 'admin', true)", "can not be qa_lead and admin"),
    ("rosa", "set_role('ana', 'owner', true)", "a role is viewer"),
    ("rosa", "set_role('ninguno', 'viewer', true)", "there is no login ninguno"),
    ("rosa", "set_role('review_owner', 'viewer', true)", "there is no login review_owner"),
])  # fmt: skip
def test_a_call_that_is_allowed_is_still_checked(place, who, what, says):
    with connected(place, who) as connection, pytest.raises(psycopg.Error, match=says):
        connection.execute(f"SELECT {what}")


@pytest.mark.parametrize("who, sees", [
    ("ana", {1, 4}), ("eva", {2, 4}), ("luis", {1, 2, 3, 4}), ("vera", {4}), ("dani", {4}), ("rosa", {4}),
])  # fmt: skip
def test_pending_labels_of_others_are_hidden_from_all_but_leads(place, who, sees):
    with connected(place, who) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM annotations WHERE id <= 4")} == sees


def test_one_changes_ones_own_pending_label_only_and_gets_the_next_version(place):
    with connected(place, "ana") as connection:
        changed = connection.execute("UPDATE annotations SET note = 'otra' RETURNING id, version").fetchall()
        assert changed == [(1, 2)]
        connection.rollback()
    with connected(place, "luis") as connection:
        assert connection.execute("UPDATE annotations SET note = 'ajena' WHERE id = 1").rowcount == 0
        connection.rollback()


def test_a_temporary_function_or_table_can_not_stand_in_for_those_of_the_store(place):
    with connected(place, "luis") as connection:
        connection.execute("CREATE TEMP TABLE annotations (id int, status text, author text, version int)")
        connection.execute("INSERT INTO pg_temp.annotations VALUES (3, 'pending', 'eva', 1), (77, 'pending', 'eva', 1)")
        with pytest.raises(psycopg.Error, match="no annotation 77"):
            connection.execute("SELECT review.decide(77, 1, 'approved', '')")
        connection.rollback()


def test_of_two_who_decide_at_once_one_is_told_that_it_is_decided(place):
    row = annotate(as_(place, "ana"), "m2", "despedir")
    outcomes, barrier = [], threading.Barrier(2)

    def attempt(person: str) -> None:
        store = as_(place, person)
        barrier.wait()
        try:
            decide(store, row["id"], row["version"], "approved")
            outcomes.append("decided")
        except InvalidInput as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=attempt, args=(person,)) for person in ("luis", "lola")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text == "decided" for text in outcomes) == [False, True]
    assert any("was approved by" in text for text in outcomes)


def test_while_one_decides_the_author_can_not_change_what_is_decided(place):
    row = annotate(as_(place, "eva"), "m1", "despedir")
    with connected(place, "luis") as lead, connected(place, "eva") as author:
        lead.execute(f"SELECT decide({row['id']}, {row['version']}, 'approved', '')")
        author.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            author.execute(f"UPDATE annotations SET intent = 'otro' WHERE id = {row['id']}")
        author.rollback()
        lead.commit()
        assert author.execute(f"UPDATE annotations SET intent = 'otro' WHERE id = {row['id']}").rowcount == 0


def test_the_chain_of_the_database_is_the_chain_that_python_checks(place):
    store = as_(place, "vera")
    head = audit_head(store)
    assert head["number"] >= 5 + 8 and audit_faults(store, head) == []
    with store.begin() as connection:
        rows = connection.execute(sa.select(tables.audit.c.who, tables.audit.c.action)).all()
    assert ("luis", "approved") in rows and ("ana", "annotated") in rows and ("postgres", "granted") in rows


def test_not_even_a_superuser_rewrites_the_audit_by_accident_and_one_who_does_is_seen(new_database):
    where = new_database()
    init_db(f"postgresql://postgres@{where}")
    with psycopg.connect(f"postgresql://postgres@{where}", options="-csearch_path=review") as server:
        for message in ("m1", "m2"):
            server.execute(MESSAGE.format(message))
            server.execute(f"INSERT INTO annotations (message, intent) VALUES ('{message}', 'x')")
        server.commit()
        head = audit_head(store := as_(where, "postgres"))
        for tampering in ("UPDATE audit SET who = 'eva'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(psycopg.Error, match="only grows"):
                server.execute(tampering)
            server.rollback()
        server.execute("ALTER TABLE audit DISABLE TRIGGER ALL; UPDATE audit SET who = 'eva' WHERE number = 1")
        server.commit()
        assert audit_faults(store) == ["row 1 is not what was written"]
        server.execute("DELETE FROM audit WHERE number = 2")
        server.commit()
        assert any("no longer holds the head" in fault for fault in audit_faults(store, head))


def test_what_the_store_says_of_roles_is_what_the_database_says(place):
    assert st.whoami(as_(place, "luis"))["roles"] == ["viewer", "qa_analyst", "qa_lead"]
    assert st.whoami(as_(place, "dani"))["roles"] == ["viewer", "developer"]
    assert st.whoami(as_(place, "nadie"))["roles"] == []
    with pytest.raises(InvalidInput, match="author is the login"):
        annotate(as_(place, "ana"), "m1", "x", author="eva")


def test_a_login_that_two_people_share_claims_no_roles(place, monkeypatch):
    for person in ("Pilar", "Paco"):
        monkeypatch.setenv("JUPYTERHUB_USER", person)
        get_settings.cache_clear()
        annotate(as_(place, "eva"), "m4", "saludar")
    found = st.whoami(as_(place, "eva"))
    assert found["roles"] is None and "shared by Paco, " in found["banner"] and "Pilar" in found["banner"]


def test_a_role_is_taken_away_again_and_that_is_in_the_audit(place):
    with connected(place, "postgres") as server:
        server.execute("CREATE ROLE temporal LOGIN")
    admin = as_(place, "rosa")
    assert grant(admin, "temporal", "viewer") == "temporal is viewer"
    assert st.whoami(as_(place, "temporal"))["roles"] == ["viewer"]
    assert grant(admin, "temporal", "viewer", revoke=True) == "temporal no longer is viewer"
    assert st.whoami(as_(place, "temporal"))["roles"] == []
    assert "revoked" in frame(admin, tables.audit.select())["action"].tolist()


def test_everything_belongs_to_an_owner_that_nobody_is_and_public_has_nothing(place):
    with connected(place, "postgres") as server:
        owners = server.execute(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'review'::regnamespace"
            " UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'review'::regnamespace"
        ).fetchall()
        assert owners == [("review_owner",)]
        assert server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'review_owner'").fetchone() == (False,)
        public = server.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'review'::regnamespace"
            " AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0))"
        ).fetchall()
        assert public == []


def test_the_rules_are_installed_again_without_harm_and_by_one_who_is_no_superuser(new_database, place):
    where = new_database()
    with connected(place, "postgres") as server:
        server.execute("CREATE ROLE dba LOGIN CREATEROLE CREATEDB")
        server.execute(f"ALTER DATABASE {where.rpartition('/')[2]} OWNER TO dba")
        if server.info.server_version >= 160_000:  # what whoever makes the roles has from then on
            groups = ", ".join(f"review_{role}" for role in (*st.ROLES, "owner"))
            server.execute(f"GRANT {groups} TO dba WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    for _ in range(2):
        init_db(f"postgresql://dba@{where}")
    with psycopg.connect(f"postgresql://dba@{where}") as dba, pytest.raises(psycopg.Error, match="permission denied"):
        dba.execute("UPDATE review.audit SET who = 'x'")


def test_a_role_that_somebody_else_granted_is_gone_after_a_revoke_or_the_revoke_says_it_is_not(place):
    with connected(place, "postgres") as server:
        server.execute("CREATE ROLE ajena LOGIN; GRANT review_viewer TO ajena")
        server.commit()
        if server.info.server_version >= 160_000:
            with pytest.raises(InvalidInput, match="ajena still is viewer: that was granted by postgres"):
                grant(as_(place, "rosa"), "ajena", "viewer", revoke=True)
        else:
            grant(as_(place, "rosa"), "ajena", "viewer", revoke=True)
            assert st.whoami(as_(place, "ajena"))["roles"] == []


def test_a_database_without_a_store_and_a_wrong_events_table_are_said(new_database):
    where = new_database()
    with pytest.raises(InvalidInput, match="genesis review init-db"):
        as_(where, "postgres")
    with pytest.raises(InvalidInput, match=r"no table public\.nothing"):
        init_db(f"postgresql://postgres@{where}", events="public.nothing")
    with pytest.raises(InvalidInput, match="genesis review init-db"):
        as_(where, "postgres")


def test_the_ingest_login_reads_the_bots_events_and_writes_the_store_and_an_admin_forgets(
    new_database, place, monkeypatch
):
    monkeypatch.setenv("GENESIS_REVIEW_SECRET", "a key of the tests")
    get_settings.cache_clear()
    where = new_database()
    with psycopg.connect(f"postgresql://postgres@{where}") as server:
        server.execute(TRACKER.format("SERIAL PRIMARY KEY"))
        put(server, [("+502", user("soy Ana")), ("eva", user("hola"))], mark="%s")
        init_db(f"postgresql://postgres@{where}", events="events")
        url = f"postgresql://iris@{where}"
        assert ingest(as_(where, "iris"), url, retention_days=3_650)["expired"] == 2, "time stamps of the tests are old"
        put(server, [("+502", user("soy Ana", timestamp=4e9)), ("eva", user("hola", timestamp=4e9))], mark="%s")
        assert ingest(as_(where, "iris"), url)["written"]["new messages"] == 2
    annotate(as_(where, "ana"), message := key_of(where, "soy Ana"), "saludar", note="Ana dice su nombre")
    assert forget(as_(where, "rosa"), "+502", now=5e9) == 1
    assert ingest(as_(where, "iris"), url, full=True)["written"]["changed messages"] == 0
    store = as_(where, "luis")
    assert [
        row["text"] for row in st.records(store, "SELECT text FROM messages WHERE timestamp > 2e9 ORDER BY text")
    ] == ["hola", None]
    label = st.records(store, tables.labels.select())[0]
    assert (label["message"], label["note"], label["intent"]) == (message, None, "saludar")
    assert audit_faults(store) == []
    with pytest.raises(InvalidInput, match="permission denied"):
        forget(as_(where, "ana"), "eva")


def key_of(where: str, text: str) -> str:
    return st.records(as_(where, "vera"), f"SELECT key FROM messages WHERE text = '{text}'")[0]["key"]


def test_the_parquet_copy_holds_what_every_role_may_read(place, tmp_path):
    with connected(place, "postgres") as server:
        server.execute("INSERT INTO sources (name, kind, address, state) VALUES ('bot', '', '', '{}')")
    database = open_messages(as_(place, "vera"))
    columns = set(database.sql("SELECT * FROM messages").columns)
    derived = {"other", "margin", "twentieth", "told", "did", "slots", "policies", "found", "folded"}
    assert columns == {column.name for column in tables.messages.columns} - {"raw"} | derived
    stored = b"".join(path.read_bytes() for path in as_(place, "vera").folder.rglob("*") if path.is_file())
    assert b"nota" not in stored
