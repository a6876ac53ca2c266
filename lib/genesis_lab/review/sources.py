"""Where conversations come from, read only: Rasa's two kinds of `events` tables, event lines, trackers, chats."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import sqlalchemy as sa

from genesis_lab.dataset.sources import locate, read_rows
from genesis_lab.domains.conversations.record import role_of
from genesis_lab.domains.foreign import lookup
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import shown
from genesis_lab.review.store import POSTGRESQL, postgresql
from genesis_lab.settings import get_settings
from genesis_lab.yamls import shipped

TRACKER = {"id", "sender_id", "type_name", "timestamp", "data"}
BROKER = {"id", "sender_id", "data"}
PAGE = 50_000
CHATS = Path(__file__).with_name("chats.yaml")
REFUSALS = Path(__file__).with_name("refusals.yaml")
_SQLITE = b"SQLite format 3\0"
Found = tuple[int, Mapping[str, Any] | None, str | None]
"""Something read: its number, the JSON object, and why there is none."""


@dataclass
class Source:
    """An open source: a table `events` in a database, with how it is asked.

    `address` is how it is shown, `place` the full one; `columns` and `among` are parts of SQL: what to select, and "one
    of these". `numbered`: ids say something, so that it can be read on from there. `errors`: what could not become a
    row.
    """

    kind: str
    address: str
    place: str
    ask: Callable[..., list[tuple[Any, ...]]]
    columns: str
    among: str = "IN (SELECT value FROM json_each(?))"
    numbered: bool = True
    notes: list[str] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)

    def ids(self, after: int | None = None) -> Iterator[tuple[int, str]]:
        """Id and sender of each row in their order, after an id only; a page at a time, so that no writer waits."""
        page = [(0, "")] * PAGE
        while len(page) == PAGE:
            where = "" if after is None else f" WHERE id > {after}"
            page = self.ask(f"SELECT id, coalesce(sender_id, '') FROM events{where} ORDER BY id LIMIT {PAGE}")
            if len({number for number, _ in page}) < len(page):
                why = "its table events gives several rows one id: it is damaged, or put together from several"
                raise InvalidInput(f"{self.address} can't be read: {why}.")
            yield from page
            after = page[-1][0] if page else None

    def ids_of(self, senders: Sequence[str]) -> list[tuple[int, str]]:
        """Id and sender of each row of these senders."""
        where = f"coalesce(sender_id, '') {self.among}" if "" in senders else f"sender_id {self.among}"
        return self.ask(f"SELECT id, coalesce(sender_id, '') FROM events WHERE {where} ORDER BY id", [*senders])

    def rows(self, ids: Sequence[int]) -> list[tuple[int, str | None, float | None, str | None]]:
        """Id, type, time stamp and data of these rows."""
        return self.ask(f"SELECT {self.columns} FROM events WHERE id {self.among} ORDER BY id", [*ids])


@contextmanager
def open_source(
    address: str,
    *,
    schema: str | None = None,
    conversations: Sequence[str] = (),
    fields: Mapping[str, str] | None = None,
) -> Iterator[Source]:
    """Open conversations for reading.

    Parameters
    ----------
    address : a SQLite file, ``postgresql://user@host/database``, a file of JSON lines or JSON (events of an event
        broker, trackers, chats of other systems), or the address of a Rasa server.
    schema : of the table `events` in PostgreSQL (Rasa's ``POSTGRESQL_SCHEMA``).
    conversations : whose trackers to ask a Rasa server for.
    fields : where chats of other systems keep ``messages``, ``speaker``, ``text``, ``time`` and ``sender``.

    Raises
    ------
    InvalidInput : there is no table of Rasa's, or nothing that can be read.
    Unavailable : the database or server can't be reached, or goes away.
    """
    if wrong := set(fields or {}) - set(shipped(CHATS)):
        raise InvalidInput(f"A chat has no field {min(wrong)!r}: say where {', '.join(shipped(CHATS))} are.")
    if address.startswith(POSTGRESQL):
        with _open_postgresql(address, schema) as source:
            yield source
    elif address.startswith(("http://", "https://")):
        server = f"{urlsplit(address).scheme}://{urlsplit(address).netloc}"
        yield _spooled("tracker of a server", server, server, _from_server(address, conversations), {})
    elif "://" in address.removeprefix("sqlite:///"):
        known, kind = "a file, postgresql:// or a Rasa server's http(s)://", address.partition("://")[0]
        raise InvalidInput(f"Conversations come from {known}, got {kind}://.")
    else:
        path = locate(address.removeprefix("sqlite:///"))
        if path.is_dir():
            raise InvalidInput(f"{shown(path)} is a folder: give a SQLite file, or a file of JSON or JSON lines.")
        with path.open("rb") as file:
            is_sqlite = file.read(len(_SQLITE)) == _SQLITE
        if is_sqlite:
            with _open_sqlite(path) as source:
                yield source
        elif path.suffix.lower() not in (".json", ".jsonl", ".ndjson"):
            raise InvalidInput(f"{path.name} is no SQLite database: expected one, or a file ending in .json or .jsonl.")
        else:
            rows = ((row.number, row.value, row.problem) for row in read_rows(path))
            yield _spooled("lines", shown(path), str(path.resolve()), rows, fields or {})


def _opened(
    system: str, name: str, place: str, ask: Callable[..., Any], tables: str, columns: str, **how: Any
) -> Source:
    """What a database is and how it is asked; refuses one that has no table of Rasa's."""
    held = {column: str(kind).upper() for column, kind in ask(columns)}
    if not held.keys() >= BROKER:
        there = ", ".join(row[0] for row in ask(tables)) or "no tables"
        found = f"one whose columns are {', '.join(held)}" if held else f"none among {there}"
        due = "a table events with at least id, sender_id, data"
        raise InvalidInput(f"{name} holds no events of Rasa: expected {due}, found {found}.")
    kind, first = ("tracker store", "type_name, timestamp") if {*held} >= TRACKER else ("event broker", "NULL, NULL")
    is_json = "JSON" in held["data"]
    data = "data::text" if is_json and system == "PostgreSQL" else "data"
    source = Source(f"{system} {kind}", name, place, ask, f"id, {first}, {data}", **how)
    source.notes += [_JSONB.format(held["data"])] if is_json else []
    return source


@contextmanager
def _open_sqlite(path: Path) -> Iterator[Source]:
    name, notes = shown(path), []
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=30)
    try:
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.OperationalError:  # a journal that can't be made beside a file in a read-only folder
            connection.close()
            connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
            notes.append("The file's folder is read-only: what is still in its journal could not be read.")
        except sqlite3.DatabaseError as error:
            raise _gone(name, error) from None
        tables = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        columns, ask = "SELECT name, type FROM pragma_table_info('events')", _asking(connection, name)
        yield _opened("SQLite", name, str(path.resolve()), ask, tables, columns, notes=notes)
    finally:
        connection.close()


