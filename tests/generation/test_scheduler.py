"""The scheduler: what is retried, what is given up, what stops a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from generation.simulation import VirtualClock
from genesis_lab.errors import Fatal, GenesisError, ProviderError, QuotaExhausted, Rejected, Throttled, Transient
from genesis_lab.generation.limiter import Ledger, Limits
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.providers.base import Completion, Request
from scripted import ScriptedProvider

REQUEST = Request("key", messages=(("user", "x" * 4000),))


def scheduler(script: Sequence[str | Completion | ProviderError]) -> tuple[Scheduler, VirtualClock]:
    clock = VirtualClock()
    ledger = Ledger(Limits(math.inf), clock=clock)
    return Scheduler(ScriptedProvider(script), ledger, rng=np.random.default_rng(0)), clock


def run(clock: VirtualClock, *jobs: Callable[[], object]) -> None:
    clock.run([lambda job=job: (job(), None)[1] for job in jobs])


def test_throttling_costs_no_attempt() -> None:
    ours, clock = scheduler([Throttled("slow down")] * 12 + ["fine"])
    run(clock, lambda: ours.complete(REQUEST))
    assert ours.ledger.state()["refused"] == 12
    assert ours.answered == 1


def test_transient_failures_are_retried_after_growing_waits() -> None:
    ours, clock = scheduler([Transient("reset")] * 3 + ["fine"])
    run(clock, lambda: ours.complete(REQUEST))
    assert 0.25 + 0.5 + 1.0 <= clock.now() <= 0.5 + 1.0 + 2.0


def test_retry_after_is_honoured() -> None:
    ours, clock = scheduler([Transient("busy", status=503, retry_after_s=40.0), "fine"])
    run(clock, lambda: ours.complete(REQUEST))
    assert clock.now() == pytest.approx(40.0)


def test_a_request_that_always_fails_is_given_up_alone() -> None:
    def script(request: Request, _: np.random.Generator) -> str | ProviderError:
        return Transient("internal", status=500) if request.key == "bad" else "fine"

    clock = VirtualClock()
    ours = Scheduler(ScriptedProvider(script), Ledger(Limits(600_000), clock=clock))
    bad: list[Exception] = []

    def try_bad() -> None:
        try:
            ours.complete(Request("bad"))
        except Rejected as error:
            bad.append(error)

    run(clock, try_bad, *[lambda: [ours.complete(REQUEST) for _ in range(100)]] * 3)
    assert "6 times" in str(bad[0])
    assert ours.answered == 300


def test_a_dead_service_pauses_then_stops_the_run_with_the_command_to_resume() -> None:
    ours, clock = scheduler([Transient("down", status=503)])
    errors: list[GenesisError] = []

    def work() -> None:
        try:
            ours.complete(REQUEST)
        except GenesisError as error:
            errors.append(error)

    run(clock, *[work] * 16)
    assert len(errors) == 16
    assert any("run the same again" in str(error) for error in errors)
    assert 100 < clock.now() < 400
    assert ours.ledger.state()["sent"] < 60


def test_an_outage_that_ends_loses_nothing() -> None:
    clock = VirtualClock()

    def script(request: Request, _: np.random.Generator) -> str | ProviderError:
        return Transient("down", status=503) if 10 < clock.now() < 60 else "fine"

    ours = Scheduler(ScriptedProvider(script), Ledger(Limits(60_000), clock=clock), rng=np.random.default_rng(1))
    run(clock, *[lambda: [ours.complete(REQUEST) for _ in range(10)]] * 8)
    assert ours.answered == 80


@pytest.mark.parametrize("error", [Fatal("access denied"), QuotaExhausted("too many tokens per day")])
def test_what_no_retry_can_help_stops_every_thread_with_the_same_error(error: ProviderError) -> None:
    ours, clock = scheduler([error])
    ours.ledger.change(Limits(60_000))
    raised: list[Exception] = []

    def work() -> None:
        try:
            ours.complete(REQUEST)
        except ProviderError as caught:
            raised.append(caught)

    run(clock, *[work] * 5)
    assert raised == [error] * 5
    assert ours.ledger.state()["sent"] == 1


def test_stopping_frees_those_who_wait() -> None:
    clock = VirtualClock()
    ours = Scheduler(ScriptedProvider(["fine"]), Ledger(Limits(6_000), clock=clock))
    waiting: list[str] = []

    def work() -> None:
        try:
            ours.complete(REQUEST)
        except GenesisError as error:
            waiting.append(str(error))

    run(clock, work, work, lambda: (clock.sleep(1), ours.stop()))
    assert len(waiting) == 2
    assert "run the same again" in waiting[0]


def test_service_that_only_refuses_stops_the_run_in_the_end() -> None:
    ours, clock = scheduler([Throttled("slow down")])
    with pytest.raises(GenesisError, match="refused every request for"):
        run(clock, lambda: ours.complete(REQUEST))
