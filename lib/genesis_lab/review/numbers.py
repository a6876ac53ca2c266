"""What a bot's conversations of some days come to: the numbers of the dashboard, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from genesis_lab.errors import InvalidInput
from genesis_lab.review.markers import holds, read_markers, told_by
from genesis_lab.review.parquet import open_messages, sql
from genesis_lab.review.store import Store, records
from genesis_lab.training.evaluation import share

ZONE = "America/Guatemala"
LIMITS = {"low": 0.7, "margin": 0.2}
"""A prediction with less confidence than `low` is unsure; one whose second choice is nearer than `margin` is confused with it."""
_COUNTED = (
    "key, session, timestamp, typed, intent, confidence, fallback, model, other, margin, twentieth, day, weekday, hour"
)
LISTS = ("top", "unsure", "confused", "days", "hours", "deploys", "funnel", "markers", "histogram", "models")


def dashboard(
    store: Store, *, days: int = 30, since: date | str | None = None, until: date | str | None = None, zone: str = ZONE,
    sources: Iterable[str] | None = None, resolved: str | Path = "", queued: int | None = None, now: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What was said in some days, how well it was understood, and what came of it.

    Parameters
    ----------
    days : how many, until today; where nothing was said in them, until that of the newest message, which `period` says.
    since, until : first and last day instead, as dates or ``YYYY-MM-DD``; of `zone`, an IANA name.
    sources : names of sources (default: all).
    resolved : YAML file of markers (default: the shipped one, see `read_markers`): the one named ``resolved``, else the first
        by name, says what is resolved. A person's verdict, the tag success or fail, goes before it.
    queued : how many texts a person must look at: the items of `queue`, whenever they were said. It is asked for by itself, as
        it reads them all.
    now : the present, for `days` (default: the clock).

    Returns
    -------
    A report of kind ``dashboard``. A conversation is a session in which somebody typed in that period; shares have n and
    Wilson's 95 % interval; what can't be computed is None, with a reason under ``not_measured``.
    """
    with open_messages(store, sources) as database:
        period = _period(database, days, since, until, zone, now or datetime.now(UTC))
        about = {"zone": zone, "period": period, "sources": sources and sorted(sources), "markers_file": str(resolved)}
        prepare(database, store, about, _COUNTED)
        [cards], [verdicts] = _asked(database, "cards"), _asked(database, "verdicts")
        found = {name: _asked(database, name) for name in LISTS}
        none = {
            "funnel": "" if cards["messages"] else "nobody wrote in this period",
            "confidence": "" if cards["confidence"]["n"] else "no message of this period has a prediction with a confidence",
            "verdicts": "" if verdicts["share"] else "nobody has said of a conversation of this period whether it was a success or a fail",
        }  # fmt: skip
        report = {"kind": "dashboard", **about, **cards, "pending": queued, **found, "verdicts": verdicts, **LIMITS}
        return report | {"not_measured": {what: why for what, why in none.items() if why}}


def prepare(database: Any, store: Store, about: Mapping[str, Any], columns: str = "*") -> None:
    """Make the tables of a report's period: ``said``, with these `columns`, ``counted`` and what people said (see ``dashboard.sql``)."""
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
    period = {"since": str(first), "until": str(last), "days": (last - first).days + 1}
    return period | {"newest": newest and str(newest), "note": note}
