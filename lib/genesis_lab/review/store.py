"""The review store: messages of real conversations, and what people say of them. SQLite, or PostgreSQL for a team.

Times are seconds since 1970 in UTC. Every function takes the `Store` that `open_store` gives; on PostgreSQL the database
itself decides what the login may do (see ``roles.sql``), on SQLite names and roles are only declared.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Identity, Index, Integer, Table, Text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, placed, resolve, shown
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

SCHEMA = "review"
"""Where the tables stand in PostgreSQL."""
DECLARED = "SQLite: names and roles are declared, not enforced; four eyes are a warning. A team takes PostgreSQL (genesis review init-db)."
ROLES = ("viewer", "developer", "qa_analyst", "qa_lead", "admin", "ingest")
Status = Literal["pending", "approved", "rejected"]


class Json(sa.types.TypeDecorator[Any]):
    """A value as ASCII-escaped JSON in a text column: NUL and lone surrogates survive in either database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


def _id() -> Column[int]:
    return Column("id", Integer, Identity(always=True), primary_key=True)


def _texts(*names: str, empty: bool = False) -> list[Column[str]]:
    return [Column(name, Text, nullable=empty) for name in names]


def _said_by() -> Iterator[Column[Any]]:
    """Who wrote a row, and when: filled in here on SQLite, by the database itself on PostgreSQL (``roles.sql``)."""
    yield Column("author", Text, nullable=False)
    yield Column("created_at", Float, nullable=False)


def _about() -> Iterator[Column[Any]]:
    """A remark is about a message or about a whole session."""
    yield Column("message", Text, ForeignKey("messages.key"), index=True)
    yield Column("session", Text, index=True)


