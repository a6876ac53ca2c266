"""The review store: what was said, what people say of it, who they are, who changed what. SQLite or PostgreSQL.

Every function takes the `Store` that `open_store` gives. On PostgreSQL the database itself decides what the login may
do and writes down who changed what (``roles.sql``); on SQLite names and roles are only declared.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from genesis_lab.dataset.curation import who
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, resolve, shown, write_error
from genesis_lab.review.tables import activity, audit, metadata
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    from pydantic import SecretStr

SCHEMA = "review"
"""Where the tables stand in PostgreSQL."""
POSTGRESQL = ("postgresql:", "postgresql+psycopg:", "postgres:")
DECLARED = (
    "SQLite: names and roles are declared, not enforced; four eyes are a warning. "
    "A team takes PostgreSQL (genesis review init-db)."
)
SQL = Path(__file__).with_name("roles.sql")
ROLES = ("viewer", "developer", "qa_analyst", "qa_lead", "admin", "ingest")


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

    @property
    def author(self) -> str:
        """Who writes: the login on PostgreSQL, else who says to sit here."""
        return str(records(self, "SELECT session_user AS login")[0]["login"]) if self.enforced else self.person

    def by(self, person: str) -> Store:
        """The store as somebody else uses it, or as it is for nobody; on PostgreSQL only a login says who writes."""
        if person and self.enforced:
            raise InvalidInput("On PostgreSQL the author is the login: an author can't be given.")
        return replace(self, person=person) if person else self

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
    person = who()
    if given.startswith(POSTGRESQL):
        engine, address = postgresql(given, settings.review_password, schema=SCHEMA)
        with said(address):
            if "messages" not in sa.inspect(engine).get_table_names(SCHEMA):
                raise InvalidInput(f"{address} holds no review store: its admin makes one, genesis review init-db.")
        folder = f"{engine.url.host}_{engine.url.port or 5432}_{engine.url.database}"
        return Store(engine, address, output_root() / "review" / folder, person)
    kind, url_like, _ = given.removeprefix("sqlite:///").partition("://")
    if url_like:
        raise InvalidInput(f"A review store is a SQLite file or postgresql://…, got {kind}://…: give one of these.")
    path = resolve(given.removeprefix("sqlite:///"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from None
    engine = sa.create_engine(f"sqlite:///{path}")
    sa.event.listen(engine, "connect", _prepare_sqlite)
    with said(shown(path)):
        metadata.create_all(engine)
    return Store(engine, shown(path), path.with_suffix(""), person)


def postgresql(url: str, password: SecretStr | None, *, schema: str) -> tuple[sa.Engine, str]:
    """An engine on a schema of PostgreSQL, and its address as it may be shown; one that holds a password is refused."""
    if find_spec("psycopg") is None:
        raise MissingDependency("psycopg", "PostgreSQL", "pip install 'genesis-lab[postgres]'")
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    told = address.set(password=None, drivername="postgresql").render_as_string()
    if address.password:
        names = "GENESIS_REVIEW_PASSWORD, GENESIS_REVIEW_SOURCE_PASSWORD or PGPASSWORD"
        raise InvalidInput(f"The address {told} holds a password: leave it out and set {names}.")
    path = schema.replace('"', '""').replace("\\", "\\\\").replace(" ", "\\ ")
    arguments = {"password": password.get_secret_value()} if password else {}
    arguments |= {"options": f'-csearch_path="{path}"', "connect_timeout": "10"}
    return sa.create_engine(address, connect_args=arguments, pool_pre_ping=True), told


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA busy_timeout = 10000")
    with suppress(sqlite3.Error):  # a file that may only be read stays as it is
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves the file too
    connection.execute("PRAGMA foreign_keys = ON")


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
    held = (
        "SELECT role FROM unnest(CAST(:roles AS text[])) AS role "
        "WHERE pg_has_role(session_user, 'review_' || role, 'MEMBER')"
    )
    name = store.author
    roles = [str(row["role"]) for row in records(store, sa.text(held).bindparams(roles=list(ROLES)))]
    if not roles:
        lacking = f"The login {name} has no role in {store.address}: an admin grants one with genesis review grant."
        return {"name": name, "roles": [], "banner": lacking}
    people = sa.select(activity.c.person).where(activity.c.author == name).distinct()
    if others := sorted({row["person"] for row in records(store, people)} - {store.person}):
        shared = f"The login {name} is shared by {', '.join([store.person, *others])}: no roles are claimed."
        return {"name": name, "roles": None, "banner": f"{shared} Each person needs a login of their own."}
    told = f"PostgreSQL login {name}, roles {', '.join(roles)}; enforced by the database."
    return {"name": name, "roles": roles, "banner": told}


def records(store: Store, query: Any) -> list[dict[str, Any]]:
    """The rows of a query, by SQLAlchemy or as SQL."""
    with store.begin() as connection:
        done = connection.execute(sa.text(query) if isinstance(query, str) else query)
        return [dict(row) for row in done.mappings()]


# Who changed what, as a chain: each row holds the SHA-256 of the one before


def append(store: Store, connection: sa.Connection, action: str, subject: str, content: Any) -> None:
    """Add to the chain; `content` is kept as its hash. On PostgreSQL a trigger has done so already."""
    if store.enforced:
        return
    last = connection.execute(sa.select(audit).order_by(audit.c.number.desc()).limit(1)).first()
    row = {
        "number": last.number + 1 if last else 1,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "who": store.person,
        "action": action,
        "subject": subject,
        "content": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "previous": last.hash if last else "",
    }
    connection.execute(sa.insert(audit).values(**row, hash=_link(row)))


def _link(row: Mapping[Any, Any]) -> str:
    return hashlib.sha256("|".join(str(row[column]) for column in audit.columns.keys()[:-1]).encode()).hexdigest()


def audit_head(store: Store) -> dict[str, Any]:
    """``number`` and ``hash`` of the newest audit row: what a report exports, so that a rewritten chain shows."""
    newest = records(store, sa.select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1))
    return newest[0] if newest else {"number": 0, "hash": ""}


def audit_faults(store: Store, head: Mapping[str, Any] | None = None) -> list[str]:
    """What is wrong with the audit chain, in sentences; with an earlier `head` also whether it still holds that."""
    rows = records(store, sa.select(audit).order_by(audit.c.number))
    hashes = {0: ""} | {row["number"]: row["hash"] for row in rows}
    faults, last = list[str](), dict[str, Any](number=0, hash="")
    for row in rows:
        if (row["number"], row["previous"]) != (last["number"] + 1, last["hash"]):
            faults.append(f"before row {row['number']} something is missing")
        if _link(row) != row["hash"]:
            faults.append(f"row {row['number']} is not what was written")
        last = row
    if head and hashes.get(head["number"]) != head["hash"]:
        was = f"{head['hash'][:12]} (row {head['number']})"
        faults.append(f"the chain no longer holds the head {was} that was exported")
    return faults


# A team's store on PostgreSQL: tables, roles and rules that the database enforces


def init_db(url: str, *, events: str | None = None) -> str:
    """Install the review store in a database, or bring its rules up to date; everything or nothing. Says what was done.

    It takes a login that may create roles and a schema; it owns nothing afterwards. `events` : a table of Rasa's in the
    same database (``schema.events``), which logins with role ingest may then read, and nothing else of it.
    """
    engine, where = postgresql(url, get_settings().review_password, schema="public")
    before, after = SQL.read_text(encoding="utf-8").split("-- :tables")
    as_it_is = {"no_parameters": True}  # several statements at once
    with said(where), engine.begin() as connection:
        connection.exec_driver_sql(before, execution_options=as_it_is)
        metadata.create_all(connection)
        connection.exec_driver_sql(f"--{after}", execution_options=as_it_is)
        if events is not None:
            schema, _, table = events.rpartition(".")
            schema = schema or "public"
            if not sa.inspect(connection).has_table(table, schema=schema):
                raise InvalidInput(f"{where} has no table {events}: give it as schema.events.")
            quote = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quote(schema)} TO review_ingest")
            connection.exec_driver_sql(f"GRANT SELECT ON {quote(schema)}.{quote(table)} TO review_ingest")
    engine.dispose()
    return f"{where} holds a review store; logins get a role with genesis review grant."


def grant(store: Store, login: str, role: str, *, revoke: bool = False) -> str:
    """Give a login of the database a role, or take it away; only an admin can. Says what is so now."""
    if not store.enforced:
        raise InvalidInput(f"{store.address} is SQLite, where roles are not enforced: a team takes PostgreSQL.")
    if role not in ROLES:
        raise InvalidInput(f"A role is one of {', '.join(ROLES)}, got {role!r}.")
    with store.begin() as connection:
        call = sa.text("SELECT set_role(:login, :role, :given)")
        connection.execute(call, {"login": login, "role": role, "given": not revoke})
    return f"{login} {'no longer is' if revoke else 'is'} {role}"
