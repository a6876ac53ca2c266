"""Conversations as the emulated models take them: what they refuse, how long they are, each maker's own form."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from bedrock_emulator.faults import Refusal, invalid
from bedrock_emulator.models import EmulatedModel, find

CHARACTERS_PER_TOKEN = 4


def find_model(model_id: str) -> EmulatedModel:
    """The model of an id, or the refusal that Bedrock gives."""
    model, by_profile = find(model_id)
    if model is None:
        raise invalid("The provided model identifier is invalid.")
    if model.gone:
        raise Refusal(404, "ResourceNotFoundException", "This model version has reached the end of its life.")
    if not model.access:
        raise Refusal(403, "AccessDeniedException", "You don't have access to the model with the specified model ID.")
    if "ON_DEMAND" not in model.inference_types and not by_profile:
        raise invalid(
            f"Invocation of model ID {model.model_id} with on-demand throughput isn’t supported. Retry your request "
            "with the ID or ARN of an inference profile that contains this model."
        )
    return model


def check_conversation(model: EmulatedModel, body: dict[str, Any]) -> None:
    """Raise what the service says about a conversation that its shapes allow and its models don't."""
    messages = body.get("messages") or []
    if not messages:
        raise invalid("The messages field is required.")
    if messages[0]["role"] != "user":
        raise invalid(
            "A conversation must start with a user message. Try again with a conversation that starts with a user message."
        )
    for i, message in enumerate(messages):
        if i and message["role"] == messages[i - 1]["role"]:
            raise invalid(f'messages: roles must alternate between "user" and "assistant", messages.{i} does not.')
        for j, block in enumerate(message["content"]):
            if "text" in block and not block["text"].strip():
                raise invalid(f"The text field in the ContentBlock object at messages.{i}.content.{j} is blank.")
    if messages[-1]["role"] != "user":
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    config, tools = body.get("inferenceConfig", {}), body.get("toolConfig")
    if config.get("maxTokens", 1) > model.max_output_tokens:
        raise invalid(f"The maximum tokens you requested exceeds the model limit of {model.max_output_tokens}.")
    if not model.sampling and ("temperature" in config or "topP" in config):
        name = "temperature" if "temperature" in config else "top_p"
        raise invalid(f"The model returned the following errors: `{name}` is deprecated for this model.")
    if "outputConfig" in body:
        if not model.json_schema:
            raise invalid(
                "This model doesn't support the outputConfig.textFormat field. Remove outputConfig and try again."
            )
        check_schema(body["outputConfig"].get("textFormat", {}))
    if tools and not model.tools:
        raise invalid("This model doesn't support tool use.")
    forced = bool(tools) and bool({"tool", "any"} & tools.get("toolChoice", {}).keys())
    thinking = body.get("additionalModelRequestFields", {}).get("thinking", {}).get("type", "adaptive")
    if model.thinking and forced and thinking != "disabled":
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    if forced and not model.forced_tool:
        raise invalid(
            "This model doesn't support the toolConfig.toolChoice.tool field. Remove toolConfig.toolChoice.tool and try again."
        )
    parts = prompt_parts(body)
    if not model.caching and any(marked for _, marked in parts):
        raise invalid("You invoked an unsupported model or your request did not allow prompt caching.")
    if sum(len(text) for text, _ in parts) > CHARACTERS_PER_TOKEN * model.context_tokens:
        raise invalid("Input is too long for requested model.")


_UNSUPPORTED = {"minLength", "maxLength", "minimum", "maximum", "multipleOf", "maxItems"}


def check_schema(text_format: dict[str, Any]) -> None:
    """Structured output takes a part of JSON schema only (Bedrock user guide, "Get validated JSON results")."""
    given = text_format.get("structure", {}).get("jsonSchema", {}).get("schema", "")
    try:
        schema = json.loads(given)
    except ValueError:
        raise invalid("The schema in outputConfig.textFormat is not JSON.") from None

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object" and part.get("additionalProperties") is not False:
                raise invalid("For 'object' type, 'additionalProperties' must be explicitly set to false.")
            if wrong := _UNSUPPORTED & part.keys():
                raise invalid(
                    f"For '{part.get('type')}' type, properties {', '.join(sorted(wrong))} are not supported."
                )
            for key, value in part.items():
                if key in ("properties", "$defs"):
                    for member in value.values():
                        walk(member)
                else:
                    walk(value)
        elif isinstance(part, list):
            for member in part:
                walk(member)

    walk(schema)


def prompt_parts(body: dict[str, Any]) -> list[tuple[str, bool]]:
    """The prompt in order: (text, whether a cache point follows)."""
    parts: list[tuple[str, bool]] = []
    tools = body.get("toolConfig", {}).get("tools", [])
    blocks = [*tools, *body.get("system", []), *(b for m in body.get("messages", []) for b in m["content"])]
    for block in blocks:
        if "cachePoint" in block:
            if parts:
                parts[-1] = (parts[-1][0], True)
        elif "toolSpec" in block:
            parts.append((json.dumps(block["toolSpec"]), False))
        else:
            parts.append((block.get("text", ""), False))
    return parts


def count_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def id_of(body: dict[str, Any]) -> str:
    key = body.get("requestMetadata", {}).get("request_key")
    return str(key or hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=12).hexdigest())


def from_native(model: EmulatedModel, body: dict[str, Any]) -> dict[str, Any]:
    """An InvokeModel body (Anthropic's or Nova's own form) as a Converse body."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise invalid(
            "Malformed input request: #: required key [messages] not found, please reformat your input and try again."
        )
    messages = [
        {"role": m["role"], "content": [{"text": m["content"]}] if isinstance(m["content"], str) else
         [{"text": b.get("text", "")} for b in m["content"]]}
        for m in body["messages"]
    ]  # fmt: skip
    system = body.get("system", [])
    system = [{"text": system}] if isinstance(system, str) else [{"text": b["text"]} for b in system]
    config = dict(body.get("inferenceConfig", {}))
    if model.provider == "anthropic":
        if "anthropic_version" not in body or "max_tokens" not in body:
            raise invalid("Malformed input request: anthropic_version and max_tokens are required.")
        config = {"maxTokens": body["max_tokens"]}
        config |= {"temperature": body["temperature"]} if "temperature" in body else {}
    return {"messages": messages, "system": system, "inferenceConfig": config}
