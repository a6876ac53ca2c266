"""Rows of anyone's data: JSON, tables, Parquet, texts, archives, folders, Hugging Face. What can't be read is named."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genesis_lab.dataset.folder import MANIFEST, open_dataset
from genesis_lab.dataset.foreign import READERS, Row, file_rows, files_in, files_rows, named, one_line
from genesis_lab.domains.base import Domain
from genesis_lab.domains.foreign import Reader
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import dataset_path, output_root, resolve, shown
from genesis_lab.settings import get_settings

HUB = "hf:"
_ANY_TABLE = Reader((), {}, {})


def read_rows(source: str | Path, reader: Reader = _ANY_TABLE) -> Iterator[Row]:
    """Each row of `source`, in order, one split after the other; `InvalidInput` where it can't be read at all.

    `reader` knows what columns are called, so that a table's header is found.
    """
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source).removeprefix(HUB))
        return
    path = locate(source)
    try:
        yield from _folder_rows(path, reader) if path.is_dir() else file_rows(path, reader)
    except OSError as error:
        raise InvalidInput(f"{path.name} can't be read: {error.strerror or error}.") from None


def read_records(
    source: str | Path, domain: Domain, field_map: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The records of `source` as the domain's reader finds them, unchecked; rows that can't be read are left out."""
    reader = domain.reader(field_map or {})
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
    raise InvalidInput(
        f"There is no file or folder {shown(given)}: give a path, or hf:owner/name for the Hugging Face hub."
    )


def _folder_rows(path: Path, reader: Reader) -> Iterator[Row]:
    if (path / MANIFEST).exists():
        dataset = open_dataset(path)
        records = ((s, r) for s in dataset.counts for batch in dataset.batches(split=s) for r in batch.to_pylist())
        yield from (Row(split, number, record) for number, (split, record) in enumerate(records, 1))
        return
    saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
    if not saved and files_in(path):
        yield from files_rows(path, reader)
        return
    import datasets

    try:
        found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:
        raise InvalidInput(f"{shown(path)} holds no dataset that can be read: {one_line(error)}") from None
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
            f"The hub's dataset {repository} can't be used ({one_line(error)}): check its name, or take a copy in Parquet."
        ) from None
    except Exception as error:
        raise Unavailable(f"The hub's dataset {repository} can't be reached: {one_line(error)}") from None
    yield from _hf_rows(found, split or "train")


def _hf_rows(found: Any, split: str) -> Iterator[Row]:
    """Rows of a dataset of `datasets`; numbers that stand for a class become its name."""
    parts = found if isinstance(found, dict) else {split.partition("[")[0]: found}
    numbers = itertools.count(1)
    for name, part in parts.items():
        class_names = {column: f.names for column, f in part.features.items() if hasattr(f, "int2str")}
        for record in part:
            yield Row(re.sub(r"\W+", "_", str(name)), next(numbers), named(record, class_names))
