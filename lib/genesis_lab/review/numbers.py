"""What a bot's conversations of some days come to: the numbers of the dashboard, asked of Parquet copies by DuckDB.

A copy stands outside row-level security, so it holds messages only, which every role may read, and of those not
``raw``. What a conversation must show to count as resolved is said in the syntax of Rasa's markers: a condition holds
at an event or does not; `and`, `or` and `not` join what holds at the same event; `seq` holds where the last one follows
the others in their order, `at_least_once` from the first one on, and `never` everywhere or nowhere. A conversation
meets a marker that holds at any of its events.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Float, Integer

from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, resolve
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import as_kept, ingests, messages, sessions, sources
from genesis_lab.training.evaluation import share
from genesis_lab.yamls import read_yaml

if TYPE_CHECKING:
    import duckdb

Marker = Mapping[str, Any]
ZONE = "America/Guatemala"
LIMITS = {"low": 0.7, "margin": 0.2}
"""A prediction with less confidence than `low` is unsure, one whose second choice is nearer than `margin` confused."""
MARKERS = Path(__file__).with_name("markers.yaml")
KINDS = {
    "intent": "intent",
    "action": "action",
    "slot_was_set": "slot",
    "not_intent": "intent",
    "not_action": "action",
    "slot_was_not_set": "slot",
}
"""Condition of a marker to the kind of event that it looks at."""
OF_ONE, OF_MANY = ("not", "at_least_once", "never"), ("and", "or", "seq")
_LISTS = ("top", "unsure", "confused", "days", "hours", "deploys", "funnel", "markers", "histogram", "models")
_COUNTED = (
    "key, session, timestamp, typed, intent, confidence, fallback, model, other, margin, twentieth, day, weekday, hour"
)


def dashboard(
    store: Store,
    *,
    days: int = 30,
    since: date | str | None = None,
    until: date | str | None = None,
    zone: str = ZONE,
    resolved: str | Path = "",
    queued: int | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """What was said in some days, how well it was understood, and what came of it.

    Parameters
    ----------
    days : how many, until today; where nothing was said in them, until that of the newest message, which `period` says.
    since, until : first and last day instead, as dates or ``YYYY-MM-DD``; of `zone`, an IANA name.
    resolved : YAML file of markers (default: the shipped one, see `read_markers`): the one named ``resolved``, else the
        first by name, says what is resolved. A person's verdict, the tag success or fail, goes before it.
    queued : how many texts a person must look at: the items of `queue`, whenever they were said. It is asked for by
        itself, as it reads them all.
    now : the present, for `days` (default: the clock).

    Returns
    -------
    A report of kind ``dashboard``. A conversation is a session in which somebody typed in that period; shares have n
    and Wilson's 95 % interval; what can't be computed is None.
    """
    with open_messages(store) as database:
        period = _period(database, days, since, until, zone, now or datetime.now(UTC))
        about = {"zone": zone, "period": period, "markers_file": str(resolved)}
        prepare(database, store, about, _COUNTED)
        [cards], [verdicts] = _asked(database, "cards"), _asked(database, "verdicts")
        found = {name: _asked(database, name) for name in _LISTS}
    return {"kind": "dashboard", **about, **cards, "pending": queued, **found, "verdicts": verdicts, **LIMITS}


def prepare(database: Any, store: Store, about: Mapping[str, Any], columns: str = "*") -> None:
    """Make the tables of a report's period (``dashboard.sql``): ``said`` with these `columns`, ``counted``, remarks."""
    markers, zone = read_markers(about["markers_file"]), ZoneInfo(about["zone"])
    first, last = (date.fromisoformat(about["period"][end]) for end in ("since", "until"))
    since, until = (datetime.combine(day, time(), zone).timestamp() for day in (first, last + timedelta(1)))
    names = sorted(told_by(markers.values()))
    resolved = "resolved" if "resolved" in markers else min(markers)
    said = {"zone": zone.key, "since": since, "until": until, "first": first, "last": last, "names": names}
    for name, value in (said | LIMITS | {"resolved": resolved}).items():
        database.execute(f"SET VARIABLE {name} = ?", [value])
    for name, told in (("labels", ("key", "status")), ("verdicts", ("session", "verdict"))):
        rows = records(store, sql(f"{name} of people"))
        given(database, name, **{column: [row[column] for row in rows] for column in told})
    database.execute(f"{sql('steps')};{sql('period')};CREATE TEMP TABLE said AS SELECT {columns} FROM period")
    database.execute(f"{sql('active')};{sql('told')}")
    alike = database.execute(sql("told alike")).fetchall()
    met = ["\n".join(name for name, one in markers.items() if any(holds(one, told))) for _, told in alike]
    given(database, "outcomes", id=[str(number) for number, _ in alike], met=met)
    database.execute(sql("counted"))


