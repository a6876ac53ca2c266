"""A run that can't succeed ends soon and says why; a wait can be seen and ended; what was made is kept."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from generation.simulation import VirtualClock
from genesis_lab import generation
from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import (
    GenesisError,
    Incomplete,
    InvalidInput,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
)
from genesis_lab.files import dataset_path
from genesis_lab.generation import GenerationConfig, config_for, open_or_generate
from genesis_lab.generation.engine import generate
from genesis_lab.generation.limiter import Ledger, Limits
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.asking import Asking, in_threads
from genesis_lab.providers.base import Request
from providers.openai_server import Reply, Server, refusal, running
from scripted import ScriptedProvider

DOMAIN = Conversations(ConversationsConfig(total=100, categories=("refunds",)))
SPECS = {spec.seed: spec for spec in make_plan(DOMAIN, 100, 7).specs}
REQUEST = Request("key", messages=(("user", "x" * 400),))


def good(request: Request) -> str:
    """A usable answer, also to a fresh candidate of a spec."""
    spec = next(SPECS[request.seed - tries] for tries in range(100) if request.seed - tries in SPECS)
    return DOMAIN.offline_text(spec, request.seed - spec.seed)


def run(target: Path, script: Callable[[Request, int], object], total: int = 100, **options) -> Dataset:
    """A run by a model that answers by `script`, given each request and how many came before it."""
    provider = ScriptedProvider(lambda request, _: script(request, len(provider.requests) - 1), concurrency=4)
    writer = Teacher(provider, "m", 1.0, Scheduler(provider, Ledger(Limits(math.inf))))
    return generate(make_plan(DOMAIN, total, 7), DOMAIN, [writer], target, **options)


def config(server: str, **options) -> GenerationConfig:
    return config_for("requirements")(
        provider="openai", model="m", base_urls=(server,), total=10, dataset="d", **options
    )


# --- nothing is usable ------------------------------------------------------------------------------------------------


def test_a_server_that_rejects_everything_is_left_alone_and_its_sentence_is_repeated_whole(tmp_path):
    said = (
        "Error code: 400 - only stream=true is supported by this model, " + "see the manual, chapter 17; " * 12 + "end."
    )
    seen: list[Request] = []
    with pytest.raises(GenesisError) as stopped:
        run(tmp_path / "d", lambda request, _: (seen.append(request), Rejected(said, status=400))[1])
    assert said.rstrip(".") in str(stopped.value) and "run the same again" in str(stopped.value)
    assert 20 <= len(seen) < 30 and len({r.key for r in seen}) == len(seen)
    assert not (tmp_path / "d").exists()


def test_a_server_that_answers_nothing_to_everything_is_an_error_and_no_dataset():
    with running() as server:
        server.text = ""
        with pytest.raises(GenesisError, match=r"The first 20 requests .* because: score 0.00 is below"):
            generation.generate(config(server.url))
        assert len(server.requests) < 30
        assert not dataset_path("d").exists()
        # what was wrong may be mended by another setting, under the same name
        server.answer = answering(server)
        assert generation.generate(config(server.url, max_tokens=999)).total == 10


def answering(server: Server) -> Callable[[dict], Reply]:
    """The server's `answer` with a usable conversation for each request."""
    specs = list(config("http://x/v1").plan.specs)
    domain, answer = config("http://x/v1").domain, server.answer

    def usable(body: dict) -> Reply:
        reply = answer(body)
        if reply.status == 200:
            spec = next(s for s in specs if s.seed == body["seed"])
            reply.body["choices"][0]["message"]["content"] = domain.offline_text(spec, 0)
        return reply

    return usable


def test_one_usable_answer_among_many_is_reason_enough_to_go_on(tmp_path):
    data = run(
        tmp_path / "d", lambda r, turn: good(r) if turn % 15 == 14 or turn > 60 else Rejected("blocked by a filter")
    )
    assert data.total == 100


