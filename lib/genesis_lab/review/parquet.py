"""Messages for DuckDB: a Parquet file per source, brought up to date when it is asked for.

It stands outside row-level security, so it holds messages only, which every role may read, and of those not ``raw``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Float, Integer

from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import as_kept, ingests, messages, sessions, sources

if TYPE_CHECKING:
    import duckdb


def messages_parquet(store: Store, source: str) -> Path:
    """``messages.parquet`` of a source, brought up to date: the columns of `messages` but for ``raw``, lists as JSON, and
    what is asked of them again and again (``copied`` in ``dashboard.sql``)."""
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
                database.register("fresh", pa.table({"key": pa.array(fresh, pa.string())}))
                old = database.sql(f"FROM {_reading(path)} ANTI JOIN fresh USING (key)") if done >= 0 else None
                for batch in old.to_arrow_reader(20_000) if old else ():
                    file.write_batch(batch.cast(told))
    return path


def open_messages(store: Store, only: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory with a view ``messages`` over the Parquet copies of these sources (all of them by default)."""
    import duckdb

    if only is None:
        only = [row["name"] for row in records(store, sa.select(sources.c.name).order_by("name"))]
    if not (parts := [f"FROM {_reading(messages_parquet(store, name))}" for name in only]):
        raise InvalidInput(f"{store.address} holds no conversations yet: read some with genesis review ingest.")
    database = duckdb.connect()
    database.execute(f"SET enable_progress_bar = false; CREATE VIEW messages AS {' UNION ALL '.join(parts)}")
    return database


def _reading(path: Path) -> str:
    return "read_parquet('" + str(path).replace("'", "''") + "')"


@cache
def sql(name: str) -> str:
    """A question of ``dashboard.sql``."""
    parts = re.split(r"^--: (.+)\n", Path(__file__).with_name("dashboard.sql").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]
