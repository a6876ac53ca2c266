"""How much of a quota each way of sending requests uses, and how many are refused: counted on the server.

    python benchmarks/limiter.py                                  # every scenario and strategy, one seed, 60 s a run
    python benchmarks/limiter.py --seconds 600 --seeds 3          # the full length: hours
    python benchmarks/limiter.py --only 200k halved --strategies ours adaptive-3
    python benchmarks/limiter.py --virtual --seeds 3              # ours only, in the simulator: ten minutes in a second
    python benchmarks/limiter.py --seconds 4 --only 900 --strategies ours --dry

On the wire: unmodified boto3 against `tests/bedrock_emulator`, a real HTTP server in a process of its own whose buckets
start empty, as in the middle of a long run. Requests are sent until the time is up and then finish. *Whole run* counts
everything settled within the time, *steady* leaves out the first quarter. Both are shares of what the quota grants in
that time. *Refused* is 429 per request that arrived; *lost* are requests whose sender was told they failed,
*twice* those that were answered, and paid for, more than once. With several seeds the worst of them is shown.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import bench

MODEL = "amazon.nova-micro-v1:0"
PROMPT = "Write one bilingual customer support conversation as JSON. " * 60
MAX_TOKENS = 2048
OUTPUT = (250, 650)
"""Tokens of an answer, drawn evenly."""
LATENCY_S, TOKENS_PER_SECOND = (0.3, 0.6), 150.0
STRATEGIES = ("serial 5 s", "parallel 5 s", "adaptive-3", "adaptive-10", "ours")


@dataclass(frozen=True)
class Scenario:
    """What the service grants, what we are told, and what goes wrong."""

    tokens_per_minute: float | None = None
    requests_per_minute: float | None = None
    burndown: float = 1.0
    told: float = 1.0
    halved: bool = False
    processes: int = 1
    faults: float = 0.0
    burst: str = "bucket"

    def per_second(self) -> float:
        """Requests a second that the quota allows."""
        prompt = len(PROMPT) / 4
        by_tokens = (self.tokens_per_minute or math.inf) / (prompt + sum(OUTPUT) / 2 * self.burndown)
        return min(by_tokens, self.requests_per_minute or math.inf) / 60

    def threads(self) -> int:
        """Half as many again as the quota can keep busy, for each process."""
        busy_s = sum(LATENCY_S) / 2 + sum(OUTPUT) / 2 / TOKENS_PER_SECOND
        return math.ceil(1.5 * self.per_second() * busy_s / self.processes) + 4


SCENARIOS = {
    "30k tokens/min": Scenario(30_000),
    "200k tokens/min": Scenario(200_000),
    "2M tokens/min": Scenario(2_000_000),
    "20 requests/min": Scenario(requests_per_minute=20),
    "900 requests/min": Scenario(requests_per_minute=900),
    "burndown 5, 200k": Scenario(200_000, burndown=5),
    "burndown 15, 2M": Scenario(2_000_000, burndown=15),
    "told 1.25 times, 200k": Scenario(200_000, told=1.25),
    "halved, 200k": Scenario(200_000, halved=True),
    "four processes, 200k": Scenario(200_000, processes=4),
    "1 % faults, 200k": Scenario(200_000, faults=0.01),
    "fixed window, 200k": Scenario(200_000, burst="window"),
    "quota not known, 200k": Scenario(200_000, told=0.0),
}


@dataclass(frozen=True)
class Row:
    """One run, counted on the server: shares of the quota used and of requests refused."""

    scenario: str
    strategy: str
    whole: float
    steady: float
    refused: float
    lost: int
    twice: int
    requests: int


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a run (default: 60, the short mode)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="scenarios whose name contains one of these")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES, metavar="STRATEGY")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, each with a server of its own")
    parser.add_argument("--virtual", action="store_true", help="ours in the simulator instead")
    arguments = parser.parse_args()
    if arguments.virtual:
        simulated = _virtual(arguments.seeds, arguments.only)
        note = f"Ten virtual minutes a run, {arguments.seeds} seed(s). {_NOTE}"
        bench.store("limiter_simulated", "The limiter against a simulated service", _table(simulated), note=note)
        return
    names = [name for name in SCENARIOS if not arguments.only or any(part in name for part in arguments.only)]
    runs = itertools.product(names, arguments.strategies, range(arguments.seeds))
    rows = []
    with ThreadPoolExecutor(arguments.at_once) as pool:
        for future in as_completed([pool.submit(_row, *run, arguments.seconds) for run in runs]):
            rows.append(future.result())
            print(rows[-1], flush=True)
    note = f"On the wire, {arguments.seconds:.0f} s a run, {arguments.seeds} seed(s), {arguments.at_once} run(s) at once. {_NOTE}"
    bench.store("limiter", "How much of a quota each way of sending uses", _table(rows), note=note)


_NOTE = "Quota used in the steady state / requests refused."


def _row(name: str, strategy: str, seed: int, seconds: float) -> Row:
    """Run one strategy in one scenario: a server and the senders in processes of their own."""
    from bedrock_emulator.server import BedrockEmulator, Faults, Quota

    scenario = SCENARIOS[name]
    quota = Quota(
        tokens_per_minute=scenario.tokens_per_minute,
        requests_per_minute=scenario.requests_per_minute,
        burst=scenario.burst,  # type: ignore[arg-type]
        burndown=scenario.burndown,
        starts_full=False,
    )
    server = BedrockEmulator(
        quota=quota,
        faults=Faults(unavailable=scenario.faults, seed=seed),
        latency_s=LATENCY_S,
        tokens_per_second=TOKENS_PER_SECOND,
        answers="fixed",
        output_tokens=OUTPUT,
        process=True,
    )
    with server, tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        start, counts = context.Barrier(scenario.processes + 1, timeout=120), context.Queue()
        task = (folder, strategy, scenario, server.url, seed, seconds, start, counts)
        workers = [context.Process(target=_send_until, args=(number, *task)) for number in range(scenario.processes)]
        for worker in workers:
            worker.start()
        start.wait()  # all have their imports done
        opening = scenario.burst != "window"  # a fresh window is full
        if opening:
            _open_account(server.url)
        start.wait()
        if scenario.halved:
            time.sleep(seconds / 2)
            server.change(replace(quota, tokens_per_minute=(scenario.tokens_per_minute or 0) / 2))
        lost = sum(counts.get() for _ in workers)
        for worker in workers:
            worker.join()
        stats = server.stats()
    stats = replace(stats, requests=stats.requests - opening, throttled=stats.throttled - opening)
    by_tokens = scenario.tokens_per_minute is not None
    per_second = (scenario.tokens_per_minute or scenario.requests_per_minute or 0.0) / 60
    scale = 1.0 if by_tokens else stats.answered / max(stats.settled_tokens, 1.0)

    def use(start: float) -> float:
        got = scale * sum(tokens for second, tokens in stats.timeline if start <= second < seconds)
        late = max(0.0, seconds - max(start, seconds / 2)) if scenario.halved else 0.0
        return got / (per_second * (seconds - start - late / 2))

    refused = stats.throttled / max(stats.requests, 1)
    steady = use(math.floor(seconds / 4))
    return Row(name, strategy, use(0), steady, refused, lost, stats.duplicated, stats.requests)


def _open_account(url: str) -> None:
    """The first call makes the server's buckets, empty: it is refused, and not counted."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1", config=config, **keys)
    try:
        client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": PROMPT}]}])
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ThrottlingException"
    else:
        raise AssertionError("The server's buckets were not empty.")


