"""A running Rasa server, asked over HTTP: where its token may go, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.settings import get_settings
from genesis_lab.yamls import shipped

SAID = Path(__file__).with_name("regression.yaml")


@contextmanager
def rasa_server(address: str, *, timeout_s: float | None = 60) -> Iterator[Callable[..., Any]]:
    """What asks the server: called with method, path and httpx's own options it answers, or `Unavailable` says why not.

    ``GENESIS_RASA_TOKEN`` goes over https or to this machine only; `InvalidInput` where it would not, or for no address.
    """
    import httpx

    token, place = get_settings().rasa_token, urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname or "@" in place.netloc:
        raise InvalidInput("A Rasa server has an address like http://localhost:5005; its token is GENESIS_RASA_TOKEN.")
    if token and place.scheme != "https" and place.hostname not in ("localhost", "127.0.0.1", "::1"):
        said = f"The token of {place.netloc} is sent over https or to this machine only"
        raise InvalidInput(f"{said}: give an https address.")
    who, base = f"The server {place.netloc}", f"{place.scheme}://{place.netloc}{place.path.rstrip('/')}"
    with httpx.Client(timeout=timeout_s, params={"token": token.get_secret_value()} if token else {}) as client:

        def ask(method: str, path: str, **options: Any) -> httpx.Response:
            try:
                answer = client.request(method, base + path, **options)
            except httpx.HTTPError as error:
                raise Unavailable(f"{who} can't be reached: {type(error).__name__}.") from None
            if answer.is_success:
                return answer
            why = shipped(SAID)["refusals"].get(answer.status_code) or " ".join(answer.text.split())[:300]
            raise Unavailable(f"{who} refuses {path or place.path} ({answer.status_code}): {why.rstrip('.')}.")

        yield ask
