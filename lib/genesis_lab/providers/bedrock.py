"""Provider ``bedrock``: any chat model of Amazon Bedrock, on demand, through the Converse operation."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

from genesis_lab import __version__, errors
from genesis_lab.errors import (
    Fatal,
    InvalidInput,
    MissingDependency,
    ProviderError,
    QuotaExhausted,
    Rejected,
    Throttled,
    Transient,
)
from genesis_lab.providers.addresses import may_get_key
from genesis_lab.providers.base import NO_ROOM, Completion, Provider, Request, StopReason, Usage, known, retry_after_s
from genesis_lab.providers.models import GEOGRAPHY, ModelInfo, base_model_id, default_model, model_info
from genesis_lab.providers.refusals import Refusals
from genesis_lab.providers.schemas import closed, stated
from genesis_lab.settings import Settings, get_settings


@dataclass(frozen=True)
class Target:
    """What to call for a model: `call_id` is an id, profile or ARN, `model_id` the foundation model behind it."""

    call_id: str
    model_id: str
    lifecycle: str | None = None

    @property
    def regional(self) -> bool:
        """The data stays in a geography or region."""
        return not self.call_id.rsplit("/", 1)[-1].startswith("global.")


class BedrockProvider(Provider):
    """Answers requests with a model on Amazon Bedrock; credentials from the standard AWS chain.

    The `model` (default: that of ``models.yaml``) is an id, inference profile id or ARN. At most `concurrency` calls
    are in flight, each for at most `read_timeout_s`. With `in_batch`, `cost_usd` tells the price in batch jobs.
    """

    name = "bedrock"
    batch: Any = None
    """The `BatchService` through which it answers in batch jobs as well."""

    def __init__(
        self,
        model: str | None = None,
        *,
        settings: Settings | None = None,
        concurrency: int = 256,
        read_timeout_s: float = 300.0,
        in_batch: bool = False,
    ) -> None:
        self.in_batch = in_batch
        self.model = model or default_model()
        self.account = Account(settings, connections=concurrency, read_timeout_s=read_timeout_s)
        self.concurrency = concurrency
        self.info = model_info(self.model)
        self.refusals = Refusals(known("bedrock")["refusals"])
        self._lock = threading.Lock()
        self._target: Target | None = None

    def target(self) -> Target:
        """The id that is called for the model, found out once. Raises `Fatal`, see `Account.find`."""
        with self._lock:
            if self._target is None:
                self._target = self.account.find(self.model)
                self.info = model_info(self._target.model_id)
            return self._target

    def complete(self, request: Request) -> Completion:
        """One answer; raises what `as_provider_error` makes of a fault. What the model refuses by name (sampling,
        structured output, cache points) is left out, see `Refusals`."""
        target, info, started = self.target(), self.info, time.monotonic()

        def send(without: frozenset[str]) -> Completion:
            try:
                response = self._runtime.converse(modelId=target.call_id, **converse_body(request, info, without))
            except Exception as raised:
                error = as_provider_error(raised, target.call_id)
                raise error from (None if error is raised else raised)
            if not response.get("output") or "usage" not in response:
                # botocore takes half a JSON document for an empty answer.
                raise Transient("The answer arrived incomplete.", model=target.call_id)
            return self.read(response, datetime.now(UTC))

        forms = [form for form in info.structured_output if form != "prompt" and request.schema is not None]
        there = {"temperature": request.temperature is not None, "cache": info.cache_min_tokens, "extra": info.extra}
        answer = self.refusals.ask(send, [name for name in there if there[name]], forms)
        lost = {
            "json_schema": request.schema is not None and set(forms) <= set(answer.not_sent),
            "temperature": there["temperature"] and (not info.sampling or "temperature" in answer.not_sent),
        }
        not_sent = tuple(name for name in lost if lost[name])
        return replace(answer, latency_s=time.monotonic() - started, not_sent=not_sent)

    def read(self, response: Mapping[str, Any], created_at: datetime, *, batch: bool = False) -> Completion:
        """The completion in a Converse response, `batch`: at the price of a batch job."""
        target = self.target()
        text, stop, usage = read_answer(response)
        priced = usage and usage.all_prompt_tokens <= (self.info.priced_to or math.inf)
        return Completion(
            text=text,
            # An ARN may hold an account's number, which is nobody's business who gets the dataset.
            model=target.model_id if target.call_id.startswith("arn:") else target.call_id,
            usage=usage,
            stop_reason=stop,
            cost_usd=self.info.cost_usd(usage, regional=target.regional, batch=batch) if usage and priced else None,
            created_at=created_at,
            note=NO_ROOM if stop == "max_tokens" and not text.strip() else None,
        )

    @cached_property
    def _runtime(self) -> Any:
        with self._lock:
            return self.__dict__.get("_runtime") or self.account.client("bedrock-runtime")

    def cost_usd(self, usage: Usage) -> float | None:
        """The price of `usage`, or None if unknown; before the first call the id given decides the geography."""
        regional = (self._target or Target(self.model, self.info.model_id)).regional
        return self.info.cost_usd(usage, regional=regional, batch=self.in_batch)

    def close(self) -> None:
        if runtime := self.__dict__.pop("_runtime", None):
            runtime.close()


class Account:
    """Clients of one account and region, made when they are first needed; they are safe to share between threads."""

    def __init__(
        self, settings: Settings | None = None, *, connections: int = 32, read_timeout_s: float = 300.0
    ) -> None:
        self.settings = settings or get_settings()
        self._connections, self._read_timeout_s = connections, read_timeout_s

    @cached_property
    def session(self) -> Any:
        try:
            import boto3
            import botocore.exceptions
        except ImportError:
            raise MissingDependency("boto3", "Amazon Bedrock", "pip install boto3") from None
        try:
            return boto3.Session(profile_name=self.settings.aws_profile, region_name=self.settings.aws_region)
        except botocore.exceptions.ProfileNotFound as error:
            raise InvalidInput(f"{error}: set GENESIS_AWS_PROFILE to one of `aws configure list-profiles`.") from None

    @property
    def region(self) -> str:
        if region := self.session.region_name:
            return str(region)
        raise InvalidInput("No AWS region: set GENESIS_AWS_REGION (or AWS_DEFAULT_REGION), for example to us-east-1.")

    def client(self, service: str, *, attempts: int = 1) -> Any:
        """A client that tries each call `attempts` times. Raises `InvalidInput` without a region."""
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=self._connections,
            read_timeout=self._read_timeout_s,
            connect_timeout=10,
            tcp_keepalive=True,
            # Short and fixed: boto3 builds its own anew for every call, which is a tenth of a call's CPU time.
            user_agent=f"genesis-lab/{__version__}",
        )
        url = None if service == "s3" else self.settings.bedrock_endpoint_url
        if url and self.settings.aws_bearer_token_bedrock and not may_get_key(url, None):
            raise InvalidInput("GENESIS_BEDROCK_ENDPOINT_URL must be https for a Bedrock API key, which http shows.")
        return self.session.client(service, region_name=self.region, endpoint_url=url, config=config)

    def identity(self) -> str:
        """The ARN of who calls. Raises `Fatal` with what is wrong with the credentials."""
        try:
            return str(self.client("sts").get_caller_identity()["Arn"])
        except Exception as error:
            raise as_provider_error(error) from error

    def find(self, model: str) -> Target:
        """Which id to call for `model` here: an ARN or profile as it is, a bare id as such where that works, else by
        its profile of this region's geography, else of another; by a ``global.`` one only if settings allow it.

        Raises `Fatal` where there is none, or it has been retired.
        """
        if model.startswith("arn:") or GEOGRAPHY.match(model):
            return self._permitted(Target(model, base_model_id(model)))
        info = model_info(model)
        if info.lifecycle == "ended":
            raise Fatal(f"{model} no longer answers (since {info.ends}): choose another model.", model=model)
        bedrock = self.client("bedrock")
        try:
            listed = {m["modelId"]: m for m in bedrock.list_foundation_models()["modelSummaries"]}
            pages = bedrock.get_paginator("list_inference_profiles").paginate(typeEquals="SYSTEM_DEFINED")
            profiles = [
                profile["inferenceProfileId"]
                for page in (pages if model in listed else ())
                for profile in page["inferenceProfileSummaries"]
                if any(base_model_id(m["modelArn"]) == model for m in profile["models"])
            ]
        except Exception as error:
            raise as_provider_error(error, model) from error
        if model not in listed:
            near = ", ".join(sorted(m for m in listed if m.split(".")[0] == model.split(".")[0])[:8]) or "none"
            raise Fatal(f"{model} is not offered in {self.region}; models of the same maker are: {near}.", model=model)
        lifecycle = listed[model].get("modelLifecycle", {}).get("status")
        if "ON_DEMAND" in listed[model].get("inferenceTypesSupported", []):
            return Target(model, model, lifecycle)
        if not profiles:
            said = f"{model} has no inference profile in {self.region}: choose another model or region."
            raise Fatal(said, model=model)
        here = self.region[:2]
        nearest = min(profiles, key=lambda name: (name.startswith("global."), not name.startswith(here), name))
        return self._permitted(Target(nearest, model, lifecycle))

    def _permitted(self, target: Target) -> Target:
        if target.regional or self.settings.bedrock_allow_global:
            return target
        raise Fatal(
            f"{target.call_id} may move your data to any region: set GENESIS_BEDROCK_ALLOW_GLOBAL=true to allow that, "
            "or choose another model.",
            model=target.call_id,
        )


def converse_body(request: Request, info: ModelInfo, without: Set[str] = frozenset()) -> dict[str, Any]:
    """The Converse request for `request`, but for the model id; `without` names what is left out, see `Refusals`."""
    form = next((each for each in info.structured_output if each not in without), "prompt")
    form = form if request.schema is not None else ""
    cached = info.cache_min_tokens is not None and "cache" not in without
    cache = [{"cachePoint": {"type": "default"}}] if cached else []
    system, stable = request.system, request.stable_messages
    if request.schema is not None and form == "prompt":
        system = f"{system}\n\n{stated(request.schema)}".strip()
    body: dict[str, Any] = {
        "messages": [
            {"role": role, "content": [{"text": text}, *(cache if number == stable else [])]}
            for number, (role, text) in enumerate(request.messages, start=1)
        ],
        "inferenceConfig": {"maxTokens": min(request.max_tokens, info.max_output_tokens or request.max_tokens)},
    }
    if system:
        body["system"] = [{"text": system}, *([] if stable else cache)]
    if request.key:
        body["requestMetadata"] = {"request_key": request.key}
    if info.sampling and "temperature" not in without and request.temperature is not None:
        body["inferenceConfig"]["temperature"] = request.temperature
    if info.extra and "extra" not in without:
        body["additionalModelRequestFields"] = info.extra
    if request.schema is not None and form == "json_schema":
        structure = {
            "jsonSchema": {"schema": _closed(json.dumps(request.schema, default=dict)), "name": request.schema_name}
        }
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    elif form == "tool":
        shape = {"json": request.schema}
        tool = {"name": request.schema_name, "description": "Give your answer.", "inputSchema": shape}
        body["toolConfig"] = {"tools": [{"toolSpec": tool}], "toolChoice": {"tool": {"name": request.schema_name}}}
    return body


@lru_cache(maxsize=64)
def _closed(schema: str) -> str:
    """A schema as strict structured output wants it, both as JSON: a run has few of them, and sends them often."""
    return json.dumps(closed(json.loads(schema)), ensure_ascii=False)


def read_answer(response: Mapping[str, Any]) -> tuple[str, StopReason, Usage | None]:
    """Text, stop reason and usage of a Converse response; None where nothing was counted.

    The input of a forced tool is the text, and so is the thought of a model that ended without any other.
    """
    texts, thoughts = [], []
    for block in ((response.get("output") or {}).get("message") or {}).get("content") or ():
        if (given := (block.get("toolUse") or {}).get("input")) is not None:
            texts = [given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)]
            break
        texts.append(block.get("text") or "")
        thoughts.append(((block.get("reasoningContent") or {}).get("reasoningText") or {}).get("text") or "")
    stop = known("bedrock")["stop_reasons"].get(response.get("stopReason") or "", "other")
    text, told = "".join(texts), response.get("usage") or {}
    if not text.strip() and stop != "max_tokens":
        text = "".join(thoughts) or text
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    counts = [max(0, int(told.get(name) or 0)) for name in names]
    return text, stop, Usage(*counts) if counts[0] + counts[2] + counts[3] else None


def as_provider_error(error: Exception, model: str | None = None) -> Exception:
    """What an exception of boto3 means to us; one that is not of service or network comes back as it is."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if "ClientError" in names:
        return _service_error(error, model)
    for signs, (kind, said) in known("bedrock")["raised"].items():
        if not set(signs.split("|")).isdisjoint(names):
            raised: type[ProviderError] = getattr(errors, kind)
            return raised(said.format(error=error, name=names[0]), model=model)
    return error


