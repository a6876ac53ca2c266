"""Who answers a prompt: one module per provider, and the one line that names a provider and its model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from genesis_lab.errors import InvalidInput, instead
from genesis_lab.providers.addresses import OLLAMA_URL, OPENAI_URL, server_address
from genesis_lab.providers.base import Provider
from genesis_lab.providers.models import default_model

ProviderName = Literal["offline", "bedrock", "bedrock_batch", "openai", "local"]
FORMS = (
    "offline",
    "bedrock:<model>[@region]",
    "bedrock_batch:<model>[@region]",
    "openai:<model>[@base URL]",
    "ollama:<model>",
    "local:<smollm2, folder, GGUF file or hub id>",
)
"""How a provider and its model are named in one line; without a model it is the provider's default."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+")
_NAME = re.compile(r"@?[^@]*(@(v?\d[\w-]*|latest))?")
"""A model's name, which may end in a version (``claude-3-5-sonnet@20240620``)."""


@dataclass(frozen=True)
class ModelSpec:
    """A provider and its model, as a line of `FORMS` names them; `base_urls` are servers of an OpenAI-compatible model.

    Without a model it is the provider's default, without a region that of the settings.
    """

    provider: str
    model: str = ""
    base_urls: tuple[str, ...] = ()
    region: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_urls", tuple(map(server_address, self.base_urls)))

    @property
    def label(self) -> str:
        """How manifests name it: without addresses and account numbers, which are nobody's business."""
        defaults = {"bedrock": default_model(), "bedrock_batch": default_model(), "local": "smollm2"}
        model = self.model or defaults.get(self.provider, "")
        model = model.rsplit("/", 1)[-1] if model.startswith("arn:") else model
        return self.provider + (f":{model}" if model else "") + (f"@{self.region}" if self.region else "")

    def open(self) -> Provider:
        """The provider; nothing is called or loaded yet. Raises `InvalidInput` if there is none or no model."""
        from genesis_lab.settings import get_settings

        settings = get_settings()
        if self.provider == "offline":
            from genesis_lab.providers.offline import OfflineProvider

            return OfflineProvider()
        if self.provider in ("bedrock", "bedrock_batch"):
            from genesis_lab.providers.bedrock import BedrockProvider
            from genesis_lab.providers.bedrock_batch import BatchService

            settings = settings.model_copy(update={"aws_region": self.region} if self.region else {})
            provider = BedrockProvider(self.model, settings=settings, in_batch=self.provider == "bedrock_batch")
            provider.batch = BatchService(provider.account)
            return provider
        if self.provider == "openai":
            from genesis_lab.providers.openai import OpenAIProvider

            if not self.model:
                raise InvalidInput("Provider openai needs a model, for example llama3.1:8b on an Ollama server.")
            urls, key = self.base_urls or (OPENAI_URL,), settings.openai_api_key
            return OpenAIProvider(self.model, urls, api_key=key, key_host=settings.openai_key_host)
        if self.provider == "local":
            from genesis_lab.providers.local import LocalProvider

            return LocalProvider(self.model or "smollm2")
        raise InvalidInput(f"Unknown provider {self.provider!r}: {instead(self.provider, get_args(ProviderName))}")


def parse_spec(text: str) -> ModelSpec:
    """What a line such as ``bedrock:amazon.nova-lite-v1:0@eu-west-1`` names; several base URLs are parted by commas.

    Raises `InvalidInput` where it has none of the `FORMS`, or an address that can't be used, see `server_address`.
    """
    provider, _, rest = text.strip().partition(":")
    if provider in ("openai", "ollama"):
        model, *places = re.split(r" *@ *(?=https?://)|, *(?=https?://)", rest)
        if _NAME.fullmatch(model):
            return ModelSpec("openai", model, tuple(places) or ((OLLAMA_URL,) if provider == "ollama" else ()))
    if provider.startswith("bedrock"):
        model, at, region = rest.partition("@")
        if provider in get_args(ProviderName) and bool(at) == bool(_REGION.fullmatch(region)):
            return ModelSpec(provider, model, region=region)
    elif provider in ("offline", "local") and "://" not in rest:
        return ModelSpec(provider, rest)
    shown = re.sub(r"(//|@).*@", r"\1…@", text, flags=re.DOTALL)  # what may be user and password
    shown = re.sub(r"[?#].*", "?…", shown, flags=re.DOTALL)
    raise InvalidInput(f"{shown!r} names no model: the forms are {', '.join(FORMS)}.")
