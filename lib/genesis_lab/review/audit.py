"""Who changed what, as a chain: each row holds the SHA-256 of the one before. On PostgreSQL a trigger writes it (``roles.sql``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from genesis_lab.review.store import Store
from genesis_lab.review.tables import audit


def append(connection: sa.Connection, who: str, action: str, subject: str, content: Any) -> None:
    """Add to the chain of a SQLite store; `content` is kept as its hash."""
    last = connection.execute(sa.select(audit).order_by(audit.c.number.desc()).limit(1)).first()
    written = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    row = {"number": last.number + 1 if last else 1, "at": at, "who": who, "action": action, "subject": subject,
           "content": written, "previous": last.hash if last else ""}  # fmt: skip
    connection.execute(sa.insert(audit).values(**row, hash=_link(row)))


def _link(row: Mapping[Any, Any]) -> str:
    return hashlib.sha256("|".join(str(row[column]) for column in audit.columns.keys()[:-1]).encode()).hexdigest()


def audit_head(store: Store) -> dict[str, Any]:
    """``number`` and ``hash`` of the newest audit row: what a report exports, so that a rewritten chain shows."""
    newest = sa.select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)
    with store.begin() as connection:
        last = connection.execute(newest).first()
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
        was = f"{head['hash'][:12]} (row {head['number']})"
        faults.append(f"the chain no longer holds the head {was} that was exported")
    return faults
