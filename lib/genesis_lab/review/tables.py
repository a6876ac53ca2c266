"""The tables of the review store, the same on SQLite and PostgreSQL. Times are seconds since 1970 in UTC."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Identity, Index, Integer, Table, Text


class Json(sa.types.TypeDecorator[Any]):
    """A value as ASCII-escaped JSON in a text column: NUL and lone surrogates survive in either database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


def as_kept(column: Column[Any]) -> Any:
    """A column as the database has it: JSON as its text."""
    return sa.type_coerce(column, Text) if isinstance(column.type, Json) else column


def _id() -> Column[int]:
    return Column("id", Integer, Identity(always=True), primary_key=True)


def _key(name: str = "key") -> Column[str]:
    return Column(name, Text, primary_key=True)


def _texts(*names: str, empty: bool = False) -> list[Column[str]]:
    return [Column(name, Text, nullable=empty) for name in names]


def _columns(kind: Any, *names: str, empty: bool = True) -> list[Column[Any]]:
    return [Column(name, kind, nullable=empty) for name in names]


def _said_by() -> list[Column[Any]]:
    """Who wrote a row, and when: filled in here on SQLite, by the database itself on PostgreSQL (``roles.sql``)."""
    return [*_texts("author"), *_columns(Float, "created_at", empty=False)]


def _about() -> list[Column[Any]]:
    """A remark is about a message or about a whole session."""
    return [Column("message", Text, ForeignKey("messages.key"), index=True), Column("session", Text, index=True)]


metadata = sa.MetaData()
sources = Table("sources", metadata, _key("name"), *_texts("kind", "address"), *_columns(Json, "state"))
"""Where conversations come from; `state` is how far it has been read."""
ingests = Table(
    "ingests",
    metadata,
    _id(),
    Column("source", Text, nullable=False, index=True),
    *_columns(Float, "started_at", empty=False),
    *_columns(Float, "finished_at"),
    *_columns(Json, "report"),
)
"""Each run that changed something; one that ended early has no report."""
messages = Table(
    "messages",
    metadata,
    _key(),  # sha1 of source, row and content
    *_texts("source", "sender", "session"),  # the sender as shown: a keyed hash by default
    *_columns(Integer, "position", empty=False),  # number of the message in its session, from 0
    Column("timestamp", Float, index=True),
    *_texts("raw", empty=True),  # the source's JSON, ASCII-escaped; null once forgotten
    *_texts("text", empty=True),  # for display
    *_columns(Boolean, "lossy", empty=False),  # the text holds what can't be displayed: see raw
    *_columns(Boolean, "typed", "undone", empty=False),
    *_texts("intent", empty=True),  # the real prediction's full name
    *_columns(Float, "confidence"),  # of the real prediction
    *_columns(Boolean, "fallback", empty=False),
    *_columns(Json, "ranking"),  # [{name, confidence}] by full names, without the fallback; null: the source has none
    *_columns(Json, "entities"),
    *_texts("gold", empty=True),  # a person's correction in interactive learning
    *_columns(Json, "gold_entities"),
    *_texts("model", "assistant", "channel", empty=True),  # model null: the source does not say (Rasa 2)
    *_columns(Json, "actions"),  # names of those that followed
    *_columns(Json, "events"),  # what followed, in order: actions with policy, replies, slots
    *_columns(BigInteger, "event_id"),  # the row's id in the source, where it has one
    *_columns(Integer, "ingest", empty=False),  # the run that wrote it last
    Index("ix_messages_sender", "source", "sender"),
    Index("ix_messages_session", "session"),
    Index("ix_messages_ingest", "source", "ingest"),
)
sessions = Table(
    "sessions",
    metadata,
    _key(),
    *_texts("source", "sender"),
    *_columns(Integer, "number", empty=False),  # of the sender's sessions, from 1
    *_columns(Float, "started_at", "ended_at"),
    *_columns(Integer, "messages", "typed", empty=False),
    *_texts("model", "channel", empty=True),
    *_columns(Json, "opening"),  # what came before the first message
    *_columns(Integer, "ingest", empty=False),
    Index("ix_sessions_sender", "source", "sender"),
)
ingest_errors = Table(
    "ingest_errors",
    metadata,
    _key(),
    Column("source", Text, nullable=False, index=True),
    *_columns(BigInteger, "event_id"),
    *_texts("reason"),
    *_columns(Integer, "ingest", empty=False),
)
forgotten = Table("forgotten", metadata, _key("sender"), *_columns(Float, "until", empty=False))
"""Whose texts must not come back with the next ingest, by the keyed hash of their id, whatever is shown."""
_PENDING = sa.text("status = 'pending'")
labels = Table(
    "annotations",
    metadata,
    _id(),
    Column("message", Text, ForeignKey("messages.key"), nullable=False, index=True),
    *_texts("intent", empty=True),
    *_columns(Json, "entities"),
    *_texts("note", empty=True),
    *_said_by(),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("version", Integer, nullable=False, server_default="1"),
    *_texts("reason", "decided_by", empty=True),
    *_columns(Float, "decided_at", "exported_at"),
    sa.CheckConstraint("status IN ('pending', 'approved', 'rejected')", name="known_status"),
    sa.CheckConstraint("(status = 'pending') = (decided_by IS NULL)", name="decided_by_somebody"),
    Index("one_pending_each", "message", "author", unique=True, sqlite_where=_PENDING, postgresql_where=_PENDING),
)
cases = Table(
    "cases",
    metadata,
    _id(),
    *_texts("text", "intent"),
    *_columns(Json, "entities"),
    Column("min_confidence", Float, nullable=False, server_default="0.7"),
    Column("message", Text, ForeignKey("messages.key")),
    *_said_by(),
)
tags = Table("tags", metadata, _id(), *_about(), *_texts("tag"), *_said_by())
notes = Table("notes", metadata, _id(), *_about(), *_texts("note"), *_said_by())
flags = Table("flags", metadata, _id(), *_about(), *_texts("reason", empty=True), *_said_by())
filters = Table("filters", metadata, _id(), *_texts("name"), *_columns(Json, "filter", empty=False), *_said_by())
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    *_texts("at", "who", "action", "subject", "content", "previous", "hash"),
)
"""Who changed what; `content` is the SHA-256 of what was written, never a text; a row is chained to the one before."""
activity = Table(
    "activity",
    metadata,
    _id(),
    *_texts("person", "action"),
    *_texts("message", empty=True),
    *_columns(Float, "seconds"),
    *_said_by(),
)
"""What people did and how long it took; `person` is who says to sit there, `author` the login."""
REMARKS = {table.name: table for table in (cases, tags, notes, flags, filters)}
