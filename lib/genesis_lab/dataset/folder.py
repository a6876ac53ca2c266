"""Reading a dataset folder: parts, frames, batches, SQL, and the reports kept with it."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from genesis_lab import __version__
from genesis_lab.domains import DOMAINS, get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path, output_root, recovered, shown, write_atomically
from genesis_lab.texts import normal

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
DECISIONS = "curation.jsonl"
FORMAT = 1
"""What a manifest says as ``format``."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk. Nothing of it is held in memory but its manifest."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def domain(self) -> str:
        return str(self.manifest["domain"])

    @property
    def content_hash(self) -> str:
        """SHA-256 over the records in order, whenever and wherever they were made."""
        return str(self.manifest["content_hash"])

    @property
    def counts(self) -> dict[str, int]:
        """Records of each split, in order."""
        return dict(self.manifest["counts"])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def unit(self) -> str:
        """What its records are called: those that would be chats, and are one message each, are utterances."""
        facets = get_domain(self.domain).facets
        if facets.preview != "chat" or not self.total:
            return facets.unit
        longest = self.sql(f"SELECT max(len({facets.texts})) FROM data").iloc[0, 0]
        return "utterances" if longest == 1 else facets.unit

    @property
    def schema(self) -> pa.Schema:
        return pq.read_schema(self.parts()[0])

    def parts(self, split: str | None = None) -> list[Path]:
        """The Parquet files in order, of one split or of all."""
        if split is not None:
            _known(self, "split", [split], list(self.counts))
        return [part for name in self.counts if split in (None, name) for part in _parts(self.path, name)]

    def batches(
        self, size: int = 10_000, columns: Sequence[str] | None = None, split: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The records in order, at most `size` at a time."""
        for part in self.parts(split):
            with pq.ParquetFile(part) as file:
                _known(self, "column", columns or (), file.schema_arrow.names)
                yield from file.iter_batches(batch_size=size, columns=columns and list(columns))

    def records(self, split: str | None = None) -> Iterator[dict[str, Any]]:
        """The records in order."""
        return (record for batch in self.batches(split=split) for record in batch.to_pylist())

    def frame(self, split: str | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The records as a DataFrame: all of them in memory, so name the columns you need of a large dataset."""
        _known(self, "column", columns or (), self.schema.names)
        parts = [str(part) for part in self.parts(split)]
        return pq.read_table(parts, columns=columns and list(columns), partitioning=None).to_pandas()

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """The answer of a DuckDB query; the records are in the table ``data``, which also has a column ``split``.

        `parameters` are the values for its ``?``; a wrong query is `InvalidInput` with DuckDB's message.
        """
        import duckdb

        with duckdb.connect() as connection:
            selects = []
            for i, split in enumerate(self.counts):
                files = [glob.escape(str(part)) for part in self.parts(split)]
                connection.read_parquet(files).create_view(f"part_{i}")
                selects.append(f"SELECT *, '{split}' AS split FROM part_{i}")
            connection.execute(f"CREATE VIEW data AS {' UNION ALL '.join(selects)}")
            try:
                found = connection.sql(query, params=list(parameters))
                zoned = "TIME ZONE" in str(found.types)  # for which DuckDB would need pytz
                return found.to_arrow_table().to_pandas() if zoned else found.df()
            except duckdb.Error as error:
                raise InvalidInput(f"The query can't be answered: {' '.join(str(error).split())}") from None


def _known(dataset: Dataset, what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InvalidInput(f"Dataset {dataset.name} has no {what} {name!r}: it has {', '.join(known)}.")


def open_dataset(name_or_path: str | Path) -> Dataset:
    """The dataset of that name under ``outputs/datasets``, or in that folder; `InvalidInput` if damaged or none."""
    path = recovered(dataset_path(name_or_path))
    damaged = f"Dataset {shown(path)} is damaged:"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        counts = {str(split): int(n) for split, n in manifest["counts"].items()}
        if not counts or not all(map(is_split_name, counts)) or not {"domain", "content_hash"} <= manifest.keys():
            raise ValueError
        held = {split: sum(pq.read_metadata(part).num_rows for part in _parts(path, split)) for split in counts}
    except (FileNotFoundError, NotADirectoryError):
        if path.exists():
            raise InvalidInput(f"{shown(path)} is no dataset folder (it has no {MANIFEST}): import it first.") from None
        there = ", ".join(dataset_names()) or "none yet"
        raise InvalidInput(f"There is no dataset {shown(path)}: there are {there}.") from None
    except (OSError, pa.ArrowException, ValueError, KeyError, AttributeError, TypeError):
        raise InvalidInput(f"{damaged} its {MANIFEST} or a part of it can't be read.") from None
    for split, n in counts.items():
        if held[split] != n:
            raise InvalidInput(f"{damaged} split {split!r} has {held[split]:,} of {n:,} records.")
    return Dataset(path, manifest)


def open_filled(name_or_path: str | Path) -> Dataset:
    """As `open_dataset`, for whoever works on records: one without any is refused with `InvalidInput`."""
    dataset = open_dataset(name_or_path)
    if not dataset.total:
        raise InvalidInput(f"{shown(dataset.path)} holds no records: generate or import it again.")
    return dataset


def is_dataset(path: Path) -> bool:
    """Whether a folder is a dataset that was written here, by format and domain in its manifest, and nothing else."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        ours = manifest["format"] == FORMAT and manifest["domain"] in DOMAINS
        held = {file.name for file in path.iterdir() if file.name[0] != "."}
        only = held <= {MANIFEST, DECISIONS, "README.md", "data", "reports"}
        return ours and only and all(file.suffix == ".parquet" for file in (path / "data").iterdir())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_split_name(name: str) -> bool:
    """Whether `datasets` accepts it as the name of a split."""
    return re.fullmatch(r"\w+", name, re.ASCII) is not None


def _parts(path: Path, split: str) -> list[Path]:
    return sorted((path / "data").glob(f"{split}-?????-of-?????.parquet"))


def dataset_names() -> dict[str, str]:
    """The datasets under ``outputs/datasets``, each with how much it holds: ``770 conversations``."""
    held = dict[str, str]()
    for found in sorted((output_root() / "datasets").glob(f"[!.]*/{MANIFEST}")):
        try:
            dataset = open_dataset(found.parent)
            held[dataset.name] = f"{dataset.total:,} {dataset.unit}"
        except InvalidInput as error:
            held[found.parent.name] = str(error).split(": ")[-1]
    return held


def labelled(dataset: Dataset) -> pd.DataFrame:
    """Every record's ``text``, ``label``, ``language``, ``group_by`` and ``split``, in order; None: it has none."""
    facets = get_domain(dataset.domain).facets
    if facets.text is None or facets.label is None:
        raise InvalidInput(f"Labels of texts are asked for, and {dataset.domain} have none: give another dataset.")
    rows = dataset.sql(
        f"SELECT {facets.text} AS text, CASE WHEN trim({facets.label}) <> '' THEN {facets.label} END AS label, "
        f"{facets.language or 'NULL'} AS language, {facets.group or 'NULL'} AS group_by, split FROM data"
    )
    rows = rows.map(normal).astype(object)
    return rows.where(rows.notna(), None)


def write_report(dataset: Dataset, kind: str, report: Mapping[str, Any]) -> Path:
    """Keep a JSON-safe report with the dataset it is about, as ``reports/<kind>.json``; return the path."""
    path = dataset.path / "reports" / f"{kind}.json"
    write_atomically(path, json.dumps(report, indent=1, ensure_ascii=False, default=str) + "\n")
    return path


def read_reports(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The reports kept with the dataset, by kind; `InvalidInput` if one can't be read."""
    reports = {}
    for path in sorted(dataset.path.glob("reports/*.json")):
        try:
            reports[path.stem] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise InvalidInput(f"{shown(path)} can't be read: delete it, and it is made anew.") from None
    return reports


def remembered(
    dataset: Dataset, kind: str, settings: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The report of this kind that is kept with the dataset, if it was made with these settings; else made and kept.

    `settings` are all that shapes the report besides the dataset; they are kept in it as ``made_with``.
    """
    made_with = json.loads(json.dumps({"version": __version__, "content_hash": dataset.content_hash, **settings}))
    kept = read_reports(dataset).get(kind, {})
    if kept.get("made_with") != made_with:
        write_report(dataset, kind, {**make(), "made_with": made_with})
        kept = read_reports(dataset)[kind]
    return kept
