"""One small exception tree. Every message is one sentence: what was given, what was expected, what to do."""

from __future__ import annotations

from typing import Any, Literal


class GenesisError(Exception):
    """Root of every error that Genesis Lab raises on purpose."""


class InvalidInput(GenesisError):
    """A parameter, file or record that can't be used as it is."""


class MissingDependency(GenesisError):
    """An optional package or program that this step needs is not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: {install}")
        self.package = package


class Unavailable(GenesisError):
    """Something outside (a hub, a server, a reference dataset) can't be reached."""


class ParseFailure(GenesisError):
    """A model's answer is not the record that was asked for; `reasons` goes back to the model on repair.

    `score` is how good the answer was nevertheless, where its domain scores answers.
    """

    def __init__(self, *reasons: str, score: float | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.reasons, self.score = reasons, score


class Incomplete(GenesisError):
    """Fewer records came about than were planned; those that did are kept."""


class Interrupted(GenesisError):
    """The user ended it; what was in flight may still arrive."""


class StageFailed(GenesisError):
    """A pipeline stage stopped; the message names the notebook, the cell and the error."""


class ProviderError(GenesisError):
    """A provider did not answer. `can_retry`: whether the same request may work later; `code`: the service's own."""

    can_retry = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        model: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.status, self.model, self.retry_after_s = code, status, model, retry_after_s


class Throttled(ProviderError):
    """The service is refusing for rate: wait, then the same request will work. `scope` says which limit was hit."""

    can_retry = True

    def __init__(
        self, message: str, *, scope: Literal["requests", "tokens", "unknown"] = "unknown", **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.scope = scope


class Transient(ProviderError):
    """A fault of the moment (reset, 5xx, time-out): the same request may work."""

    can_retry = True


class Unreachable(Transient):
    """Nothing answers at the address."""


class QuotaExhausted(ProviderError):
    """A daily quota is used up: retrying today can't help."""


class Rejected(ProviderError):
    """This one request can never work (too long, refused by validation); others may."""


class Fatal(ProviderError):
    """No request can work (access denied, wrong model, bad key): stop the run."""


def sentence(error: Any, *, name: str = "") -> str:
    """The first fault of a pydantic ``ValidationError`` in one sentence: where, and what; `name` stands before the field."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in first["loc"])
    said = ": ".join(part for part in (name, where, first["msg"].removeprefix("Value error, ")) if part)
    return said.rstrip(".") + "."
