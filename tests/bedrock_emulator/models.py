"""The models and inference profiles that the emulated account sees. Invented, but each stands for a kind there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REGION = "us-east-1"
ACCOUNT = "000000000000"


@dataclass(frozen=True)
class EmulatedModel:
    """A model with its habits.

    Parameters
    ----------
    inference_types : "ON_DEMAND" and "INFERENCE_PROFILE"; a model without the first needs a profile.
    geographies : prefixes of its system-defined inference profiles.
    json_schema, tools, forced_tool, sampling, caching : what it takes without answering 400.
    thinking : it thinks unless told not to, and can't be forced to use a tool while it does.
    """

    model_id: str
    name: str
    inference_types: tuple[str, ...] = ("ON_DEMAND",)
    geographies: tuple[str, ...] = ()
    json_schema: bool = True
    tools: bool = True
    forced_tool: bool = True
    sampling: bool = True
    thinking: bool = False
    caching: bool = True
    cache_min_tokens: int = 1024
    context_tokens: int = 200_000
    max_output_tokens: int = 64_000
    lifecycle: str = "ACTIVE"
    gone: bool = False
    access: bool = True

    @property
    def provider(self) -> str:
        return self.model_id.split(".")[0]

    @property
    def arn(self) -> str:
        return f"arn:aws:bedrock:{REGION}::foundation-model/{self.model_id}"

    def profile_arn(self, geography: str) -> str:
        return f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile/{geography}.{self.model_id}"


MODELS = (
    EmulatedModel("amazon.nova-micro-v1:0", "Nova Micro", json_schema=False, max_output_tokens=10_000),
    EmulatedModel(
        "amazon.nova-lite-v1:0", "Nova Lite", ("ON_DEMAND", "INFERENCE_PROFILE"), ("us", "eu"), json_schema=False
    ),
    EmulatedModel(
        "amazon.nova-2-lite-v1:0", "Nova 2 Lite", ("INFERENCE_PROFILE",), ("global", "us"), json_schema=False
    ),
    EmulatedModel(
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "Claude Haiku 4.5",
        ("INFERENCE_PROFILE",),
        ("global", "us"),
        cache_min_tokens=4096,
    ),
    EmulatedModel(
        "anthropic.claude-haiku-5-5",
        "Claude Haiku 5.5",
        ("INFERENCE_PROFILE",),
        ("global", "us"),
        json_schema=False,
        sampling=False,
        thinking=True,
        cache_min_tokens=512,
        context_tokens=1_000_000,
        max_output_tokens=128_000,
    ),
    EmulatedModel("emulated.global-only-v1:0", "Global Only", ("INFERENCE_PROFILE",), ("global",)),
    EmulatedModel("emulated.newest-v1:0", "Newest", sampling=False, forced_tool=False, json_schema=False),
    EmulatedModel("emulated.plain-v1:0", "Plain", json_schema=False, tools=False, caching=False),
    EmulatedModel("emulated.old-v1:0", "Old", lifecycle="LEGACY"),
    EmulatedModel("anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet v2", gone=True),
    EmulatedModel("emulated.denied-v1:0", "Denied", access=False),
)


def find(model_id: str) -> tuple[EmulatedModel | None, bool]:
    """The model that an id, profile id or ARN names, and whether it is named by a profile."""
    name = model_id.rsplit("/", 1)[-1]
    for model in MODELS:
        if name == model.model_id:
            return model, False
        if name in {f"{g}.{model.model_id}" for g in model.geographies}:
            return model, True
        if name == "emulatedprof" and model.model_id == "amazon.nova-micro-v1:0":
            return model, True
    return None, False


def summary(model: EmulatedModel) -> dict[str, Any]:
    return {
        "modelArn": model.arn,
        "modelId": model.model_id,
        "modelName": model.name,
        "providerName": model.provider,
        "inputModalities": ["TEXT"],
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": [],
        "inferenceTypesSupported": list(model.inference_types),
        "modelLifecycle": {"status": model.lifecycle},
    }


def profile(model: EmulatedModel, geography: str) -> dict[str, Any]:
    return {
        "inferenceProfileName": f"{geography.upper()} {model.name}",
        "inferenceProfileArn": model.profile_arn(geography),
        "inferenceProfileId": f"{geography}.{model.model_id}",
        "models": [{"modelArn": model.arn}, {"modelArn": model.arn.replace(REGION, "us-west-2")}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }


def application_profile() -> dict[str, Any]:
    return {
        "inferenceProfileName": "ours",
        "inferenceProfileArn": f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/emulatedprof",
        "inferenceProfileId": "emulatedprof",
        "models": [{"modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/amazon.nova-micro-v1:0"}],
        "status": "ACTIVE",
        "type": "APPLICATION",
    }
