"""Provider ``scripted``: says what a test or a demonstration tells it to, faults included, seeded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from genesis_lab.errors import ProviderError
from genesis_lab.providers.base import Completion, Provider, Request, Usage

Answer = str | Completion | ProviderError
Script = Sequence[Answer] | Callable[[Request, np.random.Generator], Answer]


class ScriptedProvider(Provider):
    """Answers from a list, in order, or from a function of the request.

    Parameters
    ----------
    script : answers given one after the other (the last one repeats), or a function called with each request and a
        generator seeded by the request's key, so that an answer does not depend on the order of calls. An answer that
        is a `ProviderError` is raised.
    latency_s : seconds each answer takes.
    concurrency : how many requests may be in flight.
    price_usd : per call, or None for unknown.

    Attributes
    ----------
    requests : every request received, in order.
    """

    name = "scripted"
    model = "script"

    def __init__(
        self,
        script: Script,
        *,
        latency_s: float = 0.0,
        concurrency: int = 1,
        price_usd: float | None = 0.0,
    ) -> None:
        self._script = script
        self._latency_s = latency_s
        self._price_usd = price_usd
        self._lock = threading.Lock()
        self.concurrency = concurrency
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Completion:
        with self._lock:
            turn = len(self.requests)
            self.requests.append(request)
        if self._latency_s:
            time.sleep(self._latency_s)
        if callable(self._script):
            answer = self._script(request, np.random.default_rng(list(request.key.encode())))
        else:
            answer = self._script[min(turn, len(self._script) - 1)]
        if isinstance(answer, ProviderError):
            raise answer
        if isinstance(answer, Completion):
            return answer
        words = len(request.system.split()) + sum(len(text.split()) for _, text in request.messages)
        usage = Usage(prompt_tokens=words, completion_tokens=len(answer.split()))
        return Completion(
            answer, self.model, usage, latency_s=self._latency_s, cost_usd=self._price_usd, created_at=datetime.now(UTC)
        )

    def cost_usd(self, usage: Usage) -> float | None:
        return self._price_usd

    def close(self) -> None:
        pass
