"""The scheduler: between the engine's threads and a provider, it waits for quota, retries, and knows when to stop."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import replace

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
from genesis_lab.providers.base import Completion, Provider, Request, Usage, total_cost

CHARACTERS_PER_TOKEN = 3.0
"""Of a prompt, before any answer told the real ratio; low, so that the first requests are rather over-reserved."""
HEADROOM = 1.5
"""The answer cap is this much above the 99th percentile of the answers seen."""
ENOUGH = 50
"""Answers to see before the cap follows them."""
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
    """Completes requests, from any number of threads.

    Parameters
    ----------
    provider : who answers.
    ledger : the quota's ledger; share one between all schedulers of the same quota.
    rng : for the jitter of waits.

    Attributes
    ----------
    answered : requests so far.
    cap : `max_tokens` of requests, lowered towards what answers need (it is reserved, so it costs quota); None at first.
    """

    def __init__(self, provider: Provider, ledger: Ledger, *, rng: np.random.Generator | None = None) -> None:
        self.provider, self.ledger = provider, ledger
        self._rng = rng or np.random.default_rng()
        self._clock = ledger.clock
        self._lock = threading.Lock()
        self._outputs: deque[int] = deque(maxlen=1000)
        self.cap: int | None = None
        self._expected_output: float | None = None
        self._per_token = CHARACTERS_PER_TOKEN
        self.answered = self._rejected = 0
        self._failed_in_a_row = self._pauses = 0
        self._paused_until = -math.inf
        self._last_success = self._clock.now()
        self._last_error = ""
        self._who = object()

    def complete(self, request: Request) -> Completion:
        """The answer, however long the quota makes it wait.

        Raises
        ------
        Rejected : this request can't work, or failed too often while others did not.
        QuotaExhausted, Fatal : no request can work; every waiting thread gets the same error.
        GenesisError : the service failed for too long, or `stop` was called; says how to resume.
        """
        capped = self._capped(request)
        completion = self._answer(capped)
        if completion.stop_reason != "max_tokens" or capped.max_tokens >= request.max_tokens:
            return completion
        longer = self._answer(request)  # our cap cut it short, not the caller's
        cost_usd = total_cost([completion.cost_usd, longer.cost_usd])
        usage = completion.usage + longer.usage if completion.usage and longer.usage else None
        return replace(longer, usage=usage, cost_usd=cost_usd)

    def stop(self) -> None:
        """Let what is in flight finish; what waits raises, others on the same quota do not."""
        self.ledger.stop(GenesisError(f"Stopped; everything so far is saved: {AGAIN}."), self._who)

    @property
    def waits(self) -> str:
        """What it waits for: ``waiting 0:40 (503 Service Unavailable)``, ``no answer for 1:20``, or nothing."""
        state = self.ledger.state()
        if state["held_s"] > 1:
            return f"waiting {_minutes(state['held_s'])}" + (f" ({self._last_error[:120]})" if self._last_error else "")
        if state["silent_s"] > SILENT_S:
            return f"no answer for {_minutes(state['silent_s'])}"
        return ""

    @property
    def standing(self) -> str:
        """``97% of 200,000 tokens used in the last minute · 3 throttled · 12 in flight, 20 waiting · no answer for 1:20``."""
        state, quota = self.ledger.state(), self.ledger.limits.tokens_per_minute
        used = ""
        if quota and quota < math.inf:
            used = f"{state['used'] / quota:.0%} of {quota:,.0f} tokens used in the last minute"
        elif 0 < state["tokens_per_minute"] < math.inf:
            used = f"learning the quota: {state['tokens_per_minute']:,.0f} tokens/min so far"
        throttled = f"{state['refused']:,} throttled" if state["refused"] else ""
        waiting = f", {state['waiting']:,} waiting" if state["waiting"] else ""
        return " · ".join(filter(None, (used, throttled, f"{state['in_flight']:,} in flight{waiting}", self.waits)))

    def _answer(self, request: Request) -> Completion:
        place: int | None = None
        failures = unreached = 0
        while True:
            reservation = self.ledger.acquire(self._reserve(request), place, self._who)
            try:
                completion = self.provider.complete(request)
            except Throttled as error:
                self.ledger.refuse(reservation, error.scope, error.retry_after_s)
                place, self._last_error = reservation.place, str(error)
                self._check_wait(error)
                self._refused(error)
            except Transient as error:
                # No status: the answer may have been lost on its way back, and be paid for.
                self.ledger.release(reservation, 0.0 if error.status else self._expected(request))
                place, self._last_error = reservation.place, str(error)
                self._check_wait(error)
                if not self.answered:
                    unreached += isinstance(error, Unreachable)
                    if unreached >= UNREACHED:
                        self._give_up("can't be reached", error)
                    if (waited_s := self._clock.now() - reservation.sent_at) > UNANSWERED_S:
                        self._give_up(f"has answered nothing in {waited_s / 60:.0f} minutes", error)
                    if isinstance(error, Unreachable):
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
                self.ledger.settle(reservation, self._learn(request, completion.usage))
                return completion

    def _capped(self, request: Request) -> Request:
        cap = self.cap
        return request if cap is None or cap >= request.max_tokens else replace(request, max_tokens=cap)

    def _prompt(self, request: Request) -> float:
        characters = len(request.system) + sum(len(text) for _, text in request.messages)
        return characters / self._per_token

    def _expected(self, request: Request) -> float:
        """What the request will cost when it is settled, on the high side."""
        output = request.max_tokens / 2 if self._expected_output is None else self._expected_output
        return self._prompt(request) + min(output, request.max_tokens) * self.ledger.limits.burndown

    def _reserve(self, request: Request) -> float:
        """What the service reserves, or what it will settle for where that is more."""
        return max(self._prompt(request) + request.max_tokens, self._expected(request))

    def _learn(self, request: Request, usage: Usage | None) -> float:
        """Take an answer's usage into account; returns its cost in tokens of quota, expected where it was not counted."""
        expected = self._expected(request)
        prompt = usage.prompt_tokens + usage.cache_write_tokens if usage else 0
        with self._lock:
            self.answered += 1
            self._failed_in_a_row = self._pauses = 0
            self._last_success = self._clock.now()
            self._last_error = ""
            if usage is None:
                return expected
            estimated = self._prompt(request)
            if prompt and estimated:
                # Follows at once where the prompt was longer than thought, slowly where it was shorter.
                ratio = self._per_token * estimated / prompt
                weight = 0.5 if ratio < self._per_token else 0.02
                self._per_token += weight * (ratio - self._per_token)
            self._outputs.append(usage.completion_tokens)
            if len(self._outputs) >= ENOUGH and (self.cap is None or self.answered % 25 == 0):
                ninetieth, last = np.quantile(self._outputs, (0.9, 0.99))
                self._expected_output = float(ninetieth)
                self.cap = math.ceil(HEADROOM * last) + 16
        return prompt + usage.completion_tokens * self.ledger.limits.burndown

    def _check_wait(self, error: Throttled | Transient) -> None:
        if (wait_s := error.retry_after_s or 0.0) > LONGEST_WAIT_S:
            self._give_up(f"asks for a wait of {wait_s / 60:,.0f} minutes", error)

    def _refused(self, error: Throttled) -> None:
        with self._lock:
            silent_s = self._clock.now() - self._last_success
        if silent_s > REFUSED_FOR_S:
            self._give_up(f"refused every request for {silent_s / 60:.0f} minutes", error)

    def _failed(self, error: ProviderError, sent_at: float) -> int:
        """Count a failure towards the circuit breaker; returns 1 if the request itself is to be charged for it."""
        with self._lock:
            if sent_at < self._paused_until:
                return 0
            self._failed_in_a_row += 1
            if self._failed_in_a_row < FAILURES_IN_A_ROW and not self._pauses:
                return 1
            self._pauses += 1
            pauses = self._pauses
            pause_s = PAUSE_S * 2 ** (pauses - 1)
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
