"""The scheduler: between the engine's threads and a provider, it waits for quota, retries, and knows when to stop."""

from __future__ import annotations

import math
import threading

import numpy as np

from genesis_lab.errors import (
    Fatal,
    GenesisError,
    ProviderError,
    QuotaExhausted,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
)
from genesis_lab.generation.limiter import Ledger
from genesis_lab.providers.base import Completion, Provider, Request

CHARACTERS_PER_TOKEN = 3.0
"""Of a prompt; low, so that rather too much is reserved: what was not used comes back with the answer."""
SILENT_S = 15.0
"""No answer for this long is worth a word."""
ATTEMPTS = 6
"""Transient failures of one request before it is given up as `Rejected`."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""First wait after a transient failure, doubled each time, and its cap."""
FAILURES_IN_A_ROW, PAUSE_S, PAUSES = 10, 5.0, 5
"""So many failures without a success, over all threads, pause the run, longer each time, and so many pauses stop it."""
REFUSED_FOR_S, LONGEST_WAIT_S = 900.0, 300.0
"""The run is stopped when the service refused everything for this long, or asks for a longer wait (``Retry-After``)."""
UNREACHED, REJECTED, UNANSWERED_S = 3, 20, 300.0
"""Where nobody ever answered, the run is stopped after this: times in a row that a request finds nobody at the address,
different requests that were rejected, seconds after which a request failed."""
AGAIN = "run the same again to go on"


