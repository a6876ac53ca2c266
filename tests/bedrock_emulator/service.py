"""What the emulated service does with a request: checks, quota, faults, answers, counters. Knows nothing of sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bedrock_emulator import answers as texts
from bedrock_emulator import wire
from bedrock_emulator.jobs import Batch, Jobs
from bedrock_emulator.models import ACCOUNT, MODELS, REGION, EmulatedModel, find
from bedrock_emulator.quota import Bucket, Quota

CHARACTERS_PER_TOKEN = 4
CACHE_S = 300.0


@dataclass(frozen=True)
class Faults:
    """Shares (0–1) of Converse and InvokeModel calls that go wrong, drawn from `seed` in order of arrival.

    Parameters
    ----------
    throttled, timeout, model_error, internal, unavailable, not_ready : 429 whatever the quota, 408, 424, 500, 503, 429
        ModelNotReadyException.
    reset : the connection is dropped before the model is asked.
    reset_after : the connection is dropped after the answer was made and paid for.
    truncated : half of the body arrives, then the connection is dropped. Paid for.
    garbled : the body arrives whole but is half a JSON document. Paid for.
    slow : answers that take `slow_s` more seconds.
    fail_first : so many calls get a 503 before anything works.
    daily_quota_after : calls answered before all further ones get "Too many tokens per day".
    retry_after_s : seconds sent as ``Retry-After`` and ``x-amz-retry-after`` (in ms) with a 429 or 503.
    deny : every call of every kind is refused: unknown key, wrong secret, swapped key and secret, old token, no rights.
    """

    throttled: float = 0.0
    timeout: float = 0.0
    model_error: float = 0.0
    internal: float = 0.0
    unavailable: float = 0.0
    not_ready: float = 0.0
    reset: float = 0.0
    reset_after: float = 0.0
    truncated: float = 0.0
    garbled: float = 0.0
    slow: float = 0.0
    slow_s: float = 5.0
    fail_first: int = 0
    daily_quota_after: int | None = None
    retry_after_s: float | None = None
    deny: Literal["key", "secret", "swapped", "expired", "access"] | None = None
    seed: int = 0


_SHARES = (
    "throttled", "timeout", "model_error", "internal", "unavailable", "not_ready",
    "reset", "reset_after", "truncated", "garbled", "slow",
)  # fmt: skip
_ERRORS = {
    "throttled": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "timeout": (408, "ModelTimeoutException", "The request took too long to process."),
    "model_error": (424, "ModelErrorException", "The request failed due to an error while processing the model."),
    "internal": (500, "InternalServerException", "An internal server error occurred. Retry your request."),
    "unavailable": (503, "ServiceUnavailableException", "The service isn't currently available. Try again later."),
    "not_ready": (429, "ModelNotReadyException", "The model is not ready to serve inference requests."),
}
_DENIALS = {
    "key": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "secret": (403, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."),
    "swapped": (403, "IncompleteSignature", "Credential must have exactly 5 slash-delimited elements."),
    "expired": (403, "ExpiredTokenException", "The security token included in the request is expired"),
    "access": (403, "AccessDeniedException", "User is not authorized to perform this action."),
}  # fmt: skip


@dataclass(frozen=True)
class Stats:
    """Counted by the server. An id is ``requestMetadata.request_key`` of a Converse call, else a hash of its body."""

    requests: int = 0
    """Converse and InvokeModel calls that arrived, whatever came of them."""
    answered: int = 0
    undelivered: int = 0
    """Answered and paid for, but lost on the way back."""
    throttled: int = 0
    rejected: int = 0
    """Answered with 400, 403 or 404."""
    faults: dict[str, int] = field(default_factory=dict)
    settled_tokens: float = 0.0
    """Tokens of quota used: prompt, cache writes, output × burndown."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the first call's arrival to the latest answer."""
    ids: dict[str, int] = field(default_factory=dict)
    """Request id to times answered and paid for."""
    seen: dict[str, int] = field(default_factory=dict)
    """Request id to times it arrived."""
    calls: dict[str, int] = field(default_factory=dict)
    """Operation to number of calls."""
    timeline: tuple[tuple[int, float], ...] = ()
    """(second since the first call, tokens of quota settled in it), for steady-state figures."""

    @property
    def duplicated(self) -> int:
        """Ids that were answered, and paid for, more than once."""
        return sum(count > 1 for count in self.ids.values())


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> Refusal:
    return Refusal(400, "ValidationException", message)


