"""What the refusal of an OpenAI-compatible server means: wait, give up on this request, or stop."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient


class Refused(Rejected):
    """The server does not take the request as it is; in a simpler shape it may."""


def typed(error: Any, text: str, model: str) -> ProviderError:
    """The typed error for an ``openai.APIStatusError``.

    Parameters
    ----------
    error : what the openai package raised.
    text : its words, fit to be shown.
    model : the model asked.
    """
    status, headers = error.status_code, error.response.headers
    details: dict[str, Any] = {"code": error.code, "status": status, "model": model}
    if status == 429:
        if error.code == "insufficient_quota" or re.search(r"per ?day|daily|\b[RT]PD\b", text, re.I):
            return QuotaExhausted(text, **details)
        tokens = re.search(r"tokens? per|\bTPM\b", text, re.I) or headers.get("x-ratelimit-remaining-tokens") == "0"
        wait = _retry_after_s(headers, text)
        return Throttled(text, scope="tokens" if tokens else "unknown", retry_after_s=wait, **details)
    if status in (400, 422, 501):
        return Refused(text, **details)
    if status in (408, 409, 425) or status >= 500:
        return Transient(text, retry_after_s=_retry_after_s(headers, text), **details)
    if status in (401, 403):
        return Fatal(f"The server refuses the key, or access to {model}: {text}", **details)
    if status == 404:
        return Fatal(f"There is no {model} at {error.request.url}: {text}", **details)
    return Rejected(text, **details)


def _retry_after_s(headers: Any, text: str) -> float | None:
    """Seconds to wait: a header in (milli)seconds or as a date, else what the message says (Gemini, OpenAI)."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[header]) * unit_s)
        except (KeyError, ValueError):
            continue
    if "retry-after" in headers:
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return None
    said = re.search(r"(?:retry|try again) in (\d+(?:\.\d+)?) ?(ms|s)", text, re.I)
    return float(said[1]) * (0.001 if said[2].lower() == "ms" else 1.0) if said else None
