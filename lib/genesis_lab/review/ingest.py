"""From a source into the review store: what is new only, each sender as a whole, in batches that are there or not.

The unit that is written is the message. Whoever has a new row is read again from their first one, so that order,
sessions and corrections are right whatever came late; only what differs from the store is written.
"""

from __future__ import annotations

import gc
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review import tables
from genesis_lab.review.events import Conversation, as_json, conversation, displayed
from genesis_lab.review.forgetting import expire, hashed, sender_key
from genesis_lab.review.numbers import messages_parquet
from genesis_lab.review.sources import Source, open_source
from genesis_lab.review.store import Store
from genesis_lab.review.tables import as_kept

BATCH = 20_000
"""Rows that are read at once and whose messages are written in one transaction."""
OVERLAP = 2_000
"""Ids below the highest one read that are looked at again: PostgreSQL commits out of order, SQLite gives ids anew."""
FOLLOWS = ("session", "position", "undone", "gold", "gold_entities", "actions", "events")
"""Columns of a message that later rows may change; everything else is what its own row says."""


def ingest(
    store: Store,
    address: str,
    *,
    name: str | None = None,
    schema: str | None = None,
    conversations: Sequence[str] = (),
    fields: Mapping[str, str] | None = None,
    gap_minutes: float = 60,
    hash_senders: bool | None = None,
    retention_days: float | None = None,
    full: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Read what is new in a source (see `open_source`) into the store.

    Parameters
    ----------
    name : of the source in the store (default: that of the file, database or server).
    gap_minutes : silence before a message that begins a session in trackers that never expire; 0 for none.
    hash_senders : show sender ids as a keyed hash (default: as the source was begun with, else yes).
    retention_days : delete the texts of messages older than this.
    full : look at every row again.

    Returns
    -------
    The report, which accounts for every row: see `report_table`. A run that finds nothing new writes nothing.
    """
    started = time.time()
    opened = open_source(address, schema=schema, conversations=conversations, fields=fields)
    with opened as source, ExitStack() as after:
        if gc.isenabled():  # nothing here holds cycles; to look for some takes a fifth of the time
            gc.disable()
            after.callback(gc.enable)
        run = _Run(store, source, name, hash_senders)
        by_sender, new, known = run.to_read(full)
        total, done = sum(map(len, by_sender.values())), 0
        kinds: Counter[str] = Counter({"broken row": len(source.errors)} if source.errors else {})
        for part in run.conversations(by_sender, gap_minutes * 60):
            for ids, found in part:
                told = zip_longest(ids, found.kinds, fillvalue="gone while it was read")
                kinds.update(kind for number, kind in told if new is None or number in new)
                done += len(ids)
            run.write([found for _, found in part])
            on_progress(done, total)
        if source.errors:
            run.write([Conversation(errors=[(n, why, f"{run.name}\0{n}\0{why}") for n, why in source.errors])])
        report = {
            "source": run.name,
            "kind": source.kind,
            "address": source.address,
            "rows": known + kinds.total(),
            "known": known,
            "kinds": dict(sorted(kinds.items())),
            "written": dict(run.written),
            "notes": run.notes,
        }
        run.finish(report, started, read=total > 0)
    if retention_days is not None:
        report["expired"] = expire(store, started - retention_days * 86_400)
    if run.id or report.get("expired"):
        messages_parquet(store, run.name)
    return report | {"seconds": round(time.time() - started, 2)}


def report_table(report: Mapping[str, Any]) -> str:
    """A report of `ingest` as people read it: every row of the source, what was written, what to know."""
    rows = report["kinds"] | {"read by an earlier run": report["known"], "rows in the source": report["rows"]}
    rows |= {f"written: {what}": n for what, n in report["written"].items()}
    rows |= {"texts past their retention deleted": report["expired"]} if "expired" in report else {}
    lines = [f"{report['source']}: {report['kind']} {report['address']}, {report['seconds']} s"]
    lines += [f"  {what:<60} {n:>11,}" for what, n in rows.items()]
    return "\n".join([*lines, *(f"  ! {note}" for note in report["notes"])])


class _Run:
    """One run on one source: what it knows from the runs before, what it has written (nothing while `id` is None)."""

    def __init__(self, store: Store, source: Source, given: str | None, hash_senders: bool | None) -> None:
        self.store, self.source, self.name, self.notes = store, source, _name(given, source), source.notes
        self.id: int | None = None
        self.written: Counter[str] = Counter({"new messages": 0, "changed messages": 0, "sessions": 0})
        self.key, self.equal_times = sender_key(store), 0
        # Read up to there, by this run or an earlier one: the highest id, how many rows, the last ids of them.
        self.upto: int | None = None
        self.rows, self.newest = 0, set[int]()
        check = hashed(self.key, "check")
        with store.begin() as connection:
            ours = sa.select(tables.sources).where(tables.sources.c.name == self.name)
            kept = connection.execute(ours).mappings().first()
            self.forgotten = {row.sender: row.until for row in connection.execute(sa.select(tables.forgotten))}
        place = hashlib.sha1(source.place.encode()).hexdigest()[:12]
        fresh = {"hashed": hash_senders is not False, "check": check, "generation": 1, "place": place}
        self.before: dict[str, Any] = dict(kept["state"]) if kept else {}
        self.state = dict(self.before or fresh)
        if kept and given is None and self.state["place"] != place:
            other = f"The store has another source {self.name}, {kept['address']}"
            raise InvalidInput(f"{other}: give this one a name (--name), or the same if it has moved.")
        self.state["place"] = place
        if hash_senders not in (None, self.state["hashed"]):
            was = "hashed" if self.state["hashed"] else "as they are"
            raise InvalidInput(f"{self.name} was begun with sender ids {was}: go on so, or give another --name.")
        if self.state["check"] != check:
            other = "was read with another GENESIS_REVIEW_SECRET"
            raise InvalidInput(f"{self.name} {other}: set that one, or senders fall apart.")

    def to_read(self, full: bool) -> tuple[dict[str, list[int]], set[int] | None, int]:
        """Row ids by sender, in order of their first; which of them are new (None: all); how many others are known."""
        source, upto = self.source, self.state.get("upto")
        if upto is not None and not full:
            recent = list(source.ids(after=upto - OVERLAP))
            window = {int(number): digest for number, digest in self.state["window"].items()}
            below = {number for number, _ in recent if number <= upto}
            other = [n for n, digest in self._digests(below & window.keys()).items() if window[n] != digest]
            late, count = below - window.keys(), source.ask(f"SELECT count(*) FROM events WHERE id <= {upto}")[0][0]
            gone = self.state["rows"] + len(late) - count
            if other or (window and not below & window.keys()):
                self.state["generation"] += 1
                why = f"{len(other)} ids hold other rows than before" if other else "The ids read last are gone"
                what = f"generation {self.state['generation']} of the source, read from its first row"
                self.notes.append(f"{why}: {what}; what was read before is kept.")
            elif gone < 0:
                self.notes.append(f"{-gone:,} rows came in late, far below what was read: everything was read again.")
            else:
                if gone:
                    self.notes.append(f"{gone:,} rows are gone from the source; what was read of them is kept.")
                new = late | {number for number, _ in recent if number > upto}
                self.upto, self.rows = max([*new, upto]), count - len(late) + len(new)
                self.newest = (below & window.keys()) | new
                senders = sorted({sender for number, sender in recent if number in new})
                return _by_sender(source.ids_of(senders) if senders else []), new, count - len(late)
        self.state = {name: kept for name, kept in self.state.items() if name not in ("upto", "rows", "window")}
        by_sender = _by_sender(source.ids())
        self.rows = sum(map(len, by_sender.values()))
        if by_sender:
            self.upto = top = max(ids[-1] for ids in by_sender.values())
            self.newest = {number for ids in by_sender.values() for number in ids if number > top - OVERLAP}
        return by_sender, None, 0

    def conversations(
        self, by_sender: Mapping[str, list[int]], gap_s: float
    ) -> Iterator[list[tuple[list[int], Conversation]]]:
        """Whole conversations with the ids of their rows, as many at a time as one transaction writes."""
        size, chunks = 0, dict[int, list[tuple[str, list[int]]]]()
        for sender, ids in by_sender.items():  # a transaction has about `BATCH` rows
            chunks.setdefault((size := size + len(ids)) // BATCH, []).append((sender, ids))
        for senders in chunks.values():
            wanted = sorted(number for _, ids in senders for number in ids)
            rows = {row[0]: row for some in _parts(wanted) for row in self.source.rows(some)}
            part = []
            for sender, ids in senders:
                there = [number for number in ids if number in rows]
                shown = hashed(self.key, sender) if self.state["hashed"] else str(displayed(sender)[0])
                theirs, numbered = [rows.pop(number) for number in there], self.source.numbered
                found = conversation(self.name, shown, theirs, gap_s=gap_s, numbered=numbered)
                self.equal_times += found.equal_times
                self._blank(sender, found)
                part.append((there + (sorted({*ids} - {*there}) if len(there) < len(ids) else []), found))
            yield part

    def write(self, part: Sequence[Conversation]) -> None:
        """Write what differs from the store of these conversations, in one transaction."""
        sessions = [session for found in part for session in found.sessions]
        with self.store.begin() as connection:
            messages = [message for found in part for message in found.messages]
            self._upsert(connection, tables.messages, messages, FOLLOWS)
            self._upsert(connection, tables.sessions, sessions, _SESSION)
            self._tidy(connection, sessions)
            errors = []
            for number, reason, key in (error for found in part for error in found.errors):
                digest = hashlib.sha1(key.encode("utf-8", "replace")).hexdigest()
                told = {"event_id": number, "reason": displayed(reason)[0]}
                errors.append({"key": digest, "source": self.name, **told})
            self._upsert(connection, tables.ingest_errors, errors, ())

    def finish(self, report: dict[str, Any], started: float, *, read: bool) -> None:
        """Keep how far the source was read, and the report, if anything came of it."""
        if self.equal_times:
            said = f"Most time stamps of {self.equal_times:,} senders are equal in the table"
            self.notes.append(f"{said}, as MySQL's FLOAT leaves them: order goes by id, times by the events' own data.")
        if self.source.numbered and read:
            digests = self._digests(number for number in self.newest if number > (self.upto or 0) - OVERLAP)
            self.state |= {"upto": self.upto, "rows": self.rows, "window": {str(n): d for n, d in digests.items()}}
        if self.id is None and self.state == self.before:
            return
        with self.store.begin() as connection:
            if self.written["new messages"]:
                self._note_twice(connection)
            done = {"finished_at": time.time(), "report": report | {"seconds": round(time.time() - started, 2)}}
            connection.execute(
                sa.update(tables.ingests).where(tables.ingests.c.id == self._begun(connection)).values(done)
            )
            ours = sa.update(tables.sources).where(tables.sources.c.name == self.name)
            connection.execute(ours.values(kind=self.source.kind, address=self.source.address, state=self.state))

    def _note_twice(self, connection: sa.Connection) -> None:
        """Say so if another source holds the same messages, as a bot's tracker store and its event broker do."""
        ours, theirs = tables.messages, tables.messages.alias()
        new = (ours.c.source == self.name) & (ours.c.ingest == self.id)
        some = sa.select(ours.c.timestamp).where(new).limit(1_000).subquery()
        same = (theirs.c.timestamp == some.c.timestamp) & (theirs.c.source != self.name)
        also = sa.select(theirs.c.source, sa.func.count()).join_from(some, theirs, same).group_by(theirs.c.source)
        what = "has the same messages, by their times: every number counts them twice"
        found, few = connection.execute(also).all(), min(self.written["new messages"], 1_000) / 2
        self.notes += [f"Source {source} {what}." for source, n in found if n > few]

    def _begun(self, connection: sa.Connection) -> int:
        """The number of this run, whose first change begins it; a source that is new is in the store from then on."""
        if self.id is None:
            if not self.before:
                told = {"kind": self.source.kind, "address": self.source.address, "state": self.state}
                connection.execute(sa.insert(tables.sources).values(told | {"name": self.name}))
            made = connection.execute(sa.insert(tables.ingests).values(source=self.name, started_at=time.time()))
            self.id = int((made.inserted_primary_key or (0,))[0])
        return self.id

    def _digests(self, ids: Iterable[int]) -> dict[int, str]:
        """What rows hold, so that the next run sees whether they are the same."""
        rows = ((row[0], repr(row[3]).encode("utf-8", "replace")) for row in self.source.rows(sorted(ids)))
        return {number: hashlib.sha1(data).hexdigest()[:12] for number, data in rows}

    def _blank(self, sender: str, found: Conversation) -> None:
        """What is forgotten does not come back."""
        until = self.forgotten.get(hashed(self.key, sender)) if self.forgotten else None
        if until is None:
            return
        for message in found.messages:
            if message["timestamp"] is None or message["timestamp"] <= until:
                message |= dict.fromkeys(("text", "raw", "entities", "events", "gold_entities"))
        for session in found.sessions:
            if session["started_at"] is None or session["started_at"] <= until:
                session["opening"] = None

    def _upsert(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], follows: Sequence[str]
    ) -> None:
        """Insert rows by their key; of those that are there change the columns that follow, where they differ."""
        if not rows:
            return
        known: dict[str, list[Any]] = {}
        for some in _parts([row["key"] for row in rows] if self.before else []):
            columns = [table.c.key, *(as_kept(table.c[name]) for name in follows)]
            columns += [table.c.raw.is_(None)] if "raw" in table.c else []
            chosen = sa.select(*columns).where(table.c.key.in_(some))
            known |= {key: values for key, *values in connection.execute(chosen)}
        new, changed = [], []
        json_columns = [column.name for column in table.columns if isinstance(column.type, tables.Json)]
        for row in {row["key"]: row for row in rows}.values():
            row |= {name: as_json(row[name]) if row[name] else "[]" for name in json_columns if row[name] is not None}
            before = known.get(row["key"])
            if before is None:
                new.append(row)
                continue
            if "raw" in table.c and before.pop():
                row |= {"events": None, "gold_entities": None}  # forgotten since
            elif "opening" in follows and before[follows.index("opening")] is None:
                row["opening"] = None
            if before != [row[name] for name in follows]:
                changed.append(row)
        if new or changed:
            run = self._begun(connection)
            _put(connection, table, [row | {"ingest": run} for row in new + changed], follows)
        wrote = {table.name.replace("_", " "): len(new) + len(changed)}
        apart = {"new messages": len(new), "changed messages": len(changed)}
        self.written.update(apart if table is tables.messages else wrote)

    def _tidy(self, connection: sa.Connection, sessions: Sequence[dict[str, Any]]) -> None:
        """Take sessions away that late rows have joined to others."""
        if not self.before:
            return
        now = {session["key"] for session in sessions}
        since = {session["sender"]: session["started_at"] or 0.0 for session in reversed(sessions)}
        kept = tables.sessions.c
        held = sa.exists().where(tables.messages.c.session == kept.key)
        for some in _parts(sorted(since)):
            theirs = (kept.source == self.name) & kept.sender.in_(some) & ~held
            rows = connection.execute(sa.select(kept.key, kept.sender, kept.started_at).where(theirs))
            stale = [row.key for row in rows if row.key not in now and (row.started_at or 0.0) >= since[row.sender]]
            for keys in _parts(stale):
                connection.execute(sa.delete(tables.sessions).where(kept.key.in_(keys)))