def rate(hits: int, n: int) -> dict[str, Any] | None:
    """A share with Wilson's interval and n; None of nothing."""
    return share(hits, n).to_dict() if n else None


def _asked(database: Any, name: str) -> list[dict[str, Any]]:
    rows = database.sql(sql(name)).to_arrow_table().to_pylist()
    return [{k: rate(**of) if isinstance(of, dict) and "hits" in of else of for k, of in row.items()} for row in rows]


def given(database: Any, name: str, **columns: Sequence[str | None]) -> None:
    """A table of texts for DuckDB."""
    import pyarrow as pa

    database.register(name, pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()}))


def _period(
    database: Any, days: int, since: date | str | None, until: date | str | None, zone: str, now: datetime
) -> dict[str, Any]:
    """``since`` and ``until``, both included, and a ``note`` where they are not what was asked for."""
    try:
        tz = ZoneInfo(zone)
        first, last = (date.fromisoformat(str(day)) if day else None for day in (since, until))
    except (ValueError, KeyError, OSError):
        told = f"got {since!r} to {until!r} in {zone!r}"
        raise InvalidInput(f"A period is given by dates as 2026-11-30 in a zone as {ZONE}, {told}.") from None
    if days < 1 or (first and last and first > last):
        raise InvalidInput(f"A period has one day or more, got {days} days, {since or '…'} to {until or '…'}.")
    at = database.execute("SELECT max(timestamp) FROM messages").fetchall()[0][0]
    newest = datetime.fromtimestamp(at, tz).date() if at is not None else None
    today, note = now.astimezone(tz).date(), ""
    if not first and not last and newest and newest <= today - timedelta(days):
        last = newest
        note = f"Nothing was said in the last {days} days: these are the {days} until the newest message, of {newest}."
    last = last or max(today, first or today)
    first = first or last - timedelta(days - 1)
    return {"since": str(first), "until": str(last), "days": (last - first).days + 1, "note": note}


# Messages for DuckDB: a Parquet file per source, brought up to date when it is asked for


