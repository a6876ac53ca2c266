"""Who answers a prompt: one module per provider, and the one line that names a provider and its model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from genesis_lab.errors import InvalidInput
from genesis_lab.providers.base import Provider

ProviderName = Literal["offline", "bedrock", "bedrock_batch", "openai", "local", "llamacpp"]
OLLAMA_URL = "http://localhost:11434/v1"
FORMS = (
    "offline",
    "bedrock:<model>[@region]",
    "bedrock_batch:<model>[@region]",
    "openai:<model>[@base URL]",
    "ollama:<model>",
    "local:<smollm2, folder or hub id>",
    "llamacpp:<GGUF file>",
)
"""How a provider and its model are named in one line; without a model it is the provider's default."""


@dataclass(frozen=True)
class ModelSpec:
    """A provider and its model, as a line of `FORMS` names them.

    Parameters
    ----------
    model : empty is the provider's default.
    base_urls : addresses of OpenAI-compatible servers of the same model.
    region : AWS region; empty is that of the settings.
    """

    provider: str
    model: str = ""
    base_urls: tuple[str, ...] = ()
    region: str = ""

    @property
    def label(self) -> str:
        """How manifests name it: without addresses and account numbers, which are nobody's business."""
        from genesis_lab.providers.models import default_model

        defaults = {"bedrock": default_model, "bedrock_batch": default_model, "local": lambda: "smollm2"}
        model = self.model or defaults.get(self.provider, str)()
        model = model.rsplit("/", 1)[-1] if model.startswith("arn:") else model
        return self.provider + (f":{model}" if model else "") + (f"@{self.region}" if self.region else "")

    def open(self) -> Provider:
        """The provider, see `get_provider`; nothing is called or loaded yet."""
        return get_provider(self.provider, model=self.model, base_urls=self.base_urls, region=self.region)


def parse_spec(text: str) -> ModelSpec:
    """What a line such as ``bedrock:amazon.nova-lite-v1:0@eu-west-1`` names. Several base URLs are parted by commas.

    Raises
    ------
    InvalidInput : it has none of the `FORMS`.
    """
    provider, _, rest = text.strip().partition(":")
    model, _, place = rest.rpartition("@") if re.search(r"@(https?://|[a-z-]+\d$)", rest) else (rest, "", "")
    known = provider in get_args(ProviderName) or provider == "ollama"
    urls = tuple(place.split(",")) if place.startswith("http") else ()
    if (
        not known
        or (urls and provider not in ("openai", "ollama"))
        or (place and not urls and not provider.startswith("bedrock"))
    ):
        raise InvalidInput(f"{text!r} names no model: the forms are {', '.join(FORMS)}.")
    if provider == "ollama":
        return ModelSpec("openai", model, urls or (OLLAMA_URL,))
    return ModelSpec(provider, model, urls, "" if urls else place)


def provider_of(spec: str) -> Provider:
    """The provider that a line of `FORMS` names; raises as `parse_spec` and `get_provider` do."""
    return parse_spec(spec).open()


def get_provider(
    name: str = "offline", *, model: str = "", base_urls: Sequence[str] = (), region: str = ""
) -> Provider:
    """The provider of that name.

    Parameters
    ----------
    model : which model answers; empty: the provider's default (``openai`` has none).
    base_urls : addresses of OpenAI-compatible servers of the same model; empty: OpenAI's own.
    region : AWS region; empty: that of the settings.

    Raises
    ------
    InvalidInput : there is no such provider, or it needs a model.
    MissingDependency : a package it needs is not installed.
    """
    if name == "offline":
        from genesis_lab.providers.offline import OfflineProvider

        return OfflineProvider()
    if name in ("bedrock", "bedrock_batch"):
        from genesis_lab.providers.bedrock import BedrockProvider
        from genesis_lab.settings import get_settings

        settings = get_settings().model_copy(update={"aws_region": region} if region else {})
        return BedrockProvider(model or None, settings=settings, in_batch=name == "bedrock_batch")
    if name == "openai":
        from genesis_lab.providers.openai import OPENAI_URL, OpenAIProvider
        from genesis_lab.settings import get_settings

        if not model:
            raise InvalidInput("Provider openai needs a model, for example llama3.1:8b on an Ollama server.")
        return OpenAIProvider(model, tuple(base_urls) or (OPENAI_URL,), api_key=get_settings().openai_api_key)
    if name == "local":
        from genesis_lab.providers.local import LocalProvider
        from genesis_lab.providers.local_models import BUNDLED

        return LocalProvider(model or BUNDLED)
    if name == "llamacpp":
        from genesis_lab.providers.llamacpp import LlamaCppProvider

        return LlamaCppProvider(model) if model else LlamaCppProvider()
    raise InvalidInput(f"Unknown provider {name!r}: there are {', '.join(get_args(ProviderName))}.")