_SESSION = ("number", "started_at", "ended_at", "messages", "typed", "model", "channel", "opening")


def _put(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], follows: Sequence[str]) -> None:
    """Many rows at once, by the driver itself: `executemany` in SQLite, COPY in PostgreSQL."""
    names = [column.name for column in table.columns]
    listed = ", ".join(f'"{name}"' for name in names)
    values = map(itemgetter(*names), rows)
    setting = ", ".join(f'"{name}" = excluded."{name}"' for name in (*follows, "ingest"))
    conflict = f"ON CONFLICT (key) DO UPDATE SET {setting}" if follows else "ON CONFLICT (key) DO NOTHING"
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({listed}) VALUES ({marks}) {conflict}", list(values))
        return
    incoming = f"incoming_{table.name}"
    connection.exec_driver_sql(f"CREATE TEMP TABLE {incoming} (LIKE {table.name}) ON COMMIT DROP")
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {incoming} ({listed}) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {incoming} {conflict}")


def _name(given: str | None, source: Source) -> str:
    """The name of a source: a folder's name too, so of letters, digits, dots, - and _."""
    place, of_schema, schema = source.address.partition("?")[0].partition(", schema ")
    stem = re.sub(r"\.\w+$", "", place.rpartition("/")[2])
    name = given or re.sub(r"[^\w.-]+", "_", f"{stem}_{schema}" if of_schema else stem)
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise InvalidInput(f"A source's name is of letters, digits, dots, - and _, got {name!r}: give one with --name.")
    return name


def _by_sender(rows: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, sender in rows:
        found.setdefault(sender, []).append(number)
    return found


def _parts(values: Sequence[Any], size: int = 5_000) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
