"""Rows of anyone's data: JSON, tables, Parquet, texts, archives, folders, Hugging Face. What can't be read is named."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genesis_lab.dataset.columns import keyed, parted
from genesis_lab.dataset.folder import MANIFEST, open_dataset
from genesis_lab.domains import DOMAINS, get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.domains.foreign import Reader, walk
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import dataset_path, output_root, resolve, shown
from genesis_lab.settings import get_settings
from genesis_lab.yamls import parse_yaml, read_yaml, shipped

HUB = "hf:"
_FILES = Path(__file__).with_name("files.yaml")
_ANY_TABLE = Reader((), {}, {})
_RECORD_LISTS = ("data", "records", "dialogues", "rows", "items")
_UNPACKED = 4 * 2**30  # most bytes that an archive may hold


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, or a document whole. `number` counts from 1 (lines of a JSONL file).

    `value` is None if `problem` says why; `place` is the file, of several.
    """

    split: str
    number: int
    value: Any
    problem: str | None = None
    place: str = ""


def read_rows(source: str | Path, reader: Reader = _ANY_TABLE) -> Iterator[Row]:
    """Each row of `source`, in order, one split after the other; `InvalidInput` where it can't be read at all.

    `reader` knows what columns are called, so that a table's header is found.
    """
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source).removeprefix(HUB))
        return
    path = locate(source)
    reader.beside = _label_names(path if path.is_dir() else path.parent)
    try:
        yield from _folder_rows(path, reader) if path.is_dir() else file_rows(path, reader)
    except OSError as error:
        raise InvalidInput(f"{path.name} can't be read: {error.strerror or error}.") from None


def read_records(source: str | Path, domain: Domain, field_map: Mapping[str, str]) -> list[dict[str, Any]]:
    """The records of `source` as the domain's reader finds them, unchecked; rows that can't be read are left out."""
    reader = domain.reader(field_map)
    return [reader.read(row.value)[0] for row in reader.gathered(read_rows(source, reader)) if row.value]


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
        return {"name": self.name, "kind": self.kind, "split": "all", "n": len(self.records), "digest": self.digest}


def real_records(name: str, domain: Domain) -> Real:
    """The real records of that name, see `reference_file`; `InvalidInput` where none is what `domain` reads."""
    file, essential = reference_file(name), domain.reader({}).essential
    records = [record for record in read_records(file, domain, {}) if all(record.get(field) for field in essential)]
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
    files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in READERS]
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
    raise InvalidInput(f"There is no file or folder {shown(given)}: give a path, or hf:owner/name for the hub.")


def _folder_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The records of a dataset, else the rows of all files, each with its place; a text's is its folder's."""
    if (path / MANIFEST).exists():
        dataset = open_dataset(path)
        records = ((split, record) for split in dataset.counts for record in dataset.records(split))
        yield from (Row(split, number, record) for number, (split, record) in enumerate(records, 1))
        return
    if not (files := files_in(path)):
        raise InvalidInput(f"{shown(path)} holds no dataset and no file of data.")
    for file in files:
        name = file.relative_to(path)
        told = f"{name.parent.name}.txt" if file.suffix == ".txt" and len(name.parts) > 1 else name.as_posix()
        yield from (replace(row, place=row.place or told) for row in file_rows(file, reader))


def _hub_rows(name: str) -> Iterator[Row]:
    """Rows of a dataset on the hub; numbers that stand for a class become its name."""
    import datasets

    repository, _, split = name.partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise InvalidInput(f"{HUB}{name} names no dataset of the hub: expected hf:owner/name or hf:owner/name:split.")
    token, told = get_settings().hf_token, f"The hub's dataset {repository} can't be"
    secret = token.get_secret_value() if token else None
    try:
        found = datasets.load_dataset(repository, split=split or None, token=secret)
    except (datasets.exceptions.DatasetNotFoundError, ValueError, RuntimeError) as error:
        what = "check its name, or take a copy in Parquet"
        raise InvalidInput(f"{told} used ({one_line(error)}): {what}.") from None
    except Exception as error:
        raise Unavailable(f"{told} reached: {one_line(error)}") from None
    numbers = itertools.count(1)
    for part_name, part in (found if isinstance(found, dict) else {split.partition("[")[0] or "train": found}).items():
        class_names = {column: f.names for column, f in part.features.items() if hasattr(f, "int2str")}
        place = re.sub(r"\W+", "_", str(part_name))
        yield from (Row(place, next(numbers), named(record, class_names)) for record in part)


def file_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The rows of a file by its ending, or, where that says nothing, by how it begins."""
    ending = path.suffix.lower()
    if ending in (".gz", ".zip"):
        yield from _archive_rows(path, reader)
    elif ending in READERS:
        yield from READERS[ending](path, reader)
    else:
        with path.open("rb") as file:
            begin = file.read(4_000).decode(_encoding(path), "replace").strip()
        if "\0" in begin or begin.count("\ufffd") * 10 > len(begin) or not begin:
            known = ", ".join([*READERS, ".gz", ".zip"])
            raise InvalidInput(f"{path.name} has an unknown ending: expected a dataset folder or one of {known}.")
        yield from (_json_rows if begin[0] in "{[" else _csv_rows)(path, reader)


