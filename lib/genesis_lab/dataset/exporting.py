"""A dataset in other people's formats and places: JSONL, CSV, Parquet, Hugging Face, S3."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq

from genesis_lab.dataset.folder import MANIFEST, Dataset
from genesis_lab.dataset.spreadsheet import safe_cell, turns_as_text
from genesis_lab.dataset.writing import GROUP_ROWS
from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import check_free, placed, resolve, shown
from genesis_lab.hub import push_folder
from genesis_lab.settings import get_settings

Format = Literal["jsonl", "csv", "parquet", "hub", "folder"]
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
    """Write the dataset, or one split of it, elsewhere.

    Parameters
    ----------
    target : a file or folder; ``s3://bucket/key``; ``owner/name`` for the hub. Several splits become several files in
        one-file formats, ``name-train.csv`` and so on.
    format : ``jsonl``, ``csv`` (one row per record, safe to open in a spreadsheet), ``parquet``, ``hub`` (push to the Hugging Face hub with the card), ``folder`` (the dataset
        folder as it is, to S3). None: by the target's ending; an S3 address without ending takes the folder.
    replace : replace files that are there. On S3 and the hub, what has the same name is always replaced.
    private : whether a new repository on the hub is private.

    Returns
    -------
    What was written: paths as shown in reports, or URLs.

    Raises
    ------
    InvalidInput : unknown format, split or AWS profile, or the target exists.
    Unavailable : the hub or S3 can't be reached.
    """
    chosen = format or _guessed(str(target))
    if chosen not in get_args(Format):
        raise InvalidInput(f"Unknown format {chosen!r}: expected {', '.join(get_args(Format))}.")
    if split is not None:
        dataset.parts(split)
        if chosen in ("hub", "folder"):
            raise InvalidInput(f"Format {chosen!r} takes the whole dataset: leave split {split!r} away.")
    if chosen == "hub":
        return [_push(dataset, str(target), private)]
    if str(target).startswith(S3):
        return _to_s3(dataset, str(target), chosen, split)
    if chosen == "folder":
        raise InvalidInput(f"Format 'folder' is for S3 addresses: {shown(dataset.path)} is that folder already.")
    return [shown(path) for path in _to_files(dataset, resolve(target), chosen, split, replace)]


def _guessed(target: str) -> str:
    suffix = Path(target).suffix.lower().removeprefix(".")
    if suffix in ("jsonl", "csv", "parquet"):
        return suffix
    if target.startswith(S3):
        return "folder"
    raise InvalidInput(
        f"The format of {Path(target).name!r} can't be told from its ending: say jsonl, csv, parquet or hub."
    )


def _to_files(dataset: Dataset, target: Path, format: str, split: str | None, replace: bool) -> list[Path]:
    splits = [split] if split else list(dataset.counts)
    write: Callable[[Dataset, str, Path], None] = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[format]
    paths = {
        name: target if len(splits) == 1 else target.with_name(f"{target.stem}-{name}{target.suffix}")
        for name in splits
    }
    for path in paths.values():
        check_free(path, replace=replace, ours=Path.is_file)
    for name, path in paths.items():
        with placed(path, replace=replace) as temporary:
            write(dataset, name, temporary)
    return list(paths.values())


def _jsonl(dataset: Dataset, split: str, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for batch in dataset.batches(split=split):
            for record in batch.to_pylist():
                file.write(json.dumps(record, ensure_ascii=False, default=_iso) + "\n")


def _csv(dataset: Dataset, split: str, path: Path) -> None:
    # With a byte order mark, Excel reads the accents; every other reader skips it.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(dataset.schema.names)
        for batch in dataset.batches(split=split):
            for record in batch.to_pylist():
                writer.writerow([_cell(name, value) for name, value in record.items()])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "turns" and all(isinstance(turn, dict) for turn in value):
        text = turns_as_text(value)
    elif isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False, default=_iso)
    elif isinstance(value, str):
        text = value
    else:
        return _iso(value) if hasattr(value, "isoformat") else str(value)
    return safe_cell(text)


def _parquet(dataset: Dataset, split: str, path: Path) -> None:
    with pq.ParquetWriter(path, dataset.schema, compression="zstd") as writer:
        for batch in dataset.batches(GROUP_ROWS, split=split):
            writer.write_batch(batch)


def _push(dataset: Dataset, repository: str, private: bool) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file in _public_files(dataset, folder):
            if not file.is_relative_to(folder):
                (folder / file.relative_to(dataset.path).parent).mkdir(exist_ok=True)
                (folder / file.relative_to(dataset.path)).symlink_to(file.absolute())
        return push_folder(
            folder,
            repository,
            "dataset",
            allow=["README.md", MANIFEST, "data/*"],
            replaces=["data/*"],
            message=f"Dataset {dataset.name}, content {dataset.content_hash[:12]}",
            private=private,
        )


def _public_files(dataset: Dataset, folder: Path) -> list[Path]:
    """Parts, card and manifest; the manifest as a copy in `folder` in which no path of this machine is left."""
    manifest = folder / MANIFEST
    text = (dataset.path / MANIFEST).read_text(encoding="utf-8")
    told = json.loads(text)
    public = _without_paths(told)
    text = text if public == told else json.dumps(public, indent=2, ensure_ascii=False) + "\n"
    manifest.write_text(text, encoding="utf-8", newline="")
    return [*dataset.parts(), dataset.path / "README.md", manifest]


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    absolute = isinstance(value, str) and "\n" not in value and Path(value).expanduser().is_absolute()
    return shown(Path(value).expanduser()) if absolute else value


def _to_s3(dataset: Dataset, url: str, format: str, split: str | None) -> list[str]:
    boto3 = _package("boto3", "writing to S3")
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

    bucket, _, key = url.removeprefix(S3).partition("/")
    if not bucket:
        raise InvalidInput(f"{url!r} names no bucket: expected s3://bucket/key.")
    key = key.rstrip("/") or dataset.name
    settings = get_settings()
    try:
        session = boto3.Session(profile_name=settings.aws_profile, region_name=settings.aws_region)
    except ProfileNotFound as error:
        raise InvalidInput(f"{error}: set GENESIS_AWS_PROFILE to one of `aws configure list-profiles`.") from None
    with tempfile.TemporaryDirectory() as temporary:
        if format == "folder":
            files = _public_files(dataset, Path(temporary))
            roots = (Path(temporary), dataset.path)
            names = [path.relative_to(next(r for r in roots if path.is_relative_to(r))).as_posix() for path in files]
            uploads = [(path, f"{key}/{name}") for path, name in zip(files, names, strict=True)]
        else:
            base = Path(temporary) / Path(key).name
            parent = key.removesuffix(base.name)
            _to_files(dataset, base, format, split, replace=False)
            written = sorted(path for path in Path(temporary).rglob("*") if path.is_file())
            uploads = [(path, parent + path.relative_to(temporary).as_posix()) for path in written]
        try:
            client = session.client("s3")
            for path, name in uploads:
                client.upload_file(str(path), bucket, name)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            # boto3 wraps what the service said into a sentence about the local file.
            said = error.__context__ if isinstance(error.__context__, ClientError) else error
            raise Unavailable(f"{url} can't be written: {_one_line(said)}") from None
    return [f"{S3}{bucket}/{name}" for _, name in uploads]


def _package(name: str, purpose: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingDependency(name, purpose, f"pip install {name}") from None


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 200 else text[:199] + "…"
    return text if isinstance(error, GenesisError) or text.endswith((".", "…")) else text + "."
