"""A service with quotas and a clock whose seconds cost nothing: threads run one at a time, in a fixed order."""

from __future__ import annotations

import heapq
import itertools
import math
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from genesis_lab.errors import GenesisError, Throttled, Transient
from genesis_lab.generation.limiter import Ledger, Limits, Neighbours
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.providers.base import Completion, Request, Usage


class VirtualClock:
    """Time goes on when every thread waits, straight to the next moment at which one of them wants to wake."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[_Sleeper] = deque()
        self._timers: list[tuple[float, int, _Sleeper]] = []
        self._order = itertools.count()
        self._running = 0
        self._finished = threading.Event()

    def now(self) -> float:
        return self._now

    def condition(self, lock: threading.Lock) -> VirtualCondition:
        return VirtualCondition(self, lock)

    def sleep(self, seconds: float) -> None:
        self._block(_Sleeper(), seconds)

    def run(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Run the jobs to their end, each in a thread; raises the first error of any."""
        errors: list[BaseException] = []

        def work(job: Callable[[], None], start: _Sleeper) -> None:
            start.turn.acquire()
            try:
                job()
            except BaseException as error:
                errors.append(error)
            self._running -= 1
            self._next()

        for job in jobs:
            sleeper = _Sleeper(awake=True)
            self._running += 1
            self._ready.append(sleeper)
            threading.Thread(target=work, args=(job, sleeper), daemon=True).start()
        self._next()
        self._finished.wait()
        if errors:
            raise errors[0]

    def _block(self, sleeper: _Sleeper, timeout: float | None) -> None:
        if timeout is not None:
            heapq.heappush(self._timers, (self._now + max(timeout, 0.0), next(self._order), sleeper))
        self._next()
        sleeper.turn.acquire()

    def _wake(self, sleeper: _Sleeper) -> None:
        if not sleeper.awake:
            sleeper.awake = True
            self._ready.append(sleeper)

    def _next(self) -> None:
        if self._ready:
            self._ready.popleft().turn.release()
            return
        while self._timers:
            when, _, sleeper = heapq.heappop(self._timers)
            if not sleeper.awake:
                self._now = max(self._now, when)
                sleeper.awake = True
                sleeper.turn.release()
                return
        assert not self._running, "every thread waits for another: deadlock"
        self._finished.set()


@dataclass
class _Sleeper:
    awake: bool = False
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class VirtualCondition:
    def __init__(self, clock: VirtualClock, lock: threading.Lock) -> None:
        self._clock, self._lock = clock, lock
        self._waiting: list[_Sleeper] = []

    def wait(self, timeout: float | None = None) -> bool:
        sleeper = _Sleeper()
        self._waiting.append(sleeper)
        self._lock.release()
        self._clock._block(sleeper, timeout)
        self._lock.acquire()
        self._waiting.remove(sleeper)
        return True

    def notify(self) -> None:
        for sleeper in self._waiting:
            self._clock._wake(sleeper)


Kind = Literal["continuous", "fixed_window"]


class SimulatedService:
    """Answers like Bedrock: reserves, settles, refuses. A `Provider`.

    Parameters
    ----------
    tokens_per_minute, requests_per_minute : quotas; inf for none.
    kind : a bucket of a minute, or a count per clock minute.
    burndown : tokens of quota per output token.
    fault_rate : share of requests that fail with a 503.
    latency_s : of the first token; an answer goes on at 80 tokens/s.
    """

    name = "simulated"
    model = "simulated"
    free, concurrency = False, 64

    def __init__(
        self,
        clock: VirtualClock,
        *,
        tokens_per_minute: float = math.inf,
        requests_per_minute: float = math.inf,
        kind: Kind = "continuous",
        burndown: float = 1.0,
        fault_rate: float = 0.0,
        latency_s: float = 0.4,
        seed: int = 0,
    ) -> None:
        self.clock, self.kind, self.burndown = clock, kind, burndown
        self.fault_rate, self.latency_s = fault_rate, latency_s
        self.rng = np.random.default_rng(seed)
        self._quotas = {"tokens": tokens_per_minute, "requests": requests_per_minute}
        # As if somebody had just used it up: whoever sends more than the rate is refused at once.
        self._levels = dict.fromkeys(self._quotas, 0.0)
        if kind == "fixed_window":
            self._levels = dict(self._quotas)
        self._at = clock.now()
        self._window = 17.0  # clock minutes do not begin when we do
        self.sent = self.throttled = 0
        self.settled: list[tuple[float, float]] = []
        """(time, tokens) of each answer."""
        self.answered: list[str] = []
        """Keys of the answers that were not cut short."""

    def set_quota(self, **per_minute: float) -> None:
        self._refill()
        self._quotas |= per_minute

    def _refill(self) -> None:
        now = self.clock.now()
        for what, quota in self._quotas.items():
            if quota == math.inf:
                self._levels[what] = math.inf
            elif self.kind == "fixed_window":
                if now >= self._window:
                    self._levels[what] = quota + min(self._levels[what], 0.0)
            else:
                self._levels[what] = min(quota, self._levels[what] + quota / 60 * (now - self._at))
        while now >= self._window:
            self._window += 60.0
        self._at = now

    def complete(self, request: Request) -> Completion:
        self.clock.sleep(0.03)
        self.sent += 1
        self._refill()
        prompt = sum(len(text) for _, text in request.messages) // 4
        needs = {"tokens": prompt + request.max_tokens, "requests": 1}
        for what, cost in needs.items():
            if self._levels[what] < min(cost, self._quotas[what]):  # a bucket that is full lets in any request
                self.throttled += 1
                self.clock.sleep(0.02)
                raise Throttled(f"Too many {what}, please wait", scope="unknown", status=429)
        for what, cost in needs.items():
            self._levels[what] -= cost
        if self.rng.random() < self.fault_rate:
            self.clock.sleep(0.3)
            self._levels["tokens"] += needs["tokens"]
            raise Transient("the service is unavailable", status=503)
        wanted = int(np.clip(self.rng.lognormal(6.0, 0.35), 50, 4000))
        output = min(wanted, request.max_tokens)
        self.clock.sleep(self.latency_s * self.rng.uniform(0.7, 1.3) + output / 80)
        self._refill()
        cost = prompt + output * self.burndown
        self._levels["tokens"] += needs["tokens"] - cost
        self.settled.append((self.clock.now(), cost))
        if wanted == output:
            self.answered.append(request.key)
        self.clock.sleep(0.03)
        stop = "max_tokens" if wanted > output else "end"
        return Completion("{}", self.model, Usage(prompt, output), stop)

    def cost_usd(self, usage: Usage) -> float | None:
        return None

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Measured:
    """Counted on the server. Shares: of the quota used (whole run; steady state) and of requests refused."""

    whole: float
    steady: float
    throttled: float
    lost: int
    duplicated: int
    requests: int


