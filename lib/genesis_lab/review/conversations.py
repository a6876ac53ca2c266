"""The conversations and messages of a dashboard's period: to be looked through, remarked on, and written as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from genesis_lab.dataset.columns import safe_cell
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, resolve
from genesis_lab.review import tables
from genesis_lab.review.events import LISTEN
from genesis_lab.review.labelling import add, remove
from genesis_lab.review.nlu import examples_in
from genesis_lab.review.numbers import given, open_messages, prepare, sql
from genesis_lab.review.regression import case_of_message
from genesis_lab.review.store import Store, records

_OTHERS = [("t", "tag", "text"), ("n", "note", "text"), ("f", "flag", ""), ("u", "undo", "")]
ACTIONS = {"conversations": [("s", "success", ""), ("x", "fail", "")], "messages": [("c", "case", "label")]}
"""Key, name and what it asks for; a verdict is a tag of a conversation."""


def opened(store: Store, report: Mapping[str, Any], unit: str = "conversations", data: str = "") -> dict[str, Any]:
    """What a record browser takes, but for the preview, to show conversations or messages that a `dashboard` counts.

    `data` : the folder of the bot's training data, for "not in the training data".
    """
    database, about = _read(store, report, unit, data), unit.removesuffix("s").replace("conversation", "session")
    rows = database.sql("FROM shown")

    def remarks(key: str | None = None) -> list[dict[str, Any]]:
        return [one for one in records(store, sql("remarks")) if one[about] and key in (None, one[about])]

    def act(row: int, key: str, name: str, value: Any, why: str) -> str:
        if name == "undo":
            if not (mine := [one for one in remarks(key) if one["author"] == store.author]):
                raise InvalidInput("There is no remark of yours here that could be undone.")
            remove(store, mine[-1]["place"], mine[-1]["id"])
        elif name == "case":
            case_of_message(store, str(key), value)
        else:
            place = name if name in ("note", "flag") else "tag"
            told = {"tag": value or name, "note": value, "flag": why or None}[place]
            add(store, f"{place}s", **{about: key, "reason" if place == "flag" else place: told})
        return ", ".join(dict.fromkeys(one["said"] for one in remarks(key)))

    keyed: dict[str, list[str]] = {}
    for one in remarks():
        keyed.setdefault(one[about], []).append(one["said"])
    held = database.execute('SELECT "_row", "_key" FROM shown WHERE "_key" IN $1', [[*keyed]]).fetchall()
    marks = {row: ", ".join(dict.fromkeys(keyed[key])) for row, key in held}

    def kept() -> list[dict[str, Any]]:
        rows = records(store, sa.select(tables.filters).order_by(tables.filters.c.id))
        return [row for row in rows if row["filter"].get("unit") == unit]

    def save(name: str, chosen: Mapping[str, Any] | None) -> None:
        if chosen is not None:
            add(store, "filters", name=name, filter={**chosen, "unit": unit})
        for row in (row for row in kept() if chosen is None and row["name"] == name):
            remove(store, "filters", row["id"])

    return {
        "rows": rows,
        "key": '"_key"',
        "place": '"_row"',
        "text": '"_text"',
        "search": '"_search"',
        "unit": unit,
        "act": act,
        "actions": ACTIONS[unit] + _OTHERS,
        "marks": marks,
        "filters": {name: f'"{name}"' for name in rows.columns if not name.startswith("_")},
        "labels": [row["intent"] for row in report["top"]],
        "saved": {row["name"]: row["filter"] for row in kept()},
        "save": save,
    }


def _read(store: Store, report: Mapping[str, Any], unit: str, data: str = "", whole: bool = False) -> Any:
    """DuckDB with what there is to look through as the table ``shown``, with all texts of conversations if `whole`."""
    if unit not in ACTIONS:
        raise InvalidInput(f"There are {' and '.join(ACTIONS)} to look through, got {unit!r}.")
    database = open_messages(store)
    prepare(database, store, report)
    given(database, "taught", text=[one["text"] for one in examples_in(resolve(data) if data else None)])
    database.execute(f"SET VARIABLE trained = {bool(data)}; SET VARIABLE whole = {whole}")
    database.execute(f"{sql('trained')}; {sql('each')}; {sql(unit)}")
    return database


def turns(store: Store, session: str, zone: str) -> list[dict[str, Any]]:
    """The whole session from its beginning: the columns of `messages` but for the bot's waiting, ``at`` in the zone.

    What came before the first message is a turn without text.
    """
    columns, opening = tables.messages.c, tables.sessions.c
    said = records(store, sa.select(*columns).where(columns.session == session).order_by(columns.position))
    before = records(store, sa.select(opening.opening.label("events")).where(opening.key == session))
    for one in before + said:
        at = one.get("timestamp")
        one["at"] = "" if at is None else f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}"
        one["events"] = [event for event in one["events"] or () if event != {"action": LISTEN}]
    return [one for one in before if one["events"]] + said


def write_csv(store: Store, report: Mapping[str, Any], path: Path, unit: str, *, replace: bool = False) -> int:
    """Write a row per typed message or conversation of the report's period as CSV, safe in spreadsheets; how many."""
    shown = 'SELECT * EXCLUDE ("_row", "_search") FROM shown ORDER BY "_row"'
    rows = _read(store, report, unit, whole=True).sql(shown).df().rename(columns=lambda name: name.removeprefix("_"))
    with placed(path, replace=replace) as temporary:
        rows.map(_cell).to_csv(temporary, index=False)
    return len(rows)


def _cell(value: Any) -> Any:
    text = "; ".join(map(str, value)) if hasattr(value, "__len__") and not isinstance(value, str) else value
    return safe_cell(text) if isinstance(text, str) else text