def _asking(connection: sqlite3.Connection, name: str) -> Callable[..., list[tuple[Any, ...]]]:
    """How SQLite is asked; the values to be among go as one JSON list, however many they are."""

    def ask(sql: str, among: list[Any] | None = None) -> list[tuple[Any, ...]]:
        parameters = () if among is None else (json.dumps(among),)
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            if "decode to UTF-8" not in str(error):
                raise _gone(name, error) from None
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            return connection.execute(sql, parameters).fetchall()

    return ask


@contextmanager
def _open_postgresql(address: str, schema: str | None) -> Iterator[Source]:
    import psycopg

    engine, name = postgresql(address, get_settings().review_source_password, schema=schema or "public")
    name += f", schema {schema}" if schema else ""
    try:
        with engine.connect() as opened:
            connection: Any = opened.connection.driver_connection
            connection.rollback()
            connection.read_only = True

            def ask(sql: str, among: list[Any] | None = None) -> list[tuple[Any, ...]]:
                try:
                    found = connection.execute(sql, None if among is None else (among,), prepare=False).fetchall()
                    connection.rollback()
                    return list(found)
                except psycopg.Error as error:
                    opened.invalidate()
                    raise _gone(name, error) from None

            tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            held = "WHERE attrelid = to_regclass('events') AND attnum > 0 AND NOT attisdropped"
            columns = f"SELECT attname, format_type(atttypid, NULL) FROM pg_attribute {held}"
            yield _opened("PostgreSQL", name, name, ask, tables, columns, among="= ANY(%s)")
    except sa.exc.OperationalError as error:
        raise _gone(name, error.orig or error) from None
    finally:
        engine.dispose()


_JSONB = (
    "events.data is {}: Rasa's own reader fails on it from a conversation's second turn on, so that every message "
    "starts from an empty tracker and events go missing. It was read; change the column back to TEXT."
)


def _gone(name: str, error: Exception) -> Unavailable:
    why = f"{name} can't be read ({' '.join(str(error).split())[:200]})"
    return Unavailable(f"{why}: what is whole is kept; run it again.")


# What has no table becomes one, in a database of its own that goes with the connection.


def _spooled(kind: str, address: str, place: str, rows: Iterable[Found], fields: Mapping[str, str]) -> Source:
    connection = sqlite3.connect("")
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, sender_id TEXT, data TEXT)")
    errors: list[tuple[int, str]] = []
    kinds: dict[str, None] = {}

    def events() -> Iterator[tuple[str, str]]:
        for number, value, problem in rows:
            if value is None:
                errors.append((number, problem or "there is nothing"))
                continue
            known, found = _events_in(value, number, fields)
            if not found:
                errors.append((number, "it holds neither an event, nor a tracker with events, nor a chat with turns"))
            kinds[known] = None
            for sender, event in found:
                yield sender.encode("utf-8", "replace").decode(), json.dumps(event)

    connection.executemany("INSERT INTO events (sender_id, data) VALUES (?, ?)", events())
    connection.execute("CREATE INDEX by_sender ON events (sender_id)")

    told = f"{kind}: {' and '.join(kinds)}" if kinds else kind
    return Source(
        told, address, place, _asking(connection, address), "id, NULL, NULL, data", numbered=False, errors=errors
    )