metadata = sa.MetaData()
sources = Table(
    "sources", metadata, Column("name", Text, primary_key=True), *_texts("kind", "address"), Column("state", Json)
)
"""Where conversations come from; `state` is how far it has been read."""
ingests = Table(
    "ingests", metadata, _id(), Column("source", Text, nullable=False, index=True),
    Column("started_at", Float, nullable=False), Column("finished_at", Float), Column("report", Json),
)  # fmt: skip
"""Each run that changed something; one that ended early has no report."""
messages = Table(
    "messages", metadata,
    Column("key", Text, primary_key=True),  # sha1 of source, row and content
    *_texts("source", "sender", "session"),  # the sender as shown: a keyed hash by default
    Column("position", Integer, nullable=False),  # number of the message in its session, from 0
    Column("timestamp", Float, index=True),
    Column("raw", Text),  # the source's JSON, ASCII-escaped; null once forgotten
    Column("text", Text),  # for display
    Column("lossy", Boolean, nullable=False),  # the text holds what can't be displayed: see raw
    Column("typed", Boolean, nullable=False),
    Column("undone", Boolean, nullable=False),
    Column("intent", Text),  # the real prediction's full name
    Column("confidence", Float),  # of the real prediction
    Column("fallback", Boolean, nullable=False),
    Column("ranking", Json),  # [{name, confidence}] by full names, without the fallback; null: the source has none
    Column("entities", Json),
    Column("gold", Text),  # a person's correction in interactive learning
    Column("gold_entities", Json),
    *_texts("model", "assistant", "channel", empty=True),  # model null: the source does not say (Rasa 2)
    Column("actions", Json),  # names of those that followed
    Column("events", Json),  # what followed, in order: actions with policy, replies, slots
    Column("event_id", BigInteger),  # the row's id in the source, where it has one
    Column("ingest", Integer, nullable=False),  # the run that wrote it last
    Index("ix_messages_sender", "source", "sender"),
    Index("ix_messages_session", "session"),
    Index("ix_messages_ingest", "source", "ingest"),
)  # fmt: skip
sessions = Table(
    "sessions", metadata, Column("key", Text, primary_key=True), *_texts("source", "sender"),
    Column("number", Integer, nullable=False),  # of the sender's sessions, from 1
    Column("started_at", Float), Column("ended_at", Float),
    Column("messages", Integer, nullable=False), Column("typed", Integer, nullable=False),
    *_texts("model", "channel", empty=True),
    Column("opening", Json),  # what came before the first message
    Column("ingest", Integer, nullable=False),
    Index("ix_sessions_sender", "source", "sender"),
)  # fmt: skip
ingest_errors = Table(
    "ingest_errors", metadata, Column("key", Text, primary_key=True), Column("source", Text, nullable=False, index=True),
    Column("event_id", BigInteger), Column("reason", Text, nullable=False), Column("ingest", Integer, nullable=False),
)  # fmt: skip
forgotten = Table(
    "forgotten", metadata, Column("sender", Text, primary_key=True), Column("until", Float, nullable=False)
)
"""Whose texts must not come back with the next ingest, by the keyed hash of their id, whatever is shown."""
labels = Table(
    "annotations", metadata, _id(), Column("message", Text, ForeignKey("messages.key"), nullable=False, index=True),
    Column("intent", Text), Column("entities", Json), Column("note", Text), *_said_by(),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("version", Integer, nullable=False, server_default="1"),
    *_texts("reason", "decided_by", empty=True), Column("decided_at", Float), Column("exported_at", Float),
    sa.CheckConstraint("status IN ('pending', 'approved', 'rejected')", name="known_status"),
    sa.CheckConstraint("(status = 'pending') = (decided_by IS NULL)", name="decided_by_somebody"),
    Index("one_pending_each", "message", "author", unique=True, sqlite_where=sa.text("status = 'pending'"),
          postgresql_where=sa.text("status = 'pending'")),
)  # fmt: skip
cases = Table(
    "cases", metadata, _id(), *_texts("text", "intent"), Column("entities", Json),
    Column("min_confidence", Float, nullable=False, server_default="0.7"),
    Column("message", Text, ForeignKey("messages.key")), *_said_by(),
)  # fmt: skip
tags = Table("tags", metadata, _id(), *_about(), *_texts("tag"), *_said_by())
notes = Table("notes", metadata, _id(), *_about(), *_texts("note"), *_said_by())
flags = Table("flags", metadata, _id(), *_about(), *_texts("reason", empty=True), *_said_by())
filters = Table("filters", metadata, _id(), *_texts("name"), Column("filter", Json, nullable=False), *_said_by())
audit = Table(
    "audit", metadata, Column("number", Integer, primary_key=True, autoincrement=False),
    *_texts("at", "who", "action", "subject", "content", "previous", "hash"),
)  # fmt: skip
"""Who changed what; `content` is the SHA-256 of what was written, never a text, and each row is chained to the one before."""
activity = Table(
    "activity", metadata, _id(), *_texts("person", "action"), Column("message", Text), Column("seconds", Float), *_said_by()
)  # fmt: skip
"""What people did and how long it took; `person` is who says to sit there, `author` the login."""
REMARKS = {table.name: table for table in (cases, tags, notes, flags, filters)}


@dataclass(frozen=True)
class Store:
    """An open review store. `folder` holds its Parquet copies; `person` is who says to sit here."""

    engine: sa.Engine
    address: str
    folder: Path
    person: str

    @property
    def enforced(self) -> bool:
        """Whether the database itself knows who is who."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction; what the database refuses is said in one sentence."""
        with said(self.address), self.engine.begin() as connection:
            yield connection


