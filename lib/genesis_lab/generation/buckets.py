"""A quota bucket as a service might keep it, mirrored and never led, and corrected by what the service refuses.

Where the quota is not what we were told (cut in mid-run, shared with others, unknown) only refusals tell. Each refusal
is a fact: the service's bucket held less than that request. Between two such moments it took in what was delivered, give
or take one request, so ``rate = (delivered ± one request) ÷ time``; several refusals give several such intervals, and
those that agree are intersected, newest first. One that disagrees is from before the quota changed and is forgotten.

A service may hold no more than a second of its quota: what finished calls give back to a full bucket is lost then. The
ledger keeps such a bucket on the side, and goes by it once refusals came that it foresaw.
"""

from __future__ import annotations

import math
from collections import deque

SHARE = 0.995
"""Part of a known quota that is used."""
BURST_S = 1.0
"""Seconds of rate that may be saved up and sent at once (always at least 1.05 times the largest request)."""
DEEPEST_CUT = 0.7
"""The rate is cut to no less than this share of itself, and at most once a second."""
SLOWEST_S = 60.0
"""However much is refused, a request is tried this often."""
FIRST_S, DOUBLING_S = 1.0, 4.0
"""An unknown quota is felt for with one request in so many seconds, doubled this often until the first refusal."""
SIGNS = 2.0
"""Refusals that only a bucket of a second explains, less half of the answers it does not, before it is taken for one."""
SECOND = 0.95
"""Such a bucket is thought this much smaller than it is: it fills up before we know it."""
INSTANT = 1e-6


class Bucket:
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
        self.second = self.signs = 0.0
        self.shallow = False
        self.marks: deque[tuple[float, float, float]] = deque(maxlen=12)
        """Moments at which the service's bucket was empty: time, units spent until then, units taken until then
        (which is more by what was given back)."""

    @property
    def burst(self) -> float:
        return max(BURST_S * self.rate, 1.05 * self.largest)

    @property
    def depth(self) -> float:
        """What the service's bucket holds if that is a second of the quota and no more."""
        return SECOND * self.ceiling / SHARE

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
        if self.shallow:
            missing = max(missing, min(cost, self.depth) - self.second)
        self.wanted = missing > 0
        return missing / self.rate

    def _fill(self, now: float) -> None:
        elapsed, self.filled_at = now - self.filled_at, now
        if self.rate == math.inf:
            return
        if self.unknown and self.wanted and self.last_cut == -math.inf:
            self.rate *= 2 ** (elapsed / DOUBLING_S)
        self.level = max(self.level, min(self.burst, self.level + self.rate * elapsed))
        self._pour(self.ceiling * elapsed)

    def share(self, factor: float, now: float) -> None:
        """Go on with so much of the quota as others leave us; the refusals so far tell nothing about that."""
        self._fill(now)
        self.ceiling *= factor
        self.rate *= factor
        self.highest = math.inf
        self._start_marks(now)

    def _start_marks(self, now: float) -> None:
        self.marks.clear()
        self.marks.append((now, self.spent, self.taken))

    def _pour(self, amount: float) -> None:
        """Into the bucket of a second: what does not fit is as good as spent."""
        if self.ceiling == math.inf:
            return
        lost = max(0.0, self.second + amount - self.depth)
        self.second += amount - lost
        if self.shallow:
            self.spent += lost

    def take(self, cost: float, now: float) -> bool:
        """Returns whether a bucket of a second would refuse it."""
        if not self.marks:
            self.marks.append((now, 0.0, 0.0))
        doubtful = self.ceiling < math.inf and self.second < min(cost, self.depth) - INSTANT
        self.level -= cost
        self.second -= cost
        self.spent += cost
        self.taken += cost
        return doubtful

    def give_back(self, amount: float, now: float) -> None:
        """`amount` may be negative: an answer cost more than was reserved for it."""
        self._fill(now)
        self.level += amount
        self._pour(amount)
        self.spent -= amount

    def accepted(self, sent_at: float, *, doubtful: bool) -> None:
        """A request got through: after a cut, go back up, fast to what the refusals leave possible, slowly beyond."""
        if doubtful:
            self.signs = max(0.0, self.signs - 0.5)
        if sent_at < self.last_cut or self.rate >= self.ceiling or not self.wanted or self.last_cut == -math.inf:
            return
        self.quiet_requests += 1
        if self.rate < self.highest < math.inf:
            self.rate += 0.04 * (self.highest - self.rate)
        self.rate *= 1 + 1e-4 * (1 + (self.quiet_requests / 70) ** 2)
        self.rate = min(self.rate, self.ceiling)

    def refused(self, cost: float, sent_at: float, now: float, *, again: bool, doubtful: bool) -> None:
        """The service's bucket holds less than `cost`: so does ours, and perhaps our rate is too high.

        `again`: nothing got through since the last refusal, so this one says nothing new about the rate.
        """
        self.level = min(self.level, 0.0)
        if not doubtful:
            self.second = min(self.second, 0.0)
        elif not self.shallow:
            self.signs += 1
            if self.signs >= SIGNS:  # so the earlier refusals were about the depth, not about the rate
                self.shallow = True
                self.rate, self.last_cut, self.highest = self.ceiling, -math.inf, math.inf
                self._start_marks(now)
                return
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
