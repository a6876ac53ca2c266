"""The ledger: lets requests out in order, as fast as a service's quotas allow, so that hardly any is refused.

A service that limits tokens per minute keeps a bucket. It takes ``input + cache writes + max_tokens`` out when a call
starts and, when the call ends, puts back what was not used. The ledger does the same a moment earlier on the way out
and a moment later on the way back, at a hair under the service's rate: what the ledger lets through, the service takes.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from genesis_lab.files import output_root
from genesis_lab.generation.buckets import INSTANT, Bucket
from genesis_lab.generation.neighbours import LOOK_S, Neighbours

HOLD_S, LONGEST_HOLD_S = 1.0, 15.0
"""Nothing is sent this long after a refusal; doubled with each further refusal in a row."""
FEEL_S = 1.0
"""After a refusal one request at a time feels the way: a refusal of that one would be known after this long."""
WAITING = 32
"""Requests that wait for quota are enough to have the next one ready at any rate."""

Scope = Literal["requests", "tokens", "unknown"]


class Condition(Protocol):
    def wait(self, timeout: float | None = None) -> bool: ...

    def notify(self) -> None: ...


class Clock(Protocol):
    """Where time comes from. Tests bring one whose seconds cost nothing."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def condition(self, lock: threading.Lock) -> Condition: ...


class SystemClock:
    """The real time."""

    def now(self) -> float:
        return time.monotonic()

    def condition(self, lock: threading.Lock) -> Condition:
        return threading.Condition(lock)


@dataclass(frozen=True)
class Limits:
    """The quota of one model, region and account.

    Parameters
    ----------
    tokens_per_minute : None if it is not known (it is learned), ``math.inf`` if there is none.
    requests_per_minute : the same for requests; a limit nobody told about is learned from the first refusal.
    burndown : tokens of quota that one output token costs.
    """

    tokens_per_minute: float | None = None
    requests_per_minute: float | None = math.inf
    burndown: float = 1.0


@dataclass(frozen=True)
class LedgerState:
    """Where a ledger stands. Rates are per minute; `quota_use` is None while the quota is unknown.

    `held_s` : seconds until anything is sent again, where all wait for that; `silent_s` : since when nothing was
        answered although something is in flight.
    """

    tokens_per_minute: float
    requests_per_minute: float
    used_last_minute: float
    quota_use: float | None
    sent: int
    refused: int
    waiting: int
    in_flight: int
    held_s: float = 0.0
    silent_s: float = 0.0


@dataclass(eq=False)
class Reservation:
    """Leave to send one request. `place` keeps its position in the queue if the service refuses it."""

    tokens: float
    place: int
    sent_at: float
    doubtful: bool = False


@dataclass(order=True)
class _Waiter:
    place: int
    changed: Condition = field(compare=False)


