"""Writing a dataset folder with its card, record by record: whole at the end, or not there at all; and its splits."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genesis_lab.dataset.folder import DECISIONS, FORMAT, MANIFEST, is_dataset, is_split_name
from genesis_lab.dataset.schema import schema_of
from genesis_lab.domains import get_domain
from genesis_lab.domains.quotas import whole_groups
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed

PART_ROWS = 50_000
"""Records in one Parquet file."""
GROUP_ROWS = 10_000
"""Records in one row group: what is held in memory while writing. Divides `PART_ROWS`."""
_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class DatasetWriter:
    """Writes records into a new dataset folder, which appears with manifest and card on a clean exit, or not at all.

    `manifest` : what else the manifest shall say, read on exit. No clock times: the same records make the same bytes.
    `replace` : replace the dataset that is there, if one is.
    """

    def __init__(
        self, path: Path, domain: str, manifest: Mapping[str, Any] | None = None, *, replace: bool = False
    ) -> None:
        self._path, self._domain, self._replace = path, domain, replace
        self._manifest = {} if manifest is None else manifest
        self._schema, self._language = schema_of(domain), get_domain(domain).facets.language
        self._pending: list[dict[str, Any]] = []
        self._counts: dict[str, int] = {}
        self._languages: set[str | None] = set()
        self._hash, self._split, self._open = hashlib.sha256(), "", ExitStack()

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
            self._split, self._counts[split] = split, 0
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
        if (n := self._counts[self._split]) % PART_ROWS == 0:
            self._open.close()
            part = pq.ParquetWriter(self._part(self._split, n // PART_ROWS), self._schema, compression="zstd")
            self._file = self._open.enter_context(part)
        self._file.write_table(table, row_group_size=GROUP_ROWS)
        self._counts[self._split] += table.num_rows

    def _end_split(self) -> None:
        if self._pending or self._counts.get(self._split) == 0:
            self._flush()
        self._open.close()

    def _part(self, split: str, number: int, of: str = "") -> Path:
        return self._folder / "data" / f"{split}-{number:05d}{of}.parquet"

    def _finish(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            with suppress(OSError):  # the error that is being raised already says what happened
                self._open.close()
            return
        if not self._split:
            self.write([])
        self._end_split()
        for split, n in self._counts.items():
            parts = max(1, -(-n // PART_ROWS))
            for i in range(parts):
                self._part(split, i).rename(self._part(split, i, f"-of-{parts:05d}"))
        ours = {"format": FORMAT, "domain": self._domain, "counts": self._counts}
        ours["content_hash"] = self._hash.hexdigest()
        manifest = ours | {key: value for key, value in self._manifest.items() if key not in ours}
        languages = sorted(code for code in self._languages if code and re.fullmatch("[a-z]{2,3}", code))
        text, card = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n", self._folder / "README.md"
        (self._folder / MANIFEST).write_text(text, encoding="utf-8", errors="replace")
        card.write_text(_card(manifest, self._schema, languages), encoding="utf-8", errors="replace")
        if (decided := self._path / DECISIONS).is_file():  # a person's work; it says which content it is about
            shutil.copyfile(decided, self._folder / DECISIONS)


def _hash_records(digest: Any, table: pa.Table) -> None:
    """Update `digest` with each record as canonical JSON, one a line, without the time it was generated at."""
    for record in table.to_pylist():
        if record.get("provenance"):
            record["provenance"].pop("generated_at", None)
        digest.update(_JSON.encode(record).encode() + b"\n")


def _card(manifest: Mapping[str, Any], schema: pa.Schema, languages: Sequence[str]) -> str:
    """The Hugging Face dataset card: a YAML header that the hub reads, a page that people read, all of it escaped."""
    from huggingface_hub import DatasetCard, DatasetCardData

    total, domain, made = sum(manifest["counts"].values()), manifest["domain"], manifest.get("generation")
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in manifest["counts"]]
    header = DatasetCardData(
        pretty_name=f"{domain}: {total:,} records",
        task_categories=list(get_domain(domain).facets.task_categories) or None,
        size_categories=[next((label for bound, label in _SIZES if total < bound), "1M<n<10M")],
        tags=["genesis-lab", *(["synthetic"] if made else [])],
        configs=[{"config_name": "default", "data_files": files}],
        language=list(languages) or None,
        annotations_creators=["machine-generated"] if made else None,
    )
    told: dict[str, Any] = {
        "title": header.pretty_name,
        "columns": {field.name: _type(field.type) for field in schema},
        "e": escaped,
    }
    page = str(Path(__file__).with_name("card.md.j2"))
    return str(DatasetCard.from_template(header, page, **manifest, **told))


def escaped(value: object) -> str:
    """One line of text without control characters and without a meaning in Markdown or HTML."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", str(value)).split())[:200]
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(line, quote=False))


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return f"{{{', '.join(field.name for field in kind)}}}" if pa.types.is_struct(kind) else str(kind)


def assign_splits(
    groups: Sequence[Hashable] | NDArray[Any],
    fractions: Mapping[str, float],
    *,
    labels: Sequence[Hashable] | NDArray[Any] | None = None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The split of each record as its place in `fractions`, shape (n,); groups stay whole, see `whole_groups`."""
    for name, share in fractions.items():
        if not is_split_name(name) or not 0 < share <= 1:
            must = "above 0 and at most 1, and its name made of letters, digits and underscores"
            raise InvalidInput(f"The share of split {name!r} must be {must}, got {share:g}.")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise InvalidInput(f"The shares of the splits must add up to 1, got {sum(fractions.values()):g}.")
    each = (np.asarray(one, dtype=object) for one in (groups, np.zeros(len(groups)) if labels is None else labels))
    group, label = (pd.factorize(one, use_na_sentinel=False)[0] for one in each)
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < len(fractions):
        what = f"of {len(group):,}, only {n_groups:,} may be told apart (the others must stay with one of these)"
        raise InvalidInput(f"Too few records for {len(fractions)} splits: {what}; add more and more varied ones.")
    split_of = whole_groups(group, label, list(fractions.values()), rng)
    for i, (name, share) in enumerate(fractions.items()):
        if i not in split_of:
            why = f"{n_groups:,} groups of records are too few for a share of {share:g}"
            raise InvalidInput(f"Split {name!r} would stay empty: {why}.")
    return np.asarray(split_of[group])
