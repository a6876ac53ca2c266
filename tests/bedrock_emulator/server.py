"""A Bedrock that runs on this machine: unmodified boto3 talks to it by `endpoint_url`.

SKELETON: names are agreed, the body is being written.

    with BedrockEmulator(quota=Quota(tokens_per_minute=200_000, burst="bucket", burndown=5), latency_s=0.05) as server:
        client = boto3.client("bedrock-runtime", endpoint_url=server.url, region_name="us-east-1", ...)
        ...
        server.stats().settled_tokens
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bedrock_emulator.quota import Quota


@dataclass(frozen=True)
class Faults:
    """Shares (0–1) of runtime calls that go wrong, each an independent kind; drawn from `seed` in order of arrival.

    `throttled` 429 whatever the quota, `timeout` 408, `model_error` 424, `internal` 500, `unavailable` 503,
    `reset` the connection is dropped (before the model is asked), `reset_after` dropped after the answer was paid for,
    `truncated` half of the body and then a dropped connection, `slow` answers that take `slow_s` more.
    `fail_first`: this many calls fail with `unavailable` before anything works. `daily_quota_after`: calls answered
    before every further one is refused with "Too many tokens per day".
    """

    throttled: float = 0.0
    timeout: float = 0.0
    model_error: float = 0.0
    internal: float = 0.0
    unavailable: float = 0.0
    reset: float = 0.0
    reset_after: float = 0.0
    truncated: float = 0.0
    slow: float = 0.0
    slow_s: float = 5.0
    fail_first: int = 0
    daily_quota_after: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Stats:
    """Counted by the server. An id is `requestMetadata["request"]` of a Converse call, else a hash of its body."""

    requests: int = 0
    answered: int = 0
    throttled: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    settled_tokens: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Since the first runtime call."""
    ids: dict[str, int] = field(default_factory=dict)
    """Request id to the number of times it was answered (paid for)."""

    @property
    def duplicated(self) -> int:
        """Ids that were answered more than once."""
        return sum(count > 1 for count in self.ids.values())


class BedrockEmulator:
    """The server, in a thread of this process or (`process=True`) in a process of its own."""

    url: str

    def __init__(
        self,
        *,
        quota: Quota = Quota(),
        faults: Faults = Faults(),
        latency_s: float = 0.0,
        answers: Literal["grammar", "fixed"] | Callable[[dict[str, Any]], str] = "grammar",
        malformed: float = 0.0,
        output_tokens: int | None = None,
        process: bool = False,
        s3_url: str | None = None,
    ) -> None: ...

    def __enter__(self) -> BedrockEmulator: ...

    def __exit__(self, *error: object) -> None: ...

    def stats(self) -> Stats: ...

    def change(self, quota: Quota) -> None:
        """Another quota from now on, for example half of it."""
