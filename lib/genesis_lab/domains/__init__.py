"""What a record is: one folder per task family."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput

DOMAINS = {
    "conversations": ("conversations.domain", "Conversations"),
    "requirements": ("requirements.domain", "Requirements"),
    "vision": ("vision.domain", "Vision"),
}
"""Name to module and class; `config_type` of the class are its options."""


def get_domain(name: str = "conversations", **options: Any) -> Domain:
    """The domain of that name. Of `options`, those its configuration knows are used, so a notebook's parameters will do.

    Raises
    ------
    InvalidInput : there is no such domain, or an option is impossible.
    """
    if name not in DOMAINS:
        raise InvalidInput(f"Unknown domain {name!r}: there is {', '.join(DOMAINS)}.")
    from pydantic import ValidationError

    place, kind = DOMAINS[name]
    domain: Any = getattr(import_module(f"genesis_lab.domains.{place}"), kind)
    model = domain.config_type
    try:
        config = model(**{k: v for k, v in options.items() if k in model.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}."
        ) from None
    return cast(Domain, domain(config))


def recorded_domain(manifest: Mapping[str, Any]) -> Domain | None:
    """The domain with the options that a dataset was generated with; None for one that was not generated here."""
    config = dict(manifest.get("config") or {})
    name = config.pop("domain", None)
    return get_domain(name, **config) if name else None
