"""The ledger: lets requests out in order, as fast as a service's quotas allow, so that hardly any is refused.

A service that limits tokens per minute takes ``input + cache writes + max_tokens`` out of a bucket when a call starts,
and puts back what was not used when it ends. The ledger does the same a moment earlier on the way out and later on the
way back, at a hair under the service's rate: what the ledger lets through, the service takes.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genesis_lab.files import output_root

HOLD_S, LONGEST_HOLD_S = 1.0, 15.0
"""Nothing is sent this long after a refusal; doubled with each further refusal in a row."""
FEEL_S = 1.0
"""After a refusal one request at a time feels the way: a refusal of that one would be known after this long."""
WAITING = 32
"""Requests that wait for quota are enough to have the next one ready at any rate."""
SHARE = 0.995
"""Part of a known quota that is used."""
BURST_S = 1.0
"""Seconds of rate that may be saved up and sent at once (always at least 1.05 times the largest request)."""
DEEPEST_CUT, SLOWEST_S = 0.7, 60.0
"""The rate is cut to no less than this share of itself, at most once a second, and to a request in so many seconds."""
FIRST_S, DOUBLING_S = 1.0, 4.0
"""An unknown quota is felt for with one request in so many seconds, doubled this often until the first refusal."""
INSTANT = 1e-6
LOOK_S, ALIVE_S, FORGOTTEN_S = 0.5, 5.0, 3600.0
"""A process that sends shows itself, and looks for others, this often; silent for so long, it is out, or removed."""
_ME = uuid.uuid4().hex

Scope = Literal["requests", "tokens", "unknown"]


class Clock:
    """The real time. Tests bring one whose seconds cost nothing."""

    now = staticmethod(time.monotonic)
    condition = staticmethod(threading.Condition)


@dataclass(frozen=True)
class Limits:
    """The quota of one model, region and account: None if it is not known (it is learned), ``math.inf`` for none.

    A limit nobody told about is learned from the first refusal; one output token costs `burndown` tokens of quota.
    """

    tokens_per_minute: float | None = None
    requests_per_minute: float | None = math.inf
    burndown: float = 1.0


class Bucket:
    """One limit as the service might keep it, mirrored and never led: filled at `rate` units/s, emptied by requests.

    Where the quota is not what we were told (cut in mid-run, shared with others, unknown) only refusals tell. Each is a
    fact: the service's bucket held less than that request. Between two such moments it took in what was delivered, give
    or take one request.
    """

    def __init__(self, per_minute: float | None, now: float) -> None:
        self.unknown = per_minute is None
        self.ceiling = math.inf if per_minute is None else SHARE * per_minute / 60
        self.rate = 0.0 if self.unknown else self.ceiling
        self.level = self.spent = self.largest = 0.0
        self.started = self.filled_at = now
        self.shared, self.wanted = 1.0, False
        self.last_cut, self.quiet_requests = -math.inf, 0
        self.mark: tuple[float, float] | None = None
        """When the service's bucket was last empty: time, units spent until then."""

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
        self.rate = self.rate or cost / FIRST_S
        self._fill(now)
        self.wanted = cost > self.level
        return (cost - self.level) / self.rate

    def _fill(self, now: float) -> None:
        elapsed, self.filled_at = now - self.filled_at, now
        if self.rate == math.inf:
            return
        if self.unknown and self.wanted and self.last_cut == -math.inf:
            self.rate *= 2 ** (elapsed / DOUBLING_S)
        self.level = max(self.level, min(self.burst, self.level + self.rate * elapsed))

    def share(self, factor: float, now: float) -> None:
        """Go on with so much of the quota as others leave us; the refusals so far tell nothing about that."""
        self._fill(now)
        self.ceiling *= factor
        self.rate *= factor
        self.shared *= factor
        self.mark = (now, self.spent)

    def take(self, cost: float, now: float) -> None:
        self.mark = self.mark or (now, 0.0)
        self.level -= cost
        self.spent += cost

    def give_back(self, amount: float, now: float) -> None:
        """`amount` may be negative: an answer cost more than was reserved for it."""
        self._fill(now)
        self.level += amount
        self.spent -= amount

    def accepted(self, sent_at: float) -> None:
        """A request got through: after a cut, go back up, ever faster."""
        if sent_at < self.last_cut or self.rate >= self.ceiling or not self.wanted or self.last_cut == -math.inf:
            return
        self.quiet_requests += 1
        self.rate *= 1 + 1e-4 * (1 + (self.quiet_requests / 70) ** 2)
        self.rate = min(self.rate, self.ceiling)

    def refused(self, cost: float, sent_at: float, now: float) -> None:
        """The service's bucket holds less than `cost`: so does ours, and perhaps our rate is too high."""
        self.level = min(self.level, 0.0)
        if self.mark and sent_at >= self.last_cut and now - self.last_cut >= 1.0:
            rate = self.rate if self.rate < math.inf else self.spent / max(now - self.started, 1.0)
            seconds, delivered = max(now - self.mark[0], 1e-3), self.spent - self.mark[1]
            self.rate = max(min(max(delivered / seconds, DEEPEST_CUT * rate), 0.98 * rate), cost / SLOWEST_S)
            self.last_cut, self.quiet_requests = now, 0
        self.mark = (now, self.spent)


