"""What a bot's conversations of some days come to: the numbers of the dashboard, as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review import tables
from genesis_lab.review.markers import SHIPPED, marked, read_markers
from genesis_lab.review.parquet import open_messages
from genesis_lab.review.store import Store, records
from genesis_lab.stats import proportion_interval

ZONE = "America/Guatemala"
LOW, MARGIN = 0.7, 0.2
"""A prediction below `LOW` is unsure; one whose second choice is closer than `MARGIN` is confused with it."""
VERDICTS = ("success", "fail")
"""Tags of a conversation by which a person says how it ended; without one it is unknown, and in no mean."""


def dashboard(
    store: Store,
    *,
    days: int = 30,
    since: date | str | None = None,
    until: date | str | None = None,
    zone: str = ZONE,
    sources: Iterable[str] | None = None,
    resolved: str | Path = SHIPPED,
    now: datetime | None = None,
) -> dict[str, Any]:
    """What was said in some days, how well it was understood, and what came of it.

    Parameters
    ----------
    days : how many, until today; where nothing was said in them, until the day of the newest message, which `period` says.
    since, until : first and last day instead, as dates or ``YYYY-MM-DD``.
    zone : whose days, weekdays and hours these are, by its IANA name.
    sources : names of sources (default: all).
    resolved : YAML file of markers (see `read_markers`): the one named ``resolved``, else the first, says what is resolved;
        a person's verdict goes before it.
    now : the present, for `days` (default: the clock).

    Returns
    -------
    A report of kind ``dashboard``. A conversation is a session in which somebody typed in that period; shares have n and
    Wilson's 95 % interval; what can't be computed is None with a reason under ``not_measured``. Times are dates of the zone.
    """
    with open_messages(store, sources) as database:
        found = opened(database, store, days=days, since=since, until=until, zone=zone, resolved=resolved, now=now)
        return _numbers(database, found)


def opened(
    database: Any, store: Store, *, days: int = 30, since: date | str | None = None, until: date | str | None = None,
    zone: str = ZONE, resolved: str | Path = SHIPPED, now: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the tables ``said`` and ``counted`` of a period (see `dashboard`) in `database`; what they are of."""
    period = _period(database, days, since, until, zone, now or datetime.now(UTC))
    first, last = (date.fromisoformat(period[end]) for end in ("since", "until"))
    tz = ZoneInfo(zone)
    ends = [datetime.combine(day, time(), tz).timestamp() for day in (first, last + timedelta(1))]
    database.execute(_sql("said"), {"zone": zone, "since": ends[0], "until": ends[1]})
    database.execute(_sql("active"))
    markers = read_markers(resolved)
    openings: Iterable[Any] = ()
    if "slot_" in str(markers):  # only slots are set before the first message
        told = sa.select(tables.sessions.c.key, tables.sessions.c.opening)
        openings = ((row["key"], row["opening"]) for row in records(store, told))
    marked(database, markers, openings)
    _remarks(database, store)
    which = "resolved" if "resolved" in markers else next(iter(markers))
    database.execute(_sql("counted").replace("{resolved}", _name(which)))
    return {"zone": zone, "period": period, "resolved_by": which, "markers": list(markers)}