def test_a_model_that_stops_answering_usefully_ends_the_run_and_what_it_made_is_kept(tmp_path):
    asked: list[int] = []

    def until_30(request: Request, turn: int) -> str:
        asked.append(turn)
        return good(request) if turn < 30 else "I am out of order."

    with pytest.raises(
        Incomplete, match=r"70 of 100 records are missing in .*The last 60 requests to m .*no JSON object"
    ):
        run(tmp_path / "d", until_30)
    assert len(asked) < 100
    data = open_dataset(tmp_path / "d")
    assert data.total == 30 and data.manifest["missing"] == 70 and not data.manifest["complete"]


def test_single_records_that_are_impossible_leave_the_rest_and_an_error(tmp_path):
    impossible = {spec.seed for spec in list(SPECS.values())[:3]}

    def script(request: Request, _: int) -> object:
        return (
            Rejected("content policy")
            if not impossible.isdisjoint(range(request.seed - 99, request.seed + 1))
            else good(request)
        )

    with pytest.raises(Incomplete, match="3 of 100 records are missing"):
        run(tmp_path / "d", script)
    manifest = open_dataset(tmp_path / "d").manifest
    assert manifest["missing"] == 3 and manifest["attempts"] == 97 + sum(manifest["drop_reasons"].values()) > 100


@pytest.mark.parametrize("domain", ["conversations", "requirements"])
def test_nothing_downstream_runs_on_an_empty_dataset(domain):
    with DatasetWriter(dataset_path("nothing"), "conversations", {}):
        pass
    with pytest.raises(InvalidInput, match="holds no records"):
        open_or_generate("nothing", domain)


# --- waiting ----------------------------------------------------------------------------------------------------------


def scheduler(*script: object) -> tuple[Scheduler, VirtualClock]:
    clock = VirtualClock()
    return Scheduler(
        ScriptedProvider(script), Ledger(Limits(math.inf), clock=clock), rng=np.random.default_rng(0)
    ), clock


def failure(ours: Scheduler, clock: VirtualClock, threads: int = 8) -> GenesisError:
    errors: list[GenesisError] = []

    def ask() -> None:
        try:
            ours.complete(REQUEST)
        except GenesisError as error:
            errors.append(error)

    clock.run([ask] * threads)
    assert len(errors) == threads
    return errors[0]


@pytest.mark.parametrize("error", [Transient, Throttled])
def test_a_wait_of_hours_that_a_service_asks_for_ends_the_run_with_a_sentence(error: type[ProviderError]) -> None:
    ours, clock = scheduler(error("come back later", status=503, retry_after_s=7200.0))
    said = str(failure(ours, clock))
    assert "asks for a wait of 120 minutes" in said and "come back later" in said and "run the same again" in said
    assert clock.now() < 60


def test_nobody_at_the_address_is_said_in_seconds() -> None:
    ours, clock = scheduler(Unreachable("http://localhost:1/v1 can't be reached: is it running?"))
    assert "is it running?" in str(failure(ours, clock))
    assert clock.now() < 5


def test_a_server_that_was_there_a_moment_ago_is_given_time_to_come_back() -> None:
    clock = VirtualClock()
    down = Unreachable("can't be reached: is it running?")
    provider = ScriptedProvider(lambda request, _: down if 10 < clock.now() < 60 else "fine")
    ours = Scheduler(provider, Ledger(Limits(60_000), clock=clock), rng=np.random.default_rng(1))
    clock.run([lambda: [ours.complete(REQUEST) for _ in range(40)] and None] * 8)
    assert ours.answered == 320


def test_a_server_that_lets_the_first_requests_time_out_is_not_asked_again_and_again() -> None:
    clock = VirtualClock()

    def silent(request: Request, _: np.random.Generator) -> ProviderError:
        clock.sleep(600)
        return Transient("did not answer within 600 s")

    ours = Scheduler(ScriptedProvider(silent), Ledger(Limits(math.inf), clock=clock))
    assert "answered nothing in 10 minutes" in str(failure(ours, clock))
    assert clock.now() == 600


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(GenesisError, match=r"can't be reached .*refused.*is it running\?"):
            generation.generate(config(f"http://127.0.0.1:{free.getsockname()[1]}/v1"))