def _service_error(error: Any, model: str | None) -> ProviderError:
    told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, said, status = told.get("Code", ""), told.get("Message", ""), meta.get("HTTPStatusCode")
    wait_s, words = retry_after_s(meta.get("HTTPHeaders", {})), said.casefold()
    details: dict[str, Any] = {"code": code, "status": status, "model": model, "retry_after_s": wait_s}
    if code in ("ThrottlingException", "TooManyRequestsException"):
        if "per day" in words:
            later = "run the same again tomorrow, or now with provider: bedrock_batch"
            return QuotaExhausted(f"The daily quota of {model} is used up: {later}.", **details)
        scope: Any = next((scope for scope in ("requests", "tokens") if scope in words), "unknown")
        return Throttled(said or "Bedrock is throttling.", scope=scope, **details)
    if code in known("bedrock")["transient"] or (status or 0) >= 500:
        return Transient(f"{said or code} ({code})", **details)
    if code == "ServiceQuotaExceededException":
        return QuotaExhausted(f"A quota of the account is used up: {said}", **details)
    for sign, sentence in known("bedrock")["fatal"].items():
        if re.search(sign, f"{code} {said}", re.I):
            return Fatal(sentence.format(model=model or "this", said=said), **details)
    return Fatal(f"AWS refuses {model}: {said}", **details) if status == 403 else Rejected(said or code, **details)
