"""How much of a quota each way of sending requests uses, and how many are refused: counted on the server.

    python benchmarks/limiter.py                                  # every scenario and strategy, one seed, 60 s a run
    python benchmarks/limiter.py --seconds 600 --seeds 3          # the full length: hours
    python benchmarks/limiter.py --only 200k halved --strategies ours adaptive-3
    python benchmarks/limiter.py --virtual --seeds 3              # ours only, in the simulator: ten minutes in a second
    python benchmarks/limiter.py --results runs.jsonl ...         # keep the measurements of several calls ...
    python benchmarks/limiter.py --table runs.jsonl               # ... and print them as one Markdown table

On the wire: unmodified boto3 against `tests/bedrock_emulator`, a real HTTP server in a process of its own whose buckets
start empty, as in the middle of a long run. Requests are sent until the time is up and then finish. *Whole run* counts
everything settled within the time, *steady* leaves out the first quarter. Both are shares of what the quota grants in
that time. *Refused* is 429 per request that arrived; *lost* are requests whose sender was told they failed,
*twice* those that were answered, and paid for, more than once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

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
    "burst of 1 s, 200k": Scenario(200_000, burst="burst1s"),
    "burst of 1 s, 2M": Scenario(2_000_000, burst="burst1s"),
}


@dataclass(frozen=True)
class Row:
    """One run, counted on the server. Shares of the quota used and of requests refused; `seconds` of its length."""

    scenario: str
    strategy: str
    seed: int
    seconds: float
    whole: float
    steady: float
    refused: float
    lost: int
    twice: int
    requests: int

    def __str__(self) -> str:
        shares = f"{self.whole:.1%} | {self.steady:.1%} | {self.refused:.2%}"
        counts = f"{self.lost} | {self.twice} | {self.requests}"
        return f"| {self.scenario} | {self.strategy} | {self.seed} | {shares} | {counts} |"


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        _send_until(json.loads(arguments.worker))
        return
    if arguments.table:
        _table(arguments.table)
        return
    if arguments.virtual:
        _virtual(arguments.seeds, arguments.only)
        return
    names = [name for name in SCENARIOS if not arguments.only or any(part in name for part in arguments.only)]
    runs = list(itertools.product(names, arguments.strategies, range(arguments.seeds)))
    print(f"On the wire, {arguments.seconds:.0f} s a run, {arguments.at_once} run(s) at once.\n\n{_HEAD}", flush=True)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        for future in as_completed([pool.submit(_row, *run, arguments.seconds) for run in runs]):
            row = future.result()
            print(row, flush=True)
            if arguments.results:
                with arguments.results.open("a", encoding="utf-8") as file:
                    print(json.dumps(asdict(row)), file=file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a run (default: 60, the short mode)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="scenarios whose name contains one of these")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES, metavar="STRATEGY")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, each with a server of its own")
    parser.add_argument("--virtual", action="store_true", help="ours in the simulator instead")
    parser.add_argument("--results", type=Path, help="a JSONL file that the measurements are appended to")
    parser.add_argument(
        "--table", type=Path, metavar="RESULTS", help="print the table of such a file, and nothing else"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


_HEAD = (
    "| scenario | strategy | seed | whole run | steady | refused | lost | twice | requests |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


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
        task = {"url": server.url, "strategy": strategy, "scenario": asdict(scenario), "seconds": seconds, "seed": seed}
        environment = os.environ | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "OMP_NUM_THREADS": "1"}
        environment["GENESIS_OUTPUT_ROOT"] = folder
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", json.dumps(task | {"process": number})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            )
            for number in range(scenario.processes)
        ]  # fmt: skip
        for worker in workers:
            worker.stdout.readline()
        opening = scenario.burst != "window"  # a fresh window is full
        if opening:
            _open_account(server.url)
        for worker in workers:
            print("go", file=worker.stdin, flush=True)
        if scenario.halved:
            time.sleep(seconds / 2)
            server.change(replace(quota, tokens_per_minute=(scenario.tokens_per_minute or 0) / 2))
        lost = sum(int(worker.communicate()[0].splitlines()[-1]) for worker in workers)
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
    return Row(name, strategy, seed, seconds, use(0), steady, refused, lost, stats.duplicated, stats.requests)


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


def _send_until(task: dict[str, Any]) -> None:
    """One sending process: as many threads as the quota can use, until the time is up; prints how many were lost."""
    scenario = Scenario(**task["scenario"])
    strategy = task["strategy"]
    threads = 1 if strategy == "serial 5 s" else scenario.threads()
    send = _sender(strategy, scenario, task["url"], threads, task["seed"])
    ids, lost = itertools.count(), []
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + task["seconds"]

    def work() -> None:
        while time.monotonic() < end:
            key = f"{task['process']}-{next(ids)}"
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
    print(len(lost))


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


def _virtual(seeds: int, only: list[str]) -> None:
    """Ours against the simulated service of the tests, whose seconds cost nothing."""
    from generation.simulation import SCENARIOS as SIMULATED
    from generation.simulation import simulate

    print(f"Simulated, ten virtual minutes a run.\n\n{_HEAD}")
    for name, options in SIMULATED.items():
        if only and not any(part in name for part in only):
            continue
        for seed in range(seeds):
            m = simulate(seed=seed, **options)
            row = Row(name, "ours", seed, 600.0, m.whole, m.steady, m.throttled, m.lost, m.duplicated, m.requests)
            print(row, flush=True)


def _table(results: Path) -> None:
    """A line for each scenario: quota used in the steady state / requests refused; the worst of several seeds."""
    runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in results.read_text(encoding="utf-8").splitlines():
        row = Row(**json.loads(line))
        runs[row.scenario, row.strategy].append(row)
    order = ("ours", *(name for name in STRATEGIES if name != "ours"))
    print("| scenario | " + " | ".join(order) + " |\n|---|" + "---|" * len(order))
    for name in SCENARIOS:
        print(f"| {name} | " + " | ".join(_cell(runs[name, strategy]) for strategy in order) + " |")


def _cell(rows: list[Row]) -> str:
    if not rows:
        return "not run"
    use, refused = min(row.steady for row in rows), max(row.refused for row in rows)
    wrong = {"lost": sum(row.lost for row in rows), "twice": sum(row.twice for row in rows)}
    return ", ".join([f"{use:.1%} / {refused:.1%}", *(f"{n} {what}" for what, n in wrong.items() if n)])


if __name__ == "__main__":
    main()