def test_ctrl_c_ends_a_run_whose_server_is_silent() -> None:
    ended, let_go = threading.Event(), []
    with running() as server:

        def silent(body: dict) -> Reply:
            server.requests.append(body)
            if len(server.requests) == 8:
                os.kill(os.getpid(), signal.SIGINT)
            let_go.append(ended.wait(60))
            return refusal(400, "too late")

        server.answer = silent
        with pytest.raises(GenesisError, match=r"Interrupted with 0 of 10 .*run the same again"):
            generation.generate(config(server.url))
        assert not let_go
        ended.set()


def test_ctrl_c_ends_a_wait_that_the_server_asked_for() -> None:
    seen: list[str] = []

    def interrupt(progress: Asking) -> None:
        seen.extend(progress.details)
        if "waiting" in seen[-1]:
            raise KeyboardInterrupt

    late = threading.Event()
    watchdog = threading.Timer(60, late.set)
    watchdog.start()
    with running() as server:
        server.answer = lambda body: refusal(503, "busy", headers={"Retry-After": "200"})
        with pytest.raises(GenesisError, match="Interrupted"):
            generation.generate(config(server.url), on_progress=interrupt)
    watchdog.cancel()
    assert not late.is_set() and "busy" in seen[-1]


def test_an_answer_that_comes_after_ctrl_c_is_not_paid_for_again() -> None:
    ended = threading.Event()
    with running() as server:
        usable = answering(server)

        def late(body: dict) -> Reply:
            reply = usable(body)
            ended.wait(60)
            return reply

        def interrupt(progress: Asking) -> None:
            if len(server.requests) == 8:
                raise KeyboardInterrupt

        server.answer = late
        with pytest.raises(GenesisError, match="Interrupted"):
            generation.generate(config(server.url), on_progress=interrupt)
        in_flight = [thread for thread in threading.enumerate() if thread.name.startswith("genesis")]
        ended.set()
        for thread in in_flight:
            thread.join(60)
        assert generation.generate(config(server.url)).total == 10
        assert len(server.requests) == 10


def test_whatever_asks_a_model_is_let_go_by_ctrl_c_and_begins_nothing_more() -> None:
    ended, let_go, begun = threading.Event(), [], threading.Semaphore(0)

    def silent(item: int) -> int:
        begun.release()
        if item:
            let_go.append(ended.wait(60))
        return item

    with pytest.raises(KeyboardInterrupt):
        for number, _ in in_threads(silent, range(100), 4):
            assert number == 0
            for _ in range(5):
                begun.acquire(timeout=60)
            raise KeyboardInterrupt
    assert not let_go
    in_flight = [thread for thread in threading.enumerate() if thread.name.startswith("genesis")]
    ended.set()
    for thread in in_flight:
        thread.join(60)
    assert len(let_go) == 4


def test_whoever_asks_a_server_that_rejects_everything_is_told_after_twenty_requests() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([Rejected("the context is too small", status=400)])
    ours, told = Scheduler(provider, Ledger(Limits(math.inf), clock=clock)), []

    def ask() -> None:
        for _ in range(100):
            try:
                ours.complete(REQUEST)
            except Rejected:
                continue
            except GenesisError as error:
                told.append(str(error))

    clock.run([ask])
    assert len(provider.requests) == 20 and "the context is too small" in told[0]


def test_those_who_look_on_are_told_of_silence_and_of_waiting() -> None:
    clock = VirtualClock()
    words: list[str] = []

    def slow(request: Request, _: np.random.Generator) -> object:
        clock.sleep(100)
        return Transient("503 Service Unavailable", status=503, retry_after_s=100) if clock.now() < 150 else "fine"

    ours = Scheduler(ScriptedProvider(slow), Ledger(Limits(math.inf), clock=clock))

    def look() -> None:
        for _ in range(4):
            clock.sleep(60)
            words.append(ours.waits)

    clock.run([lambda: ours.complete(REQUEST) and None, look])
    assert words == [
        "no answer for 1:00",
        "waiting 1:20 (503 Service Unavailable)",
        "waiting 0:20 (503 Service Unavailable)",
        "no answer for 0:40",
    ]
