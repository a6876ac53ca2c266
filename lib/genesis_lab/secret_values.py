"""Which names look like secrets, and which secret values are known, so that neither gets into a notebook or a run folder."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from genesis_lab.settings import Settings, env_file

_SHORTEST = 8
"""Shorter values are left alone: they would be found by chance."""
_NAME = re.compile(
    r"secret|passw(or)?d|passphrase|credential|bearer|(api|access|private|signing)_?key|(^|_)(auth_?)?token(_|$)",
    re.IGNORECASE,
)
_NOT_THE_SECRET = re.compile(r"_(file|path|dir|uri|url|name|id_file)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"""(://[^\s/"',@]+|@[^\s/@:"',]+:[^\s/@"',]+)@""")


def looks_secret(name: str) -> bool:
    """Whether a name reads like a secret's: ``api_key``, ``hfToken``, ``AWS_SECRET_ACCESS_KEY``; not ``max_tokens``."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]", "_", name)
    return bool(_NAME.search(snake)) and not _NOT_THE_SECRET.search(snake)


def secret_names(value: Any) -> Iterator[str]:
    """The keys anywhere in nested parameters that look like a secret's name."""
    if isinstance(value, Mapping):
        yield from (str(key) for key in value if looks_secret(str(key)))
        value = list(value.values())
    for inner in value if isinstance(value, list | tuple) else ():
        yield from secret_names(inner)


def credentials_in(text: str) -> bool:
    """Whether an address in `text` holds a user or password: ``https://me:secret@host``, ``openai:m@me:secret@host``."""
    return bool(_CREDENTIALS.search(text))


def found_in(text: str) -> list[str]:
    """Names of the known secrets whose value stands in `text`, as it is or as JSON writes it."""
    return [name for name, value in _known().items() if any(form in text for form in _forms(value))]


def redact(text: str) -> str:
    """`text` with every known secret value replaced by its name."""
    for name, value in _known().items():
        for form in _forms(value):
            text = text.replace(form, f"[{name}]")
    return text


def _known() -> dict[str, str]:
    """Name to value of the secrets in the environment and in ``.env``, as `Settings` would read them."""
    variables = {**DotEnvSettingsSource(Settings, env_file=env_file()).env_vars, **EnvSettingsSource(Settings).env_vars}
    return {name.upper(): v for name, v in variables.items() if v and len(v) >= _SHORTEST and looks_secret(name)}


def _forms(value: str) -> set[str]:
    """How a notebook file may write a value: printed, as a repr or in HTML, each as it is or escaped by JSON."""
    shown = {value, repr(value)[1:-1], html.escape(value)}
    return shown | {json.dumps(form, ensure_ascii=ascii)[1:-1] for form in shown for ascii in (True, False)}