def open_messages(store: Store) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory with a view ``messages`` over the Parquet copies of all sources."""
    import duckdb

    names = [row["name"] for row in records(store, sa.select(sources.c.name).order_by("name"))]
    if not (parts := [f"FROM {_reading(messages_parquet(store, name))}" for name in names]):
        raise InvalidInput(f"{store.address} holds no conversations yet: read some with genesis review ingest.")
    database = duckdb.connect()
    database.execute(f"SET enable_progress_bar = false; CREATE VIEW messages AS {' UNION ALL '.join(parts)}")
    return database


def messages_parquet(store: Store, source: str) -> Path:
    """``messages.parquet`` of a source, brought up to date: `messages` without ``raw``, lists as JSON.

    It also holds what is asked of them again and again (``copied`` in ``dashboard.sql``).
    """
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.folder / source / "messages.parquet"
    known = (pq.read_schema(path).metadata if path.exists() else None) or {}
    kinds = {Float: pa.float64(), Boolean: pa.bool_(), Integer: pa.int64(), BigInteger: pa.int64()}
    columns = [*(column for column in messages.columns if column.name != "raw"), sessions.c.opening]
    schema = pa.schema([(column.name, kinds.get(type(column.type), pa.string())) for column in columns])
    with store.begin() as connection:
        ended = sa.func.max(sa.case((ingests.c.finished_at.is_not(None), ingests.c.id), else_=0))
        runs = sa.select(sa.func.min(ingests.c.started_at), sa.func.coalesce(ended, 0), sa.func.max(ingests.c.id))
        begun, upto, newest = connection.execute(runs.where(ingests.c.source == source)).one()
        form = f"{begun} {zlib.crc32(sql('copied').encode())} "  # another store, or made by another version: made anew
        was = known.get(b"state", b"").decode()
        done = int(was.removeprefix(form)) if was.startswith(form) else -1
        if done >= 0 and newest in (None, done):
            return path
        opened = sa.select(sessions.c.key).where(sessions.c.source == source, sessions.c.ingest > done)
        first = messages.c.position == 0
        changed = (messages.c.ingest > done) | (first & messages.c.session.in_(opened))
        both = messages.outerjoin(sessions, first & (sessions.c.key == messages.c.session))
        query = sa.select(*map(as_kept, columns)).select_from(both).where(messages.c.source == source, changed)
        with duckdb.connect() as database, placed(path, replace=True) as temporary:

            def copied(part: Sequence[Any]) -> pa.Table:
                columns = zip(*part, strict=True) if part else [[]] * len(schema)
                database.register("part", pa.table(list(map(pa.array, columns, schema.types)), schema=schema))
                return database.sql(sql("copied")).to_arrow_table()

            database.execute(sql("steps"))
            fresh: list[str] = []
            told = copied([]).schema.with_metadata({"state": f"{form}{upto}"})
            with pq.ParquetWriter(temporary, told) as file:  # part by part: all at once takes hundreds of megabytes
                for part in connection.execution_options(yield_per=20_000).execute(query).partitions():
                    file.write_table(copied(part).cast(told))
                    fresh += [row.key for row in part]
                given(database, "fresh", key=fresh)
                old = database.sql(f"FROM {_reading(path)} ANTI JOIN fresh USING (key)") if done >= 0 else None
                for batch in old.to_arrow_reader(20_000) if old else ():
                    file.write_batch(batch.cast(told))
    return path


def _reading(path: Path) -> str:
    return "read_parquet('" + str(path).replace("'", "''") + "')"


@cache
def sql(name: str) -> str:
    """A question of ``dashboard.sql``."""
    parts = re.split(r"^--: (.+)\n", Path(__file__).with_name("dashboard.sql").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


# Markers


def read_markers(path: str | Path = "") -> dict[str, Marker]:
    """The markers of a YAML file (default: the one of this package) by name; `InvalidInput` says which is none."""
    path = resolve(path) if path else MARKERS
    given = read_yaml(path)
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(f"{path.name} holds no markers: expected a mapping of names to conditions.")
    return {str(name): _marker(of, f"{path.name}: {name}") for name, of in given.items()}


def _marker(given: Any, where: str) -> Marker:
    told = {tag: of for tag, of in given.items() if tag != "description"} if isinstance(given, Mapping) else {}
    tag, of = next(iter(told.items()), ("", None))
    if len(told) == 1 and tag in KINDS and isinstance(of, str):
        return told
    if len(told) != 1 or not isinstance(of, list) or not ((of and tag in OF_MANY) or (len(of) == 1 and tag in OF_ONE)):
        conditions, one, many = (", ".join(names) for names in (KINDS, OF_ONE, OF_MANY))
        due = f"expected {conditions} with a name, {one} with a list of one, or {many} with a list"
        raise InvalidInput(f"{where} holds {given!r}: {due}.")
    return {tag: [_marker(one, where) for one in of]}


def holds(marker: Marker, told: Sequence[str]) -> list[bool]:
    """At which events of a conversation, as ``intent x``, ``action x``, ``slot x`` or ``unset x``, a marker holds."""
    [(tag, of)] = marker.items()
    if tag not in KINDS:
        return _joined(tag, [holds(one, told) for one in of])
    if KINDS[tag] == "slot":
        changes = [True if one == f"slot {of}" else False if one == f"unset {of}" else None for one in told]
        held = accumulate(changes, lambda was, now: bool(was) if now is None else now, initial=False)
        return [now == (tag == "slot_was_set") for now in held][1:]
    full = f"{KINDS[tag]} {of}"
    full_names = f"{full}/" if KINDS[tag] == "intent" else "\n"  # of a retrieval intent
    return [(one == full or one.startswith(full_names)) != tag.startswith("not_") for one in told]


def _joined(tag: str, below: list[list[bool]]) -> list[bool]:
    if tag == "not":
        return [not now for now in below[0]]
    if tag == "at_least_once":
        return [*accumulate(below[0], or_)]
    if tag == "never":
        return [not any(below[0])] * len(below[0])
    if tag != "seq":
        return [(all if tag == "and" else any)(now) for now in zip(*below, strict=True)]
    place, found = 0, []
    for now in zip(*below, strict=True):
        place += now[place]
        found.append(place == len(below))
        place %= len(below)
    return found


def told_by(markers: Iterable[Marker]) -> set[str]:
    """What makes a difference to these markers; all else is one to them."""
    found = set[str]()
    for tag, of in (item for marker in markers for item in marker.items()):
        if tag in KINDS:
            found |= {f"{KINDS[tag]} {of}", *([f"unset {of}"] if "slot" in tag else ())}
        else:
            found |= told_by(of)
    return found
