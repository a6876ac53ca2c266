"""Is the Hugging Face hub within reach? Asked once and briefly, because its libraries retry for a minute."""

from __future__ import annotations

from functools import lru_cache

TIMEOUT_S = 5.0


@lru_cache
def hub_reachable() -> bool:
    """Whether the hub answers at all; False when ``HF_HUB_OFFLINE`` is set. Asked once per process."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # documented, but not marked as exported

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # the session is of httpx or of requests, by version, each with its own tree of errors
        return False
    return True