def _numbers(database: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    def ask(name: str, **given: Any) -> list[dict[str, Any]]:
        return list(database.sql(_sql(name), params=given or None).to_arrow_table().to_pylist())

    [cards], [funnel] = ask("cards"), ask("funnel")
    intents, models, n, judged = (
        ask("intents", low=LOW),
        ask("models"),
        funnel["started"],
        funnel["success"] + funnel["fail"],
    )
    for model in models:
        of = {"understood": "conversations", "resolved": "conversations", "success": "judged", "fallback": "messages"}
        model |= {name: rate(model[name], model[total]) for name, total in of.items()}
    hits = database.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({_name(m)})' for m in about['markers'])} FROM outcomes"
    ).fetchall()[0]
    none = {
        "confidence": "" if cards["sure"] else "no message of this period has a prediction with a confidence",
        "verdicts": ""
        if judged
        else "nobody has said of a conversation of this period whether it was a success or a fail",
        "funnel": "" if n else "nobody wrote in this period",
    }
    return {
        "kind": "dashboard", **about,
        "conversations": cards["conversations"], "messages": cards["messages"], "intents": cards["intents"],
        "confidence": {"estimate": cards["confidence"], "n": cards["sure"], "models": cards["models"]},
        "fallback": rate(cards["fallback"], cards["messages"]), "pending": cards["pending"], "waiting": cards["waiting"],
        "top": [row | {"share": rate(row["messages"], cards["messages"])} for row in intents],
        "days": ask("days", since=about["period"]["since"], until=about["period"]["until"]),
        "hours": ask("hours"), "deploys": ask("deploys", zone=about["zone"]), "histogram": ask("histogram"),
        "funnel": [{"step": step, "n": funnel[step], "share": rate(funnel[step], n)} for step in ("started", "understood", "resolved")],
        "unsure": [row | {"share": rate(row["unsure"], row["n"])} for row in intents if row["unsure"]],
        "confused": ask("confused", margin=MARGIN), "models": models,
        "markers": [{"marker": m, "n": k, "share": rate(k, n)} for m, k in zip(about["markers"], hits, strict=True)],
        "verdicts": {"success": funnel["success"], "fail": funnel["fail"], "unknown": n - judged, "share": rate(funnel["success"], judged)},
        "low": LOW, "margin": MARGIN, "not_measured": {what: why for what, why in none.items() if why},
    }  # fmt: skip


def rate(hits: int, n: int) -> dict[str, Any] | None:
    """A share with Wilson's interval and n; None of nothing."""
    low, high = proportion_interval(hits, n) if n else (None, None)
    return {"estimate": hits / n, "low": low, "high": high, "n": n} if n else None


def _remarks(database: Any, store: Store) -> None:
    """What people said, as tables: ``flagged``, ``looked_at``, ``waiting`` (keys), ``verdicts`` (session, the newest one)."""
    import pyarrow as pa

    label, flag, tag = tables.labels.c, tables.flags.c, tables.tags.c
    labelled = records(store, sa.select(label.message, label.status))
    flagged = records(store, sa.select(sa.func.coalesce(flag.message, flag.session).label("key")))
    judged = records(
        store, sa.select(tag.session, tag.tag).where(tag.tag.in_(VERDICTS), tag.session.is_not(None)).order_by(tag.id)
    )
    keys = {
        "flagged": [row["key"] for row in flagged], "looked_at": [row["message"] for row in labelled],
        "waiting": [row["message"] for row in labelled if row["status"] == "pending"],
    }  # fmt: skip
    for name, values in keys.items():
        database.register(name, pa.table({"key": pa.array(values, pa.string())}))
    newest = {row["session"]: row["tag"] for row in judged}
    database.register(
        "verdicts",
        pa.table({"session": pa.array(newest, pa.string()), "verdict": pa.array(newest.values(), pa.string())}),
    )


def _period(
    database: Any, days: int, since: date | str | None, until: date | str | None, zone: str, now: datetime
) -> dict[str, Any]:
    """``since`` and ``until``, both included, and a ``note`` where they are not what was asked for."""
    try:
        tz = ZoneInfo(zone)
        first, last = (date.fromisoformat(str(day)) if day else None for day in (since, until))
    except (ValueError, KeyError, OSError):
        raise InvalidInput(
            f"A period is given by dates as 2026-11-30 in a zone as {ZONE}, got {since!r} to {until!r} in {zone!r}."
        ) from None
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
    return {
        "since": str(first),
        "until": str(last),
        "days": (last - first).days + 1,
        "newest": newest and str(newest),
        "note": note,
    }


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@cache
def _sql(name: str) -> str:
    parts = re.split(r"^--: (.+)\n", Path(__file__).with_name("dashboard.sql").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]
