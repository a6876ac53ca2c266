"""What the emulated service has counted."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stats:
    """Counted by the server. An id is ``requestMetadata.request_key`` of a Converse call, else a hash of its body."""

    requests: int = 0
    """Converse and InvokeModel calls that arrived, whatever came of them."""
    answered: int = 0
    undelivered: int = 0
    """Answered and paid for, but lost on the way back."""
    throttled: int = 0
    rejected: int = 0
    """Answered with 400, 403 or 404."""
    faults: dict[str, int] = field(default_factory=dict)
    settled_tokens: float = 0.0
    """Tokens of quota used: prompt, cache writes, output × burndown."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the first call's arrival to the latest answer."""
    ids: dict[str, int] = field(default_factory=dict)
    """Request id to times answered and paid for."""
    seen: dict[str, int] = field(default_factory=dict)
    """Request id to times it arrived."""
    calls: dict[str, int] = field(default_factory=dict)
    """Operation to number of calls."""
    regions: dict[str, int] = field(default_factory=dict)
    """Region to Converse and InvokeModel calls that arrived."""
    timeline: tuple[tuple[int, float], ...] = ()
    """(second since the first call, tokens of quota settled in it), for steady-state figures."""

    @property
    def duplicated(self) -> int:
        """Ids that were answered, and paid for, more than once."""
        return sum(count > 1 for count in self.ids.values())
