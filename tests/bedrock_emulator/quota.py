"""Quota buckets as Bedrock keeps them: reserve when a call starts, settle when it ends, refuse what does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quota:
    """What one model may be asked per minute.

    Parameters
    ----------
    tokens_per_minute, requests_per_minute : None is no limit.
    burst : how the service keeps count. "bucket": a continuous bucket that holds a whole minute; "burst1s": one that
        holds a second's worth (a larger request is let in when it is full); "window": a counter set to zero every
        `window_s` seconds.
    burndown : tokens of quota that one output token costs when the call is settled.
    starts_full : whether the bucket is full when the server starts.
    window_s : length of the fixed window, seconds; the quota of a window is in proportion.
    window_age_s : seconds that the fixed window has already lasted when the first call comes.
    """

    tokens_per_minute: float | None = None
    requests_per_minute: float | None = None
    burst: Literal["bucket", "burst1s", "window"] = "bucket"
    burndown: float = 1.0
    starts_full: bool = True
    window_s: float = 60.0
    window_age_s: float = 0.0


class Bucket:
    """One limit. All methods take the time, so that a test may hold the clock."""

    def __init__(self, per_minute: float | None, quota: Quota, now: float) -> None:
        self._kind, self._window_s = quota.burst, quota.window_s
        self._started, self._filled_at = now - quota.window_age_s, now
        self._window = 0
        self._set(per_minute)
        self.level = self.capacity if quota.starts_full or self._kind == "window" else 0.0

    def _set(self, per_minute: float | None) -> None:
        self.rate = math.inf if per_minute is None else per_minute / 60
        seconds = {"bucket": 60.0, "burst1s": 1.0, "window": self._window_s}[self._kind]
        self.capacity = self.rate * seconds

    def change(self, per_minute: float | None, now: float) -> None:
        """Another limit from now on; what is saved up beyond it is lost."""
        self._fill(now)
        self._set(per_minute)
        self.level = min(self.level, self.capacity)

    def _fill(self, now: float) -> None:
        if self.rate == math.inf:
            self.level = math.inf
        elif self._kind == "window":
            window = int((now - self._started) / self._window_s)
            if window != self._window:
                self._window, self.level = window, self.capacity
        else:
            self.level = min(self.capacity, self.level + self.rate * (now - self._filled_at))
        self._filled_at = now

    def fits(self, cost: float, now: float) -> bool:
        """Whether `cost` may be taken; what is larger than the bucket fits when the bucket is full."""
        self._fill(now)
        return self.level >= min(cost, self.capacity)

    def take(self, cost: float) -> int:
        """Take `cost` out; returns the window it was taken from, for `give_back`."""
        self.level -= cost
        return self._window

    def give_back(self, amount: float, window: int, now: float) -> None:
        """Put back what was reserved and not used; negative takes more, which may leave the bucket below zero."""
        self._fill(now)
        if amount < 0 or window == self._window:
            self.level = min(self.capacity, self.level + amount)
