"""Rows of one file of anyone's, by its ending or by how it begins: tables, JSON, workbooks, texts, archives."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genesis_lab.dataset.columns import keyed, parted
from genesis_lab.domains import DOMAINS, get_domain
from genesis_lab.domains.foreign import Reader
from genesis_lab.errors import InvalidInput
from genesis_lab.yamls import read_yaml

_RECORD_LISTS = ("data", "records", "dialogues", "rows", "items")
_UNPACKED = 4 * 2**30
"""Most bytes that an archive may hold."""


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
    return [file for file in files if file.is_file() and file not in hidden and file.stem.lower() not in _ABOUT]


def files_rows(folder: Path, reader: Reader) -> Iterator[Row]:
    """The rows of all files in a folder, each with its place; texts in folders of their own have the folder's."""
    for file in files_in(folder):
        name = file.relative_to(folder)
        told = f"{name.parent.name}.txt" if file.suffix == ".txt" and len(name.parts) > 1 else name.as_posix()
        yield from (replace(row, place=row.place or told) for row in file_rows(file, reader))


def _archive_rows(path: Path, reader: Reader) -> Iterator[Row]:
    """The rows of what is packed, unpacked into a folder that goes again."""
    with TemporaryDirectory(prefix="genesis-") as scratch:
        try:
            if path.suffix.lower() == ".gz":
                inner = Path(scratch) / path.stem
                with gzip.open(path) as packed, inner.open("wb") as file:
                    while block := packed.read(2**20):
                        _check_size(file.tell() + len(block), path)
                        file.write(block)
                yield from file_rows(inner, reader)
                return
            with zipfile.ZipFile(path) as packed:
                _check_size(sum(member.file_size for member in packed.infolist()), path)
                for member in packed.infolist():  # extract() leaves out drives and ".."
                    if not member.is_dir() and not member.filename.startswith("__MACOSX"):
                        packed.extract(member, scratch)
        except (zipfile.BadZipFile, EOFError, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
            raise InvalidInput(f"{path.name} can't be unpacked: {one_line(error)}.") from None
        yield from files_rows(Path(scratch), reader)


def _check_size(size: int, path: Path) -> None:
    if size > _UNPACKED:
        raise InvalidInput(f"{path.name} holds more than {_UNPACKED >> 30} GiB: unpack it and give the file meant.")


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
        data = next(
            (found for found in lists if len(lists) == 1 and any(isinstance(each, dict) for each in found)), [data]
        )
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
        if form := next((name for name, zeros in _UTF16.items() if re.match(zeros, data)), None):
            return form
        bad = sum(len(found[0]) for found in re.finditer(rb"[\x80-\xff]+", data))
        letters = 0
        for found in re.finditer(rb"[\xc2-\xf4][\x80-\xbf]{1,3}", data):
            letters, bad = letters + 1, bad - len(found[0])
    return "cp1252" if bad > letters else "utf-8-sig"


_UTF16 = {"utf-16-le": rb"[^\0]\0.\0", "utf-16-be": rb"\0[^\0]\0."}


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


READERS = {
    ".json": _json_rows, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_rows, ".tsv": _csv_rows,
    ".xlsx": _sheet_rows, ".parquet": _parquet_rows, ".txt": _text_rows, ".md": _text_rows, ".yml": _yaml_rows,
    ".yaml": _yaml_rows,
}  # fmt: skip
_ABOUT = {
    "readme", "license", "licence", "copying", "citation", "changelog", "package", "agent", "dataset_info",
    "dataset_infos", "schema", "ontology", "config", "domain", "rules", "stories", "endpoints", "credentials",
    "reference",
}  # fmt: skip
"""Files that stand beside data."""
