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
from bedrock_emulator.conversation import check_conversation, count_tokens, find_model, from_native, id_of, prompt_parts
from bedrock_emulator.faults import DENIALS, ERRORS, SHARES, Faults, Refusal, invalid
from bedrock_emulator.jobs import Batch, Jobs
from bedrock_emulator.models import ACCOUNT, MODELS, EmulatedModel, application_profile, find, profile, summary
from bedrock_emulator.quota import Bucket, Quota
from bedrock_emulator.stats import Stats

CACHE_S = 300.0


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
    """The emulated account: some models, one quota for each model and region. `region` is that of the present call."""

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
        self.region = ""
        self._limits: dict[tuple[str, str], _Limits] = {}
        self._cache: dict[str, float] = {}
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._fault_counts: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._regions: Counter[str] = Counter()
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
                regions=dict(self._regions),
                timeline=tuple(sorted(self._settled.items())),
            )

    # --- one request ---------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, query: str, body: bytes) -> Reply:
        """The reply to one HTTP request."""
        try:
            if path == "/" and b"GetCallerIdentity" in body:
                return self._identity()
            if self.faults.deny:
                raise Refusal(*DENIALS[self.faults.deny])
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
            status, code, message = DENIALS[self.faults.deny]
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
            self._regions[self.region] += 1
            self._first = self._first or now
            self._seen[request_id] += 1
            turn = self._seen[request_id]
            fault = self._fault()
        check_conversation(model, body)
        if fault == "reset":
            return Reply(0, b"", cut="before")
        if fault in ("throttled", "internal", "unavailable", "not_ready"):
            self._counts["throttled"] += fault == "throttled"
            return self._error(Refusal(*ERRORS[fault]))
        cap = body.get("inferenceConfig", {}).get("maxTokens", model.max_output_tokens)
        with self._lock:
            prompt, read, write = self._prompt_tokens(model, body, now)
            release = self._reserve(model, prompt + write + cap, now)
        text, output, stop = self._text(body, request_id, turn, cap)
        delay_s = self._delay_s(output) + (self.faults.slow_s if fault == "slow" else 0.0)
        if fault in ("timeout", "model_error"):
            refused = self._error(Refusal(*ERRORS[fault]), delay_s)
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
            if not any(getattr(self.faults, name) for name in SHARES):
                return None
            drawn, chosen = self._random.random(), None
            for name in SHARES:
                drawn -= getattr(self.faults, name)
                if drawn < 0:
                    chosen = name
                    break
        if chosen:
            self._fault_counts[chosen] += 1
        return chosen

    def _reserve(self, model: EmulatedModel, cost: float, now: float) -> Callable[[float], None]:
        """Take a call's reservation from the quota; returns what settles it. Raises the 429."""
        limits = self._limits.get(place := (self.region, model.model_id))
        if limits is None:
            tokens = Bucket(self.quota.tokens_per_minute, self.quota, now)
            limits = self._limits[place] = _Limits(tokens, Bucket(self.quota.requests_per_minute, self.quota, now))
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
        text = texts.answer(self._answers, system, task, request_id)
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
        return {"modelSummaries": [summary(m) for m in listed if kind is None or kind in m.inference_types]}

    def _GetFoundationModel(self, asked: dict[str, Any]) -> dict[str, Any]:
        model, _ = find(asked["modelIdentifier"])
        if model is None or model.gone:
            raise Refusal(404, "ResourceNotFoundException", "The specified model does not exist.")
        return {"modelDetails": summary(model)}

    def _ListInferenceProfiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("typeEquals") == "APPLICATION":
            return {"inferenceProfileSummaries": [application_profile()]}
        found = [profile(m, g) for m in MODELS if not m.gone for g in m.geographies]
        # Pages of three, so that whoever forgets to turn them is found out.
        start = int(asked.get("nextToken", 0))
        page: dict[str, Any] = {"inferenceProfileSummaries": found[start : start + 3]}
        return page | ({"nextToken": str(start + 3)} if start + 3 < len(found) else {})

    def _GetInferenceProfile(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked["inferenceProfileIdentifier"].rsplit("/", 1)[-1]
        if name == "emulatedprof":
            return application_profile()
        model, by_profile = find(name)
        if model is None or not by_profile:
            raise Refusal(404, "ResourceNotFoundException", "The inference profile does not exist.")
        return profile(model, name.split(".")[0])

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