class Scheduler:
    """Completes requests of any number of threads; schedulers of one quota share its `ledger`. `rng` jitters waits."""

    def __init__(self, provider: Provider, ledger: Ledger, *, rng: np.random.Generator | None = None) -> None:
        self.provider, self.ledger = provider, ledger
        self._rng, self._clock, self._lock = rng or np.random.default_rng(), ledger.clock, threading.Lock()
        self.answered = self._rejected = self._failed_in_a_row = self._pauses = 0
        self._paused_until, self._last_success = -math.inf, self._clock.now()
        self._last_error = ""
        self._who = object()

    def complete(self, request: Request) -> Completion:
        """The answer, however long the quota makes it wait.

        Raises `Rejected` where this request can't work, or failed too often while others did not; in every waiting
        thread `QuotaExhausted` or `Fatal` where none can, and `GenesisError` where the service failed for too long, or
        `stop` was called.
        """
        prompt = (len(request.system) + sum(len(text) for _, text in request.messages)) / CHARACTERS_PER_TOKEN
        place: int | None = None
        failures = unreached = 0
        while True:
            reservation = self.ledger.acquire(prompt + request.max_tokens, place, self._who)
            place = reservation.place
            try:
                completion = self.provider.complete(request)
            except Throttled as error:
                self.ledger.refuse(reservation, error.scope, error.retry_after_s)
                self._check_wait(error)
                silent_s = self._clock.now() - self._last_success
                if silent_s > REFUSED_FOR_S:
                    self._give_up(f"refused every request for {silent_s / 60:.0f} minutes", error)
            except Transient as error:
                # No status: the answer may have been lost on its way back, and be paid for.
                self.ledger.release(reservation, 0.0 if error.status else prompt + request.max_tokens / 2)
                self._check_wait(error)
                if not self.answered and (waited_s := self._clock.now() - reservation.sent_at) > UNANSWERED_S:
                    self._give_up(f"has answered nothing in {waited_s / 60:.0f} minutes", error)
                if isinstance(error, Unreachable) and not self.answered:
                    unreached += 1
                    if unreached >= UNREACHED:
                        self._give_up("can't be reached", error)
                    self._back_off(unreached, None)
                    continue
                failures += self._failed(error, reservation.sent_at)
                if failures >= ATTEMPTS:
                    raise Rejected(f"the service failed {failures} times on this request ({error})") from error
                self._back_off(failures, error.retry_after_s)
            except Rejected as error:
                self.ledger.release(reservation)
                with self._lock:
                    self._rejected += 1
                if not self.answered and self._rejected >= REJECTED:
                    self._give_up(f"rejected each of the first {self._rejected} requests", error)
                raise
            except (QuotaExhausted, Fatal) as error:
                self.ledger.release(reservation)
                self.ledger.stop(error)
                raise
            except BaseException:
                self.ledger.release(reservation)
                raise
            else:
                cost = prompt + request.max_tokens / 2
                if usage := completion.usage:
                    cost = usage.prompt_tokens + usage.cache_write_tokens
                    cost += usage.completion_tokens * self.ledger.limits.burndown
                with self._lock:
                    self.answered += 1
                    self._failed_in_a_row = self._pauses = 0
                    self._last_success, self._last_error = self._clock.now(), ""
                self.ledger.settle(reservation, cost)
                return completion

    def stop(self) -> None:
        """Let what is in flight finish; what waits raises, others on the same quota do not."""
        self.ledger.stop(GenesisError(f"Stopped; everything so far is saved: {AGAIN}."), self._who)

    @property
    def waits(self) -> str:
        """``waiting 0:40 (503 Service Unavailable)``, ``no answer for 1:20``, or nothing."""
        state = self.ledger.state()
        if state["held_s"] > 1:
            return f"waiting {_minutes(state['held_s'])}" + (f" ({self._last_error[:120]})" if self._last_error else "")
        return f"no answer for {_minutes(state['silent_s'])}" if state["silent_s"] > SILENT_S else ""

    @property
    def standing(self) -> str:
        """``97% of 200,000 tokens used in the last minute · 3 throttled · 12 in flight, 20 waiting``, and `waits`."""
        state, quota = self.ledger.state(), self.ledger.limits.tokens_per_minute
        learned = f"learning the quota: {state['tokens_per_minute']:,.0f} tokens/min so far"
        used = learned if 0 < state["tokens_per_minute"] < math.inf else ""
        if quota and quota < math.inf:
            used = f"{state['used'] / quota:.0%} of {quota:,.0f} tokens used in the last minute"
        throttled = f"{state['refused']:,} throttled" if state["refused"] else ""
        waiting = f", {state['waiting']:,} waiting" if state["waiting"] else ""
        return " · ".join(filter(None, (used, throttled, f"{state['in_flight']:,} in flight{waiting}", self.waits)))

    def _check_wait(self, error: Throttled | Transient) -> None:
        self._last_error = str(error)
        if (wait_s := error.retry_after_s or 0.0) > LONGEST_WAIT_S:
            self._give_up(f"asks for a wait of {wait_s / 60:,.0f} minutes", error)

    def _failed(self, error: ProviderError, sent_at: float) -> int:
        """Count a failure towards the circuit breaker; returns 1 if the request itself is to be charged for it."""
        with self._lock:
            if sent_at < self._paused_until:
                return 0
            self._failed_in_a_row += 1
            if self._failed_in_a_row < FAILURES_IN_A_ROW and not self._pauses:
                return 1
            self._pauses += 1
            pauses, pause_s = self._pauses, PAUSE_S * 2 ** (self._pauses - 1)
            self._paused_until = self._clock.now() + pause_s
        if pauses > PAUSES:
            self._give_up("failed on every request, pauses or not", error)
        self.ledger.pause(pause_s)
        return 0

    def _give_up(self, what: str, error: ProviderError) -> None:
        stopped = GenesisError(f"{self.provider.model} {what} (last: {error}); everything so far is saved: {AGAIN}.")
        self.ledger.stop(stopped)
        raise stopped from error

    def _back_off(self, failures: int, retry_after_s: float | None) -> None:
        longest = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** max(failures - 1, 0))
        with self._lock:
            jittered = longest * self._rng.uniform(0.5, 1.0)
        self.ledger.rest(max(jittered, retry_after_s or 0.0), self._who)


def _minutes(seconds: float) -> str:
    """``0:40``, ``120:00``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