def open_store(url: str | Path | None = None) -> Store:
    """The store at `url`: a SQLite file, or ``postgresql://user@host/database``.

    Without one ``GENESIS_REVIEW_URL``, else ``outputs/review/review.sqlite``, which is made. A password comes from
    ``GENESIS_REVIEW_PASSWORD`` or by libpq's own means, never in an address.
    """
    settings = get_settings()
    given = str(url or settings.review_url or output_root() / "review" / "review.sqlite")
    person = settings.review_name or _os_login()
    if given.startswith(("postgresql:", "postgresql+psycopg:", "postgres:")):
        password = settings.review_password.get_secret_value() if settings.review_password else None
        engine = postgresql(given, password, search_path=SCHEMA)
        address = engine.url.set(password=None, drivername="postgresql").render_as_string()
        with said(address):
            if "messages" not in sa.inspect(engine).get_table_names(SCHEMA):
                raise InvalidInput(
                    f"{address} holds no review store: an administrator of the database makes one with genesis review init-db."
                )
        return Store(
            engine,
            address,
            output_root() / "review" / f"{engine.url.host}_{engine.url.port or 5432}_{engine.url.database}",
            person,
        )
    if "://" in given and not given.startswith("sqlite:///"):
        raise InvalidInput(
            f"A review store is a SQLite file or postgresql://…, got {given.partition('://')[0]}://…: give one of these."
        )
    path = resolve(given.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(f"sqlite:///{path}")
    sa.event.listen(engine, "connect", _prepare_sqlite)
    with said(shown(path)):
        metadata.create_all(engine)
    return Store(engine, shown(path), path.with_suffix(""), person)


def postgresql(url: str, password: str | None, *, search_path: str) -> sa.Engine:
    """An engine on PostgreSQL by psycopg; an address that holds a password is refused."""
    try:
        import psycopg
    except ImportError:
        raise MissingDependency("psycopg", "A store on PostgreSQL", "pip install 'genesis-lab[postgres]'") from None
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    if address.password:
        raise InvalidInput(
            f"The address {address.set(password=None)} holds a password: leave it out and set GENESIS_REVIEW_PASSWORD (or PGPASSWORD)."
        )
    del psycopg
    path = '"' + search_path.replace('"', '""') + '"'
    path = path.replace("\\", "\\\\").replace(" ", "\\ ")
    arguments = {
        "options": f"-csearch_path={path}",
        "connect_timeout": 10,
        **({"password": password} if password else {}),
    }
    return sa.create_engine(address, connect_args=arguments, pool_pre_ping=True)


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA busy_timeout = 10000")
    with suppress(Exception):  # a file that may only be read stays as it is
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves the file too
    connection.execute("PRAGMA foreign_keys = ON")


def _os_login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@contextmanager
def said(address: str) -> Iterator[None]:
    """What a database refuses, as an error of ours."""
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).partition("\n")[0].split())
        state = getattr(error.orig, "sqlstate", None) or ""
        if isinstance(error, sa.exc.OperationalError) and not state.startswith(("P0", "42", "23")):
            raise Unavailable(f"The store {address} can't be used: {reason}.") from error
        raise InvalidInput(f"The store {address} refuses: {reason}.") from error
    except SQLAlchemyError as error:
        raise InvalidInput(f"The store {address} can't be used: {' '.join(str(error).split())}.") from error


def whoami(store: Store) -> dict[str, Any]:
    """``name``, ``roles`` (None where nothing enforces them), ``banner``: what a notebook shows about who is who."""
    if not store.enforced:
        return {"name": store.person, "roles": None, "banner": DECLARED}
    with store.begin() as connection:
        name = str(connection.execute(sa.text("SELECT session_user")).scalar_one())
        member = "SELECT role FROM unnest(CAST(:roles AS text[])) AS role WHERE pg_has_role(session_user, 'review_' || role, 'MEMBER')"
        roles = [str(role) for role in connection.execute(sa.text(member), {"roles": list(ROLES)}).scalars()]
        if not roles:
            banner = f"The login {name} has no role in {store.address}: an admin grants one with genesis review grant."
            return {"name": name, "roles": roles, "banner": banner}
        people = connection.execute(sa.select(activity.c.person).where(activity.c.author == name).distinct()).scalars()
        others = sorted({*map(str, people)} - {store.person})
    if others:
        who = ", ".join([store.person, *others])
        return {
            "name": name, "roles": None,
            "banner": f"The login {name} is shared by {who}: no roles are claimed. Each person needs a login of their own.",
        }  # fmt: skip
    banner = f"PostgreSQL login {name}, roles {', '.join(roles)}; enforced by the database."
    return {"name": name, "roles": roles, "banner": banner}


