"""A line to the emulator's own quota buckets whose seconds cost nothing."""

from __future__ import annotations

import heapq
import random
from typing import Any

from bedrock_emulator.quota import Bucket, Quota
from genesis_lab.health.quota import Call, Scope

PROMPT, ANSWER = 30, 400


class SimulatedLine:
    """Calls take `trip_s` to the server and back; an answer takes some seconds more."""

    def __init__(
        self, quota: Quota, *, seed: int = 0, trip_s: float = 0.1, answer_s: tuple[float, float] = (3, 5)
    ) -> None:
        self._quota, self._random = quota, random.Random(seed)
        self._trip_s, self._answer_s = trip_s, answer_s
        self._now = 0.0
        self._tokens, self._requests = (
            Bucket(limit, quota, 0.0) for limit in (quota.tokens_per_minute, quota.requests_per_minute)
        )
        self._events: list[tuple[float, int, str, Any]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def send(self, max_tokens: int) -> int:
        self._count += 1
        self._at(self._now + self._leg(), "arrive", (self._count, max_tokens, self._now))
        return self._count

    def wait(self, seconds: float) -> Call | None:
        until = self._now + max(seconds, 0.0)
        while self._events and self._events[0][0] <= until:
            self._now, _, kind, what = heapq.heappop(self._events)
            if kind == "over":
                return Call(over_at=self._now, **what)
            getattr(self, f"_{kind}")(*what)
        self._now = until
        return None

    def close(self) -> None:
        pass

    def _at(self, when: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (when, len(self._events) + 1000 * self._count, kind, what))

    def _leg(self) -> float:
        return self._trip_s / 2 * self._random.uniform(0.8, 1.4)

    def _arrive(self, number: int, max_tokens: int, sent_at: float) -> None:
        cost, call = PROMPT + max_tokens, {"number": number, "sent_at": sent_at}
        scope: Scope | None = None
        if not self._requests.fits(1, self._now):
            scope = "requests"
        elif not self._tokens.fits(cost, self._now):
            scope = "tokens"
        if scope:
            self._at(self._now + self._leg(), "over", call | {"reserved": float(cost), "scope": scope})
            return
        self._requests.take(1)
        window = self._tokens.take(cost)
        output = min(max_tokens, ANSWER)
        took_s = self._random.uniform(*self._answer_s) * output / ANSWER
        self._at(self._now + took_s, "answered", (call, cost, PROMPT + output * self._quota.burndown, window))

    def _answered(self, call: dict[str, Any], cost: float, settled: float, window: int) -> None:
        self._tokens.give_back(cost - settled, window, self._now)
        self._at(
            self._now + self._leg(), "over", call | {"reserved": float(cost), "settled": settled, "cost_usd": 1e-5}
        )
