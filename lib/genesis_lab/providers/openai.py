"""Provider ``openai``: any server of chat completions (Ollama, vLLM, llama.cpp, LM Studio, Gemini, OpenAI)."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from pydantic import SecretStr

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient, Unreachable
from genesis_lab.providers.addresses import OPENAI_URL, may_get_key, on_this_machine, server_address
from genesis_lab.providers.base import NO_ROOM, Completion, Provider, Request, Usage, known, retry_after_s
from genesis_lab.providers.refusals import Refusals
from genesis_lab.providers.schemas import stated, without_bounds

CONNECT_S = 10.0
"""How long a server may take to accept a connection."""
_FORMS = ("bounds of the schema", "json_schema", "json_object")
_CHARACTERS_PER_TOKEN, _SHORT = 6, 500
"""More than any text of ours has; and the characters of a prompt from which on a count says something."""


class OpenAIProvider(Provider):
    """Answers by ``chat.completions`` of one or several servers of the same model in turn.

    What a server charges is not known. The key comes from the settings and goes to https addresses and this machine
    only, where `key_host` is set to that host only. 8 requests are in flight per server, each for `timeout_s` at most.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str] = (OPENAI_URL,),
        *,
        api_key: SecretStr | None = None,
        key_host: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.model = model
        self.base_urls = tuple(map(server_address, base_urls))
        self.concurrency = 8 * len(base_urls)
        self._secret = api_key.get_secret_value() if api_key else ""
        key = {"Authorization": f"Bearer {self._secret}"} if self._secret else {}
        self._clients = [
            httpx.Client(
                base_url=url,
                headers=key if may_get_key(url, key_host) else {},
                timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
                limits=httpx.Limits(max_connections=None),
                trust_env=not on_this_machine(url),  # no proxy between here and here
            )
            for url in self.base_urls
        ]
        self._turn = itertools.cycle(self._clients)
        self._refusals = Refusals(known("openai")["refusals"])

    def complete(self, request: Request) -> Completion:
        """One answer. What the server refuses by name is left out, see `Refusals`."""
        options = [name for name in ("temperature", "seed") if getattr(request, name) is not None]
        forms = _FORMS if request.schema is not None else ()
        answer = self._refusals.ask(partial(self._send, request), [*options, "max_tokens"], forms)
        return replace(answer, not_sent=tuple(name for name in answer.not_sent if name != "max_tokens"))

    def list_models(self) -> list[str]:
        """The models that the first server offers; raises the same errors as `complete`."""
        client = self._clients[0]
        told = self._call(client, "GET", "models")
        try:
            return sorted(str(model["id"]) for model in told.json()["data"])
        except (ValueError, KeyError, TypeError):
            raise Fatal(f"{client.base_url} answers, but not as an OpenAI-compatible server.") from None

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _send(self, request: Request, without: frozenset[str]) -> Completion:
        client, started, body = next(self._turn), time.perf_counter(), self._body(request, without)
        response, place = self._call(client, "POST", "chat/completions", json=body), str(client.base_url)
        try:
            answer = read_answer(response.text, self.model, place, response.headers)
        except ProviderError as error:
            raise self._without_key(error) from None
        n, note = sum(len(" ".join(message["content"].split())) for message in body["messages"]), answer.note
        if not note and (use := answer.usage) and n > max(_SHORT, use.all_prompt_tokens * _CHARACTERS_PER_TOKEN):
            note = (
                f"The server counted {use.all_prompt_tokens:,} tokens for a prompt of {n:,} characters: it seems to "
                "cut prompts, so give it a longer context (Ollama: OLLAMA_CONTEXT_LENGTH, llama.cpp: -c)."
            )
        return replace(answer, latency_s=time.perf_counter() - started, note=note)

    def _body(self, request: Request, without: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": []}
        body["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
        for name in {"temperature", "seed"} - without:
            if (value := getattr(request, name)) is not None:
                body[name] = value
        system, schema = request.system, request.schema
        if schema is not None:
            form = next((name for name in _FORMS if name not in without), None)
            if form in ("json_object", None):
                system = f"{system}\n\n{stated(schema)}".strip()
            if form == "json_object":
                body["response_format"] = {"type": "json_object"}
            elif form is not None:
                shape = without_bounds(schema) if form == "json_schema" else schema
                named = {"name": request.schema_name, "schema": shape, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": named}
        said = [("system", system)] * bool(system) + list(request.messages)
        body["messages"] = [{"role": role, "content": text} for role, text in said]
        return body

    def _call(self, client: httpx.Client, method: str, path: str, **sent: Any) -> httpx.Response:
        place = str(client.base_url)
        try:
            response = client.request(method, path, **sent)
        except httpx.RequestError as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise Unreachable(f"{place} can't be reached ({error}): is it running?", model=self.model) from None
            late = isinstance(error, httpx.ReadTimeout)
            how = f"did not answer within {client.timeout.read:g} s" if late else f"broke off ({error})"
            raise Transient(f"{place} {how}.", model=self.model) from None
        if response.is_error:
            raise self._without_key(typed(response.text, self.model, place, response.headers, response.status_code))
        return response

    def _without_key(self, error: ProviderError) -> ProviderError:
        """The error on one line, without the key, which some servers repeat."""
        said = str(error).replace(self._secret, "***") if self._secret else str(error)
        error.args = (" ".join(said.split())[:4000],)
        return error


def read_answer(body: str, model: str, place: str, headers: Mapping[str, str]) -> Completion:
    """The completion in the body of an answer with status 200, or the typed error where it holds one, or no answer."""
    try:
        return _read(json.loads(body), model, place, headers)
    except json.JSONDecodeError:
        if not body.strip() or body.lstrip()[0] in "{[":
            raise Transient(f"{place} sent a broken answer: {body[:200]!r}", model=model) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    said = "answers, but not as an OpenAI-compatible server: the address usually ends in /v1"
    raise Fatal(f"{place} {said}.", model=model)


def _read(data: Any, model: str, place: str, headers: Mapping[str, str]) -> Completion:
    data = data[0] if isinstance(data, list) else data  # as Gemini's errors are
    choice = (data["choices"] or [{}])[0] if "choices" in data else {}
    bare = data if data.get("object") == "error" or "detail" in data else None
    if failed := data.get("error") or choice.get("error") or bare:
        raise typed(failed, model, place, headers)
    if "choices" not in data:
        raise KeyError("choices")
    reason = str(choice.get("finish_reason"))
    if not choice or reason in ("error", "abort"):
        said = json.dumps(data, ensure_ascii=False)[:1000]
        raise Transient(f"{place} sent no answer: {said}", model=model)
    message, stop = choice["message"], known("openai")["stop_reasons"].get(reason, "other")
    text = message.get("content") or ""
    if isinstance(text, list):
        text = "".join(part.get("text", "") for part in text if part.get("type") in ("text", "output_text"))
    if not text.strip():  # a model that took the schema for a tool called it with the answer
        calls = message.get("tool_calls")
        given = calls[0]["function"]["arguments"] if calls else message.get("refusal") or ""
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if not text.strip() and stop != "max_tokens":  # servers that take the answer for a thought
        text = message.get("reasoning_content") or message.get("reasoning") or ""
    unbegun = not text.strip() or re.match(r"\s*<think(?!.*</think)", text, re.S)
    return Completion(
        text=text,
        model=model,
        usage=_usage(data.get("usage"), text),
        stop_reason="filtered" if message.get("refusal") else stop,
        created_at=datetime.now(UTC),
        note=NO_ROOM if unbegun and stop == "max_tokens" else None,
    )


def _usage(told: Any, text: str) -> Usage | None:
    """The tokens of an answer, or None where a server does not count; thoughts may be counted by the total only."""
    with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
        prompt, total = int(told["prompt_tokens"]), int(told.get("total_tokens") or 0)
        completion = max(int(told.get("completion_tokens") or 0), total - prompt)
        cached = min(max(0, int((told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)), prompt)
        if prompt > 0 and (completion > 0 or (completion == 0 and not text.strip())):
            return Usage(prompt - cached, completion, cached)
    return None


def typed(failed: Any, model: str, place: str, headers: Mapping[str, str], status: int | None = None) -> ProviderError:
    """The typed error for what a server says is wrong, an object or text; without a `status` the error itself tells."""
    if isinstance(failed, str):
        with suppress(ValueError):
            failed = json.loads(failed)
    failed = failed[0] if isinstance(failed, list) and failed else failed
    failed = (failed.get("error") or failed) if isinstance(failed, dict) else failed
    whole = failed if isinstance(failed, str) else json.dumps(failed, ensure_ascii=False, default=str)
    fields = failed if isinstance(failed, dict) else {}
    parts = [fields.get(name) for name in ("message", "param", "metadata", "detail")]
    said = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts if part]
    text = " ".join(said) or whole or f"{place} sent an error without a word."
    code = str(fields.get("code") or fields.get("status") or fields.get("type") or "") or None
    if not status and re.fullmatch(r"[45]\d\d", code or text):
        status = int(code or text)
    elif not status:  # one whose words say nothing is the server's own fault
        signs = known("openai")["status"].items()
        status = next((number for number, words in signs if re.search(words, code or text, re.I)), 500)
    details: dict[str, Any] = {"code": code, "status": status, "model": model}
    if status == 429 and (code == "insufficient_quota" or re.search(r"per.?day|daily|\b[RT]PD\b", whole, re.I)):
        return QuotaExhausted(text, **details)
    wait_s = retry_after_s(headers, whole)
    if status == 429:
        tokens = re.search(r"tokens?.?per|\bTPM\b", whole, re.I) or headers.get("x-ratelimit-remaining-tokens") == "0"
        return Throttled(text, scope="tokens" if tokens else "unknown", retry_after_s=wait_s, **details)
    if status in (408, 409, 425) or (status >= 500 and status != 501):
        return Transient(text, retry_after_s=wait_s, **details)
    if status in (401, 403):
        return Fatal(f"The server refuses the key, or access to {model}: {text}", **details)
    if status == 404:
        hint = "" if re.search(r"/v\d", place) else " (the address usually ends in /v1)"
        return Fatal(f"There is no {model} at {place}{hint}: {text}", **details)
    return Rejected(text, **details)
