"""The ledger, against a simulated service with a clock whose seconds cost nothing: counted on the server."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from generation.simulation import SCENARIOS, SimulatedService, VirtualClock, simulate
from genesis_lab.generation.limiter import WAITING, Ledger, Limits, shared_ledger
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.providers.base import Request


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", range(2))
def test_quota_is_used_up_and_hardly_anything_refused(name: str, seed: int) -> None:
    # The heavy scenarios show the same in a shorter time.
    heavy = name.endswith("15") or name.startswith(("2M", "900"))
    measured = simulate(seed=seed, **{"minutes": 4.0 if heavy else 10.0, **SCENARIOS[name]})
    assert measured.steady >= 0.97
    assert measured.throttled <= 0.02
    assert (measured.lost, measured.duplicated) == (0, 0)


def test_same_seed_gives_the_same_run() -> None:
    assert simulate(seed=5, minutes=3, **SCENARIOS["quota halved"]) == simulate(
        seed=5, minutes=3, **SCENARIOS["quota halved"]
    )


def test_nothing_is_sent_before_the_quota_allows_it() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(60_000), clock=clock)
    sent: list[float] = []

    def work() -> None:
        ledger.acquire(2_000)
        sent.append(clock.now())

    clock.run([work] * 3)
    assert sent == pytest.approx([2 / 0.995, 4 / 0.995, 6 / 0.995])


def test_unused_reservations_come_back_at_once() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(60_000), clock=clock)

    def work() -> None:
        ledger.settle(ledger.acquire(2_000), 500)
        ledger.acquire(2_000)
        assert clock.now() == pytest.approx(2.5 / 0.995)

    clock.run([work])


def test_an_answer_dearer_than_its_reservation_is_paid_off_first() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(60_000, burndown=5), clock=clock)

    def work() -> None:
        ledger.settle(ledger.acquire(2_000), 6_000)
        ledger.acquire(2_000)
        assert clock.now() == pytest.approx(8 / 0.995)

    clock.run([work])


def test_both_limits_hold() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(math.inf, requests_per_minute=30), clock=clock)
    clock.run([lambda: [ledger.acquire(1_000) for _ in range(3)]])
    assert clock.now() == pytest.approx(6 / 0.995, rel=1e-3)


def test_a_refused_request_goes_before_later_ones() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(60_000), clock=clock)
    order: list[str] = []

    def first() -> None:
        refused = ledger.acquire(1_000)
        clock.sleep(0.1)
        ledger.refuse(refused)
        ledger.acquire(1_000, refused.place)
        order.append("refused")

    def later() -> None:
        clock.sleep(0.05)
        ledger.acquire(1_000)
        order.append("later")

    clock.run([first, later])
    assert order == ["refused", "later"]


def test_the_service_is_left_alone_as_long_as_it_asks() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(6_000_000), clock=clock)

    def work() -> None:
        refused = ledger.acquire(1_000)
        ledger.refuse(refused, retry_after_s=20.0)
        asked = clock.now()
        ledger.acquire(1_000, refused.place)
        assert clock.now() == pytest.approx(asked + 20.0)

    clock.run([work])


@pytest.mark.parametrize(("told", "learned"), [(Limits(None), 60_000), (Limits(80_000), None)])
def test_what_was_learned_of_a_quota_is_told_where_none_was_given(told: Limits, learned: float | None) -> None:
    clock = VirtualClock()
    service = SimulatedService(clock, tokens_per_minute=60_000)
    ours = Scheduler(service, Ledger(told, clock=clock), rng=np.random.default_rng(0))
    assert ours.ledger.learned() == {}
    request = Request("key", messages=(("user", "x" * 3600),))
    clock.run([lambda: [ours.complete(request) for _ in range(20)] and None] * 8)
    found = ours.ledger.learned().get("tokens_per_minute")
    assert found == (None if learned is None else pytest.approx(learned, rel=0.1))


def test_a_limit_nobody_told_about_is_learned() -> None:
    measured = simulate(requests_per_minute=120.0, told=Limits(math.inf), minutes=10)
    assert measured.steady >= 0.9
    assert measured.throttled <= 0.06
    assert measured.lost == 0


def test_recovers_when_a_cut_quota_is_restored() -> None:
    measured = simulate(
        tokens_per_minute=100_000.0, told=Limits(200_000.0), minutes=20, change=(0.25, {"tokens": 200_000.0})
    )
    assert measured.whole >= 0.85
    assert measured.throttled <= 0.02


def test_one_ledger_for_a_quota_in_a_process() -> None:
    ours = shared_ledger(("account", "region", "profile"), Limits(1_000))
    assert shared_ledger(("account", "region", "profile"), Limits(2_000)) is ours
    assert ours.limits == Limits(2_000)
    assert shared_ledger(("account", "elsewhere", "profile"), Limits(1_000)) is not ours


def test_a_run_started_again_after_a_stop_is_not_stopped() -> None:
    stopped = shared_ledger("started again", Limits(math.inf))
    stopped.stop(RuntimeError("over"))
    shared_ledger("started again", Limits(math.inf)).acquire(1)
    with pytest.raises(RuntimeError):
        stopped.acquire(1)


def test_another_process_on_the_same_quota_has_its_half(own_output_root: Path) -> None:
    shared_ledger("of the machine", Limits(60_000)).stop(RuntimeError("over"))
    (folder,) = (own_output_root / "cache" / "quotas").iterdir()
    (folder / "another process").touch()
    ours = shared_ledger("of the machine", Limits(60_000))
    ours.acquire(1)
    assert ours.state()["tokens_per_minute"] == pytest.approx(0.995 * 30_000)


def test_enough_requests_wait_and_no_more() -> None:
    clock = VirtualClock()
    ledger = Ledger(Limits(60_000), clock=clock)
    assert ledger.wants_more(WAITING - 1) and not ledger.wants_more(WAITING)
    clock.run([lambda: ledger.acquire(1_000)])
    assert ledger.wants_more(WAITING)
    assert Ledger(Limits(math.inf), clock=clock).wants_more(10_000)


def test_state_says_how_much_of_the_quota_is_used() -> None:
    clock = VirtualClock()
    service = SimulatedService(clock, tokens_per_minute=60_000)
    ledger = Ledger(Limits(60_000), clock=clock)
    clock.run([lambda: [ledger.settle(ledger.acquire(1_000), 1_000) for _ in range(120)]])
    state = ledger.state()
    assert state["used"] / 60_000 == pytest.approx(0.995, abs=0.02)
    assert [state[name] for name in ("sent", "refused", "in_flight", "waiting")] == [120, 0, 0, 0]
    assert not service.throttled