class Neighbours:
    """The processes of this machine that draw on the same quota, this one included: they share it evenly.

    Each touches a file of its own in `folder` while it sends. A file that was not touched for a few seconds belongs to
    one that ended, died or has nothing to send: nobody has to say goodbye. `now` is in seconds, the same clock for all.
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
                silent_s = {file: now - file.stat().st_mtime for file in self._file.parent.iterdir()}
                self._count = sum(silent < ALIVE_S for silent in silent_s.values())
                for file in (file for file, silent in silent_s.items() if silent > FORGOTTEN_S):
                    file.unlink()
        return self._count


@dataclass(eq=False)
class Reservation:
    """Leave to send one request. `place` keeps its position in the queue if the service refuses it."""

    tokens: float
    place: int
    sent_at: float


class Ledger:
    """Lets requests out as fast as the quota allows, in order. One for each quota, shared by all threads.

    `neighbours` are the processes that share the quota; default: only this one.
    """

    def __init__(
        self, limits: Limits = Limits(), *, clock: Any = Clock(), neighbours: Neighbours | None = None
    ) -> None:
        self.clock, self._neighbours = clock, neighbours
        self._lock = threading.Lock()
        self._queue: list[tuple[int, Any]] = []
        self._places = itertools.count()
        self._in_flight: set[Reservation] = set()
        self._feeler: Reservation | None = None
        self._held_until = -math.inf
        self._resting: dict[Any, float] = {}
        self._stopped: dict[object, Exception] = {}
        self._settled_at = clock.now()
        self._in_a_row = self._sent = self._refused = 0
        self._minute: deque[tuple[int, float]] = deque()
        self._set(limits)

    def _set(self, limits: Limits) -> None:
        self.limits, self._sharing, now = limits, 1, self.clock.now()
        self._tokens, self._requests = Bucket(limits.tokens_per_minute, now), Bucket(limits.requests_per_minute, now)

    def change(self, limits: Limits) -> None:
        """Go on with another quota. What was learned about the old one is forgotten."""
        with self._lock:
            if limits != self.limits:
                self._set(limits)
                self._wake()

    # --- waiting ------------------------------------------------------------------------------------------------------

    def acquire(self, tokens: float, place: int | None = None, who: object = None) -> Reservation:
        """Wait for leave to send a request that the service will count as at most `tokens`.

        At a refused reservation's `place` it goes before everything that came later. Raises the error with which `who`,
        or everybody, was stopped.
        """
        with self._lock:
            condition = self.clock.condition(self._lock)
            waiter = (next(self._places) if place is None else place, condition)
            bisect.insort(self._queue, waiter)
            try:
                while True:
                    self._refuse_stopped(who)
                    wait_s = self._wait_s(tokens) if self._queue[0] is waiter else None
                    if wait_s == 0.0:
                        break
                    condition.wait(min(wait_s, LOOK_S) if wait_s and self._neighbours else wait_s)
            finally:
                self._queue.remove(waiter)
                self._wake()
            reservation = Reservation(tokens, waiter[0], self.clock.now())
            self._tokens.take(tokens, reservation.sent_at)
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

    def pause(self, seconds: float) -> None:
        """Send nothing for a while, then one request to feel the way."""
        with self._lock:
            self._held_until = max(self._held_until, self.clock.now() + seconds)
            self._in_a_row = max(self._in_a_row, 1)

    def stop(self, error: Exception, who: object = None) -> None:
        """Make all that wait for `who` (None: for anybody), now or later, raise `error`; what is in flight is left."""
        with self._lock:
            self._stopped.setdefault(who, error)
            for condition in (*(condition for _, condition in self._queue), *self._resting):
                condition.notify()

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

    def _wake(self) -> None:
        if self._queue:
            self._queue[0][1].notify()

    # --- what came of a request ---------------------------------------------------------------------------------------

    def settle(self, reservation: Reservation, tokens: float) -> None:
        """The request was answered and cost `tokens` of the quota."""
        with self._lock:
            now = self._settled_at = self.clock.now()
            self._return(reservation, tokens)
            self._tokens.accepted(reservation.sent_at)
            self._requests.accepted(reservation.sent_at)
            if self._minute and self._minute[-1][0] == int(now):
                tokens += self._minute.pop()[1]
            self._minute.append((int(now), tokens))
            while self._minute[0][0] <= int(now) - 60:
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
            tokens, requests = self._tokens, self._requests
            if scope == "unknown" and requests.rate < math.inf:  # then the fuller limit is meant
                fuller = requests.level / requests.burst < tokens.level / max(tokens.burst, 1e-9)
                scope = "requests" if fuller else "tokens"
            bucket, cost = (requests, 1.0) if scope == "requests" else (tokens, reservation.tokens)
            bucket.refused(cost, reservation.sent_at, now)
            if now >= self._held_until:
                self._held_until = now + min(HOLD_S * 2**self._in_a_row, LONGEST_HOLD_S)
                self._in_a_row += 1
            self._held_until = max(self._held_until, now + (retry_after_s or 0.0))
            self._wake()

    def _return(self, reservation: Reservation, tokens: float) -> None:
        self._in_flight.discard(reservation)
        self._tokens.give_back(reservation.tokens - tokens, self.clock.now())
        if reservation is self._feeler:
            self._got_through()
        self._wake()

    def _got_through(self) -> None:
        self._feeler, self._in_a_row = None, 0

    # --- where it stands ----------------------------------------------------------------------------------------------

    def wants_more(self, started: int) -> bool:
        """Whether one more request than the `started` ones is of use: not while many of them wait for the quota."""
        unlimited = self._tokens.rate == self._requests.rate == math.inf
        return unlimited or started - len(self._in_flight) < WAITING

    def state(self) -> dict[str, Any]:
        """Where it stands: the rate, tokens ``used`` in the last minute, requests; seconds until anything is sent again
        (``held_s``), where all wait for that, and since when nothing was answered that is in flight (``silent_s``)."""
        with self._lock:
            now = self.clock.now()
            oldest = min((each.sent_at for each in self._in_flight), default=now)
            again = max(self._held_until, now) if self._queue else min(self._resting.values(), default=now)
            return {
                "tokens_per_minute": 60 * self._tokens.rate,
                "used": sum(tokens for second, tokens in self._minute if second > now - 60),
                "sent": self._sent,
                "refused": self._refused,
                "waiting": len(self._queue),
                "in_flight": len(self._in_flight),
                "held_s": 0.0 if self._in_flight else max(again - now, 0.0),
                "silent_s": now - max(oldest, self._settled_at),
            }

    def learned(self) -> dict[str, float]:
        """The quotas that nobody told and refusals did, by the names of `Limits`."""
        buckets = {"tokens_per_minute": self._tokens, "requests_per_minute": self._requests}
        untold = {name: bucket for name, bucket in buckets.items() if getattr(self.limits, name) in (None, math.inf)}
        return {name: round(60 * b.rate / b.shared) for name, b in untold.items() if b.last_cut > -math.inf}


_shared: dict[Hashable, Ledger] = {}
_sharing = threading.Lock()


def shared_ledger(key: Hashable, limits: Limits) -> Ledger:
    """The one ledger of this process for `key` (account, region, profile), a fresh one where that was stopped.

    Runs side by side share it; processes of one machine have one each, for an even part of the quota.
    """
    with _sharing:
        ledger = _shared.get(key)
        if ledger is None or None in ledger._stopped:
            quota_id = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
            limited = min(limits.tokens_per_minute or 0.0, limits.requests_per_minute or 0.0) < math.inf
            neighbours = Neighbours(output_root() / "cache" / "quotas" / quota_id) if limited else None
            ledger = _shared[key] = Ledger(limits, neighbours=neighbours)
    ledger.change(limits)
    return ledger
