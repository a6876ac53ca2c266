"""What a record is: one folder per task family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput


def get_domain(name: str = "conversations", **options: Any) -> Domain:
    """The domain of that name. Of `options`, those its configuration knows are used, so a notebook's parameters will do.

    Raises
    ------
    InvalidInput : there is no such domain, or an option is impossible.
    """
    if name != "conversations":
        raise InvalidInput(f"Unknown domain {name!r}: there is conversations.")
    from pydantic import ValidationError

    from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig

    try:
        config = ConversationsConfig(**{k: v for k, v in options.items() if k in ConversationsConfig.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}."
        ) from None
    return Conversations(config)


def recorded_domain(manifest: Mapping[str, Any]) -> Domain | None:
    """The domain with the options that a dataset was generated with; None for one that was not generated here."""
    config = dict(manifest.get("config") or {})
    name = config.pop("domain", None)
    return get_domain(name, **config) if name else None
