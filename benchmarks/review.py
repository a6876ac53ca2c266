"""How fast conversations come into the review store, from SQLite into SQLite and from PostgreSQL into PostgreSQL.

    python benchmarks/review.py 100000 1000000

The events are those of the reference tracker (``GENESIS_REFERENCE_DIR``/rasa), copied under other senders and later times until
there are so many. Each step is measured in a process of its own: all of them, a second run that finds nothing new, a run
after 10,000 more.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  (what a run imports late is not what is measured)
import pyarrow.parquet  # noqa: F401

import bench
from genesis_lab.review.ingest import ingest
from genesis_lab.review.store import open_store
from genesis_lab.settings import get_settings

MORE = 10_000
TABLE = (
    "CREATE TABLE events (id {}, sender_id VARCHAR(255) NOT NULL, type_name VARCHAR(255) NOT NULL, timestamp FLOAT, "
    "intent_name VARCHAR(255), action_name VARCHAR(255), data TEXT)"
)
INDEX = "CREATE INDEX ix_events_sender_id ON events (sender_id)"


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000], help="numbers of events")
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="leave the other database out")
    arguments = parser.parse_args()
    reference = get_settings().reference_dir
    if reference is None or not (reference / "rasa" / "rasa_tracker.sqlite").exists():
        sys.exit("GENESIS_REFERENCE_DIR holds no rasa/rasa_tracker.sqlite.")
    rows = []
    for size in arguments.sizes:
        for database in (sqlite, postgresql):
            if arguments.only in (None, database.__name__):
                rows += database(size, events(reference / "rasa" / "rasa_tracker.sqlite", size + MORE))
    bench.store("review", "Conversations into the review store", rows)


def events(reference: Path, size: int) -> Iterator[tuple[Any, ...]]:
    """`size` rows: the reference again and again, a day later and under other senders each time."""
    original = sqlite3.connect(reference).execute("SELECT * FROM events ORDER BY id").fetchall()
    stamp = re.compile(r'"timestamp": ([\d.]+)')
    for number in range(size):
        _, sender, kind, at, intent, action, data = original[number % len(original)]
        later = number // len(original) * 86_400
        data = stamp.sub(lambda found, later=later: f'"timestamp": {float(found[1]) + later!r}', data, count=1)
        yield number + 1, f"{sender}-{number // len(original)}", kind, at + later, intent, action, data


def sqlite(size: int, filled: Iterator[tuple[Any, ...]]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tracker.sqlite"
        connection = sqlite3.connect(source)
        connection.execute(TABLE.format("INTEGER NOT NULL PRIMARY KEY"))
        connection.execute(INDEX)

        def more(n: int) -> None:
            rows = (row for _, row in zip(range(n), filled, strict=False))
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            connection.commit()

        more(size)
        return steps(size, "SQLite", str(source), str(Path(folder) / "review.sqlite"), lambda: more(MORE))


def postgresql(size: int, filled: Iterator[tuple[Any, ...]]) -> list[dict[str, Any]]:
    import psycopg

    from genesis_lab.review.store import init_db
    from postgresql_server import server

    with (
        server() as address,
        psycopg.connect(f"postgresql://postgres@{address}/postgres", autocommit=True) as connection,
    ):
        connection.execute(TABLE.format("SERIAL PRIMARY KEY"))
        connection.execute(INDEX)

        def more(n: int) -> None:
            with connection.cursor().copy("COPY events FROM STDIN") as copy:
                for _, row in zip(range(n), filled, strict=False):
                    copy.write_row(row)

        more(size)
        connection.execute("VACUUM ANALYZE events")
        init_db(f"postgresql://postgres@{address}/postgres")
        url = f"postgresql://postgres@{address}/postgres"
        return steps(size, "PostgreSQL", url, url, lambda: more(MORE))


def steps(size: int, kind: str, source: str, store: str, more: Any) -> list[dict[str, Any]]:
    rows = []
    for step in ("all", "again", f"{MORE:,} more"):
        if step not in ("all", "again"):
            more()
        found = bench.measured(run, source, store)
        rows.append(
            {"events": size, "database": kind, "run": step, "seconds": found["seconds"], "CPU seconds": found["cpu_s"],
             "peak MiB": found["peak_mib"], **found["result"]}
        )  # fmt: skip
    return rows


def run(source: str, store: str) -> dict[str, Any]:
    """The measured part."""
    os.environ["GENESIS_REVIEW_SECRET"] = "a key for measuring only"
    get_settings.cache_clear()
    report = ingest(open_store(store), source)
    return {"new messages": report["written"]["new messages"], "known rows": report["known"]}


if __name__ == "__main__":
    main()