def _send_until(
    process: int,
    folder: str,
    strategy: str,
    scenario: Scenario,
    url: str,
    seed: int,
    seconds: float,
    start: Any,
    counts: Any,
) -> None:
    """One sending process: as many threads as the quota can use, until the time is up; says how many were lost."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "OMP_NUM_THREADS": "1"}
    os.environ["GENESIS_OUTPUT_ROOT"] = folder
    threads = 1 if strategy == "serial 5 s" else scenario.threads()
    send = _sender(strategy, scenario, url, threads, seed)
    ids, lost = itertools.count(), []
    start.wait()
    start.wait()
    end = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < end:
            key = f"{process}-{next(ids)}"
            try:
                send(key)
            except Exception as error:
                lost.append(repr(error))
            if strategy.endswith("5 s"):
                time.sleep(5.0)

    pool = [threading.Thread(target=work) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    for error in sorted(set(lost)):
        print(lost.count(error), error, file=sys.stderr)
    counts.put(len(lost))


def _sender(strategy: str, scenario: Scenario, url: str, threads: int, seed: int) -> Callable[[str], Any]:
    import boto3
    import numpy as np
    from botocore.config import Config

    from genesis_lab.generation.limiter import Limits, shared_ledger
    from genesis_lab.generation.scheduler import Scheduler
    from genesis_lab.providers.base import Request
    from genesis_lab.providers.bedrock import BedrockProvider
    from genesis_lab.settings import Settings

    if strategy == "ours":
        settings = Settings(aws_region="us-east-1", bedrock_endpoint_url=url)
        provider = BedrockProvider(MODEL, settings=settings, concurrency=threads)
        told = {name: scenario.told * getattr(scenario, name) or None if getattr(scenario, name) else math.inf
                for name in ("tokens_per_minute", "requests_per_minute")}  # fmt: skip
        ledger = shared_ledger(url, Limits(**told, burndown=scenario.burndown))
        scheduler = Scheduler(provider, ledger, rng=np.random.default_rng(seed))
        return lambda key: scheduler.complete(Request(key, messages=(("user", PROMPT),), max_tokens=MAX_TOKENS))
    # The fixed delays are what people write around a client with its default retries.
    retries = {"mode": "adaptive", "total_max_attempts": int(strategy[9:])} if "adaptive" in strategy else {}
    config = Config(retries=retries, max_pool_connections=threads, read_timeout=300)  # type: ignore[arg-type]
    client = boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1", config=config)
    return lambda key: client.converse(
        modelId=MODEL,
        messages=[{"role": "user", "content": [{"text": PROMPT}]}],
        inferenceConfig={"maxTokens": MAX_TOKENS},
        requestMetadata={"request_key": key},
    )


def _virtual(seeds: int, only: list[str]) -> list[Row]:
    """Ours against the simulated service of the tests, whose seconds cost nothing."""
    from generation.simulation import SCENARIOS as SIMULATED
    from generation.simulation import simulate

    rows = []
    for name, options in SIMULATED.items():
        if only and not any(part in name for part in only):
            continue
        for seed in range(seeds):
            m = simulate(seed=seed, **options)
            rows.append(Row(name, "ours", m.whole, m.steady, m.throttled, m.lost, m.duplicated, m.requests))
    return rows


def _table(rows: list[Row]) -> list[dict[str, str]]:
    """A line for each scenario."""
    runs: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row.scenario][row.strategy].append(row)
    order = ("ours", *(name for name in STRATEGIES if name != "ours"))
    return [
        {"scenario": name} | {strategy: _cell(found[strategy]) for strategy in order if strategy in found}
        for name, found in runs.items()
    ]


def _cell(rows: list[Row]) -> str:
    use, refused = min(row.steady for row in rows), max(row.refused for row in rows)
    wrong = {"lost": sum(row.lost for row in rows), "twice": sum(row.twice for row in rows)}
    return ", ".join([f"{use:.1%} / {refused:.1%}", *(f"{n} {what}" for what, n in wrong.items() if n)])


if __name__ == "__main__":
    main()
