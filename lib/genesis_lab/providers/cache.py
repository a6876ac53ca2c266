"""Answers of paid or slow providers, kept by request key: nothing usable is paid for twice."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from genesis_lab.errors import GenesisError
from genesis_lab.files import shown, write_error
from genesis_lab.providers.base import Completion, Usage


class CompletionCache:
    """Completions in the SQLite file at `path`, which is made where it is missing; safe for threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        with self._use():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        self._run("PRAGMA journal_mode=WAL")
        self._run("PRAGMA synchronous=NORMAL")
        self._run("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, completion TEXT NOT NULL)")

    def get(self, key: str) -> Completion | None:
        """The kept answer to the request with this key."""
        row = self._run("SELECT completion FROM completions WHERE key = ?", key)
        if row is None:
            return None
        data = json.loads(row[0])
        data["usage"] = data["usage"] and Usage(**data["usage"])
        data["created_at"] = data["created_at"] and datetime.fromisoformat(data["created_at"])
        data["not_sent"] = tuple(data.get("not_sent", ()))
        return Completion(**data)

    def __contains__(self, key: str) -> bool:
        return self._run("SELECT 1 FROM completions WHERE key = ?", key) is not None

    def put(self, key: str, completion: Completion) -> None:
        """Keep an answer; a second answer to the same request replaces the first."""
        self._run("INSERT OR REPLACE INTO completions VALUES (?, ?)", key, to_json(completion).decode())

    def forget(self, key: str) -> None:
        """Keep the answer no longer: it was of no use."""
        self._run("DELETE FROM completions WHERE key = ?", key)

    def close(self) -> None:
        with self._use():
            self._db.close()

    def _run(self, statement: str, *values: str) -> tuple[Any, ...] | None:
        """The first row that a statement gives."""
        with self._use():
            row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
            return row

    @contextmanager
    def _use(self) -> Iterator[None]:
        """One at a time; what SQLite or the disk says becomes one sentence."""
        with self._lock:
            try:
                yield
            except OSError as error:
                raise write_error(error, self._path) from None
            except sqlite3.Error as error:
                said = f"The cache of answers, {shown(self._path)}, can't be used ({error})"
                raise GenesisError(f"{said}: free some space, or move that file away.") from None
