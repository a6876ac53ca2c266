"""A dataset in other people's formats and places: JSONL, CSV, Parquet, Hugging Face, S3."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq

from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.folder import MANIFEST, Dataset, labelled
from genesis_lab.dataset.writing import GROUP_ROWS
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import check_free, findable, placed, resolve, shown
from genesis_lab.hub import push_folder
from genesis_lab.settings import get_settings

Format = Literal["jsonl", "csv", "parquet", "labelled", "long", "wide", "hub"]
S3 = "s3://"


def export_dataset(
    dataset: Dataset,
    target: str | Path,
    format: Format | None = None,
    *,
    split: str | None = None,
    replace: bool = False,
    private: bool = True,
) -> list[str]:
    """Write the dataset, or one split of it, elsewhere; returns what was written, how many in which file, or URLs.

    Parameters
    ----------
    target : a file; ``s3://bucket/key``, without ending for the dataset folder as it is; ``owner/name`` for the hub.
        Several splits become several files, ``name-train.csv`` and so on.
    format : ``jsonl``, ``csv`` (one row per record, safe to open in a spreadsheet), ``parquet``, ``labelled`` (CSV of
        text, label and language, of the records that have a text and a label), ``long`` or ``wide`` (CSV of series) or
        ``hub`` (push to the Hugging Face hub with the card). None: by the target's ending.
    replace : replace files that are there. On S3 and the hub, what has the same name is always replaced.
    private : whether a new repository on the hub is private.
    """
    to_s3, formats = str(target).startswith(S3), get_args(Format)
    chosen = format or next((one for one in formats if str(target).lower().endswith(f".{one}")), None)
    if chosen not in formats and not (to_s3 and chosen is None):
        untold = f"The format of {Path(target).name!r} can't be told from its ending: say"
        raise InvalidInput(f"{f'Unknown format {chosen!r}: expected' if chosen else untold} {', '.join(formats)}.")
    if split is not None:
        dataset.parts(split)
        if chosen in (None, "hub"):
            raise InvalidInput(f"{target} takes the whole dataset: leave split {split!r} away.")
    with tempfile.TemporaryDirectory() as temporary:
        if chosen == "hub":
            told, data = f"Dataset {dataset.name}, content {dataset.content_hash[:12]}", ["data/*"]
            folder, allow = _public(dataset, Path(temporary)), ["README.md", MANIFEST, *data]
            named: dict[str, Any] = {"allow": allow, "replaces": data, "message": told, "private": private}
            return [push_folder(folder, str(target), "dataset", **named)]
        if to_s3:
            return _to_s3(dataset, str(target), chosen, split, Path(temporary))
    if not (file := resolve(target)).parent.is_dir():
        where = findable(file.parent)
        raise InvalidInput(f"There is no folder {where} to write {file.name} to: make it, or name another.")
    written = _to_files(dataset, file, str(chosen), split, replace)
    return [f"{n:,} {dataset.unit} in {findable(path)}" for path, n in written.items()]


def _to_files(dataset: Dataset, target: Path, format: str, split: str | None, replace: bool) -> dict[Path, int]:
    splits = [split] if split else list(dataset.counts)
    paths = [target] if len(splits) == 1 else [target.with_stem(f"{target.stem}-{name}") for name in splits]
    for path in paths:
        check_free(path, replace=replace, ours=Path.is_file)
    written = {}
    for name, path in zip(splits, paths, strict=True):
        with placed(path, replace=replace) as temporary:
            written[path] = _write(dataset, name, temporary, format)
    return written


def _write(dataset: Dataset, split: str, path: Path, format: str) -> int:
    """Write one split as one file; how many records."""
    domain, records = get_domain(dataset.domain), dataset.records(split)
    if format == "parquet":
        with pq.ParquetWriter(path, dataset.schema, compression="zstd") as parquet:
            for batch in dataset.batches(GROUP_ROWS, split=split):
                parquet.write_batch(batch)
    elif format == "jsonl":
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_json(record) + "\n" for record in records)
    elif format == "labelled":
        rows = labelled(dataset).query("split == @split").dropna(subset=["text", "label"])
        columns = ["text", "label", *(["language"] if rows["language"].notna().any() else [])]
        _write_rows(path, columns, rows[columns].to_numpy().tolist())
        return len(rows)
    elif format == "csv":
        header = domain.cells(dict.fromkeys(dataset.schema.names))
        _write_rows(path, [*header], (domain.cells(record).values() for record in records))
    else:
        _write_rows(path, *domain.table(records, format))
    return dataset.counts[split]


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    # With a byte order mark, Excel reads the accents; every other reader skips it.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(map(_cell, row) for row in chain([header], rows))


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = _json(value)
    if isinstance(value, str):
        return safe_cell(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda moment: moment.isoformat())


def _public(dataset: Dataset, folder: Path) -> Path:
    """`folder` with links to parts and card, and a copy of the manifest in which no path of this machine is left."""
    (folder / "data").mkdir()
    for file in (*dataset.parts(), dataset.path / "README.md"):
        (folder / file.relative_to(dataset.path)).symlink_to(file.absolute())
    text = (dataset.path / MANIFEST).read_text(encoding="utf-8")
    public = _without_paths(told := json.loads(text))
    text = text if public == told else json.dumps(public, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="")
    return folder


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    absolute = isinstance(value, str) and "\n" not in value and Path(value).expanduser().is_absolute()
    return shown(Path(value).expanduser()) if absolute else value


def _to_s3(dataset: Dataset, url: str, format: str | None, split: str | None, folder: Path) -> list[str]:
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

    bucket, _, key = url.removeprefix(S3).partition("/")
    if not bucket:
        raise InvalidInput(f"{url!r} names no bucket: expected s3://bucket/key.")
    key, settings = key.rstrip("/") or dataset.name, get_settings()
    if format:
        _to_files(dataset, folder / Path(key).name, format, split, replace=False)
        key = key.rpartition("/")[0]
    else:
        _public(dataset, folder)
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == MANIFEST)
    names = [f"{key}/{path.relative_to(folder).as_posix()}".lstrip("/") for path in files]
    try:
        client = boto3.Session(profile_name=settings.aws_profile, region_name=settings.aws_region).client("s3")
        for path, name in zip(files, names, strict=True):  # the manifest last: it says that all is there
            client.upload_file(str(path), bucket, name)
    except ProfileNotFound as error:
        raise InvalidInput(f"{error}: set GENESIS_AWS_PROFILE to one of `aws configure list-profiles`.") from None
    except (Boto3Error, BotoCoreError, ClientError) as error:
        # boto3 wraps what the service said into a sentence about the local file.
        said = error.__context__ if isinstance(error.__context__, ClientError) else error
        raise Unavailable(f"{url} can't be written: {' '.join(str(said).split())[:200].rstrip('.')}.") from None
    return [f"{S3}{bucket}/{name}" for name in names]