def files_in(folder: Path) -> list[Path]:
    """The files of data in a folder, in order; none that only says something about the others."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in {*READERS, ".gz"}]
    hidden = [file for file in files if any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)]
    return [
        file
        for file in files
        if file.is_file() and file not in hidden and file.stem.lower() not in shipped(_FILES)["about"]
    ]


def _label_names(folder: Path) -> tuple[str, list[str]]:
    """The file in a folder that says what labels are called, and their names in the order of their codes."""
    for file in (folder / name for name in shipped(_FILES)["labels"]):
        with suppress(Exception):  # there is none, or something else of that name
            text = file.read_text("utf-8-sig")
            held = text.split("\n") if file.suffix == ".txt" else parse_yaml(text.split("---")[file.suffix == ".md"])
            paths = ("id2label",), ("class_label", "names")
            names, _ = next(itertools.chain(*(walk(held, ["**", *path]) for path in paths), [(held, ())]))
            listed = [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else names
            if 1 < len(set(listed := [name.strip() for name in listed if name.strip()])) == len(listed):
                return file.name, listed
    return "", []


def _archive_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The rows of what is packed, unpacked into a folder that goes again."""
    with TemporaryDirectory(prefix="genesis-") as scratch:
        try:
            if path.suffix.lower() == ".gz":
                inner = Path(scratch) / path.stem
                with gzip.open(path) as packed, inner.open("wb") as file:
                    while (block := packed.read(2**20)) and file.tell() <= _UNPACKED:
                        file.write(block)
                size = inner.stat().st_size
            else:
                with zipfile.ZipFile(path) as packed:
                    size = sum(member.file_size for member in packed.infolist())
                    if size <= _UNPACKED:  # extractall() leaves out drives and ".."
                        packed.extractall(scratch)
        except (zipfile.BadZipFile, EOFError, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
            raise InvalidInput(f"{path.name} can't be unpacked: {one_line(error)}.") from None
        if size > _UNPACKED:
            most = f"{_UNPACKED >> 30} GiB"
            raise InvalidInput(f"{path.name} holds more than {most}: unpack it and give the file meant.")
        yield from file_rows(inner, reader) if path.suffix.lower() == ".gz" else _folder_rows(Path(scratch), reader)


def _json_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The items of a list, or the document as one row."""
    try:
        data = json.loads(path.read_bytes().decode(_encoding(path), "surrogateescape"))
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):
            return _json_lines(path, reader)
        raise InvalidInput(f"{path.name} is no JSON: {error}.") from None
    if isinstance(data, dict):
        names = [*(get_domain(domain).facets.unit for domain in DOMAINS), *_RECORD_LISTS]
        lists = [data[name] for name in names if isinstance(data.get(name), list)]
        data = lists[0] if len(lists) == 1 and any(isinstance(each, dict) for each in lists[0]) else [data]
    if not isinstance(data, list):
        raise InvalidInput(f"{path.name} must hold a list of records, got {type(data).__name__}.")
    return (Row("train", number, value) for number, value in enumerate(data, 1))


def _json_lines(path: Path, reader: Reader) -> Iterator[Row]:
    with path.open(encoding=_encoding(path), errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip():
                    yield Row("train", number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Row("train", number, None, f"the line is no JSON: {str(error)[:120]}")


def _csv_rows(path: Path, reader: Reader) -> Iterator[Row]:
    with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as file:
        yield from (Row("train", *row) for row in keyed(parted(file), reader.knows))


def _sheet_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The rows of every sheet of a workbook that holds any; of several, each is a place."""
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidInput(f"{path.name} is no workbook that can be read: {one_line(error)}.") from None
    for sheet in book.worksheets:
        cells = (["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
        place = sheet.title if len(book.worksheets) > 1 else ""
        yield from (Row("train", *row, place) for row in keyed(cells, reader.knows))
    book.close()


def _text_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The text as one document."""
    text = path.read_bytes().decode(_encoding(path), "surrogateescape").replace("\r\n", "\n")
    if text.lstrip()[:1] == "{":
        yield from _json_rows(path, reader)
    elif text.count("\t") >= len(text.strip().splitlines()) > 0:
        yield from _csv_rows(path, reader)
    elif text.strip():
        yield Row("train", 1, text)


def _yaml_rows(path: Path, reader: Reader) -> Iterator[Row]:
    found = read_yaml(path)
    yield from (Row("train", n, value) for n, value in enumerate(found if isinstance(found, list) else [found], 1))


def _parquet_rows(path: Path, reader: Reader) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            features = about.get("info", {}).get("features", {})
            class_names = {n: f["names"] for n, f in features.items() if isinstance(f, dict) and f.get("names")}
            values = (value for batch in file.iter_batches(batch_size=5_000) for value in batch.to_pylist())
            yield from (Row("train", n, named(value, class_names)) for n, value in enumerate(values, 1))
    except pa.ArrowException as error:
        raise InvalidInput(f"{path.name} is no readable Parquet file: {one_line(error)}") from None


def named(record: dict[str, Any], class_names: dict[str, list[str]]) -> dict[str, Any]:
    """A record with the names of its classes in place of their numbers."""
    for column, names in class_names.items():
        if isinstance(value := record.get(column), int) and 0 <= value < len(names):
            record[column] = names[value]
    return record


def _encoding(path: Path) -> str:
    """UTF-16 by its mark or its zeros, UTF-8, or Windows-1252 where hardly anything beyond ASCII is UTF-8."""
    if not path.stat().st_size:
        return "utf-8-sig"
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
        if re.match(rb"[^\0]\0.\0|\0[^\0]\0.", data):
            return "utf-16-le" if data[0] else "utf-16-be"
        letters = [len(found[0]) for found in re.finditer(rb"[\xc2-\xf4][\x80-\xbf]{1,3}", data)]
        beyond = sum(len(found[0]) for found in re.finditer(rb"[\x80-\xff]+", data))
    return "cp1252" if beyond - sum(letters) > len(letters) else "utf-8-sig"


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


READERS = {
    ".json": _json_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".xlsx": _sheet_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
    ".md": _text_rows,
    ".yml": _yaml_rows,
    ".yaml": _yaml_rows,
}
