"""Provider ``bedrock``: any chat model of Amazon Bedrock, on demand, through the Converse operation."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from genesis_lab.errors import Fatal, Rejected, Transient
from genesis_lab.providers.base import NO_ROOM, Capabilities, Completion, Request, StopReason, Usage
from genesis_lab.providers.bedrock_account import Account, Target, as_provider_error
from genesis_lab.providers.models import ModelInfo, StructuredOutput, base_model_id, default_model, model_info
from genesis_lab.providers.schemas import stated, without_bounds
from genesis_lab.settings import Settings

CHARACTERS_PER_TOKEN = 4.0
"""For estimates before a call; English and Spanish prose."""

_STOP_REASONS: dict[str, StopReason] = {
    "end_turn": "end",
    "tool_use": "end",
    "stop_sequence": "stop_sequence",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "guardrail_intervened": "filtered",
    "content_filtered": "filtered",
    "refusal": "filtered",
    "malformed_model_output": "malformed",
    "malformed_tool_use": "malformed",
}


@dataclass(frozen=True)
class Dialect:
    """How one model is spoken to. It is stepped down when the model refuses something, and stays so.

    Parameters
    ----------
    structured_output : how it is held to a schema; the first is used, the others are what is left to try.
    sampling, cache, extra : whether temperature and top_p, cache points and `ModelInfo.extra` are sent.
    """

    structured_output: tuple[StructuredOutput, ...] = ("prompt",)
    sampling: bool = True
    cache: bool = False
    extra: bool = True

    @classmethod
    def of(cls, info: ModelInfo) -> Dialect:
        """What is known to work with a model."""
        return cls(info.structured_output, info.sampling, info.cache_min_tokens is not None)

    def stepped_down(self, message: str) -> Dialect | None:
        """Without what a 400 says is not supported; None if it says nothing of the kind."""
        said = message.casefold()
        mode = self.structured_output[0]
        lower = replace(self, structured_output=self.structured_output[1:]) if mode != "prompt" else None
        if self.sampling and any(word in said for word in ("temperature", "top_p", "topp")):
            return replace(self, sampling=False)
        if self.cache and any(word in said for word in ("cachepoint", "prompt caching", "cache_control")):
            return replace(self, cache=False)
        if mode == "tool" and "tool" in said:
            return lower
        if self.extra and "thinking" in said:
            return replace(self, extra=False)
        schema_words = ("outputconfig", "output_config", "textformat", "structured output", "output format", "schema")
        if mode == "json_schema" and any(word in said for word in (*schema_words, "additionalproperties", " type, ")):
            return lower
        return None


class BedrockProvider:
    """Answers requests with a model on Amazon Bedrock; credentials from the standard AWS chain.

    Parameters
    ----------
    model : model id, inference profile id or ARN; default: that of ``models.yaml``.
    settings : region, profile, endpoint URL and whether global profiles are allowed; default: the environment's.
    concurrency : most calls in flight at once; the quota decides how many there are.
    read_timeout_s : seconds that an answer may take.
    in_batch : most of the requests are to go through batch jobs; what `cost_usd` tells is their price.

    Attributes
    ----------
    info : what is known of the model.
    dialect : how it is spoken to by now.
    """

    name = "bedrock"

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
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._runtime: Any = None
        self._target: Target | None = None
        self._set_model(base_model_id(self.model))

    def _set_model(self, model_id: str) -> None:
        self.info = model_info(model_id)
        self._set_dialect(Dialect.of(self.info))

    def _set_dialect(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.capabilities = Capabilities(
            structured_output=dialect.structured_output[0],
            prompt_caching=dialect.cache,
            token_counting=True,
            batch=self.info.batch_share is not None,
            concurrency=self._concurrency,
        )

    def target(self) -> Target:
        """The id that is called for the model, found out once. Raises `Fatal`, see `Account.find`."""
        with self._lock:
            if self._target is None:
                self._target = self.account.find(self.model)
                if self._target.model_id != self.info.model_id:
                    self._set_model(self._target.model_id)
            return self._target

    def complete(self, request: Request) -> Completion:
        """One answer.

        Raises
        ------
        Throttled, Transient, QuotaExhausted, Rejected, Fatal : see `as_provider_error`. What a model refuses for its
            form (sampling, structured output, cache points) is asked again without it, and not sent any more.
        """
        target, started, profile_tried = self.target(), time.monotonic(), False
        before = dialect = self.dialect
        while True:
            body = converse_body(request, self.info, dialect)
            try:
                response = self._client().converse(modelId=target.call_id, **body)
                if not response.get("output") or "usage" not in response:
                    # botocore takes half a JSON document for an empty answer.
                    raise Transient("The answer arrived incomplete.", model=target.call_id)
                break
            except Exception as raised:
                error = as_provider_error(raised, target.call_id)
                said = str(raised).casefold()
                if "on-demand throughput" in said and "inference profile" in said and not profile_tried:
                    profile_tried = True
                    target = self._through_profile(target)
                elif isinstance(error, Rejected) and (lower := dialect.stepped_down(said)):
                    dialect = lower
                elif error is raised:
                    raise
                else:
                    raise error from raised
        with self._lock:  # only what was cured by it is left out from now on
            if dialect != before and self.dialect == before:
                self._set_dialect(dialect)
        completion = self.read(response, datetime.now(UTC), target=target)
        sampling = [name for name in ("temperature", "top_p") if getattr(request, name) is not None]
        not_sent = [] if dialect.sampling else sampling
        if request.schema is not None and dialect.structured_output[0] == "prompt":
            not_sent = ["json_schema", *not_sent]
        return replace(completion, latency_s=time.monotonic() - started, not_sent=tuple(not_sent))

    def read(
        self,
        response: Mapping[str, Any],
        created_at: datetime,
        *,
        target: Target | None = None,
        batch: bool = False,
    ) -> Completion:
        """The completion in a Converse response, `batch`: at the price of a batch job."""
        target = target or self.target()
        text, stop, usage = read_answer(response)
        return Completion(
            text=text,
            note=NO_ROOM if stop == "max_tokens" and not text.strip() else None,
            # An ARN may hold an account's number, which is nobody's business who gets the dataset.
            model=target.model_id if target.call_id.startswith("arn:") else target.call_id,
            usage=usage,
            stop_reason=stop,
            cost_usd=self._cost_usd(usage, target, batch) if usage else None,
            created_at=created_at,
        )

    def _through_profile(self, refused: Target) -> Target:
        with self._lock:
            if self._target is None or self._target == refused:
                self._target = self.account.find(self.model, need_profile=True)
            return self._target

    def _client(self) -> Any:
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    self._runtime = self.account.client("bedrock-runtime")
        return self._runtime

    def count_tokens(self, request: Request) -> int | None:
        """Tokens of the prompt as the service counts them (free of charge), or None if it does not for this model."""
        body = converse_body(request, self.info, self.dialect)
        asked = {name: body[name] for name in ("messages", "system", "toolConfig") if name in body}
        try:
            # Profiles are not taken here, only the model itself.
            counted = self._client().count_tokens(modelId=self.target().model_id, input={"converse": asked})
        except Exception as raised:
            error = as_provider_error(raised, self.model)
            if isinstance(error, Rejected | Fatal):
                return None
            raise error from raised
        return int(counted["inputTokens"])

    def notes(self) -> list[str]:
        """What to know before a run: a model on its way out, or whose price is not known. Raises `Fatal`, see `target`."""
        target, notes = self.target(), []
        if (target.lifecycle or self.info.lifecycle or "").casefold() == "legacy":
            notes.append(f"{target.model_id} is a legacy model: AWS will switch it off, choose a newer one soon.")
        if self.info.input is None or self.info.output is None:
            notes.append(f"The price of {target.model_id} is not known here, so costs are not shown.")
        else:
            notes.append(f"Prices of {target.model_id} are as of {self.info.checked}.")
        return notes

    def caching_pays(self, request: Request) -> bool | None:
        """Whether the request's stable prefix is long enough to be cached; None if the model's minimum is not known."""
        if self.info.cache_min_tokens is None:
            return None
        stable = len(request.system) + sum(len(text) for _, text in request.messages[: request.stable_messages])
        return stable / CHARACTERS_PER_TOKEN >= self.info.cache_min_tokens

    def cost_usd(self, usage: Usage) -> float | None:
        """The price of `usage`, or None when it is not known; before the first call the id given decides the geography."""
        regional = (self._target or Target(self.model, self.info.model_id)).regional
        return self.info.cost_usd(usage, regional=regional, batch=self.in_batch)

    def _cost_usd(self, usage: Usage, target: Target, batch: bool = False) -> float | None:
        prompt = usage.prompt_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        if prompt > (self.info.priced_to or math.inf):
            return None
        return self.info.cost_usd(usage, regional=target.regional, batch=batch)

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None


def converse_body(request: Request, info: ModelInfo, dialect: Dialect) -> dict[str, Any]:
    """The Converse request for `request`, but for the model id: also what a record of a batch job holds."""
    mode = dialect.structured_output[0] if request.schema is not None else None
    system = request.system
    if request.schema is not None and mode == "prompt":
        system = f"{system}\n\n{stated(request.schema)}".strip()
    stable = request.stable_messages
    body: dict[str, Any] = {
        "messages": [
            {"role": role, "content": [{"text": text}, *_cache_point(dialect.cache and number == stable)]}
            for number, (role, text) in enumerate(request.messages, start=1)
        ],
        "inferenceConfig": {"maxTokens": min(request.max_tokens, info.max_output_tokens or request.max_tokens)},
    }
    if system:
        body["system"] = [{"text": system}, *_cache_point(dialect.cache and not stable)]
    if request.key:
        body["requestMetadata"] = {"request_key": request.key}
    if dialect.sampling:
        chosen = {"temperature": request.temperature, "topP": request.top_p}
        body["inferenceConfig"] |= {name: value for name, value in chosen.items() if value is not None}
    if dialect.extra and info.extra:
        body["additionalModelRequestFields"] = info.extra
    if request.schema is not None and mode == "json_schema":
        schema = json.dumps(_closed(without_bounds(request.schema)), ensure_ascii=False)
        structure = {"jsonSchema": {"schema": schema, "name": request.schema_name}}
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    elif mode == "tool":
        tool = {
            "name": request.schema_name,
            "description": "Give your answer.",
            "inputSchema": {"json": request.schema},
        }
        body["toolConfig"] = {"tools": [{"toolSpec": tool}], "toolChoice": {"tool": {"name": request.schema_name}}}
    return body


def read_answer(response: Mapping[str, Any]) -> tuple[str, StopReason, Usage | None]:
    """Text, stop reason and usage of a Converse response; None where nothing was counted.

    The input of a forced tool is the text, and so is the thought of a model that ended without any other.
    """
    texts, thoughts = [], []
    for block in ((response.get("output") or {}).get("message") or {}).get("content") or ():
        given = (block.get("toolUse") or {}).get("input")
        if given is not None:
            texts = [given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)]
            break
        texts.append(block["text"] if isinstance(block.get("text"), str) else "")
        texts += (cited.get("text") or "" for cited in (block.get("citationsContent") or {}).get("content") or ())
        thoughts.append(((block.get("reasoningContent") or {}).get("reasoningText") or {}).get("text") or "")
    stop = _STOP_REASONS.get(response.get("stopReason") or "", "other")
    text, told = "".join(texts), response.get("usage") or {}
    if not text.strip() and stop != "max_tokens":
        text = "".join(thoughts) or text
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    counts = [max(0, int(told.get(name) or 0)) for name in names]
    return text, stop, Usage(*counts) if counts[0] + counts[2] + counts[3] else None


def _cache_point(wanted: bool) -> list[dict[str, Any]]:
    return [{"cachePoint": {"type": "default"}}] if wanted else []


def _closed(schema: Any) -> Any:
    """`schema` with every object closed, as structured output wants it (Bedrock user guide, "structured outputs")."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | {"additionalProperties": False} if schema.get("type") == "object" else closed
