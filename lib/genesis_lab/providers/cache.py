"""Answers of paid or slow providers, kept by request key: nothing usable is paid for twice."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from genesis_lab.errors import GenesisError
from genesis_lab.files import shown, write_error
from genesis_lab.providers.base import Completion, Usage


class CompletionCache:
    """Completions in one SQLite file, safe for threads and for several processes.

    Parameters
    ----------
    path : the file; made with its folder when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        with self._use():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, completion TEXT NOT NULL)")

    def get(self, key: str) -> Completion | None:
        """The kept answer to the request with this key."""
        with self._use():
            row = self._db.execute("SELECT completion FROM completions WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        data = json.loads(row[0])
        if not isinstance(data["text"], str):  # an early version kept what was no text, and stumbled over it ever after
            return None
        data["usage"] = data["usage"] and Usage(**data["usage"])
        data["created_at"] = data["created_at"] and datetime.fromisoformat(data["created_at"])
        data["not_sent"] = tuple(data.get("not_sent", ()))
        return Completion(**data)

    def __contains__(self, key: str) -> bool:
        with self._use():
            return bool(self._db.execute("SELECT 1 FROM completions WHERE key = ?", (key,)).fetchone())

    def put(self, key: str, completion: Completion) -> None:
        """Keep an answer; a second answer to the same request replaces the first."""
        data = asdict(completion)
        data["created_at"] = completion.created_at.isoformat() if completion.created_at else None
        text = json.dumps(data, ensure_ascii=True)
        with self._use():
            self._db.execute("INSERT OR REPLACE INTO completions VALUES (?, ?)", (key, text))

    def forget(self, key: str) -> None:
        """Keep the answer no longer: it was of no use."""
        with self._use():
            self._db.execute("DELETE FROM completions WHERE key = ?", (key,))

    def close(self) -> None:
        with self._use():
            self._db.close()

    @contextmanager
    def _use(self) -> Iterator[None]:
        """One at a time; what SQLite or the disk says becomes one sentence."""
        with self._lock:
            try:
                yield
            except OSError as error:
                raise write_error(error, self._path) from None
            except sqlite3.Error as error:
                raise GenesisError(
                    f"The cache of answers, {shown(self._path)}, can't be used ({error}): free some space, or move that "
                    "file away."
                ) from None