def annotate(
    store: Store,
    message: str,
    intent: str | None,
    entities: Sequence[Mapping[str, Any]] | None = None,
    note: str | None = None,
    *,
    author: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Save the author's pending label of a message, a new one or the next version; `seconds` is what it took.

    `author` can be given on SQLite only; on PostgreSQL it is the login.
    """
    values = {"intent": intent, "entities": entities, "note": note}
    who = _author(store, author)
    with store.begin() as connection:
        mine = (labels.c.message == message) & (labels.c.status == "pending") & (labels.c.author == who)
        bump = {} if store.enforced else {"version": labels.c.version + 1}
        done = connection.execute(sa.update(labels).where(mine).values(values | bump))
        what = "changed" if done.rowcount else "annotated"
        if not done.rowcount:
            if not connection.execute(sa.select(messages.c.key).where(messages.c.key == message)).first():
                raise InvalidInput(f"There is no message {message!r} in {store.address}: it can't be labelled.")
            connection.execute(sa.insert(labels).values(values | _own(store, author) | {"message": message}))
        row = dict(connection.execute(sa.select(labels).where(mine)).one()._mapping)
        if not store.enforced:
            _append(connection, who, what, f"annotation {row['id']} version {row['version']}", row)
        done_by = {"person": store.person, "action": what, "message": message, "seconds": seconds}
        connection.execute(sa.insert(activity).values(done_by | _own(store, author)))
    return row


def decide(
    store: Store, annotation: int, version: int, status: Status, reason: str = "", *, decider: str | None = None
) -> dict[str, Any]:
    """Approve or reject a pending annotation in the version that was seen; a rejection needs a reason.

    Returns the row, with ``warning`` where author and decider are one person, which only SQLite lets pass.
    """
    if status not in ("approved", "rejected"):
        raise InvalidInput(f"A decision is approved or rejected, got {status!r}.")
    if status == "rejected" and not reason.strip():
        raise InvalidInput("A rejection needs a reason: its author is shown it.")
    with store.begin() as connection:
        which = labels.c.id == annotation
        if store.enforced:
            call = sa.text("SELECT decide(:id, :version, :status, :reason)")
            connection.execute(call, {"id": annotation, "version": version, "status": status, "reason": reason})
            return dict(connection.execute(sa.select(labels).where(which)).one()._mapping)
        who = _author(store, decider)
        values = {
            "status": status,
            "reason": reason or None,
            "decided_by": who,
            "decided_at": time.time(),
        }
        seen = which & (labels.c.status == "pending") & (labels.c.version == version)
        done = connection.execute(sa.update(labels).where(seen).values(values)).rowcount
        found = connection.execute(sa.select(labels).where(which)).first()
        if found is None:
            raise InvalidInput(f"There is no annotation {annotation}.")
        row = dict(found._mapping)
        if not done:
            gone = (
                f"was {row['status']} by {row['decided_by']}"
                if row["decided_by"]
                else f"is at version {row['version']}"
            )
            raise InvalidInput(f"Annotation {annotation} {gone}, what was seen is version {version}: look at it again.")
        _append(connection, who, status, f"annotation {annotation} version {version}", row)
    return row | ({"warning": f"{who} decided on an annotation of their own."} if row["author"] == who else {})


def mark_exported(store: Store, ids: Sequence[int]) -> int:
    """Note that approved annotations stand in the training data now; how many were approved and not yet exported."""
    with store.begin() as connection:
        if store.enforced:
            return int(
                connection.execute(
                    sa.text("SELECT mark_exported(CAST(:ids AS int[]))"), {"ids": list(ids)}
                ).scalar_one()
            )
        fresh = labels.c.id.in_(ids) & (labels.c.status == "approved") & labels.c.exported_at.is_(None)
        done = connection.execute(sa.update(labels).where(fresh).values(exported_at=time.time())).rowcount
        if done:
            _append(connection, store.person, "exported", f"{done} annotations", sorted(ids))
        return done


def add(store: Store, table: str, *, author: str | None = None, **values: Any) -> int:
    """Add a row to cases, tags, notes, flags or filters; its id."""
    with store.begin() as connection:
        done = connection.execute(sa.insert(_remark(table)).values(values | _own(store, author)))
        return int((done.inserted_primary_key or (0,))[0])


def remove(store: Store, table: str, row: int) -> None:
    """Take a row of cases, tags, notes, flags or filters away; on PostgreSQL one's own only, but for cases."""
    with store.begin() as connection:
        if not connection.execute(sa.delete(_remark(table)).where(_remark(table).c.id == row)).rowcount:
            raise InvalidInput(f"There is no row {row} in {table} that {_author(store, None)} may remove.")


def records(store: Store, query: Any, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of a query, by SQLAlchemy or as SQL with ``:name`` parameters."""
    with store.begin() as connection:
        done = connection.execute(sa.text(query) if isinstance(query, str) else query, parameters or {})
        return [dict(row) for row in done.mappings()]


def frame(store: Store, query: Any, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The rows of a query (see `records`) as a table, whose columns are there even if no row is."""
    import pandas as pd

    with store.begin() as connection:
        done = connection.execute(sa.text(query) if isinstance(query, str) else query, parameters or {})
        return pd.DataFrame([tuple(row) for row in done], columns=list(done.keys()))


def _remark(table: str) -> Table:
    if table not in REMARKS:
        raise InvalidInput(f"A remark goes into one of {', '.join(REMARKS)}, got {table!r}.")
    return REMARKS[table]


def _own(store: Store, author: str | None) -> dict[str, Any]:
    """What SQLite is told of who writes, and when; PostgreSQL knows."""
    return {} if store.enforced else {"author": _author(store, author), "created_at": time.time()}


def _author(store: Store, given: str | None) -> str:
    if not store.enforced:
        return given or store.person
    if given is not None:
        raise InvalidInput("On PostgreSQL the author is the login: an author can't be given.")
    with store.begin() as connection:
        return str(connection.execute(sa.text("SELECT session_user")).scalar_one())


# The audit chain: what roles.sql does by a trigger, done here for SQLite.


def _append(connection: sa.Connection, who: str, action: str, subject: str, content: Any) -> None:
    last = connection.execute(sa.select(audit).order_by(audit.c.number.desc()).limit(1)).first()
    row = {
        "number": last.number + 1 if last else 1,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "who": who,
        "action": action,
        "subject": subject,
        "content": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "previous": last.hash if last else "",
    }
    connection.execute(sa.insert(audit).values(**row, hash=_link(row)))


def _link(row: Mapping[str, Any] | sa.RowMapping) -> str:
    names = ("number", "at", "who", "action", "subject", "content", "previous")
    return hashlib.sha256("|".join(str(row[name]) for name in names).encode()).hexdigest()


def audit_head(store: Store) -> dict[str, Any]:
    """``number`` and ``hash`` of the newest audit row: what a report exports, so that a rewritten chain shows."""
    with store.begin() as connection:
        last = connection.execute(
            sa.select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)
        ).first()
    return dict(last._mapping) if last else {"number": 0, "hash": ""}


def audit_faults(store: Store, head: Mapping[str, Any] | None = None) -> list[str]:
    """What is wrong with the audit chain, in sentences; with a `head` exported earlier also whether it still holds that."""
    faults, previous, number, hashes = [], "", 0, {0: ""}
    with store.begin() as connection:
        for row in connection.execute(sa.select(audit).order_by(audit.c.number)).mappings():
            number += 1
            hashes[row["number"]] = row["hash"]
            if row["number"] != number or row["previous"] != previous:
                faults.append(f"before row {row['number']} something is missing")
            if _link(row) != row["hash"]:
                faults.append(f"row {row['number']} is not what was written")
            number, previous = row["number"], row["hash"]
    if head and hashes.get(head["number"]) != head["hash"]:
        faults.append(
            f"the chain no longer holds the head {head['hash'][:12]} (row {head['number']}) that was exported"
        )
    return faults


# Senders: shown as a keyed hash, and forgotten.


def sender_key(store: Store) -> bytes:
    """The key that sender ids are hashed with: ``GENESIS_REVIEW_SECRET``, else one made once beside a SQLite store."""
    if secret := get_settings().review_secret:
        return secret.get_secret_value().encode()
    if store.enforced:
        raise InvalidInput("Sender ids are hashed with a key that the store must not hold: set GENESIS_REVIEW_SECRET.")
    path = store.folder / "sender.key"
    if not path.exists():
        store.folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text().encode()


def hashed(key: bytes, sender: str) -> str:
    """A sender id as it is shown: the same person has the same one in every source."""
    return hmac.new(key, sender.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


def forget(store: Store, sender: str, *, now: float | None = None) -> int:
    """Delete the texts of a sender (given by id or as shown), in messages, labels and remarks; counts and the chain stay.

    Returns how many messages lost their text. Later ingests do not bring them back.
    """
    until = time.time() if now is None else now
    with store.begin() as connection:

        def shown(one: str) -> set[str]:
            found = (sa.select(table.c.sender).where(table.c.sender == one).limit(1) for table in (messages, sessions))
            return {name for query in found for name in connection.execute(query).scalars()}

        known, tombstone = shown(sender), sender
        if not known or len(sender) != 16 or not set(sender) <= set("0123456789abcdef"):  # it is an id, not its hash
            tombstone = hashed(sender_key(store), sender)
            known |= shown(tombstone)
        if not known:
            raise InvalidInput(
                f"No message in {store.address} is from that sender: give the id, or the hash that is shown."
            )
        return _forget(store, connection, sorted(known), tombstone, until)


def expire(store: Store, before: float) -> int:
    """Delete the texts of all messages from before a time; how many lost theirs."""
    with store.begin() as connection:
        return _forget(store, connection, None, None, before)


def _forget(
    store: Store, connection: sa.Connection, senders: Sequence[str] | None, tombstone: str | None, until: float
) -> int:
    if store.enforced:
        call = sa.text("SELECT forget(CAST(:senders AS text[]), CAST(:tombstone AS text), :until)")
        values = {"senders": senders, "tombstone": tombstone, "until": until}
        return int(connection.execute(call, values).scalar_one())
    old, ended = messages.c.timestamp <= until, sessions.c.started_at <= until
    if senders:
        old = sa.or_(old, messages.c.timestamp.is_(None)) & messages.c.sender.in_(senders)
        ended &= sessions.c.sender.in_(senders)
    theirs = old & messages.c.raw.is_not(None)
    mine, held = sa.select(messages.c.key).where(theirs), sa.select(messages.c.session).where(theirs)
    run = 0
    for source in connection.execute(sa.select(messages.c.source).where(theirs).distinct()).scalars().all():
        told = {"source": source, "started_at": time.time(), "finished_at": time.time(), "report": {"forgotten": True}}
        run = (connection.execute(sa.insert(ingests).values(told)).inserted_primary_key or (0,))[0]
    connection.execute(sa.update(labels).where(labels.c.message.in_(mine)).values(entities=None, note=None))
    connection.execute(sa.update(notes).where(notes.c.message.in_(mine) | notes.c.session.in_(held)).values(note=""))
    connection.execute(sa.update(cases).where(cases.c.message.in_(mine)).values(text="", entities=None))
    blank = {"text": None, "raw": None, "entities": None, "gold_entities": None, "events": None, "ingest": run}
    n = connection.execute(sa.update(messages).where(theirs).values(blank)).rowcount
    connection.execute(sa.update(sessions).where(ended & sessions.c.opening.is_not(None)).values(opening=None))
    if tombstone:
        connection.execute(sa.delete(forgotten).where(forgotten.c.sender == tombstone))
        connection.execute(sa.insert(forgotten).values(sender=tombstone, until=until))
    if n or tombstone:
        _append(connection, store.person, "forgotten", f"{n} messages", senders or until)
    return n


# The Parquet copy: what DuckDB reads. It stands outside row-level security, so it holds messages only, without `raw`.


def messages_parquet(store: Store, source: str) -> Path:
    """``messages.parquet`` of a source, brought up to date: the columns of `messages` but for ``raw``, lists as JSON."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.folder / source / "messages.parquet"
    kinds = {Float: pa.float64(), Boolean: pa.bool_(), Integer: pa.int64(), BigInteger: pa.int64()}
    columns = [column for column in messages.columns if column.name != "raw"]
    schema = pa.schema([(column.name, kinds.get(type(column.type), pa.string())) for column in columns])
    with store.begin() as connection:
        first = connection.execute(
            sa.select(sa.func.min(ingests.c.started_at)).where(ingests.c.source == source)
        ).scalar()
        kept = (pq.read_schema(path).metadata or {}) if path.exists() else {}
        done = int(kept[b"ingest"]) if kept.get(b"begun") == str(first).encode() else 0  # else it is another store's
        newer = (messages.c.source == source) & (messages.c.ingest > done)
        newest = connection.execute(sa.select(sa.func.max(messages.c.ingest)).where(newer)).scalar()
        if newest is None and done:
            return path
        about = {"ingest": str(newest or 0), "begun": str(first)}
        schema = schema.with_metadata(about)
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path, replace=True) as temporary:
            fresh = temporary.with_name(f".{source}.changed") if done else temporary
            query = sa.select(*(sa.type_coerce(c, Text) if isinstance(c.type, Json) else c for c in columns)).where(
                newer
            )
            with pq.ParquetWriter(fresh, schema) as writer:
                for part in connection.execution_options(yield_per=20_000).execute(query).partitions():
                    writer.write_table(
                        pa.table(
                            [pa.array(c, f.type) for c, f in zip(zip(*part, strict=True), schema, strict=True)],
                            schema=schema,
                        )
                    )
            if fresh != temporary:
                old, new, made = _reading(path), _reading(fresh), str(temporary).replace("'", "''")
                merged = f"SELECT * FROM {new} UNION ALL SELECT * FROM {old} WHERE key NOT IN (SELECT key FROM {new})"
                with duckdb.connect() as database:
                    database.execute(f"COPY ({merged}) TO '{made}' (FORMAT parquet, KV_METADATA {about})")
                fresh.unlink()
    return path


def open_messages(store: Store, sources_: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory with a view ``messages`` over the Parquet copies of these sources (all of them by default)."""
    import duckdb

    if sources_ is None:
        with store.begin() as connection:
            sources_ = connection.execute(sa.select(sources.c.name).order_by(sources.c.name)).scalars().all()
    if not (parts := [f"SELECT * FROM {_reading(messages_parquet(store, source))}" for source in sources_]):
        raise InvalidInput(f"{store.address} holds no conversations yet: read some with genesis review ingest.")
    database = duckdb.connect()
    database.execute(f"CREATE VIEW messages AS {' UNION ALL '.join(parts)}")
    return database


def _reading(path: Path) -> str:
    return "read_parquet('" + str(path).replace("'", "''") + "')"
