"""One line of the health check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Check:
    """What one check found. `todo` is empty when all is well."""

    name: str
    status: Status
    detail: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.status:<5}{self.name:<14}{self.detail}" + (f" → {self.todo}" if self.todo else "")
