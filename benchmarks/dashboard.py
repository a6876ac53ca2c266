"""How fast the dashboard of a bot's conversations answers: its numbers, the first draw, a filter, a long conversation.

    python benchmarks/dashboard.py 100000 1000000

The events are those of ``review.py``, with one more person who wrote 5,000 messages in one session. The period holds all of them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  (what a run imports late is not what is measured)
import jinja2  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401

import bench
from genesis_lab.reporting.browser import Browser, conversation
from genesis_lab.review import conversations
from genesis_lab.review.ingest import ingest
from genesis_lab.review.numbers import dashboard
from genesis_lab.review.store import open_store
from genesis_lab.settings import get_settings
from review import INDEX, TABLE, events
from trackers import user

TURNS = 5_000


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000], help="numbers of events")
    reference = get_settings().reference_dir
    if reference is None or not (reference / "rasa" / "rasa_tracker.sqlite").exists():
        sys.exit("GENESIS_REFERENCE_DIR holds no rasa/rasa_tracker.sqlite.")
    rows = []
    for size in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = filled(Path(folder), reference / "rasa" / "rasa_tracker.sqlite", size)
            rows.append({"events": size, **bench.measured(looked_at, store)["result"]})
    note = (
        "Processor seconds of all threads. Numbers: the whole report, the second time. First draw: the browser of all "
        "conversations with its first page and the counts beside every filter. A filter: the slowest of six, of conversations and of "
        f"messages. Long: a conversation of {TURNS:,} turns, opened at its end."
    )
    bench.store("dashboard", "The dashboard of conversations", rows, note=note)


def filled(folder: Path, reference: Path, size: int) -> str:
    """A store with so many events and the long conversation."""
    source = folder / "tracker.sqlite"
    with sqlite3.connect(source) as connection:
        connection.execute(TABLE.format("INTEGER NOT NULL PRIMARY KEY"))
        connection.execute(INDEX)
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", events(reference, size))
        long = (user(f"mensaje {n}", timestamp=1_795_300_000.0 + n) for n in range(TURNS))
        rows = (
            (size + n, "long", "user", one["timestamp"], None, None, json.dumps(one)) for n, one in enumerate(long, 1)
        )
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    os.environ["GENESIS_REVIEW_SECRET"] = "a key for measuring only"
    get_settings.cache_clear()
    store = str(folder / "review.sqlite")
    ingest(open_store(store), str(source))
    return store


def looked_at(address: str) -> dict[str, float]:
    """The measured part: seconds by what was done."""
    store = open_store(address)
    period = {"since": "2020-01-01", "until": "2040-01-01"}
    report = dashboard(store, **period)
    numbers, _ = bench.timed(partial(dashboard, store, **period))

    def opened(unit: str) -> tuple[Browser, dict[str, Any]]:
        def preview(row: Any) -> Any:
            return conversation(conversations.turns(store, row["_session"], report["zone"]))

        made = Browser(**conversations.opened(store, report, unit), preview=preview)
        return made, made.ask()

    first, (browser, _) = bench.timed(partial(opened, "conversations"))
    messages, _ = opened("messages")
    slowest = 0.0
    for one in (browser, messages):
        for where, words in (({"intent": ["transferir"]}, ""), ({"fallback": ["yes"]}, "tarjeta"), ({}, "MARIA")):
            slowest = max(slowest, bench.timed(partial(one.ask, one._chosen(where), words))[0])
    longest = browser.ask(browser._chosen({"messages": {"from": TURNS}}))["rows"][0]["row"]
    long, shown = bench.timed(partial(browser.open, longest))
    assert shown["more"] and f"mensaje {TURNS - 1}" in shown["html"]
    return {
        "conversations": report["conversations"], "messages": report["messages"], "numbers, s": round(numbers, 2),
        "first draw, s": round(first, 2), "a filter, s": round(slowest, 3), "long, s": round(long, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
