"""Writing a dataset folder, record by record: whole at the end, or not there at all."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genesis_lab.dataset.card import dataset_card
from genesis_lab.dataset.folder import DECISIONS, FORMAT, MANIFEST, is_dataset, is_split_name
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
    manifest : what else the manifest shall say, read on exit. No clock times: the same records make the same bytes.
    replace : replace the dataset that is there, if one is.
    """

    def __init__(
        self, path: Path, domain: str, manifest: Mapping[str, Any] | None = None, *, replace: bool = False
    ) -> None:
        self._path, self._domain, self._replace = path, domain, replace
        self._manifest = {} if manifest is None else manifest
        self._schema, self._language = schema_of(domain), get_domain(domain).facets.language
        self._pending: list[dict[str, Any]] = []
        self._parts: dict[str, list[Path]] = {}
        self._counts: dict[str, int] = {}
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

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, records: Iterable[dict[str, Any]], split: str = "train") -> None:
        """Append records to a split. Splits are written one after the other: a finished one can't be taken up again."""
        if split != self._split:
            self._end_split()
            if split in self._counts or not is_split_name(split):
                raise InvalidInput(f"Split {split!r} is finished already, or no name of letters and digits.")
            self._split, self._counts[split], self._parts[split] = split, 0, []
        for record in records:
            self._pending.append(record)
            if len(self._pending) == GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        try:
            table = pa.Table.from_pylist(self._pending, self._schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            why = " ".join(str(error).split())
            raise InvalidInput(f"A record does not fit domain {self._domain!r}: {why}") from None
        self._pending = []
        _hash_records(self._hash, table)
        if self._language:
            self._languages |= set(table[self._language].unique().to_pylist())
        if self._counts[self._split] % PART_ROWS == 0:
            self._close_part()
            parts = self._parts[self._split]
            parts.append(self._folder / "data" / f"{self._split}-{len(parts):05d}.parquet")
            self._file = pq.ParquetWriter(parts[-1], self._schema, compression="zstd")
        assert self._file is not None
        self._file.write_table(table, row_group_size=GROUP_ROWS)
        self._counts[self._split] += table.num_rows

    def _end_split(self) -> None:
        if self._pending or (self._split and not self._parts[self._split]):
            self._flush()
        self._close_part()

    def _close_part(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _finish(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            with suppress(OSError):  # the error that is being raised already says what happened
                self._close_part()
            return
        if not self._split:
            self.write([])
        self._end_split()
        for split, files in self._parts.items():
            for i, path in enumerate(files):
                path.rename(path.with_name(f"{split}-{i:05d}-of-{len(files):05d}.parquet"))
        ours = {
            "format": FORMAT,
            "domain": self._domain,
            "counts": self._counts,
            "content_hash": self._hash.hexdigest(),
        }
        manifest = ours | {key: value for key, value in self._manifest.items() if key not in ours}
        languages = sorted(code for code in self._languages if code and re.fullmatch("[a-z]{2,3}", code))
        text, card = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n", self._folder / "README.md"
        (self._folder / MANIFEST).write_text(text, encoding="utf-8", errors="replace")
        card.write_text(dataset_card(manifest, self._schema, languages), encoding="utf-8", errors="replace")
        if (decided := self._path / DECISIONS).is_file():  # a person's work; it says which content it is about
            shutil.copyfile(decided, self._folder / DECISIONS)


def _hash_records(digest: Any, table: pa.Table) -> None:
    """Update `digest` with each record as canonical JSON, one a line, without the time it was generated at."""
    for record in table.to_pylist():
        if record.get("provenance"):
            record["provenance"].pop("generated_at", None)
        line = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
        digest.update(line.encode() + b"\n")