def _events_in(
    value: Mapping[str, Any], number: int, fields: Mapping[str, str]
) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """What a JSON object is, and the sender and event of all events in it."""
    if isinstance(events := value.get("events"), list):
        sender = str(value.get("sender_id") or "unknown")
        known = (event if isinstance(event, dict) else {"event": "unknown", "value": event} for event in events)
        return "trackers", [(sender, event) for event in known]
    if isinstance(value.get("event"), str):
        return "events", [(str(value.get("sender_id") or "unknown"), value)]
    return "chats", list(_chat(value, number, fields))


def _chat(value: Mapping[str, Any], number: int, fields: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The turns of a chat of another system, or the one turn of a row, as events of a user, a bot or somebody else."""
    whole = isinstance(turns := _first(value, fields, "messages"), list)
    sender, begun = _first(value, fields, "sender"), _seconds(_first(value, fields, "time"))
    for place, turn in enumerate(turns if whole else [value]):
        text = _first(turn, fields, "text") if isinstance(turn, dict) else None
        if isinstance(text, list):  # parts, as chat models have them
            parts = [part.get("text") for part in text if isinstance(part, dict)]
            text = "\n".join(part for part in parts if isinstance(part, str))
        if not isinstance(text, str):
            continue
        speaker, at = _first(turn, fields, "speaker"), _seconds(_first(turn, fields, "time"))
        event: dict[str, Any] = {"event": "bot", "text": text, "timestamp": begun if at is None else at}
        event |= {"chat": number, "turn": place} if whole else {} if at is not None else {"row": number}
        if speaker is None or (role := role_of(speaker)) == "customer":
            event |= {"event": "user", "input_channel": value.get("channel")}
            if isinstance(intent := turn.get("intent"), str):
                event["parse_data"] = {"intent": {"name": intent, "confidence": turn.get("confidence")}}
        elif role is None:
            event["event"] = "another speaker"
        yield str(sender if sender is not None else f"chat {number}"), event


def _first(value: Mapping[str, Any], fields: Mapping[str, str], name: str) -> Any:
    """The value where the fields say, else under the first usual name that has one."""
    if name in fields:
        return lookup(value, fields[name])
    return next((value[key] for key in shipped(CHATS)[name] if value.get(key) is not None), None)


def _seconds(value: Any) -> float | None:
    """A moment in seconds since 1970: a number (milliseconds are recognized) or ISO 8601, UTC where it says no zone."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 1000 if value > 1e11 else float(value)


def _from_server(address: str, conversations: Sequence[str]) -> Iterator[Found]:
    """The trackers of these conversations from a Rasa server, whole: ``GET /conversations/{id}/tracker``."""
    base = address.partition("?")[0].rstrip("/")
    with rasa_server(base) as ask:
        if not conversations and not base.endswith("/tracker"):
            raise InvalidInput("A Rasa server does not list its conversations: name those to read (--conversation).")
        paths = [f"/conversations/{quote(one, safe='')}/tracker" for one in conversations] or [""]
        for number, path in enumerate(paths, 1):
            answer = ask("GET", path, params={"include_events": "ALL"})
            tracker = None
            with suppress(ValueError):
                tracker = answer.json()
            yield number, tracker if isinstance(tracker, dict) else None, "the answer is no tracker"


@contextmanager
def rasa_server(address: str, *, timeout_s: float | None = 60) -> Iterator[Callable[..., Any]]:
    """What asks a Rasa server: called with method, path and httpx's options it answers, or `Unavailable` says why not.

    ``GENESIS_RASA_TOKEN`` goes over https or to this machine only; `InvalidInput` where it would not, or for no
    address.
    """
    import httpx

    token, place = get_settings().rasa_token, urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname or "@" in place.netloc:
        like = "http://localhost:5005, with no credentials in it"
        raise InvalidInput(f"A Rasa server has an address like {like}; its token is GENESIS_RASA_TOKEN.")
    if token and place.scheme != "https" and place.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InvalidInput(f"The token of {place.netloc} is sent over https or to this machine only: use https.")
    who, base = f"The server {place.netloc}", f"{place.scheme}://{place.netloc}{place.path.rstrip('/')}"
    with httpx.Client(timeout=timeout_s, params={"token": token.get_secret_value()} if token else {}) as client:

        def ask(method: str, path: str, **options: Any) -> httpx.Response:
            try:
                answer = client.request(method, base + path, **options)
            except httpx.HTTPError as error:
                raise Unavailable(f"{who} can't be reached: {type(error).__name__}.") from None
            if answer.is_success:
                return answer
            why = shipped(REFUSALS).get(answer.status_code) or " ".join(answer.text.split())[:300]
            raise Unavailable(f"{who} refuses {path or place.path} ({answer.status_code}): {why.rstrip('.')}.")

        yield ask
