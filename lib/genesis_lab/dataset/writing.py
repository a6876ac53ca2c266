"""Writing a dataset folder, record by record: whole at the end, or not there at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genesis_lab.dataset.card import dataset_card
from genesis_lab.dataset.folder import FORMAT, MANIFEST, is_dataset, is_split_name
from genesis_lab.dataset.schema import schema_of
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed

PART_ROWS = 50_000
"""Records in one Parquet file."""
GROUP_ROWS = 10_000
"""Records in one row group: what is held in memory while writing. Divides `PART_ROWS`."""


class DatasetWriter:
    """Writes records into a new dataset folder; a context manager.

    On a clean exit the folder appears with its manifest and its card. On any error, nothing of it remains.

    Parameters
    ----------
    path : the folder to make.
    domain : what its records are.
    manifest : what else the manifest shall say, read on exit. No clock times: the same records make the same bytes.
    replace : replace the dataset that is there, if one is.

    Raises
    ------
    InvalidInput : the folder exists, or a record does not fit the domain's schema.
    GenesisError : the disk is full or the folder can't be written.
    """

    def __init__(
        self, path: Path, domain: str, manifest: Mapping[str, Any] | None = None, *, replace: bool = False
    ) -> None:
        self._path, self._domain, self._manifest, self._replace = path, domain, manifest or {}, replace
        self._schema = schema_of(domain)
        self._moments = _datetime_paths(self._schema)
        self._pending: list[dict[str, Any]] = []
        self._counts: dict[str, int] = {}
        self._parts: list[tuple[str, Path]] = []
        self._language = get_domain(domain).facets.language
        self._languages: set[str | None] = set()
        self._hash = hashlib.sha256()
        self._split = ""
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> DatasetWriter:
        with ExitStack() as stack:
            self._folder = stack.enter_context(placed(self._path, replace=self._replace, ours=is_dataset))
            (self._folder / "data").mkdir(parents=True)
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, records: Iterable[dict[str, Any]], split: str = "train") -> None:
        """Append records to a split. Splits are written one after the other: a finished one can't be taken up again."""
        if split != self._split:
            self._end_split()
            if split in self._counts or not is_split_name(split):
                raise InvalidInput(
                    f"Split {split!r} is finished already or its name is not made of letters and digits."
                )
            self._split, self._counts[split] = split, 0
        for record in records:
            self._pending.append(record)
            if len(self._pending) == GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            table = pa.Table.from_pylist(list(map(self._with_datetimes, self._pending)), self._schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"A record does not fit domain {self._domain!r}: {' '.join(str(error).split())}"
            ) from None
        self._pending = []
        hash_records(self._hash, table)
        if self._language:
            self._languages |= set(table[self._language].unique().to_pylist())
        if self._counts[self._split] % PART_ROWS == 0:
            self._open_part()
        assert self._file is not None
        self._file.write_table(table, row_group_size=GROUP_ROWS)
        self._counts[self._split] += table.num_rows

    def _open_part(self) -> None:
        self._close_part()
        part = self._folder / "data" / f"{self._split}-{len(self._parts):05d}.parquet"
        self._parts.append((self._split, part))
        self._file = pq.ParquetWriter(part, self._schema, compression="zstd")

    def _close_part(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _end_split(self) -> None:
        self._flush()
        if self._split and not self._counts[self._split]:
            self._open_part()
        self._close_part()

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file, abandoned = None, self._file
            if abandoned is not None:
                # The error that is being raised already says what happened.
                with suppress(OSError):
                    abandoned.close()
            return
        if not self._split:
            self.write([])
        self._end_split()
        for split in self._counts:
            files = [path for name, path in self._parts if name == split]
            for i, path in enumerate(files):
                path.rename(path.with_name(f"{split}-{i:05d}-of-{len(files):05d}.parquet"))
        ours = {
            "format": FORMAT,
            "domain": self._domain,
            "counts": self._counts,
            "content_hash": self._hash.hexdigest(),
        }
        manifest = ours | {key: value for key, value in self._manifest.items() if key not in ours}
        text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
        (self._folder / MANIFEST).write_text(text + "\n", encoding="utf-8", errors="replace")
        languages = sorted(code for code in self._languages if code and re.fullmatch("[a-z]{2,3}", code))
        card = dataset_card(manifest, self._schema, languages)
        (self._folder / "README.md").write_text(card, encoding="utf-8", errors="replace")

    def _with_datetimes(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with the ISO times of JSON as datetimes."""
        copy = dict(record)
        for path in self._moments:
            holder = copy
            for name in path[:-1]:
                if not isinstance(holder.get(name), Mapping):
                    break
                holder[name] = holder = dict(holder[name])
            else:
                value = holder.get(path[-1])
                if isinstance(value, str):
                    holder[path[-1]] = dt.datetime.fromisoformat(value)
        return copy


def hash_records(digest: Any, table: pa.Table) -> None:
    """Update `digest` with each record as canonical JSON, one a line, without the time it was generated at."""
    for record in table.to_pylist():
        if record.get("provenance"):
            record["provenance"].pop("generated_at", None)
        line = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
        digest.update(line.encode() + b"\n")


def _datetime_paths(fields: pa.Schema | pa.StructType, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for field in fields:
        if pa.types.is_timestamp(field.type):
            paths.append((*above, field.name))
        elif pa.types.is_struct(field.type):
            paths += _datetime_paths(field.type, (*above, field.name))
    return paths
