"""The `Provider` contract: one request in, one completion out, typed errors; never a retry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from genesis_lab.yamls import shipped

Message = tuple[Literal["user", "assistant"], str]
"""One message of a chat: who speaks, and the text."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Its `key` is that of the completion cache, see `request_key`; the first `stable_messages` are shared by many
    requests (prompt caching); a provider holds the answer to `schema`, or states it in the prompt; only ``local`` takes
    a Lark `grammar`; `offline_text` is the answer of ``offline``; without a `temperature` it is the model's default.
    """

    key: str
    system: str = ""
    messages: tuple[Message, ...] = ()
    schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"
    max_tokens: int = 2048
    temperature: float | None = None
    seed: int | None = None
    stable_messages: int = 0
    offline_text: str | None = None
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `prompt_tokens` are the uncached ones; cache reads and writes are counted apart."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def all_prompt_tokens(self) -> int:
        return self.prompt_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in Usage.__dataclass_fields__))


NO_ROOM = "The model used up max_tokens before it began to answer, by thinking perhaps: raise max_tokens."
StopReason = Literal["end", "max_tokens", "stop_sequence", "filtered", "malformed", "other"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer. `usage` is None where a server does not count, `cost_usd` when the price is unknown,
    `created_at` for provider ``offline``; `request_key` is filled in by who asks, and `attempts`, the answers it took
    to get a usable one. `not_sent` names what of the request the service does not take, `note` what is wrong with the
    answer."""

    text: str
    model: str
    usage: Usage | None = field(default_factory=Usage)
    stop_reason: StopReason = "end"
    latency_s: float = 0.0
    cost_usd: float | None = None
    created_at: datetime | None = None
    request_key: str | None = None
    not_sent: tuple[str, ...] = ()
    note: str | None = None
    attempts: int | None = None


class Provider(Protocol):
    """Answers one request. Raises `Throttled`, `Transient`, `QuotaExhausted`, `Rejected` or `Fatal`.

    A `free` one is deterministic and costs nothing: its answers are not cached and need no prompt. `concurrency` is how
    many requests may be in flight.
    """

    name: str
    model: str
    free: bool = False
    concurrency: int = 1

    def complete(self, request: Request) -> Completion: ...

    def cost_usd(self, usage: Usage) -> float | None:
        """The price of `usage`, or None when it is not known."""
        return None

    def close(self) -> None:
        return None


@cache
def known(service: str) -> dict[str, Any]:
    """What ``services.yaml`` knows of what a service says; stop reasons by the service's word."""
    told = shipped(Path(__file__).with_name("services.yaml"))[service]
    reasons = {word: reason for reason, words in told["stop_reasons"].items() for word in words}
    return {**told, "stop_reasons": reasons}


def total_cost(costs: Iterable[float | None]) -> float | None:
    """The sum, or None if any of them is not known."""
    each = list(costs)
    return None if None in each else sum(cost for cost in each if cost is not None)


def request_key(*parts: Any) -> str:
    """A stable key of everything that shapes an answer (prompt version, messages, model, sampling, schema, seed)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def retry_after_s(headers: Mapping[str, str], text: str = "") -> float | None:
    """Seconds that a service asks to wait: a header in (milli)seconds or as a date, else what its message says."""
    for header, unit_s in (("x-amz-retry-after", 0.001), ("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[header]) * unit_s)
    with suppress(KeyError, ValueError):
        return max(0.0, (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds())
    said = re.search(r"(?:(?:retry|try again) in |retryDelay\W{1,4})(\d+(?:\.\d+)?) ?(ms|s)", text, re.I)
    return float(said[1]) * (0.001 if said[2].lower() == "ms" else 1.0) if said else None
