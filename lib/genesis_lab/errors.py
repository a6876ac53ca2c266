"""One small exception tree. Every message is one sentence: what was given, what was expected, what to do."""

from __future__ import annotations

import html
import json
import re
import traceback
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal


class GenesisError(Exception):
    """Root of every error that Genesis Lab raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it in a notebook: its sentence, below the folded traceback."""
        from IPython import get_ipython

        told = html.escape("".join(traceback.format_exception(self)))
        fold = f"<details><summary>Where in the code (for a bug report)</summary><pre>{told}</pre></details>"
        if (shell := get_ipython()) and not vars(self).get("_folded"):  # a kernel asks twice
            self._folded = True
            shell.display_pub.publish({"text/html": fold})
        return [f"{type(self).__name__}: {self}"]


class InvalidInput(GenesisError):
    """A parameter, file or record that can't be used as it is."""


class Taken(InvalidInput):
    """The name is that of something made with other settings, which may be replaced; `free` is a free name."""

    def __init__(self, message: str, free: str) -> None:
        super().__init__(message)
        self.free = free


class MissingDependency(GenesisError):
    """An optional package or program that this step needs is not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: {install}")


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
    """The first fault of a pydantic ``ValidationError``: where, what is expected, what was given; after `name`."""
    first = error.errors(include_url=False)[0]
    kind, given = first["type"], first.get("input")
    where = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in first["loc"])
    told = expected("must", kind)
    if kind in ("value_error", "assertion_error"):
        said = ": ".join(part for part in (where, first["msg"].partition(", ")[2]) if part)
    elif kind == "extra_forbidden":
        said = f"{where} is not known here"
    else:
        bounds = {name: f"{n:,.12g}" if isinstance(n, int | float) else n for name, n in first.get("ctx", {}).items()}
        must = told.format(**bounds) if told else first["msg"].removeprefix("Input should ")
        near = nearest(given, re.findall("'([^']*)'", must)) if kind == "literal_error" else None
        got = "" if kind == "missing" else f", got {repr(given)[:120]}" + (f": did you mean {near}?" if near else "")
        said = f"{where or 'it'} must {must}{got}"
    return (f"{name}: " if name else "") + said.rstrip(".") + ("" if said.endswith("?") else ".")


@cache
def expected(how: str, kind: str) -> str | None:
    """What a value should be (`how`: must) or how to write it (hint), by pydantic's type of error or its first word."""
    said: dict[str, str] = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))[how]
    return said.get(kind) or said.get(kind.partition("_")[0])


def nearest(wrong: object, known: Iterable[object]) -> str | None:
    """What was probably meant, whatever its case; None where nothing is like it."""
    from difflib import get_close_matches

    names = {str(name).casefold(): str(name) for name in known}
    close = get_close_matches(str(wrong).casefold(), names, n=1)
    return names[close[0]] if close else None


def instead(wrong: object, known: Collection[object], most: int = 12) -> str:
    """What to write instead of it: the nearest of what is known, else the first of them all."""
    if near := nearest(wrong, known):
        return f"did you mean {near}?"
    more = f" … and {len(known) - most:,} more" if len(known) > most else ""
    return f"there are {', '.join(list(map(str, known))[:most]) or 'none'}{more}."
