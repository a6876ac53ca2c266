"""The journal: one JSON line per attempt, appended while a dataset is being generated. A crash loses nothing in it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import write_error

JOURNAL = "journal.jsonl"


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
            existing = self._repair(header) if path.exists() else False
            self._file = path.open("ab", buffering=0)
            self._end = self._file.tell()
        except OSError as error:
            raise write_error(error, path) from None
        if not existing:
            self.append({"kind": "header", **header})

    def append(self, entry: dict[str, Any], record_json: str | None = None) -> int:
        """Write one line and return its byte offset; `record_json` is put in as it is under ``"record"``.

        Raises
        ------
        GenesisError : the disk is full or can't be written; what was written before stays good.
        """
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        if record_json is not None:
            line = f'{line[:-1]},"record":{record_json}}}'
        data = (line + "\n").encode("utf-8", "surrogatepass")
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            raise write_error(error, self.path) from None
        offset = self._end
        self._end += len(data)
        return offset

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

    def at(self, offset: int) -> dict[str, Any]:
        """The entry whose line begins at `offset`."""
        with self.path.open("rb") as file:
            file.seek(offset)
            entry: dict[str, Any] = json.loads(file.readline())
        return entry

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
            size = file.seek(0, 2)
            step, end = 65_536, size
            while end > 0:
                start = max(0, end - step)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
            if end == 0:
                return False
            file.seek(0)
            try:
                found = json.loads(file.readline())
            except ValueError:
                raise InvalidInput(
                    f"{self.path.name} is no journal: its first line is damaged; delete {self.path.parent.name}."
                ) from None
        wanted = json.loads(json.dumps(header))
        found.pop("kind", None)
        if changed := what_changed(found, wanted):
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


def what_changed(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between two headers: ``tone was 'neobank', now 'formal', taxonomy was edited``; empty if nothing."""
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
