"""The folder of an unfinished run and its journal: one JSON line per request, so that a crash loses nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import from_json, to_json

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.dataset.folder import MANIFEST, is_dataset
from genesis_lab.errors import InvalidInput, Taken
from genesis_lab.files import check_free, recovered, shown, write_error

JOURNAL = "journal.jsonl"
KIND = "header 3"
"""Of the first line: it says what is in the others."""


class Journal:
    """Append-only JSONL. The first line is the header; a torn last line is cut off on open. Raises `InvalidInput` where
    the file was begun with another header (facts that must be the same for the run to go on), and says which."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = path.exists() and self._repair(header)
            self._file = path.open("ab", buffering=0)
            self._end = self._file.tell()
        except OSError as error:
            raise write_error(error, path) from None
        if not begun:
            self.append({"kind": KIND, **header})

    def append(self, line: dict[str, Any]) -> int:
        """Write one line; returns its byte offset. Raises `GenesisError` on a full disk; what was written stays."""
        try:
            data = to_json(line) + b"\n"
        except ValueError:  # half a surrogate
            data = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            raise write_error(error, self.path) from None
        self._end += len(data)
        return self._end - len(data)

    def entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each line after the header with its byte offset. Damaged ones are skipped."""
        with self.path.open("rb") as file:
            offset = len(file.readline())
            for line in file:
                with suppress(ValueError):
                    yield offset, _loaded(line)
                offset += len(line)

    def read(self, offsets: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The lines that begin at `offsets`."""
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield _loaded(file.readline())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _repair(self, header: dict[str, Any]) -> bool:
        """Cut a torn last line, check the header; False when nothing whole was written yet."""
        with self.path.open("r+b") as file:
            whole = last = 0
            for line in file:
                last += len(line)
                whole = last if line.endswith(b"\n") else whole
            file.truncate(whole)
        if not whole:
            return False
        _refuse_other(self.path, header)
        return True


def _refuse_other(journal: Path, header: dict[str, Any]) -> None:
    run, found = journal.parent.name, read_header(journal)
    name = run.removesuffix(".run")
    if found is None:
        raise InvalidInput(f"{journal.name} is no journal: its first line is damaged; delete {run}.")
    changed = "the version of genesis-lab" if found.pop("kind", None) != KIND else what_changed(found, header)
    if changed:
        raise Taken(
            f"An unfinished run in {run} was started with other settings ({changed}): use those settings to finish "
            f"it, choose another dataset name, or throw it away with genesis dataset discard {name}.",
            _free(journal.parent.with_name(name)),
        )


def _free(target: Path) -> str:
    """A name that nothing beside it has: ``bank_2``."""
    beside = (target.with_name(f"{re.sub(r'_[0-9]+$', '', target.name)}_{n}") for n in count(2))
    return next(path.name for path in beside if not path.exists() and not work_folder(path).exists())


def _loaded(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)  # takes half a surrogate


def read_header(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None where there is none, or it can't be read."""
    try:
        with path.open("rb") as file:
            header = _loaded(file.readline())
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) else None


