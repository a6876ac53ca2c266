"""What goes wrong on purpose, and what the service says when it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Faults:
    """Shares (0–1) of Converse and InvokeModel calls that go wrong, drawn from `seed` in order of arrival.

    Parameters
    ----------
    throttled, timeout, model_error, internal, unavailable, not_ready : 429 whatever the quota, 408, 424, 500, 503, 429
        ModelNotReadyException.
    reset : the connection is dropped before the model is asked.
    reset_after : the connection is dropped after the answer was made and paid for.
    truncated : half of the body arrives, then the connection is dropped. Paid for.
    garbled : the body arrives whole but is half a JSON document. Paid for.
    slow : answers that take `slow_s` more seconds.
    fail_first : so many calls get a 503 before anything works.
    daily_quota_after : calls answered before all further ones get "Too many tokens per day".
    retry_after_s : seconds sent as ``Retry-After`` and ``x-amz-retry-after`` (in ms) with a 429 or 503.
    deny : every call of every kind is refused: unknown key, wrong secret, swapped key and secret, old token, wrong
        clock, no rights.
    """

    throttled: float = 0.0
    timeout: float = 0.0
    model_error: float = 0.0
    internal: float = 0.0
    unavailable: float = 0.0
    not_ready: float = 0.0
    reset: float = 0.0
    reset_after: float = 0.0
    truncated: float = 0.0
    garbled: float = 0.0
    slow: float = 0.0
    slow_s: float = 5.0
    fail_first: int = 0
    daily_quota_after: int | None = None
    retry_after_s: float | None = None
    deny: Literal["key", "secret", "swapped", "expired", "clock", "access"] | None = None
    seed: int = 0


SHARES = (
    "throttled", "timeout", "model_error", "internal", "unavailable", "not_ready",
    "reset", "reset_after", "truncated", "garbled", "slow",
)  # fmt: skip
ERRORS = {
    "throttled": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "timeout": (408, "ModelTimeoutException", "The request took too long to process."),
    "model_error": (424, "ModelErrorException", "The request failed due to an error while processing the model."),
    "internal": (500, "InternalServerException", "An internal server error occurred. Retry your request."),
    "unavailable": (503, "ServiceUnavailableException", "The service isn't currently available. Try again later."),
    "not_ready": (429, "ModelNotReadyException", "The model is not ready to serve inference requests."),
}
DENIALS = {
    "key": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "secret": (403, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."),
    "swapped": (403, "IncompleteSignature", "Credential must have exactly 5 slash-delimited elements."),
    "expired": (403, "ExpiredTokenException", "The security token included in the request is expired"),
    "clock": (403, "SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z"),
    "access": (403, "AccessDeniedException", "User is not authorized to perform this action."),
}  # fmt: skip


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> Refusal:
    return Refusal(400, "ValidationException", message)