class Ledger:
    """Lets requests out as fast as the quota allows, in order. One for each quota, shared by all threads.

    Parameters
    ----------
    limits : what is known of the quota.
    clock : where time comes from.
    neighbours : the processes that share the quota; default: only this one.
    """

    def __init__(
        self, limits: Limits = Limits(), *, clock: Clock | None = None, neighbours: Neighbours | None = None
    ) -> None:
        self.clock = clock or SystemClock()
        self._neighbours, self._sharing = neighbours, 1
        self._lock = threading.Lock()
        self._queue: list[_Waiter] = []
        self._places = itertools.count()
        self._in_flight: set[Reservation] = set()
        self._feeler: Reservation | None = None
        self._held_until = -math.inf
        self._resting: dict[Condition, float] = {}
        self._stopped: dict[object, Exception] = {}
        self._settled_at = self.clock.now()
        self._in_a_row = self._sent = self._refused = 0
        self._minute: deque[tuple[int, float]] = deque()
        self._set(limits)

    def _set(self, limits: Limits) -> None:
        now = self.clock.now()
        self.limits = limits
        self._tokens, self._requests = Bucket(limits.tokens_per_minute, now), Bucket(limits.requests_per_minute, now)
        self._sharing = 1

    def change(self, limits: Limits) -> None:
        """Go on with another quota. What was learned about the old one is forgotten."""
        with self._lock:
            if limits != self.limits:
                self._set(limits)
                self._wake()

    def acquire(self, tokens: float, place: int | None = None, who: object = None) -> Reservation:
        """Wait for leave to send a request that the service will count as at most `tokens`.

        Parameters
        ----------
        tokens : prompt, cache writes and what the answer may cost.
        place : a refused reservation's place, to go before everything that came later.
        who : asks; raises the error with which `who`, or everybody, was stopped.
        """
        with self._lock:
            condition = self.clock.condition(self._lock)
            waiter = _Waiter(next(self._places) if place is None else place, condition)
            heapq.heappush(self._queue, waiter)
            try:
                while True:
                    self._refuse_stopped(who)
                    wait_s = self._wait_s(tokens) if self._queue[0] is waiter else None
                    if wait_s == 0.0:
                        break
                    condition.wait(min(wait_s, LOOK_S) if wait_s and self._neighbours else wait_s)
            finally:
                self._queue.remove(waiter)
                heapq.heapify(self._queue)
                self._wake()
            reservation = Reservation(tokens, waiter.place, self.clock.now())
            reservation.doubtful = self._tokens.take(tokens, reservation.sent_at)
            self._requests.take(1, reservation.sent_at)
            self._in_flight.add(reservation)
            self._sent += 1
            if self._in_a_row:
                self._feeler = reservation
            return reservation

    def rest(self, seconds: float, who: object = None) -> None:
        """Wait before a request is sent again; raises as `acquire` does, at once."""
        with self._lock:
            condition, until = self.clock.condition(self._lock), self.clock.now() + seconds
            self._resting[condition] = until
            try:
                self._refuse_stopped(who)
                while (left := until - self.clock.now()) > 0:
                    condition.wait(left)
                    self._refuse_stopped(who)
            finally:
                del self._resting[condition]

    def settle(self, reservation: Reservation, tokens: float) -> None:
        """The request was answered and cost `tokens` of the quota."""
        with self._lock:
            self._settled_at = self.clock.now()
            self._return(reservation, tokens)
            self._tokens.accepted(reservation.sent_at, doubtful=reservation.doubtful)
            self._requests.accepted(reservation.sent_at, doubtful=False)
            second = int(self.clock.now())
            if self._minute and self._minute[-1][0] == second:
                self._minute[-1] = (second, self._minute[-1][1] + tokens)
            else:
                self._minute.append((second, tokens))
                while self._minute[0][0] <= second - 60:
                    self._minute.popleft()

    def release(self, reservation: Reservation, tokens: float = 0.0) -> None:
        """The request failed, and cost `tokens` of the quota."""
        with self._lock:
            self._return(reservation, tokens)

    def refuse(self, reservation: Reservation, scope: Scope = "unknown", retry_after_s: float | None = None) -> None:
        """The service refused the request for rate; acquire again at its `place`."""
        with self._lock:
            now = self.clock.now()
            if reservation is self._feeler:
                self._feeler = None
            self._in_flight.discard(reservation)
            self._refused += 1
            self._tokens.give_back(reservation.tokens, now)
            self._requests.give_back(1, now)
            about_requests = self._about_requests(scope)
            bucket, cost = (self._requests, 1.0) if about_requests else (self._tokens, reservation.tokens)
            bucket.taken -= cost
            doubtful = reservation.doubtful and not about_requests
            again = bool(self._in_a_row and self._minute)
            bucket.refused(cost, reservation.sent_at, now, again=again, doubtful=doubtful)
            if now >= self._held_until:
                self._held_until = now + min(HOLD_S * 2**self._in_a_row, LONGEST_HOLD_S)
                self._in_a_row += 1
            self._held_until = max(self._held_until, now + (retry_after_s or 0.0))
            self._wake()

    def pause(self, seconds: float) -> None:
        """Send nothing for a while, then one request to feel the way."""
        with self._lock:
            self._held_until = max(self._held_until, self.clock.now() + seconds)
            self._in_a_row = max(self._in_a_row, 1)

    def stop(self, error: Exception, who: object = None) -> None:
        """Make every thread that waits for `who` (None: for anybody), now or later, raise `error`; what is in flight is
        not touched."""
        with self._lock:
            self._stopped.setdefault(who, error)
            for condition in (*(waiter.changed for waiter in self._queue), *self._resting):
                condition.notify()

    @property
    def stopped(self) -> bool:
        return None in self._stopped

    def wants_more(self, started: int) -> bool:
        """Whether one more request than the `started` ones is of use: not while many of them wait for the quota."""
        unlimited = self._tokens.rate == self._requests.rate == math.inf
        return unlimited or started - len(self._in_flight) < WAITING

    def state(self) -> LedgerState:
        with self._lock:
            now = self.clock.now()
            used = sum(tokens for second, tokens in self._minute if second > now - 60)
            quota = self.limits.tokens_per_minute
            oldest = min((each.sent_at for each in self._in_flight), default=now)
            again = max(self._held_until, now) if self._queue else min(self._resting.values(), default=now)
            return LedgerState(
                tokens_per_minute=60 * self._tokens.rate,
                requests_per_minute=60 * self._requests.rate,
                used_last_minute=used,
                quota_use=used / quota if quota and quota < math.inf else None,
                sent=self._sent,
                refused=self._refused,
                waiting=len(self._queue),
                in_flight=len(self._in_flight),
                held_s=0.0 if self._in_flight else max(again - now, 0.0),
                silent_s=now - max(oldest, self._settled_at),
            )

    def _refuse_stopped(self, who: object) -> None:
        if error := self._stopped.get(None) or self._stopped.get(who):
            raise error

    def _wait_s(self, tokens: float) -> float:
        """Seconds until the request at the head may go; 0.0: now."""
        now = self.clock.now()
        if self._neighbours and (count := self._neighbours.count()) != self._sharing:
            for bucket in (self._tokens, self._requests):
                bucket.share(self._sharing / count, now)
            self._sharing = count
        waits = [self._held_until - now, self._tokens.wait_s(tokens, now), self._requests.wait_s(1, now)]
        if self._feeler:
            unsure_for_s = self._feeler.sent_at + FEEL_S - now
            if unsure_for_s > INSTANT:
                waits.append(unsure_for_s)
            else:
                self._got_through()
        wait_s = max(waits)
        return wait_s if wait_s > INSTANT else 0.0

    def _got_through(self) -> None:
        self._feeler = None
        self._in_a_row = 0

    def _return(self, reservation: Reservation, tokens: float) -> None:
        self._in_flight.discard(reservation)
        self._tokens.give_back(reservation.tokens - tokens, self.clock.now())
        if reservation is self._feeler:
            self._got_through()
        self._wake()

    def _about_requests(self, scope: Scope) -> bool:
        """Whether a refusal is for requests per minute; where the service does not say, the fuller limit is meant."""
        if scope != "unknown":
            return scope == "requests"
        tokens, requests = self._tokens, self._requests
        return requests.rate < math.inf and requests.level / requests.burst < tokens.level / max(tokens.burst, 1e-9)

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].changed.notify()


_shared: dict[Hashable, Ledger] = {}
_sharing = threading.Lock()


def shared_ledger(key: Hashable, limits: Limits) -> Ledger:
    """The one ledger of this process for `key` (account, region, profile): runs side by side share it; processes of one
    machine have one each, for an even part of the quota.

    One that was stopped stays with those who hold it; a run that is started again gets a fresh one.
    """
    with _sharing:
        ledger = _shared.get(key)
        if ledger is None or ledger.stopped:
            quota_id = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
            limited = min(limits.tokens_per_minute or 0.0, limits.requests_per_minute or 0.0) < math.inf
            neighbours = Neighbours(output_root() / "cache" / "quotas" / quota_id) if limited else None
            ledger = _shared[key] = Ledger(limits, neighbours=neighbours)
    ledger.change(limits)
    return ledger
