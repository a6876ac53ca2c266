"""The ledger: mirrors a service's quota buckets and never leads them, so that hardly any request is refused.

A service that limits tokens per minute keeps a bucket. It takes ``input + cache writes + max_tokens`` out when a call
starts and, when the call ends, puts back what was not used. The ledger does the same a moment earlier on the way out
and a moment later on the way back, at a hair under the service's rate: what the ledger lets through, the service takes.

Where the quota is not what we were told (cut in mid-run, shared with others, unknown) only refusals tell. Each refusal
is a fact: the service's bucket held less than that request. Between two such moments it took in what was delivered, give
or take one request, so ``rate = (delivered ± one request) ÷ time``; several refusals give several such intervals, and
those that agree are intersected, newest first. One that disagrees is from before the quota changed and is forgotten.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal, Protocol

SHARE = 0.995
"""Part of a known quota that is used."""
BURST_S = 1.0
"""Seconds of rate that may be saved up and sent at once (always at least 1.05 times the largest request)."""
DEEPEST_CUT = 0.7
"""The rate is cut to no less than this share of itself, and at most once a second."""
SLOWEST_S = 60.0
"""However much is refused, a request is tried this often."""
HOLD_S, LONGEST_HOLD_S = 1.0, 15.0
"""Nothing is sent this long after a refusal; doubled with each further refusal in a row."""
FEEL_S = 1.0
"""After a refusal one request at a time feels the way: a refusal of that one would be known after this long."""
FIRST_S, DOUBLING_S = 1.0, 4.0
"""An unknown quota is felt for with one request in so many seconds, doubled this often until the first refusal."""
_INSTANT = 1e-6

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
    """Where a ledger stands. Rates are per minute; `quota_use` is None while the quota is unknown."""

    tokens_per_minute: float
    requests_per_minute: float
    used_last_minute: float
    quota_use: float | None
    sent: int
    refused: int
    waiting: int
    in_flight: int


@dataclass(eq=False)
class Reservation:
    """Leave to send one request. `place` keeps its position in the queue if the service refuses it."""

    tokens: float
    place: int
    sent_at: float


class _Bucket:
    """One limit as the service might keep it: filled at `rate` units/s, emptied by requests, corrected by refusals."""

    def __init__(self, per_minute: float | None, now: float) -> None:
        self.unknown = per_minute is None
        self.ceiling = math.inf if per_minute is None else SHARE * per_minute / 60
        self.rate = 0.0 if self.unknown else self.ceiling
        self.level = self.spent = self.taken = self.largest = 0.0
        self.started = self.filled_at = now
        self.wanted = False
        self.last_cut = -math.inf
        self.highest = math.inf
        self.quiet_requests = 0
        self.marks: deque[tuple[float, float, float]] = deque(maxlen=12)
        """Moments at which the service's bucket was empty: time, units spent until then, units taken until then
        (which is more by what was given back)."""

    @property
    def burst(self) -> float:
        return max(BURST_S * self.rate, 1.05 * self.largest)

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until `cost` may be taken at the present rate."""
        if not self.largest:
            self.filled_at = now  # nothing is saved up before the first request: perhaps the service was just emptied
        self.largest = max(self.largest, cost)
        if self.rate == math.inf:
            return 0.0
        if not self.rate:
            self.rate = cost / FIRST_S
        self._fill(now)
        missing = cost - self.level
        self.wanted = missing > 0
        return missing / self.rate

    def _fill(self, now: float) -> None:
        elapsed, self.filled_at = now - self.filled_at, now
        if self.rate == math.inf:
            return
        if self.unknown and self.wanted and self.last_cut == -math.inf:
            self.rate *= 2 ** (elapsed / DOUBLING_S)
        self.level = max(self.level, min(self.burst, self.level + self.rate * elapsed))

    def take(self, cost: float, now: float) -> None:
        if not self.marks:
            self.marks.append((now, 0.0, 0.0))
        self.level -= cost
        self.spent += cost
        self.taken += cost

    def give_back(self, amount: float, now: float) -> None:
        """`amount` may be negative: an answer cost more than was reserved for it."""
        self._fill(now)
        self.level += amount
        self.spent -= amount

    def accepted(self, sent_at: float) -> None:
        """A request got through: after a cut, go back up, fast to what the refusals leave possible, slowly beyond."""
        if sent_at < self.last_cut or self.rate >= self.ceiling or not self.wanted or self.last_cut == -math.inf:
            return
        self.quiet_requests += 1
        if self.rate < self.highest < math.inf:
            self.rate += 0.04 * (self.highest - self.rate)
        self.rate *= 1 + 1e-4 * (1 + (self.quiet_requests / 70) ** 2)
        self.rate = min(self.rate, self.ceiling)

    def refused(self, cost: float, sent_at: float, now: float, *, again: bool) -> None:
        """The service's bucket holds less than `cost`: so does ours, and perhaps our rate is too high.

        `again`: nothing got through since the last refusal, so this one says nothing new about the rate.
        """
        self.level = min(self.level, 0.0)
        if sent_at < self.last_cut or now - self.last_cut < 1.0 or again:
            self.marks[-1] = (now, self.spent, self.taken)
            return
        rate = self.rate if self.rate < math.inf else self.spent / max(now - self.started, 1.0)
        low, self.highest, bound = self._possible(cost, now)
        delivered = (low + self.highest) / 2
        self.rate = max(min(max(delivered, DEEPEST_CUT * rate), 0.98 * rate, bound), cost / SLOWEST_S)
        self.marks.append((now, self.spent, self.taken))
        self.last_cut, self.quiet_requests = now, 0

    def _possible(self, cost: float, now: float) -> tuple[float, float, float]:
        """The rates of the service, units/s, that agree with its latest refusals: lowest, highest, and a bound that
        holds even if the service could not keep what was given back (its bucket was full)."""
        low, high, bound = -math.inf, math.inf, math.inf
        for age, (then, spent_then, taken_then) in enumerate(reversed(self.marks)):
            seconds = max(now - then, 1e-3)
            delivered = self.spent - spent_then
            lowest, highest = (delivered - cost) / seconds, (max(delivered, 0.0) + cost) / seconds
            if lowest > high or highest < low:
                for _ in range(len(self.marks) - age):
                    self.marks.popleft()
                break
            low, high = max(low, lowest), min(high, highest)
            bound = min(bound, (self.taken - taken_then + cost) / seconds)
        return low, high, bound


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
    """

    def __init__(self, limits: Limits = Limits(), *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._queue: list[_Waiter] = []
        self._places = itertools.count()
        self._in_flight: set[Reservation] = set()
        self._feeler: Reservation | None = None
        self._held_until = -math.inf
        self._stopped: Exception | None = None
        self._in_a_row = self._sent = self._refused = 0
        self._minute: deque[tuple[int, float]] = deque()
        self._set(limits)

    def _set(self, limits: Limits) -> None:
        now = self.clock.now()
        self.limits = limits
        self._tokens, self._requests = _Bucket(limits.tokens_per_minute, now), _Bucket(limits.requests_per_minute, now)

    def change(self, limits: Limits) -> None:
        """Go on with another quota. What was learned about the old one is forgotten."""
        with self._lock:
            if limits != self.limits:
                self._set(limits)
                self._wake()

    def acquire(self, tokens: float, place: int | None = None) -> Reservation:
        """Wait for leave to send a request that the service will count as at most `tokens`.

        Parameters
        ----------
        tokens : prompt, cache writes and what the answer may cost.
        place : a refused reservation's place, to go before everything that came later.
        """
        with self._lock:
            condition = self.clock.condition(self._lock)
            waiter = _Waiter(next(self._places) if place is None else place, condition)
            heapq.heappush(self._queue, waiter)
            try:
                while True:
                    if self._stopped:
                        raise self._stopped
                    wait_s = self._wait_s(tokens) if self._queue[0] is waiter else None
                    if wait_s == 0.0:
                        break
                    condition.wait(wait_s)
            finally:
                self._queue.remove(waiter)
                heapq.heapify(self._queue)
                self._wake()
            reservation = Reservation(tokens, waiter.place, self.clock.now())
            self._tokens.take(tokens, reservation.sent_at)
            self._requests.take(1, reservation.sent_at)
            self._in_flight.add(reservation)
            self._sent += 1
            if self._in_a_row:
                self._feeler = reservation
            return reservation

    def settle(self, reservation: Reservation, tokens: float) -> None:
        """The request was answered and cost `tokens` of the quota."""
        with self._lock:
            self._return(reservation, tokens)
            self._tokens.accepted(reservation.sent_at)
            self._requests.accepted(reservation.sent_at)
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
            bucket.refused(cost, reservation.sent_at, now, again=bool(self._in_a_row and self._minute))
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

    def stop(self, error: Exception) -> None:
        """Make every thread that waits, now or later, raise `error`; what is in flight is not touched."""
        with self._lock:
            self._stopped = self._stopped or error
            for waiter in self._queue:
                waiter.changed.notify()

    @property
    def stopped(self) -> bool:
        return self._stopped is not None

    def state(self) -> LedgerState:
        with self._lock:
            now = self.clock.now()
            used = sum(tokens for second, tokens in self._minute if second > now - 60)
            quota = self.limits.tokens_per_minute
            return LedgerState(
                tokens_per_minute=60 * self._tokens.rate,
                requests_per_minute=60 * self._requests.rate,
                used_last_minute=used,
                quota_use=used / quota if quota and quota < math.inf else None,
                sent=self._sent,
                refused=self._refused,
                waiting=len(self._queue),
                in_flight=len(self._in_flight),
            )

    def _wait_s(self, tokens: float) -> float:
        """Seconds until the request at the head may go; 0.0: now."""
        now = self.clock.now()
        waits = [self._held_until - now, self._tokens.wait_s(tokens, now), self._requests.wait_s(1, now)]
        if self._feeler:
            unsure_for_s = self._feeler.sent_at + FEEL_S - now
            if unsure_for_s > _INSTANT:
                waits.append(unsure_for_s)
            else:
                self._got_through()
        wait_s = max(waits)
        return wait_s if wait_s > _INSTANT else 0.0

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
    """The one ledger of this process for `key` (account, region, profile): runs side by side share it.

    One that was stopped stays with those who hold it; a run that is started again gets a fresh one.
    """
    with _sharing:
        ledger = _shared.get(key)
        if ledger is None or ledger.stopped:
            ledger = _shared[key] = Ledger(limits)
    ledger.change(limits)
    return ledger
