"""Messages for DuckDB: a Parquet file per source, brought up to date when it is asked for.

It stands outside row-level security, so it holds messages only, which every role may read, and of those not ``raw``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Float, Integer

from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import as_kept, ingests, messages, sources

if TYPE_CHECKING:
    import duckdb


def messages_parquet(store: Store, source: str) -> Path:
    """``messages.parquet`` of a source, brought up to date: the columns of `messages` but for ``raw``, lists as JSON."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.folder / source / "messages.parquet"
    kinds = {Float: pa.float64(), Boolean: pa.bool_(), Integer: pa.int64(), BigInteger: pa.int64()}
    columns = [column for column in messages.columns if column.name != "raw"]
    schema = pa.schema([(column.name, kinds.get(type(column.type), pa.string())) for column in columns])
    begun = sa.select(sa.func.min(ingests.c.started_at)).where(ingests.c.source == source)
    kept = (pq.read_schema(path).metadata or {}) if path.exists() else {}
    with store.begin() as connection:
        first = str(connection.execute(begun).scalar())
        done = int(kept[b"ingest"]) if kept.get(b"begun") == first.encode() else 0  # else it is another store's
        newer = (messages.c.source == source) & (messages.c.ingest > done)
        newest = connection.execute(sa.select(sa.func.max(messages.c.ingest)).where(newer)).scalar()
        if newest is None and done:
            return path
        about = {"ingest": str(newest or 0), "begun": first}
        rows = connection.execution_options(yield_per=20_000).execute(sa.select(*map(as_kept, columns)).where(newer))
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path, replace=True) as temporary:
            fresh = temporary.with_name(f".{source}.changed") if done else temporary
            with pq.ParquetWriter(fresh, schema.with_metadata(about)) as writer:
                for part in rows.partitions():
                    arrays = [pa.array(c, f.type) for c, f in zip(zip(*part, strict=True), schema, strict=True)]
                    writer.write_table(pa.table(arrays, schema=schema.with_metadata(about)))
            if done:
                old, new, made = _reading(path), _reading(fresh), str(temporary).replace("'", "''")
                merged = f"SELECT * FROM {new} UNION ALL SELECT * FROM {old} WHERE key NOT IN (SELECT key FROM {new})"
                with duckdb.connect() as database:
                    database.execute(f"COPY ({merged}) TO '{made}' (FORMAT parquet, KV_METADATA {about})")
                fresh.unlink()
    return path


def open_messages(store: Store, only: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory with a view ``messages`` over the Parquet copies of these sources (all of them by default)."""
    import duckdb

    if only is None:
        only = [row["name"] for row in records(store, sa.select(sources.c.name).order_by("name"))]
    if not (parts := [f"SELECT * FROM {_reading(messages_parquet(store, name))}" for name in only]):
        raise InvalidInput(f"{store.address} holds no conversations yet: read some with genesis review ingest.")
    database = duckdb.connect()
    database.execute(f"CREATE VIEW messages AS {' UNION ALL '.join(parts)}")
    return database


def _reading(path: Path) -> str:
    return "read_parquet('" + str(path).replace("'", "''") + "')"
