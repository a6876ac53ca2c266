"""What our engine costs on top of boto3: calls a second, CPU time and memory, without any quota.

    python benchmarks/overhead.py                                # 10,000 calls each way: a few minutes
    python benchmarks/overhead.py --calls 100000 --only engine   # memory over 100,000 records
    python benchmarks/overhead.py --calls 600 --only engine --dry

`tests/bedrock_emulator`, in a process of its own, answers every call after 50 ms; 64 calls are in flight, so 1,280 calls
a second are possible in theory. *boto3* is a bare client in 64 threads that sends the very same requests, *provider* is
`BedrockProvider`, *scheduler* adds the scheduler and its ledger, *engine* adds prompts, parsing, checks, the cache of
answers and the journal, up to the finished dataset of chats that go on from given openings. Each way runs in a process of
its own; its first tenth, in which services are loaded, is not counted, nor is the making of the openings.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import bench

MODEL = "amazon.nova-micro-v1:0"
LATENCY_S, IN_FLIGHT = 0.05, 64
WAYS = ("boto3", "provider", "scheduler", "engine")


def main() -> None:
    from bedrock_emulator.server import BedrockEmulator

    parser = bench.parser(__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    if arguments.calls < 500:
        sys.exit(f"--calls must be 500 or more, as the first tenth is not counted, got {arguments.calls}.")
    ideal, rows, facts = IN_FLIGHT / LATENCY_S, [], {}
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["OMP_NUM_THREADS"] = "1"
    for way in arguments.only:
        with BedrockEmulator(latency_s=LATENCY_S, process=True) as server, tempfile.TemporaryDirectory() as folder:
            os.environ |= {"GENESIS_BEDROCK_ENDPOINT_URL": server.url, "GENESIS_OUTPUT_ROOT": folder}
            found = bench.measured(sent, way, server.url, arguments.calls)
            assert server.stats().answered >= arguments.calls
        rate, cpu_s = found["result"]
        facts[f"cores_{way}"] = f"{500 * cpu_s:.2f}"
        rows.append({
            "way": way, "calls a second": round(rate), "of the ideal": f"{rate / ideal:.0%}",
            "CPU ms a call": round(1000 * cpu_s, 2), "cores at 500 calls a second": round(500 * cpu_s, 2),
            "peak MiB": found["peak_mib"],
        })  # fmt: skip
    note = f"{arguments.calls:,} calls, {IN_FLIGHT} in flight, answered after {1000 * LATENCY_S:.0f} ms."
    bench.store("overhead", "What the engine costs on top of boto3", rows, note=note, facts=facts)


def sent(way: str, url: str, calls: int) -> tuple[float, float]:
    """The measured part: calls a second and CPU seconds a call, of all calls but the first tenth."""
    marks: list[tuple[int, float, float]] = []

    def note(done: int) -> None:
        if not marks and done >= calls // 10:
            marks.append((done, time.perf_counter(), time.process_time()))

    (_engine(calls, note) if way == "engine" else _pool(calls, note, _sender(way, url)))()
    done, at, cpu_s = marks[0]
    return (calls - done) / (time.perf_counter() - at), (time.process_time() - cpu_s) / (calls - done)


def _config(calls: int) -> Any:
    from genesis_lab.generation import config_for

    return config_for()(total=calls, provider="bedrock", model=MODEL)


def _provider() -> Any:
    from genesis_lab.providers.bedrock import BedrockProvider

    provider = BedrockProvider(MODEL, concurrency=IN_FLIGHT)
    provider.target()
    return provider


def _scheduler(provider: Any) -> Any:
    import math

    from genesis_lab.generation.limiter import Limits, shared_ledger
    from genesis_lab.generation.scheduler import Scheduler

    return Scheduler(provider, shared_ledger("overhead", Limits(math.inf)))


def _sender(way: str, url: str) -> Callable[[Any], Any]:
    provider = _provider()
    if way == "provider":
        return provider.complete
    if way == "scheduler":
        return _scheduler(provider).complete
    import boto3
    from botocore.config import Config

    from genesis_lab.providers.bedrock import converse_body

    client = boto3.client("bedrock-runtime", endpoint_url=url, config=Config(max_pool_connections=IN_FLIGHT))
    info = provider.info
    return lambda request: client.converse(modelId=MODEL, **converse_body(request, info))


def _pool(calls: int, note: Callable[[int], None], send: Callable[[Any], Any]) -> Callable[[], None]:
    """The requests that the engine would send, by threads and nothing else."""
    from genesis_lab.providers.base import Request

    config = _config(calls)
    prompts = [config.domain.prompt(spec) for spec in config.plan.specs]
    requests = [
        Request(f"key{number}", p.system, p.messages, p.schema, p.schema_name, stable_messages=p.stable)
        for number, p in enumerate(prompts)
    ]

    def run() -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for done, answered in enumerate(as_completed([pool.submit(send, one) for one in requests]), start=1):
                answered.result()
                note(done)

    return run


def _engine(calls: int, note: Callable[[int], None]) -> Callable[[], None]:
    from genesis_lab.files import dataset_path, output_root
    from genesis_lab.generation.engine import generate
    from genesis_lab.generation.teachers import Teacher
    from genesis_lab.providers.cache import CompletionCache
    from genesis_lab.providers.offline import OfflineProvider

    config = _config(calls)
    plan, provider = config.plan, _provider()
    teacher = Teacher(provider, scheduler=_scheduler(provider))
    first = generate(plan, config.domain, OfflineProvider(), dataset_path("first"))
    openings = first.sql("SELECT intent, language, turns FROM data").to_dict("records")
    config.domain.feed(openings, first.domain)  # the chats go on from what a first stage wrote, as in every run
    cache = CompletionCache(output_root() / "cache" / "completions.sqlite")

    def run() -> None:
        target = dataset_path("overhead")
        dataset = generate(plan, config.domain, [teacher], target, cache=cache, on_progress=lambda p: note(p.done))
        assert dataset.manifest["complete"]

    return run


if __name__ == "__main__":
    main()
