"""Whose conversations they are: sender ids as a keyed hash, and texts that are deleted on request or by age."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.numbers import messages_parquet
from genesis_lab.review.store import Store, append
from genesis_lab.review.tables import cases, flags, forgotten, ingests, labels, messages, notes, sessions
from genesis_lab.settings import get_settings


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
    """Delete the texts of a sender, given by id or as shown, in messages, labels and remarks; counts and chain stay.

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
            none = f"No message in {store.address} is from that sender"
            raise InvalidInput(f"{none}: give the id, or the hash that is shown.")
        n = _forget(store, connection, sorted(known), tombstone, until)
    _refresh(store)
    return n


def expire(store: Store, before: float) -> int:
    """Delete the texts of all messages from before a time; how many lost theirs."""
    with store.begin() as connection:
        n = _forget(store, connection, None, None, before)
    _refresh(store)
    return n


def _refresh(store: Store) -> None:
    """Take what was deleted out of the Parquet copies of this machine; others lose it when they are opened next."""
    for copy in store.folder.glob("*/messages.parquet"):
        messages_parquet(store, copy.parent.name)


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
    for remark, blanked in ((notes, {"note": ""}), (flags, {"reason": None})):
        about = remark.c.message.in_(mine) | remark.c.session.in_(held)
        connection.execute(sa.update(remark).where(about).values(blanked))
    connection.execute(sa.update(cases).where(cases.c.message.in_(mine)).values(text="", entities=None))
    blank = {"text": None, "raw": None, "entities": None, "gold_entities": None, "events": None, "ingest": run}
    n = connection.execute(sa.update(messages).where(theirs).values(blank)).rowcount
    connection.execute(sa.update(sessions).where(ended & sessions.c.opening.is_not(None)).values(opening=None))
    if tombstone:
        connection.execute(sa.delete(forgotten).where(forgotten.c.sender == tombstone))
        connection.execute(sa.insert(forgotten).values(sender=tombstone, until=until))
    if n or tombstone:
        append(store, connection, "forgotten", f"{n} messages", senders or until)
    return n
