"""Who else on this machine draws on a quota: processes that do share it evenly.

Each process touches a file of its own while it sends. A file that was not touched for a few seconds belongs to a process
that ended, died or has nothing to send, so nobody has to say goodbye.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.5
"""A process that sends shows itself, and looks for others, this often."""
ALIVE_S = 5.0
"""One that did not show itself for so long is not counted."""
_FORGOTTEN_S = 3600.0
_ME = uuid.uuid4().hex


class Neighbours:
    """The processes that draw on the same quota, this one included.

    Parameters
    ----------
    folder : one for each quota.
    name : of this process.
    now : seconds, the same clock for all of them.
    """

    def __init__(self, folder: Path, name: str = _ME, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = folder / name, now
        self._looked_at, self._count = -ALIVE_S, 1
        self.count()

    def count(self) -> int:
        """How many there are; says at the same time that this one is there."""
        now = self._now()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            with contextlib.suppress(OSError):  # a folder that can't be written is everybody's own: alone
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch()
                os.utime(self._file, (now, now))
                self._count = sum(self._alive(file, now) for file in self._file.parent.iterdir())
        return self._count

    @staticmethod
    def _alive(file: Path, now: float) -> bool:
        silent_s = now - file.stat().st_mtime
        if silent_s > _FORGOTTEN_S:
            file.unlink()
        return silent_s < ALIVE_S