@dataclass
class Reply:
    """An HTTP answer to send in `delay_s` seconds. `settle` is called just before; `cut` says how it gets lost."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    settle: Callable[[], None] | None = None
    cut: Literal["before", "half"] | None = None


@dataclass
class _Limits:
    tokens: Bucket
    requests: Bucket


class Service:
    """The emulated account: one region, some models, one quota for each model."""

    def __init__(
        self,
        *,
        quota: Quota = Quota(),
        faults: Faults = Faults(),
        latency_s: float | tuple[float, float] = 0.0,
        tokens_per_second: float | None = None,
        answers: texts.Answers = "grammar",
        malformed: float = 0.0,
        output_tokens: int | tuple[int, int] | None = None,
        batch: Batch = Batch(),
        s3_url: str | None = None,
        s3_credentials: tuple[str, str] = ("emulated", "emulated"),
    ) -> None:
        self.quota, self.faults = quota, faults
        self._latency_s, self._tokens_per_second = latency_s, tokens_per_second
        self._answers, self._malformed, self._output_tokens = answers, malformed, output_tokens
        self._random = random.Random(faults.seed)
        self._limits: dict[str, _Limits] = {}
        self._cache: dict[str, float] = {}
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._fault_counts: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._settled: Counter[int] = Counter()
        self._first = self._last = 0.0
        self.jobs = Jobs(batch, s3_url, s3_credentials, self.answer_record, self.count_paid)

    # --- control -------------------------------------------------------------------------------------------------

    def change(self, quota: Quota) -> None:
        """Another quota from now on; what is reserved stays reserved."""
        with self._lock:
            self.quota = quota
            now = time.monotonic()
            for limits in self._limits.values():
                limits.tokens.change(quota.tokens_per_minute, now)
                limits.requests.change(quota.requests_per_minute, now)

    def stats(self) -> Stats:
        with self._lock:
            c = self._counts
            return Stats(
                requests=c["requests"],
                answered=c["answered"],
                undelivered=c["undelivered"],
                throttled=c["throttled"],
                rejected=c["rejected"],
                faults=dict(self._fault_counts),
                settled_tokens=sum(self._settled.values()),
                prompt_tokens=c["prompt"],
                completion_tokens=c["completion"],
                seconds=max(self._last - self._first, 0.0),
                ids=dict(self._ids),
                seen=dict(self._seen),
                calls=dict(self._calls),
                timeline=tuple(sorted(self._settled.items())),
            )

    # --- one request ---------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, query: str, body: bytes) -> Reply:
        """The reply to one HTTP request."""
        try:
            if path == "/" and b"GetCallerIdentity" in body:
                return self._identity()
            if self.faults.deny:
                raise Refusal(*_DENIALS[self.faults.deny])
            for operation in wire.operations():
                if operation.method == method and (found := operation.parameters(path, query)) is not None:
                    return self._run(operation, found, body)
            raise Refusal(404, "UnknownOperationException", f"{method} {path} is not emulated.")
        except Refusal as refusal:
            with self._lock:
                self._counts["rejected"] += refusal.status in (400, 403, 404)
            return self._error(refusal)

    def _run(self, operation: wire.Operation, found: dict[str, Any], raw: bytes) -> Reply:
        try:
            body = json.loads(raw) if raw and not (operation.raw_body and not raw.strip()) else {}
        except ValueError:
            raise Refusal(400, "SerializationException", "The body is not JSON.") from None
        if not operation.raw_body and (wrong := wire.problem(operation, body)):
            raise invalid(wrong)
        with self._lock:
            self._calls[operation.name] += 1
        if operation.name == "Converse":
            return self._converse(find_model(found["modelId"]), body, self._converse_reply)
        if operation.name == "InvokeModel":
            model = find_model(found["modelId"])
            return self._converse(model, from_native(model, body), native_reply(model))
        if operation.name == "CountTokens":
            return self._count_tokens(found, body)
        return _json(getattr(self, f"_{operation.name}")(found | body))

    def _error(self, refusal: Refusal, delay_s: float = 0.0) -> Reply:
        headers = {"x-amzn-ErrorType": refusal.code}
        if self.faults.retry_after_s is not None and refusal.status in (429, 503):
            headers["Retry-After"] = str(math.ceil(self.faults.retry_after_s))
            headers["x-amz-retry-after"] = str(int(1000 * self.faults.retry_after_s))
        return Reply(refusal.status, json.dumps({"message": refusal.message}).encode(), headers, delay_s)

    def _identity(self) -> Reply:
        """STS speaks XML."""
        if self.faults.deny:
            status, code, message = _DENIALS[self.faults.deny]
            error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            return Reply(status, f"<ErrorResponse>{error}</ErrorResponse>".encode(), {"Content-Type": "text/xml"})
        xml = (
            '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
            f"<Arn>arn:aws:iam::{ACCOUNT}:user/emulated</Arn><UserId>EMULATED</UserId><Account>{ACCOUNT}</Account>"
            "</GetCallerIdentityResult><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>"
            "</GetCallerIdentityResponse>"
        )
        return Reply(200, xml.encode(), {"Content-Type": "text/xml"})

    # --- inference -----------------------------------------------------------------------------------------------

    def _converse(self, model: EmulatedModel, body: dict[str, Any], reply: Callable[..., bytes]) -> Reply:
        now = time.monotonic()
        request_id = id_of(body)
        with self._lock:
            self._counts["requests"] += 1
            self._first = self._first or now
            self._seen[request_id] += 1
            turn = self._seen[request_id]
            fault = self._fault()
        check_conversation(model, body)
        if fault == "reset":
            return Reply(0, b"", cut="before")
        if fault in ("throttled", "internal", "unavailable", "not_ready"):
            self._counts["throttled"] += fault == "throttled"
            return self._error(Refusal(*_ERRORS[fault]))
        cap = body.get("inferenceConfig", {}).get("maxTokens", model.max_output_tokens)
        with self._lock:
            prompt, read, write = self._prompt_tokens(model, body, now)
            release = self._reserve(model, prompt + write + cap, now)
        text, output, stop = self._text(body, request_id, turn, cap)
        delay_s = self._delay_s(output) + (self.faults.slow_s if fault == "slow" else 0.0)
        if fault in ("timeout", "model_error"):
            refused = self._error(Refusal(*_ERRORS[fault]), delay_s)
            refused.settle = lambda: release(0.0)
            return refused
        usage = {"inputTokens": prompt, "outputTokens": output, "totalTokens": prompt + output + read + write}
        usage |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": write}
        payload = reply(body, text, stop, usage, int(1000 * delay_s))

        def settle() -> None:
            release(prompt + write + output * self.quota.burndown)
            with self._lock:
                self._counts["undelivered"] += fault in ("reset_after", "truncated", "garbled")
            self.count_paid(request_id, prompt + write + read, output)

        cut = {"reset_after": "before", "truncated": "half"}.get(fault or "")
        if fault == "garbled":
            payload = payload[: len(payload) // 2]
        headers = {"x-amzn-Bedrock-Input-Token-Count": str(prompt), "x-amzn-Bedrock-Output-Token-Count": str(output)}
        return Reply(200, payload, headers, delay_s, settle, cut)  # type: ignore[arg-type]

    def _fault(self) -> str | None:
        """What goes wrong with this call."""
        if self._counts["requests"] <= self.faults.fail_first:
            chosen: str | None = "unavailable"
        else:
            if not any(getattr(self.faults, name) for name in _SHARES):
                return None
            drawn, chosen = self._random.random(), None
            for name in _SHARES:
                drawn -= getattr(self.faults, name)
                if drawn < 0:
                    chosen = name
                    break
        if chosen:
            self._fault_counts[chosen] += 1
        return chosen

    def _reserve(self, model: EmulatedModel, cost: float, now: float) -> Callable[[float], None]:
        """Take a call's reservation from the quota; returns what settles it. Raises the 429."""
        limits = self._limits.get(model.model_id)
        if limits is None:
            tokens = Bucket(self.quota.tokens_per_minute, self.quota, now)
            limits = self._limits[model.model_id] = _Limits(
                tokens, Bucket(self.quota.requests_per_minute, self.quota, now)
            )
        daily = self.faults.daily_quota_after
        what = None
        if daily is not None and self._counts["answered"] >= daily:
            what = "Too many tokens per day"
        elif not limits.requests.fits(1, now):
            what = "Too many requests"
        elif not limits.tokens.fits(cost, now):
            what = "Too many tokens"
        if what:
            self._counts["throttled"] += 1
            raise Refusal(429, "ThrottlingException", f"{what}, please wait before trying again.")
        limits.requests.take(1)
        window = limits.tokens.take(cost)

        def release(settled: float) -> None:
            with self._lock:
                later = time.monotonic()
                limits.tokens.give_back(cost - settled, window, later)
                if settled:
                    self._settled[int(later - self._first)] += settled

        return release

    def _prompt_tokens(self, model: EmulatedModel, body: dict[str, Any], now: float) -> tuple[int, int, int]:
        """Tokens of the prompt that are not cached, read from the cache and written to it."""
        parts = prompt_parts(body)
        total = count_tokens("".join(text for text, _ in parts))
        last = max((i for i, (_, marked) in enumerate(parts) if marked), default=None)
        if last is None or not model.caching:
            return total, 0, 0
        prefix = "".join(text for text, _ in parts[: last + 1])
        size = count_tokens(prefix)
        if size < model.cache_min_tokens:
            return total, 0, 0
        key = f"{model.model_id}/{hashlib.blake2b(prefix.encode(), digest_size=12).hexdigest()}"
        hit = now - self._cache.get(key, -math.inf) < CACHE_S
        self._cache[key] = now
        return (total - size, size, 0) if hit else (total - size, 0, size)

    def _text(self, body: dict[str, Any], request_id: str, turn: int, cap: int) -> tuple[str, int, str]:
        system = "".join(block.get("text", "") for block in body.get("system", []))
        asked = [b["text"] for m in body["messages"] if m["role"] == "user" for b in m["content"] if "text" in b]
        task = next((text for text in reversed(asked) if texts._INTENT.search(text)), asked[-1] if asked else "")
        text = texts.answer(self._answers, system, task)
        if texts.is_broken(self._malformed, request_id, turn):
            text = texts.broken(
                text, int(hashlib.blake2b(f"{request_id}{turn}".encode(), digest_size=2).hexdigest(), 16)
            )
        output = count_tokens(text)
        if isinstance(self._output_tokens, int):
            output = self._output_tokens
        elif self._output_tokens is not None:
            output = random.Random(f"{request_id}/{turn}").randint(*self._output_tokens)
        if output <= cap:
            return text, output, "end_turn"
        return text[: int(len(text) * cap / output)], cap, "max_tokens"

    def _delay_s(self, output: int) -> float:
        first = self._latency_s if isinstance(self._latency_s, int | float) else self._random.uniform(*self._latency_s)
        return first + (output / self._tokens_per_second if self._tokens_per_second else 0.0)

    def count_paid(self, request_id: str, prompt: int, output: int) -> None:
        """An answer was made and is paid for."""
        with self._lock:
            self._ids[request_id] += 1
            self._counts["answered"] += 1
            self._counts["prompt"] += prompt
            self._counts["completion"] += output
            self._last = time.monotonic()

    @staticmethod
    def _converse_reply(body: dict[str, Any], text: str, stop: str, usage: dict[str, int], latency_ms: int) -> bytes:
        content: dict[str, Any] = {"text": text}
        choice = body.get("toolConfig", {}).get("toolChoice", {})
        if "tool" in choice or "any" in choice:
            try:
                given, stop = json.loads(text), "tool_use" if stop == "end_turn" else stop
            except ValueError:
                given, stop = {}, "malformed_tool_use" if stop == "end_turn" else stop
            name = choice.get("tool", body["toolConfig"]["tools"][0].get("toolSpec", {})).get("name", "answer")
            content = {"toolUse": {"toolUseId": "tooluse_0", "name": name, "input": given}}
        message = {"role": "assistant", "content": [content]}
        return json.dumps(
            {"output": {"message": message}, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": latency_ms}}
        ).encode()

    def answer_record(self, model_id: str, kind: str, model_input: dict[str, Any], record_id: str) -> dict[str, Any]:
        """What one record of a batch job gets. Raises `Refusal` for a record that can't be answered."""
        model = find_model(model_id)
        body = model_input if kind == "Converse" else from_native(model, model_input)
        if kind == "Converse":
            converse = next(o for o in wire.operations() if o.name == "Converse")
            if wrong := wire.problem(converse, {k: v for k, v in body.items() if k != "modelId"}):
                raise invalid(wrong)
        body = {k: v for k, v in body.items() if k != "modelId"}
        check_conversation(model, body)
        cap = body.get("inferenceConfig", {}).get("maxTokens", model.max_output_tokens)
        prompt = count_tokens("".join(text for text, _ in prompt_parts(body)))
        text, output, stop = self._text(body, record_id, 1, cap)
        usage = {"inputTokens": prompt, "outputTokens": output, "totalTokens": prompt + output}
        make = self._converse_reply if kind == "Converse" else native_reply(model)
        return dict(json.loads(make(body, text, stop, usage, 0)))

    def _count_tokens(self, found: dict[str, Any], body: dict[str, Any]) -> Reply:
        model = find_model(found["modelId"])
        asked = body["input"]
        if "invokeModel" in asked:
            asked = {"converse": from_native(model, json.loads(base64.b64decode(asked["invokeModel"]["body"])))}
        return _json({"inputTokens": count_tokens("".join(text for text, _ in prompt_parts(asked["converse"])))})

    # --- models and profiles -------------------------------------------------------------------------------------

    def _ListFoundationModels(self, asked: dict[str, Any]) -> dict[str, Any]:
        wanted, kind = asked.get("byProvider"), asked.get("byInferenceType")
        listed = [m for m in MODELS if not m.gone and wanted in (None, m.provider)]
        return {"modelSummaries": [_summary(m) for m in listed if kind is None or kind in m.inference_types]}

    def _GetFoundationModel(self, asked: dict[str, Any]) -> dict[str, Any]:
        model, _ = find(asked["modelIdentifier"])
        if model is None or model.gone:
            raise Refusal(404, "ResourceNotFoundException", "The specified model does not exist.")
        return {"modelDetails": _summary(model)}

    def _ListInferenceProfiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("typeEquals") == "APPLICATION":
            return {"inferenceProfileSummaries": [_application_profile()]}
        found = [_profile(m, g) for m in MODELS if not m.gone for g in m.geographies]
        # Pages of three, so that whoever forgets to turn them is found out.
        start = int(asked.get("nextToken", 0))
        page: dict[str, Any] = {"inferenceProfileSummaries": found[start : start + 3]}
        return page | ({"nextToken": str(start + 3)} if start + 3 < len(found) else {})

    def _GetInferenceProfile(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["inferenceProfileIdentifier"].rsplit("/", 1)[-1]
        if name == "emulatedprof":
            return _application_profile()
        model, by_profile = find(name)
        if model is None or not by_profile:
            raise Refusal(404, "ResourceNotFoundException", "The inference profile does not exist.")
        return _profile(model, name.split(".")[0])

    # --- batch jobs ----------------------------------------------------------------------------------------------

    def _CreateModelInvocationJob(self, asked: dict[str, Any]) -> dict[str, Any]:
        find_model(asked["modelId"])
        arn = self.jobs.create(asked)
        if arn is None:
            raise Refusal(409, "ConflictException", "The client request token was used for another job.")
        return {"jobArn": arn}

    def _GetModelInvocationJob(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._job(asked["jobIdentifier"]).describe()

    def _ListModelInvocationJobs(self, asked: dict[str, Any]) -> dict[str, Any]:
        jobs = [
            job.describe()
            for job in self.jobs.all()
            if asked.get("statusEquals") in (None, job.status) and asked.get("nameContains", "") in job.asked["jobName"]
        ]
        if asked.get("sortOrder") == "Descending":
            jobs.reverse()
        start, size = int(asked.get("nextToken", 0)), int(asked.get("maxResults", 10))
        page: dict[str, Any] = {"invocationJobSummaries": jobs[start : start + size]}
        return page | ({"nextToken": str(start + size)} if start + size < len(jobs) else {})

    def _StopModelInvocationJob(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not self._job(asked["jobIdentifier"]).stop():
            raise Refusal(409, "ConflictException", "The job is in a state in which it can't be stopped.")
        return {}

    def _job(self, identifier: str) -> Any:
        job = self.jobs.get(identifier)
        if job is None:
            raise Refusal(404, "ResourceNotFoundException", "The job does not exist.")
        return job


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


def native_reply(model: EmulatedModel) -> Callable[..., bytes]:
    def reply(body: dict[str, Any], text: str, stop: str, usage: dict[str, int], latency_ms: int) -> bytes:
        if model.provider != "anthropic":
            return Service._converse_reply(body, text, stop, usage, latency_ms)
        tokens = {"input_tokens": usage["inputTokens"], "output_tokens": usage["outputTokens"]}
        return json.dumps(
            {"id": "msg_0", "type": "message", "role": "assistant", "model": model.model_id, "stop_reason": stop,
             "content": [{"type": "text", "text": text}], "usage": tokens}
        ).encode()  # fmt: skip

    return reply


def _json(body: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode())


def _summary(model: EmulatedModel) -> dict[str, Any]:
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


def _profile(model: EmulatedModel, geography: str) -> dict[str, Any]:
    return {
        "inferenceProfileName": f"{geography.upper()} {model.name}",
        "inferenceProfileArn": model.profile_arn(geography),
        "inferenceProfileId": f"{geography}.{model.model_id}",
        "models": [{"modelArn": model.arn}, {"modelArn": model.arn.replace(REGION, "us-west-2")}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }


def _application_profile() -> dict[str, Any]:
    return {
        "inferenceProfileName": "ours",
        "inferenceProfileArn": f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/emulatedprof",
        "inferenceProfileId": "emulatedprof",
        "models": [{"modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/amazon.nova-micro-v1:0"}],
        "status": "ACTIVE",
        "type": "APPLICATION",
    }
