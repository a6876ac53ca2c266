"""What a model is, for the keys of its answers: other weights, settings or another server are another model."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from genesis_lab.errors import InvalidInput
from genesis_lab.files import resolve
from genesis_lab.hub import hub_reachable
from genesis_lab.providers import ModelSpec, parse_spec
from genesis_lab.providers.addresses import OPENAI_URL
from genesis_lab.providers.base import Provider
from genesis_lab.providers.local_models import BUNDLED, adapter_base
from genesis_lab.settings import get_settings

_MAKES_A_MODEL = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*",
    "chat_template*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "adapter_model.bin",
)
"""The files that shape what a model in a folder answers; figures, cards and logs beside them do not."""


def identity(who: str | ModelSpec | Provider) -> str:
    """Who answers, as precisely as can be told without asking; safe to be shown: it holds no address, path or account.

    A folder or file here goes by its weights and settings, an adapter by its base's too, a model of the hub by its
    commit, and a server's model by the server's addresses.
    """
    if isinstance(who, str):
        who = parse_spec(who)
    if isinstance(who, ModelSpec):
        # Batch jobs and calls on demand ask the same model, in whatever region.
        named = ModelSpec(who.provider.removesuffix("_batch"), who.model, who.base_urls)
    else:
        named = ModelSpec(who.name, getattr(who, "source", who.model), tuple(getattr(who, "base_urls", ())))
    if named.provider == "local":
        weights = weights_digest(named.model or BUNDLED)
        return f"local:{resolve(named.model).name} {weights[:16]}" if weights else named.label
    apart = sorted(url.rstrip("/") for url in named.base_urls if url != OPENAI_URL)
    if named.model.startswith("arn:"):
        apart.append(named.model)
    return f"{named.label} {hashlib.sha256(' '.join(apart).encode()).hexdigest()[:16]}" if apart else named.label


def weights_digest(source: str) -> str:
    """SHA-256 over what makes the model in a folder or file, or the hub's commit; empty where that is not known."""
    place = resolve(source)
    if source == BUNDLED:
        return ""
    if not place.exists():
        return _commit(source)
    matches = (file for pattern in _MAKES_A_MODEL for file in place.glob(pattern) if file.is_file())
    digest = hashlib.sha256()
    for file in sorted(set(matches)) if place.is_dir() else [place]:
        stat = file.stat()
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        digest.update(f"{file.name} {_read_digest(file.resolve(), *state)}\n".encode())
    with suppress(InvalidInput):  # an adapter that names no base says so when it is loaded
        if base := adapter_base(source):
            digest.update(f"base {weights_digest(base) or base}\n".encode())
    return digest.hexdigest()


@cache
def _read_digest(file: Path, *state: int) -> str:
    """SHA-256 of a file in this state, read once in a process."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _commit(source: str) -> str:
    """The commit of a hub's model that would be loaded now."""
    from huggingface_hub import hf_hub_download

    token = get_settings().hf_token
    key, offline = token.get_secret_value() if token else None, not hub_reachable()
    try:
        return Path(hf_hub_download(source, "config.json", token=key, local_files_only=offline)).parent.name
    except (OSError, ValueError):  # loading it will say why
        return ""