def simulate(
    *,
    told: Limits | None = None,
    minutes: float = 10.0,
    threads: int = 0,
    processes: int = 1,
    change: tuple[float, dict[str, float]] | None = None,
    seed: int = 0,
    **service_options: object,
) -> Measured:
    """Send requests as fast as our scheduler lets us, for some virtual minutes.

    Parameters
    ----------
    told : what the ledgers are told (default: the truth).
    threads : for each process; default: half as many again as the quota can keep busy.
    processes : schedulers with a ledger of their own each; they share the quota by a folder.
    change : (share of the time, quotas from then on).
    """
    clock = VirtualClock()
    service = SimulatedService(clock, seed=seed, **service_options)  # type: ignore[arg-type]
    tokens, requests = service._quotas.values()
    told = told or Limits(tokens, requests, service.burndown)
    per_second = min(tokens / (900 + 430 * service.burndown), requests) / 60
    threads = threads or math.ceil(9 * per_second / processes) + 4
    end = 60 * minutes
    ids, lost = itertools.count(), []

    def work(scheduler: Scheduler) -> None:
        while clock.now() < end:
            key = str(next(ids))
            length = int(service.rng.integers(3200, 4000))
            try:
                scheduler.complete(Request(key, messages=(("user", "x" * length),)))
            except GenesisError:
                lost.append(key)

    def alter() -> None:
        if change:
            clock.sleep(change[0] * end)
            service.set_quota(**change[1])

    with tempfile.TemporaryDirectory() as folder:
        schedulers = []
        for number in range(processes):
            neighbours = Neighbours(Path(folder), str(number), clock.now) if processes > 1 else None
            ledger = Ledger(told, clock=clock, neighbours=neighbours)
            schedulers.append(Scheduler(service, ledger, rng=np.random.default_rng((seed, number))))
        clock.run([alter, *(lambda s=s: work(s) for s in schedulers for _ in range(threads))])
    what = "tokens" if tokens < math.inf else "requests"
    quota = {"tokens": tokens, "requests": requests}[what] / 60
    later = (change[1][what] / 60, change[0] * end) if change else (quota, end)

    def use(start: float, stop: float) -> float:
        got = sum(cost if what == "tokens" else 1 for at, cost in service.settled if start <= at < stop)
        granted = quota * max(0.0, min(stop, later[1]) - start) + later[0] * max(0.0, stop - max(start, later[1]))
        return got / granted

    return Measured(
        whole=use(0, end),
        steady=use(min(60.0, end / 4), end),
        throttled=service.throttled / service.sent,
        lost=len(lost),
        duplicated=len(service.answered) - len(set(service.answered)),
        requests=service.sent,
    )


TOKENS = {"30k": 30_000.0, "200k": 200_000.0, "2M": 2_000_000.0}
SCENARIOS: dict[str, dict[str, object]] = {
    **{f"{name} tokens/min": {"tokens_per_minute": tokens} for name, tokens in TOKENS.items()},
    "20 requests/min": {"requests_per_minute": 20.0, "minutes": 20.0},
    "900 requests/min": {"requests_per_minute": 900.0},
    "burndown 5": {"tokens_per_minute": 200_000.0, "burndown": 5.0},
    "burndown 15": {"tokens_per_minute": 2_000_000.0, "burndown": 15.0},
    "told 1.25 times the quota": {"tokens_per_minute": 200_000.0, "told": Limits(250_000.0)},
    "quota halved": {"tokens_per_minute": 200_000.0, "change": (0.5, {"tokens": 100_000.0})},
    "four processes": {"tokens_per_minute": 200_000.0, "processes": 4},
    "1 % faults": {"tokens_per_minute": 200_000.0, "fault_rate": 0.01},
    "fixed window": {"tokens_per_minute": 200_000.0, "kind": "fixed_window"},
    "unknown quota": {"tokens_per_minute": 200_000.0, "told": Limits(None)},
}
"""The scenarios of the benchmark, as options of `simulate`."""
