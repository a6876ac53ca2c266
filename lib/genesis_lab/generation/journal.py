"""The journal: one JSON line per attempt, appended while a dataset is being generated. A crash loses nothing in it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import write_error

JOURNAL = "journal.jsonl"
KIND = "header 2"
"""Of the first line: it says what is in the others."""


class Journal:
    """Append-only JSONL. The first line is the header; a torn last line is cut off on open.

    Parameters
    ----------
    path : the file; made with its folder when missing.
    header : facts that must be the same for the run to go on (plan hash, provider …).

    Raises
    ------
    InvalidInput : the file was begun with another header; the message names what differs.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.damaged = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            existing = path.exists() and self._repair(header)
            self._file = path.open("ab", buffering=0)
            self._end = self._file.tell()
        except OSError as error:
            raise write_error(error, path) from None
        if not existing:
            self.append({"kind": KIND, **header})

    def append(self, entry: dict[str, Any]) -> int:
        """Write one line and return its byte offset.

        Raises
        ------
        GenesisError : the disk is full or can't be written; what was written before stays good.
        """
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode("utf-8", "surrogatepass")
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            raise write_error(error, self.path) from None
        self._end += len(data)
        return self._end - len(data)

    def entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each entry after the header with its byte offset. Damaged lines are skipped and counted in `damaged`."""
        self.damaged = 0
        with self.path.open("rb") as file:
            offset = len(file.readline())
            for line in file:
                try:
                    yield offset, json.loads(line)
                except ValueError:
                    self.damaged += 1
                offset += len(line)

    def read(self, offsets: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The entries whose lines begin at `offsets`."""
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield json.loads(file.readline())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            file.seek(0)
            try:
                found = json.loads(file.readline())
            except ValueError:
                raise InvalidInput(
                    f"{self.path.name} is no journal: its first line is damaged; delete {self.path.parent.name}."
                ) from None
        changed = "the version of genesis-lab" if found.pop("kind", None) != KIND else what_changed(found, header)
        if changed:
            run = self.path.parent.name
            raise InvalidInput(
                f"An unfinished run in {run} was started with other settings ({changed}): use those settings to finish "
                f"it, choose another dataset name, or throw it away with genesis dataset discard {run.removesuffix('.run')}."
            )
        return True


def read_header(path: Path) -> dict[str, Any] | None:
    """The header that a journal was begun with; None where there is none, or it can't be read."""
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.readline())
        return {name: value for name, value in header.items() if name != "kind"}
    except (OSError, ValueError, AttributeError):
        return None


def what_changed(found: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """What `header` has otherwise than one that was `found`: ``tone was 'neobank', now 'formal', taxonomy was edited``."""
    wanted = json.loads(json.dumps(header))
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
