"""Rows of anyone's data: JSON, JSONL, CSV, Parquet, a dataset folder, Hugging Face. What can't be read is named."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from genesis_lab.dataset.folder import MANIFEST, open_dataset
from genesis_lab.dataset.spreadsheet import plain_cell
from genesis_lab.domains import DOMAINS, get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import dataset_path, output_root, resolve, shown
from genesis_lab.settings import get_settings

HUB = "hf:"
_RECORD_LISTS = ("data", "records", "dialogues", "rows", "items")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source. `number` counts from 1 (lines of a JSONL file); `value` is None if `problem` says why."""

    split: str
    number: int
    value: dict[str, Any] | None
    problem: str | None = None


def read_rows(source: str | Path) -> Iterator[Row]:
    """Each row of `source`, in order, one split after the other; `InvalidInput` where it can't be read at all."""
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source).removeprefix(HUB))
        return
    path = locate(source)
    read = _folder_rows if path.is_dir() else _READERS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(_READERS)
        raise InvalidInput(f"{path.name} has an unknown ending: expected a dataset folder or one of {known}.")
    try:
        yield from read(path)
    except OSError as error:
        raise InvalidInput(f"{path.name} can't be read: {error.strerror or error}.") from None


def read_records(
    source: str | Path, domain: Domain, field_map: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The records of `source` as the domain's reader finds them, unchecked; rows that can't be read are left out."""
    reader = domain.reader(field_map or {})
    return [reader.read(row.value)[0] for row in reader.gathered(read_rows(source)) if row.value]


@dataclass(frozen=True)
class Real:
    """Real records to measure against, as they were read."""

    name: str
    records: list[dict[str, Any]]
    kind: str = "real"

    def __str__(self) -> str:
        return f"{self.name} (n = {len(self.records):,})"

    @property
    def digest(self) -> str:
        """Two results with the same digest are about the same records."""
        return hashlib.sha256(json.dumps(self.records, default=str, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """What reports show about it; never its records."""
        about = {"name": self.name, "kind": self.kind, "split": "all"}
        return about | {"n": len(self.records), "digest": self.digest}


def real_records(name: str, domain: Domain) -> Real:
    """The real records of that name, see `reference_file`; `InvalidInput` where none is what `domain` reads."""
    file, essential = reference_file(name), domain.reader({}).essential
    records = [record for record in read_records(file, domain) if all(record.get(field) for field in essential)]
    if not records:
        what = f"each record must have {' and '.join(essential)}"
        raise InvalidInput(f"Reference {name!r} holds no {domain.facets.unit}: {what}.")
    return Real(file.stem if Path(name).name != name else name, records)


def reference_file(name: str) -> Path:
    """Where real data of that name lies: a file, a dataset, or a folder with one file or with ``test`` among them.

    Folders lie in ``GENESIS_REFERENCE_DIR``, then in ``outputs/reference``.
    """
    homes = [home for home in (get_settings().reference_dir, output_root() / "reference") if home]
    place = next((home / name for home in homes if (home / name).is_dir()), None) or locate(name)
    if not place.is_dir() or (place / MANIFEST).exists():
        return place
    files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in _READERS]
    if len(files := [file for file in files if file.stem == "test"] or files) != 1:
        raise InvalidInput(f"Reference {name!r} must be a folder with one file of records, or with test among them.")
    return files[0]


def source_name(source: str | Path) -> str:
    """`source` as it may be written into a manifest: no path of this machine."""
    return str(source) if str(source).startswith(HUB) else shown(locate(source))


def locate(source: str | Path) -> Path:
    """The file or folder meant: from the working directory, the project root, or the name of a dataset."""
    given = Path(source).expanduser()
    for path in (given.absolute(), resolve(given), dataset_path(given)):
        if path.exists():
            return path
    raise InvalidInput(
        f"There is no file or folder {shown(given)}: give a path, or hf:owner/name for the Hugging Face hub."
    )


def _row(number: int, value: Any, split: str = "train") -> Row:
    if isinstance(value, dict):
        return Row(split, number, value)
    return Row(split, number, None, f"expected an object with fields, got {str(value)[:60]!r}")


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        data = json.loads(path.read_bytes().decode(_encoding(path), "surrogateescape"))
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):
            raise InvalidInput(f"{path.name} holds one JSON value per line: rename it to .jsonl.") from None
        raise InvalidInput(f"{path.name} is no JSON: {error}.") from None
    if isinstance(data, dict):
        names = [*(get_domain(domain).facets.unit for domain in DOMAINS), *_RECORD_LISTS]
        data = next((data[name] for name in names if isinstance(data.get(name), list)), [data])
    if not isinstance(data, list):
        raise InvalidInput(f"{path.name} must hold a list of records, got {type(data).__name__}.")
    return itertools.starmap(_row, enumerate(data, 1))


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding=_encoding(path), errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip():
                    yield _row(number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Row("train", number, None, f"the line is no JSON: {str(error)[:120]}")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as file:
        first = file.readline()
        reader = csv.reader(itertools.chain([first], file), delimiter=max(",;\t", key=first.count))
        header = [name.strip() for name in next(reader, [])]
        for number in itertools.count(1):
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row("train", number, None, f"the row is no CSV: {error}")
                continue
            if cells and len(cells) != len(header):
                yield Row("train", number, None, f"the row has {len(cells)} cells, the header {len(header)}")
            elif cells:
                yield Row(
                    "train", number, {name: plain_cell(cell) or None for name, cell in zip(header, cells, strict=True)}
                )


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            values = (value for batch in file.iter_batches(batch_size=5_000) for value in batch.to_pylist())
            yield from itertools.starmap(_row, enumerate(values, 1))
    except pa.ArrowException as error:
        raise InvalidInput(f"{path.name} is no readable Parquet file: {_one_line(error)}") from None


def _folder_rows(path: Path) -> Iterator[Row]:
    if (path / MANIFEST).exists():
        dataset = open_dataset(path)
        records = ((s, r) for s in dataset.counts for batch in dataset.batches(split=s) for r in batch.to_pylist())
        yield from (_row(number, record, split) for number, (split, record) in enumerate(records, 1))
        return
    import datasets

    try:
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:
        raise InvalidInput(f"{shown(path)} holds no dataset that can be read: {_one_line(error)}") from None
    yield from _hf_rows(found, "train")


def _hub_rows(name: str) -> Iterator[Row]:
    import datasets

    repository, _, split = name.partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise InvalidInput(
            f"{HUB}{name} is no dataset of the Hugging Face hub: expected hf:owner/name or hf:owner/name:split."
        )
    token = get_settings().hf_token
    secret = token.get_secret_value() if token else None
    try:
        found = datasets.load_dataset(repository, split=split or None, token=secret)
    except (datasets.exceptions.DatasetNotFoundError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"The hub's dataset {repository} can't be used ({_one_line(error)}): check its name, or take a copy in Parquet."
        ) from None
    except Exception as error:
        raise Unavailable(f"The hub's dataset {repository} can't be reached: {_one_line(error)}") from None
    yield from _hf_rows(found, split or "train")


def _hf_rows(found: Any, split: str) -> Iterator[Row]:
    """Rows of a dataset of `datasets`; numbers that stand for a class become its name."""
    parts = found if isinstance(found, dict) else {split.partition("[")[0]: found}
    numbers = itertools.count(1)
    for name, part in parts.items():
        class_names = {column: f.names for column, f in part.features.items() if hasattr(f, "int2str")}
        for record in part:
            for column, names in class_names.items():
                if isinstance(value := record[column], int) and 0 <= value < len(names):
                    record[column] = names[value]
            yield Row(re.sub(r"\W+", "_", str(name)), next(numbers), record)


def _encoding(path: Path) -> str:
    """UTF-16 by its mark or its zeros, UTF-8, or Windows-1252 where hardly anything beyond ASCII is UTF-8."""
    if not path.stat().st_size:
        return "utf-8-sig"
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
        if form := next((name for name, zeros in _UTF16.items() if re.match(zeros, data)), None):
            return form
        bad = sum(len(found[0]) for found in re.finditer(rb"[\x80-\xff]+", data))
        letters = 0
        for found in re.finditer(rb"[\xc2-\xf4][\x80-\xbf]{1,3}", data):
            letters, bad = letters + 1, bad - len(found[0])
    return "cp1252" if bad > letters else "utf-8-sig"


_UTF16 = {"utf-16-le": rb"[^\0]\0.\0", "utf-16-be": rb"\0[^\0]\0."}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


_READERS = {
    ".json": _json_rows, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_rows, ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
}  # fmt: skip
