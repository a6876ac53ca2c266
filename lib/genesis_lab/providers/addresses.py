"""Where a server is: its address, complete and without secrets, and whether a key may be sent there."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from genesis_lab.errors import InvalidInput

OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_URL = "http://localhost:11434/v1"


def server_address(text: str) -> str:
    """The address of a server, without blanks round it.

    Raises `InvalidInput` for another one, and for user, password or query, which are not repeated.
    """
    address = text.strip()
    if set("@?#") & set(address):
        raise InvalidInput(
            "A server's address must hold no user, password or query, which would end in files that are shared: give "
            "scheme, host and path only, and a key as GENESIS_OPENAI_API_KEY."
        )
    try:
        place = urlsplit(address)
        good = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"\s|,", address):
        raise InvalidInput(f"base_urls must be http(s) addresses such as {OLLAMA_URL}, got {text!r}.")
    return address


def on_this_machine(url: str) -> bool:
    """Whether an address is this machine's own, by its loopback interface."""
    try:
        host = urlsplit(url).hostname or ""
        number = None if re.fullmatch(r"([\w-]+\.)*localhost", host) else ip_address(host)
        return number is None or number.is_loopback or number.is_unspecified
    except ValueError:
        return False


def may_get_key(url: str, key_host: str | None) -> bool:
    """Whether a key may be sent to `url`: never in the clear over a network, nor past the host it was set for."""
    place = urlsplit(url)
    private = place.scheme == "https" or on_this_machine(url)
    return private and (not key_host or (place.hostname or "") == key_host.strip().casefold())
