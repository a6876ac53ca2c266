"""Who answers a prompt: one module per provider."""

from __future__ import annotations

from genesis_lab.errors import InvalidInput
from genesis_lab.providers.base import Provider


def get_provider(name: str = "offline") -> Provider:
    """The provider of that name.

    Raises
    ------
    InvalidInput : there is no such provider.
    """
    if name == "offline":
        from genesis_lab.providers.offline import OfflineProvider

        return OfflineProvider()
    raise InvalidInput(f"Unknown provider {name!r}: there is offline.")
