"""Who answers a prompt: one module per provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from genesis_lab.errors import InvalidInput
from genesis_lab.providers.base import Provider

ProviderName = Literal["offline", "bedrock", "openai", "local", "llamacpp"]


def get_provider(name: str = "offline", *, model: str = "", base_urls: Sequence[str] = ()) -> Provider:
    """The provider of that name.

    Parameters
    ----------
    model : which model answers; empty: the provider's default (``openai`` has none).
    base_urls : addresses of OpenAI-compatible servers of the same model; empty: OpenAI's own.

    Raises
    ------
    InvalidInput : there is no such provider, or it needs a model.
    MissingDependency : a package it needs is not installed.
    """
    if name == "offline":
        from genesis_lab.providers.offline import OfflineProvider

        return OfflineProvider()
    if name == "bedrock":
        from genesis_lab.providers.bedrock import BedrockProvider

        return BedrockProvider(model or None)
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
