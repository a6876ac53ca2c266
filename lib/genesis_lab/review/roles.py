"""A team's review store on PostgreSQL: tables, roles and rules that the database enforces (``roles.sql``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.store import ROLES, Store, postgresql, said
from genesis_lab.review.tables import metadata
from genesis_lab.settings import get_settings

SQL = Path(__file__).with_name("roles.sql")


def init_db(url: str, *, events: str | None = None) -> str:
    """Install the review store in a database, or bring its rules up to date; everything or nothing. Says what was done.

    It takes a login that may create roles and a schema; it owns nothing afterwards. `events` : a table of Rasa's in the
    same database (``schema.events``), which logins with role ingest may then read, and nothing else of it.
    """
    engine, where = postgresql(url, get_settings().review_password, schema="public")
    before, after = SQL.read_text(encoding="utf-8").split("-- :tables")
    with said(where), engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        _run(driver, before)
        metadata.create_all(connection)
        _run(driver, "--" + after)
        if events is not None:
            schema, _, table = events.rpartition(".")
            quote = connection.dialect.identifier_preparer.quote
            if not sa.inspect(connection).has_table(table, schema=schema or "public"):
                raise InvalidInput(f"{where} has no table {events}: give it as schema.events.")
            _run(driver, f"GRANT USAGE ON SCHEMA {quote(schema or 'public')} TO review_ingest")
            _run(driver, f"GRANT SELECT ON {quote(schema or 'public')}.{quote(table)} TO review_ingest")
    engine.dispose()
    return f"{where} holds a review store; logins get a role with genesis review grant."


def _run(driver: Any, sql: str) -> None:
    """Several statements at once, which the driver takes as they are."""
    import psycopg

    try:
        driver.execute(sql)
    except psycopg.Error as error:
        raise InvalidInput(f"The database refuses: {str(error).partition(chr(10))[0]}.") from error


def grant(store: Store, login: str, role: str, *, revoke: bool = False) -> str:
    """Give a login of the database a role, or take it away; only an admin can. Says what is so now."""
    if not store.enforced:
        raise InvalidInput(f"{store.address} is SQLite, where roles are not enforced: a team takes PostgreSQL.")
    if role not in ROLES:
        raise InvalidInput(f"A role is one of {', '.join(ROLES)}, got {role!r}.")
    with store.begin() as connection:
        connection.execute(
            sa.text("SELECT set_role(:login, :role, :given)"), {"login": login, "role": role, "given": not revoke}
        )
    return f"{login} {'no longer is' if revoke else 'is'} {role}"