def what_changed(found: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """How `header` differs from one that was `found`: ``tone was 'neobank', now 'formal', taxonomy was edited``."""
    wanted = json.loads(json.dumps(header))
    found = {name: value for name, value in found.items() if name != "kind"}
    if "options" in wanted and "options" not in found:
        return "they were not recorded in full"
    said = [
        f"{name} was {_short(before.get(name))}, now {_short(now.get(name))}"
        for before, now in ((found, wanted), (found.get("options", {}), wanted.get("options", {})))
        for name in {**now, **before}
        if before.get(name) != now.get(name) and name not in ("options", "knowledge", "plan_hash")
    ]
    before, now = found.get("knowledge", {}), wanted.get("knowledge", {})
    said += [f"{name} was edited" for name in {**now, **before} if before.get(name) != now.get(name)]
    return ", ".join(said) or ("" if found == wanted else "the plan is another")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# --- the folder -------------------------------------------------------------------------------------------------------


def work_folder(target: Path) -> Path:
    """Where the run of a dataset is kept while it is unfinished."""
    return target.with_name(target.name + ".run")


@contextmanager
def run_folder(target: Path, header: dict[str, Any], *, replace: bool) -> Iterator[tuple[Dataset | None, bool]]:
    """Take the lock of the dataset folder `target`, and see to it that the run of `header` can begin or go on.

    Yields the dataset that this very run made, complete or not, None where there is none; and whether there is another
    one, which is to be replaced. Raises `InvalidInput` where another process is at it, or `target` or the work folder
    holds something else or what is not to be replaced; `GenesisError` where nothing can be written there.
    """
    work = work_folder(target)
    with _locked(target, make=True):
        try:
            there = (recovered(target) / MANIFEST).exists()
            check_free(target, replace=there, ours=is_dataset)
            found = _existing(target, header, replace=replace) if there else None
            begun = read_header(work / JOURNAL)
            if found and found.manifest["complete"]:
                if begun and begun.pop("kind") and begun == found.manifest["generation"]:
                    shutil.rmtree(work)  # left by a kill just after the dataset was complete
            elif os.path.lexists(work):
                if not is_run(work):
                    said = f"{shown(work)}, where the run is kept, holds other things"
                    raise InvalidInput(f"{said}: choose another name.")
                if not _begun(work) or (replace and begun and what_changed(begun, header)):
                    shutil.rmtree(work)  # of other settings it goes on request, of nothing at once
            yield found, there and not found
        finally:
            if is_run(work) and not _begun(work):  # nothing to go on with: the next run may have other settings
                shutil.rmtree(work, ignore_errors=True)


def check_room(target: Path, header: dict[str, Any], *, replace: bool) -> None:
    """Raise `InvalidInput`, as `run_folder` would, for a dataset or a run of other settings; nothing is touched."""
    journal = work_folder(target) / JOURNAL
    if (recovered(target) / MANIFEST).exists():
        _existing(target, header, replace=replace)
    elif not replace and _begun(journal.parent):
        _refuse_other(journal, header)


def discard(target: Path) -> None:
    """Throw away the unfinished run of the dataset in `target`; `InvalidInput` if there is none, or it is running."""
    work = work_folder(target)
    if not is_run(work):
        raise InvalidInput(f"There is no unfinished run of {target.name}: {shown(work)} is none.")
    with _locked(target):
        shutil.rmtree(work)


@contextmanager
def _locked(target: Path, *, make: bool = False) -> Iterator[None]:
    lock = target.with_name(target.name + ".run.lock")
    try:
        if make:
            lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(
            f"Another process is generating {shown(target)} right now: wait for it, stop it, or choose another name."
        ) from None
    except OSError as error:
        raise write_error(error, target) from None


def _existing(target: Path, header: dict[str, Any], *, replace: bool) -> Dataset | None:
    """The dataset that this very run made; None for one that the run is to replace."""
    try:
        dataset = open_dataset(target)
    except InvalidInput:  # damaged
        if replace:
            return None
        raise
    changed = what_changed(dataset.manifest.get("generation") or {}, header)
    if changed and not replace:
        raise Taken(
            f"{shown(target)} already holds a dataset made with other settings ({changed}): "
            "choose another name, or set replace to true to have it replaced.",
            _free(target),
        )
    return None if changed else dataset


def is_run(work: Path) -> bool:
    """Whether a folder holds an unfinished run, and nothing else."""
    names = [file.name for file in work.iterdir()] if work.is_dir() and not work.is_symlink() else [""]
    return all(name == JOURNAL or name.startswith("batch-") for name in names)


def _begun(work: Path) -> bool:
    """Whether an unfinished run has something to lose: an accepted record, or batch jobs."""
    if any(work.glob("batch-*")):
        return True
    try:
        with (work / JOURNAL).open("rb") as lines:
            return any(b'"answer":' in line or b'"accepted"' in line for line in lines)
    except FileNotFoundError:
        return False
