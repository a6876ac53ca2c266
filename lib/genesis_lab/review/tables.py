"""The tables of the review store, the same on SQLite and PostgreSQL. Times are seconds since 1970 in UTC."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
