"""What a record is: one folder per task family."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput, instead, sentence

if TYPE_CHECKING:
    from pydantic import BaseModel

DOMAINS = {
    "conversations": "genesis_lab.domains.conversations.domain:Conversations",
    "timeseries": "genesis_lab.domains.timeseries.domain:Timeseries",
    "requirements": "genesis_lab.domains.requirements:Requirements",
    "vision": "genesis_lab.domains.vision:Vision",
}
"""Name to module and class, from anywhere; `config_type` of the class are its options."""


def get_domain(name: str = "conversations", **options: Any) -> Domain:
    """The domain of that name. Of `options` those that its configuration knows are used: any parameters will do.

    Raises
    ------
    InvalidInput : there is no such domain, or an option is impossible.
    """
    from pydantic import ValidationError

    domain = _class(name)
    known = domain.config_type.model_fields
    try:
        return domain(domain.config_type(**{name: value for name, value in options.items() if name in known}))
    except ValidationError as error:
        raise InvalidInput(sentence(error)) from None


def config_for(name: str) -> type[BaseModel]:
    """What a user may choose of the domain of that name."""
    return _class(name).config_type


def recorded_domain(manifest: Mapping[str, Any]) -> Domain | None:
    """The domain with the options that a dataset was generated with; None for one that was not generated here."""
    config = dict(manifest.get("config") or {})
    name = config.pop("domain", None)
    return get_domain(name, **config) if name else None


def _class(name: str) -> type[Domain]:
    if name not in DOMAINS:
        raise InvalidInput(f"Unknown domain {name!r}: {instead(name, DOMAINS)}")
    return cast("type[Domain]", resolve_name(DOMAINS[name]))
