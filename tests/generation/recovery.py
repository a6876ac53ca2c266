"""Runs of the real engine that are killed with SIGKILL again and again, and what the emulated service was paid for."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bedrock_emulator.answers import answer
from bedrock_emulator.server import BedrockEmulator
from bedrock_emulator.service import Reply
from genesis_lab.dataset import open_dataset
from genesis_lab.settings import get_settings

MODEL = "amazon.nova-micro-v1:0"
LATENCY_S = (0.05, 0.25)
TOKENS_PER_MINUTE = 20_000_000
_STUCK_S = 60.0
_KEY = re.compile(rb'"request_key": ?"(\w+)"')
_spawn = get_context("forkserver")
_spawn.set_forkserver_preload(["genesis_lab.generation", "genesis_lab.providers.bedrock", "boto3", "pandas"])


@dataclass(frozen=True)
class Recovery:
    """What came of a run that was killed, counted on the server.

    Parameters
    ----------
    needed, paid : answers of the undisturbed run, and of the killed one.
    twice : requests that were answered, and paid for, more than once.
    in_flight : requests that had been sent when a kill came and whose answers were not saved, over all kills.
    saved_twice : requests that were sent again although their answer had been saved before a kill.
    same : whether the records are those of the undisturbed run.
    """

    kills: int
    records: int
    lost: int
    needed: int
    paid: int
    twice: int
    in_flight: int
    saved_twice: int
    same: bool
    seconds: float


class _Watched(BedrockEmulator):
    """An emulator that notes when each request arrives, and when it is paid for."""

    def __enter__(self) -> _Watched:
        super().__enter__()
        self.arrived: dict[str, list[float]] = {}
        self.paid: dict[str, list[float]] = {}
        service = self.service
        assert service is not None
        seen, paid = service.handle, service.count_paid

        def handle(method: str, path: str, query: str, body: bytes) -> Reply:
            if found := _KEY.search(body):
                self.arrived.setdefault(found[1].decode(), []).append(time.monotonic())
            return seen(method, path, query, body)

        def count_paid(request_id: str, *counts: Any, **more: Any) -> None:
            self.paid.setdefault(request_id, []).append(time.monotonic())
            paid(request_id, *counts, **more)

        service.handle, service.count_paid = handle, count_paid  # type: ignore[method-assign]
        return self


def recover(folder: Path, *, records: int, kills: int, seed: int = 0) -> Recovery:
    """Generate `records` conversations twice: undisturbed, and killed `kills` times at random moments.

    Parameters
    ----------
    folder : an empty one; both datasets are left in it.
    """
    started = time.monotonic()
    with _Watched(latency_s=LATENCY_S, answers=_answer) as server:
        _start(server.url, folder / "whole", records).join()
        needed = len(server.paid)
    rng = np.random.default_rng(seed)
    saved_at: dict[str, float] = {}
    in_flight, since = 0, 0.0
    with _Watched(latency_s=LATENCY_S, answers=_answer) as server:
        # Half of the kills wait for progress, half come at any time, also while the run is still starting.
        for goal in np.sort(rng.uniform(0, needed, kills)):
            run = _start(server.url, folder / "killed", records)
            deadline = time.monotonic() + (_STUCK_S if rng.random() < 0.5 else rng.uniform(0, 0.7))
            while len(server.paid) < goal and run.is_alive() and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            run.kill()
            run.join()
            now = time.monotonic()
            for key in _saved(folder / "killed outputs"):
                saved_at.setdefault(key, now)
            sent = [key for key, times in server.arrived.copy().items() if times[-1] > since]
            in_flight += sum(key not in saved_at for key in sent)
            since = now
        _start(server.url, folder / "killed", records).join()
        time.sleep(max(LATENCY_S))
    whole, resumed = (_frame(folder / name) for name in ("whole", "killed"))
    return Recovery(
        kills=kills,
        records=len(resumed),
        lost=records - len(resumed),
        needed=needed,
        paid=sum(map(len, server.paid.values())),
        twice=sum(len(times) > 1 for times in server.paid.values()),
        in_flight=in_flight,
        saved_twice=sum(times[-1] > saved_at.get(key, math.inf) for key, times in server.arrived.items()),
        same=whole.equals(resumed),
        seconds=time.monotonic() - started,
    )


def _answer(system: str, task: str) -> str:
    """What the emulated model says: openings are like no others, so nothing depends on which of two alike comes first."""
    return answer("grammar", system, task)


def _start(url: str, target: Path, records: int) -> Any:
    run = _spawn.Process(target=_run, args=(url, target, records), daemon=True)
    run.start()
    return run


def _run(url: str, target: Path, records: int) -> None:
    """What a user starts again after each crash."""
    from genesis_lab.generation import config_for, generate

    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "GENESIS_AWS_REGION": "us-east-1",
        "GENESIS_BEDROCK_ENDPOINT_URL": url,
        "GENESIS_OUTPUT_ROOT": str(target.with_name(f"{target.name} outputs")),
    }
    get_settings.cache_clear()
    config = config_for()(
        dataset=str(target), total=records, provider="bedrock", model=MODEL, tokens_per_minute=TOKENS_PER_MINUTE
    )
    generate(config)


def _saved(outputs: Path) -> list[str]:
    """The keys of the answers that the killed process kept."""
    file = outputs / "cache" / "completions.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as cache:
        tables = cache.execute("SELECT name FROM sqlite_master WHERE name = 'completions'").fetchall()
        return [key for (key,) in cache.execute("SELECT key FROM completions")] if tables else []


def _frame(dataset: Path) -> pd.DataFrame:
    """The records, whatever their order; when each was made differs."""
    frame = open_dataset(dataset).frame()
    frame["provenance"] = [p | {"generated_at": None} for p in frame["provenance"]]
    return frame.sort_values("conversation_id", ignore_index=True)
